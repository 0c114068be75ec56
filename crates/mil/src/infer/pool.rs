//! The types of pools.

use super::convolution::window;
use super::{TypeError, float};
use crate::op::window::PadType;
use crate::{Pool, PoolKind, TensorType};

/// The result of a pool.
pub(super) fn pool(p: &Pool, x: &TensorType) -> Result<TensorType, TypeError> {
    float(x, "x")?;
    let rank = x.shape.len();
    ensure!((3..=5).contains(&rank), "x is {x}, rank 3 to 5 was expected");
    let spatial = rank - 2;
    ensure!(p.kind != PoolKind::L2 || spatial <= 2, "x is {x}, rank 3 or 4 was expected");
    window(spatial, &p.strides, &p.pad, &p.kernel_sizes, "kernel_sizes")?;
    if p.ceil_mode {
        ensure!(spatial <= 2, "x is {x}, rank 3 or 4 was expected with ceil_mode");
        ensure!(p.pad_type != PadType::Same, "pad_type is same, another was expected with ceil_mode");
        ensure!(
            p.pad.chunks_exact(2).all(|p| p[0] == p[1]),
            "pad is {:?}, equal numbers before and after a dimension were expected with ceil_mode",
            p.pad
        );
    }
    let mut shape = x.shape[..2].to_vec();
    for i in 0..spatial {
        let (length, size, stride) = (x.shape[i + 2], p.kernel_sizes[i], p.strides[i]);
        let [before, after] = p.padding(i, length);
        let padding = before.saturating_add(after);
        let padded = length.saturating_add(padding);
        let beyond = if p.ceil_mode { stride - 1 } else { 0 };
        let room = padded.saturating_add(beyond).checked_sub(size);
        let mut count = room.map_or(0, |room| room / stride + 1);
        // A last window has to begin before the padding at the end.
        let last = count.saturating_sub(1).saturating_mul(stride);
        if p.ceil_mode
            && padding > 0
            && last.saturating_mul(2) >= length.saturating_mul(2).saturating_add(padding)
        {
            count -= 1;
        }
        ensure!(
            count > 0,
            "the window reaches over {size} elements of spatial dimension {i}, x {x} has {padded} with its padding"
        );
        shape.push(count);
    }
    Ok(TensorType::new(x.dtype, &shape))
}
