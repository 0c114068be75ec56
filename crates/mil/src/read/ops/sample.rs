//! Sampled images as they are written.

use arcane_tensor::DType;

use super::rearrange::factors;
use super::{Built, Fault, since, sizes};
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::read::syntax::MAX_RANK;
use crate::{BoxMode, Coordinates, Grid, Interpolation, Op, Opset, Outside, Sample};

/// `resize`: the last `resized_dims` numbers of the shape are the lengths of the last dimensions; 0 keeps one.
pub(super) fn resize(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios17)?;
    let x = a.operand("x", Class::Numeric)?;
    let Found { value: shape, at } = a.known_ints("shape", Class::Lengths, MAX_RANK)?;
    let lengths = sizes(&shape, 0, "shape", at)?;
    let (count, rank) = (a.size("resized_dims", 0, None)?, a.ty(x).shape.len());
    if count > lengths.len() || lengths.len() > rank {
        let what = format!("shape has {} numbers, resized_dims is {count}", lengths.len());
        return Err(Fault::new(at, what, format!("{count} to {rank}, the rank of x")));
    }
    let wanted = &lengths[lengths.len() - count..];
    let kept = &a.ty(x).shape[rank - count..];
    let sizes = wanted.iter().zip(kept).map(|(&w, &k)| if w == 0 { k } else { w }).collect();
    let names = [Interpolation::Linear, Interpolation::Nearest].map(|mode| (mode.name(), mode));
    let interpolation = one_of(a, "interpolation_mode", &names, Some(Interpolation::Linear))?;
    let grid = grid(a)?;
    Ok(Op::Sample(Sample::Resize { x, sizes, interpolation, grid }))
}

/// `resize_bilinear`.
pub(super) fn resize_bilinear(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let sizes = [a.size("target_size_height", 1, Some(1))?, a.size("target_size_width", 1, Some(1))?];
    let grid = grid(a)?;
    Ok(Op::Sample(Sample::ResizeBilinear { x, sizes, grid }))
}

/// `upsample_bilinear`.
pub(super) fn upsample_bilinear(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let factors = factors(a)?;
    let align_corners = a.flag("align_corners")?.is_none_or(|found| found.value);
    let half = if a.opset() >= Opset::Ios16 { a.flag("half_pixel_centers")? } else { None };
    let half_pixel_centers = half.map_or(!align_corners, |found| found.value);
    Ok(Op::Sample(Sample::UpsampleBilinear { x, factors, align_corners, half_pixel_centers }))
}

/// `crop_resize`, whose boxes ios17 spells in another way.
pub(super) fn crop_resize(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let modern = a.opset() >= Opset::Ios17;
    let boxes =
        a.operand(if modern { "boxes" } else { "roi" }, if modern { Class::Box } else { Class::Float })?;
    let rank = if modern { 2 } else { 5 };
    if a.ty(boxes).shape.len() != rank {
        return Err(a.fault(format!("the boxes are {}", a.ty(boxes)), format!("rank {rank}")));
    }
    let box_indices = if modern { a.maybe_operand("box_indices", Class::BoxIndex)? } else { None };
    let sizes = [a.size("target_height", 1, Some(1))?, a.size("target_width", 1, Some(1))?];
    let normalized = a.flag("normalized_coordinates")?.is_some_and(|found| found.value);
    let scale = a.float("spatial_scale")?.map_or(1.0, |found| found.value);
    let names = BoxMode::ALL.map(|mode| (mode.name(), mode));
    let mode = one_of(a, "box_coordinate_mode", &names, Some(BoxMode::CornersHeightFirst))?;
    let grid = grid(a)?;
    let dtype = a.ty(x).dtype;
    let outside = if a.opset() >= Opset::Ios16 { a.float_in("pad_value", dtype)? } else { 0.0 };
    let sample = Sample::CropResize { x, boxes, box_indices, sizes, normalized, scale, mode, grid, outside };
    Ok(Op::Sample(sample))
}

/// `resample`.
pub(super) fn resample(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let coordinates = a.operand("coordinates", Class::Coordinates)?;
    let names = [Interpolation::Linear, Interpolation::Nearest].map(|mode| (mode.sampling_name(), mode));
    let interpolation = one_of(a, "sampling_mode", &names, None)?;
    let dtype: DType = a.ty(x).dtype;
    let value = a.required("padding_value", |a| a.float_in("padding_value", dtype))?;
    let names = [Outside::Constant(value), Outside::Border, Outside::Reflection, Outside::Symmetric]
        .map(|mode| (mode.name(), mode));
    let outside = one_of(a, "padding_mode", &names, None)?;
    let names = Coordinates::ALL.map(|mode| (mode.name(), mode));
    let unit = one_of(a, "coordinates_mode", &names, None)?;
    let align_corners = a.required("align_corners", |a| a.flag("align_corners"))?.is_some_and(|f| f.value);
    Ok(Op::Sample(Sample::Resample { x, coordinates, interpolation, outside, unit, align_corners }))
}

/// `affine`: of its modes each has one value.
pub(super) fn affine(a: &mut Arguments<'_, '_>) -> Built {
    let (x, matrix) = (a.operand("x", Class::Float)?, a.operand("transform_matrix", Class::Float)?);
    let sizes = [a.size("output_height", 1, None)?, a.size("output_width", 1, None)?];
    let dtype: DType = a.ty(x).dtype;
    for (parameter, only) in [
        ("sampling_mode", "bilinear"),
        ("padding_mode", "constant"),
        ("coordinates_mode", Coordinates::MinusOneToOne.name()),
    ] {
        one_of(a, parameter, &[(only, ())], None)?;
    }
    let value = a.required("padding_value", |a| a.float_in("padding_value", dtype))?;
    let align_corners = a.required("align_corners", |a| a.flag("align_corners"))?.is_some_and(|f| f.value);
    if value != 0.0 || !align_corners {
        let what = format!("padding_value is {value}, align_corners is {align_corners}");
        return Err(a.fault(what, "0 and true"));
    }
    Ok(Op::Sample(Sample::Affine { x, matrix, sizes }))
}

fn grid(a: &mut Arguments<'_, '_>) -> Result<Grid, Fault> {
    one_of(a, "sampling_mode", &Grid::MODES.map(|mode| (mode.name(), mode)), Some(Grid::Default))
}

/// A parameter that is one of some names.
fn one_of<T: Copy>(
    a: &mut Arguments<'_, '_>,
    parameter: &'static str,
    names: &[(&'static str, T)],
    default: Option<T>,
) -> Result<T, Fault> {
    let found = match default {
        None => Some(a.required_text(parameter)?),
        Some(_) => a.text(parameter)?,
    };
    let Some(Found { value, at }) = found else {
        return default.ok_or_else(|| a.fault(format!("{parameter} is missing"), "a value for it"));
    };
    let known = names.iter().find(|(name, _)| *name == value).map(|(_, mode)| *mode);
    known.ok_or_else(|| {
        let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        Fault::new(at, format!("{parameter} is {}", shown(&value)), format!("one of {}", all.join(", ")))
    })
}
