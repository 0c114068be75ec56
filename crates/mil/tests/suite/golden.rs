//! Programs and their canonical text in `tests/cases`. `UPDATE=1` writes the files anew; read the difference.

use std::path::Path;

use arcane_mil::{
    Binary, BuildError, Builder, Compare, Convolution, Emitted, Function, Logical, Op, Opset, PadType,
    Program, Reduce, Role, ScatterMode, Strictness, TensorType, Unary, ValueId, print, verify,
};
use arcane_tensor::{DType, Tensor};

use super::reading::comes_back;
use super::tensor;

#[track_caller]
pub(super) fn prints(case: &str, functions: Vec<Function>) -> Emitted {
    let program = Program { functions };
    let emitted = print(&program).unwrap();
    assert_eq!(print(&program.clone()).unwrap(), emitted, "the same program gives the same bytes");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{case}.mil"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &emitted.text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some((n, (found, wanted))) =
        emitted.text.lines().zip(expected.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("{case}.mil:{}: found\n{found}\nexpected\n{wanted}", n + 1);
    }
    assert_eq!(emitted.text.len(), expected.len(), "{case}.mil has another length");
    if program.functions.iter().all(|f| verify(f, Strictness::Strict).is_ok()) {
        comes_back(&emitted);
    }
    emitted
}

fn refuses(f: Builder, message: &str) {
    let error = print(&Program { functions: vec![f.finish()] }).unwrap_err();
    assert_eq!(error.to_string(), message);
}

fn ty(dtype: DType, shape: &[usize]) -> TensorType {
    TensorType::new(dtype, shape)
}

/// Multiples of 1/64 that differ by position.
fn weight(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| ((i * 37 + seed) % 127) as f64 / 64.0 - 1.0).collect();
    tensor(DType::F16, shape, &values)
}

const DIM: usize = 32;
const LENGTH: usize = 4;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const WIDTH: usize = DIM / HEADS;

/// `[1, L, heads·E]` to `[1, heads, L, E]`.
fn heads(f: &mut Builder, x: ValueId, n: usize) -> Result<ValueId, BuildError> {
    let split = f.reshape(x, &[1, LENGTH, n, WIDTH])?;
    f.transpose(split, &[0, 2, 1, 3])
}

/// Each head of keys or values once for every query head that shares it.
fn repeated(f: &mut Builder, x: ValueId) -> Result<ValueId, BuildError> {
    let spread = f.reshape(x, &[1, KV_HEADS, 1, LENGTH, WIDTH])?;
    let copies = f.tile(spread, &[1, 1, HEADS / KV_HEADS, 1, 1])?;
    f.reshape(copies, &[1, HEADS, LENGTH, WIDTH])
}

fn attention(f: &mut Builder, x: ValueId, cos: ValueId, sin: ValueId) -> Result<ValueId, BuildError> {
    let kv = KV_HEADS * WIDTH;
    let wq = f.constant("wq.weight", weight(&[DIM, DIM], 1));
    let wk = f.constant("wk.weight", weight(&[kv, DIM], 2));
    let wv = f.constant("wv.weight", weight(&[kv, DIM], 3));
    let wo = f.constant("wo.weight", weight(&[DIM, DIM], 4));
    let (q, k, v) = (f.linear(x, wq, None)?, f.linear(x, wk, None)?, f.linear(x, wv, None)?);
    let (q, k, v) = (f.named(q, "q"), f.named(k, "k"), f.named(v, "v"));
    let (q, k, v) = (heads(f, q, HEADS)?, heads(f, k, KV_HEADS)?, heads(f, v, KV_HEADS)?);
    let (q, k) = (f.rope(q, cos, sin)?, f.rope(k, cos, sin)?);
    let (k, v) = (repeated(f, k)?, repeated(f, v)?);
    let causal: Vec<bool> = (0..LENGTH * LENGTH).map(|i| i % LENGTH <= i / LENGTH).collect();
    let mask = f.constant("mask", Tensor::new(&[1, 1, LENGTH, LENGTH], causal).unwrap());
    let mixed = f.attention(q, k, v, Some(mask))?;
    let back = f.transpose(mixed, &[0, 2, 1, 3])?;
    let joined = f.reshape(back, &[1, LENGTH, DIM])?;
    f.linear(joined, wo, None)
}

