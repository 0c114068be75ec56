//! Compressed weights, element by element from their definitions.

use super::{Value, ValueError};
use crate::{Constexpr, ValueId};

/// The elements of each result.
pub(super) fn constexpr<'a>(
    op: &Constexpr,
    get: impl Fn(ValueId) -> &'a Value,
) -> Result<Vec<Vec<f64>>, ValueError> {
    let one = match op {
        Constexpr::AffineDequantize { data, zero_point, scale, axis } => {
            let data = get(*data);
            let inner: usize = data.ty.shape[axis + 1..].iter().product();
            let pick = |v: &Value, i: usize| v.data[i / inner.max(1) % data.ty.shape[*axis] % v.data.len()];
            let (zero, scale) = (get(*zero_point), get(*scale));
            let element = |(i, x): (usize, &f64)| pick(scale, i) * (x - pick(zero, i));
            data.data.iter().enumerate().map(element).collect()
        }
        Constexpr::Cast { source } => get(*source).data.clone(),
        Constexpr::BlockwiseShiftScale { data, scale, offset } => {
            let data = get(*data);
            shift_scale(&data.data, &data.ty.shape, get(*scale), offset.map(&get))
        }
        Constexpr::LutToDense { indices, lut, vector_axis } => {
            let indices = get(*indices);
            look_up(&indices.data, &indices.ty.shape, get(*lut), *vector_axis)
        }
        Constexpr::PackedLutToDense { indices, lut, shape } => {
            let lut = &get(*lut).data;
            let bits = lut.len().ilog2() as usize;
            unpack(&get(*indices).data, bits, shape).into_iter().map(|i| lut[i]).collect()
        }
        Constexpr::SparseToDense { data, mask } => spread(&get(*data).data, &get(*mask).data)?,
        Constexpr::PackedSparseToDense { data, mask, shape } => {
            let mask: Vec<f64> =
                unpack(&get(*mask).data, 1, shape).into_iter().map(|bit| bit as f64).collect();
            spread(&get(*data).data, &mask)?
        }
        Constexpr::LutToSparse { mask, indices, lut, vector_axis } => {
            let (mask, lut) = (get(*mask), get(*lut));
            let dense = spread(&get(*indices).data, &mask.data)?;
            let values = look_up(&dense, &mask.ty.shape, lut, *vector_axis);
            let length = lut.ty.shape[lut.ty.shape.len() - 1];
            let mask = repeat(&mask.data, &mask.ty.shape, *vector_axis, length);
            let values = gathered(&values, &mask);
            return Ok(vec![mask, values]);
        }
        Constexpr::SparseBlockwiseShiftScale { mask, data, scale, offset } => {
            let mask = get(*mask);
            let dense = spread(&get(*data).data, &mask.data)?;
            let values = shift_scale(&dense, &mask.ty.shape, get(*scale), offset.map(&get));
            return Ok(vec![mask.data.clone(), gathered(&values, &mask.data)]);
        }
    };
    Ok(vec![one])
}

/// The coordinates of an element in row-major order.
fn coordinates(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (c, &d) in at.iter_mut().zip(shape).rev() {
        *c = i % d;
        i /= d;
    }
    at
}

/// The number of the block that an element belongs to, of a smaller shape's.
fn block(shape: &[usize], small: &[usize], i: usize) -> usize {
    let at = coordinates(shape, i);
    (0..shape.len()).fold(0, |n, k| n * small[k] + at[k] / (shape[k] / small[k]))
}

fn shift_scale(data: &[f64], shape: &[usize], scale: &Value, offset: Option<&Value>) -> Vec<f64> {
    let element = |(i, x): (usize, &f64)| {
        let b = block(shape, &scale.ty.shape, i);
        scale.data[b] * (x - offset.map_or(0.0, |o| o.data[b]))
    };
    data.iter().enumerate().map(element).collect()
}

/// Each index's entry; entries of several numbers lie along an axis.
fn look_up(indices: &[f64], shape: &[usize], lut: &Value, axis: Option<usize>) -> Vec<f64> {
    let rank = shape.len();
    let (entries, length) = (lut.ty.shape[rank], lut.ty.shape[rank + 1]);
    let axis = axis.unwrap_or(0);
    let mut result_shape = shape.to_vec();
    result_shape[axis] *= length;
    let element = |i: usize| {
        let mut at = coordinates(&result_shape, i);
        let number = at[axis] % length;
        at[axis] /= length;
        let position = (0..rank).fold(0, |n, k| n * shape[k] + at[k]);
        let entry = block(shape, &lut.ty.shape[..rank], position) * entries + indices[position] as usize;
        lut.data[entry * length + number]
    };
    (0..indices.len() * length).map(element).collect()
}

/// Each element `length` times along an axis.
fn repeat(mask: &[f64], shape: &[usize], axis: Option<usize>, length: usize) -> Vec<f64> {
    let inner: usize = axis.map_or(1, |a| shape[a + 1..].iter().product());
    (0..mask.len() * length).map(|i| mask[i / inner / length * inner + i % inner]).collect()
}

/// Sparse data with zeros between them.
fn spread(data: &[f64], mask: &[f64]) -> Result<Vec<f64>, ValueError> {
    let ones = mask.iter().filter(|&&bit| bit != 0.0).count();
    if ones != data.len() {
        return Err(ValueError::Mask { ones, values: data.len() });
    }
    let mut values = data.iter();
    Ok(mask.iter().map(|&bit| if bit == 0.0 { 0.0 } else { *values.next().expect("one a bit") }).collect())
}

/// The elements whose mask is 1.
fn gathered(values: &[f64], mask: &[f64]) -> Vec<f64> {
    values.iter().zip(mask).filter(|(_, bit)| **bit != 0.0).map(|(v, _)| *v).collect()
}

/// Elements of `bits` bits out of bytes, the first in the lowest bits.
fn unpack(bytes: &[f64], bits: usize, shape: &[usize]) -> Vec<usize> {
    let bit = |i: usize| (bytes[i / 8] as usize >> (i % 8)) & 1;
    let element = |i: usize| (0..bits).fold(0, |n, k| n | bit(i * bits + k) << k);
    (0..shape.iter().product()).map(element).collect()
}
