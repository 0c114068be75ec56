//! Models in GGUF files: metadata to a configuration and back, names of tensors.
//!
//! Keys and names are those of llama.cpp (`gguf-py/gguf/constants.py`). The rows of Llama's q and k are interleaved, those of
//! Qwen3 in halves as Hugging Face has them (`llama_model_rope_type`); gains are fp32.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arcane_tensor::{GgufFile, GgufTensor, GgufValue};

use crate::config::size_limit;
use crate::stored::{Stored, Weights, interleaved_heads};
use crate::{ConfigError, LlamaConfig, LoadError, ModelType, parameters};

const ARCHITECTURE: &str = "general.architecture";
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// Keys with a whole number, and the keys of `config.json` that have their limits. The architecture and a dot come before a key.
const CONTEXT: [&str; 2] = ["context_length", "max_position_embeddings"];
const WIDTH: [&str; 2] = ["embedding_length", "hidden_size"];
const FEED_FORWARD: [&str; 2] = ["feed_forward_length", "intermediate_size"];
const LAYERS: [&str; 2] = ["block_count", "num_hidden_layers"];
const HEADS: [&str; 2] = ["attention.head_count", "num_attention_heads"];
const KV_HEADS: [&str; 2] = ["attention.head_count_kv", "num_key_value_heads"];
const KEY_LENGTH: [&str; 2] = ["attention.key_length", "head_dim"];
const VALUE_LENGTH: [&str; 2] = ["attention.value_length", "head_dim"];
const ROPE_DIMENSIONS: [&str; 2] = ["rope.dimension_count", "head_dim"];
const VOCABULARY: [&str; 2] = ["vocab_size", "vocab_size"];
const NORM_EPS: &str = "attention.layer_norm_rms_epsilon";
const ROPE_THETA: &str = "rope.freq_base";
pub(crate) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(crate) const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const PAD: &str = "tokenizer.ggml.padding_token_id";

/// A key, what is expected of it, and whether a value leaves the mathematics alone.
type Unsupported = (&'static str, &'static str, fn(&GgufValue) -> bool);

/// The parts of a model that is spread over several files.
const SPLIT: Unsupported = ("split.count", "1", |v| is_zero(v) || is_one(v));

/// The architecture and a dot come before a key.
#[rustfmt::skip]
const UNSUPPORTED: &[Unsupported] = &[
    ("rope.scaling.type", "\"none\"", |v| matches!(v, GgufValue::String(s) if s == "none")),
    ("rope.scaling.factor", "1", is_one),
    ("rope.scaling.attn_factor", "1", is_one),
    ("rope.scale_linear", "1", is_one),
    ("expert_count", "0", is_zero),
    ("expert_used_count", "0", is_zero),
    ("attention.sliding_window", "0", is_zero),
    ("attention.causal", "true", |v| *v == GgufValue::Bool(true)),
    ("attention.clamp_kqv", "0", is_zero),
    ("attention.max_alibi_bias", "0", is_zero),
    ("attention.scale", "0", is_zero),
    ("attn_logit_softcapping", "0", is_zero),
    ("final_logit_softcapping", "0", is_zero),
    ("use_parallel_residual", "false", |v| *v == GgufValue::Bool(false)),
    ("logit_scale", "1", is_one),
    ("embedding_scale", "1", is_one),
    ("residual_scale", "1", is_one),
];

fn is_zero(value: &GgufValue) -> bool {
    number(value) == Some(0.0)
}

fn is_one(value: &GgufValue) -> bool {
    number(value) == Some(1.0)
}

/// Opens a file: its configuration and where its weights are.
pub(crate) fn open(path: &Path) -> Result<(LlamaConfig, Weights), LoadError> {
    let file = GgufFile::open(path)?;
    let config = Keys::new(path, file.metadata())?.config(file.tensors())?;
    let specs = parameters(&config);
    let stored = stored(path, &config, file.tensors())?;
    Ok((config, Weights { files: vec![file.into_file()], specs, stored }))
}

fn stored(
    path: &Path,
    config: &LlamaConfig,
    tensors: &BTreeMap<String, GgufTensor>,
) -> Result<Vec<Stored>, LoadError> {
    let specs = parameters(config);
    let names: Vec<String> = specs.iter().map(|spec| tensor_name(&spec.name)).collect();
    let known: BTreeSet<&String> = names.iter().collect();
    let missing: Vec<String> = names.iter().filter(|n| !tensors.contains_key(*n)).cloned().collect();
    let unexpected: Vec<String> = tensors.keys().filter(|n| !known.contains(n)).cloned().collect();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(LoadError::Names { path: path.into(), missing, unexpected });
    }
    let place = |(spec, name): (&crate::ParameterSpec, &String)| {
        let tensor = &tensors[name];
        if tensor.shape != spec.shape {
            return Err(LoadError::Shape {
                path: path.into(),
                name: name.clone(),
                found: tensor.shape.clone(),
                expected: spec.shape.clone(),
            });
        }
        Ok(Stored {
            file: 0,
            range: tensor.range.clone(),
            encoding: tensor.encoding,
            interleaved_heads: interleaved_heads(config, &spec.name),
        })
    };
    specs.iter().zip(&names).map(place).collect()
}

