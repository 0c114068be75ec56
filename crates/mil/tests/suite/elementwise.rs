//! Element-wise ops and reductions, by hand.

use arcane_mil::{Binary, Compare, Logical, Op, Reduce, Unary};
use arcane_tensor::DType;

use super::{INF, NAN, bools, f32s, fails, gives, i32s, tensor};

#[track_caller]
fn unary(kind: Unary, dtype: DType, x: &[f64], expected: &[f64]) {
    let x = tensor(dtype, &[x.len()], x);
    gives(&[x], |f, x| f.unary(kind, x[0]), &tensor(dtype, &[expected.len()], expected));
}

#[track_caller]
fn binary(kind: Binary, dtype: DType, x: &[f64], y: &[f64], expected: &[f64]) {
    let (x, y) = (tensor(dtype, &[x.len()], x), tensor(dtype, &[y.len()], y));
    gives(&[x, y], |f, x| f.binary(kind, x[0], x[1]), &tensor(dtype, &[expected.len()], expected));
}

#[track_caller]
fn reduced(kind: Reduce, dtype: DType, x: &[f64], expected: f64) {
    let x = tensor(dtype, &[x.len()], x);
    gives(&[x], |f, x| f.reduce(kind, x[0], &[0], false), &tensor(dtype, &[], &[expected]));
}

#[test]
fn unary_ops_of_floats() {
    use DType::{F16, F32};
    unary(Unary::Identity, F16, &[1.5, NAN, -INF], &[1.5, NAN, -INF]);
    unary(Unary::Abs, F32, &[-1.5, 0.0, -INF, NAN], &[1.5, 0.0, INF, NAN]);
    unary(Unary::Sign, F32, &[-3.0, -0.0, 0.0, INF, NAN], &[-1.0, 0.0, 0.0, 1.0, NAN]);
    unary(Unary::Square, F16, &[-3.0, 300.0], &[9.0, INF]);
    unary(Unary::Sqrt, F32, &[9.0, -1.0, INF], &[3.0, NAN, INF]);
    unary(Unary::Rsqrt { epsilon: 0.0 }, F32, &[4.0, 0.0, INF], &[0.5, INF, 0.0]);
    unary(Unary::Rsqrt { epsilon: 0.75 }, F32, &[3.25], &[0.5]);
    unary(Unary::Exp, F32, &[0.0, 1.0, -INF, 200.0], &[1.0, std::f64::consts::E, 0.0, INF]);
    unary(Unary::Log { epsilon: 0.0 }, F32, &[1.0, 0.0, -1.0], &[0.0, -INF, NAN]);
    unary(Unary::Log { epsilon: 0.5 }, F32, &[0.5], &[0.0]);
    unary(Unary::Sigmoid, F32, &[0.0, -INF, INF, 2.0], &[0.5, 0.0, 1.0, 0.880_797_077_977_882_3]);
    unary(Unary::Silu, F32, &[0.0, 2.0, -200.0, INF], &[0.0, 1.761_594_155_955_764_6, 0.0, INF]);
}

#[test]
fn an_epsilon_has_the_type_of_x() {
    unary(Unary::Rsqrt { epsilon: 1e-12 }, DType::F16, &[0.0], &[INF]);
    unary(Unary::Log { epsilon: 1e-12 }, DType::F16, &[0.0], &[-INF]);
}

#[test]
fn unary_ops_of_integers_wrap() {
    unary(Unary::Abs, DType::I32, &[-7.0, f64::from(i32::MIN)], &[7.0, f64::from(i32::MIN)]);
    unary(Unary::Sign, DType::I32, &[-7.0, 0.0, 9.0], &[-1.0, 0.0, 1.0]);
    unary(Unary::Square, DType::I32, &[-5.0, 65536.0, 46341.0], &[25.0, 0.0, -2_147_479_015.0]);
    unary(Unary::Square, DType::U8, &[16.0, 15.0], &[0.0, 225.0]);
}

