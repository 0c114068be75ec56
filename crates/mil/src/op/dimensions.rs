//! The same elements in row-major order, with other dimensions.

use crate::ValueId;

/// Ops that leave the elements of x where they are. Their results' shapes follow from the types of their operands.
#[derive(Clone, Debug, PartialEq)]
pub enum Dimensions {
    /// `expand_dims`: dimensions of length 1 put in.
    Expand {
        /// The operand.
        x: ValueId,
        /// Their axes in the result, sorted.
        axes: Vec<usize>,
    },
    /// `squeeze`: dimensions of length 1 left out. Axes of another length stay.
    Squeeze {
        /// The operand.
        x: ValueId,
        /// Their axes, sorted; all of length 1 if there are none given.
        axes: Option<Vec<usize>>,
    },
    /// `flatten2d`: a matrix whose rows have all elements from an axis on.
    Flatten {
        /// The operand.
        x: ValueId,
        /// The axis; the rank of x for rows of one element.
        axis: usize,
    },
    /// `reshape_like`: dimensions taken from those of other values, one range after another.
    Like {
        /// The operand.
        x: ValueId,
        /// The values, of which the types alone matter.
        refs: Vec<ValueId>,
        /// Where each range begins and where it ends, as in numpy; no end is the last dimension.
        ranges: Vec<(i64, Option<i64>)>,
    },
}

impl Dimensions {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Expand { .. } => "expand_dims",
            Self::Squeeze { .. } => "squeeze",
            Self::Flatten { .. } => "flatten2d",
            Self::Like { .. } => "reshape_like",
        }
    }

    /// The operand whose elements these are.
    pub const fn x(&self) -> ValueId {
        match self {
            Self::Expand { x, .. }
            | Self::Squeeze { x, .. }
            | Self::Flatten { x, .. }
            | Self::Like { x, .. } => *x,
        }
    }

    pub(crate) fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        match self {
            Self::Expand { x, .. } | Self::Squeeze { x, .. } | Self::Flatten { x, .. } => f(x),
            Self::Like { x, refs, .. } => {
                f(x);
                refs.iter_mut().for_each(f);
            }
        }
    }
}
