//! The rules of element-wise functions, normalisations and ops along an axis.

use arcane_mil::{
    AlongAxis, Binary, BuildError, ChannelActivation, Channelwise, Einsum, Gelu, Normalisation, Op, Reduce,
    Unary, ValueId,
};
use arcane_tensor::DType;

use crate::check::{Case, Check};

/// Around zero where the function is defined there, its kinks between the values.
pub(super) fn smooth(check: &Check) {
    let (alpha, beta) = (0.75, 0.5);
    for kind in [
        Unary::Exp2,
        Unary::Erf,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Atanh,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Tanh,
        Unary::Gelu(Gelu::Exact),
        Unary::Gelu(Gelu::Tanh),
        Unary::Gelu(Gelu::Sigmoid),
        Unary::ScaledTanh { alpha, beta },
        Unary::Softplus,
        Unary::Softsign,
        Unary::LinearActivation { alpha, beta },
    ] {
        unary(check, kind, false);
    }
    unary(check, Unary::Inverse { epsilon: 0.125 }, true);
}

pub(super) fn pieces(check: &Check) {
    let alpha = 0.3;
    for kind in [
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Clip { alpha: -0.3, beta: 0.2 },
        Unary::Threshold { alpha },
        Unary::Relu,
        Unary::Relu6,
        Unary::LeakyRelu { alpha },
        Unary::ClampedRelu { alpha, beta: 0.2 },
        Unary::ClampedRelu { alpha: -2.0, beta: 0.2 },
        Unary::ThresholdedRelu { alpha },
        Unary::Elu { alpha },
        Unary::SigmoidHard { alpha: 3.0, beta: 0.5 },
    ] {
        unary(check, kind, false);
    }
}

fn unary(check: &Check, kind: Unary, positive: bool) {
    check.that(|c| {
        let x = if positive { c.positive(&[3, 4]) } else { c.float(&[3, 4]) };
        let y = c.f.unary(kind, x)?;
        // What has steps is no function of x to speak of.
        if matches!(kind, Unary::Floor | Unary::Ceil | Unary::Round) { c.f.mul(x, y) } else { Ok(y) }
    });
}

pub(super) fn binary(check: &Check) {
    for kind in [Binary::FloorDiv, Binary::Mod, Binary::Pow] {
        for (left, right) in [(&[2, 3][..], &[2, 3][..]), (&[2, 3], &[3]), (&[3], &[2, 1])] {
            check.that(|c| {
                let (x, y) = (c.positive(left), c.positive(right));
                let z = c.f.binary(kind, x, y)?;
                if kind == Binary::FloorDiv { c.f.mul(x, z) } else { Ok(z) }
            });
        }
    }
}

pub(super) fn reductions(check: &Check) {
    for kind in [Reduce::Prod, Reduce::L1Norm, Reduce::L2Norm, Reduce::LogSum] {
        for axes in [&[0][..], &[2], &[0, 2], &[0, 1, 2]] {
            for keep_dims in [false, true] {
                check.that(|c| {
                    let x = c.positive(&[2, 2, 3]);
                    c.f.reduce(kind, x, axes, keep_dims)
                });
            }
        }
    }
}

pub(super) fn einsum(check: &Check) {
    for (equation, left, right) in
        [("nchw,nwhu->nchu", &[2, 2, 1, 3][..], &[1, 3, 2, 2][..]), ("chw,whr->chr", &[2, 3, 2], &[2, 1, 4])]
    {
        check.that(|c| {
            let values = [c.float(left), c.float(right)];
            c.f.push_one(Op::Einsum(Einsum { values, equation: equation.into() }))
        });
    }
}

pub(super) fn normalisation(check: &Check) {
    let norm = |c: &mut Case, n| -> Result<ValueId, BuildError> { c.f.push_one(Op::Normalisation(n)) };
    let epsilon = 0.01;
    check.that(|c| {
        let (x, gamma, beta) = (c.float(&[2, 3, 2]), c.float(&[3]), c.float(&[3]));
        let mean = c.data(arcane_tensor::Tensor::new(&[3], vec![0.5, -1.0, 2.0]).unwrap());
        let variance = c.data(arcane_tensor::Tensor::new(&[3], vec![0.5, 1.0, 2.0]).unwrap());
        norm(c, Normalisation::Batch { x, mean, variance, gamma: Some(gamma), beta: Some(beta), epsilon })
    });
    check.that(|c| {
        let (x, gamma, beta) = (c.float(&[2, 2, 4]), Some(c.float(&[2])), Some(c.float(&[2])));
        norm(c, Normalisation::Instance { x, gamma, beta, epsilon })
    });
    for axes in [&[2][..], &[1], &[0, 2]] {
        check.that(|c| {
            let shape: Vec<usize> = axes.iter().map(|&a| [2, 3, 4][a]).collect();
            let (x, gamma, beta) = (c.float(&[2, 3, 4]), Some(c.float(&shape)), Some(c.float(&shape)));
            norm(c, Normalisation::Layer { x, axes: axes.to_vec(), gamma, beta, epsilon })
        });
    }
    check.that(|c| {
        let x = c.float(&[2, 3, 2, 1]);
        norm(c, Normalisation::L2 { x, epsilon })
    });
}

pub(super) fn channelwise(check: &Check) {
    check.that(|c| {
        let (x, alpha) = (c.float(&[2, 3, 2]), c.float(&[3]));
        let kind = ChannelActivation::Prelu;
        c.f.push_one(Op::Channelwise(Channelwise { kind, x, alpha, beta: None }))
    });
    check.that(|c| {
        let (x, alpha, beta) = (c.float(&[2, 3, 2]), c.float(&[3]), c.positive(&[3]));
        let kind = ChannelActivation::Softplus;
        c.f.push_one(Op::Channelwise(Channelwise { kind, x, alpha, beta: Some(beta) }))
    });
}

pub(super) fn along_axis(check: &Check) {
    for indices in [Some(DType::I32), None] {
        check.that(|c| {
            let x = c.float(&[2, 5, 2]);
            let op = AlongAxis::TopK { x, k: 2, axis: 1, ascending: false, sort: true, indices };
            Ok(c.f.push(Op::AlongAxis(op))?[0])
        });
    }
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        check.that(|c| {
            let x = c.float(&[2, 4, 2]);
            c.f.push_one(Op::AlongAxis(AlongAxis::CumSum { x, axis: 1, exclusive, reverse }))
        });
    }
}
