//! Published latencies of products and convolutions, as programs.

use arcane_mil::{BuildError, Builder, Convolution, Function, Op, Opset, PadType, Role, TensorType, ValueId};
use arcane_tensor::DType;

use super::model::{Coefficients, Load};
use super::{loads, staged_bytes};
use crate::Chip;

/// Rows of published measurements, copied: one program each, in ms. `source` and `run` say who measured it and when; `ports` is
/// the element type of the input and the output, which fp32 ones have cast inside.
const LATENCIES: &str = include_str!("../../data/latency.csv");

const HEADER: &str = "source,run,chip,os,kind,inputs,outputs,batch,height,width,kernel,depth,ports,ms";

/// A measured program.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Who measured it.
    pub(super) source: String,
    /// `conv`, `conv_chain`, `matmul`, or `compare` with one of those: a comparison with other devices.
    pub(super) kind: String,
    pub(super) chip: &'static Chip,
    /// What it took.
    pub(super) ms: f64,
    /// What its ops ask of the engine, and how many of them ask the same.
    loads: Vec<(Load, f64)>,
    staged_bytes: f64,
}

impl Row {
    /// What the model says, in ms.
    pub(super) fn predicted_ms(&self, coefficients: &Coefficients) -> f64 {
        let ops = self.loads.iter().map(|(load, count)| coefficients.times(load).longest() * count);
        let ns = coefficients.floor_ns() + coefficients.staging_ns(self.staged_bytes) + ops.sum::<f64>();
        ns * 1e-6
    }
}

/// All rows. A file that does not fit is a mistake in this crate, which its tests find.
pub(super) fn rows() -> Vec<Row> {
    let mut lines = LATENCIES.lines();
    assert_eq!(lines.next(), Some(HEADER), "data/latency.csv has other columns");
    let row =
        |(n, line): (usize, &str)| row(line).unwrap_or_else(|| panic!("data/latency.csv:{}: {line}", n + 2));
    lines.enumerate().map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[source, _, chip, _, kind, inputs, outputs, batch, height, width, kernel, depth, ports, ms] =
        fields.as_slice()
    else {
        return None;
    };
    let number = |text: &str| text.parse::<usize>().ok();
    let program = Measured {
        channels: [number(inputs)?, number(outputs)?],
        batch: number(batch)?,
        size: [number(height)?, number(width)?],
        kernel: number(kernel)?,
        depth: number(depth)?,
        ports: if ports == "fp32" { DType::F32 } else { DType::F16 },
        is_matmul: kind.ends_with("matmul"),
    };
    let chip = Chip::named(chip).ok()?;
    let function = program.function().ok()?;
    let mut counted: Vec<(Load, f64)> = Vec::new();
    for load in loads(chip, &function) {
        match counted.iter_mut().find(|(l, _)| *l == load) {
            Some((_, count)) => *count += 1.0,
            None => counted.push((load, 1.0)),
        }
    }
    Some(Row {
        source: source.into(),
        kind: kind.into(),
        chip,
        ms: ms.parse().ok()?,
        loads: counted,
        staged_bytes: staged_bytes(&function),
    })
}

/// What a row says of its program.
struct Measured {
    channels: [usize; 2],
    batch: usize,
    size: [usize; 2],
    kernel: usize,
    depth: usize,
    ports: DType,
    is_matmul: bool,
}

impl Measured {
    /// The program. All layers of a chain have one weight, as the chains that were measured probably have.
    fn function(&self) -> Result<Function, BuildError> {
        let mut f = Builder::new("main", Opset::Ios17);
        let [inputs, outputs] = self.channels;
        let [height, width] = self.size;
        // A constant that need not be made.
        let weight = |f: &mut Builder, shape: &[usize]| {
            f.parameter("w", TensorType::new(DType::F16, shape), Role::Constant)
        };
        let (shape, weight) = if self.is_matmul {
            (vec![height, inputs], weight(&mut f, &[outputs, inputs]))
        } else {
            let kernel = [outputs, inputs, self.kernel, self.kernel];
            (vec![self.batch, inputs, height, width], weight(&mut f, &kernel))
        };
        let x = f.parameter("x", TensorType::new(self.ports, &shape), Role::Batch);
        let mut x = self.cast(&mut f, x, DType::F16);
        for _ in 0..self.depth {
            x = if self.is_matmul { f.linear(x, weight, None)? } else { convolution(&mut f, x, weight)? };
        }
        let y = self.cast(&mut f, x, self.ports);
        f.output("y", y);
        Ok(f.finish())
    }

    fn cast(&self, f: &mut Builder, x: ValueId, dtype: DType) -> ValueId {
        if self.ports == DType::F16 { x } else { f.cast(x, dtype) }
    }
}

fn convolution(f: &mut Builder, x: ValueId, weight: ValueId) -> Result<ValueId, BuildError> {
    let same = Convolution { pad_type: PadType::Same, ..Convolution::pointwise(x, weight, None, 4) };
    f.push_one(Op::Convolution(same))
}
