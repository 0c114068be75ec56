//! Elements by run-time indices of several dimensions.

use crate::{ScatterMode, ValueId};

/// Gathers and scatters beyond one axis, and sequences reversed. A negative index counts from the end of its axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Index {
    /// `gather` where the first `batch_dims` dimensions of x and of the indices belong together:
    /// `x.shape[..axis] ++ indices.shape[batch_dims..] ++ x.shape[axis + 1..]`.
    GatherBatched {
        /// The operand.
        x: ValueId,
        /// Indices along the axis.
        indices: ValueId,
        /// The axis, not one of the batch.
        axis: usize,
        /// How many dimensions belong together, at least 1.
        batch_dims: usize,
    },
    /// `gather_nd`: the last dimension of the indices holds coordinates of x behind its first `batch_dims` dimensions:
    /// `indices.shape[..last] ++ x.shape[batch_dims + coordinates..]`.
    GatherNd {
        /// The operand.
        x: ValueId,
        /// Coordinates.
        indices: ValueId,
        /// How many first dimensions of x and of the indices belong together.
        batch_dims: usize,
    },
    /// `scatter_nd`: a copy of `data` with `updates`, `indices.shape[..last] ++ data.shape[coordinates..]`, combined in at
    /// coordinates.
    ScatterNd {
        /// What is copied.
        data: ValueId,
        /// Coordinates.
        indices: ValueId,
        /// What is combined in.
        updates: ValueId,
        /// How.
        mode: ScatterMode,
    },
    /// `reverse_sequence`: of each element of the batch axis, the first `lengths[b]` elements along the sequence axis in
    /// reverse order.
    ReverseSequence {
        /// The operand.
        x: ValueId,
        /// How many, one a batch element.
        lengths: ValueId,
        /// The sequence axis.
        seq_axis: usize,
        /// The batch axis, another one.
        batch_axis: usize,
    },
}

impl Index {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GatherBatched { .. } => "gather",
            Self::GatherNd { .. } => "gather_nd",
            Self::ScatterNd { .. } => "scatter_nd",
            Self::ReverseSequence { .. } => "reverse_sequence",
        }
    }

    pub(crate) fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        match self {
            Self::GatherBatched { x, indices, .. } | Self::GatherNd { x, indices, .. } => {
                f(x);
                f(indices);
            }
            Self::ScatterNd { data, indices, updates, .. } => {
                f(data);
                f(indices);
                f(updates);
            }
            Self::ReverseSequence { x, lengths, .. } => {
                f(x);
                f(lengths);
            }
        }
    }
}
