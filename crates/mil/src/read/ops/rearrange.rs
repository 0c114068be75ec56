//! Rearrangements as they are written.

use super::dimensions::axes;
use super::{Built, since, sizes};
use crate::op::rearrange::Factors;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::syntax::MAX_RANK;
use crate::{Op, Opset, Rearrange, Rearrangement, ValueId};

fn built(x: ValueId, kind: Rearrangement) -> Op {
    Op::Rearrange(Rearrange { x, kind })
}

/// `reverse`.
pub(super) fn reverse(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let rank = a.ty(x).shape.len();
    let axes = match a.ints("axes", MAX_RANK)? {
        None => (0..rank).collect(),
        Some(Found { value, at }) => axes(&value, rank, at)?,
    };
    Ok(built(x, Rearrangement::Reverse { axes }))
}

/// `sliding_windows`.
pub(super) fn sliding_windows(a: &mut Arguments<'_, '_>) -> Built {
    let class = if a.opset() >= Opset::Ios17 { Class::Wide } else { Class::Numeric };
    let x = a.operand("x", class)?;
    let axis = a.axis("axis", x, None)?;
    let size = a.size("size", 1, None)?;
    let stride = a.size("stride", 1, Some(1))?;
    Ok(built(x, Rearrangement::SlidingWindows { axis, size, stride }))
}

/// `depth_to_space`, `space_to_depth`, `pixel_shuffle` and `pixel_unshuffle`: an image and the size of a block.
pub(super) fn blocks(
    a: &mut Arguments<'_, '_>,
    parameter: &'static str,
    kind: impl Fn(usize) -> Rearrangement,
) -> Built {
    let x = a.operand("x", Class::Float)?;
    let block = a.size(parameter, 1, None)?;
    Ok(built(x, kind(block)))
}

/// `space_to_batch`.
pub(super) fn space_to_batch(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let (block, paddings) = (pair(a, "block_shape", 1)?, a.pairs("paddings")?);
    Ok(built(x, Rearrangement::SpaceToBatch { block, paddings }))
}

/// `batch_to_space`.
pub(super) fn batch_to_space(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let (block, crops) = (pair(a, "block_shape", 1)?, a.pairs("crops")?);
    Ok(built(x, Rearrangement::BatchToSpace { block, crops }))
}

/// `crop`.
pub(super) fn crop(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    if a.ty(x).shape.len() < 3 {
        return Err(a.fault(format!("x is {}", a.ty(x)), "rank 3 or more"));
    }
    let (height, width) = (pair(a, "crop_height", 0)?, pair(a, "crop_width", 0)?);
    Ok(built(x, Rearrangement::Crop { height, width }))
}

/// `band_part`.
pub(super) fn band_part(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Plain)?;
    let mut limit = |name| a.int(name).map(|found| found.map_or(-1, |f| f.value.max(-1)));
    let (lower, upper) = (limit("lower")?, limit("upper")?);
    Ok(built(x, Rearrangement::BandPart { lower, upper }))
}

/// `upsample_nearest_neighbor`.
pub(super) fn upsample(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let factors = factors(a)?;
    Ok(built(x, Rearrangement::Upsample { factors }))
}

/// `resize_nearest_neighbor`.
pub(super) fn resize(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let height = a.size("target_size_height", 0, None)?;
    let width = a.size("target_size_width", 0, None)?;
    Ok(built(x, Rearrangement::Resize { height, width }))
}

/// The scale factors of an image: both `int32` or both `fp32`.
pub(super) fn factors(a: &mut Arguments<'_, '_>) -> Result<Factors, Fault> {
    let height = a.number("scale_factor_height")?;
    let width = a.number("scale_factor_width")?;
    for Found { value: (dtype, value), at } in height.iter().chain(&width) {
        if dtype.is_float() && !value.is_finite() || *value <= 0.0 || *dtype == arcane_tensor::DType::Bool {
            return Err(Fault::new(*at, format!("a scale factor is {value}"), "a number above 0"));
        }
    }
    let number =
        |found: &Option<Found<(arcane_tensor::DType, f64)>>| found.as_ref().map_or(1.0, |f| f.value.1);
    let real = height.iter().chain(&width).any(|found| found.value.0.is_float());
    let both = [number(&height), number(&width)];
    Ok(if real { Factors::Real(both) } else { Factors::Whole(both.map(|f| f as i64)) })
}

/// Two sizes.
fn pair(a: &mut Arguments<'_, '_>, name: &'static str, least: i64) -> Result<[usize; 2], Fault> {
    let Found { value, at } = a.required_ints(name, 2)?;
    let found = sizes(&value, least, name, at)?;
    <[usize; 2]>::try_from(found)
        .map_err(|found| Fault::new(at, format!("{name} has {} numbers", found.len()), "2"))
}

/// `pixel_unshuffle`.
pub(super) fn pixel_unshuffle(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios16)?;
    blocks(a, "downscale_factor", |factor| Rearrangement::PixelUnshuffle { factor })
}
