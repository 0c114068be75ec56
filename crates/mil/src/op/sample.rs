//! Images sampled between their pixels. They are `[n, channels, height, width]`, or any shape with these last dimensions.

use super::rearrange::Factors;
use crate::ValueId;

/// Where along an axis of n pixels each of m samples lies; what is outside 0 to n − 1 is moved there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// i · (n − 1) / (m − 1); 0 for one sample.
    StrictAlignCorners,
    /// The same; (n − 1) / 2 for one sample.
    AlignCorners,
    /// i · (n − n / m) / (m − 1); 0 for one sample.
    Default,
    /// (i + ½) · max(1, n − 1) / m
    OffsetCorners,
    /// (i + ½) · n / m − ½
    UnalignCorners,
    /// i · n / m, which `sampling_mode` does not have.
    Proportional,
}

/// How a pixel follows from those around a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Linear along each axis.
    Linear,
    /// The nearest pixel, of two the even one.
    Nearest,
}

/// The order of the numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxMode {
    /// Top, left, bottom, right.
    CornersHeightFirst,
    /// Left, top, right, bottom.
    CornersWidthFirst,
    /// Middle row, middle column, height, width.
    CenterSizeHeightFirst,
    /// Middle column, middle row, width, height.
    CenterSizeWidthFirst,
}

/// What lies outside an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outside {
    /// A number.
    Constant(f64),
    /// The pixel at the border.
    Border,
    /// The image mirrored at the middles of its border pixels.
    Reflection,
    /// The image mirrored at the outer edges of its border pixels.
    Symmetric,
}

/// What coordinates count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Pixels.
    Unnormalized,
    /// −1 to 1 over the image.
    MinusOneToOne,
    /// 0 to 1 over the image.
    ZeroToOne,
}

/// Sampled images.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// `resize`: the last dimensions in other lengths.
    Resize {
        /// The operand.
        x: ValueId,
        /// The new lengths of the last dimensions.
        sizes: Vec<usize>,
        /// How pixels are computed.
        interpolation: Interpolation,
        /// Where samples lie.
        grid: Grid,
    },
    /// `resize_bilinear`: the last two dimensions in other lengths.
    ResizeBilinear {
        /// The operand.
        x: ValueId,
        /// The new height and width.
        sizes: [usize; 2],
        /// Where samples lie.
        grid: Grid,
    },
    /// `upsample_bilinear`: the last two dimensions in ⌊length · factor⌋. Samples lie on the grid `AlignCorners` if corners
    /// are aligned (0 for one sample), else on `UnalignCorners` for half-pixel centres, else on `Proportional`.
    UpsampleBilinear {
        /// The operand.
        x: ValueId,
        /// Of the height and of the width.
        factors: Factors,
        /// Whether corners are aligned.
        align_corners: bool,
        /// Whether pixels are where their middles are.
        half_pixel_centers: bool,
    },
    /// `crop_resize`: boxes of images, each sampled on a grid; a sample outside its image is `outside`.
    CropResize {
        /// The images, rank 4.
        x: ValueId,
        /// `[N, 4]`, or before ios17 `[N, 1, 4, 1, 1]` for boxes of every image and `[N, 1, 5, 1, 1]` with the image first.
        boxes: ValueId,
        /// From ios17 the image of each box.
        box_indices: Option<ValueId>,
        /// Height and width of a result.
        sizes: [usize; 2],
        /// Whether 1 in a box is the last pixel's place.
        normalized: bool,
        /// What the boxes are multiplied with.
        scale: f64,
        /// The order of a box's numbers.
        mode: BoxMode,
        /// Where samples lie in a box.
        grid: Grid,
        /// What is outside.
        outside: f64,
    },
    /// `affine`: an image sampled at points that a matrix moves. The pixels of the result lie from −1 to 1 in both directions,
    /// and so do those of x; (x, y) is sampled at (a₀x + a₁y + a₂, b₀x + b₁y + b₂), bilinear, and zeros are outside.
    Affine {
        /// The images, rank 4.
        x: ValueId,
        /// `[n, 6]` or `[1, 6]`: a₀, a₁, a₂, b₀, b₁, b₂.
        matrix: ValueId,
        /// Height and width of the result.
        sizes: [usize; 2],
    },
    /// `resample`: an image sampled at points (x, y), `[n, height, width, 2]`, bilinear or nearest.
    Resample {
        /// The images, rank 4.
        x: ValueId,
        /// The points.
        coordinates: ValueId,
        /// How pixels are computed.
        interpolation: Interpolation,
        /// What is outside.
        outside: Outside,
        /// What the points count in.
        unit: Coordinates,
        /// Whether normalized coordinates reach to the middles of the border pixels, not to their outer edges.
        align_corners: bool,
    },
}

