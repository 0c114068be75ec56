//! As `files.rs`, for what takes an engine.

use std::collections::BTreeMap;

use arcane_engine::{LoadOptions, SoftwareEngine, conformance};
use arcane_mil::{
    Binary, Builder, Compare, Function, Op, Operation, Opset, Program, Reduce, Role, Strictness, TensorType,
    Unary, ValueId, evaluate, verify,
};
use arcane_tensor::{DType, Tensor};

/// Operands beyond this, or not finite, are not compared: errors have no scale there.
const LARGEST: f64 = 1e3;

/// A program that the bytes pick op by op. It holds under the verifier, the software engine runs it, and every op of it gives what the
/// reference evaluator gives for the same operands.
pub(crate) fn random_program(data: &[u8]) {
    let mut bytes = Bytes(data);
    let function = program(&mut bytes);
    if let Err(e) = verify(&function, Strictness::Open) {
        panic!("a program was built wrong: {e}");
    }
    let inputs = inputs(&function, &mut bytes);
    let program = Program::new(vec![function.clone()]);
    thread_local!(static ENGINE: SoftwareEngine = SoftwareEngine::new(1).expect("a thread starts"));
    let results = [false, true].map(|fuse| {
        ENGINE.with(|engine| {
            let results = conformance::run(engine, &program, "main", &inputs, LoadOptions { fuse });
            results.unwrap_or_else(|e| panic!("the engine refuses a program: {e}"))
        })
    });
    // Every value is an output, so nothing is left to fuse away, and what is fused rounds where the program says.
    for output in function.outputs() {
        let (a, b) = (&results[0][&output.name], &results[1][&output.name]);
        assert_close(&output.name, b, a, &scale(a, 1.0));
    }
    let mut values: BTreeMap<ValueId, &Tensor> =
        function.parameters().iter().map(|p| (p.value, &inputs[&p.name])).collect();
    values.extend(function.outputs().iter().map(|o| (o.value, &results[0][&o.name])));
    for operation in function.operations() {
        compare(&function, operation, &values);
    }
}

/// Compares one op with the reference evaluator.
fn compare(function: &Function, operation: &Operation, values: &BTreeMap<ValueId, &Tensor>) {
    let operands = operation.op.operands();
    let in_scale = |v: &ValueId| values[v].to_f64s().iter().all(|x| x.abs() <= LARGEST);
    if !operands.iter().all(in_scale) {
        return;
    }
    let mut b = Builder::new("one", Opset::Ios18);
    let mut inputs = BTreeMap::new();
    let mut mapped = BTreeMap::new();
    for &v in &operands {
        let name = format!("x{}", v.index());
        let declare = || b.parameter(&name, function.ty(v).clone(), Role::Batch);
        let _ = mapped.entry(v).or_insert_with(declare);
        inputs.insert(name, values[&v].clone());
    }
    let results = b.push(operation.op.map_operands(|v| mapped[&v])).expect("the op is well-typed");
    for (i, &r) in results.iter().enumerate() {
        b.output(&format!("y{i}"), r);
    }
    let want = evaluate(&b.finish(), &inputs).expect("the reference evaluates the op");
    let largest = inputs.values().flat_map(Tensor::to_f64s).fold(1.0, |m: f64, x| m.max(x.abs()));
    let terms = inputs.values().map(Tensor::len).max().unwrap_or(1) as f64;
    let sums = match operation.op {
        Op::Matmul { .. } | Op::Reduce { kind: Reduce::SumSquare, .. } => largest * largest * terms,
        Op::Reduce { .. } => largest * terms,
        _ => 0.0,
    };
    for (i, r) in operation.results.iter().enumerate() {
        let want = &want[&format!("y{i}")];
        assert_close(operation.op.name(), values[r], want, &scale(want, sums));
    }
}

/// How far each element may be off: a few units in the last place of its type, and fp32 rounding of what is summed.
fn scale(want: &Tensor, sums: f64) -> Vec<f64> {
    let relative = match want.dtype() {
        DType::F16 => 2f64.powi(-9),
        DType::F32 => 2f64.powi(-20),
        _ => 0.0,
    };
    let smallest = if relative > 0.0 { 2f64.powi(-22) } else { 0.0 };
    let sums = if relative > 0.0 { sums * 2f64.powi(-20) } else { 0.0 };
    want.to_f64s().iter().map(|w| w.abs() * relative + smallest + sums).collect()
}

fn assert_close(op: &str, got: &Tensor, want: &Tensor, allowed: &[f64]) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{op}");
    for (i, allowed) in allowed.iter().enumerate() {
        let (got, want) = (got.get(i), want.get(i));
        let close = got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= *allowed;
        assert!(close, "{op}: element {i} is {got}, {want} was expected within {allowed}");
    }
}

/// Bytes that pick; zeros at the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn below(&mut self, n: usize) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A multiple of 1/8 in −4 to 4.
    fn number(&mut self) -> f64 {
        (self.below(65) as f64 - 32.0) / 8.0
    }
}

