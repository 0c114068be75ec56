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
