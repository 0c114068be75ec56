//! Random programs and inputs, the same for the same seed.

use std::collections::BTreeMap;

use arcane_mil::{
    Binary, Builder, Compare, Function, Opset, Reduce, Role, TensorType, Unary, ValueId, evaluate,
};
use arcane_tensor::{DType, Tensor};

/// Numbers from `SplitMix64` (Steele, Lea & Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// A multiple of 1/8 in −2..2; zeros of both signs are frequent.
    fn number(&mut self) -> f64 {
        match self.below(10) {
            0 => -0.0,
            1 => 0.0,
            _ => (self.below(33) as f64 - 16.0) / 8.0,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Inputs for every parameter: floats as from `number`, integers 0 or 1.
pub(crate) fn inputs(f: &Function, random: &mut Random) -> BTreeMap<String, Tensor> {
    let input = |p: &arcane_mil::Parameter| {
        let ty = f.ty(p.value);
        let element = |_| if ty.dtype.is_float() { random.number() } else { random.below(2) as f64 };
        let values: Vec<f64> = (0..ty.len()).map(element).collect();
        (p.name.clone(), Tensor::from_f64s(ty.dtype, &ty.shape, &values).expect("as many as the shape has"))
    };
    f.parameters().iter().map(input).collect()
}

/// The outputs of a function in the reference evaluator; inputs are rounded to the parameters' types.
pub(crate) fn outputs(f: &Function, inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let typed = f.parameters().iter().map(|p| (p.name.clone(), inputs[&p.name].cast(f.ty(p.value).dtype)));
    evaluate(f, &typed.collect()).expect("the function can be evaluated")
}

/// A random program of products, element-wise ops, casts, data movement and scatters on `[4, 4]`, `[4, 1]` and scalars, with
/// much that can be left out. Its outputs are all values that nothing else uses.
pub(crate) fn program(random: &mut Random, length: usize) -> Function {
    let mut b = Builder::new("random", Opset::Ios18);
    let f32s = |shape: &[usize]| TensorType::new(DType::F32, shape);
    let mut made = vec![
        b.parameter("w", f32s(&[4, 4]), Role::Param),
        b.parameter("gain", f32s(&[4]), Role::Param),
        b.parameter("x", f32s(&[4, 4]), Role::Batch),
    ];
    let rows = b.parameter("rows", TensorType::new(DType::I32, &[3]), Role::Batch);
    let columns = b.parameter("columns", TensorType::new(DType::I32, &[4, 1]), Role::Batch);
    for _ in 0..length {
        let x = random.pick(&made);
        let y = random.pick(&made);
        made.push(step(&mut b, random, x, y, [rows, columns]));
    }
    let mut used = vec![false; b.function().values().len()];
    for v in b.function().operations().iter().flat_map(|o| o.op.operands()) {
        used[v.index()] = true;
    }
    for (i, v) in made.into_iter().enumerate().filter(|(_, v)| !used[v.index()]) {
        b.output(&format!("out{i}"), v);
    }
    b.finish()
}

/// One more op on fp32 values that broadcast to `[4, 4]`.
fn step(b: &mut Builder, random: &mut Random, x: ValueId, y: ValueId, indices: [ValueId; 2]) -> ValueId {
    let full = b.fill(DType::F32, &[4, 4], 1.0);
    let made = match random.below(12) {
        0 => b.unary(
            random.pick(&[Unary::Abs, Unary::Square, Unary::Sigmoid, Unary::Silu, Unary::Identity]),
            x,
        ),
        1 => {
            let number = random.pick(&[0.0, -0.0, 1.0, 0.5]);
            let c = b.scalar(DType::F32, number);
            let kind = random.pick(&[Binary::Add, Binary::Sub, Binary::Mul]);
            if random.below(2) == 0 { b.binary(kind, x, c) } else { b.binary(kind, c, x) }
        }
        2 => {
            let dtype = random.pick(&[DType::F64, DType::F32, DType::F16]);
            let cast = b.cast(x, dtype);
            Ok(b.cast(cast, DType::F32))
        }
        3 | 4 => b.binary(random.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Maximum]), x, y),
        5 => {
            let flags = b.compare(Compare::Less, x, y).expect("equal types");
            b.select(flags, x, y)
        }
        6 => {
            let x = b.mul(full, x).expect("broadcasts");
            let flat = b.reshape(x, &[16]).expect("as many elements");
            b.reshape(flat, random.pick(&[&[4usize, 4], &[2, 8]])).and_then(|r| b.reshape(r, &[4, 4]))
        }
        7 => {
            let x = b.mul(full, x).expect("broadcasts");
            let t = b.transpose(x, &[1, 0]).expect("a permutation");
            if random.below(2) == 0 { Ok(t) } else { b.transpose(t, &[1, 0]) }
        }
        8 => {
            let (x, y) = (b.mul(full, x).expect("broadcasts"), b.mul(y, full).expect("broadcasts"));
            b.matmul(x, y, false, random.below(2) == 0).and_then(|p| b.scale(p, 0.25))
        }
        9 => {
            let x = b.mul(full, x).expect("broadcasts");
            b.reduce(random.pick(&[Reduce::Sum, Reduce::Mean, Reduce::Max]), x, &[1], true)
        }
        10 => {
            let y = b.mul(full, y).expect("broadcasts");
            let updates = b.split(y, 0, &[3, 1]).expect("4 rows")[0];
            let zeros = b.fill(DType::F32, &[4, 4], 0.0);
            let scattered = b.scatter_add(zeros, indices[0], updates, 0).expect("3 rows");
            let x = b.mul(full, x).expect("broadcasts");
            if random.below(2) == 0 { b.add(x, scattered) } else { b.add(scattered, x) }
        }
        _ => {
            let y = b.mul(full, y).expect("broadcasts");
            let updates = b.split(y, 1, &[1, 3]).expect("4 columns")[0];
            let zeros = b.fill(DType::F32, &[4, 4], 0.0);
            let scattered = b.scatter_along_axis_add(zeros, indices[1], updates, 1).expect("a column");
            let x = b.mul(full, x).expect("broadcasts");
            b.add(x, scattered)
        }
    };
    made.expect("operands broadcast to [4, 4]")
}

