//! The types of quantisation at run time.

use arcane_tensor::DType;

use super::{TypeError, axis_in};
use crate::{Quantization, TensorType, ValueId};

/// The result of `quantize` or `dequantize`.
pub(super) fn quantization<'a>(
    q: &Quantization,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let bytes = [DType::I8, DType::U8];
    let x = types(q.x());
    let (scale, zero_point) = q.scale();
    let (scale, zero_point) = (types(scale), zero_point.map(&types));
    ensure!(scale.dtype.is_float(), "scale is {scale}, a float type was expected");
    let (dtype, quantized) = match q {
        Quantization::Quantize { dtype, .. } => {
            ensure!(x.dtype == scale.dtype, "input is {x}, {} was expected as of scale", scale.dtype);
            (*dtype, *dtype)
        }
        Quantization::Dequantize { .. } => (scale.dtype, x.dtype),
    };
    ensure!(bytes.contains(&quantized), "the quantized type is {quantized}, int8 or uint8 was expected");
    let shape = match q.axis() {
        None => Vec::new(),
        Some(axis) => {
            axis_in(axis, x)?;
            vec![x.shape[axis]]
        }
    };
    let expected = TensorType::new(scale.dtype, &shape);
    ensure!(*scale == expected, "scale is {scale}, {expected} was expected");
    if let Some(zero_point) = zero_point {
        let expected = TensorType::new(quantized, &shape);
        ensure!(*zero_point == expected, "zero_point is {zero_point}, {expected} was expected");
    }
    Ok(TensorType::new(dtype, &x.shape))
}
