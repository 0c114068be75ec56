//! Gathers and scatters as they are written.

use super::{Built, Fault};
use crate::op::index::Index;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{Op, Opset, ScatterMode, ValueId};

/// `gather`.
pub(super) fn gather(a: &mut Arguments<'_, '_>) -> Built {
    let (x, indices) = (a.operand("x", Class::WideNumeric)?, a.operand("indices", Class::Index)?);
    let axis = a.axis("axis", x, Some(0))?;
    let batch_dims = batch_dims(a)?;
    validated(a, x, indices, Some(axis))?;
    Ok(match batch_dims {
        0 => Op::Gather { x, indices, axis },
        batch_dims => Op::Index(Index::GatherBatched { x, indices, axis, batch_dims }),
    })
}

/// `gather_along_axis`.
pub(super) fn gather_along_axis(a: &mut Arguments<'_, '_>) -> Built {
    let (x, indices) = (a.operand("x", Class::WideNumeric)?, a.operand("indices", Class::Index)?);
    let axis = a.axis("axis", x, Some(0))?;
    validated(a, x, indices, Some(axis))?;
    Ok(Op::GatherAlongAxis { x, indices, axis })
}

/// `gather_nd`.
pub(super) fn gather_nd(a: &mut Arguments<'_, '_>) -> Built {
    let (x, indices) = (a.operand("x", Class::WideNumeric)?, a.operand("indices", Class::Index)?);
    let batch_dims = batch_dims(a)?;
    validated(a, x, indices, None)?;
    Ok(Op::Index(Index::GatherNd { x, indices, batch_dims }))
}

/// `scatter` and `scatter_along_axis`.
pub(super) fn scatter(a: &mut Arguments<'_, '_>, along: bool) -> Built {
    let (data, indices) = (a.operand("data", Class::Numeric)?, a.operand("indices", Class::Int)?);
    let updates = a.operand("updates", Class::Numeric)?;
    let axis = a.axis("axis", data, Some(0))?;
    let mode = scatter_mode(a)?;
    validated(a, data, indices, Some(axis))?;
    Ok(if along {
        Op::ScatterAlongAxis { data, indices, updates, axis, mode }
    } else {
        Op::Scatter { data, indices, updates, axis, mode }
    })
}

/// `scatter_nd`.
pub(super) fn scatter_nd(a: &mut Arguments<'_, '_>) -> Built {
    let (data, indices) = (a.operand("data", Class::Numeric)?, a.operand("indices", Class::Int)?);
    let updates = a.operand("updates", Class::Numeric)?;
    let mode = scatter_mode(a)?;
    validated(a, data, indices, None)?;
    Ok(Op::Index(Index::ScatterNd { data, indices, updates, mode }))
}

/// `reverse_sequence`.
pub(super) fn reverse_sequence(a: &mut Arguments<'_, '_>) -> Built {
    let (x, lengths) = (a.operand("x", Class::Wide)?, a.operand("lengths", Class::Position)?);
    let (seq_axis, batch_axis) = (a.axis("seq_axis", x, Some(0))?, a.axis("batch_axis", x, Some(0))?);
    Ok(Op::Index(Index::ReverseSequence { x, lengths, seq_axis, batch_axis }))
}

fn batch_dims(a: &mut Arguments<'_, '_>) -> Result<usize, Fault> {
    if a.opset() >= Opset::Ios16 { a.size("batch_dims", 0, Some(0)) } else { Ok(0) }
}

/// From ios17 an op can promise that its indices are inside: constants then have to be, and not negative.
fn validated(
    a: &mut Arguments<'_, '_>,
    x: ValueId,
    indices: ValueId,
    axis: Option<usize>,
) -> Result<(), Fault> {
    if a.opset() < Opset::Ios17 {
        return Ok(());
    }
    let Some(Found { value: true, at }) = a.flag("validate_indices")? else { return Ok(()) };
    let (Some(known), shape) = (a.known_values(indices), a.ty(x).shape.clone()) else { return Ok(()) };
    let depth = a.ty(indices).shape.last().copied().unwrap_or(1).max(1);
    for (i, index) in known.into_iter().enumerate() {
        let length = shape.get(axis.unwrap_or(i % depth)).copied().unwrap_or(0);
        if usize::try_from(index).is_ok_and(|index| index < length) {
            continue;
        }
        let expected = format!("0 to {}", length.saturating_sub(1));
        return Err(Fault::new(at, format!("indices has {index}, and validate_indices is true"), expected));
    }
    Ok(())
}

fn scatter_mode(a: &mut Arguments<'_, '_>) -> Result<ScatterMode, Fault> {
    let Some(Found { value: mode, at }) = a.text("mode")? else { return Ok(ScatterMode::Add) };
    let known = ScatterMode::ALL.into_iter().find(|m| m.name() == mode);
    let expected = "update, add, sub, mul, div, max or min";
    known.ok_or_else(|| Fault::new(at, format!("mode is {}", shown(&mode)), expected))
}
