//! The configuration of a model, as Hugging Face's `config.json` has it.

use std::path::{Path, PathBuf};

use arcane_tensor::DType;
use serde_json::{Map, Value, json};

use crate::unsupported::{UNSUPPORTED, expected_instead};

/// What is wrong with a `config.json`. Every message starts with the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not JSON.
    #[error("{}:{line}:{column}: {what}, a JSON object was expected", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The parser's reason.
        what: String,
    },
    /// A key has a value that is malformed, out of range or not supported.
    #[error("{}: `{key}` is {found}, {expected} was expected", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key; a dot separates it from the object that it stands in.
        key: String,
        /// The value as JSON, shortened if it is long.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A key that has no default is not there.
    #[error("{}: `{key}` is missing, {expected} was expected", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What would have been accepted.
        expected: String,
    },
    /// Values are right one by one and do not fit together.
    #[error("{}: {what}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// Which keys, their values, and what was expected.
        what: String,
    },
}

/// The kinds of models, which are Llama's and variants of it. Each has one name for `model_type` in `config.json` and for
/// `general.architecture` in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// `llama` (Touvron et al. 2023): RMS norm, rotary embedding in the half-split form, causal grouped-query attention and a
    /// `SwiGLU` feed-forward block, no biases.
    Llama,
    /// `qwen3` (Yang et al. 2025): as Llama, but before the rotary embedding an RMS norm over each head of the queries and
    /// keys, whose gain of `head_dim` numbers all heads share.
    Qwen3,
}

impl ModelType {
    const ALL: [Self; 2] = [Self::Llama, Self::Qwen3];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The model of a name in files.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The names that there are, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(|t| format!("\"{}\"", t.name())).join(" or ")
    }

    /// Whether queries and keys are normalised head by head.
    pub fn has_head_norms(self) -> bool {
        self == Self::Qwen3
    }

    /// What `architectures` in `config.json` lists.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The length of context where `config.json` does not give it, as in Hugging Face's transformers.
    fn default_context(self) -> usize {
        match self {
            Self::Llama => 2048,
            Self::Qwen3 => 32_768,
        }
    }
}

/// A model of Llama's form. Field names are the keys of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which variant it is.
    pub model_type: ModelType,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Length of context that the model is meant for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square under the root of every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's angles.
    pub rope_theta: f64,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// Token that starts a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; any of them does.
    pub eos_token_id: Vec<u32>,
    /// Token that fills up a batch.
    pub pad_token_id: Option<u32>,
}

/// Sizes: key and largest value. The largest keeps every product of sizes far from overflow.
const SIZE_LIMITS: [(&str, usize); 8] = [
    ("hidden_size", 1 << 20),
    ("intermediate_size", 1 << 20),
    ("num_hidden_layers", 1 << 12),
    ("num_attention_heads", 1 << 16),
    ("num_key_value_heads", 1 << 16),
    ("head_dim", 1 << 16),
    ("vocab_size", 1 << 24),
    ("max_position_embeddings", 1 << 30),
];

/// The largest value of a size.
pub(crate) fn size_limit(key: &str) -> usize {
    SIZE_LIMITS.iter().find(|(k, _)| *k == key).map_or(usize::MAX, |(_, limit)| *limit)
}

/// The most parameters that a model may have.
const PARAMETER_LIMIT: u64 = 1 << 40;

