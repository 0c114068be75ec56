//! Compressed weights: ops whose operands are constants and which are computed once, when a program is loaded.
//!
//! They alone have operands and results of types of less than a byte, and of more than five dimensions.

use arcane_tensor::DType;

use crate::ValueId;

/// The ops named `constexpr_*`.
///
/// *Sparse* data are the values of the elements whose mask is 1, in row-major order. A *block* is how many elements along each
/// dimension share an entry of a smaller tensor of the same rank: entry i belongs to elements `i · block ..`.
#[derive(Clone, Debug, PartialEq)]
pub enum Constexpr {
    /// `constexpr_affine_dequantize`: `scale · (data − zero_point)`; scale and zero point are one number, or a vector along
    /// an axis.
    AffineDequantize {
        /// `int8` or `uint8`.
        data: ValueId,
        /// `int8`, `uint8` or fp32.
        zero_point: ValueId,
        /// Its dtype is the result's.
        scale: ValueId,
        /// The axis of vectors.
        axis: usize,
    },
    /// `constexpr_cast`: fp16 data in fp32.
    Cast {
        /// The data.
        source: ValueId,
    },
    /// `constexpr_blockwise_shift_scale`: `scale · (data − offset)`, a scale and an offset a block.
    BlockwiseShiftScale {
        /// Integers of four or eight bits, or floats.
        data: ValueId,
        /// Its dtype is the result's.
        scale: ValueId,
        /// Of the scale's shape.
        offset: Option<ValueId>,
    },
    /// `constexpr_lut_to_dense` from ios18 on: each index replaced by its entry of a table. The table `[G.., 2ⁿ, V]` has one
    /// part for each block of the n-bit indices; entries of V > 1 numbers lie along an axis.
    LutToDense {
        /// Unsigned integers of n bits.
        indices: ValueId,
        /// The table.
        lut: ValueId,
        /// The axis of entries of several numbers.
        vector_axis: Option<usize>,
    },
    /// `constexpr_lut_to_dense` before ios18: indices of log₂ of the table's length bits are packed into bytes, the first in
    /// the lowest bits.
    PackedLutToDense {
        /// `uint8`, one dimension.
        indices: ValueId,
        /// One dimension.
        lut: ValueId,
        /// The result's shape.
        shape: Vec<usize>,
    },
    /// `constexpr_sparse_to_dense` from ios18 on: sparse data with zeros between them.
    SparseToDense {
        /// The sparse data.
        data: ValueId,
        /// `uint1`, of the result's shape.
        mask: ValueId,
    },
    /// `constexpr_sparse_to_dense` before ios18: the mask is packed into bytes as indices are.
    PackedSparseToDense {
        /// The sparse data.
        data: ValueId,
        /// `uint8`, one dimension.
        mask: ValueId,
        /// The result's shape.
        shape: Vec<usize>,
    },
    /// `constexpr_lut_to_sparse`: `LutToDense` on sparse indices. The results are the mask, repeated along the axis of
    /// entries of several numbers, and the sparse data.
    LutToSparse {
        /// `uint1`.
        mask: ValueId,
        /// Sparse indices.
        indices: ValueId,
        /// The table.
        lut: ValueId,
        /// The axis of entries of several numbers.
        vector_axis: Option<usize>,
    },
    /// `constexpr_sparse_blockwise_shift_scale`: `BlockwiseShiftScale` on sparse data; the block is that of the element's
    /// place in the mask. The results are the mask and the sparse data.
    SparseBlockwiseShiftScale {
        /// `uint1`.
        mask: ValueId,
        /// Sparse data.
        data: ValueId,
        /// Its dtype is the result's.
        scale: ValueId,
        /// Of the scale's shape.
        offset: Option<ValueId>,
    },
}

impl Constexpr {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AffineDequantize { .. } => "constexpr_affine_dequantize",
            Self::Cast { .. } => "constexpr_cast",
            Self::BlockwiseShiftScale { .. } => "constexpr_blockwise_shift_scale",
            Self::LutToDense { .. } | Self::PackedLutToDense { .. } => "constexpr_lut_to_dense",
            Self::SparseToDense { .. } | Self::PackedSparseToDense { .. } => "constexpr_sparse_to_dense",
            Self::LutToSparse { .. } => "constexpr_lut_to_sparse",
            Self::SparseBlockwiseShiftScale { .. } => "constexpr_sparse_blockwise_shift_scale",
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        match self {
            Self::AffineDequantize { data, zero_point, scale, axis: _ } => {
                f(data);
                f(zero_point);
                f(scale);
            }
            Self::Cast { source } => f(source),
            Self::BlockwiseShiftScale { data, scale, offset } => {
                f(data);
                f(scale);
                offset.iter_mut().for_each(f);
            }
            Self::LutToDense { indices, lut, .. } | Self::PackedLutToDense { indices, lut, .. } => {
                f(indices);
                f(lut);
            }
            Self::SparseToDense { data, mask } | Self::PackedSparseToDense { data, mask, .. } => {
                f(data);
                f(mask);
            }
            Self::LutToSparse { mask, indices, lut, vector_axis: _ } => {
                f(mask);
                f(indices);
                f(lut);
            }
            Self::SparseBlockwiseShiftScale { mask, data, scale, offset } => {
                f(mask);
                f(data);
                f(scale);
                offset.iter_mut().for_each(f);
            }
        }
    }
}

/// The most dimensions of a value that only compressed weights are made of: a table has two more than its indices.
pub(crate) const MAX_RANK: usize = 7;

/// The number of bits of an index into a table of a length before ios18; `None` for lengths that tables do not have.
pub(crate) fn index_bits(length: usize) -> Option<DType> {
    match length {
        2 => Some(DType::U1),
        4 => Some(DType::U2),
        16 => Some(DType::U4),
        64 => Some(DType::U6),
        256 => Some(DType::U8),
        _ => None,
    }
}
