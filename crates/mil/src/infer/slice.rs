//! The types of slices.

use super::TypeError;
use crate::op::slice::{Position, Range};
use crate::{Slice, TensorType, ValueId};

/// The result of a slice.
pub(super) fn slice<'a>(
    slice: &Slice,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    match slice {
        Slice::ByIndex { x, range } => {
            let x = types(*x);
            holds(range, x, &types)?;
            let shape = taken(slice, range, x)?;
            let shape = shape.ok_or_else(|| TypeError("begin or end is a run-time value".into()))?;
            Ok(TensorType::new(x.dtype, &shape))
        }
        Slice::BySize { x, begin, size } => by_size(slice, types(*x), begin, size, &types),
        Slice::Update { x, update, range } => {
            let (x, update) = (types(*x), types(*update));
            holds(range, x, &types)?;
            ensure!(!update.shape.is_empty(), "update is {update}, rank 1 or more was expected");
            ensure!(update.dtype == x.dtype, "update is {update}, {} was expected", x.dtype);
            match taken(slice, range, x)? {
                Some(shape) => {
                    let wanted = TensorType::new(x.dtype, &shape);
                    ensure!(*update == wanted, "update is {update}, {wanted} was expected");
                }
                None => fits(range, x, update)?,
            }
            Ok(x.clone())
        }
    }
}

/// The shape of a known range.
fn taken(slice: &Slice, range: &Range, x: &TensorType) -> Result<Option<Vec<usize>>, TypeError> {
    let Some(spans) = slice.spans(&x.shape) else { return Ok(None) };
    let mut shape = Vec::new();
    for (axis, span) in spans.iter().enumerate() {
        if range.squeeze_mask[axis] {
            ensure!(span.count == 1, "begin is outside dimension {axis} of x {x}, which squeeze_mask drops");
        } else {
            shape.push(span.count);
        }
    }
    Ok(Some(shape))
}

/// Whether an update can be part of x.
fn fits(range: &Range, x: &TensorType, update: &TensorType) -> Result<(), TypeError> {
    let kept: Vec<usize> = range
        .squeeze_mask
        .iter()
        .zip(&x.shape)
        .filter(|(squeezed, _)| !**squeezed)
        .map(|(_, &d)| d)
        .collect();
    ensure!(
        update.shape.len() == kept.len() && update.shape.iter().zip(&kept).all(|(u, d)| u <= d),
        "update is {update}, no part of x {x}"
    );
    Ok(())
}

fn position<'a>(
    name: &str,
    position: &Position,
    rank: usize,
    types: &impl Fn(ValueId) -> &'a TensorType,
) -> Result<(), TypeError> {
    match position {
        Position::Known(values) => {
            ensure!(values.len() == rank, "{name} has {} numbers, {rank} were expected", values.len());
        }
        Position::Value(v) => {
            let ty = types(*v);
            ensure!(ty.dtype.is_int() && ty.shape == [rank], "{name} is {ty}, {rank} integers were expected");
        }
    }
    Ok(())
}

fn holds<'a>(
    range: &Range,
    x: &TensorType,
    types: &impl Fn(ValueId) -> &'a TensorType,
) -> Result<(), TypeError> {
    let rank = x.shape.len();
    ensure!(rank > 0, "x is {x}, rank 1 or more was expected");
    position("begin", &range.begin, rank, types)?;
    position("end", &range.end, rank, types)?;
    ensure!(
        range.stride.len() == rank && !range.stride.contains(&0),
        "stride is {:?}, {rank} numbers other than 0 were expected",
        range.stride
    );
    for (name, mask) in [
        ("begin_mask", &range.begin_mask),
        ("end_mask", &range.end_mask),
        ("squeeze_mask", &range.squeeze_mask),
    ] {
        ensure!(mask.len() == rank, "{name} has {} values, {rank} were expected", mask.len());
    }
    Ok(())
}

fn by_size<'a>(
    slice: &Slice,
    x: &TensorType,
    begin: &Position,
    size: &[i64],
    types: &impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let rank = x.shape.len();
    ensure!(rank > 0, "x is {x}, rank 1 or more was expected");
    position("begin", begin, rank, types)?;
    ensure!(
        size.len() == rank && size.iter().all(|&s| s >= -1),
        "size is {size:?}, {rank} numbers of −1 or more were expected"
    );
    let Some(spans) = slice.spans(&x.shape) else {
        let fits = size.iter().zip(&x.shape).all(|(&s, &d)| usize::try_from(s).is_ok_and(|s| s <= d));
        ensure!(
            fits,
            "size is {size:?}, known sizes within x {x} were expected where begin is a run-time value"
        );
        let shape: Vec<usize> = size.iter().map(|&s| s as usize).collect();
        return Ok(TensorType::new(x.dtype, &shape));
    };
    for (axis, span) in spans.iter().enumerate() {
        let begin = begin.known().map_or(0, |b| b[axis]);
        ensure!(
            begin >= -(x.shape[axis] as i64)
                && span.first.checked_add(span.count).is_some_and(|end| end <= x.shape[axis]),
            "begin {begin} and size {} reach outside dimension {axis} of x {x}",
            size[axis]
        );
    }
    let shape: Vec<usize> = spans.iter().map(|s| s.count).collect();
    Ok(TensorType::new(x.dtype, &shape))
}
