//! The `.bin` files of llama2.c (Karpathy 2023; `export.py`), versions 0 and 1: a header, then all weights in fp32.
//!
//! | | version 0 | version 1 |
//! |---|---|---|
//! | header | seven int32: `dim`, `hidden_dim`, `n_layers`, `n_heads`, `n_kv_heads`, `vocab_size`, `max_seq_len` | "ak42" as a u32, the version, the seven int32, a byte: 1 for a tied output matrix; zeros up to byte 256 |
//! | tied output matrix | `vocab_size` is positive, otherwise negative | the byte |
//! | order | embedding; of all layers the gains before attention, q, k, v, o, the gains before the feed-forward block, gate, down, up; final gains; tables of the rotary embedding (ignored); output matrix | of all layers both gains; final gains; embedding; q, k, v, o, gate, down, up; output matrix |
//!
//! The rows of q and k are interleaved. What the files do not say is the same for all: heads share `dim` evenly, the base of the
//! rotary embedding is 10000, 1e-5 is added in the norms, texts start with token 1 and end with token 2.

use std::path::Path;

use arcane_tensor::{Encoding, FileError, MappedFile, write_atomically};

use crate::config::size_limit;
use crate::stored::{Stored, Weights, interleaved_heads};
use crate::{ConfigError, ExportError, LlamaConfig, LoadError, ModelType, ParameterSpec, Source, parameters};

const FORMAT: &str = "llama2.c";
const MAGIC: u32 = 0x616b_3432;
const LEGACY_HEADER: usize = 7 * 4;
const HEADER: usize = 256;
/// Where the byte for a tied output matrix is.
const TIED_AT: usize = 4 + 4 + LEGACY_HEADER;

const ROPE_THETA: f64 = 10_000.0;
const NORM_EPS: f64 = 1e-5;
pub(crate) const BOS: u32 = 1;
pub(crate) const EOS: u32 = 2;

/// The two forms of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Llama2cVersion {
    /// Without a magic number; the one that llama2.c's `run` reads.
    V0,
    /// With a header of 256 bytes.
    V1,
}

