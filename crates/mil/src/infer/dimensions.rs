//! The types of ops that change dimensions alone.

use arcane_tensor::element_count;

use super::TypeError;
use crate::{Dimensions, TensorType, ValueId};

/// The result: x with other dimensions.
pub(super) fn dimensions<'a>(
    op: &Dimensions,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let x = types(op.x());
    let rank = x.shape.len();
    let shape = match op {
        Dimensions::Expand { axes, .. } => {
            let of = rank + axes.len();
            ensure!(
                axes.is_sorted_by(|a, b| a < b) && axes.iter().all(|&a| a < of),
                "axes {axes:?} are not sorted, distinct axes of the {of} dimensions of the result"
            );
            let mut kept = x.shape.iter();
            let dim = |i| if axes.contains(&i) { Some(1) } else { kept.next().copied() };
            (0..of).filter_map(dim).collect()
        }
        Dimensions::Squeeze { axes, .. } => {
            if let Some(axes) = axes {
                ensure!(
                    axes.is_sorted_by(|a, b| a < b) && axes.iter().all(|&a| a < rank),
                    "axes {axes:?} are not sorted, distinct axes of x {x}"
                );
            }
            let listed = |i: usize| axes.as_ref().is_none_or(|axes| axes.contains(&i));
            let dims = x.shape.iter().enumerate();
            dims.filter(|&(i, &d)| d != 1 || !listed(i)).map(|(_, &d)| d).collect()
        }
        Dimensions::Flatten { axis, .. } => {
            ensure!(*axis <= rank, "axis {axis} is beyond the {rank} dimensions of x {x}");
            let product = |dims: &[usize]| element_count(dims).unwrap_or(usize::MAX);
            vec![product(&x.shape[..*axis]), product(&x.shape[*axis..])]
        }
        Dimensions::Like { refs, ranges, .. } => {
            ensure!(
                refs.len() == ranges.len(),
                "there are {} ref_tensors and {} ranges, as many were expected",
                refs.len(),
                ranges.len()
            );
            let mut shape = Vec::new();
            for (&like, &(begin, end)) in refs.iter().zip(ranges) {
                let dims = &types(like).shape;
                let n = dims.len() as i64;
                let place = |i: i64| if i < 0 { i.saturating_add(n) } else { i }.clamp(0, n) as usize;
                let (begin, end) = (place(begin), end.map_or(dims.len(), place));
                shape.extend_from_slice(dims.get(begin..end).unwrap_or(&[]));
            }
            shape
        }
    };
    ensure!(
        element_count(&shape) == Some(x.len()),
        "x {x} has {} elements, the result {shape:?} has not",
        x.len()
    );
    Ok(TensorType::new(x.dtype, &shape))
}