/// A parameter's name in a GGUF file.
pub(crate) fn tensor_name(name: &str) -> String {
    const PARTS: [(&str, &str); 11] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    match (name, layer) {
        ("model.embed_tokens.weight", _) => EMBEDDING.into(),
        ("model.norm.weight", _) => "output_norm.weight".into(),
        (_, Some((index, rest))) => {
            let part = rest.strip_suffix(".weight").unwrap_or(rest);
            let part = PARTS.iter().find(|(ours, _)| *ours == part).map_or(part, |(_, theirs)| theirs);
            format!("blk.{index}.{part}.weight")
        }
        _ => HEAD.into(),
    }
}

/// The keys that describe a model.
pub(crate) fn metadata(config: &LlamaConfig) -> Vec<(String, GgufValue)> {
    let architecture = config.model_type.name();
    let under = |key: &str| format!("{architecture}.{key}");
    // The limits of a configuration are below those of a u32.
    let size = |[key, _]: [&str; 2], n: usize| (under(key), GgufValue::U32(n as u32));
    let mut keys = vec![
        (ARCHITECTURE.to_string(), GgufValue::String(architecture.into())),
        size(LAYERS, config.num_hidden_layers),
        size(CONTEXT, config.max_position_embeddings),
        size(WIDTH, config.hidden_size),
        size(FEED_FORWARD, config.intermediate_size),
        size(HEADS, config.num_attention_heads),
        size(KV_HEADS, config.num_key_value_heads),
        size(KEY_LENGTH, config.head_dim),
        size(VALUE_LENGTH, config.head_dim),
        size(ROPE_DIMENSIONS, config.head_dim),
        size(VOCABULARY, config.vocab_size),
        (under(NORM_EPS), GgufValue::F32(config.rms_norm_eps as f32)),
        (under(ROPE_THETA), GgufValue::F32(config.rope_theta as f32)),
    ];
    let ends = &config.eos_token_id;
    let tokens = [
        (BOS, config.bos_token_id),
        (EOS, ends.first().copied()),
        (EOT, ends.get(1).copied()),
        (PAD, config.pad_token_id),
    ];
    keys.extend(tokens.into_iter().filter_map(|(key, id)| Some((key.to_string(), GgufValue::U32(id?)))));
    keys
}

/// The metadata of one file.
struct Keys<'a> {
    path: &'a Path,
    metadata: &'a BTreeMap<String, GgufValue>,
    model_type: ModelType,
}

impl<'a> Keys<'a> {
    fn new(path: &'a Path, metadata: &'a BTreeMap<String, GgufValue>) -> Result<Self, ConfigError> {
        let names = ModelType::names();
        let Some(value) = metadata.get(ARCHITECTURE) else {
            return Err(missing(path, ARCHITECTURE, &names));
        };
        let known = match value {
            GgufValue::String(name) => ModelType::named(name),
            _ => None,
        };
        let model_type = known.ok_or_else(|| wrong(path, ARCHITECTURE, value, &names))?;
        Ok(Self { path, metadata, model_type })
    }

    /// The whole of a key.
    fn under(&self, key: &str) -> String {
        format!("{}.{key}", self.model_type.name())
    }

