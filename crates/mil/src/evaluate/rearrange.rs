//! Elements in another order, each from the coordinates of the element that it is.

use super::Value;
use super::layout::{positions, strides};
use crate::{Join, JoinKind, Rearrange, Rearrangement, TensorType};

/// The elements of a rearrangement.
pub(super) fn rearrange(op: &Rearrange, x: &Value, ty: &TensorType) -> Vec<f64> {
    let from = strides(&x.ty.shape);
    let element = |at: &Vec<usize>| {
        let place = source(&op.kind, at, &x.ty.shape, &ty.shape);
        place.map_or(0.0, |place| x.data[place.iter().zip(&from).map(|(p, s)| p * s).sum::<usize>()])
    };
    positions(&ty.shape).iter().map(element).collect()
}

/// The coordinates of the element that stands at `at`; `None` for a zero.
fn source(kind: &Rearrangement, at: &[usize], old: &[usize], new: &[usize]) -> Option<Vec<usize>> {
    use Rearrangement as R;
    let image = || [at[0], at[1], at[2], at[3]];
    let rank = at.len();
    match kind {
        R::Reverse { axes } => {
            let flip = |(i, &p): (usize, &usize)| if axes.contains(&i) { old[i] - 1 - p } else { p };
            Some(at.iter().enumerate().map(flip).collect())
        }
        R::SlidingWindows { axis, stride, .. } => {
            let mut place = at.to_vec();
            let inside = place.remove(axis + 1);
            place[*axis] = at[*axis] * stride + inside;
            Some(place)
        }
        R::DepthToSpace { block: b } => {
            let [n, c, h, w] = image();
            Some(vec![n, (h % b * b + w % b) * new[1] + c, h / b, w / b])
        }
        R::SpaceToDepth { block: b } => {
            let [n, c, h, w] = image();
            let (in_block, c) = (c / old[1], c % old[1]);
            Some(vec![n, c, h * b + in_block / b, w * b + in_block % b])
        }
        R::PixelShuffle { factor: f } => {
            let [n, c, h, w] = image();
            Some(vec![n, (c * f + h % f) * f + w % f, h / f, w / f])
        }
        R::PixelUnshuffle { factor: f } => {
            let [n, c, h, w] = image();
            let (c, in_block) = (c / (f * f), c % (f * f));
            Some(vec![n, c, h * f + in_block / f, w * f + in_block % f])
        }
        R::SpaceToBatch { block, paddings } => {
            let [n, c, h, w] = image();
            let (in_block, n) = (n / old[0], n % old[0]);
            let h = (h * block[0] + in_block / block[1]).checked_sub(paddings[0][0])?;
            let w = (w * block[1] + in_block % block[1]).checked_sub(paddings[1][0])?;
            (h < old[2] && w < old[3]).then(|| vec![n, c, h, w])
        }
        R::BatchToSpace { block, crops } => {
            let [n, c, h, w] = image();
            let (h, w) = (h + crops[0][0], w + crops[1][0]);
            let in_block = h % block[0] * block[1] + w % block[1];
            Some(vec![in_block * new[0] + n, c, h / block[0], w / block[1]])
        }
        R::Crop { height, width } => {
            let mut place = at.to_vec();
            place[rank - 2] += height[0];
            place[rank - 1] += width[0];
            Some(place)
        }
        R::BandPart { lower, upper } => {
            let (row, column) = (at[rank - 2] as i64, at[rank - 1] as i64);
            let kept = (*lower < 0 || row - column <= *lower) && (*upper < 0 || column - row <= *upper);
            kept.then(|| at.to_vec())
        }
        R::Upsample { .. } | R::Resize { .. } => {
            let mut place = at.to_vec();
            for axis in rank - 2..rank {
                place[axis] = at[axis] * old[axis] / new[axis];
            }
            Some(place)
        }
    }
}

/// Arrays of one shape put together.
pub(super) fn join(op: &Join, values: &[&Value], ty: &TensorType) -> Vec<f64> {
    let from = strides(&values[0].ty.shape);
    let element = |at: &Vec<usize>| {
        let mut place = at.clone();
        let which = match op.kind {
            JoinKind::Stack => place.remove(op.axis),
            JoinKind::Interleave => {
                place[op.axis] /= values.len();
                at[op.axis] % values.len()
            }
        };
        values[which].data[place.iter().zip(&from).map(|(p, s)| p * s).sum::<usize>()]
    };
    positions(&ty.shape).iter().map(element).collect()
}
