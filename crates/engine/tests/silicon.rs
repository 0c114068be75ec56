//! The Neural Engine's arithmetic in the software engine, against the scalar model.

use arcane_chip::arithmetic::{Accumulator, Tables, binary, mean, rounded, sum, unary, value};
use arcane_engine::{LoadOptions, Numerics, SoftwareEngine, conformance};
use arcane_mil::{
    Binary, Builder, Convolution, Function, Op, Opset, Program, Reduce, Role, TensorType, Unary, ValueId,
};
use arcane_tensor::{DType, Tensor};

const NUMERICS: Numerics = Numerics::Chip(Tables::H16);

/// fp16 bits that are spread over exponents around `exponent`, the same for the same seed.
fn bits(n: usize, seed: u64, exponent: i32, spread: u64) -> Vec<u16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..n)
        .map(|_| {
            let field = (exponent + 15 + (next() % spread) as i32 - spread as i32 / 2).clamp(0, 31) as u16;
            (next() & 0x83ff) as u16 | field << 10
        })
        .collect()
}

fn tensor(shape: &[usize], bits: &[u16]) -> Tensor {
    let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    Tensor::from_bytes(DType::F16, shape, &bytes).unwrap()
}

fn halves(tensor: &Tensor) -> Vec<u16> {
    tensor.bytes().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

fn input(f: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    f.parameter(name, TensorType::new(DType::F16, shape), Role::Batch)
}

/// The output of a program of one function, whose inputs are in declared order.
fn run(numerics: Numerics, threads: usize, function: Function, inputs: &[Tensor]) -> Vec<u16> {
    let engine = SoftwareEngine::with_numerics(threads, numerics).unwrap();
    let names = function.parameters().iter().map(|p| p.name.clone());
    let inputs = names.zip(inputs.iter().cloned()).collect();
    let program = Program { functions: vec![function] };
    let outputs =
        conformance::run(&engine, &program, "main", &inputs, LoadOptions::default()).expect("it runs");
    halves(outputs.values().next().expect("an output"))
}

#[track_caller]
fn same(found: &[u16], expected: &[u16], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        // The sign of zero is not modelled.
        assert!(f == e || value(f) == value(e), "{what}, element {i}: {f:04x}, the model has {e:04x}");
    }
}

/// `x · y` of `[m, k]` and `[k, n]`, by the model.
fn product(x: &[u16], y: &[u16], bias: &[u16], [m, n, k]: [usize; 3]) -> Vec<u16> {
    let element = |i: usize| {
        let mut sum = Accumulator::new(bias.get(i % n).copied().unwrap_or(0));
        for kk in 0..k {
            sum.add(x[i / n * k + kk], y[kk * n + i % n]);
        }
        sum.result()
    };
    (0..m * n).map(element).collect()
}

fn matmul(shape: [usize; 3], transpose_y: bool) -> Function {
    let [m, n, k] = shape;
    let mut f = Builder::new("main", Opset::Ios17);
    let x = input(&mut f, "x", &[m, k]);
    let right = if transpose_y { [n, k] } else { [k, n] };
    let y = input(&mut f, "y", &right);
    let z = f.matmul(x, y, false, transpose_y).unwrap();
    f.output("z", z);
    f.finish()
}

/// Magnitudes at which products are dropped, rounded, ordinary, overflow, and are infinite or NaN.
#[test]
fn products_are_those_of_the_model_at_every_magnitude() {
    for (case, exponent) in [-14, -9, -8, -4, 0, 4, 7, 9, 15].into_iter().enumerate() {
        for shape in [[1, 1, 1], [3, 33, 7], [65, 40, 70], [4, 32, 300], [130, 5, 64]] {
            let [m, n, k] = shape;
            let x = bits(m * k, 1 + case as u64, exponent, 9);
            let y = bits(k * n, 101 + case as u64, exponent, 9);
            let inputs = [tensor(&[m, k], &x), tensor(&[k, n], &y)];
            let found = run(NUMERICS, 2, matmul(shape, false), &inputs);
            same(&found, &product(&x, &y, &[], shape), &format!("2^{exponent}, {shape:?}"));
        }
    }
}

#[test]
fn a_product_is_the_same_for_any_layout_and_number_of_threads() {
    let shape = [70, 1100, 33];
    let [m, n, k] = shape;
    let (x, y) = (bits(m * k, 5, -2, 12), bits(k * n, 6, -2, 12));
    let turned: Vec<u16> = (0..n * k).map(|i| y[i % k * n + i / k]).collect();
    let expected = product(&x, &y, &[], shape);
    let x = tensor(&[m, k], &x);
    same(&run(NUMERICS, 1, matmul(shape, false), &[x.clone(), tensor(&[k, n], &y)]), &expected, "one thread");
    same(&run(NUMERICS, 2, matmul(shape, true), &[x, tensor(&[n, k], &turned)]), &expected, "turned");
}

