//! States: values that a call reads, replaces, and leaves for the next.

use crate::ValueId;

/// `read_state` and `write_state`.
///
/// A state is a parameter of the role [`crate::Role::State`], and each write gives the state anew: a value that later reads
/// and writes take in place of the old one. The last one is an output aliased to the parameter. In text there is one name
/// for all of them, so the verifier wants every read of a state before the write that replaces it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StateOp {
    /// The value of a state.
    Read {
        /// The state.
        state: ValueId,
    },
    /// The state with another value.
    Write {
        /// The state before.
        state: ValueId,
        /// The value, of the state's type.
        data: ValueId,
    },
}

impl StateOp {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read_state",
            Self::Write { .. } => "write_state",
        }
    }

    /// The state that is read or replaced.
    pub const fn state(&self) -> ValueId {
        match self {
            Self::Read { state } | Self::Write { state, .. } => *state,
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        match self {
            Self::Read { state } => f(state),
            Self::Write { state, data } => {
                f(state);
                f(data);
            }
        }
    }
}
