//! The arguments of sampled images.

use arcane_tensor::DType;

use super::movement::{scale_factors, unsigned, whole};
use super::{Argument, Named, flag, float, ints, scalar, text};
use crate::print::Unspellable;
use crate::{Coordinates, Opset, Outside, Sample};

use Argument::Value;

pub(super) fn sample(op: &Sample, dtype: DType, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    let x = ("x", Value(op.x()));
    Ok(match op {
        Sample::Resize { sizes, interpolation, grid, .. } => {
            if opset < Opset::Ios17 {
                return Err(Unspellable::Opset { since: Opset::Ios17, opset });
            }
            vec![
                ("interpolation_mode", text(interpolation.name())),
                ("resized_dims", unsigned("resized_dims", sizes.len())?),
                ("sampling_mode", text(grid.name())),
                ("shape", ints("shape", sizes)?),
                x,
            ]
        }
        Sample::ResizeBilinear { sizes: [height, width], grid, .. } => vec![
            ("sampling_mode", text(grid.name())),
            ("target_size_height", whole("target_size_height", *height)?),
            ("target_size_width", whole("target_size_width", *width)?),
            x,
        ],
        Sample::UpsampleBilinear { factors, align_corners, half_pixel_centers, .. } => {
            let mut found = vec![("align_corners", flag(*align_corners)), x];
            found.extend(scale_factors(*factors));
            if opset >= Opset::Ios16 {
                found.push(("half_pixel_centers", flag(*half_pixel_centers)));
            } else if *align_corners == *half_pixel_centers {
                return Err(Unspellable::Opset { since: Opset::Ios16, opset });
            }
            found
        }
        Sample::CropResize { .. } => crop_resize(op, dtype, opset)?,
        Sample::Affine { matrix, sizes, .. } => vec![
            ("align_corners", flag(true)),
            ("coordinates_mode", text(Coordinates::MinusOneToOne.name())),
            ("output_height", whole("output_height", sizes[0])?),
            ("output_width", whole("output_width", sizes[1])?),
            ("padding_mode", text("constant")),
            ("padding_value", float(dtype, 0.0)),
            ("sampling_mode", text("bilinear")),
            ("transform_matrix", Value(*matrix)),
            x,
        ],
        Sample::Resample { coordinates, interpolation, outside, unit, align_corners, .. } => {
            let value = if let Outside::Constant(value) = outside { *value } else { 0.0 };
            vec![
                ("align_corners", flag(*align_corners)),
                ("coordinates", Value(*coordinates)),
                ("coordinates_mode", text(unit.name())),
                ("padding_mode", text(outside.name())),
                ("padding_value", float(dtype, value)),
                ("sampling_mode", text(interpolation.sampling_name())),
                x,
            ]
        }
    })
}

fn crop_resize(op: &Sample, dtype: DType, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    let Sample::CropResize { x, boxes, box_indices, sizes, normalized, scale, mode, grid, outside } = op
    else {
        return Ok(Vec::new());
    };
    let mut found = vec![
        ("box_coordinate_mode", text(mode.name())),
        ("normalized_coordinates", flag(*normalized)),
        ("sampling_mode", text(grid.name())),
        ("spatial_scale", scalar(*scale as f32)),
        ("target_height", whole("target_height", sizes[0])?),
        ("target_width", whole("target_width", sizes[1])?),
        ("x", Value(*x)),
        (if opset >= Opset::Ios17 { "boxes" } else { "roi" }, Value(*boxes)),
    ];
    if opset >= Opset::Ios16 {
        found.push(("pad_value", float(dtype, *outside)));
    }
    found.extend(box_indices.map(|indices| ("box_indices", Value(indices))));
    Ok(found)
}
