//! The configuration of a run: a TOML file, `--set` overrides, defaults, checks.

mod document;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::alarm::DEFAULT_THRESHOLD;
use arcane_engine::Faults;

use crate::documents::BUILTIN_PREFIX;

use document::Document;
pub use document::Place;

/// Tokens that one micro-batch may have: it is a tensor with `i32` indices.
const MAX_BATCH_TOKENS: u64 = i32::MAX as u64;

/// Why a configuration cannot be used. Every message starts with the place: `PATH:LINE:COLUMN`, the path alone, or the
/// override.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML.
    #[error("{place}: {what}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A key is unknown or missing.
    #[error("{place}: {what}")]
    Key {
        /// Where.
        place: Place,
        /// Which key, and which ones there are.
        what: String,
    },
    /// A value, or a table, is not acceptable.
    #[error("{place}: `{key}`: {what}")]
    Value {
        /// Where.
        place: Place,
        /// The dotted key.
        key: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// An override is not `key=value`.
    #[error("--set {given}: {what}")]
    Override {
        /// The override.
        given: String,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A path of the configuration cannot be made absolute.
    #[error("{}: cannot make the path absolute: {what}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        what: String,
    },
    /// The configuration cannot be written as TOML (a path is not Unicode, a seed exceeds 2^63 − 1).
    #[error("the configuration cannot be written as TOML: {0}")]
    Write(String),
}

/// A whole configuration. All paths are absolute after [`Config::parse`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Config {
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on.
    pub data: DataConfig,
    /// How long, and in what portions.
    pub train: TrainConfig,
    /// The update rule.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// What is written, and where.
    #[serde(default)]
    pub run: RunConfig,
    /// How the simulated engine is to fail.
    #[serde(default, skip_serializing_if = "SimConfig::is_empty")]
    pub sim: SimConfig,
}

/// `[sim]`: errors that the simulated engine makes on purpose, to see what a run does then. Numbers count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct SimConfig {
    /// This compilation fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_compile: Option<u64>,
    /// This load fails once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_load: Option<u64>,
    /// This execution fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_evaluate: Option<u64>,
    /// The status that it fails with; 0x1d by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// So many programs can be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u64>,
    /// This execution never ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang: Option<u64>,
}

impl SimConfig {
    /// A surface that does not fit.
    const STATUS: u32 = 0x1d;

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a simulated engine is told.
    pub fn faults(&self) -> Faults {
        Faults {
            compile: self.fail_compile,
            load: self.fail_load,
            evaluate: self.fail_evaluate.map(|n| (n, self.status.unwrap_or(Self::STATUS))),
            slots: self.slots,
            hang: self.hang,
        }
    }
}

/// `[model]`: exactly one of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ModelConfig {
    /// A run, a checkpoint, a Hugging Face folder or a llama2.c `.bin`, to go on from its weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// A Hugging Face `config.json`, with random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The name of a built-in configuration (`stories15m`), with random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// A MIL program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
}

/// The one key of `[model]` that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSource<'a> {
    /// `from`.
    From(&'a Path),
    /// `config`.
    Config(&'a Path),
    /// `preset`.
    Preset(&'a str),
    /// `program`.
    Program(&'a Path),
}

impl ModelConfig {
    /// The source; `None` unless exactly one is given ([`Config::parse`] checks that).
    pub fn source(&self) -> Option<ModelSource<'_>> {
        match (&self.from, &self.config, &self.preset, &self.program) {
            (Some(path), None, None, None) => Some(ModelSource::From(path)),
            (None, Some(path), None, None) => Some(ModelSource::Config(path)),
            (None, None, Some(name), None) => Some(ModelSource::Preset(name)),
            (None, None, None, Some(path)) => Some(ModelSource::Program(path)),
            _ => None,
        }
    }
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct DataConfig {
    /// The training data; see [`crate::documents`].
    pub train: PathBuf,
    /// The validation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<PathBuf>,
    /// The part at the end of the training data that is kept for validation instead, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_fraction: Option<f64>,
    /// The tokenizer of text data; the model's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// How many token ids there are; the model's number by default. For text, how many a tokenizer made from it gets, and
    /// how many a preset has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab: Option<usize>,
    /// Predictions in a sequence.
    pub seq: usize,
    /// In which order sequences are taken.
    #[serde(default)]
    pub order: DataOrder,
    /// How a flat token file stores ids.
    #[serde(default)]
    pub id_dtype: IdDtype,
    /// The sequence that step 0 starts with, in sequential order.
    #[serde(default)]
    pub first_sequence: u64,
}

/// In which order sequences are taken; see [`crate::order::Order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataOrder {
    /// As they stand in the file.
    #[default]
    Sequential,
    /// In another seeded permutation for each pass over the data.
    Shuffle,
}

/// How a flat token file stores ids, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdDtype {
    /// `u16` if there are at most 65,536 ids, else `u32`.
    #[default]
    Auto,
    /// Two bytes an id.
    U16,
    /// Four bytes an id.
    U32,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TrainConfig {
    /// Updates in the whole run.
    pub steps: u64,
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Micro-batches in an update.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// The factor on the loss; by default dynamic in fp16 and 1 in fp32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScaleConfig>,
}

fn one() -> usize {
    1
}

/// `train.loss_scale`: a number, or `"dynamic"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LossScaleConfig {
    /// Always this factor.
    Static(f64),
    /// Lowered on overflow, raised after a while without; see [`crate::loss_scale::LossScale`].
    Dynamic,
}

impl Serialize for LossScaleConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Static(scale) => serializer.serialize_f64(*scale),
            Self::Dynamic => serializer.serialize_str("dynamic"),
        }
    }
}

