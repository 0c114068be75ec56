//! Views: strided windows on storage, and the ops that only change the window.

use arcane_mil::TensorType;
use arcane_tensor::DType;

use crate::kernels::dense_strides;

/// Storage that a program uses: a parameter, an output, a constant or an intermediate value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SlotId(pub usize);

/// A strided window on storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Which storage.
    pub slot: SlotId,
    /// First element.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Distance between neighbours, in elements; 0 where the dimension is broadcast or has length 1.
    pub strides: Vec<usize>,
}

impl View {
    /// All of a slot that holds a value of a type.
    pub(super) fn dense(slot: SlotId, ty: &TensorType) -> Self {
        Self::new(slot, 0, ty.dtype, ty.shape.clone(), dense_strides(&ty.shape))
    }

    fn new(slot: SlotId, offset: usize, dtype: DType, shape: Vec<usize>, mut strides: Vec<usize>) -> Self {
        for (s, &d) in strides.iter_mut().zip(&shape) {
            if d == 1 {
                *s = 0;
            }
        }
        Self { slot, offset, dtype, shape, strides }
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the elements lie in row-major order without gaps.
    pub(super) fn is_dense(&self) -> bool {
        dense_strides(&self.shape)
            .iter()
            .zip(&self.strides)
            .zip(&self.shape)
            .all(|((a, b), &d)| a == b || d == 1)
    }

    /// The window under another shape of as many elements, if strides can say so.
    pub(super) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        if self.is_dense() {
            return Some(Self::new(self.slot, self.offset, self.dtype, shape.to_vec(), dense_strides(shape)));
        }
        // Walk both shapes from the front, matching runs of old dimensions with runs of new ones of the same product.
        let old: Vec<(usize, usize)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).filter(|&(d, _)| d != 1).collect();
        let mut strides = vec![0; shape.len()];
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            let start = j;
            let (mut have, mut want) = (old[i].0, 1);
            let first = i;
            i += 1;
            loop {
                while want < have && j < shape.len() {
                    want *= shape[j];
                    j += 1;
                }
                if want == have {
                    break;
                }
                if want < have || i == old.len() {
                    return None;
                }
                have *= old[i].0;
                i += 1;
            }
            let merged = old[first..i].windows(2).all(|w| w[0].1 == w[1].0 * w[1].1);
            if !merged {
                return None;
            }
            let mut stride = old[i - 1].1;
            for k in (start..j).rev() {
                strides[k] = stride;
                stride *= shape[k];
            }
        }
        Some(Self::new(self.slot, self.offset, self.dtype, shape.to_vec(), strides))
    }

    /// Permuted dimensions.
    pub(super) fn transpose(&self, perm: &[usize]) -> Self {
        let pick = |from: &[usize]| perm.iter().map(|&p| from[p]).collect();
        Self { shape: pick(&self.shape), strides: pick(&self.strides), ..self.clone() }
    }

    /// The last two dimensions swapped.
    pub(super) fn swap_last(&self) -> Self {
        let rank = self.shape.len();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.transpose(&perm)
    }

    /// `len` elements from `start` along an axis.
    pub(super) fn slice(&self, axis: usize, start: usize, len: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = len;
        let offset = self.offset + start * self.strides[axis];
        Self::new(self.slot, offset, self.dtype, shape, self.strides.clone())
    }

    /// `len` elements along an axis: `start` and every `step`-th one behind it.
    pub(super) fn every(&self, axis: usize, start: usize, step: usize, len: usize) -> Self {
        let mut window = self.slice(axis, start, len);
        if len > 1 {
            window.strides[axis] *= step;
        }
        window
    }

    /// Stretched to a shape that it broadcasts to.
    pub(super) fn broadcast(&self, shape: &[usize]) -> Self {
        let missing = shape.len() - self.shape.len();
        let mut strides = vec![0; missing];
        strides.extend(&self.strides);
        Self::new(self.slot, self.offset, self.dtype, shape.to_vec(), strides)
    }

    /// `[r₀, d₀, r₁, d₁, ..]`: the window of a tile, repeats with stride 0.
    pub(super) fn tiled(&self, reps: &[usize]) -> Self {
        let shape = reps.iter().zip(&self.shape).flat_map(|(&r, &d)| [r, d]).collect();
        let strides = self.strides.iter().flat_map(|&s| [0, s]).collect();
        Self::new(self.slot, self.offset, self.dtype, shape, strides)
    }
}

#[cfg(test)]
mod tests {
    use arcane_mil::TensorType;
    use arcane_tensor::DType;

    use super::{SlotId, View};

    fn elements(v: &View) -> Vec<usize> {
        (0..v.len())
            .map(|i| {
                let (mut rest, mut at) = (i, v.offset);
                for (&d, &s) in v.shape.iter().zip(&v.strides).rev() {
                    at += rest % d * s;
                    rest /= d;
                }
                at
            })
            .collect()
    }

    #[test]
    fn reshape_keeps_the_order_of_elements_or_refuses() {
        let dense = View::dense(SlotId(0), &TensorType::new(DType::F32, &[2, 6, 4]));
        let views = [dense.clone(), dense.slice(2, 1, 2), dense.transpose(&[1, 0, 2]), dense.slice(1, 2, 3)];
        let shapes: [&[usize]; 7] =
            [&[12, 4], &[2, 24], &[2, 3, 2, 4], &[2, 6, 2, 1], &[6, 2, 4], &[24], &[2, 3, 2, 2]];
        let mut viewed = 0;
        for view in &views {
            for shape in shapes {
                if shape.iter().product::<usize>() != view.len() {
                    continue;
                }
                if let Some(reshaped) = view.reshape(shape) {
                    assert_eq!(elements(&reshaped), elements(view), "{view:?} as {shape:?}");
                    viewed += 1;
                }
            }
        }
        assert!(viewed >= 8);
        assert_eq!(dense.transpose(&[1, 0, 2]).reshape(&[48]), None);
    }
}
