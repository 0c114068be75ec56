//! Element-wise functions beyond the ones that models are built of, reductions of rows, normalisations, and ops along an axis.

use arcane_mil::{
    AlongAxis, Binary, ChannelActivation, Channelwise, Einsum, Gelu, Normalisation, Op, Reduce, Unary,
};
use arcane_tensor::DType;

use super::{Allowed, EXACT, POSITIVE, SPREAD, Table, rounding};

/// Functions of one operand, of two, and with a number a channel.
pub(super) fn functions(t: &mut Table, dtype: DType) {
    let (alpha, beta) = (0.75, 0.5);
    let unit = (-1.0, 1.0);
    let kinds = [
        (Unary::Inverse { epsilon: 1e-3 }, POSITIVE),
        (Unary::Exp2, (-12.0, 12.0)),
        (Unary::Erf, (-4.0, 4.0)),
        (Unary::Floor, (-9.0, 9.0)),
        (Unary::Ceil, (-9.0, 9.0)),
        (Unary::Round, (-9.0, 9.0)),
        (Unary::Sin, (-9.0, 9.0)),
        (Unary::Cos, (-9.0, 9.0)),
        (Unary::Tan, unit),
        (Unary::Asin, unit),
        (Unary::Acos, unit),
        (Unary::Atan, (-9.0, 9.0)),
        (Unary::Atanh, unit),
        (Unary::Sinh, (-6.0, 6.0)),
        (Unary::Cosh, (-6.0, 6.0)),
        (Unary::Tanh, (-6.0, 6.0)),
        (Unary::Clip { alpha: -beta, beta }, SPREAD),
        (Unary::Threshold { alpha }, SPREAD),
        (Unary::Relu, SPREAD),
        (Unary::Relu6, (-9.0, 9.0)),
        (Unary::LeakyRelu { alpha }, SPREAD),
        (Unary::ClampedRelu { alpha, beta }, SPREAD),
        (Unary::ThresholdedRelu { alpha }, SPREAD),
        (Unary::Elu { alpha }, SPREAD),
        (Unary::Gelu(Gelu::Exact), (-6.0, 6.0)),
        (Unary::Gelu(Gelu::Tanh), (-6.0, 6.0)),
        (Unary::Gelu(Gelu::Sigmoid), (-6.0, 6.0)),
        (Unary::SigmoidHard { alpha, beta }, SPREAD),
        (Unary::ScaledTanh { alpha, beta }, SPREAD),
        (Unary::Softplus, (-12.0, 12.0)),
        (Unary::Softsign, SPREAD),
        (Unary::LinearActivation { alpha, beta }, SPREAD),
    ];
    let allowed = Allowed { absolute: rounding(dtype).absolute, relative: 4.0 * rounding(dtype).relative };
    for (kind, range) in kinds {
        for shape in [&[][..], &[7, 33], &[3, 1, 1050]] {
            t.add(kind.name(), allowed, &[(dtype, shape, range)], |f, x| Ok(vec![f.unary(kind, x[0])?]));
        }
    }
    for (kind, left, right) in [
        (Binary::FloorDiv, (-9.0, 9.0), POSITIVE),
        (Binary::Mod, (-9.0, 9.0), (-3.0, -0.5)),
        (Binary::Pow, POSITIVE, SPREAD),
    ] {
        t.add(kind.name(), allowed, &[(dtype, &[5, 300], left), (dtype, &[5, 1], right)], |f, v| {
            Ok(vec![f.binary(kind, v[0], v[1])?])
        });
    }
    for exponent in [2.0, 3.0, 1.0, 0.5, -0.5, -1.0, 1.25] {
        t.add(&format!("pow {exponent}"), allowed, &[(dtype, &[70], POSITIVE)], |f, v| {
            let exponent = f.scalar(dtype, exponent);
            Ok(vec![f.binary(Binary::Pow, v[0], exponent)?])
        });
    }
    for shape in [&[2, 3, 5][..], &[2, 3, 4, 5], &[1, 3, 2, 2, 2]] {
        let parameters =
            [(dtype, shape, SPREAD), (DType::F32, &[3][..], SPREAD), (dtype, &[3][..], POSITIVE)];
        t.add("prelu", allowed, &parameters[..2], |f, v| {
            let kind = ChannelActivation::Prelu;
            Ok(vec![f.push_one(Op::Channelwise(Channelwise { kind, x: v[0], alpha: v[1], beta: None }))?])
        });
        t.add("softplus_parametric", allowed, &parameters, |f, v| {
            let (kind, beta) = (ChannelActivation::Softplus, Some(v[2]));
            Ok(vec![f.push_one(Op::Channelwise(Channelwise { kind, x: v[0], alpha: v[1], beta }))?])
        });
    }
}

