//! Convolutions as they are written.

use super::{Built, sizes};
use crate::op::window::PadType;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{Convolution, Op, Opset, ValueId};

/// `conv`. A weight may be a run-time value, unless it is dilated.
pub(super) fn convolution(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let mut weight = a.operand("weight", Class::Float)?;
    let mut bias = a.maybe_constant_operand("bias", Class::Float)?;
    if a.opset() >= Opset::Ios17 {
        let dtype = a.ty(x).dtype;
        weight = if a.is_constant(weight) { a.converted(weight, dtype) } else { weight };
        bias = bias.map(|b| a.converted(b, dtype));
    }
    let spatial = spatial(a, x)?;
    let strides = per_dimension(a, "strides", spatial)?;
    let pad_type = pad_type(a)?;
    let pad = pad(a, spatial)?;
    let dilations = per_dimension(a, "dilations", spatial)?;
    if dilations.iter().any(|&d| d > 1) && !a.is_constant(weight) {
        return Err(a.fault("weight is a run-time value", "a constant where the convolution is dilated"));
    }
    let groups = match a.int("groups")? {
        None => 1,
        Some(Found { value, at }) => sizes(&[value], 1, "groups", at)?[0],
    };
    Ok(Op::Convolution(Convolution { x, weight, bias, strides, pad_type, pad, dilations, groups }))
}

/// The number of spatial dimensions of x `[N, C, D..]`.
pub(super) fn spatial(a: &Arguments<'_, '_>, x: ValueId) -> Result<usize, Fault> {
    let ty = a.ty(x);
    match ty.shape.len() {
        rank @ 3..=5 => Ok(rank - 2),
        _ => Err(a.fault(format!("x is {ty}"), "rank 3 to 5")),
    }
}

/// A parameter with one number a spatial dimension, by default 1.
pub(super) fn per_dimension(
    a: &mut Arguments<'_, '_>,
    name: &'static str,
    spatial: usize,
) -> Result<Vec<usize>, Fault> {
    match a.ints(name, spatial)? {
        None => Ok(vec![1; spatial]),
        Some(Found { value, at }) => sizes(&value, 1, name, at),
    }
}

/// `pad`, by default zeros.
pub(super) fn pad(a: &mut Arguments<'_, '_>, spatial: usize) -> Result<Vec<usize>, Fault> {
    match a.ints("pad", 2 * spatial)? {
        None => Ok(vec![0; 2 * spatial]),
        Some(Found { value, at }) => sizes(&value, 0, "pad", at),
    }
}

/// `pad_type`, by default `valid`.
pub(super) fn pad_type(a: &mut Arguments<'_, '_>) -> Result<PadType, Fault> {
    let Some(Found { value, at }) = a.text("pad_type")? else { return Ok(PadType::Valid) };
    let known = PadType::ALL.into_iter().find(|p| p.name() == value);
    let expected = "valid, same, same_lower or custom";
    known.ok_or_else(|| Fault::new(at, format!("pad_type is {}", shown(&value)), expected))
}
