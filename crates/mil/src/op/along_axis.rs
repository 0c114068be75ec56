//! Ops that order or add up the elements along one axis.

use arcane_tensor::DType;

use crate::ValueId;

/// An op along an axis of x.
///
/// Of equal elements the one with the lower index comes first, whatever the order; NaN comes last in orders, and is the extreme
/// of an extreme.
#[derive(Clone, Debug, PartialEq)]
pub enum AlongAxis {
    /// `reduce_argmax`, `reduce_argmin`: the index of the first largest or smallest element.
    Extreme {
        /// The operand.
        x: ValueId,
        /// Whether the largest element is sought.
        largest: bool,
        /// The axis.
        axis: usize,
        /// Whether the axis stays with length 1.
        keep_dims: bool,
        /// The result's dtype: `int32` or `uint16`.
        dtype: DType,
    },
    /// `argsort`: the indices in the order of their elements, as `int32`.
    Argsort {
        /// The operand.
        x: ValueId,
        /// The axis.
        axis: usize,
        /// Whether the smallest comes first.
        ascending: bool,
    },
    /// `topk`: the first k elements in their order, and their indices.
    TopK {
        /// The operand.
        x: ValueId,
        /// How many, at most the axis's length.
        k: usize,
        /// The axis.
        axis: usize,
        /// Whether the smallest comes first.
        ascending: bool,
        /// Whether the order of the results matters. They are ordered anyway.
        sort: bool,
        /// The indices' dtype, `int32` or `uint16`, if they are a result.
        indices: Option<DType>,
    },
    /// `cumsum`: the sum of the elements up to each, or before it.
    CumSum {
        /// The operand.
        x: ValueId,
        /// The axis.
        axis: usize,
        /// Whether the element itself is left out.
        exclusive: bool,
        /// Whether it starts from the end.
        reverse: bool,
    },
}

impl AlongAxis {
    /// The name in MIL.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Extreme { largest: true, .. } => "reduce_argmax",
            Self::Extreme { largest: false, .. } => "reduce_argmin",
            Self::Argsort { .. } => "argsort",
            Self::TopK { .. } => "topk",
            Self::CumSum { .. } => "cumsum",
        }
    }

    /// The operand and the axis.
    pub fn place(&self) -> (ValueId, usize) {
        match self {
            Self::Extreme { x, axis, .. }
            | Self::Argsort { x, axis, .. }
            | Self::TopK { x, axis, .. }
            | Self::CumSum { x, axis, .. } => (*x, *axis),
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        match self {
            Self::Extreme { x, .. }
            | Self::Argsort { x, .. }
            | Self::TopK { x, .. }
            | Self::CumSum { x, .. } => f(x),
        }
    }
}