/// The names of the header's numbers, and the keys of `config.json` that have their limits.
const FIELDS: [(&str, &str); 7] = [
    ("dim", "hidden_size"),
    ("hidden_dim", "intermediate_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("n_kv_heads", "num_key_value_heads"),
    ("vocab_size", "vocab_size"),
    ("max_seq_len", "max_position_embeddings"),
];

/// Opens a file: its configuration and where its weights are.
pub(crate) fn open(path: &Path) -> Result<(LlamaConfig, Weights), LoadError> {
    let file = MappedFile::open(path, FORMAT)?;
    let bytes = file.bytes();
    let found = bytes.len() as u64;
    let (version, fields_at, data_at) = match (int(bytes, 0), int(bytes, 4)) {
        (Some(magic), Some(1)) if magic.cast_unsigned() == MAGIC => (Llama2cVersion::V1, 8, HEADER),
        (Some(magic), Some(version)) if magic.cast_unsigned() == MAGIC => {
            let what = format!("byte 4: version {version}, 1 or a file without a version was expected");
            return Err(FileError::Format { path: path.into(), format: FORMAT, what }.into());
        }
        _ => (Llama2cVersion::V0, 0, LEGACY_HEADER),
    };
    if bytes.len() < data_at {
        let why = "the header alone";
        return Err(FileError::Length { path: path.into(), expected: data_at as u64, found, why }.into());
    }
    let fields = fields(path, bytes, fields_at, version)?;
    let tied = match version {
        Llama2cVersion::V0 => int(bytes, 5 * 4).is_some_and(|vocab| vocab > 0),
        Llama2cVersion::V1 => bytes[TIED_AT] != 0,
    };
    let config = config_of(path, fields, tied)?;
    // Before anything is made for each layer that the header announces.
    let expected = file_len(&config, version);
    if found != expected {
        let why = "what its header gives";
        return Err(FileError::Length { path: path.into(), expected, found, why }.into());
    }
    let specs = parameters(&config);
    let places = places(&specs, &config, version);
    let stored = places.into_iter().zip(&specs).map(|(place, spec)| Stored {
        file: 0,
        range: place as usize..(place + byte_len(spec)) as usize,
        encoding: Encoding::F32,
        interleaved_heads: interleaved_heads(&config, &spec.name),
    });
    let stored = stored.collect();
    Ok((config, Weights { files: vec![file], specs, stored }))
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// The header's numbers, each within the limits of a configuration.
fn fields(path: &Path, bytes: &[u8], at: usize, version: Llama2cVersion) -> Result<[usize; 7], LoadError> {
    let mut fields = [0; 7];
    for (i, (name, key)) in FIELDS.into_iter().enumerate() {
        let at = at + 4 * i;
        let value = int(bytes, at).map_or(0, i64::from);
        let sign_is_a_flag = version == Llama2cVersion::V0 && name == "vocab_size";
        let size = if sign_is_a_flag { value.abs() } else { value };
        let limit = size_limit(key);
        match usize::try_from(size) {
            Ok(size) if (1..=limit).contains(&size) => fields[i] = size,
            _ => {
                let what = format!("byte {at}: {name} is {value}, 1 to {limit} was expected");
                return Err(FileError::Format { path: path.into(), format: FORMAT, what }.into());
            }
        }
    }
    Ok(fields)
}

fn config_of(path: &Path, fields: [usize; 7], tied: bool) -> Result<LlamaConfig, LoadError> {
    let [dim, hidden_dim, layers, heads, kv_heads, vocab, context] = fields;
    let inconsistent = |what: String| ConfigError::Inconsistent { path: path.into(), what };
    if !dim.is_multiple_of(heads) {
        let what = format!("dim is {dim} and n_heads is {heads}, a multiple was expected");
        return Err(inconsistent(what).into());
    }
    let config = LlamaConfig {
        model_type: ModelType::Llama,
        hidden_size: dim,
        intermediate_size: hidden_dim,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: dim / heads,
        vocab_size: vocab,
        max_position_embeddings: context,
        rms_norm_eps: NORM_EPS,
        rope_theta: ROPE_THETA,
        tie_word_embeddings: tied,
        initializer_range: 0.02,
        bos_token_id: Some(BOS),
        eos_token_id: vec![EOS],
        pad_token_id: None,
    };
    config.validate().map_err(inconsistent)?;
    Ok(config)
}

/// Groups of parameters in the order of a file; each but the outermost stands for one a layer.
const ORDER_V0: [&str; 13] = [
    "model.embed_tokens",
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.down_proj",
    "mlp.up_proj",
    "model.norm",
    TABLES,
    "lm_head",
];
const ORDER_V1: [&str; 12] = [
    "input_layernorm",
    "post_attention_layernorm",
    "model.norm",
    "model.embed_tokens",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.down_proj",
    "mlp.up_proj",
    "lm_head",
];
/// Cosines, then sines of the rotary embedding, `[max_seq_len, head_dim / 2]` each.
const TABLES: &str = "";

/// A part of a file in its order: a parameter by its index, or both tables.
enum Part {
    Parameter(usize),
    Tables,
}

fn parts(specs: &[ParameterSpec], version: Llama2cVersion) -> Vec<Part> {
    let order: &[&str] = match version {
        Llama2cVersion::V0 => &ORDER_V0,
        Llama2cVersion::V1 => &ORDER_V1,
    };
    let mut parts = Vec::new();
    for &group in order {
        if group == TABLES {
            parts.push(Part::Tables);
            continue;
        }
        // Of a layer's parameter the group is the end of the name, of another the whole.
        let belongs = |name: &str| {
            let name = name.strip_suffix(".weight").unwrap_or(name);
            name == group || name.starts_with("model.layers.") && name.ends_with(&format!(".{group}"))
        };
        parts.extend((0..specs.len()).filter(|&i| belongs(&specs[i].name)).map(Part::Parameter));
    }
    parts
}

/// The length of a file in bytes. A model has at most 2⁴⁰ parameters, so that nothing overflows.
fn file_len(config: &LlamaConfig, version: Llama2cVersion) -> u64 {
    4 * config.parameter_count()
        + match version {
            Llama2cVersion::V0 => LEGACY_HEADER as u64 + tables_len(config),
            Llama2cVersion::V1 => HEADER as u64,
        }
}

fn tables_len(config: &LlamaConfig) -> u64 {
    4 * config.max_position_embeddings as u64 * config.head_dim as u64
}

/// Where each parameter starts in a file, in bytes.
fn places(specs: &[ParameterSpec], config: &LlamaConfig, version: Llama2cVersion) -> Vec<u64> {
    let mut places = vec![0; specs.len()];
    let mut at = match version {
        Llama2cVersion::V0 => LEGACY_HEADER,
        Llama2cVersion::V1 => HEADER,
    } as u64;
    for part in parts(specs, version) {
        match part {
            Part::Parameter(i) => {
                places[i] = at;
                at += byte_len(&specs[i]);
            }
            Part::Tables => at += tables_len(config),
        }
    }
    debug_assert_eq!(at, file_len(config, version));
    places
}

fn byte_len(spec: &ParameterSpec) -> u64 {
    4 * spec.shape.iter().map(|&d| d as u64).product::<u64>()
}

/// Writes the weights in fp32, one in memory at a time.
pub(crate) fn write(source: &Source, path: &Path, version: Llama2cVersion) -> Result<(), ExportError> {
    let config = source.config();
    let header = header(source, version)?;
    let parameters: Vec<_> = source.parameters().collect();
    let specs: Vec<ParameterSpec> = crate::parameters(config);
    write_atomically(path, |w| {
        w.write_all(&header)?;
        for part in parts(&specs, version) {
            match part {
                Part::Parameter(i) => {
                    let bytes = parameters[i].interleaved_bytes_as(config, Encoding::F32);
                    w.write_all(&bytes.map_err(std::io::Error::other)?)?;
                }
                Part::Tables => {
                    write_table(w, config, f64::cos)?;
                    write_table(w, config, f64::sin)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn header(source: &Source, version: Llama2cVersion) -> Result<Vec<u8>, ExportError> {
    let config = source.config();
    refuse_inexpressible(source)?;
    let sizes = [
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
        config.max_position_embeddings,
    ];
    // The limits of a configuration are below those of an int32.
    let mut fields = sizes.map(|n| n as i32);
    let mut header = Vec::new();
    if version == Llama2cVersion::V0 && !config.tie_word_embeddings {
        fields[5] = -fields[5];
    }
    if version == Llama2cVersion::V1 {
        header.extend(MAGIC.to_le_bytes());
        header.extend(1i32.to_le_bytes());
    }
    header.extend(fields.iter().flat_map(|n| n.to_le_bytes()));
    if version == Llama2cVersion::V1 {
        header.push(u8::from(config.tie_word_embeddings));
        header.resize(HEADER, 0);
    }
    Ok(header)
}

/// The format has no place for what is the same in all of its models.
fn refuse_inexpressible(source: &Source) -> Result<(), ExportError> {
    let config = source.config();
    let check = |key: &str, found: String, expected: String| {
        if found == expected {
            return Ok(());
        }
        let what = format!("`{key}` is {found}, a llama2.c file can only mean {expected}");
        Err(ExportError::Inexpressible { path: source.path().into(), what })
    };
    check("model_type", config.model_type.name().into(), ModelType::Llama.name().into())?;
    check("rope_theta", config.rope_theta.to_string(), ROPE_THETA.to_string())?;
    check("rms_norm_eps", format!("{:e}", config.rms_norm_eps), format!("{NORM_EPS:e}"))?;
    let width = config.num_attention_heads * config.head_dim;
    check("num_attention_heads times head_dim", width.to_string(), config.hidden_size.to_string())
}

/// `[max_seq_len, head_dim / 2]`: a function of `position · theta^(−2i / head_dim)`.
fn write_table(w: &mut dyn std::io::Write, config: &LlamaConfig, of: fn(f64) -> f64) -> std::io::Result<()> {
    let half = config.head_dim / 2;
    let frequency = |i: usize| config.rope_theta.powf(-2.0 * i as f64 / config.head_dim as f64);
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    for position in 0..config.max_position_embeddings {
        let row = frequencies.iter().flat_map(|f| (of(position as f64 * f) as f32).to_le_bytes());
        w.write_all(&row.collect::<Vec<u8>>())?;
    }
    Ok(())
}