fn decoder() -> Result<Function, BuildError> {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("a0_x", ty(DType::F16, &[1, LENGTH, DIM]), Role::Batch);
    let cos = f.parameter("a1_cos", ty(DType::F16, &[LENGTH, WIDTH / 2]), Role::Batch);
    let sin = f.parameter("a2_sin", ty(DType::F16, &[LENGTH, WIDTH / 2]), Role::Batch);
    let targets = f.parameter("a3_targets", ty(DType::I32, &[LENGTH, 1]), Role::Batch);
    let weights = f.parameter("a4_weights", ty(DType::F16, &[LENGTH, 1]), Role::Batch);
    let hidden = f.scope("layers.0", |f| {
        let gain = f.constant("norm.weight", weight(&[DIM], 5));
        let normed = f.scope("norm", |f| f.rms_norm(x, gain, 1e-5))?;
        let attended = f.scope("attn", |f| attention(f, normed, cos, sin))?;
        let sum = f.add(x, attended)?;
        Ok(f.named(sum, "out"))
    })?;
    let loss = f.scope("loss", |f| {
        let head = f.constant("head.weight", weight(&[48, DIM], 6));
        let rows = f.reshape(hidden, &[LENGTH, DIM])?;
        f.cross_entropy(rows, head, targets, weights)
    })?;
    f.output("y0_hidden", hidden);
    f.output("y1_loss", loss);
    Ok(f.finish())
}

#[test]
fn decoder_block() {
    let emitted = prints("decoder_block", vec![decoder().unwrap()]);
    assert_eq!(emitted.weights.len() % 2, 0);
    assert!(!emitted.text.contains("inf") && !emitted.text.contains("nan"));
}

/// Every op once.
fn every_op(opset: Opset) -> Result<Function, BuildError> {
    let mut f = Builder::new("main", opset);
    let x = f.parameter("a0_x", ty(DType::F16, &[2, 4]), Role::Batch);
    let i = f.parameter("a1_i", ty(DType::I32, &[2, 4]), Role::Batch);
    let n = f.parameter("a2_n", ty(DType::I32, &[3]), Role::Batch);
    let updates = f.parameter("a3_updates", ty(DType::F16, &[3, 4]), Role::Batch);
    let bias = f.parameter("a4_bias", ty(DType::F16, &[2]), Role::Param);
    for kind in [
        Unary::Abs,
        Unary::Identity,
        Unary::Sign,
        Unary::Square,
        Unary::Sqrt,
        Unary::Exp,
        Unary::Sigmoid,
        Unary::Silu,
    ] {
        f.unary(kind, x)?;
    }
    f.rsqrt(x, 1e-5)?;
    f.unary(Unary::Log { epsilon: 0.0 }, x)?;
    f.cast(x, DType::F32);
    for kind in [Binary::Add, Binary::Sub, Binary::Mul, Binary::RealDiv, Binary::Maximum, Binary::Minimum] {
        f.binary(kind, x, x)?;
    }
    let mut condition = f.compare(Compare::Equal, x, x)?;
    for kind in
        [Compare::NotEqual, Compare::Less, Compare::LessEqual, Compare::Greater, Compare::GreaterEqual]
    {
        condition = f.compare(kind, x, x)?;
    }
    f.logical_and(condition, condition)?;
    f.push(Op::Logical { kind: Logical::Or, x: condition, y: condition })?;
    f.select(condition, x, x)?;
    for kind in [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::SumSquare, Reduce::LogSumExp] {
        f.reduce(kind, x, &[0, 1], true)?;
    }
    f.softmax(x, 1)?;
    f.matmul(x, x, false, true)?;
    f.linear(x, x, None)?;
    f.linear(x, x, Some(bias))?;
    let image = f.reshape(x, &[1, 2, 4])?;
    let kernel = f.constant("kernel", tensor(DType::F16, &[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]));
    let mut conv = Convolution::pointwise(image, kernel, None, 3);
    conv.groups = 2;
    f.push(Op::Convolution(conv.clone()))?;
    conv.bias = Some(f.constant("offset", tensor(DType::F16, &[2], &[0.5, 1.5])));
    (conv.pad_type, conv.pad, conv.strides) = (PadType::Custom, vec![1, 0], vec![2]);
    f.push(Op::Convolution(conv))?;
    if opset == Opset::Ios18 {
        let q = f.reshape(x, &[1, 2, 4])?;
        f.attention(q, q, q, None)?;
        f.attention(q, q, q, Some(condition)).unwrap_err();
        let mask = f.fill(DType::Bool, &[2, 2], 1.0);
        f.attention(q, q, q, Some(mask))?;
    }
    f.gather(x, n, 0)?;
    f.gather_along_axis(x, i, 1)?;
    f.scatter_add(x, n, updates, 0)?;
    f.push(Op::Scatter { data: x, indices: n, updates, axis: 0, mode: ScatterMode::Update })?;
    f.scatter_along_axis_add(x, i, x, 0)?;
    f.reshape(x, &[8])?;
    f.transpose(x, &[1, 0])?;
    f.concat(&[x, x, x], 0)?;
    let pieces = f.split(x, 1, &[1, 3])?;
    f.tile(x, &[2, 1])?;
    f.fill(DType::F16, &[2, 2], -0.5);
    f.output("z", pieces[1]);
    Ok(f.finish())
}

#[test]
fn ops_with_all_their_parameters() {
    prints("every_op", vec![every_op(Opset::Ios18).unwrap()]);
}

