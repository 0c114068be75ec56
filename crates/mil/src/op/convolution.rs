//! Convolutions.

use super::window::PadType;
use crate::ValueId;

/// `conv`: cross-correlation of x `[N, C, D..]` with a weight `[O, C / groups, K..]` over one to three spatial dimensions,
/// plus a bias `[O]`; the result is `[N, O, D'..]`.
///
/// Channels are cut into `groups`: the o-th of O results is a sum over the group's channels of x. MIL wants the bias constant,
/// and the weight, too, where it is dilated.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// The operand.
    pub x: ValueId,
    /// The weight.
    pub weight: ValueId,
    /// The bias.
    pub bias: Option<ValueId>,
    /// How far the window moves, one number a spatial dimension.
    pub strides: Vec<usize>,
    /// How borders are padded.
    pub pad_type: PadType,
    /// Zeros before and after each spatial dimension where `pad_type` is `Custom`.
    pub pad: Vec<usize>,
    /// The distance between the elements that the window takes, one number a spatial dimension.
    pub dilations: Vec<usize>,
    /// How many groups.
    pub groups: usize,
}

impl Convolution {
    /// A convolution of one position with one position: a product over the channels. `rank` is that of x.
    pub fn pointwise(x: ValueId, weight: ValueId, bias: Option<ValueId>, rank: usize) -> Self {
        let spatial = rank.saturating_sub(2);
        Self {
            x,
            weight,
            bias,
            strides: vec![1; spatial],
            pad_type: PadType::Valid,
            pad: vec![0; 2 * spatial],
            dilations: vec![1; spatial],
            groups: 1,
        }
    }

    /// Whether each position of the result comes from the same position of x, given the weight's shape.
    pub fn is_pointwise(&self, weight: &[usize]) -> bool {
        let pads = self.pad_type == PadType::Custom && self.pad.iter().any(|&p| p > 0);
        !pads && self.strides.iter().all(|&s| s == 1) && weight.iter().skip(2).all(|&k| k == 1)
    }

    /// The padding before and after a spatial dimension of x, given its length and the kernel's size.
    pub fn padding(&self, dimension: usize, length: usize, size: usize) -> [usize; 2] {
        let custom = [self.pad[2 * dimension], self.pad[2 * dimension + 1]];
        let extent = super::window::extent(size, self.dilations[dimension]);
        self.pad_type.padding(length, extent, self.strides[dimension], custom)
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        f(&mut self.x);
        f(&mut self.weight);
        if let Some(bias) = &mut self.bias {
            f(bias);
        }
    }
}