/// A random program of ops and shapes that a layout has to deal with: axes of length 1, batches that broadcast, reshapes
/// that cut axes where they have no common factors. Numbers stay small.
pub(crate) fn shaped_program(random: &mut Random, length: usize, dtype: DType) -> Function {
    let mut b = Builder::new("shaped", Opset::Ios18);
    let ty = |shape: &[usize]| TensorType::new(dtype, shape);
    let weights = [
        b.parameter("up", ty(&[6, 4]), Role::Param),
        b.parameter("down", ty(&[4, 6]), Role::Param),
        b.parameter("gain", ty(&[4]), Role::Param),
    ];
    let mut made = vec![
        b.parameter("x", ty(&[2, 3, 4]), Role::Batch),
        b.parameter("y", ty(&[1, 2, 6, 4]), Role::Batch),
        b.parameter("z", ty(&[4, 1]), Role::Batch),
        b.parameter("s", ty(&[]), Role::Scalar),
    ];
    let rows = b.parameter("rows", TensorType::new(DType::I32, &[2]), Role::Batch);
    while b.function().operations().len() < length {
        made.extend(shaped_step(&mut b, random, &made, &weights, rows));
    }
    let mut used = vec![false; b.function().values().len()];
    for v in b.function().operations().iter().flat_map(|o| o.op.operands()) {
        used[v.index()] = true;
    }
    let outputs: Vec<ValueId> = made
        .into_iter()
        .enumerate()
        .filter(|(i, v)| !used[v.index()] || i % 7 == 6)
        .map(|(_, v)| v)
        .collect();
    for (i, v) in outputs.into_iter().enumerate() {
        b.output(&format!("out{i}"), v);
    }
    b.finish()
}

/// The most elements of a value of a shaped program.
const MOST_ELEMENTS: usize = 600;

/// What one more op makes: nothing if the operands that were drawn do not fit.
fn shaped_step(
    b: &mut Builder,
    random: &mut Random,
    made: &[ValueId],
    weights: &[ValueId; 3],
    rows: ValueId,
) -> Vec<ValueId> {
    let (x, y) = (random.pick(made), random.pick(made));
    let (shape, dtype) = (b.shape(x), b.ty(x).dtype);
    let rank = shape.len();
    if b.ty(x).len() > MOST_ELEMENTS || b.ty(y).len() > MOST_ELEMENTS {
        return Vec::new();
    }
    let axis = random.below(rank.max(1));
    let result = match random.below(16) {
        0 => b.unary(random.pick(&[Unary::Abs, Unary::Sigmoid, Unary::Silu, Unary::Identity]), x),
        1 | 2 => b.binary(random.pick(&[Binary::Add, Binary::Sub, Binary::Maximum]), x, y),
        3 => b.mul(x, y).and_then(|p| b.scale(p, 0.25)),
        4 | 5 => b.reshape(x, &random_shape(random, shape.iter().product())),
        6 | 7 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            (1..rank).for_each(|i| perm.swap(i, random.below(i + 1)));
            b.transpose(x, &perm)
        }
        8 => {
            let axes: Vec<usize> = (0..rank).filter(|_| random.below(2) == 0).collect();
            let kind = random.pick(&[Reduce::Mean, Reduce::Max, Reduce::Min]);
            b.reduce(kind, x, &axes, random.below(2) == 0)
        }
        9 => b.softmax(x, axis),
        10 => {
            let (transpose_x, transpose_y) = (random.below(2) == 0, random.below(2) == 0);
            b.matmul(x, y, transpose_x, transpose_y).and_then(|p| b.scale(p, 0.25))
        }
        11 => b.linear(x, random.pick(weights), None).and_then(|p| b.scale(p, 0.25)),
        12 => {
            let mut other = shape.clone();
            other.iter_mut().skip(axis).take(1).for_each(|d| *d = 1 + random.below(2));
            let padding = b.fill(dtype, &other, 0.5);
            let values = random.pick(&[[x, x], [x, y], [x, padding], [padding, x]]);
            b.concat(&values, axis)
        }
        13 if rank > 0 && shape[axis] > 1 => {
            let first = 1 + random.below(shape[axis] - 1);
            return b.split(x, axis, &[first, shape[axis] - first]).unwrap_or_default();
        }
        14 => {
            let reps: Vec<usize> =
                (0..rank).map(|a| if a == axis { 1 + random.below(3) } else { 1 }).collect();
            b.tile(x, &reps)
        }
        15 if rank > 0 && shape[axis] > 1 => b.gather(x, rows, axis),
        _ => b.mul(x, weights[2]).and_then(|p| b.rms_norm(p, weights[2], 1e-5)),
    };
    result.into_iter().filter(|v| b.shape(*v).len() <= 5).collect()
}

/// A shape of rank 5 at most with a number of elements.
fn random_shape(random: &mut Random, mut elements: usize) -> Vec<usize> {
    let mut shape = Vec::new();
    for _ in 0..random.below(4) {
        let divisors: Vec<usize> = (1..=elements).filter(|d| elements.is_multiple_of(*d)).collect();
        let d = random.pick(&divisors);
        shape.push(d);
        elements /= d;
    }
    shape.push(elements);
    if random.below(4) == 0 {
        shape.insert(0, 1);
    }
    shape
}
