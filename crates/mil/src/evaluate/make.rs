//! Arrays that are made.

use super::Value;
use super::layout::positions;
use crate::{Make, TensorType};

/// The elements of what is made. `operand` is the op's, if it has one.
pub(super) fn make(op: &Make, operand: Option<&Value>, ty: &TensorType) -> Vec<f64> {
    match op {
        Make::Shape { .. } => operand.map_or(Vec::new(), |x| x.ty.shape.iter().map(|&d| d as f64).collect()),
        Make::FillLike { value, .. } => vec![*value; ty.len()],
        Make::Range { start, step, .. } => (0..ty.len()).map(|i| start + i as f64 * step).collect(),
        Make::OneHot { axis, on, off, .. } => {
            let indices = operand.expect("one_hot has indices");
            let mut found = positions(&indices.ty.shape).into_iter();
            let mut result = vec![*off; ty.len()];
            let strides = super::layout::strides(&ty.shape);
            for &index in &indices.data {
                let mut at = found.next().expect("each index has a position");
                if (0.0..ty.shape[*axis] as f64).contains(&index) {
                    at.insert(*axis, index as usize);
                    result[at.iter().zip(&strides).map(|(p, s)| p * s).sum::<usize>()] = *on;
                }
            }
            result
        }
    }
}
