//! What ops that slide a window over spatial dimensions share.

/// How the borders of the spatial dimensions are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PadType {
    /// Not at all.
    Valid,
    /// So that the result has ⌈length / stride⌉ positions, the odd one at the end.
    Same,
    /// As `Same`, the odd one at the start.
    SameLower,
    /// By the numbers that the op gives.
    Custom,
}

impl PadType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Valid, Self::Same, Self::SameLower, Self::Custom];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Same => "same",
            Self::SameLower => "same_lower",
            Self::Custom => "custom",
        }
    }

    /// The padding before and after one dimension of a `length`, over which a window that reaches over `extent` elements moves
    /// by `stride`. `custom` are the op's numbers.
    pub fn padding(self, length: usize, extent: usize, stride: usize, custom: [usize; 2]) -> [usize; 2] {
        let missing = || {
            let covered = length.div_ceil(stride).saturating_sub(1).saturating_mul(stride);
            covered.saturating_add(extent).saturating_sub(length)
        };
        match self {
            Self::Valid => [0, 0],
            Self::Same => [missing() / 2, missing().div_ceil(2)],
            Self::SameLower => [missing().div_ceil(2), missing() / 2],
            Self::Custom => custom,
        }
    }
}

/// How many elements a kernel of a `size` reaches over.
pub(crate) fn extent(size: usize, dilation: usize) -> usize {
    size.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::PadType;

    #[test]
    fn same_pads_to_a_position_a_stride() {
        // 5 elements, a window of 4 that moves by 2: 3 positions reach over 8.
        assert_eq!(PadType::Same.padding(5, 4, 2, [9, 9]), [1, 2]);
        assert_eq!(PadType::SameLower.padding(5, 4, 2, [9, 9]), [2, 1]);
        assert_eq!(PadType::Same.padding(6, 1, 2, [9, 9]), [0, 0]);
        assert_eq!(PadType::Custom.padding(6, 1, 2, [9, 8]), [9, 8]);
    }
}