#[test]
fn results_are_rounded_once_to_nearest_even() {
    binary(Binary::Add, DType::F16, &[2048.0, 2050.0], &[1.0, 1.0], &[2048.0, 2052.0]);
    binary(Binary::Mul, DType::F16, &[256.0], &[256.0], &[INF]);
    binary(Binary::Add, DType::F32, &[16_777_216.0], &[1.0], &[16_777_216.0]);
}

#[test]
fn binary_ops_of_floats() {
    use DType::F32;
    binary(Binary::Sub, F32, &[1.0, INF], &[3.0, INF], &[-2.0, NAN]);
    binary(Binary::RealDiv, F32, &[1.0, 1.0, 0.0, -1.0], &[4.0, 0.0, 0.0, 0.0], &[0.25, INF, NAN, -INF]);
    binary(Binary::Maximum, F32, &[1.0, NAN, 2.0, -INF], &[2.0, 1.0, NAN, 0.0], &[2.0, NAN, NAN, 0.0]);
    binary(Binary::Minimum, F32, &[1.0, NAN, 2.0, -INF], &[2.0, 1.0, NAN, 0.0], &[1.0, NAN, NAN, -INF]);
}

#[test]
fn binary_ops_of_integers() {
    use DType::I32;
    let (min, max) = (f64::from(i32::MIN), f64::from(i32::MAX));
    binary(Binary::Add, I32, &[max, 1.0], &[1.0, 2.0], &[min, 3.0]);
    binary(Binary::Sub, I32, &[min, 1.0], &[1.0, 2.0], &[max, -1.0]);
    binary(
        Binary::Mul,
        I32,
        &[65536.0, 2_000_000_011.0],
        &[65536.0, 2_000_000_011.0],
        &[0.0, -601_180_039.0],
    );
    binary(
        Binary::RealDiv,
        I32,
        &[7.0, -7.0, 7.0, -7.0, min],
        &[2.0, 2.0, -2.0, -2.0, -1.0],
        &[3.0, -3.0, -3.0, 3.0, min],
    );
    binary(Binary::Maximum, I32, &[1.0, -3.0], &[-2.0, -1.0], &[1.0, -1.0]);
    binary(Binary::Minimum, I32, &[1.0, -3.0], &[-2.0, -1.0], &[-2.0, -3.0]);
    binary(Binary::Sub, DType::U8, &[1.0], &[2.0], &[255.0]);
    let signs = [[7.0, -7.0, 7.0, -7.0, 5.0], [2.0, 2.0, -2.0, -2.0, 0.0]];
    binary(Binary::RealDiv, I32, &signs[0], &signs[1], &[3.0, -3.0, -3.0, 3.0, 0.0]);
    binary(Binary::FloorDiv, I32, &signs[0], &signs[1], &[3.0, -4.0, -4.0, 3.0, 0.0]);
    binary(Binary::Mod, I32, &signs[0], &[3.0, 3.0, -3.0, -3.0, 0.0], &[1.0, 2.0, -2.0, -1.0, 0.0]);
    binary(
        Binary::Pow,
        I32,
        &[3.0, -2.0, 0.0, 7.0, 0.0, -1.0, 3.0],
        &[4.0, 3.0, 0.0, -1.0, -1.0, -3.0, 21.0],
        &[81.0, -8.0, 1.0, 0.0, 0.0, -1.0, 1_870_418_611.0],
    );
}

#[test]
fn sixty_four_bit_integers_are_exact_or_refused() {
    let big = 2f64.powi(52);
    binary(Binary::Add, DType::I64, &[big], &[1.0], &[big + 1.0]);
    let x = tensor(DType::I64, &[1], &[big]);
    fails(
        &[x],
        |f, x| f.add(x[0], x[0]),
        "add at `add`: an integer beyond 2^53, which the reference evaluator cannot hold exactly",
    );
}