/// Reductions that keep rows together, normalisations, contractions.
pub(super) fn rows(t: &mut Table, dtype: DType) {
    let allowed = match dtype {
        DType::F16 => rounding(dtype),
        _ => Allowed { absolute: 4e-6, relative: 4e-6 },
    };
    for kind in [Reduce::Prod, Reduce::L1Norm, Reduce::L2Norm, Reduce::LogSum] {
        for axes in [&[0][..], &[1], &[2], &[0, 2], &[0, 1, 2]] {
            let name = format!("{} {axes:?}", kind.name());
            t.add(&name, allowed, &[(dtype, &[3, 4, 5], POSITIVE)], |f, v| {
                Ok(vec![f.reduce(kind, v[0], axes, false)?])
            });
        }
    }
    let x = [2, 3, 4, 5];
    for scaled in [false, true] {
        let parameters = [
            (dtype, &x[..], SPREAD),
            (DType::F32, &[3][..], SPREAD),
            (dtype, &[3][..], POSITIVE),
            (dtype, &[3][..], SPREAD),
        ];
        let both = |v: &[arcane_mil::ValueId]| (scaled.then_some(v[1]), scaled.then_some(v[3]));
        t.add(&format!("batch_norm {scaled}"), allowed, &parameters, |f, v| {
            let (gamma, beta) = both(v);
            let n = Normalisation::Batch { x: v[0], mean: v[1], variance: v[2], gamma, beta, epsilon: 1e-5 };
            Ok(vec![f.push_one(Op::Normalisation(n))?])
        });
        t.add(&format!("instance_norm {scaled}"), allowed, &parameters, |f, v| {
            let (gamma, beta) = both(v);
            let n = Normalisation::Instance { x: v[0], gamma, beta, epsilon: 1e-5 };
            Ok(vec![f.push_one(Op::Normalisation(n))?])
        });
        for axes in [&[3][..], &[1], &[2, 3], &[0, 2], &[0, 1, 2, 3], &[]] {
            let shape: Vec<usize> = axes.iter().map(|&a| x[a]).collect();
            let parameters = [(dtype, &x[..], SPREAD), (dtype, &shape, SPREAD), (DType::F32, &shape, SPREAD)];
            t.add(&format!("layer_norm {axes:?} {scaled}"), allowed, &parameters, |f, v| {
                let (gamma, beta) = (scaled.then_some(v[1]), scaled.then_some(v[2]));
                let n = Normalisation::Layer { x: v[0], axes: axes.to_vec(), gamma, beta, epsilon: 1e-3 };
                Ok(vec![f.push_one(Op::Normalisation(n))?])
            });
        }
    }
    t.add("l2_norm", allowed, &[(dtype, &x, SPREAD)], |f, v| {
        Ok(vec![f.push_one(Op::Normalisation(Normalisation::L2 { x: v[0], epsilon: 1e-6 }))?])
    });
    for size in [1, 2, 3, 5, 40] {
        t.add(&format!("local_response_norm {size}"), allowed, &[(dtype, &[2, 7, 3], SPREAD)], |f, v| {
            let n = Normalisation::LocalResponse { x: v[0], size, alpha: 0.5, beta: 0.75, k: 1.5 };
            Ok(vec![f.push_one(Op::Normalisation(n))?])
        });
    }
    let einsum: [(&str, &[usize], &[usize]); 3] = [
        ("nchw,nwhu->nchu", &[2, 3, 4, 5], &[2, 5, 4, 6]),
        ("bqhd,bdhk->bqhk", &[1, 3, 4, 5], &[2, 5, 1, 2]),
        ("chw,whr->chr", &[3, 1, 2], &[2, 4, 5]),
    ];
    for (equation, left, right) in einsum {
        t.add(equation, rounding(dtype), &[(dtype, left, SPREAD), (dtype, right, SPREAD)], |f, v| {
            let values = [v[0], v[1]];
            Ok(vec![f.push_one(Op::Einsum(Einsum { values, equation: equation.into() }))?])
        });
    }
}

/// Ops along one axis. `range` decides how many elements are equal.
pub(super) fn along_axis(t: &mut Table, dtype: DType, range: (f64, f64)) {
    let shape = [3, 9, 4];
    for axis in 0..3 {
        for largest in [true, false] {
            for keep_dims in [true, false] {
                let name = format!("extreme {largest} {axis} {keep_dims}");
                t.add(&name, EXACT, &[(dtype, &shape, range)], |f, v| {
                    let index = if keep_dims { DType::I32 } else { DType::U16 };
                    let op = AlongAxis::Extreme { x: v[0], largest, axis, keep_dims, dtype: index };
                    Ok(vec![f.push_one(Op::AlongAxis(op))?])
                });
            }
        }
        for ascending in [true, false] {
            t.add(&format!("order {ascending} {axis}"), EXACT, &[(dtype, &shape, range)], |f, v| {
                let x = v[0];
                let order = f.push_one(Op::AlongAxis(AlongAxis::Argsort { x, axis, ascending }))?;
                let (k, sort, indices) = (2, true, Some(DType::U16));
                let both = f.push(Op::AlongAxis(AlongAxis::TopK { x, k, axis, ascending, sort, indices }))?;
                let (sort, indices) = (false, None);
                let alone =
                    f.push_one(Op::AlongAxis(AlongAxis::TopK { x, k, axis, ascending, sort, indices }))?;
                Ok(vec![order, both[0], both[1], alone])
            });
        }
        let allowed = if dtype.is_int() { EXACT } else { rounding(dtype) };
        for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
            let name = format!("cumsum {exclusive} {reverse} {axis}");
            t.add(&name, allowed, &[(dtype, &shape, range)], |f, v| {
                Ok(vec![f.push_one(Op::AlongAxis(AlongAxis::CumSum {
                    x: v[0],
                    axis,
                    exclusive,
                    reverse,
                }))?])
            });
        }
    }
}
