//! Pools, window by window from their definition.

use super::Value;
use super::layout::positions;
use super::layout::strides;
use crate::{Pool, PoolKind, TensorType};

/// What the kind makes of the elements under each window.
pub(super) fn pool(p: &Pool, x: &Value, ty: &TensorType) -> Vec<f64> {
    let space = &x.ty.shape[2..];
    let x_strides = strides(&x.ty.shape);
    let taps = positions(&p.kernel_sizes);
    let element = |at: &[usize]| {
        let (mut values, mut counted) = (Vec::new(), 0);
        for tap in &taps {
            let padded: Vec<usize> = (0..space.len()).map(|i| at[i + 2] * p.strides[i] + tap[i]).collect();
            let pads: Vec<[usize; 2]> = (0..space.len()).map(|i| p.padding(i, space[i])).collect();
            let within = (0..space.len()).all(|i| padded[i] < pads[i][0] + space[i] + pads[i][1]);
            let place = (0..space.len())
                .map(|i| padded[i].checked_sub(pads[i][0]).filter(|&k| k < space[i]))
                .collect::<Option<Vec<usize>>>();
            counted += usize::from(within);
            let Some(place) = place else { continue };
            let offset: usize = place.iter().zip(&x_strides[2..]).map(|(p, s)| p * s).sum();
            values.push(x.data[at[0] * x_strides[0] + at[1] * x_strides[1] + offset]);
        }
        match p.kind {
            PoolKind::Max => {
                values.iter().fold(f64::NEG_INFINITY, |m, &v| if m.is_nan() || v <= m { m } else { v })
            }
            PoolKind::Average { exclude_padding: true } => values.iter().sum::<f64>() / values.len() as f64,
            PoolKind::Average { exclude_padding: false } => {
                values.iter().sum::<f64>() / f64::from(counted as u32)
            }
            PoolKind::L2 => values.iter().map(|v| v * v).sum::<f64>().sqrt(),
        }
    };
    positions(&ty.shape).iter().map(|at| element(at)).collect()
}
