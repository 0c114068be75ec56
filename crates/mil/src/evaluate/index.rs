//! Gathers and scatters of several dimensions.

use super::layout::{positions, strides};
use super::movement::{combined, position};
use super::{Value, ValueError};
use crate::{ScatterMode, TensorType};

/// `gather` with batch dimensions.
pub(super) fn gather_batched(
    x: &Value,
    indices: &Value,
    axis: usize,
    batch_dims: usize,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let (x_strides, i_strides) = (strides(&x.ty.shape), strides(&indices.ty.shape));
    let own = indices.ty.shape.len() - batch_dims;
    let element = |at: &Vec<usize>| {
        let of_indices = at[..batch_dims].iter().chain(&at[axis..axis + own]);
        let which: usize = of_indices.zip(&i_strides).map(|(p, s)| p * s).sum();
        let mut place = at.clone();
        place.splice(axis..axis + own, [position(indices.data[which], x.ty.shape[axis])?]);
        Ok(x.data[place.iter().zip(&x_strides).map(|(p, s)| p * s).sum::<usize>()])
    };
    positions(&ty.shape).iter().map(element).collect()
}

/// `gather_nd`.
pub(super) fn gather_nd(
    x: &Value,
    indices: &Value,
    batch_dims: usize,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let x_strides = strides(&x.ty.shape);
    let outer = indices.ty.shape.len() - 1;
    let i_strides = strides(&indices.ty.shape);
    let depth = indices.ty.shape[outer];
    let element = |at: &Vec<usize>| {
        let first: usize = at[..outer].iter().zip(&i_strides).map(|(p, s)| p * s).sum();
        let mut place = at[..batch_dims].to_vec();
        for k in 0..depth {
            place.push(position(indices.data[first + k], x.ty.shape[batch_dims + k])?);
        }
        place.extend_from_slice(&at[outer..]);
        Ok(x.data[place.iter().zip(&x_strides).map(|(p, s)| p * s).sum::<usize>()])
    };
    positions(&ty.shape).iter().map(element).collect()
}

/// `scatter_nd`.
pub(super) fn scatter_nd(
    data: &Value,
    indices: &Value,
    updates: &Value,
    mode: ScatterMode,
) -> Result<Vec<f64>, ValueError> {
    let steps = strides(&data.ty.shape);
    let (outer, i_strides) = (indices.ty.shape.len() - 1, strides(&indices.ty.shape));
    let depth = indices.ty.shape[outer];
    let mut result = data.data.clone();
    for (at, &update) in positions(&updates.ty.shape).iter().zip(&updates.data) {
        let first: usize = at[..outer].iter().zip(&i_strides).map(|(p, s)| p * s).sum();
        let mut place = 0;
        let coordinates = &indices.data[first..first + depth];
        for ((&index, &length), step) in coordinates.iter().zip(&data.ty.shape).zip(&steps) {
            place += position(index, length)? * step;
        }
        place += at[outer..].iter().zip(&steps[depth..]).map(|(p, s)| p * s).sum::<usize>();
        result[place] = combined(data.ty.dtype, mode, result[place], update)?;
    }
    Ok(result)
}

/// `reverse_sequence`.
pub(super) fn reverse_sequence(
    x: &Value,
    lengths: &Value,
    seq_axis: usize,
    batch_axis: usize,
) -> Result<Vec<f64>, ValueError> {
    let (x_strides, length) = (strides(&x.ty.shape), x.ty.shape[seq_axis]);
    let element = |at: &Vec<usize>| {
        let reversed = lengths.data[at[batch_axis]];
        if reversed < 0.0 || reversed > length as f64 {
            return Err(ValueError::Index { index: reversed as i64, length });
        }
        let mut place = at.clone();
        if at[seq_axis] < reversed as usize {
            place[seq_axis] = reversed as usize - 1 - at[seq_axis];
        }
        Ok(x.data[place.iter().zip(&x_strides).map(|(p, s)| p * s).sum::<usize>()])
    };
    positions(&x.ty.shape).iter().map(element).collect()
}
