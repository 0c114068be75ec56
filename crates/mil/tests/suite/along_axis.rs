//! Ops along one axis, by hand; and their text.

use arcane_mil::{
    AlongAxis, Binary, Builder, ChannelActivation, Channelwise, Distribution, Gelu, Logical, Op, Opset,
    Random, Reduce, Role, TensorType, Unary, evaluate,
};
use arcane_tensor::DType;

use super::golden::prints;
use super::{INF, NAN, bound, f32s, function, gives, i32s, tensor};

#[test]
fn extremes_are_the_first_of_equals() {
    let x = f32s(&[2, 4], &[3.0, 1.0, 3.0, 1.0, -INF, NAN, 5.0, NAN]);
    let extreme = |x, largest, axis, keep_dims, dtype| {
        Op::AlongAxis(AlongAxis::Extreme { x, largest, axis, keep_dims, dtype })
    };
    gives(
        std::slice::from_ref(&x),
        |f, v| f.push_one(extreme(v[0], true, 1, false, DType::I32)),
        &i32s(&[2], &[0.0, 1.0]),
    );
    gives(
        std::slice::from_ref(&x),
        |f, v| f.push_one(extreme(v[0], false, 1, true, DType::U16)),
        &tensor(DType::U16, &[2, 1], &[1.0, 1.0]),
    );
    gives(
        &[x],
        |f, v| f.push_one(extreme(v[0], false, 0, false, DType::I32)),
        &i32s(&[4], &[1.0, 1.0, 0.0, 1.0]),
    );
}

#[test]
fn orders_keep_equals_as_they_are_and_put_nan_last() {
    let x = f32s(&[5], &[3.0, 1.0, NAN, 3.0, 2.0]);
    for (ascending, expected) in [(true, [1.0, 4.0, 0.0, 3.0, 2.0]), (false, [0.0, 3.0, 4.0, 1.0, 2.0])] {
        gives(
            std::slice::from_ref(&x),
            |f, v| f.push_one(Op::AlongAxis(AlongAxis::Argsort { x: v[0], axis: 0, ascending })),
            &i32s(&[5], &expected),
        );
    }
}

#[test]
fn topk_gives_elements_and_indices() {
    let x = i32s(&[2, 4], &[3.0, 1.0, 3.0, 2.0, 7.0, -8.0, 0.0, 9.0]);
    let f = function(std::slice::from_ref(&x), |f, v| {
        let indices = Some(DType::I32);
        let (x, axis, sort) = (v[0], 1, true);
        let top = AlongAxis::TopK { x, k: 3, axis, ascending: false, sort, indices };
        let low = AlongAxis::TopK { x, k: 1, axis: 0, ascending: true, sort, indices: None };
        Ok([f.push(Op::AlongAxis(top))?, f.push(Op::AlongAxis(low))?].concat())
    });
    let found = evaluate(&f, &bound(&[x])).unwrap();
    assert_eq!(found["y0"], i32s(&[2, 3], &[3.0, 3.0, 2.0, 9.0, 7.0, 0.0]));
    assert_eq!(found["y1"], i32s(&[2, 3], &[0.0, 2.0, 3.0, 3.0, 0.0, 2.0]));
    assert_eq!(found["y2"], i32s(&[1, 4], &[3.0, -8.0, 0.0, 2.0]));
}

#[test]
fn sums_run_from_either_end() {
    let x = i32s(&[3], &[1.0, 2.0, 2_147_483_647.0]);
    let min = f64::from(i32::MIN);
    for (exclusive, reverse, expected) in [
        (false, false, [1.0, 3.0, min + 2.0]),
        (true, false, [0.0, 1.0, 3.0]),
        (false, true, [min + 2.0, min + 1.0, 2_147_483_647.0]),
        (true, true, [min + 1.0, 2_147_483_647.0, 0.0]),
    ] {
        gives(
            std::slice::from_ref(&x),
            |f, v| f.push_one(Op::AlongAxis(AlongAxis::CumSum { x: v[0], axis: 0, exclusive, reverse })),
            &i32s(&[3], &expected),
        );
    }
}

