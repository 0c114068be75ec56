//! `arcane bench kernels`: what the machine's memory gives, and what the engine's kernels reach.

use std::hint::black_box;
use std::time::Instant;

use arcane_compile::{PlanOptions, plan_functions};
use arcane_mil::{BuildError, Builder, Opset, Role, TensorType, ValueId};
use arcane_session::Session;
use arcane_tensor::{DType, Tensor};
use serde_json::{Value, json};

use crate::device::{Chosen, Device, DeviceArguments};
use crate::failure::Failure;

/// Far more than caches hold.
const READ_BYTES: usize = 512 << 20;
/// The best of so many counts: the machine has other work, and the limit is what is asked for.
const REPETITIONS: usize = 7;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// `x · wᵀ` of so many rows, with a weight of `[n, k]`.
struct Case {
    name: &'static str,
    m: usize,
    n: usize,
    k: usize,
    dtype: DType,
}

/// Square products are bound by arithmetic; a single row is bound by reading the weight.
const CASES: [Case; 6] = [
    Case { name: "product 512×512×512 fp32", m: 512, n: 512, k: 512, dtype: DType::F32 },
    Case { name: "product 512×512×512 fp16", m: 512, n: 512, k: 512, dtype: DType::F16 },
    Case { name: "product 1024×2304×768 fp32", m: 1024, n: 2304, k: 768, dtype: DType::F32 },
    Case { name: "product 1024×2304×768 fp16", m: 1024, n: 2304, k: 768, dtype: DType::F16 },
    Case { name: "one row 1×49152×576 fp32", m: 1, n: 49152, k: 576, dtype: DType::F32 },
    Case { name: "one row 1×49152×576 fp16", m: 1, n: 49152, k: 576, dtype: DType::F16 },
];

/// The figures of this machine.
pub(crate) fn measure(arguments: &Arguments) -> Result<Value, Failure> {
    let chosen = arguments.device.choose(Device::Cpu)?;
    let threads = chosen.environment.engines.host.describe().threads;
    let memory = memory_read(threads);
    let kernels: Vec<Value> =
        CASES.iter().map(|case| kernel(case, &chosen)).collect::<Result<_, _>>().map_err(Failure::Failed)?;
    Ok(json!({
        "device": chosen.device,
        "threads": threads,
        "memory_read_gb_s": memory,
        "kernels": kernels,
    }))
}

/// Gigabytes a second that all threads read together, each its own part of an array: the best of several passes.
pub(super) fn memory_read(threads: usize) -> f64 {
    let words = vec![1u64; READ_BYTES / 8];
    let part = words.len().div_ceil(threads);
    best(|| {
        std::thread::scope(|scope| {
            for part in words.chunks(part) {
                scope.spawn(move || black_box(part.iter().fold(0u64, |sum, x| sum.wrapping_add(*x))));
            }
        });
        Ok::<_, Failure>(())
    })
    .map_or(0.0, |seconds| READ_BYTES as f64 / seconds / 1e9)
}

/// Seconds of the fastest of several runs, after one that is not timed.
fn best<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    run()?;
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn kernel(case: &Case, chosen: &Chosen) -> anyhow::Result<Value> {
    let &Case { name, m, n, k, dtype } = case;
    let plan = plan_functions(&[product(case)?], &PlanOptions::default())?;
    let session = Session::new(plan, &chosen.environment.engines)?;
    for (port, rows) in [("x", m), ("w", n)] {
        let values: Vec<f64> = (0..rows * k).map(|i| (i * 37 % 101) as f64 / 101.0 - 0.5).collect();
        session.set(port, &Tensor::from_f64s(dtype, &[rows, k], &values)?)?;
    }
    let call = session.call_id("product")?;
    let seconds = best(|| session.run(call))?;
    let bytes = (m * k + n * k + m * n) * dtype.size();
    Ok(json!({
        "name": name,
        "ms": seconds * 1e3,
        "gflops": 2.0 * (m * n * k) as f64 / seconds / 1e9,
        "gb_s": bytes as f64 / seconds / 1e9,
    }))
}

fn product(case: &Case) -> Result<arcane_mil::Function, BuildError> {
    let mut f = Builder::new("product", Opset::Ios18);
    let mut input = |name: &str, rows: usize| -> ValueId {
        f.parameter(name, TensorType::new(case.dtype, &[rows, case.k]), Role::Batch)
    };
    let (x, w) = (input("x", case.m), input("w", case.n));
    let y = f.linear(x, w, None)?;
    f.output("y", y);
    Ok(f.finish())
}
