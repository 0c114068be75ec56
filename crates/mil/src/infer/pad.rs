//! The types of padded arrays.

use super::{TypeError, float};
use crate::{Pad, PadMode, TensorType};

/// The result of `pad`.
pub(super) fn pad(pad: &Pad, x: &TensorType) -> Result<TensorType, TypeError> {
    float(x, "x")?;
    let rank = x.shape.len();
    ensure!(
        pad.pad.len().is_multiple_of(2) && pad.pad.len() <= 2 * rank,
        "pad is {:?}, two numbers for each of at most {rank} dimensions were expected",
        pad.pad
    );
    let mut shape = x.shape.clone();
    for (axis, [before, after]) in pad.sides(rank).into_iter().enumerate() {
        let most = match pad.mode {
            PadMode::Reflect => shape[axis].saturating_sub(1),
            PadMode::Replicate if shape[axis] == 0 => 0,
            PadMode::Constant(_) | PadMode::Replicate => usize::MAX,
        };
        ensure!(
            before <= most && after <= most,
            "pad has {before} and {after} for dimension {axis} of x {x}, at most {most} were expected"
        );
        shape[axis] = shape[axis].saturating_add(before).saturating_add(after);
    }
    Ok(TensorType::new(x.dtype, &shape))
}
