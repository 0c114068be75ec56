//! The arguments of ops that move elements or make arrays.

use super::{Argument, Immediate, Named, flag, float, int, ints, matrix, scalar, text};
use crate::op::rearrange::Factors;
use crate::print::Unspellable;
use crate::{Dimensions, Index, Join, JoinKind, Make, Opset, Rearrange, Rearrangement};

use Argument::{Value, Values};

type Spelled<'a> = Result<Vec<Named<'a>>, Unspellable>;

/// Refuses an op in a function of an older opset.
fn since(opset: Opset, since: Opset) -> Result<(), Unspellable> {
    if opset < since { Err(Unspellable::Opset { since, opset }) } else { Ok(()) }
}

pub(super) fn dimensions(op: &Dimensions, opset: Opset) -> Spelled<'_> {
    let mut found = vec![("x", Value(op.x()))];
    match op {
        Dimensions::Expand { axes, .. } | Dimensions::Squeeze { axes: Some(axes), .. } => {
            found.push(("axes", ints("axes", axes)?));
        }
        Dimensions::Squeeze { axes: None, .. } => {}
        Dimensions::Flatten { axis, .. } => found.push(("axis", int(*axis))),
        Dimensions::Like { refs, ranges, .. } => {
            since(opset, Opset::Ios16)?;
            let number = |v: i64| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            let begins = ranges.iter().map(|(begin, _)| Immediate::scalar(number(*begin)));
            let ends = ranges.iter().map(|(_, end)| Immediate::scalar(number(end.unwrap_or(0))));
            let masks = ranges.iter().map(|(_, end)| Immediate::scalar(end.is_none()));
            found.push(("begins", Argument::Consts(begins.collect())));
            found.push(("ends", Argument::Consts(ends.collect())));
            found.push(("end_masks", Argument::Consts(masks.collect())));
            found.push(("ref_tensors", Values(refs)));
        }
    }
    Ok(found)
}

pub(super) fn rearrange(op: &Rearrange, opset: Opset) -> Spelled<'_> {
    use Rearrangement as R;
    let mut found = match &op.kind {
        R::Reverse { axes } => vec![("axes", ints("axes", axes)?)],
        R::SlidingWindows { axis, size, stride } => {
            vec![("axis", int(*axis)), ("size", whole("size", *size)?), ("stride", whole("stride", *stride)?)]
        }
        R::DepthToSpace { block } | R::SpaceToDepth { block } => {
            vec![("block_size", whole("block_size", *block)?)]
        }
        R::PixelShuffle { factor } => vec![("upscale_factor", whole("upscale_factor", *factor)?)],
        R::PixelUnshuffle { factor } => {
            since(opset, Opset::Ios16)?;
            vec![("downscale_factor", unsigned("downscale_factor", *factor)?)]
        }
        R::SpaceToBatch { block, paddings } => {
            vec![("block_shape", ints("block_shape", block)?), ("paddings", matrix("paddings", paddings)?)]
        }
        R::BatchToSpace { block, crops } => {
            vec![("block_shape", ints("block_shape", block)?), ("crops", matrix("crops", crops)?)]
        }
        R::Crop { height, width } => {
            vec![("crop_height", ints("crop_height", height)?), ("crop_width", ints("crop_width", width)?)]
        }
        R::BandPart { lower, upper } => vec![("lower", limit(*lower)), ("upper", limit(*upper))],
        R::Upsample { factors } => scale_factors(*factors),
        R::Resize { height, width } => vec![
            ("target_size_height", whole("target_size_height", *height)?),
            ("target_size_width", whole("target_size_width", *width)?),
        ],
    };
    found.push(("x", Value(op.x)));
    Ok(found)
}

/// A limit of a band: one beyond `int32` is none.
fn limit(limit: i64) -> Argument<'static> {
    scalar(i32::try_from(limit).unwrap_or(-1))
}

pub(super) fn scale_factors(factors: Factors) -> Vec<Named<'static>> {
    let [height, width] = match factors {
        Factors::Whole(factors) => factors.map(|f| scalar(f.clamp(0, i64::from(i32::MAX)) as i32)),
        Factors::Real(factors) => factors.map(|f| scalar(f as f32)),
    };
    vec![("scale_factor_height", height), ("scale_factor_width", width)]
}

pub(super) fn join(op: &Join) -> Vec<Named<'_>> {
    let mut found = vec![("axis", int(op.axis)), ("values", Values(&op.values))];
    if op.kind == JoinKind::Interleave {
        found.push(("interleave", flag(true)));
    }
    found
}

pub(super) fn make(op: &Make, opset: Opset) -> Spelled<'_> {
    Ok(match op {
        Make::Shape { x } => vec![("x", Value(*x))],
        Make::FillLike { like, dtype, value } => {
            since(opset, Opset::Ios16)?;
            vec![("ref_tensor", Value(*like)), ("value", float(*dtype, *value))]
        }
        Make::Range { dtype, start, end, step } => {
            vec![
                ("end", float(*dtype, *end)),
                ("start", float(*dtype, *start)),
                ("step", float(*dtype, *step)),
            ]
        }
        Make::OneHot { indices, size, axis, dtype, on, off } => vec![
            ("axis", int(*axis)),
            ("indices", Value(*indices)),
            ("off_value", float(*dtype, *off)),
            ("on_value", float(*dtype, *on)),
            ("one_hot_vector_size", whole("one_hot_vector_size", *size)?),
        ],
    })
}

pub(super) fn index(op: &Index, opset: Opset) -> Spelled<'_> {
    let mut found = match op {
        Index::GatherBatched { x, indices, axis, batch_dims } => {
            since(opset, Opset::Ios16)?;
            let (axis, batch_dims) = (int(*axis), int(*batch_dims));
            vec![("axis", axis), ("batch_dims", batch_dims), ("indices", Value(*indices)), ("x", Value(*x))]
        }
        Index::GatherNd { x, indices, batch_dims } => {
            let mut found = vec![("indices", Value(*indices)), ("x", Value(*x))];
            if *batch_dims > 0 || opset >= Opset::Ios16 {
                since(opset, Opset::Ios16)?;
                found.push(("batch_dims", int(*batch_dims)));
            }
            found
        }
        Index::ScatterNd { data, indices, updates, mode } => vec![
            ("data", Value(*data)),
            ("indices", Value(*indices)),
            ("mode", text(mode.name())),
            ("updates", Value(*updates)),
        ],
        Index::ReverseSequence { x, lengths, seq_axis, batch_axis } => {
            return Ok(vec![
                ("batch_axis", int(*batch_axis)),
                ("lengths", Value(*lengths)),
                ("seq_axis", int(*seq_axis)),
                ("x", Value(*x)),
            ]);
        }
    };
    if opset >= Opset::Ios17 {
        found.push(("validate_indices", flag(false)));
    }
    Ok(found)
}

/// A size, which `int32` has to hold.
pub(super) fn whole(parameter: &'static str, value: usize) -> Result<Argument<'static>, Unspellable> {
    i32::try_from(value).map(scalar).map_err(|_| Unspellable::TooLarge { parameter, value })
}

/// A size of type `uint32`.
pub(super) fn unsigned(parameter: &'static str, value: usize) -> Result<Argument<'static>, Unspellable> {
    u32::try_from(value).map(scalar).map_err(|_| Unspellable::TooLarge { parameter, value })
}
