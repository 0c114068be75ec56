//! A checkpoint: a Hugging Face folder, the optimiser's moments, and where the run stood.
//!
//! | file | holds |
//! |---|---|
//! | `config.json`, `model.safetensors`, `tokenizer.json` | the model, as Hugging Face has it; the last only if there was one |
//! | `optimizer.safetensors` | `moment1.W` and `moment2.W` for each weight W, fp32 |
//! | `state.json` | [`State`] |
//!
//! The bytes are a function of the configuration, the data and the number of updates.

use std::fs;
use std::path::{Path, PathBuf};

use arcane_models::{LlamaConfig, parameters, save};
use arcane_session::{Session, SessionError};
use arcane_tensor::{DType, FileError, SafetensorsFile, Tensor, write_atomically, write_safetensors};
use serde::{Deserialize, Serialize};

use crate::loss_scale::LossScaleState;
use crate::model::Model;

/// The version of the form of `state.json` and `optimizer.safetensors`.
pub const FORMAT_VERSION: u32 = 1;

const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const MOMENTS: [&str; 2] = ["moment1", "moment2"];

/// What can be wrong with a checkpoint beside its model. Every message of a file starts with its path.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read or written, or breaks its format.
    #[error(transparent)]
    File(#[from] FileError),
    /// `state.json` is not what it should be.
    #[error("{}: {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A moment has not the type and shape of its weight.
    #[error("{}: tensor `{name}` is {found}, {expected} was expected", path.display())]
    Moment {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it is.
        found: String,
        /// What the model calls for.
        expected: String,
    },
    /// The run was started with another seed, which decides about the order of the data.
    #[error("{}: the run's seed is {found}, train.seed is {given}; expected the same", path.display())]
    Seed {
        /// The state.
        path: PathBuf,
        /// The run's seed.
        found: u64,
        /// The configuration's.
        given: u64,
    },
    /// The session's tensors cannot be read or set.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Updates so far, the skipped ones among them.
    pub step: u64,
    /// How many of them were skipped.
    pub skipped: u64,
    /// Sequences taken from the data.
    pub position: u64,
    /// Tokens taken from the data.
    pub tokens: u64,
    /// The factor on the loss.
    pub loss_scale: LossScaleState,
    /// The seed of everything random.
    pub seed: u64,
}

/// Writes a checkpoint into a folder that exists.
///
/// # Errors
/// [`CheckpointError`].
pub fn write_checkpoint(
    folder: &Path,
    model: &Model,
    session: &Session,
    state: &State,
) -> Result<(), CheckpointError> {
    let names: Vec<String> = parameters(&model.config).into_iter().map(|spec| spec.name).collect();
    let copies = |names: Vec<String>| -> Result<Vec<(String, Tensor)>, SessionError> {
        names.into_iter().map(|name| session.get(&name).map(|tensor| (name, tensor))).collect()
    };
    // One file after the other: only one's copies are in memory.
    save(folder, &model.config, &borrowed(&copies(names.clone())?))?;
    let moments = MOMENTS.iter().flat_map(|m| names.iter().map(move |w| format!("{m}.{w}"))).collect();
    write_safetensors(&folder.join(OPTIMIZER_FILE), &borrowed(&copies(moments)?), None)?;
    if let Some(tokenizer) = &model.tokenizer {
        write_atomically(&folder.join("tokenizer.json"), |w| w.write_all(tokenizer))?;
    }
    let path = folder.join(STATE_FILE);
    let json = serde_json::to_string_pretty(state)
        .map_err(|e| CheckpointError::State { path: path.clone(), what: e.to_string() })?;
    Ok(write_atomically(&path, |w| writeln!(w, "{json}"))?)
}

fn borrowed(tensors: &[(String, Tensor)]) -> Vec<(String, &Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor)).collect()
}

/// Reads the `state.json` of a checkpoint.
///
/// # Errors
/// [`CheckpointError`] if it cannot be read or is of another format.
pub fn read_state(folder: &Path) -> Result<State, CheckpointError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let path = folder.join(STATE_FILE);
    let error = |what: String| CheckpointError::State { path: path.clone(), what };
    let bytes = fs::read(&path).map_err(|e| error(format!("cannot read the state: {e}")))?;
    // First the version alone: another one may have other keys.
    let version: Version =
        serde_json::from_slice(&bytes).map_err(|e| error(format!("not the state of a run: {e}")))?;
    if version.format_version != FORMAT_VERSION {
        let found = version.format_version;
        return Err(error(format!("format_version {found}, {FORMAT_VERSION} was expected")));
    }
    let state: State =
        serde_json::from_slice(&bytes).map_err(|e| error(format!("not the state of a run: {e}")))?;
    if state.skipped > state.step {
        return Err(error(format!(
            "skipped is {}, at most step ({}) was expected",
            state.skipped, state.step
        )));
    }
    Ok(state)
}

/// Sets the moments of a session from a checkpoint. All are checked before any is set.
///
/// # Errors
/// [`CheckpointError`] if one is missing or is not of its weight's shape, fp32.
pub fn restore_moments(
    folder: &Path,
    config: &LlamaConfig,
    session: &Session,
) -> Result<(), CheckpointError> {
    let path = folder.join(OPTIMIZER_FILE);
    let file = SafetensorsFile::open(&path)?;
    let specs = parameters(config);
    let moments = || MOMENTS.iter().flat_map(|m| specs.iter().map(move |s| (format!("{m}.{}", s.name), s)));
    for (name, spec) in moments() {
        match file.info(&name) {
            Some((DType::F32, shape)) if shape == spec.shape => {}
            Some((dtype, shape)) => {
                let (found, expected) = (format!("{dtype} {shape:?}"), format!("fp32 {:?}", spec.shape));
                return Err(CheckpointError::Moment { path, name, found, expected });
            }
            None => {
                let count = file.names().count();
                return Err(FileError::Missing { path, name, count }.into());
            }
        }
    }
    for (name, _) in moments() {
        session.set(&name, &file.tensor(&name)?)?;
    }
    Ok(())
}
