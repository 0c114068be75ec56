//! Padding.

use crate::ValueId;

/// What stands around a padded array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A number.
    Constant(f64),
    /// The array mirrored at its first and last element, which are not repeated.
    Reflect,
    /// The array's first and last element.
    Replicate,
}

/// `pad`: elements put before and after x along its last dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// The operand.
    pub x: ValueId,
    /// How many elements before and after each of the last dimensions: two numbers a dimension.
    pub pad: Vec<usize>,
    /// What is put there.
    pub mode: PadMode,
}

impl PadMode {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::Reflect => "reflect",
            Self::Replicate => "replicate",
        }
    }
}

impl Pad {
    /// Zeros around the last dimensions of x.
    pub fn zeros(x: ValueId, pad: &[usize]) -> Self {
        Self { x, pad: pad.to_vec(), mode: PadMode::Constant(0.0) }
    }

    /// The numbers before and after each of `rank` dimensions.
    pub fn sides(&self, rank: usize) -> Vec<[usize; 2]> {
        let padded = self.pad.len() / 2;
        let missing = std::iter::repeat_n([0, 0], rank.saturating_sub(padded));
        missing.chain(self.pad.chunks_exact(2).map(|p| [p[0], p[1]])).collect()
    }
}
