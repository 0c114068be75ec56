//! The types of ops along one axis.

use arcane_tensor::DType;

use super::{TypeError, axis_in};
use crate::{AlongAxis, TensorType};

/// The results of an op along an axis of x.
pub(super) fn along_axis(op: &AlongAxis, x: &TensorType) -> Result<Vec<TensorType>, TypeError> {
    ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
    let index = |dtype: DType| {
        let known = matches!(dtype, DType::I32 | DType::U16);
        if known {
            Ok(())
        } else {
            Err(TypeError(format!("indices of {dtype}, int32 or uint16 was expected")))
        }
    };
    axis_in(op.place().1, x)?;
    match op {
        AlongAxis::Extreme { axis, keep_dims, dtype, .. } => {
            index(*dtype)?;
            ensure!(x.shape[*axis] > 0, "axis {axis} of {x} has no elements");
            let mut shape = x.shape.clone();
            if *keep_dims {
                shape[*axis] = 1;
            } else {
                shape.remove(*axis);
            }
            Ok(vec![TensorType::new(*dtype, &shape)])
        }
        AlongAxis::Argsort { .. } => Ok(vec![TensorType::new(DType::I32, &x.shape)]),
        AlongAxis::TopK { k, axis, indices, .. } => {
            ensure!(*k <= x.shape[*axis], "k is {k}, axis {axis} of {x} has fewer elements");
            let mut shape = x.shape.clone();
            shape[*axis] = *k;
            let mut found = vec![TensorType::new(x.dtype, &shape)];
            if let Some(dtype) = indices {
                index(*dtype)?;
                found.push(TensorType::new(*dtype, &shape));
            }
            Ok(found)
        }
        AlongAxis::CumSum { .. } => Ok(vec![x.clone()]),
    }
}