impl LlamaConfig {
    /// Reads a `config.json`; `path` is where the text comes from, for messages. Both spellings are read: the classic one
    /// (`rope_theta`, `rope_scaling`, `torch_dtype`) and the newer one (`rope_parameters`, `dtype`).
    ///
    /// A key that changes the mathematics in a way that is not supported is an error; a key that is not known is ignored,
    /// since these files carry many that only describe the file or steer generation. Defaults are those of Hugging Face's
    /// class for the model type, but sizes have none.
    ///
    /// # Errors
    /// Each names the key, its value and what was expected.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_str(text).map_err(|e| syntax_error(path, &e))?;
        let Value::Object(map) = &value else {
            let what = format!("the file holds {}, a JSON object was expected", shorten(&value));
            return Err(ConfigError::Inconsistent { path: path.into(), what });
        };
        let keys = Keys { map, path };
        let model_type = model_type(&keys)?;
        for row in UNSUPPORTED {
            if let Some(value) = keys.get(row.0)
                && let Some(expected) = expected_instead(model_type, row, value)
            {
                return Err(keys.error(row.0, value, expected));
            }
        }
        let hidden_size = keys.required_size("hidden_size")?;
        let num_hidden_layers = keys.required_size("num_hidden_layers")?;
        let num_attention_heads = keys.required_size("num_attention_heads")?;
        let (num_key_value_heads, head_dim) =
            head_sizes(&keys, model_type, hidden_size, num_attention_heads)?;
        layer_types(&keys, num_hidden_layers)?;
        let config = Self {
            model_type,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.required_size("vocab_size")?,
            max_position_embeddings: keys
                .size("max_position_embeddings")?
                .unwrap_or(model_type.default_context()),
            rms_norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope_theta(&keys)?.unwrap_or(10_000.0),
            tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            initializer_range: keys.positive("initializer_range")?.unwrap_or(0.02),
            bos_token_id: keys.token("bos_token_id")?,
            eos_token_id: keys.tokens("eos_token_id")?,
            pad_token_id: keys.token("pad_token_id")?,
        };
        config.validate().map_err(|what| ConfigError::Inconsistent { path: path.into(), what })?;
        Ok(config)
    }

    /// The `config.json` of this model in the classic spelling, which every version of Hugging Face's transformers loads.
    /// [`LlamaConfig::parse`] gives the same model back.
    pub fn to_json(&self) -> String {
        self.to_json_as(DType::F32)
    }

    /// As [`LlamaConfig::to_json`], for weights that are stored in another type: newer versions of transformers load them
    /// in the type that `torch_dtype` names.
    pub fn to_json_as(&self, dtype: DType) -> String {
        let torch_dtype = match dtype {
            DType::F16 => "float16",
            DType::Bf16 => "bfloat16",
            _ => "float32",
        };
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        };
        let mut value = json!({
            "architectures": [self.model_type.class()],
            "model_type": self.model_type.name(),
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope_theta,
            "rope_scaling": null,
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": false,
            "initializer_range": self.initializer_range,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "pad_token_id": self.pad_token_id,
            "torch_dtype": torch_dtype,
        });
        match self.model_type {
            ModelType::Llama => value["mlp_bias"] = json!(false),
            ModelType::Qwen3 => {
                value["use_sliding_window"] = json!(false);
                value["sliding_window"] = Value::Null;
                value["max_window_layers"] = json!(self.num_hidden_layers);
            }
        }
        format!("{value:#}\n")
    }

    /// The number of trainable numbers; a tied output matrix counts once.
    pub fn parameter_count(&self) -> u64 {
        let [d, f, v] = [self.hidden_size, self.intermediate_size, self.vocab_size].map(|n| n as u128);
        let query = self.num_attention_heads as u128 * self.head_dim as u128;
        let key = self.num_key_value_heads as u128 * self.head_dim as u128;
        let head_norms = if self.model_type.has_head_norms() { 2 * self.head_dim as u128 } else { 0 };
        let layer = 2 * d * query + 2 * d * key + 3 * d * f + 2 * d + head_norms;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        let total = self.num_hidden_layers as u128 * layer + embeddings * v * d + d;
        u64::try_from(total).unwrap_or(u64::MAX)
    }

    /// What `parse` promises beyond the range of each value.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "`num_attention_heads` is {heads} and `num_key_value_heads` is {kv_heads}, a multiple was expected"
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!(
                "`head_dim` is {}, an even number was expected for the rotary embedding",
                self.head_dim
            ));
        }
        let count = self.parameter_count();
        if count > PARAMETER_LIMIT {
            return Err(format!(
                "the sizes give {count} parameters, at most {PARAMETER_LIMIT} were expected"
            ));
        }
        Ok(())
    }
}

/// Refuses models of other types, whose keys may mean something else.
fn model_type(keys: &Keys) -> Result<ModelType, ConfigError> {
    let Some(value) = keys.get("model_type") else {
        return Err(keys.missing("model_type", &ModelType::names()));
    };
    let known = value.as_str().and_then(ModelType::named);
    let known = known.ok_or_else(|| keys.error("model_type", value, &ModelType::names()))?;
    if let Some(value) = keys.get("architectures") {
        let is_it = |v: &Value| v.as_str().is_some_and(|s| s.eq_ignore_ascii_case(known.class()));
        if !value.as_array().is_some_and(|a| a.iter().all(is_it)) {
            return Err(keys.error("architectures", value, &format!("[\"{}\"]", known.class())));
        }
    }
    match keys.get("hidden_act") {
        Some(value) if value != "silu" => Err(keys.error("hidden_act", value, "\"silu\"")),
        _ => Ok(known),
    }
}

/// `num_key_value_heads` and `head_dim`. Where they are missing, Llama's follow from other sizes. Qwen3's do not, and have to be
/// there.
fn head_sizes(
    keys: &Keys,
    model_type: ModelType,
    hidden_size: usize,
    heads: usize,
) -> Result<(usize, usize), ConfigError> {
    if model_type == ModelType::Qwen3 {
        return Ok((keys.required_size("num_key_value_heads")?, keys.required_size("head_dim")?));
    }
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let what = format!(
                "`hidden_size` is {hidden_size} and `num_attention_heads` is {heads}, a multiple was expected where \
                 `head_dim` is missing"
            );
            return Err(ConfigError::Inconsistent { path: keys.path.into(), what });
        }
    };
    Ok((keys.size("num_key_value_heads")?.unwrap_or(heads), head_dim))
}

