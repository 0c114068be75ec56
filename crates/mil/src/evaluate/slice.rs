//! Slices and pads, element by element.

use super::layout::{positions, strides};
use super::{Value, ValueError};
use crate::op::slice::{Position, Range};
use crate::{Pad, PadMode, Slice, TensorType};

/// The elements of a slice. `begin` is the run-time vector of the positions, if they are one.
pub(super) fn slice(
    slice: &Slice,
    x: &Value,
    update: Option<&Value>,
    begin: Option<&Value>,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let shape = &x.ty.shape;
    // Of each axis, which element of x the first one of the slice is, and the step from each to the next.
    let mut first = Vec::new();
    let mut step = Vec::new();
    match (slice.spans(shape), slice) {
        (Some(spans), _) => {
            for span in spans {
                first.push(span.first as i64);
                step.push(span.step);
            }
        }
        (None, Slice::BySize { .. }) => {
            let begin = begin.expect("unknown spans have run-time begins");
            for (&b, &length) in begin.data.iter().zip(shape) {
                first.push(if b < 0.0 { b as i64 + length as i64 } else { b as i64 });
                step.push(1);
            }
        }
        (None, Slice::ByIndex { range, .. } | Slice::Update { range, .. }) => {
            for (axis, &length) in shape.iter().enumerate() {
                let begin = match (&range.begin, begin) {
                    (Position::Known(known), _) => known[axis],
                    (Position::Value(_), begin) => {
                        begin.expect("run-time begins have a value").data[axis] as i64
                    }
                };
                first.push(range.first(axis, length, begin));
                step.push(if range.squeeze_mask[axis] { 1 } else { range.stride[axis] });
            }
        }
    }
    let squeezed = match slice {
        Slice::ByIndex { range, .. } | Slice::Update { range, .. } => kept(range),
        Slice::BySize { .. } => (0..shape.len()).collect(),
    };
    let taken = update.map_or(&ty.shape, |u| &u.ty.shape);
    let x_strides = strides(shape);
    let place = |at: &Vec<usize>| {
        let mut place = 0;
        for axis in 0..shape.len() {
            let along = squeezed.iter().position(|&k| k == axis).map_or(0, |i| at[i] as i64);
            let index = first[axis] + along * step[axis];
            let inside = usize::try_from(index).ok().filter(|&i| i < shape[axis]);
            place += inside.ok_or(ValueError::Index { index, length: shape[axis] })? * x_strides[axis];
        }
        Ok(place)
    };
    let places = positions(taken).iter().map(place).collect::<Result<Vec<usize>, _>>()?;
    Ok(match update {
        None => places.into_iter().map(|p| x.data[p]).collect(),
        Some(update) => {
            let mut result = x.data.clone();
            for (p, &u) in places.into_iter().zip(&update.data) {
                result[p] = u;
            }
            result
        }
    })
}

/// The axes that a range keeps.
fn kept(range: &Range) -> Vec<usize> {
    (0..range.squeeze_mask.len()).filter(|&i| !range.squeeze_mask[i]).collect()
}

/// The elements of a padded array.
pub(super) fn pad(pad: &Pad, x: &Value, ty: &TensorType) -> Vec<f64> {
    let x_strides = strides(&x.ty.shape);
    let sides = pad.sides(x.ty.shape.len());
    let source = |at: &Vec<usize>| {
        let mut place = 0;
        for (axis, &i) in at.iter().enumerate() {
            let (length, i) = (x.ty.shape[axis] as i64, i as i64 - sides[axis][0] as i64);
            let i = match pad.mode {
                PadMode::Constant(_) if (0..length).contains(&i) => i,
                PadMode::Constant(value) => return Err(value),
                PadMode::Reflect if i < 0 => -i,
                PadMode::Reflect if i >= length => 2 * (length - 1) - i,
                PadMode::Reflect => i,
                PadMode::Replicate => i.clamp(0, length - 1),
            };
            place += i as usize * x_strides[axis];
        }
        Ok(place)
    };
    positions(&ty.shape).iter().map(|at| source(at).map_or_else(|value| value, |p| x.data[p])).collect()
}
