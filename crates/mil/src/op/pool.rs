//! Pooling.

use super::window::{PadType, extent};
use crate::ValueId;

/// What a pool makes of the elements under its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// `max_pool`: the largest; padding counts as −∞.
    Max,
    /// `avg_pool`: the mean; padding counts as zeros, or not at all. Positions that only `ceil_mode` adds never count.
    Average {
        /// Whether padding does not count.
        exclude_padding: bool,
    },
    /// `l2_pool`: √Σ x².
    L2,
}

/// A pool: a window over the one to three spatial dimensions of x `[N, C, D..]`, each channel on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Which.
    pub kind: PoolKind,
    /// The operand.
    pub x: ValueId,
    /// The window's size, one number a spatial dimension.
    pub kernel_sizes: Vec<usize>,
    /// How far the window moves.
    pub strides: Vec<usize>,
    /// How borders are padded.
    pub pad_type: PadType,
    /// Padding before and after each spatial dimension where `pad_type` is `Custom`.
    pub pad: Vec<usize>,
    /// Whether a last window that reaches beyond the padding has a result, too.
    pub ceil_mode: bool,
}

impl Pool {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "max_pool",
            PoolKind::Average { .. } => "avg_pool",
            PoolKind::L2 => "l2_pool",
        }
    }

    /// The padding before and after a spatial dimension of a length.
    pub fn padding(&self, dimension: usize, length: usize) -> [usize; 2] {
        let custom = [self.pad[2 * dimension], self.pad[2 * dimension + 1]];
        let extent = extent(self.kernel_sizes[dimension], 1);
        self.pad_type.padding(length, extent, self.strides[dimension], custom)
    }
}
