//! Ops that change dimensions alone, as they are written.

use super::{Built, since};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found, from_front_of};
use crate::read::syntax::MAX_RANK;
use crate::{Dimensions, Op, Opset};

/// `expand_dims`.
pub(super) fn expand(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let Found { value, at } = a.required_ints("axes", MAX_RANK)?;
    let rank = a.ty(x).shape.len() + value.len();
    let axes = axes(&value, rank, at)?;
    Ok(Op::Dimensions(Dimensions::Expand { x, axes }))
}

/// `squeeze`.
pub(super) fn squeeze(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let rank = a.ty(x).shape.len();
    let axes = match a.ints("axes", MAX_RANK)? {
        None => None,
        Some(Found { value, at }) => Some(axes(&value, rank, at)?),
    };
    Ok(Op::Dimensions(Dimensions::Squeeze { x, axes }))
}

/// Distinct axes of `rank` dimensions, sorted.
pub(super) fn axes(values: &[i64], rank: usize, at: usize) -> Result<Vec<usize>, Fault> {
    let found = values.iter().map(|&axis| from_front_of(axis, rank, "axes", at));
    let mut axes: Vec<usize> = found.collect::<Result<_, _>>()?;
    axes.sort_unstable();
    match axes.array_windows().find(|[a, b]| a == b) {
        Some([axis, _]) => Err(Fault::new(at, format!("axes has axis {axis} twice"), "each once")),
        None => Ok(axes),
    }
}

/// `flatten2d`: the axis may be the one behind the last.
pub(super) fn flatten(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Plain)?;
    let rank = a.ty(x).shape.len() as i64;
    let axis = match a.int("axis")? {
        None => 1,
        Some(Found { value, at }) if !(-rank..=rank).contains(&value) => {
            let expected = format!("{} to {rank}", -rank);
            return Err(Fault::new(at, format!("axis has {value}"), expected));
        }
        Some(Found { value, .. }) => value,
    };
    let axis = if axis < 0 { axis + rank } else { axis };
    Ok(Op::Dimensions(Dimensions::Flatten { x, axis: axis as usize }))
}

/// `reshape_like`.
pub(super) fn like(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios16)?;
    let x = a.operand("x", Class::Wide)?;
    let refs = a.operands("ref_tensors", Class::Any)?;
    let (begins, ends) = (a.int_tuple("begins")?, a.int_tuple("ends")?);
    let masks = a.flag_tuple("end_masks")?;
    if [begins.len(), ends.len(), masks.len()].iter().any(|&n| n != refs.len()) {
        let what = format!(
            "there are {} ref_tensors, {} begins, {} ends and {} end_masks",
            refs.len(),
            begins.len(),
            ends.len(),
            masks.len()
        );
        return Err(a.fault(what, "as many of each"));
    }
    let end = |(end, masked): (i64, bool)| if masked { None } else { Some(end) };
    let ranges = begins.into_iter().zip(ends.into_iter().zip(masks).map(end)).collect();
    Ok(Op::Dimensions(Dimensions::Like { x, refs, ranges }))
}
