//! The types of sampled images.

use arcane_tensor::DType;

use super::rearrange::{plane, scaled};
use super::{TypeError, float};
use crate::{Sample, TensorType, ValueId};

/// The result.
pub(super) fn sample<'a>(
    op: &Sample,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let x = types(op.x());
    let shape = match op {
        Sample::Resize { sizes, .. } => {
            ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
            let rank = x.shape.len();
            ensure!(sizes.len() <= rank, "{} dimensions of x {x} are resized", sizes.len());
            [&x.shape[..rank - sizes.len()], sizes].concat()
        }
        Sample::ResizeBilinear { sizes, .. } => {
            float(x, "x")?;
            ensure!(x.shape.len() >= 3, "x is {x}, rank 3 or more was expected");
            [plane(x)?.0, sizes].concat()
        }
        Sample::UpsampleBilinear { factors, .. } => {
            float(x, "x")?;
            ensure!(x.shape.len() >= 3, "x is {x}, rank 3 or more was expected");
            let (rest, lengths) = plane(x)?;
            [rest, &scaled(*factors, lengths)?].concat()
        }
        Sample::CropResize { boxes, box_indices, sizes, .. } => {
            let (n, c) = image(x)?;
            crop(n, c, types(*boxes), box_indices.map(&types), *sizes)?
        }
        Sample::Affine { matrix, sizes, .. } => {
            let (n, c) = image(x)?;
            let matrix = types(*matrix);
            ensure!(
                matrix.dtype.is_float() && (matrix.shape == [n, 6] || matrix.shape == [1, 6]),
                "transform_matrix is {matrix}, [{n}, 6] or [1, 6] of a float type was expected"
            );
            vec![n, c, sizes[0], sizes[1]]
        }
        Sample::Resample { coordinates, .. } => {
            let (n, c) = image(x)?;
            let points = types(*coordinates);
            let &[batch, height, width, 2] = points.shape.as_slice() else {
                return Err(TypeError(format!(
                    "coordinates are {points}, rank 4 with 2 numbers was expected"
                )));
            };
            ensure!(batch == n, "coordinates {points} and x {x} differ in their batch");
            ensure!(points.dtype != DType::Bool, "coordinates are {points}, a numeric type was expected");
            vec![n, c, height, width]
        }
    };
    ensure!(!x.is_empty() || shape.contains(&0), "x {x} has no pixels to sample {shape:?} from");
    Ok(TensorType::new(x.dtype, &shape))
}

/// The batch and the channels of an image.
fn image(x: &TensorType) -> Result<(usize, usize), TypeError> {
    float(x, "x")?;
    match x.shape.as_slice() {
        &[n, c, _, _] => Ok((n, c)),
        _ => Err(TypeError(format!("x is {x}, rank 4 was expected"))),
    }
}

fn crop(
    n: usize,
    c: usize,
    boxes: &TensorType,
    indices: Option<&TensorType>,
    [height, width]: [usize; 2],
) -> Result<Vec<usize>, TypeError> {
    ensure!(boxes.dtype != DType::Bool, "boxes are {boxes}, a numeric type was expected");
    match (boxes.shape.as_slice(), indices) {
        (&[count, 4], Some(indices)) => {
            ensure!(
                indices.dtype.is_int() && indices.shape == [count],
                "box_indices are {indices}, {count} integers were expected"
            );
            Ok(vec![count, c, height, width])
        }
        (&[count, 4], None) => {
            ensure!(count <= n, "there are {count} boxes without box_indices for {n} images");
            Ok(vec![count, c, height, width])
        }
        (&[count, 1, 4, 1, 1], None) => Ok(vec![count, n, c, height, width]),
        (&[count, 1, 5, 1, 1], None) => Ok(vec![count, 1, c, height, width]),
        _ => Err(TypeError(format!(
            "boxes are {boxes}, [N, 4], [N, 1, 4, 1, 1] or [N, 1, 5, 1, 1] was expected"
        ))),
    }
}