fn inputs(function: &Function, bytes: &mut Bytes<'_>) -> BTreeMap<String, Tensor> {
    let mut one = |p: &arcane_mil::Parameter| {
        let ty = function.ty(p.value);
        let mut element = |_| if ty.dtype.is_float() { bytes.number() } else { bytes.below(2) as f64 };
        let values: Vec<f64> = (0..ty.len()).map(&mut element).collect();
        (p.name.clone(), Tensor::from_f64s(ty.dtype, &ty.shape, &values).expect("as many as the shape has"))
    };
    function.parameters().iter().map(&mut one).collect()
}

/// Ops that fit what has been made so far; every value is an output.
fn program(bytes: &mut Bytes<'_>) -> Function {
    let mut b = Builder::new("main", Opset::Ios18);
    let dtype = bytes.pick(&[DType::F32, DType::F16]);
    let ty = |shape: &[usize]| TensorType::new(dtype, shape);
    let mut made = vec![
        b.parameter("x", ty(&[2, 3]), Role::Batch),
        b.parameter("y", ty(&[3, 2]), Role::Batch),
        b.parameter("z", ty(&[4, 1, 3]), Role::Batch),
        b.parameter("s", ty(&[]), Role::Batch),
    ];
    let indices = b.parameter("i", TensorType::new(DType::I32, &[2]), Role::Batch);
    let steps = 1 + bytes.below(24);
    for _ in 0..steps {
        let op = op(bytes, b.function(), &made, indices);
        // What does not fit is refused; that is the type rules' matter.
        if let Ok(results) = b.push(op) {
            let small = results.iter().all(|&r| b.ty(r).len() <= 4096 && b.ty(r).shape.len() <= 5);
            assert!(small || results.len() == 1, "pieces are smaller than the whole");
            made.extend(results.iter().filter(|&&r| b.ty(r).len() <= 256));
        }
    }
    let all: Vec<ValueId> = b.function().operations().iter().flat_map(|o| o.results.clone()).collect();
    for (k, v) in all.into_iter().enumerate() {
        b.output(&format!("out{k}"), v);
    }
    b.finish()
}

/// An op on values that have been made; it need not fit them.
fn op(bytes: &mut Bytes<'_>, f: &Function, made: &[ValueId], indices: ValueId) -> Op {
    let (x, y) = (bytes.pick(made), bytes.pick(made));
    let shape = &f.ty(x).shape;
    let axis = bytes.below(shape.len().max(1));
    match bytes.below(14) {
        0 => Op::Unary {
            kind: bytes.pick(&[
                Unary::Abs,
                Unary::Sign,
                Unary::Square,
                Unary::Sqrt,
                Unary::Exp,
                Unary::Sigmoid,
                Unary::Silu,
                Unary::Identity,
                Unary::Rsqrt { epsilon: 1e-3 },
                Unary::Log { epsilon: 1e-3 },
            ]),
            x,
        },
        1 | 2 => {
            let kinds =
                [Binary::Add, Binary::Sub, Binary::Mul, Binary::RealDiv, Binary::Maximum, Binary::Minimum];
            Op::Binary { kind: bytes.pick(&kinds), x, y }
        }
        3 => {
            let kinds = [Compare::Equal, Compare::NotEqual, Compare::Less, Compare::GreaterEqual];
            Op::Compare { kind: bytes.pick(&kinds), x, y }
        }
        4 => {
            let conditions = made.iter().copied().find(|&v| f.ty(v).dtype == DType::Bool);
            Op::Select { cond: conditions.unwrap_or(x), a: x, b: y }
        }
        5 => {
            let kinds =
                [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::SumSquare, Reduce::LogSumExp];
            let axes: Vec<usize> = (0..shape.len()).filter(|_| bytes.below(2) == 0).collect();
            Op::Reduce { kind: bytes.pick(&kinds), x, axes, keep_dims: bytes.below(2) == 0 }
        }
        6 => Op::Softmax { x, axis },
        7 => Op::Matmul { x, y, transpose_x: bytes.below(2) == 0, transpose_y: bytes.below(2) == 0 },
        8 => {
            let mut perm: Vec<usize> = (0..shape.len()).collect();
            let by = bytes.below(shape.len().max(1));
            perm.rotate_left(by);
            Op::Transpose { x, perm }
        }
        9 => {
            let mut shape = shape.clone();
            match bytes.below(3) {
                0 => shape = vec![f.ty(x).len()],
                1 => shape.insert(axis, 1),
                _ => shape.retain(|&d| d != 1),
            }
            Op::Reshape { x, shape }
        }
        10 => Op::Concat { values: vec![x, y, x][..=bytes.below(3)].to_vec(), axis },
        11 => {
            let length = shape.get(axis).copied().unwrap_or(1);
            let first = 1 + bytes.below(length.max(1));
            let sizes = if first < length { vec![first, length - first] } else { vec![length] };
            Op::Split { x, axis, sizes }
        }
        // Indices are 0 or 1.
        12 if shape.get(axis).is_some_and(|&length| length > 1) => Op::Gather { x, indices, axis },
        _ => {
            if bytes.below(2) == 0 {
                return Op::Tile { x, reps: shape.iter().map(|_| 1 + bytes.below(2)).collect() };
            }
            Op::Cast { x, dtype: bytes.pick(&[DType::F16, DType::F32, DType::Bool]) }
        }
    }
}