fn every_function(opset: Opset) -> arcane_mil::Function {
    let mut f = Builder::new("main", opset);
    let x = f.parameter("a0_x", TensorType::new(DType::F16, &[1, 2, 3]), Role::Batch);
    let i = f.parameter("a1_i", TensorType::new(DType::I32, &[2, 3]), Role::Batch);
    let (alpha, beta) = (0.5, 2.0);
    let mut last = x;
    for kind in [
        Unary::Acos,
        Unary::Asin,
        Unary::Atan,
        Unary::Atanh,
        Unary::Ceil,
        Unary::Clip { alpha, beta },
        Unary::ClampedRelu { alpha, beta },
        Unary::Cos,
        Unary::Cosh,
        Unary::Elu { alpha },
        Unary::Erf,
        Unary::Exp2,
        Unary::Floor,
        Unary::Gelu(Gelu::Exact),
        Unary::Gelu(Gelu::Tanh),
        Unary::Gelu(Gelu::Sigmoid),
        Unary::Inverse { epsilon: 0.0 },
        Unary::LeakyRelu { alpha },
        Unary::LinearActivation { alpha, beta },
        Unary::Relu,
        Unary::Relu6,
        Unary::Round,
        Unary::ScaledTanh { alpha, beta },
        Unary::SigmoidHard { alpha, beta },
        Unary::Sin,
        Unary::Sinh,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Tan,
        Unary::Tanh,
        Unary::Threshold { alpha },
        Unary::ThresholdedRelu { alpha },
    ] {
        last = f.unary(kind, x).unwrap();
    }
    f.unary(Unary::Threshold { alpha: 3.0 }, i).unwrap();
    for kind in [Binary::FloorDiv, Binary::Mod, Binary::Pow] {
        f.binary(kind, x, last).unwrap();
    }
    for kind in [Reduce::Prod, Reduce::L1Norm, Reduce::L2Norm, Reduce::LogSum] {
        f.reduce(kind, x, &[0, 2], false).unwrap();
    }
    let truth = f.compare(arcane_mil::Compare::Less, x, last).unwrap();
    f.unary(Unary::Not, truth).unwrap();
    f.push(Op::Logical { kind: Logical::Xor, x: truth, y: truth }).unwrap();
    let alpha = f.constant("alpha", tensor(DType::F16, &[2], &[0.5, 2.0]));
    for (kind, beta) in [(ChannelActivation::Prelu, None), (ChannelActivation::Softplus, Some(alpha))] {
        f.push(Op::Channelwise(Channelwise { kind, x, alpha, beta })).unwrap();
    }
    let (axis, keep_dims, ascending) = (1, true, true);
    let index = if opset >= Opset::Ios17 { DType::U16 } else { DType::I32 };
    for op in [
        AlongAxis::Extreme { x, largest: true, axis, keep_dims, dtype: DType::I32 },
        AlongAxis::Extreme { x: i, largest: false, axis, keep_dims: false, dtype: index },
        AlongAxis::Argsort { x, axis, ascending },
        AlongAxis::TopK { x, k: 2, axis, ascending, sort: opset < Opset::Ios16, indices: Some(index) },
        AlongAxis::CumSum { x, axis, exclusive: true, reverse: false },
    ] {
        last = f.push(Op::AlongAxis(op)).unwrap()[0];
    }
    for distribution in [
        Distribution::Uniform { low: -0.5, high: 2.0 },
        Distribution::Normal { mean: 0.5, deviation: 2.0 },
        Distribution::Bernoulli { probability: 0.25 },
    ] {
        f.push(Op::Random(Random { distribution, seed: 7, shape: vec![2, 3], dtype: DType::F16 })).unwrap();
    }
    f.output("y", last);
    f.finish()
}

#[test]
fn functions_as_text() {
    prints("functions", vec![every_function(Opset::Ios18)]);
}

#[test]
fn functions_in_the_long_dialect() {
    prints("functions_long", vec![every_function(Opset::Ios15)]);
}