impl<'de> Deserialize<'de> for LossScaleConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = LossScaleConfig;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or \"dynamic\"")
            }
            fn visit_f64<E: de::Error>(self, scale: f64) -> Result<Self::Value, E> {
                Ok(LossScaleConfig::Static(scale))
            }
            fn visit_i64<E: de::Error>(self, scale: i64) -> Result<Self::Value, E> {
                Ok(LossScaleConfig::Static(scale as f64))
            }
            fn visit_u64<E: de::Error>(self, scale: u64) -> Result<Self::Value, E> {
                Ok(LossScaleConfig::Static(scale as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "dynamic" => Ok(LossScaleConfig::Dynamic),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct OptimizerConfig {
    /// The update rule.
    #[serde(default)]
    pub name: OptimizerName,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// The decay of the first and of the second moment.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled decay of matrices.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// The largest norm that all gradients together may have; 0 for no limit.
    #[serde(default = "default_clip")]
    pub clip: f64,
}

impl Default for OptimizerConfig {
    /// `AdamW` with a learning rate of 3e-4.
    fn default() -> Self {
        Self {
            name: OptimizerName::AdamW,
            lr: 3e-4,
            betas: default_betas(),
            eps: default_eps(),
            weight_decay: default_weight_decay(),
            clip: default_clip(),
        }
    }
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_weight_decay() -> f64 {
    0.1
}

fn default_clip() -> f64 {
    1.0
}

/// `optimizer.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// `AdamW`, Loshchilov & Hutter 2019.
    #[default]
    AdamW,
}

/// `[schedule]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ScheduleConfig {
    /// The shape after the warm-up.
    pub name: ScheduleName,
    /// Updates of linear warm-up.
    pub warmup: u64,
    /// Where the cosine ends.
    pub min_lr: f64,
}

/// `schedule.name`; see [`crate::schedule::Schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// The same learning rate throughout.
    #[default]
    Constant,
    /// Half a cosine down to `min_lr`.
    Cosine,
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct RunConfig {
    /// The run's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Updates between checkpoints; 0 for one at the end only.
    pub save_every: u64,
    /// How many checkpoints are kept; 0 for all.
    pub keep: usize,
    /// Whether the checkpoint with the lowest validation loss is kept beside those; see [`crate::retention::Retention`].
    pub keep_best: bool,
    /// Updates between evaluations; 0 for none.
    pub eval_every: u64,
    /// How many standard deviations above those before a loss or a norm of gradients raises an alarm; 0 for no such alarms.
    /// See [`crate::alarm`].
    pub alarm: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { dir: None, save_every: 0, keep: 0, keep_best: true, eval_every: 0, alarm: DEFAULT_THRESHOLD }
    }
}

impl Config {
    /// Reads a configuration. `path` is where the text is from: it is named in errors, and relative paths in the text are
    /// relative to its folder. `overrides` are `key=value`: a dotted key and a TOML value, or else a string; relative paths
    /// in them are relative to the current folder, like all others of a command line.
    ///
    /// # Errors
    /// [`ConfigError`]: syntax, unknown or missing keys, values of a wrong type or out of range.
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let (mut config, document): (Self, _) = Document::parse(text, path, overrides)?;
        config.check(&document)?;
        config.resolve_paths(path, &document)?;
        Ok(config)
    }

    /// The configuration as TOML with every default written out; [`Config::parse`] gives the same again.
    ///
    /// # Errors
    /// [`ConfigError::Write`] if a path is not Unicode or the seed is above 2^63 − 1.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|e| ConfigError::Write(e.to_string()))
    }

    fn check(&self, document: &Document<'_>) -> Result<(), ConfigError> {
        let reject = |key, what: &str| Err(document.reject(key, what.to_string()));
        if self.model.source().is_none() {
            return reject("model", "expected exactly one of the keys from, config, preset and program");
        }
        self.check_data(document)?;
        let (train, optimizer, schedule) = (&self.train, &self.optimizer, &self.schedule);
        for (key, value) in [
            ("train.steps", train.steps),
            ("train.batch", train.batch as u64),
            ("train.accumulate", train.accumulate as u64),
        ] {
            if value == 0 {
                return reject(key, "expected at least 1, found 0");
            }
        }
        let tokens = (train.batch as u64).checked_mul(self.data.seq as u64);
        if tokens.is_none_or(|n| n > MAX_BATCH_TOKENS) {
            return reject(
                "train.batch",
                "expected at most 2^31 - 1 tokens in a batch (batch times data.seq)",
            );
        }
        if let Some(LossScaleConfig::Static(scale)) = train.loss_scale {
            check_range(document, "train.loss_scale", scale, scale > 0.0, "a finite number above 0")?;
        }
        let positive = "a finite number above 0";
        let non_negative = "a finite number of at least 0";
        check_range(document, "optimizer.lr", optimizer.lr, optimizer.lr > 0.0, positive)?;
        for beta in optimizer.betas {
            let inside = (0.0..1.0).contains(&beta);
            check_range(document, "optimizer.betas", beta, inside, "two numbers from 0 to below 1")?;
        }
        check_range(document, "optimizer.eps", optimizer.eps, optimizer.eps > 0.0, positive)?;
        let (decay, clip, min_lr) = (optimizer.weight_decay, optimizer.clip, schedule.min_lr);
        check_range(document, "optimizer.weight_decay", decay, decay >= 0.0, non_negative)?;
        check_range(document, "optimizer.clip", clip, clip >= 0.0, non_negative)?;
        check_range(document, "run.alarm", self.run.alarm, self.run.alarm >= 0.0, non_negative)?;
        let inside = (0.0..=optimizer.lr).contains(&min_lr);
        check_range(document, "schedule.min_lr", min_lr, inside, "a number from 0 to optimizer.lr")
    }

    fn check_data(&self, document: &Document<'_>) -> Result<(), ConfigError> {
        let data = &self.data;
        let reject = |key, what: &str| Err(document.reject(key, what.to_string()));
        if data.seq == 0 {
            return reject("data.seq", "expected at least 1, found 0");
        }
        if data.vocab.is_some_and(|n| n == 0 || n > i32::MAX as usize) {
            return reject("data.vocab", "expected a number from 1 to 2^31 - 1");
        }
        if let Some(fraction) = data.valid_fraction {
            if data.valid.is_some() {
                return reject("data.valid_fraction", "expected either valid or valid_fraction, found both");
            }
            let inside = fraction > 0.0 && fraction < 1.0;
            check_range(document, "data.valid_fraction", fraction, inside, "a number between 0 and 1")?;
        }
        if data.first_sequence != 0 && data.order != DataOrder::Sequential {
            return reject("data.first_sequence", "expected 0, or order = \"sequential\"");
        }
        Ok(())
    }

    fn resolve_paths(&mut self, path: &Path, document: &Document<'_>) -> Result<(), ConfigError> {
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .map_err(|e| ConfigError::Path { path: path.to_path_buf(), what: e.to_string() })
        };
        let file = absolute(path)?;
        let folder = file.parent().unwrap_or(&file);
        for (key, value) in [
            ("model.from", self.model.from.as_mut()),
            ("model.config", self.model.config.as_mut()),
            ("model.program", self.model.program.as_mut()),
            ("data.train", Some(&mut self.data.train)),
            ("data.valid", self.data.valid.as_mut()),
            ("data.tokenizer", self.data.tokenizer.as_mut()),
            ("run.dir", self.run.dir.as_mut()),
        ] {
            let Some(value) = value else { continue };
            if value.as_os_str().is_empty() {
                return Err(document.reject(key, "expected a path, found an empty string".into()));
            }
            if key.starts_with("data.") && value.to_string_lossy().starts_with(BUILTIN_PREFIX) {
                continue;
            }
            *value = if document.is_override(key) { absolute(value)? } else { folder.join(&*value) };
        }
        Ok(())
    }
}

/// Rejects a number that is not finite or not inside its range.
fn check_range(
    document: &Document<'_>,
    key: &'static str,
    value: f64,
    inside: bool,
    expected: &str,
) -> Result<(), ConfigError> {
    if inside && value.is_finite() {
        return Ok(());
    }
    Err(document.reject(key, format!("expected {expected}, found {value}")))
}

#[cfg(test)]
mod tests;
