//! Ops along one axis as they are written.

use arcane_tensor::DType;

use super::{Built, flag, sizes};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{AlongAxis, Op, Opset};

/// `reduce_argmax`, `reduce_argmin`.
pub(super) fn extreme(a: &mut Arguments<'_, '_>, largest: bool) -> Built {
    let x = a.operand("x", Class::Numeric)?;
    let axis = a.axis("axis", x, Some(-1))?;
    let keep_dims = flag(a, "keep_dims")?;
    let dtype = if a.opset() >= Opset::Ios17 { indices_dtype(a, "output_dtype")? } else { DType::I32 };
    Ok(Op::AlongAxis(AlongAxis::Extreme { x, largest, axis, keep_dims, dtype }))
}

/// `argsort`.
pub(super) fn argsort(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Numeric)?;
    let axis = a.axis("axis", x, Some(-1))?;
    Ok(Op::AlongAxis(AlongAxis::Argsort { x, axis, ascending: flag(a, "ascending")? }))
}

/// `topk`; from ios17 a k of −1 takes all.
pub(super) fn topk(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::WideNumeric)?;
    let axis = a.axis("axis", x, Some(-1))?;
    let k = match a.int("k")? {
        None => 1,
        Some(Found { value: -1, .. }) if a.opset() >= Opset::Ios17 => a.ty(x).shape[axis],
        Some(Found { value, at }) => sizes(&[value], 1, "k", at)?[0],
    };
    let ascending = flag(a, "ascending")?;
    let (mut sort, mut indices) = (true, Some(DType::I32));
    if a.opset() >= Opset::Ios16 {
        sort = a.flag("sort")?.is_none_or(|found| found.value);
        if a.flag("return_indices")?.is_some_and(|found| !found.value) {
            indices = None;
        }
    }
    if a.opset() >= Opset::Ios17 {
        let dtype = indices_dtype(a, "output_indices_dtype")?;
        indices = indices.map(|_| dtype);
    }
    Ok(Op::AlongAxis(AlongAxis::TopK { x, k, axis, ascending, sort, indices }))
}

/// `cumsum`.
pub(super) fn cumsum(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Numeric)?;
    let axis = a.axis("axis", x, Some(0))?;
    let (exclusive, reverse) = (flag(a, "exclusive")?, flag(a, "reverse")?);
    Ok(Op::AlongAxis(AlongAxis::CumSum { x, axis, exclusive, reverse }))
}

fn indices_dtype(a: &mut Arguments<'_, '_>, name: &'static str) -> Result<DType, Fault> {
    let Some(Found { value, at }) = a.text(name)? else { return Ok(DType::I32) };
    let known = [DType::I32, DType::U16].into_iter().find(|d| d.name() == value);
    known.ok_or_else(|| Fault::new(at, format!("{name} is {}", shown(&value)), "int32 or uint16"))
}
