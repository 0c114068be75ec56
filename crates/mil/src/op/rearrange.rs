//! Elements of one array in another order, by numbers that are known.

use crate::ValueId;

/// Elements of x in another order; see [`Rearrangement`]. Images are `[n, channels, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rearrange {
    /// The operand.
    pub x: ValueId,
    /// Which order.
    pub kind: Rearrangement,
}

/// Orders.
#[derive(Clone, Debug, PartialEq)]
pub enum Rearrangement {
    /// `reverse`: the last element first along each of some axes, sorted and distinct.
    Reverse {
        /// The axes.
        axes: Vec<usize>,
    },
    /// `sliding_windows`: windows of `size` elements along an axis, each `stride` elements after the one before. A dimension
    /// of the window's elements follows the axis.
    SlidingWindows {
        /// The axis.
        axis: usize,
        /// Elements of a window.
        size: usize,
        /// From one window to the next.
        stride: usize,
    },
    /// `depth_to_space`: blocks of pixels out of the channels, which are numbered (row in the block, column, channel).
    DepthToSpace {
        /// Rows and columns of a block.
        block: usize,
    },
    /// `space_to_depth`: the inverse.
    SpaceToDepth {
        /// Rows and columns of a block.
        block: usize,
    },
    /// `pixel_shuffle`: as `DepthToSpace`, with channels numbered (channel, row in the block, column).
    PixelShuffle {
        /// Rows and columns of a block.
        factor: usize,
    },
    /// `pixel_unshuffle`: the inverse.
    PixelUnshuffle {
        /// Rows and columns of a block.
        factor: usize,
    },
    /// `space_to_batch`: zeros put around the image, then its blocks into the batch, which is numbered (row in the block,
    /// column, n).
    SpaceToBatch {
        /// Rows and columns of a block.
        block: [usize; 2],
        /// Zeros before and after the rows, and the columns.
        paddings: [[usize; 2]; 2],
    },
    /// `batch_to_space`: the inverse.
    BatchToSpace {
        /// Rows and columns of a block.
        block: [usize; 2],
        /// What is cut off before and after the rows, and the columns.
        crops: [[usize; 2]; 2],
    },
    /// `crop`: the image without some rows and columns; the last two dimensions are the image's.
    Crop {
        /// How many rows are cut off before and after.
        height: [usize; 2],
        /// How many columns.
        width: [usize; 2],
    },
    /// `band_part`: x where the column is at most `lower` before the row and at most `upper` behind it, else zero. A negative
    /// number is no limit.
    BandPart {
        /// How far before.
        lower: i64,
        /// How far behind.
        upper: i64,
    },
    /// `upsample_nearest_neighbor`: pixel i is pixel ⌊i · old / new⌋, with ⌊old · factor⌋ new pixels along an axis.
    Upsample {
        /// Of the rows and of the columns.
        factors: Factors,
    },
    /// `resize_nearest_neighbor`: as `Upsample`, to a given size.
    Resize {
        /// Rows of the result.
        height: usize,
        /// Columns of the result.
        width: usize,
    },
}

/// By how much the rows and the columns of an image become more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factors {
    /// `int32` in MIL.
    Whole([i64; 2]),
    /// `fp32` in MIL.
    Real([f64; 2]),
}

impl Factors {
    /// ⌊length · factor⌋ for the rows (0) or the columns (1); `None` where that is no length.
    pub fn scaled(self, axis: usize, length: usize) -> Option<usize> {
        let factor = match self {
            Self::Whole(factors) => factors[axis] as f64,
            Self::Real(factors) => factors[axis],
        };
        let scaled = (length as f64 * factor).floor();
        (scaled >= 0.0 && scaled < 2f64.powi(53)).then_some(scaled as usize)
    }
}

impl Rearrangement {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reverse { .. } => "reverse",
            Self::SlidingWindows { .. } => "sliding_windows",
            Self::DepthToSpace { .. } => "depth_to_space",
            Self::SpaceToDepth { .. } => "space_to_depth",
            Self::PixelShuffle { .. } => "pixel_shuffle",
            Self::PixelUnshuffle { .. } => "pixel_unshuffle",
            Self::SpaceToBatch { .. } => "space_to_batch",
            Self::BatchToSpace { .. } => "batch_to_space",
            Self::Crop { .. } => "crop",
            Self::BandPart { .. } => "band_part",
            Self::Upsample { .. } => "upsample_nearest_neighbor",
            Self::Resize { .. } => "resize_nearest_neighbor",
        }
    }
}
