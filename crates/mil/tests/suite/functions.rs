//! Element-wise functions and activations, by hand.

use arcane_mil::{Binary, ChannelActivation, Channelwise, Gelu, Op, Reduce, Unary};
use arcane_tensor::DType;

use super::{INF, NAN, f32s, gives, i32s, tensor};

#[track_caller]
fn of(kind: Unary, dtype: DType, x: &[f64], expected: &[f64]) {
    let x = tensor(dtype, &[x.len()], x);
    gives(&[x], |f, x| f.unary(kind, x[0]), &tensor(dtype, &[expected.len()], expected));
}

#[test]
fn functions_of_floats() {
    use DType::F32;
    let pi = std::f64::consts::PI;
    of(Unary::Round, F32, &[0.5, 1.5, 2.5, -0.5, -1.5, NAN], &[0.0, 2.0, 2.0, -0.0, -2.0, NAN]);
    of(Unary::Floor, F32, &[1.5, -1.5, -0.0, INF], &[1.0, -2.0, -0.0, INF]);
    of(Unary::Ceil, F32, &[1.5, -1.5, 3.0, -INF], &[2.0, -1.0, 3.0, -INF]);
    of(Unary::Sin, F32, &[0.0, 1.0], &[0.0, 0.841_470_984_807_896_5]);
    of(Unary::Cos, F32, &[0.0, 1.0], &[1.0, 0.540_302_305_868_139_8]);
    of(Unary::Tan, F32, &[0.0, 1.0], &[0.0, 1.557_407_724_654_902_3]);
    of(Unary::Asin, F32, &[1.0, 0.0, 2.0], &[pi / 2.0, 0.0, NAN]);
    of(Unary::Acos, F32, &[1.0, 0.0, -1.0], &[0.0, pi / 2.0, pi]);
    of(Unary::Atan, F32, &[1.0, INF], &[pi / 4.0, pi / 2.0]);
    of(Unary::Atanh, F32, &[0.5, 1.0, 2.0], &[0.549_306_144_334_054_8, INF, NAN]);
    of(Unary::Sinh, F32, &[1.0, -INF], &[1.175_201_193_643_801_4, -INF]);
    of(Unary::Cosh, F32, &[1.0, -INF], &[1.543_080_634_815_243_7, INF]);
    of(Unary::Tanh, F32, &[1.0, -INF], &[0.761_594_155_955_764_9, -1.0]);
    of(Unary::Erf, F32, &[1.0, -0.5, INF], &[0.842_700_792_949_714_9, -0.520_499_877_813_046_5, 1.0]);
    of(Unary::Exp2, F32, &[3.0, -1.0, 0.5], &[8.0, 0.5, std::f64::consts::SQRT_2]);
    of(Unary::Inverse { epsilon: 0.0 }, F32, &[4.0, 0.0, -0.5], &[0.25, INF, -2.0]);
    of(Unary::Inverse { epsilon: 1e-4 }, DType::F16, &[0.0], &[1.0 / f64::from(half(1e-4))]);
    of(Unary::Clip { alpha: -1.0, beta: 0.5 }, F32, &[-2.0, 0.25, 3.0, NAN], &[-1.0, 0.25, 0.5, NAN]);
    of(Unary::Threshold { alpha: 0.5 }, F32, &[0.25, 3.0, NAN], &[0.5, 3.0, NAN]);
}

/// The fp16 value nearest to a number.
fn half(x: f64) -> f32 {
    arcane_tensor::round_to(DType::F16, x) as f32
}

#[test]
fn functions_of_integers() {
    of(Unary::Exp2, DType::I32, &[3.0, 0.0, -1.0, 31.0, 32.0], &[8.0, 1.0, 0.0, f64::from(i32::MIN), 0.0]);
    of(Unary::Threshold { alpha: 2.0 }, DType::I32, &[-7.0, 9.0], &[2.0, 9.0]);
}

