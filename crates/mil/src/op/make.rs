//! Arrays made of numbers and of the shapes of others.

use arcane_tensor::DType;

use crate::ValueId;

/// Ops whose elements are not those of an operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Make {
    /// `shape`: the dimensions of x, `int32`.
    Shape {
        /// The operand, of which the type alone matters.
        x: ValueId,
    },
    /// `fill_like`: an array of one value with the shape of another.
    FillLike {
        /// The other, of which the type alone matters.
        like: ValueId,
        /// The result's dtype.
        dtype: DType,
        /// The value, of that dtype.
        value: f64,
    },
    /// `range_1d`: start, start + step, .. up to and without end: ⌈(end − start) / step⌉ elements.
    Range {
        /// The dtype of the numbers and of the result.
        dtype: DType,
        /// The first element.
        start: f64,
        /// Where it ends.
        end: f64,
        /// From one to the next; not 0.
        step: f64,
    },
    /// `one_hot`: a new axis along which `on` stands at the index and `off` elsewhere; an index outside has `off` throughout.
    OneHot {
        /// `int32`.
        indices: ValueId,
        /// Elements along the new axis.
        size: usize,
        /// The new axis, in the result.
        axis: usize,
        /// The result's dtype.
        dtype: DType,
        /// The value at the index, of that dtype.
        on: f64,
        /// The value elsewhere, of that dtype.
        off: f64,
    },
}

impl Make {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "shape",
            Self::FillLike { .. } => "fill_like",
            Self::Range { .. } => "range_1d",
            Self::OneHot { .. } => "one_hot",
        }
    }

    /// How many elements a range has; `None` if that is no number of elements.
    pub fn range_length(start: f64, end: f64, step: f64) -> Option<usize> {
        let length = ((end - start) / step).ceil().max(0.0);
        (length < 2f64.powi(53)).then_some(length as usize)
    }

    pub(crate) fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        match self {
            Self::Shape { x: v } | Self::FillLike { like: v, .. } | Self::OneHot { indices: v, .. } => f(v),
            Self::Range { .. } => {}
        }
    }
}
