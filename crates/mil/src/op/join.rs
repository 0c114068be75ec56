//! Arrays of one shape put together element by element.

use crate::ValueId;

/// How equal arrays are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// `stack`: along a new axis.
    Stack,
    /// `concat` with `interleave`: along an axis that they have, one element of each in turn.
    Interleave,
}

/// Arrays of one type put together.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// At least one operand.
    pub values: Vec<ValueId>,
    /// The axis of the result.
    pub axis: usize,
    /// How.
    pub kind: JoinKind,
}

impl Join {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            JoinKind::Stack => "stack",
            JoinKind::Interleave => "concat",
        }
    }
}
