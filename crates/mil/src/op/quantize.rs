//! Quantisation at run time.

use arcane_tensor::DType;

use crate::ValueId;

/// `quantize` and `dequantize`. Scale and zero point are constants: one number, or a vector along an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantization {
    /// `round(x / scale) + zero_point`, ties to even, clipped to the range of the dtype.
    Quantize {
        /// Floats.
        x: ValueId,
        /// Of x's dtype.
        scale: ValueId,
        /// Of the result's dtype; 0 where there is none.
        zero_point: Option<ValueId>,
        /// The axis of vectors.
        axis: Option<usize>,
        /// `int8` or `uint8`.
        dtype: DType,
    },
    /// `scale · (x − zero_point)`.
    Dequantize {
        /// `int8` or `uint8`.
        x: ValueId,
        /// Its dtype is the result's.
        scale: ValueId,
        /// Of x's dtype; 0 where there is none.
        zero_point: Option<ValueId>,
        /// The axis of vectors.
        axis: Option<usize>,
    },
}

impl Quantization {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Quantize { .. } => "quantize",
            Self::Dequantize { .. } => "dequantize",
        }
    }

    /// The operand.
    pub const fn x(&self) -> ValueId {
        match self {
            Self::Quantize { x, .. } | Self::Dequantize { x, .. } => *x,
        }
    }

    /// The scale, and the zero point if there is one.
    pub const fn scale(&self) -> (ValueId, Option<ValueId>) {
        match self {
            Self::Quantize { scale, zero_point, .. } | Self::Dequantize { scale, zero_point, .. } => {
                (*scale, *zero_point)
            }
        }
    }

    /// The axis of vectors.
    pub const fn axis(&self) -> Option<usize> {
        match self {
            Self::Quantize { axis, .. } | Self::Dequantize { axis, .. } => *axis,
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        match self {
            Self::Quantize { x, scale, zero_point, .. } | Self::Dequantize { x, scale, zero_point, .. } => {
                f(x);
                f(scale);
                zero_point.iter_mut().for_each(f);
            }
        }
    }
}
