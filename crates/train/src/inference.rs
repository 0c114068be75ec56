//! Functions of a model with its weights on an engine.

use arcane_compile::plan_functions;
use arcane_engine::EngineError;
use arcane_mil::Function;
use arcane_session::{Session, SessionError};

use crate::error::SetupError;
use crate::model::Model;
use crate::trainer::Environment;

/// Why a model that was loaded did not give a result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferenceError {
    /// The model computed numbers that are not finite.
    #[error("{what}: {count} of {total} values are not finite")]
    NotFinite {
        /// Which values.
        what: String,
        /// How many are infinite or NaN.
        count: usize,
        /// How many there are.
        total: usize,
    },
    /// A token is not in the model's vocabulary.
    #[error("token {token} is not in the model's vocabulary of {vocab}")]
    Vocab {
        /// The token.
        token: u32,
        /// The vocabulary's size.
        vocab: usize,
    },
    /// A call failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A buffer cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Plans and loads functions over the weights of a model, and sets the weights. `what` names the undertaking in an error about
/// memory, which comes before any is allocated.
pub(crate) fn load(
    model: &Model,
    functions: &[Function],
    what: &str,
    environment: &Environment,
) -> Result<Session, SetupError> {
    let plan = plan_functions(functions, &environment.planning())?;
    if let Some(available) = environment.available_bytes {
        let needed = environment.engines.required_bytes(&plan)?;
        if needed > available {
            return Err(SetupError::TooLarge { what: what.into(), needed, available });
        }
    }
    let session = Session::new(plan, &environment.engines)?;
    model.weights(|name, tensor| Ok(session.set(name, tensor)?))?;
    Ok(session)
}
