//! Ops that move elements or make arrays, as reshapes, concatenations, pads and tables.

use arcane_mil::{
    BuildError, Builder, Compare, Dimensions, Index, Join, JoinKind, Make, Op, Pad, Rearrange, Rearrangement,
    TensorType, ValueId,
};
use arcane_tensor::{DType, Tensor};

use super::Expanded;

fn one(v: Result<ValueId, BuildError>) -> Expanded {
    v.map(|v| Some(vec![v]))
}

/// The elements of x under the dimensions that the op gives.
pub(super) fn dimensions(f: &mut Builder, op: &Dimensions, ty: &TensorType) -> Expanded {
    one(f.reshape(op.x(), &ty.shape))
}

/// Each operand with a dimension of its own, one after another.
pub(super) fn join(f: &mut Builder, op: &Join, ty: &TensorType) -> Expanded {
    let shape = f.shape(op.values[0]);
    // Of interleaved elements, each has a part of every operand.
    let cut = if op.kind == JoinKind::Stack { op.axis } else { op.axis + 1 };
    let product = |dims: &[usize]| dims.iter().product();
    let parts: [usize; 3] = [product(&shape[..cut]), 1, product(&shape[cut..])];
    let values: Result<Vec<ValueId>, _> = op.values.iter().map(|&v| f.reshape(v, &parts)).collect();
    let joined = f.concat(&values?, 1)?;
    one(f.reshape(joined, &ty.shape))
}

/// What is known when the function is loaded.
pub(super) fn make(f: &mut Builder, op: &Make, ty: &TensorType) -> Expanded {
    match op {
        Make::Shape { x } => {
            let dims: Vec<f64> = f.shape(*x).iter().map(|&d| d as f64).collect();
            constant(f, "shape", ty, &dims)
        }
        Make::FillLike { dtype, value, .. } => one(Ok(f.fill(*dtype, &ty.shape, *value))),
        Make::Range { start, step, .. } => {
            let values: Vec<f64> = (0..ty.len()).map(|i| start + i as f64 * step).collect();
            constant(f, "range", ty, &values)
        }
        Make::OneHot { indices, size, axis, dtype, on, off } => {
            let mut shape = f.shape(*indices);
            shape.insert(*axis, 1);
            let indices = f.cast(*indices, DType::I32);
            let indices = f.reshape(indices, &shape)?;
            shape.fill(1);
            shape[*axis] = *size;
            let numbers: Vec<i32> = (0..*size as i32).collect();
            let numbers = Tensor::new(&shape, numbers).expect("one number an element");
            let numbers = f.constant("numbers", numbers);
            let hot = f.compare(Compare::Equal, indices, numbers)?;
            let (on, off) = (f.scalar(*dtype, *on), f.scalar(*dtype, *off));
            one(f.select(hot, on, off))
        }
    }
}

fn constant(f: &mut Builder, name: &str, ty: &TensorType, values: &[f64]) -> Expanded {
    let tensor = Tensor::from_f64s(ty.dtype, &ty.shape, values).expect("as many values as elements");
    one(Ok(f.constant(name, tensor)))
}

/// Padding and masks are ops of their own; what is left is a table.
pub(super) fn rearrange(f: &mut Builder, op: &Rearrange, ty: &TensorType) -> Expanded {
    match &op.kind {
        Rearrangement::SpaceToBatch { block, paddings } if *paddings != [[0, 0], [0, 0]] => {
            let x = f.push_one(Op::Pad(Pad::zeros(op.x, paddings.as_flattened())))?;
            let kind = Rearrangement::SpaceToBatch { block: *block, paddings: [[0, 0], [0, 0]] };
            one(f.push_one(Op::Rearrange(Rearrange { x, kind })))
        }
        Rearrangement::BandPart { lower, upper } => {
            let &[.., rows, columns] = ty.shape.as_slice() else { unreachable!("bands have rank 2 or more") };
            let kept = |i: usize| {
                let (row, column) = ((i / columns) as i64, (i % columns) as i64);
                (*lower < 0 || row - column <= *lower) && (*upper < 0 || column - row <= *upper)
            };
            let mask: Vec<bool> = (0..rows * columns).map(kept).collect();
            let mask = Tensor::new(&[rows, columns], mask).expect("one value an element");
            let mask = f.constant("mask", mask);
            if ty.dtype == DType::Bool {
                return one(f.logical_and(mask, op.x));
            }
            let zero = f.scalar(ty.dtype, 0.0);
            one(f.select(mask, op.x, zero))
        }
        _ => Ok(None),
    }
}

/// A batched gather is one by coordinates, once its axis follows the batch.
pub(super) fn index(f: &mut Builder, op: &Index) -> Expanded {
    let Index::GatherBatched { x, indices, axis, batch_dims } = op else { return Ok(None) };
    let (axis, batch_dims) = (*axis, *batch_dims);
    let (shape, of_indices) = (f.shape(*x), f.shape(*indices));
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let (batch, before) = (product(&shape[..batch_dims]), product(&shape[batch_dims..axis]));
    let (length, after, picks) =
        (shape[axis], product(&shape[axis + 1..]), product(&of_indices[batch_dims..]));
    let x = f.reshape(*x, &[batch, before, length, after])?;
    let x = f.transpose(x, &[0, 2, 1, 3])?;
    let indices = f.reshape(*indices, &[batch, picks, 1])?;
    let picked = f.push_one(Op::Index(Index::GatherNd { x, indices, batch_dims: 1 }))?;
    let picked = f.transpose(picked, &[0, 2, 1, 3])?;
    let shape = [&shape[..axis], &of_indices[batch_dims..], &shape[axis + 1..]].concat();
    one(f.reshape(picked, &shape))
}
