//! Transposed convolutions.

use super::window::{PadType, extent};
use crate::ValueId;

/// `conv_transpose`: what a convolution does to gradients. Each element of x `[N, C, D..]` times the weight `[C, O / groups, K..]`
/// is added to the result `[N, O, D'..]`, where neighbours in x are `strides` apart; plus a bias `[O]`.
///
/// The full result has `(D − 1)·stride + extent of the kernel` positions. `Custom` padding is cut off it; `Same` keeps D·stride
/// and an output shape what it says, cutting ⌊half⌋ at the start. Positions beyond the full result hold only the bias.
#[derive(Clone, Debug, PartialEq)]
pub struct TransposedConvolution {
    /// The operand.
    pub x: ValueId,
    /// The weight.
    pub weight: ValueId,
    /// The bias.
    pub bias: Option<ValueId>,
    /// The distance between the places of neighbours.
    pub strides: Vec<usize>,
    /// How borders are cut.
    pub pad_type: PadType,
    /// What is cut before and after each spatial dimension where `pad_type` is `Custom`.
    pub pad: Vec<usize>,
    /// The distance between the places that elements of the kernel go to.
    pub dilations: Vec<usize>,
    /// How many groups.
    pub groups: usize,
    /// The whole shape of the result.
    pub output_shape: Option<Vec<usize>>,
}

impl TransposedConvolution {
    /// The length of a spatial dimension of the result and how much of the full result is cut before it, given the length of
    /// x and the kernel's size; `None` if more is cut than there is.
    pub fn cut(&self, dimension: usize, length: usize, size: usize) -> Option<(usize, usize)> {
        let stride = self.strides[dimension];
        let extent = extent(size, self.dilations[dimension]);
        let full = length.checked_sub(1).map_or(0, |n| n.saturating_mul(stride).saturating_add(extent));
        let centred = |kept: usize| Some((kept, full.saturating_sub(kept) / 2));
        if let Some(shape) = &self.output_shape {
            return centred(shape[dimension + 2]);
        }
        match self.pad_type {
            PadType::Valid => Some((full, 0)),
            PadType::Same | PadType::SameLower => centred(length.saturating_mul(stride)),
            PadType::Custom => {
                let (before, after) = (self.pad[2 * dimension], self.pad[2 * dimension + 1]);
                Some((full.checked_sub(before.saturating_add(after))?, before))
            }
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        f(&mut self.x);
        f(&mut self.weight);
        self.bias.iter_mut().for_each(f);
    }
}
