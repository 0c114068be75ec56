//! Ops that move elements.

use super::layout::{offsets, strides, strides_of};
use super::{Value, ValueError, wrap};
use crate::{ScatterMode, TensorType};
use arcane_tensor::DType;

/// An index as a position on an axis; a negative one counts from the end.
pub(super) fn position(index: f64, length: usize) -> Result<usize, ValueError> {
    let place = if index < 0.0 { index + length as f64 } else { index };
    if place < 0.0 || place >= length as f64 {
        return Err(ValueError::Index { index: index as i64, length });
    }
    Ok(place as usize)
}

pub(super) fn gather(
    x: &Value,
    indices: &Value,
    axis: usize,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let x_strides = strides(&x.ty.shape);
    let (before, after) = (&x_strides[..axis], &x_strides[axis + 1..]);
    let index_strides = strides(&indices.ty.shape);
    let zeros = |n: usize| vec![0; n];
    let slice = offsets(&ty.shape, &[before, &zeros(index_strides.len()), after].concat());
    let which = offsets(&ty.shape, &[&zeros(before.len()), &index_strides[..], &zeros(after.len())].concat());
    let element = |(start, i): (usize, usize)| {
        let p = position(indices.data[i], x.ty.shape[axis])?;
        Ok(x.data[start + p * x_strides[axis]])
    };
    slice.into_iter().zip(which).map(element).collect()
}

pub(super) fn gather_along_axis(x: &Value, indices: &Value, axis: usize) -> Result<Vec<f64>, ValueError> {
    let step = strides(&x.ty.shape)[axis];
    let starts = offsets(&indices.ty.shape, &strides_of(&x.ty.shape, |i| i != axis));
    let element = |(start, &index): (usize, &f64)| {
        let p = position(index, x.ty.shape[axis])?;
        Ok(x.data[start + p * step])
    };
    starts.into_iter().zip(&indices.data).map(element).collect()
}

pub(super) fn scatter(
    data: &Value,
    indices: &Value,
    updates: &Value,
    axis: usize,
    mode: ScatterMode,
) -> Result<Vec<f64>, ValueError> {
    let mut along = vec![0; updates.ty.shape.len()];
    along[axis] = 1;
    let which = offsets(&updates.ty.shape, &along);
    let index = which.into_iter().map(|i| indices.data[i]);
    combine(data, index, updates, axis, mode)
}

pub(super) fn scatter_along_axis(
    data: &Value,
    indices: &Value,
    updates: &Value,
    axis: usize,
    mode: ScatterMode,
) -> Result<Vec<f64>, ValueError> {
    combine(data, indices.data.iter().copied(), updates, axis, mode)
}

/// Combines each update into the data at the update's own coordinates, except along the axis, where its index says.
fn combine(
    data: &Value,
    index: impl Iterator<Item = f64>,
    updates: &Value,
    axis: usize,
    mode: ScatterMode,
) -> Result<Vec<f64>, ValueError> {
    let (dtype, length) = (data.ty.dtype, data.ty.shape[axis]);
    let step = strides(&data.ty.shape)[axis];
    let starts = offsets(&updates.ty.shape, &strides_of(&data.ty.shape, |i| i != axis));
    let mut result = data.data.clone();
    for ((start, index), &update) in starts.into_iter().zip(index).zip(&updates.data) {
        let slot = &mut result[start + position(index, length)? * step];
        *slot = combined(dtype, mode, *slot, update)?;
    }
    Ok(result)
}

/// An element of the data with an update combined in.
pub(super) fn combined(dtype: DType, mode: ScatterMode, data: f64, update: f64) -> Result<f64, ValueError> {
    let integer = dtype.is_int();
    let exact = |value: i128| Ok(wrap(dtype, value));
    let (a, b) = (data as i128, update as i128);
    let largest = |larger: bool| match (data.is_nan() || update.is_nan(), (data > update) == larger) {
        (true, _) => f64::NAN,
        (false, true) => data,
        (false, false) => update,
    };
    match mode {
        ScatterMode::Update => Ok(update),
        ScatterMode::Add if integer => exact(a + b),
        ScatterMode::Sub if integer => exact(a - b),
        ScatterMode::Mul if integer => exact(a * b),
        // As `real_div`.
        ScatterMode::Div if integer && b == 0 => Ok(0.0),
        ScatterMode::Div if integer => exact(a / b),
        ScatterMode::Add => Ok(data + update),
        ScatterMode::Sub => Ok(data - update),
        ScatterMode::Mul => Ok(data * update),
        ScatterMode::Div => Ok(data / update),
        ScatterMode::Max => Ok(largest(true)),
        ScatterMode::Min => Ok(largest(false)),
    }
}

pub(super) fn transpose(x: &Value, perm: &[usize]) -> Vec<f64> {
    let from = strides(&x.ty.shape);
    let shape: Vec<usize> = perm.iter().map(|&p| x.ty.shape[p]).collect();
    let steps: Vec<usize> = perm.iter().map(|&p| from[p]).collect();
    offsets(&shape, &steps).into_iter().map(|o| x.data[o]).collect()
}

pub(super) fn concat(values: &[&Value], axis: usize) -> Vec<f64> {
    let outer: usize = values[0].ty.shape[..axis].iter().product();
    let mut result = Vec::new();
    for i in 0..outer {
        for v in values {
            let run: usize = v.ty.shape[axis..].iter().product();
            result.extend_from_slice(&v.data[i * run..(i + 1) * run]);
        }
    }
    result
}

pub(super) fn split(x: &Value, axis: usize, sizes: &[usize]) -> Vec<Vec<f64>> {
    let outer: usize = x.ty.shape[..axis].iter().product();
    let inner: usize = x.ty.shape[axis + 1..].iter().product();
    let run = x.ty.shape[axis] * inner;
    let mut first = 0;
    let piece = |&size: &usize| {
        let (start, end) = (first * inner, (first + size) * inner);
        first += size;
        (0..outer).flat_map(|i| x.data[i * run + start..i * run + end].iter().copied()).collect()
    };
    sizes.iter().map(piece).collect()
}

pub(super) fn tile(x: &Value, reps: &[usize]) -> Vec<f64> {
    let shape: Vec<usize> = reps.iter().zip(&x.ty.shape).flat_map(|(&r, &d)| [r, d]).collect();
    let steps: Vec<usize> = strides(&x.ty.shape).into_iter().flat_map(|s| [0, s]).collect();
    offsets(&shape, &steps).into_iter().map(|o| x.data[o]).collect()
}
