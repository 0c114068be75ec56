//! Element-wise ops of one operand as they are written, and activations with a number a channel.

use super::Built;
use crate::op::unary::Takes;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{ChannelActivation, Channelwise, Gelu, Op, Opset, Unary, ValueId};

/// The op of one operand that a name stands for, or `None` if it stands for no such op.
pub(super) fn unary(a: &mut Arguments<'_, '_>) -> Result<Option<Op>, Fault> {
    let name = a.op();
    let plain = Unary::PLAIN.into_iter().find(|kind| kind.name() == name);
    let numeric = name == "threshold";
    let class = match plain.map(Unary::takes) {
        Some(Takes::Any) => Class::Any,
        Some(Takes::Bool) => Class::Bool,
        Some(Takes::Numeric) => Class::Numeric,
        None if numeric => Class::Numeric,
        Some(Takes::Float) | None => Class::Float,
    };
    let op = |kind, x| Ok(Some(Op::Unary { kind, x }));
    if let Some(kind) = plain {
        return op(kind, a.operand("x", class)?);
    }
    if !NUMBERED.contains(&name) {
        return Ok(None);
    }
    let x = a.operand("x", class)?;
    if name == "gelu" {
        return op(Unary::Gelu(gelu_mode(a)?), x);
    }
    let default = match name {
        "rsqrt" => Some(1e-12),
        "log" => Some(1e-45),
        "inverse" => Some(1e-4),
        _ => None,
    };
    if let Some(default) = default {
        let epsilon = epsilon(a, x, default)?;
        return op(
            match name {
                "rsqrt" => Unary::Rsqrt { epsilon },
                "log" => Unary::Log { epsilon },
                _ => Unary::Inverse { epsilon },
            },
            x,
        );
    }
    if name == "threshold" {
        return op(Unary::Threshold { alpha: a.required_bound("alpha", x)? }, x);
    }
    if name == "clip" {
        let (alpha, beta) = (a.required_bound("alpha", x)?, a.required_bound("beta", x)?);
        return op(Unary::Clip { alpha, beta }, x);
    }
    let alpha = a.required_real("alpha", x)?;
    let kind = match name {
        "leaky_relu" => Unary::LeakyRelu { alpha },
        "thresholded_relu" => Unary::ThresholdedRelu { alpha },
        "elu" => Unary::Elu { alpha },
        _ => {
            let beta = a.required_real("beta", x)?;
            match name {
                "clamped_relu" => Unary::ClampedRelu { alpha, beta },
                "sigmoid_hard" => Unary::SigmoidHard { alpha, beta },
                "scaled_tanh" => Unary::ScaledTanh { alpha, beta },
                _ => Unary::LinearActivation { alpha, beta },
            }
        }
    };
    op(kind, x)
}

/// The ops that have numbers, and `gelu`.
const NUMBERED: [&str; 13] = [
    "rsqrt",
    "log",
    "inverse",
    "gelu",
    "threshold",
    "leaky_relu",
    "thresholded_relu",
    "elu",
    "clip",
    "clamped_relu",
    "sigmoid_hard",
    "scaled_tanh",
    "linear_activation",
];

/// `epsilon`, finite.
pub(super) fn epsilon(a: &mut Arguments<'_, '_>, x: ValueId, default: f64) -> Result<f64, Fault> {
    match a.real("epsilon", x)? {
        None => Ok(default),
        Some(Found { value, .. }) if value.is_finite() => Ok(value),
        Some(Found { value, at }) => Err(Fault::new(at, format!("epsilon is {value}"), "a finite number")),
    }
}

fn gelu_mode(a: &mut Arguments<'_, '_>) -> Result<Gelu, Fault> {
    let Some(Found { value, at }) = a.text("mode")? else { return Ok(Gelu::Exact) };
    let known = Gelu::ALL.into_iter().find(|mode| mode.name() == value);
    let expected = "EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION";
    known.ok_or_else(|| Fault::new(at, format!("mode is {}", shown(&value)), expected))
}

/// `prelu` and `softplus_parametric`.
pub(super) fn channelwise(a: &mut Arguments<'_, '_>, kind: ChannelActivation) -> Built {
    let x = a.operand("x", Class::Float)?;
    let alpha = a.constant_operand("alpha", Class::Float)?;
    let beta = match kind {
        ChannelActivation::Prelu => None,
        ChannelActivation::Softplus => Some(a.constant_operand("beta", Class::Float)?),
    };
    one_type(a, x, &[("alpha", Some(alpha)), ("beta", beta)])?;
    Ok(Op::Channelwise(Channelwise { kind, x, alpha, beta }))
}

/// Refuses operands of another type than x before ios17.
pub(super) fn one_type(
    a: &Arguments<'_, '_>,
    x: ValueId,
    operands: &[(&str, Option<ValueId>)],
) -> Result<(), Fault> {
    let dtype = a.ty(x).dtype;
    let other = operands.iter().find(|(_, v)| v.is_some_and(|v| a.ty(v).dtype != dtype));
    match other {
        Some((name, Some(v))) if a.opset() < Opset::Ios17 => {
            Err(a.fault(format!("{name} is {}", a.ty(*v)), format!("{dtype}, or ios17")))
        }
        _ => Ok(()),
    }
}
