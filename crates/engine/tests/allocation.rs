//! A call of a loaded function allocates nothing of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arcane_engine::{Buffer, Engine, LoadOptions, SoftwareEngine};
use arcane_mil::{AdamW, Builder, Function, Opset, Program, Reduce, Role, TensorType};
use arcane_tensor::DType;

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator.
#[expect(unsafe_code, reason = "a global allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A step with products, a gather, norms and an in-place optimiser.
fn small_step() -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[48, 48]);
    let [w, m, v] = ["w", "m", "v"].map(|name| f.parameter(name, ty.clone(), Role::State));
    let x = f.parameter("x", ty, Role::Batch);
    let step = f.parameter("step", TensorType::new(DType::F32, &[]), Role::Scalar);
    let built = (|| {
        let gain = f.fill(DType::F32, &[48], 1.0);
        let h = f.rms_norm(x, gain, 1e-5)?;
        let y = f.linear(h, w, None)?;
        let p = f.softmax(y, 1)?;
        let g = f.matmul(p, h, true, false)?;
        let norm = f.reduce_all(Reduce::SumSquare, g)?;
        f.output("norm", norm);
        let constants = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
        f.adamw(constants, [w, m, v], g, None, step, step)
    })();
    for (name, value) in ["w", "m", "v"].into_iter().zip(built.expect("well-typed")) {
        let output = format!("{name}.new");
        f.output(&output, value);
        f.alias(&output, name);
    }
    f.finish()
}

#[test]
fn a_call_allocates_nothing() {
    let engine = SoftwareEngine::new(2).expect("threads start");
    let program = Program { functions: vec![small_step()] };
    let loaded = engine.load(&program, "main", LoadOptions::default()).expect("it loads");
    let mut buffers: BTreeMap<String, Buffer> = BTreeMap::new();
    for port in loaded.ports() {
        let shared = port.name.strip_suffix(".new").and_then(|name| buffers.get(name).cloned());
        let buffer = shared.unwrap_or_else(|| engine.buffer(&port.ty).expect("memory"));
        buffers.insert(port.name.clone(), buffer);
    }
    let named: Vec<(&str, &Buffer)> = buffers.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let binding = loaded.bind(&named).expect("it binds");
    let mut calls: Vec<usize> = (0..80)
        .map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let ticket = loaded.submit(&binding).expect("it runs");
            loaded.wait(ticket, Duration::from_mins(1)).expect("it runs");
            ALLOCATIONS.load(Ordering::Relaxed) - before
        })
        .collect();
    // The queue through which a call enters the thread pool takes a new block every 63 calls; the median call does not.
    calls.sort_unstable();
    assert_eq!(calls[calls.len() / 2], 0, "{calls:?}");
}