#[test]
fn older_opsets_use_the_long_dialect() {
    prints("long_dialect", vec![every_op(Opset::Ios15).unwrap()]);
}

#[test]
fn constants_inline_and_in_the_weight_file() {
    let mut f = Builder::new("main", Opset::Ios18);
    let inf = f64::INFINITY;
    let constants = [
        ("bool", tensor(DType::Bool, &[12], &[1.0; 12])),
        ("scalar.bool", tensor(DType::Bool, &[], &[0.0])),
        ("nine", tensor(DType::F16, &[3, 3], &[0.0, -0.0, 0.1, 1.0, -2.0, 65504.0, 6e-8, 0.5, 3.0])),
        ("ten", tensor(DType::F16, &[10], &[0.25; 10])),
        ("same ten", tensor(DType::F16, &[5, 2], &[0.25; 10])),
        ("ten.fp32", tensor(DType::F32, &[10], &[0.25; 10])),
        ("ten.int32", tensor(DType::I32, &[10], &[-7.0; 10])),
        ("long", tensor(DType::I64, &[11], &[9.0; 11])),
        ("int8", tensor(DType::I8, &[1, 2], &[-128.0, 127.0])),
        ("inf", tensor(DType::F16, &[2], &[inf, 1.0])),
        ("minus inf", tensor(DType::F32, &[], &[-inf])),
        ("nan", tensor(DType::Bf16, &[1], &[f64::NAN])),
        ("empty", tensor(DType::F16, &[0], &[])),
        ("3\"quoted\\path", tensor(DType::F32, &[], &[1.5])),
    ];
    for (name, constant) in constants {
        f.constant(name, constant);
    }
    let y = f.fill(DType::F16, &[1], 0.0);
    f.output("y", y);
    let emitted = prints("constants", vec![f.finish()]);
    assert_eq!(emitted.weights[..8], [6, 0, 0, 0, 2, 0, 0, 0], "six arrays, the two equal ones as one");
    assert_eq!(emitted.weights[128..148], [0x00, 0x34].repeat(10));
}

#[test]
fn functions_share_one_weight_file() {
    let make = |name: &str, seed| {
        let mut f = Builder::new(name, Opset::Ios18);
        let x = f.parameter("x", ty(DType::F16, &[1, 16]), Role::Batch);
        let w = f.constant("w", weight(&[16], seed));
        let y = f.mul(x, w).unwrap();
        f.output("y", y);
        f.finish()
    };
    let emitted = prints("two_functions", vec![make("first", 1), make("second", 1), make("third", 2)]);
    assert_eq!(emitted.weights[0], 2);
    let twice = print(&Program { functions: vec![make("f", 1), make("f", 1)] }).unwrap_err();
    assert_eq!(twice.to_string(), "the function name `f` is no identifier or is taken twice");
    let dotted = print(&Program { functions: vec![make("f.g", 1)] }).unwrap_err();
    assert_eq!(dotted.to_string(), "the function name `f.g` is no identifier or is taken twice");
}

#[test]
fn names_never_collide() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x.axis", ty(DType::F16, &[2, 2]), Role::Batch);
    let mut y = x;
    for path in ["s", "s", "s_axis", "2s", "y", ""] {
        y = f.softmax(y, 0).unwrap();
        f.set_path(y, path.into());
    }
    let z = f.abs(y).unwrap();
    f.output("y", z);
    prints("names", vec![f.finish()]);
}

#[test]
fn what_mil_cannot_say_is_an_error() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", ty(DType::F64, &[2]), Role::Batch);
    f.square(x).unwrap();
    refuses(f, "main: parameter `x`: MIL text has no values of type tensor<fp64, [2]>");

    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", ty(DType::F16, &[2]), Role::Batch);
    f.cast(x, DType::F64);
    refuses(f, "main: cast at `cast`: MIL text has no values of type tensor<fp64, [2]>");

    let mut f = Builder::new("main", Opset::Ios18);
    f.fill(DType::F16, &[2], f64::NEG_INFINITY);
    refuses(f, "main: fill at `fill`: value is infinite or NaN, which has no spelling");

    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", ty(DType::F16, &[2]), Role::Batch);
    f.rsqrt(x, 1e6).unwrap();
    refuses(f, "main: rsqrt at `rsqrt`: epsilon is infinite or NaN, which has no spelling");

    let mut f = Builder::new("main", Opset::Ios18);
    f.fill(DType::I8, &[1 << 31], 0.0);
    refuses(f, "main: fill at `fill`: shape has 2147483648, which int32 does not hold");

    let mut f = Builder::new("main", Opset::Ios17);
    let q = f.parameter("q", ty(DType::F16, &[1, 2, 4]), Role::Batch);
    f.attention(q, q, q, None).unwrap();
    refuses(
        f,
        "main: scaled_dot_product_attention at `scaled_dot_product_attention`: \
         the op exists from ios18, the function is ios17",
    );
}