#[test]
fn a_bias_is_the_first_value_of_the_sum() {
    let (channels, outputs, width) = (20, 6, 40);
    let x = bits(channels * width, 7, 4, 8);
    let (w, b) = (bits(outputs * channels, 8, 4, 8), bits(outputs, 9, 13, 3));
    let mut f = Builder::new("main", Opset::Ios17);
    let input = input(&mut f, "x", &[1, channels, 1, width]);
    let weight = f.constant("w", tensor(&[outputs, channels, 1, 1], &w));
    let bias = f.constant("b", tensor(&[outputs], &b));
    let y = f.push_one(Op::Convolution(Convolution::pointwise(input, weight, Some(bias), 4))).unwrap();
    f.output("y", y);
    let found = run(NUMERICS, 2, f.finish(), &[tensor(&[1, channels, 1, width], &x)]);
    // The model's bias lies along columns, so the product is computed turned.
    let columns: Vec<u16> = (0..width * channels).map(|i| x[i % channels * width + i / channels]).collect();
    let turned: Vec<u16> = (0..channels * outputs).map(|i| w[i % outputs * channels + i / outputs]).collect();
    let expected = product(&columns, &turned, &b, [width, outputs, channels]);
    let expected: Vec<u16> =
        (0..outputs * width).map(|i| expected[i % width * outputs + i / width]).collect();
    same(&found, &expected, "convolution");
}

#[test]
fn elementwise_ops_are_those_of_the_model() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let x = tensor(&[1 << 16], &all);
    for kind in [
        Unary::Abs,
        Unary::Sign,
        Unary::Square,
        Unary::Sqrt,
        Unary::Rsqrt { epsilon: 1e-3 },
        Unary::Exp,
        Unary::Log { epsilon: 0.0 },
        Unary::Sigmoid,
        Unary::Silu,
    ] {
        let mut f = Builder::new("main", Opset::Ios17);
        let a = input(&mut f, "a", &[1 << 16]);
        let y = f.unary(kind, a).unwrap();
        f.output("y", y);
        let expected: Vec<u16> = all.iter().map(|&b| unary(Tables::H16, kind, b).unwrap()).collect();
        same(&run(NUMERICS, 2, f.finish(), std::slice::from_ref(&x)), &expected, &format!("{kind:?}"));
    }
    for kind in [Binary::Add, Binary::Sub, Binary::Mul, Binary::RealDiv, Binary::Maximum, Binary::Minimum] {
        for seed in 0..8 {
            let other = bits(1 << 16, 77 + seed, seed as i32 * 4 - 14, 12);
            let mut f = Builder::new("main", Opset::Ios17);
            let (a, b) = (input(&mut f, "a", &[1 << 16]), input(&mut f, "b", &[1 << 16]));
            let y = f.binary(kind, a, b).unwrap();
            f.output("y", y);
            let pairs = all.iter().zip(&other);
            let expected: Vec<u16> = pairs.map(|(&a, &b)| binary(Tables::H16, kind, a, b).unwrap()).collect();
            let found = run(NUMERICS, 2, f.finish(), &[x.clone(), tensor(&[1 << 16], &other)]);
            same(&found, &expected, &format!("{kind:?}"));
        }
    }
}

#[test]
fn sums_are_wide_and_rounded_once_along_any_axis() {
    let (rows, cols) = (37, 1500);
    let x = bits(rows * cols, 3, 0, 14);
    for (kind, axis) in [(Reduce::Sum, 1), (Reduce::Mean, 1), (Reduce::Sum, 0), (Reduce::Mean, 0)] {
        let mut f = Builder::new("main", Opset::Ios17);
        let a = input(&mut f, "a", &[rows, cols]);
        let y = f.reduce(kind, a, &[axis], false).unwrap();
        f.output("y", y);
        let reduce = |values: Vec<u16>| if kind == Reduce::Sum { sum(values) } else { mean(values) };
        let expected: Vec<u16> = if axis == 1 {
            x.chunks(cols).map(|row| reduce(row.to_vec())).collect()
        } else {
            (0..cols).map(|c| reduce(x.iter().skip(c).step_by(cols).copied().collect())).collect()
        };
        let found = run(NUMERICS, 2, f.finish(), &[tensor(&[rows, cols], &x)]);
        same(&found, &expected, &format!("{kind:?} over {axis}"));
    }
}

/// Read on an M5 Pro: normalised probabilities of 2⁻⁶ times a value of 0.0005 are dropped, one by one.
#[test]
fn attention_loses_what_its_products_drop() {
    let mut f = Builder::new("main", Opset::Ios18);
    let [q, k, v] = ["q", "k", "v"].map(|name| input(&mut f, name, &[1, 64, 32]));
    let y = f.attention(q, k, v, None).unwrap();
    f.output("y", y);
    let f = f.finish();
    let of = |value: f64| tensor(&[1, 64, 32], &[rounded(value); 64 * 32]);
    let inputs = [of(0.0), of(0.0), of(0.0005)];
    assert!(run(NUMERICS, 2, f.clone(), &inputs).iter().all(|&y| value(y) == 0.0));
    let declared = run(Numerics::Declared, 2, f, &inputs);
    assert!(declared.iter().all(|&y| (value(y) - 0.0005).abs() < 1e-6));
}

/// In fp32 numerics intermediate values are not rounded to fp16.
#[test]
fn fp16_values_can_be_fp32_inside() {
    let mut f = Builder::new("main", Opset::Ios17);
    let a = input(&mut f, "a", &[1]);
    let one = f.scalar(DType::F16, 1.0);
    let large = f.scalar(DType::F16, 2048.0);
    let up = f.add(a, large).unwrap();
    let up = f.add(up, one).unwrap();
    let y = f.sub(up, large).unwrap();
    f.output("y", y);
    let f = f.finish();
    let of = |numerics| value(run(numerics, 1, f.clone(), &[tensor(&[1], &[rounded(0.0)])])[0]);
    assert_eq!([of(Numerics::Declared), of(Numerics::Fp32), of(NUMERICS)], [0.0, 1.0, 2.0]);
}
