//! The types of arrays in another order.

use super::{TypeError, axis_in, float};
use crate::{Rearrange, Rearrangement, TensorType};

/// The result of a rearrangement.
pub(super) fn rearrange(op: &Rearrange, x: &TensorType) -> Result<TensorType, TypeError> {
    use Rearrangement as R;
    let shape = match &op.kind {
        R::Reverse { axes } => {
            ensure!(
                axes.is_sorted_by(|a, b| a < b) && axes.iter().all(|&a| a < x.shape.len()),
                "axes {axes:?} are not sorted, distinct axes of x {x}"
            );
            x.shape.clone()
        }
        R::SlidingWindows { axis, size, stride } => {
            axis_in(*axis, x)?;
            let length = x.shape[*axis];
            ensure!(*stride > 0, "stride is 0, 1 or more was expected");
            ensure!(
                (1..=length).contains(size),
                "size is {size}, 1 to {length}, the length of dimension {axis} of x {x}, was expected"
            );
            ensure!(x.shape.len() < 5, "x is {x}, rank 4 or less was expected");
            let mut shape = x.shape.clone();
            shape[*axis] = (length - size) / stride + 1;
            shape.insert(axis + 1, *size);
            shape
        }
        R::DepthToSpace { block: f } | R::PixelShuffle { factor: f } => {
            let [n, c, h, w] = image(x)?;
            let area = f.checked_mul(*f).filter(|&area| area > 0);
            ensure!(
                area.is_some_and(|area| c.is_multiple_of(area)),
                "blocks of {f} by {f} do not divide the {c} channels of x {x}"
            );
            vec![n, c / (f * f), h.saturating_mul(*f), w.saturating_mul(*f)]
        }
        R::SpaceToDepth { block: f } | R::PixelUnshuffle { factor: f } => {
            let [n, c, h, w] = image(x)?;
            divides([*f, *f], [h, w], x)?;
            vec![n, c.saturating_mul(*f).saturating_mul(*f), h / f, w / f]
        }
        R::SpaceToBatch { block, paddings } => {
            let [n, c, h, w] = image(x)?;
            let padded = |length: usize, [before, after]: [usize; 2]| {
                length.saturating_add(before).saturating_add(after)
            };
            let (h, w) = (padded(h, paddings[0]), padded(w, paddings[1]));
            divides(*block, [h, w], x)?;
            vec![n.saturating_mul(block[0]).saturating_mul(block[1]), c, h / block[0], w / block[1]]
        }
        R::BatchToSpace { block, crops } => {
            let [n, c, h, w] = image(x)?;
            let area = block[0].checked_mul(block[1]).filter(|&area| area > 0);
            ensure!(
                area.is_some_and(|area| n.is_multiple_of(area)),
                "blocks of {} by {} do not divide the batch of x {x}",
                block[0],
                block[1]
            );
            let (h, w) = (h.saturating_mul(block[0]), w.saturating_mul(block[1]));
            vec![n / (block[0] * block[1]), c, cut(h, crops[0], x)?, cut(w, crops[1], x)?]
        }
        R::Crop { height, width } => {
            let (rest, [h, w]) = plane(x)?;
            float(x, "x")?;
            [rest, &[cut(h, *height, x)?, cut(w, *width, x)?]].concat()
        }
        R::BandPart { .. } => {
            ensure!(x.shape.len() >= 2, "x is {x}, rank 2 or more was expected");
            x.shape.clone()
        }
        R::Upsample { factors } => {
            float(x, "x")?;
            ensure!(x.shape.len() >= 3, "x is {x}, rank 3 or more was expected");
            let (rest, lengths) = plane(x)?;
            [rest, &scaled(*factors, lengths)?].concat()
        }
        R::Resize { height, width } => {
            float(x, "x")?;
            ensure!(x.shape.len() >= 3, "x is {x}, rank 3 or more was expected");
            [plane(x)?.0, &[*height, *width]].concat()
        }
    };
    ensure!(!x.is_empty() || shape.contains(&0), "x {x} has no elements to fill {shape:?} with");
    Ok(TensorType::new(x.dtype, &shape))
}

/// The lengths of an image that becomes larger by factors.
pub(super) fn scaled(factors: super::Factors, lengths: [usize; 2]) -> Result<[usize; 2], TypeError> {
    let length = |axis: usize| {
        let scaled = factors.scaled(axis, lengths[axis]);
        scaled.ok_or_else(|| TypeError(format!("the scale factors {factors:?} give no size")))
    };
    Ok([length(0)?, length(1)?])
}

/// The dimensions before an image and the image's.
pub(super) fn plane(x: &TensorType) -> Result<(&[usize], [usize; 2]), TypeError> {
    let Some((rest, &[h, w])) = x.shape.split_last_chunk::<2>() else {
        return Err(TypeError(format!("x is {x}, rank 3 or more was expected")));
    };
    Ok((rest, [h, w]))
}

fn image(x: &TensorType) -> Result<[usize; 4], TypeError> {
    float(x, "x")?;
    let shape: Result<[usize; 4], _> = x.shape.as_slice().try_into();
    shape.map_err(|_| TypeError(format!("x is {x}, rank 4 was expected")))
}

fn divides(block: [usize; 2], lengths: [usize; 2], x: &TensorType) -> Result<(), TypeError> {
    ensure!(
        block.iter().zip(lengths).all(|(&b, length)| b > 0 && length.is_multiple_of(b)),
        "blocks of {} by {} do not divide the {} rows and {} columns of x {x}",
        block[0],
        block[1],
        lengths[0],
        lengths[1]
    );
    Ok(())
}

fn cut(length: usize, [before, after]: [usize; 2], x: &TensorType) -> Result<usize, TypeError> {
    let rest = length.checked_sub(before).and_then(|l| l.checked_sub(after));
    rest.ok_or_else(|| {
        TypeError(format!("{before} and {after} are cut off the {length} rows or columns of x {x}"))
    })
}
