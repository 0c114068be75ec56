//! Convolutions as they are written.

use super::{Built, sizes};
use crate::op::window::PadType;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{Convolution, Op, Opset, TransposedConvolution, ValueId};

/// `conv`. A weight may be a run-time value, unless it is dilated, and from ios17 on a bias, too.
pub(super) fn convolution(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let weight = a.operand("weight", Class::Float)?;
    let Shared { weight, is_constant, bias, strides, pad_type, pad, dilations, groups, .. } =
        shared(a, x, weight)?;
    if dilations.iter().any(|&d| d > 1) && !is_constant {
        return Err(a.fault("weight is a run-time value", "a constant where the convolution is dilated"));
    }
    let pad_type = pad_type.unwrap_or(PadType::Valid);
    Ok(Op::Convolution(Convolution { x, weight, bias, strides, pad_type, pad, dilations, groups }))
}

/// `conv_transpose`.
pub(super) fn transposed(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let weight = if a.opset() < Opset::Ios17 {
        a.constant_operand("weight", Class::Float)?
    } else {
        a.operand("weight", Class::Float)?
    };
    let Shared { spatial, weight, bias, strides, pad_type, pad, dilations, groups, .. } =
        shared(a, x, weight)?;
    let output_shape = match a.ints("output_shape", spatial + 2)? {
        None => None,
        Some(Found { value, at }) => Some(sizes(&value, 1, "output_shape", at)?),
    };
    let pad_type = pad_type.unwrap_or(PadType::Valid);
    Ok(Op::TransposedConvolution(TransposedConvolution {
        x,
        weight,
        bias,
        strides,
        pad_type,
        pad,
        dilations,
        groups,
        output_shape,
    }))
}

/// The parameters that both have.
struct Shared {
    spatial: usize,
    /// In x's type.
    weight: ValueId,
    /// Whether the weight is.
    is_constant: bool,
    bias: Option<ValueId>,
    strides: Vec<usize>,
    pad_type: Option<PadType>,
    pad: Vec<usize>,
    dilations: Vec<usize>,
    groups: usize,
}

fn shared(a: &mut Arguments<'_, '_>, x: ValueId, mut weight: ValueId) -> Result<Shared, Fault> {
    let is_constant = a.is_constant(weight);
    let mut bias = if a.opset() < Opset::Ios17 {
        a.maybe_constant_operand("bias", Class::Float)?
    } else {
        a.maybe_operand("bias", Class::Float)?
    };
    if a.opset() >= Opset::Ios17 {
        let (dtype, of_weight) = (a.ty(x).dtype, a.ty(weight).dtype);
        if let Some(bias) = bias
            && a.ty(bias).dtype != of_weight
        {
            return Err(a.fault(format!("bias is {}", a.ty(bias)), format!("{of_weight}, as of weight")));
        }
        weight = a.converted(weight, dtype);
        bias = bias.map(|b| a.converted(b, dtype));
    }
    let spatial = spatial(a, x)?;
    let strides = per_dimension(a, "strides", spatial)?;
    let pad_type = pad_type(a)?;
    let pad = pad(a, spatial)?;
    let dilations = per_dimension(a, "dilations", spatial)?;
    let groups = match a.int("groups")? {
        None => 1,
        Some(Found { value, at }) => sizes(&[value], 1, "groups", at)?[0],
    };
    Ok(Shared { spatial, weight, is_constant, bias, strides, pad_type, pad, dilations, groups })
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

/// `pad_type`, if it is given.
pub(super) fn pad_type(a: &mut Arguments<'_, '_>) -> Result<Option<PadType>, Fault> {
    let Some(Found { value, at }) = a.text("pad_type")? else { return Ok(None) };
    let known = PadType::ALL.into_iter().find(|p| p.name() == value);
    if known == Some(PadType::SameLower) && a.opset() < Opset::Ios16 {
        return Err(Fault::new(at, "pad_type is same_lower, which exists from ios16", "same"));
    }
    let expected = "valid, same, same_lower or custom";
    known.map(Some).ok_or_else(|| Fault::new(at, format!("pad_type is {}", shown(&value)), expected))
}
