//! What can go wrong between a plan and an engine.

use arcane_engine::EngineError;
use arcane_mil::TensorType;

/// Why a session cannot be made, or a request to it failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SessionError {
    /// The plan contradicts itself, or is of another format.
    #[error("the plan is malformed: {0}")]
    Plan(String),
    /// The plan has no such buffer.
    #[error("the plan has no buffer `{0}`")]
    NoBuffer(String),
    /// The plan has no such call.
    #[error("the plan has no call `{0}`")]
    NoCall(String),
    /// A buffer is not one number of a type that was asked for.
    #[error("buffer `{buffer}` is {found}, {expected} was expected")]
    NotScalar {
        /// The buffer.
        buffer: String,
        /// Its type.
        found: TensorType,
        /// What was expected.
        expected: &'static str,
    },
    /// A buffer could not be made, read or written.
    #[error("buffer `{buffer}`: {source}")]
    Buffer {
        /// The buffer.
        buffer: String,
        /// Why.
        source: EngineError,
    },
    /// The engine refused a function.
    #[error("loading `{function}`: {source}")]
    Load {
        /// The function.
        function: String,
        /// Why.
        source: EngineError,
    },
    /// The engine refused the buffers of a call.
    #[error("binding call `{call}`: {source}")]
    Bind {
        /// The call.
        call: String,
        /// Why.
        source: EngineError,
    },
    /// A call failed.
    #[error("call `{call}`: {source}")]
    Call {
        /// The call.
        call: String,
        /// Why.
        source: EngineError,
    },
}