#[test]
fn activations() {
    use DType::F32;
    let e = std::f64::consts::E;
    of(Unary::Relu, F32, &[-1.0, 2.0, NAN], &[0.0, 2.0, NAN]);
    of(Unary::Relu6, F32, &[-1.0, 2.0, 7.0], &[0.0, 2.0, 6.0]);
    of(Unary::LeakyRelu { alpha: 0.5 }, F32, &[-4.0, 0.0, 3.0], &[-2.0, 0.0, 3.0]);
    // The upper bound holds for what comes from below, too.
    of(Unary::ClampedRelu { alpha: -2.0, beta: 1.0 }, F32, &[-4.0, 0.5, 3.0], &[1.0, 0.5, 1.0]);
    of(Unary::ThresholdedRelu { alpha: 1.0 }, F32, &[0.5, 1.0, 3.0, NAN], &[0.0, 1.0, 3.0, 0.0]);
    of(Unary::Elu { alpha: 2.0 }, F32, &[-1.0, 0.0, 3.0], &[2.0 / e - 2.0, 0.0, 3.0]);
    of(Unary::SigmoidHard { alpha: 0.5, beta: 0.25 }, F32, &[-1.0, 0.5, 9.0], &[0.0, 0.5, 1.0]);
    of(Unary::ScaledTanh { alpha: 2.0, beta: 0.5 }, F32, &[2.0], &[2.0 * 0.761_594_155_955_764_9]);
    of(Unary::Softplus, F32, &[0.0, 1000.0, -1000.0], &[std::f64::consts::LN_2, 1000.0, 0.0]);
    of(Unary::Softsign, F32, &[3.0, -1.0], &[0.75, -0.5]);
    of(Unary::LinearActivation { alpha: 2.0, beta: 1.0 }, F32, &[3.0], &[7.0]);
    // Φ(1), and the approximations' own values.
    of(Unary::Gelu(Gelu::Exact), F32, &[1.0, -1.0], &[0.841_344_746_068_542_9, -0.158_655_253_931_457_05]);
    of(Unary::Gelu(Gelu::Tanh), F32, &[1.0, 0.0], &[0.841_191_990_606_828, 0.0]);
    of(Unary::Gelu(Gelu::Sigmoid), F32, &[1.0], &[1.0 / (1.0 + (-1.702f64).exp())]);
}

#[test]
fn activations_by_channel() {
    let x = f32s(&[1, 2, 2], &[-1.0, 2.0, -3.0, 4.0]);
    let (alpha, beta) = (f32s(&[2], &[0.5, 2.0]), tensor(DType::F16, &[2], &[1.0, 0.5]));
    gives(
        &[x.clone(), alpha.clone()],
        |f, v| {
            let kind = ChannelActivation::Prelu;
            f.push_one(Op::Channelwise(Channelwise { kind, x: v[0], alpha: v[1], beta: None }))
        },
        &f32s(&[1, 2, 2], &[-0.5, 2.0, -6.0, 4.0]),
    );
    let soft = |x: f64| x.exp().ln_1p();
    gives(
        &[x, alpha, beta],
        |f, v| {
            let kind = ChannelActivation::Softplus;
            f.push_one(Op::Channelwise(Channelwise { kind, x: v[0], alpha: v[1], beta: Some(v[2]) }))
        },
        &f32s(&[1, 2, 2], &[0.5 * soft(-1.0), 0.5 * soft(2.0), 2.0 * soft(-1.5), 2.0 * soft(2.0)]),
    );
}

#[test]
fn division_and_powers_of_floats() {
    let binary = |kind, x: &[f64], y: &[f64], expected: &[f64]| {
        let (x, y) = (f32s(&[x.len()], x), f32s(&[y.len()], y));
        gives(&[x, y], |f, v| f.binary(kind, v[0], v[1]), &f32s(&[expected.len()], expected));
    };
    binary(
        Binary::FloorDiv,
        &[7.0, -7.0, 7.0, 1.0, -1.0, INF, -1.0],
        &[2.0, 2.0, -2.0, 0.0, INF, 2.0, 0.0],
        &[3.0, -4.0, -4.0, INF, -1.0, NAN, -INF],
    );
    binary(
        Binary::Mod,
        &[5.5, -5.5, 5.5, 1.0, -1.0],
        &[2.0, 2.0, -2.0, 0.0, INF],
        &[1.5, 0.5, -0.5, NAN, INF],
    );
    binary(
        Binary::Pow,
        &[2.0, -2.0, -2.0, 0.0],
        &[0.5, 3.0, 0.5, -1.0],
        &[std::f64::consts::SQRT_2, -8.0, NAN, INF],
    );
}

#[test]
fn reductions_to_products_and_norms() {
    let reduced = |kind, x: &[f64], expected: f64| {
        gives(&[f32s(&[x.len()], x)], |f, v| f.reduce_all(kind, v[0]), &f32s(&[], &[expected]));
    };
    reduced(Reduce::Prod, &[2.0, -3.0, 0.5], -3.0);
    reduced(Reduce::Prod, &[], 1.0);
    reduced(Reduce::L1Norm, &[2.0, -3.0], 5.0);
    reduced(Reduce::L2Norm, &[3.0, -4.0], 5.0);
    reduced(Reduce::LogSum, &[1.0, 3.0], 4f64.ln());
    reduced(Reduce::LogSum, &[], -INF);
    let whole = |kind, x: &[f64], expected: f64| {
        gives(&[i32s(&[x.len()], x)], |f, v| f.reduce_all(kind, v[0]), &i32s(&[], &[expected]));
    };
    whole(Reduce::Mean, &[1.0, 2.0, 4.0], 2.0);
    whole(Reduce::L2Norm, &[1.0, 2.0, 4.0], 4.0);
    whole(Reduce::L1Norm, &[1.0, -2.0, 4.0], 7.0);
    whole(Reduce::Prod, &[65536.0, 65536.0, 3.0], 0.0);
    whole(Reduce::LogSum, &[10.0, 20.0], 3.0);
    whole(Reduce::LogSumExp, &[10.0, 10.0], 10.0);
}