fn layer_types(keys: &Keys, layers: usize) -> Result<(), ConfigError> {
    let Some(value) = keys.get("layer_types") else { return Ok(()) };
    let full = |types: &Vec<Value>| types.len() == layers && types.iter().all(|t| t == "full_attention");
    if value.as_array().is_some_and(full) {
        return Ok(());
    }
    Err(keys.error("layer_types", value, &format!("\"full_attention\" for each of the {layers} layers")))
}

/// The base of the angles from either spelling. Scaled, partial and per-layer rotary embeddings are refused.
fn rope_theta(keys: &Keys) -> Result<Option<f64>, ConfigError> {
    let mut found: Option<(String, f64)> = keys.positive("rope_theta")?.map(|t| ("rope_theta".into(), t));
    for object in ["rope_parameters", "rope_scaling"] {
        let Some(value) = keys.get(object) else { continue };
        let Value::Object(map) = value else {
            return Err(keys.error(object, value, "null or an object with `rope_type` \"default\""));
        };
        plain_rope(keys, object, map)?;
        let key = format!("{object}.rope_theta");
        let theta = match map.get("rope_theta") {
            None | Some(Value::Null) => continue,
            Some(v) => positive(v).ok_or_else(|| keys.error(&key, v, POSITIVE))?,
        };
        if let Some((first, other)) = found.as_ref().filter(|(_, other)| *other != theta) {
            let what = format!("`{first}` is {other} and `{key}` is {theta}, one value was expected");
            return Err(ConfigError::Inconsistent { path: keys.path.into(), what });
        }
        found = Some((key, theta));
    }
    Ok(found.map(|(_, theta)| theta))
}

/// Refuses every key of a rotary embedding's object that asks for more than `rope_theta`.
fn plain_rope(keys: &Keys, object: &str, map: &Map<String, Value>) -> Result<(), ConfigError> {
    let refuse = |key: &str, v: &Value, expected| Err(keys.error(&format!("{object}.{key}"), v, expected));
    for key in ["rope_type", "type"] {
        if let Some(v) = map.get(key).filter(|v| !v.is_null() && *v != "default") {
            return refuse(key, v, "\"default\"");
        }
    }
    for (key, v) in map.iter().filter(|(_, v)| !v.is_null()) {
        match key.as_str() {
            "rope_type" | "type" | "rope_theta" => {}
            "partial_rotary_factor" if v.as_f64() == Some(1.0) => {}
            "partial_rotary_factor" => return refuse(key, v, "1"),
            _ => return refuse(key, v, "null"),
        }
    }
    Ok(())
}

const POSITIVE: &str = "a positive number";
const TOKEN: &str = "a token id or null";

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|x| x.is_finite() && *x > 0.0)
}

/// A token id, none for −1, which older files write for it; else what was expected.
fn token(value: &Value) -> Result<Option<u32>, &'static str> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        Some(id) => u32::try_from(id).map(Some).map_err(|_| TOKEN),
        None => Err(TOKEN),
    }
}

/// The keys of one object. A key whose value is null counts as absent, as it does for Hugging Face.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn error(&self, key: &str, value: &Value, expected: &str) -> ConfigError {
        let (path, found) = (self.path.into(), shorten(value));
        ConfigError::Value { path, key: key.into(), found, expected: expected.into() }
    }

    fn missing(&self, key: &str, expected: &str) -> ConfigError {
        ConfigError::Missing { path: self.path.into(), key: key.into(), expected: expected.into() }
    }

    fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let limit = size_limit(key);
        match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=limit).contains(&n) => Ok(Some(n)),
            _ => Err(self.error(key, value, &format!("a whole number from 1 to {limit}"))),
        }
    }

    fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key, "a positive whole number"))
    }

    fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.get(key).map(|v| positive(v).ok_or_else(|| self.error(key, v, POSITIVE))).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.get(key).map(|v| v.as_bool().ok_or_else(|| self.error(key, v, "true or false"))).transpose()
    }

    fn token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        token(value).map_err(|expected| self.error(key, value, expected))
    }

    fn tokens(&self, key: &str) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let ids: Result<Vec<Option<u32>>, _> = match value {
            Value::Array(values) => values.iter().map(token).collect(),
            one => token(one).map(|id| vec![id]),
        };
        let ids = ids.map_err(|_| self.error(key, value, "a token id, a list of them or null"))?;
        Ok(ids.into_iter().flatten().collect())
    }
}

/// A value as JSON for a message.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn syntax_error(path: &Path, error: &serde_json::Error) -> ConfigError {
    let (line, column) = (error.line(), error.column());
    let what = error.to_string();
    let what = what.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&what).to_string();
    if line == 0 {
        return ConfigError::Inconsistent { path: path.into(), what };
    }
    ConfigError::Syntax { path: path.into(), line, column: column.max(1), what }
}
