//! A call of a loaded function allocates nothing of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arcane_engine::{Buffer, Engine, LoadOptions, SoftwareEngine};
use arcane_mil::{
    Activation, AdamW, BuildError, Builder, Cell, Convolution, Function, Op, Opset, Position, Program,
    Quantization, Recurrent, Reduce, Role, Slice, TensorType, Way,
};
use arcane_tensor::{DType, Tensor};

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

/// Loss and gradients of a small Llama, which has every kernel that a training step uses.
fn whole_step() -> Function {
    let mut config = arcane_models::preset("stories260k").expect("a preset");
    (config.num_hidden_layers, config.vocab_size) = (2, 61);
    let mut f = Builder::new("main", Opset::Ios18);
    let parameters = arcane_models::declare_parameters(&mut f, &config);
    let ids = TensorType::new(DType::I32, &[2, 40]);
    let tokens = f.parameter("tokens", ids.clone(), Role::Batch);
    let targets = f.parameter("targets", ids, Role::Batch);
    let weights = f.parameter("weights", TensorType::new(DType::F32, &[2, 40]), Role::Batch);
    let (loss, _) =
        arcane_models::loss(&mut f, &config, &parameters, tokens, targets, weights).expect("well-typed");
    let one = f.scalar(DType::F32, 1.0);
    let wrt: Vec<_> = parameters.iter().map(|(_, v)| v).collect();
    let gradients = arcane_grad::gradients(&mut f, &[(loss, one)], &wrt).expect("differentiable");
    f.output("loss", loss);
    for (i, &gradient) in gradients.iter().enumerate() {
        f.output(&format!("gradient{i}"), gradient);
    }
    arcane_compile::simplify(&f.finish())
}

/// A product of one row, as in decoding, in fp16, and one of many batches.
fn decoding_step() -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let built = [(DType::F16, vec![1, 70]), (DType::F32, vec![20, 30, 70])].map(|(dtype, shape)| {
        let x = f.parameter(&format!("x.{dtype}"), TensorType::new(dtype, &shape), Role::Batch);
        let head = f.parameter(&format!("head.{dtype}"), TensorType::new(dtype, &[300, 70]), Role::Param);
        let logits = if shape.len() == 2 { f.linear(x, head, None) } else { f.matmul(x, head, false, true) };
        f.abs(logits?)
    });
    for (i, value) in built.into_iter().enumerate() {
        f.output(&format!("y{i}"), value.expect("well-typed"));
    }
    f.finish()
}

/// Kernels that no step of training has: integers, quantisation, a convolution of each channel, a recurrence, a slice at a
/// run-time position.
fn rare_kernels() -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let half = |shape: &[usize]| TensorType::new(DType::F32, shape);
    let i = f.parameter("i", TensorType::new(DType::I32, &[4, 6]), Role::Batch);
    let x = f.parameter("x", half(&[1, 4, 6, 6]), Role::Batch);
    let w = f.parameter("w", half(&[4, 1, 3, 3]), Role::Param);
    let sequence = f.parameter("sequence", half(&[5, 2, 3]), Role::Batch);
    let h = f.parameter("h", half(&[2, 4]), Role::Batch);
    let (ih, hh) =
        (f.parameter("ih", half(&[4, 3]), Role::Param), f.parameter("hh", half(&[4, 4]), Role::Param));
    let begin = f.parameter("begin", TensorType::new(DType::I32, &[2]), Role::Batch);
    let scale = f.constant("scale", Tensor::scalar(0.5f32));
    let outputs = (|| {
        let sum = f.add(i, i)?;
        let rows = f.reduce(Reduce::Sum, sum, &[1], false)?;
        let quantize = Quantization::Quantize { x, scale, zero_point: None, axis: None, dtype: DType::I8 };
        let quantized = f.push_one(Op::Quantization(quantize))?;
        let each = Convolution { groups: 4, ..Convolution::pointwise(x, w, None, 4) };
        let filtered = f.push_one(Op::Convolution(each))?;
        let recurrent = f.push(Op::Recurrent(Recurrent {
            cell: Cell::Rnn,
            x: sequence,
            initial_h: h,
            weight_ih: ih,
            weight_hh: hh,
            bias: None,
            way: Way::Forward,
            output_sequence: true,
            activation: Activation::Tanh,
        }))?;
        let slice = Slice::BySize { x: i, begin: Position::Value(begin), size: vec![2, 3] };
        let part = f.push_one(Op::Slice(slice))?;
        Ok::<_, BuildError>(vec![rows, quantized, filtered, recurrent[0], part])
    })();
    for (n, value) in outputs.expect("well-typed").into_iter().enumerate() {
        f.output(&format!("y{n}"), value);
    }
    f.finish()
}

/// Allocations of the median call. The queue through which a call enters the thread pool takes a new block every 63 calls.
fn allocations(function: Function) -> usize {
    let engine = SoftwareEngine::new(2).expect("threads start");
    let program = Program::new(vec![function]);
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
    calls.sort_unstable();
    calls[calls.len() / 2]
}

#[test]
fn a_call_allocates_nothing() {
    for function in [small_step(), whole_step(), decoding_step(), rare_kernels()] {
        assert_eq!(allocations(function), 0);
    }
}