#[test]
fn operands_broadcast() {
    let x = f32s(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let y = f32s(&[3, 1], &[10.0, 20.0, 30.0]);
    let expected = [11.0, 12.0, 21.0, 22.0, 31.0, 32.0, 13.0, 14.0, 23.0, 24.0, 33.0, 34.0];
    gives(&[x.clone(), y.clone()], |f, x| f.add(x[0], x[1]), &f32s(&[2, 3, 2], &expected));
    gives(&[y, x], |f, x| f.add(x[0], x[1]), &f32s(&[2, 3, 2], &expected));
    gives(&[f32s(&[], &[2.0]), f32s(&[2], &[3.0, 4.0])], |f, x| f.mul(x[0], x[1]), &f32s(&[2], &[6.0, 8.0]));
    gives(&[f32s(&[0], &[]), f32s(&[1], &[3.0])], |f, x| f.mul(x[0], x[1]), &f32s(&[0], &[]));
}

#[test]
fn comparisons_are_false_for_nan_except_not_equal() {
    let cases = [
        (Compare::Equal, [0.0, 1.0, 0.0, 0.0]),
        (Compare::NotEqual, [1.0, 0.0, 1.0, 1.0]),
        (Compare::Less, [1.0, 0.0, 0.0, 0.0]),
        (Compare::LessEqual, [1.0, 1.0, 0.0, 0.0]),
        (Compare::Greater, [0.0, 0.0, 1.0, 0.0]),
        (Compare::GreaterEqual, [0.0, 1.0, 1.0, 0.0]),
    ];
    for (kind, expected) in cases {
        let x = f32s(&[4], &[1.0, 2.0, 3.0, NAN]);
        gives(&[x, f32s(&[1], &[2.0])], |f, x| f.compare(kind, x[0], x[1]), &bools(&[4], &expected));
    }
}

#[test]
fn logic_and_select() {
    let (x, y) = (bools(&[2, 1], &[0.0, 1.0]), bools(&[2], &[0.0, 1.0]));
    gives(std::slice::from_ref(&y), |f, v| f.unary(Unary::Not, v[0]), &bools(&[2], &[1.0, 0.0]));
    for (kind, expected) in [
        (Logical::And, [0.0, 0.0, 0.0, 1.0]),
        (Logical::Or, [0.0, 1.0, 1.0, 1.0]),
        (Logical::Xor, [0.0, 1.0, 1.0, 0.0]),
    ] {
        gives(
            &[x.clone(), y.clone()],
            |f, v| f.push_one(Op::Logical { kind, x: v[0], y: v[1] }),
            &bools(&[2, 2], &expected),
        );
    }
    gives(
        &[y, f32s(&[2, 1], &[1.0, 2.0]), f32s(&[], &[NAN])],
        |f, v| f.select(v[0], v[1], v[2]),
        &f32s(&[2, 2], &[NAN, 1.0, NAN, 2.0]),
    );
}

#[test]
fn casts() {
    let cast = |from, x: &[f64], to, expected: &[f64]| {
        let x = tensor(from, &[x.len()], x);
        gives(&[x], |f, x| Ok(f.cast(x[0], to)), &tensor(to, &[expected.len()], expected));
    };
    cast(DType::F32, &[1.9, -1.9, 300.0, NAN], DType::I8, &[1.0, -1.0, 44.0, 0.0]);
    cast(DType::I32, &[300.0, -1.0], DType::U8, &[44.0, 255.0]);
    cast(DType::F32, &[0.0, 0.3, -1.0, NAN], DType::Bool, &[0.0, 1.0, 1.0, 1.0]);
    cast(DType::F32, &[65504.0, 65520.0, 2049.0], DType::F16, &[65504.0, INF, 2048.0]);
    cast(DType::Bool, &[0.0, 1.0], DType::F16, &[0.0, 1.0]);
    cast(DType::I32, &[-7.0, 16_777_217.0], DType::F32, &[-7.0, 16_777_216.0]);
}

#[test]
fn constants_and_fills() {
    gives(&[], |f, _| Ok(f.constant("c", i32s(&[2], &[4.0, -5.0]))), &i32s(&[2], &[4.0, -5.0]));
    gives(&[], |f, _| Ok(f.fill(DType::F16, &[1, 2], 0.1)), &tensor(DType::F16, &[1, 2], &[0.1, 0.1]));
    gives(&[], |f, _| Ok(f.fill(DType::Bool, &[], 1.0)), &bools(&[], &[1.0]));
    gives(&[], |f, _| Ok(f.fill(DType::F32, &[0, 3], -INF)), &f32s(&[0, 3], &[]));
}

#[test]
fn reductions_of_floats() {
    use DType::{F16, F32};
    reduced(Reduce::Sum, F32, &[1.0, 2.0, 4.0], 7.0);
    reduced(Reduce::Mean, F32, &[1.0, 2.0, 6.0], 3.0);
    reduced(Reduce::Max, F32, &[1.0, 5.0, -INF], 5.0);
    reduced(Reduce::Min, F32, &[1.0, 5.0, -INF], -INF);
    reduced(Reduce::Max, F32, &[1.0, NAN, 5.0], NAN);
    reduced(Reduce::Min, F32, &[NAN, 1.0], NAN);
    reduced(Reduce::SumSquare, F32, &[1.0, -2.0, 3.0], 14.0);
    reduced(Reduce::Sum, F16, &[60000.0, 60000.0, -60000.0], 60000.0);
    reduced(Reduce::Sum, F16, &[2048.0, 1.0, 1.0], 2050.0);
    reduced(Reduce::Sum, F32, &[], 0.0);
    reduced(Reduce::Mean, F32, &[], NAN);
    fails(
        &[f32s(&[0], &[])],
        |f, x| f.reduce(Reduce::Max, x[0], &[0], false),
        "reduce_max at `reduce_max`: there is nothing to reduce over",
    );
}

#[test]
fn log_sum_exp_takes_the_maximum_out() {
    reduced(Reduce::LogSumExp, DType::F32, &[1000.0, 1000.0], 1000.0 + std::f64::consts::LN_2);
    reduced(Reduce::LogSumExp, DType::F32, &[0.0, 0.0, -INF], std::f64::consts::LN_2);
    reduced(Reduce::LogSumExp, DType::F32, &[-INF, -INF], -INF);
    reduced(Reduce::LogSumExp, DType::F32, &[INF, 1.0], INF);
    reduced(Reduce::LogSumExp, DType::F32, &[NAN, 1.0], NAN);
}

#[test]
fn reductions_of_integers() {
    use DType::I32;
    reduced(Reduce::Mean, I32, &[1.0, 2.0, 4.0], 2.0);
    reduced(Reduce::Mean, I32, &[-1.0, -2.0, -4.0], -2.0);
    reduced(Reduce::Mean, I32, &[2_000_000_000.0, 2_000_000_000.0], 2_000_000_000.0);
    reduced(Reduce::Sum, I32, &[f64::from(i32::MAX), 1.0], f64::from(i32::MIN));
    reduced(Reduce::SumSquare, I32, &[3.0, -4.0], 25.0);
    reduced(Reduce::Max, I32, &[3.0, -4.0], 3.0);
    reduced(Reduce::Min, I32, &[3.0, -4.0], -4.0);
}

#[test]
fn reductions_over_some_axes() {
    let x = super::iota(&[2, 3, 2]);
    let over = |axes: &'static [usize], keep, shape: &[usize], expected: &[f64]| {
        gives(
            std::slice::from_ref(&x),
            |f, v| f.reduce(Reduce::Sum, v[0], axes, keep),
            &f32s(shape, expected),
        );
    };
    over(&[0, 2], false, &[3], &[14.0, 22.0, 30.0]);
    over(&[0, 2], true, &[1, 3, 1], &[14.0, 22.0, 30.0]);
    over(&[1], false, &[2, 2], &[6.0, 9.0, 24.0, 27.0]);
    over(&[0, 1, 2], false, &[], &[66.0]);
    over(&[], false, &[2, 3, 2], &(0..12).map(f64::from).collect::<Vec<_>>());
    gives(&[f32s(&[], &[3.0])], |f, v| f.reduce_all(Reduce::Mean, v[0]), &f32s(&[], &[3.0]));
}
