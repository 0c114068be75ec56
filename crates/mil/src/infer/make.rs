//! The types of arrays that are made.

use arcane_tensor::{DType, round_to};

use super::TypeError;
use crate::{Make, TensorType, ValueId};

/// The result.
pub(super) fn make<'a>(
    op: &Make,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    match op {
        Make::Shape { x } => Ok(TensorType::new(DType::I32, &[types(*x).shape.len()])),
        Make::FillLike { like, dtype, value } => {
            holds(*dtype, *value)?;
            Ok(TensorType::new(*dtype, &types(*like).shape))
        }
        Make::Range { dtype, start, end, step } => {
            ensure!(*dtype != DType::Bool, "a range of bool, a numeric type was expected");
            for &v in [start, end, step] {
                ensure!(v.is_finite(), "a range has {v}, finite numbers were expected");
                holds(*dtype, v)?;
            }
            let length = Make::range_length(*start, *end, *step).filter(|_| *step != 0.0);
            let length = length
                .ok_or_else(|| TypeError(format!("a range from {start} to {end} by {step} has no end")))?;
            Ok(TensorType::new(*dtype, &[length]))
        }
        Make::OneHot { indices, size, axis, dtype, on, off } => {
            let indices = types(*indices);
            ensure!(indices.dtype.is_int(), "indices are {indices}, int32 was expected");
            ensure!(*axis <= indices.shape.len(), "axis {axis} is beyond the dimensions of the result");
            holds(*dtype, *on)?;
            holds(*dtype, *off)?;
            let mut shape = indices.shape.clone();
            shape.insert(*axis, *size);
            Ok(TensorType::new(*dtype, &shape))
        }
    }
}

fn holds(dtype: DType, value: f64) -> Result<(), TypeError> {
    let held = round_to(dtype, value);
    ensure!(held == value || value.is_nan() && held.is_nan(), "{value} is no value of {dtype}");
    Ok(())
}
