//! The types of arrays that are put together.

use super::TypeError;
use crate::{Join, JoinKind, TensorType, ValueId};

/// The result of a join.
pub(super) fn join<'a>(
    op: &Join,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let Some(&first) = op.values.first() else {
        return Err(TypeError("values is empty, one operand or more was expected".into()));
    };
    let first = types(first);
    for &v in &op.values {
        ensure!(types(v) == first, "{first} and {} cannot be put together, one type was expected", types(v));
    }
    let (rank, n) = (first.shape.len(), op.values.len());
    let mut shape = first.shape.clone();
    match op.kind {
        JoinKind::Stack => {
            ensure!(op.axis <= rank, "axis {} is beyond the {} dimensions of the result", op.axis, rank + 1);
            shape.insert(op.axis, n);
        }
        JoinKind::Interleave => {
            ensure!(op.axis < rank, "axis {} is outside the {rank} dimensions of {first}", op.axis);
            shape[op.axis] = shape[op.axis].saturating_mul(n);
        }
    }
    Ok(TensorType::new(first.dtype, &shape))
}
