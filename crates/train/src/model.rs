//! Where the weights of a run come from.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arcane_models::{LlamaConfig, LoadError, Source, initialize_parameter, parameters, preset, preset_names};
use arcane_tensor::{Tensor, read_limited};

use crate::config::{Config, ModelSource};
use crate::error::SetupError;
use crate::run_folder::latest_checkpoint;
use crate::tokenizer::Tokenizer;

/// A `config.json` takes a few hundred bytes, a tokenizer a few million.
const CONFIG_BYTES: u64 = 1 << 20;
const TOKENIZER_BYTES: u64 = 1 << 30;

/// A model before its weights are read.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its configuration.
    pub config: LlamaConfig,
    /// Its `tokenizer.json`, if there is one; checkpoints get a copy.
    pub tokenizer: Option<Vec<u8>>,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    Stored(Arc<Source>),
    Random { seed: u64 },
}

impl Model {
    /// The model of a configuration: read from `model.from` (see [`open_source`]), or with random weights. `data.tokenizer`
    /// takes the place of the model's own tokenizer.
    ///
    /// # Errors
    /// [`SetupError`] if there is none, or its configuration is not acceptable.
    pub fn open(config: &Config) -> Result<Self, SetupError> {
        let mut model = match config.model.source() {
            Some(ModelSource::From(path)) => Self::from_path(path)?,
            Some(ModelSource::Config(path)) => Self::random(read_model_config(path)?, config.train.seed),
            Some(ModelSource::Preset(name)) => Self::random(known_preset(name)?, config.train.seed),
            Some(ModelSource::Program(_)) => {
                let what = "training a MIL program is not supported; use from, config or preset".into();
                return Err(SetupError::Key { key: "model.program", what });
            }
            None => {
                let what = "expected exactly one of the keys from, config, preset and program".into();
                return Err(SetupError::Key { key: "model", what });
            }
        };
        if let Some(path) = &config.data.tokenizer {
            model.tokenizer = Some(Tokenizer::open(path)?.to_json().into_bytes());
        }
        Ok(model)
    }

    /// A model with random weights, which are a function of the seed.
    pub fn random(config: LlamaConfig, seed: u64) -> Self {
        Self { config, tokenizer: None, weights: Weights::Random { seed } }
    }

    /// A model in files (see [`open_source`]).
    ///
    /// # Errors
    /// [`SetupError`] if there is none, its configuration or weights are not acceptable, or its tokenizer cannot be read.
    pub fn from_path(path: &Path) -> Result<Self, SetupError> {
        let source = open_source(path)?;
        let tokenizer = match source.tokenizer_path() {
            Some(path) if path.extension().is_some_and(|e| e == "json") => {
                Some(read_limited(path, TOKENIZER_BYTES).map_err(not_readable(path, "tokenizer"))?)
            }
            Some(path) => Some(Tokenizer::open(path)?.to_json().into_bytes()),
            None => source.tokenizer_in_file().map_err(LoadError::from)?.ok().map(String::into_bytes),
        };
        Ok(Self { config: source.config().clone(), tokenizer, weights: Weights::Stored(Arc::new(source)) })
    }

    /// Whether the weights are random, not read from anywhere.
    pub fn has_random_weights(&self) -> bool {
        matches!(self.weights, Weights::Random { .. })
    }

    /// Hands over each weight, fp32, in the order of [`parameters`].
    ///
    /// # Errors
    /// What `take` says.
    pub fn weights(
        &self,
        mut take: impl FnMut(&str, &Tensor) -> Result<(), SetupError>,
    ) -> Result<(), SetupError> {
        match &self.weights {
            Weights::Stored(source) => source.parameters().try_for_each(|p| take(p.name(), &p.to_f32())),
            Weights::Random { seed } => parameters(&self.config)
                .iter()
                .try_for_each(|spec| take(&spec.name, &initialize_parameter(spec, *seed))),
        }
    }
}

/// Reads a Hugging Face `config.json`, wherever and under whatever name it stands.
///
/// # Errors
/// [`SetupError`] if it cannot be read or is not acceptable.
pub fn read_model_config(path: &Path) -> Result<LlamaConfig, SetupError> {
    let bytes = read_limited(path, CONFIG_BYTES).map_err(not_readable(path, "model's configuration"))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let source = io::Error::new(io::ErrorKind::InvalidData, e);
        not_readable(path, "model's configuration")(source)
    })?;
    LlamaConfig::parse(&text, path).map_err(|e| SetupError::Load(e.into()))
}

/// The configuration of a built-in model.
///
/// # Errors
/// [`SetupError::Key`] with the names that there are.
pub fn known_preset(name: &str) -> Result<LlamaConfig, SetupError> {
    preset(name).ok_or_else(|| {
        let names: Vec<&str> = preset_names().collect();
        let what = format!("no preset `{name}`, expected one of {}", names.join(", "));
        SetupError::Key { key: "model.preset", what }
    })
}

/// Opens a model: a run (its latest checkpoint), a checkpoint or another Hugging Face folder, a llama2.c `.bin` or a GGUF file.
///
/// # Errors
/// [`SetupError`] if there is none, or its configuration or weights are not acceptable.
pub fn open_source(path: &Path) -> Result<Source, SetupError> {
    if !path.join("checkpoints").is_dir() {
        return Ok(Source::open(path)?);
    }
    match latest_checkpoint(path)? {
        Some(checkpoint) => Ok(Source::open(&checkpoint.path)?),
        None => Err(SetupError::NoCheckpoint(path.into())),
    }
}

fn not_readable(path: &Path, what: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |source| SetupError::Read { path: path.into(), what, source }
}
