//! The types of gathers and scatters of several dimensions.

use arcane_tensor::DType;

use super::{TypeError, axis_in, index};
use crate::{Index, TensorType, ValueId};

/// The result.
pub(super) fn indexed<'a>(
    op: &Index,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    match op {
        Index::GatherBatched { x, indices, axis, batch_dims } => {
            let (x, indices) = (types(*x), types(*indices));
            axis_in(*axis, x)?;
            index(indices)?;
            batch(x, indices, *batch_dims)?;
            ensure!(batch_dims <= axis, "axis {axis} is one of the {batch_dims} batch dimensions");
            let shape = [&x.shape[..*axis], &indices.shape[*batch_dims..], &x.shape[axis + 1..]].concat();
            Ok(TensorType::new(x.dtype, &shape))
        }
        Index::GatherNd { x, indices, batch_dims } => {
            let (x, indices) = (types(*x), types(*indices));
            let (outer, depth) = coordinates(indices)?;
            batch(x, indices, *batch_dims)?;
            ensure!(
                *batch_dims <= outer.len() && batch_dims + depth <= x.shape.len(),
                "indices {indices} have coordinates of {depth} dimensions behind {batch_dims}, x is {x}"
            );
            let shape = [outer, &x.shape[batch_dims + depth..]].concat();
            Ok(TensorType::new(x.dtype, &shape))
        }
        Index::ScatterNd { data, indices, updates, .. } => {
            let (data, indices, updates) = (types(*data), types(*indices), types(*updates));
            ensure!(data.dtype != DType::Bool, "data is {data}, a numeric type was expected");
            let (outer, depth) = coordinates(indices)?;
            ensure!(
                depth <= data.shape.len(),
                "indices {indices} have coordinates of {depth} dimensions, data is {data}"
            );
            let wanted = TensorType::new(data.dtype, &[outer, &data.shape[depth..]].concat());
            ensure!(*updates == wanted, "updates are {updates}, {wanted} was expected");
            Ok(data.clone())
        }
        Index::ReverseSequence { x, lengths, seq_axis, batch_axis } => {
            let (x, lengths) = (types(*x), types(*lengths));
            axis_in(*seq_axis, x)?;
            axis_in(*batch_axis, x)?;
            let batch = x.shape[*batch_axis];
            ensure!(
                lengths.dtype.is_int() && lengths.shape == [batch],
                "lengths are {lengths}, {batch} integers were expected"
            );
            Ok(x.clone())
        }
    }
}

/// The dimensions before the coordinates, and how many coordinates there are.
fn coordinates(indices: &TensorType) -> Result<(&[usize], usize), TypeError> {
    index(indices)?;
    let Some((&depth, outer)) = indices.shape.split_last() else {
        return Err(TypeError(format!("indices are {indices}, rank 1 or more was expected")));
    };
    Ok((outer, depth))
}

fn batch(x: &TensorType, indices: &TensorType, dims: usize) -> Result<(), TypeError> {
    ensure!(
        dims <= indices.shape.len() && x.shape.get(..dims) == indices.shape.get(..dims),
        "x {x} and indices {indices} do not agree in their first {dims} dimensions"
    );
    ensure!(dims < x.shape.len().max(1), "batch_dims is {dims}, less than the rank of x {x} was expected");
    Ok(())
}
