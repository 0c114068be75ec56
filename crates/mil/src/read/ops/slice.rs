//! Slices as they are written.

use super::{Built, since};
use crate::op::slice::{Position, Range};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::{Binary, Op, Opset, Slice, ValueId};

/// `slice_by_index`. Where begin or end are run-time values, the declared result says how many elements there are, and the
/// slice is one by size.
pub(super) fn by_index(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let range = range(a, x)?;
    if range.begin.known().is_some() && range.end.known().is_some() {
        return Ok(Op::Slice(Slice::ByIndex { x, range }));
    }
    let length = a.ty(x).shape.clone();
    if (0..length.len()).all(|axis| range.span(axis, length[axis]).is_some()) {
        let known =
            |p: &Position| Position::Known(p.known().map_or_else(|| vec![0; length.len()], <[i64]>::to_vec));
        let range = Range { begin: known(&range.begin), end: known(&range.end), ..range };
        return Ok(Op::Slice(Slice::ByIndex { x, range }));
    }
    let declared = a.declared_shape().filter(|_| range.stride.iter().all(|&s| s == 1));
    let kept: Vec<usize> = (0..length.len()).filter(|&i| !range.squeeze_mask[i]).collect();
    let Some(shape) = declared.filter(|shape| shape.len() == kept.len()) else {
        let (begin, end) = (settled(a, range.begin)?, settled(a, range.end)?);
        return Ok(Op::Slice(Slice::ByIndex { x, range: Range { begin, end, ..range } }));
    };
    let mut size = vec![1; length.len()];
    for (&axis, &count) in kept.iter().zip(&shape) {
        size[axis] = count as i64;
    }
    let begin = masked(a, range.begin, &range.begin_mask)?;
    let slice = Op::Slice(Slice::BySize { x, begin, size });
    if kept.len() == length.len() {
        return Ok(slice);
    }
    let x = a.intermediate(slice)?;
    Ok(Op::Reshape { x, shape })
}

/// Positions that are 0 where the mask says so.
fn masked(a: &mut Arguments<'_, '_>, begin: Position, mask: &[bool]) -> Result<Position, Fault> {
    match begin {
        Position::Known(mut known) => {
            known.iter_mut().zip(mask).filter(|(_, masked)| **masked).for_each(|(k, _)| *k = 0);
            Ok(Position::Known(known))
        }
        Position::Value(v) if mask.contains(&true) => {
            let x = a.converted(v, arcane_tensor::DType::I32);
            let data: Vec<i32> = mask.iter().map(|&masked| i32::from(!masked)).collect();
            let y = a.vector(data);
            Ok(Position::Value(a.intermediate(Op::Binary { kind: Binary::Mul, x, y })?))
        }
        value @ Position::Value(_) => Ok(value),
    }
}

/// Positions that are known at the latest where the inputs are.
fn settled(a: &Arguments<'_, '_>, position: Position) -> Result<Position, Fault> {
    match position {
        Position::Known(_) => Ok(position),
        Position::Value(v) => a.settled(v).map(Position::Known),
    }
}

/// `slice_by_size`.
pub(super) fn by_size(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let rank = a.ty(x).shape.len();
    let begin = position(a, "begin", rank)?;
    let size = match position(a, "size", rank)? {
        Position::Known(size) => size,
        Position::Value(v) => match a.declared_shape() {
            Some(shape) => shape.into_iter().map(|d| d as i64).collect(),
            None => a.settled(v)?,
        },
    };
    let begin = if size.contains(&-1) { settled(a, begin)? } else { begin };
    Ok(Op::Slice(Slice::BySize { x, begin, size }))
}

/// `slice_update`.
pub(super) fn update(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios18)?;
    let (x, update) = (a.operand("x", Class::Wide)?, a.operand("update", Class::Wide)?);
    Ok(Op::Slice(Slice::Update { x, update, range: range(a, x)? }))
}

fn range(a: &mut Arguments<'_, '_>, x: ValueId) -> Result<Range, Fault> {
    let rank = a.ty(x).shape.len();
    let (begin, end) = (position(a, "begin", rank)?, position(a, "end", rank)?);
    let stride = match a.maybe_known_ints("stride", Class::Position, rank)? {
        None => vec![1; rank],
        Some(Found { value, at }) if value.contains(&0) => {
            return Err(Fault::new(at, format!("stride is {value:?}"), "numbers other than 0"));
        }
        Some(Found { value, .. }) => value,
    };
    let mut mask = |name| a.flags(name, rank).map(|flags| flags.unwrap_or_else(|| vec![false; rank]));
    let (begin_mask, end_mask) = (mask("begin_mask")?, mask("end_mask")?);
    let squeeze_mask = mask("squeeze_mask")?;
    Ok(Range { begin, end, stride, begin_mask, end_mask, squeeze_mask })
}

/// One integer an axis, known or not.
fn position(a: &mut Arguments<'_, '_>, name: &'static str, rank: usize) -> Result<Position, Fault> {
    a.position(name, Class::Position, rank)
}
