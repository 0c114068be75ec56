//! Quantisation at run time, from its definition.

use super::Value;
use crate::Quantization;

/// The elements; rounding to the result's dtype clips them to its range.
pub(super) fn quantization(
    q: &Quantization,
    x: &Value,
    scale: &Value,
    zero_point: Option<&Value>,
) -> Vec<f64> {
    let (inner, length): (usize, usize) = match q.axis() {
        None => (1, 1),
        Some(axis) => (x.ty.shape[axis + 1..].iter().product(), x.ty.shape[axis]),
    };
    let element = |(i, &x): (usize, &f64)| {
        let k = i / inner % length;
        let zero = zero_point.map_or(0.0, |z| z.data[k]);
        match q {
            Quantization::Quantize { .. } => (x / scale.data[k]).round_ties_even() + zero,
            Quantization::Dequantize { .. } => scale.data[k] * (x - zero),
        }
    };
    x.data.iter().enumerate().map(element).collect()
}