    fn config(&self, tensors: &BTreeMap<String, GgufTensor>) -> Result<LlamaConfig, ConfigError> {
        let unsupported = UNSUPPORTED.iter().map(|row| (self.under(row.0), row));
        for (key, (_, expected, is_neutral)) in unsupported.chain([(SPLIT.0.to_string(), &SPLIT)]) {
            if let Some(value) = self.metadata.get(&key).filter(|v| !is_neutral(v)) {
                return Err(wrong(self.path, &key, value, expected));
            }
        }
        let (hidden_size, heads) = (self.required(WIDTH)?, self.required(HEADS)?);
        let kv_heads = self.size(KV_HEADS)?.unwrap_or(heads);
        let vocab_size = match self.size(VOCABULARY)? {
            Some(size) => size,
            // Older files give it by the embedding alone.
            None => match tensors.get(EMBEDDING).and_then(|t| t.shape.first()) {
                Some(&rows) if rows <= size_limit(VOCABULARY[1]) => rows,
                _ => return Err(self.missing(VOCABULARY[0], "a positive whole number")),
            },
        };
        let config = LlamaConfig {
            model_type: self.model_type,
            hidden_size,
            intermediate_size: self.required(FEED_FORWARD)?,
            num_hidden_layers: self.required(LAYERS)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: self.head_dim(hidden_size, heads)?,
            vocab_size,
            max_position_embeddings: self.required(CONTEXT)?,
            rms_norm_eps: self
                .positive(NORM_EPS)?
                .ok_or_else(|| self.missing(NORM_EPS, "a positive number"))?,
            rope_theta: self.positive(ROPE_THETA)?.unwrap_or(10_000.0),
            tie_word_embeddings: !tensors.contains_key(HEAD),
            initializer_range: 0.02,
            bos_token_id: self.token(BOS)?,
            eos_token_id: [self.token(EOS)?, self.token(EOT)?].into_iter().flatten().collect(),
            pad_token_id: self.token(PAD)?,
        };
        config.validate().map_err(|what| ConfigError::Inconsistent { path: self.path.into(), what })?;
        Ok(config)
    }

    /// The width of a head, of which several keys have to give one value.
    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize, ConfigError> {
        let head_dim = match self.size(KEY_LENGTH)? {
            Some(width) => width,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => return Err(self.missing(KEY_LENGTH[0], "the width of a head")),
        };
        for key in [VALUE_LENGTH, ROPE_DIMENSIONS] {
            if self.size(key)?.is_some_and(|width| width != head_dim) {
                let key = self.under(key[0]);
                let expected = format!("{head_dim}, the width of a head,");
                return Err(wrong(self.path, &key, &self.metadata[&key], &expected));
            }
        }
        Ok(head_dim)
    }

    fn missing(&self, key: &str, expected: &str) -> ConfigError {
        missing(self.path, &self.under(key), expected)
    }

    fn size(&self, [key, limited_as]: [&str; 2]) -> Result<Option<usize>, ConfigError> {
        let key = self.under(key);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let limit = size_limit(limited_as);
        match whole(value).and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=limit).contains(&n) => Ok(Some(n)),
            _ => Err(wrong(self.path, &key, value, &format!("a whole number from 1 to {limit}"))),
        }
    }

    fn required(&self, key: [&str; 2]) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key[0], "a positive whole number"))
    }

    fn positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let key = self.under(key);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        match number(value).filter(|x| x.is_finite() && *x > 0.0) {
            Some(x) => Ok(Some(x)),
            None => Err(wrong(self.path, &key, value, "a positive number")),
        }
    }

    /// Of a whole key: tokens stand under no architecture.
    fn token(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match whole(value).and_then(|n| u32::try_from(n).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(wrong(self.path, key, value, "a token id")),
        }
    }
}

fn wrong(path: &Path, key: &str, value: &GgufValue, expected: &str) -> ConfigError {
    ConfigError::Value {
        path: path.into(),
        key: key.into(),
        found: describe(value),
        expected: expected.into(),
    }
}

fn missing(path: &Path, key: &str, expected: &str) -> ConfigError {
    ConfigError::Missing { path: path.into(), key: key.into(), expected: expected.into() }
}

pub(crate) fn whole(value: &GgufValue) -> Option<u64> {
    match *value {
        GgufValue::U32(n) => Some(n.into()),
        GgufValue::U64(n) => Some(n),
        GgufValue::I32(n) => u64::try_from(n).ok(),
        GgufValue::I64(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

/// A number; an fp32 one as the shortest decimal that names it, so that 1e-5 is what was meant.
fn number(value: &GgufValue) -> Option<f64> {
    match value {
        GgufValue::F32(x) => x.to_string().parse().ok(),
        GgufValue::F64(x) => Some(*x),
        other => whole(other).map(|n| n as f64),
    }
}

/// A value for a message.
fn describe(value: &GgufValue) -> String {
    let array = |len: usize| format!("an array of {len}");
    match value {
        GgufValue::String(text) => {
            let shown: String = text.chars().take(40).collect();
            format!("{shown:?}")
        }
        GgufValue::Bool(x) => x.to_string(),
        GgufValue::Strings(v) => array(v.len()),
        GgufValue::F32s(v) => array(v.len()),
        GgufValue::I32s(v) => array(v.len()),
        GgufValue::Other { len, .. } => format!("an array of {len}"),
        GgufValue::I32(n) => n.to_string(),
        GgufValue::I64(n) => n.to_string(),
        other => number(other).map_or_else(String::new, |x| x.to_string()),
    }
}