impl Grid {
    /// The modes that `sampling_mode` has.
    pub const MODES: [Self; 5] = [
        Self::StrictAlignCorners,
        Self::AlignCorners,
        Self::Default,
        Self::OffsetCorners,
        Self::UnalignCorners,
    ];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StrictAlignCorners => "STRICT_ALIGN_CORNERS",
            Self::AlignCorners => "ALIGN_CORNERS",
            Self::Default => "DEFAULT",
            Self::OffsetCorners => "OFFSET_CORNERS",
            Self::UnalignCorners => "UNALIGN_CORNERS",
            Self::Proportional => "PROPORTIONAL",
        }
    }

    /// Where pixel i of n lies between −1 and 1.
    pub fn normalized(i: usize, n: usize) -> f64 {
        if n > 1 { 2.0 * i as f64 / (n - 1) as f64 - 1.0 } else { -1.0 }
    }

    /// Where sample i of m lies among n pixels.
    pub fn point(self, i: usize, n: usize, m: usize) -> f64 {
        let (i, n, m) = (i as f64, n as f64, m as f64);
        let point = match self {
            Self::AlignCorners if m == 1.0 => (n - 1.0) / 2.0,
            Self::StrictAlignCorners | Self::Default if m == 1.0 => 0.0,
            Self::StrictAlignCorners | Self::AlignCorners => i * (n - 1.0) / (m - 1.0),
            Self::Default => i * (n - n / m) / (m - 1.0),
            Self::OffsetCorners => (i + 0.5) * (n - 1.0).max(1.0) / m,
            Self::UnalignCorners => (i + 0.5) * n / m - 0.5,
            Self::Proportional => i * n / m,
        };
        point.clamp(0.0, (n - 1.0).max(0.0))
    }
}

impl Interpolation {
    /// The name that `resize` has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "LINEAR",
            Self::Nearest => "NEAREST_NEIGHBOR",
        }
    }

    /// The name that `resample` has for it.
    pub const fn sampling_name(self) -> &'static str {
        match self {
            Self::Linear => "bilinear",
            Self::Nearest => "nearest",
        }
    }
}

impl BoxMode {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::CornersHeightFirst,
        Self::CornersWidthFirst,
        Self::CenterSizeHeightFirst,
        Self::CenterSizeWidthFirst,
    ];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CornersHeightFirst => "CORNERS_HEIGHT_FIRST",
            Self::CornersWidthFirst => "CORNERS_WIDTH_FIRST",
            Self::CenterSizeHeightFirst => "CENTER_SIZE_HEIGHT_FIRST",
            Self::CenterSizeWidthFirst => "CENTER_SIZE_WIDTH_FIRST",
        }
    }
}

impl Outside {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::Border => "border",
            Self::Reflection => "reflection",
            Self::Symmetric => "symmetric",
        }
    }
}

impl Coordinates {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Unnormalized, Self::MinusOneToOne, Self::ZeroToOne];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unnormalized => "unnormalized",
            Self::MinusOneToOne => "normalized_minus_one_to_one",
            Self::ZeroToOne => "normalized_zero_to_one",
        }
    }
}

impl Sample {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Resize { .. } => "resize",
            Self::ResizeBilinear { .. } => "resize_bilinear",
            Self::UpsampleBilinear { .. } => "upsample_bilinear",
            Self::CropResize { .. } => "crop_resize",
            Self::Affine { .. } => "affine",
            Self::Resample { .. } => "resample",
        }
    }

    /// For ops that sample each of the last axes on its own: how, and on which grid.
    pub const fn grid(&self) -> Option<(Interpolation, Grid)> {
        match self {
            Self::Resize { interpolation, grid, .. } => Some((*interpolation, *grid)),
            Self::ResizeBilinear { grid, .. } => Some((Interpolation::Linear, *grid)),
            Self::UpsampleBilinear { align_corners: true, .. } => {
                Some((Interpolation::Linear, Grid::StrictAlignCorners))
            }
            Self::UpsampleBilinear { half_pixel_centers: true, .. } => {
                Some((Interpolation::Linear, Grid::UnalignCorners))
            }
            Self::UpsampleBilinear { .. } => Some((Interpolation::Linear, Grid::Proportional)),
            Self::CropResize { .. } | Self::Affine { .. } | Self::Resample { .. } => None,
        }
    }

    /// The image.
    pub const fn x(&self) -> ValueId {
        match self {
            Self::Resize { x, .. }
            | Self::ResizeBilinear { x, .. }
            | Self::UpsampleBilinear { x, .. }
            | Self::CropResize { x, .. }
            | Self::Affine { x, .. }
            | Self::Resample { x, .. } => *x,
        }
    }

    pub(crate) fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        match self {
            Self::Resize { x, .. } | Self::ResizeBilinear { x, .. } | Self::UpsampleBilinear { x, .. } => {
                f(x);
            }
            Self::CropResize { x, boxes, box_indices, .. } => {
                f(x);
                f(boxes);
                box_indices.iter_mut().for_each(f);
            }
            Self::Resample { x, coordinates: points, .. } | Self::Affine { x, matrix: points, .. } => {
                f(x);
                f(points);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Grid;

    #[test]
    fn grids_of_two_pixels_and_five_samples() {
        let points = |grid: Grid| (0..5).map(|i| grid.point(i, 2, 5)).collect::<Vec<f64>>();
        assert_eq!(points(Grid::StrictAlignCorners), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(points(Grid::AlignCorners), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(points(Grid::Default), [0.0, 0.4, 0.8, 1.0, 1.0]);
        let near = |found: Vec<f64>, wanted: [f64; 5]| {
            assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-12), "{found:?}");
        };
        near(points(Grid::OffsetCorners), [0.1, 0.3, 0.5, 0.7, 0.9]);
        near(points(Grid::UnalignCorners), [0.0, 0.1, 0.5, 0.9, 1.0]);
        assert_eq!(Grid::AlignCorners.point(0, 4, 1), 1.5);
        assert_eq!(Grid::StrictAlignCorners.point(0, 4, 1), 0.0);
    }
}
