//! Checkpoints: a folder with `config.json` and `model.safetensors`, as Hugging Face's transformers reads and writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use arcane_tensor::{DType, FileError, SafetensorsFile, Tensor, write_atomically, write_safetensors};

use crate::{ConfigError, LlamaConfig, ParameterSpec, parameters};

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// A configuration takes a few hundred bytes; more than this is another file.
const CONFIG_BYTES: u64 = 1 << 20;

/// Names that an error lists before it only counts.
const LISTED: usize = 8;

/// Why a checkpoint cannot be loaded. Every message starts with the path of the file at fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or breaks its format.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not the configuration of a model.
    #[error("{}: {what}", path.display())]
    NotConfig {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        what: String,
    },
    /// The weights are spread over several files.
    #[error("{}: the weights are in several files, one {WEIGHTS_FILE} was expected", path.display())]
    Sharded {
        /// The index of the files.
        path: PathBuf,
    },
    /// The tensors are not those that the configuration calls for.
    #[error("{}: {}", path.display(), describe_names(missing, unexpected))]
    Names {
        /// The file.
        path: PathBuf,
        /// Tensors that should be there, in the model's order.
        missing: Vec<String>,
        /// Tensors that should not be there, sorted.
        unexpected: Vec<String>,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("{}: tensor `{name}` has shape {found:?}, {expected:?} was expected", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
    },
    /// A tensor's elements are not floating-point numbers that can be read as weights.
    #[error("{}: tensor `{name}` holds {found}, fp32, fp16 or bf16 was expected", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        found: DType,
    },
}

/// Reads the `config.json` of a checkpoint.
///
/// # Errors
/// If the file cannot be read, or as [`LlamaConfig::parse`].
pub fn read_config(folder: &Path) -> Result<LlamaConfig, LoadError> {
    let path = folder.join(CONFIG_FILE);
    let io = |doing| {
        let path = path.clone();
        move |source| FileError::Io { path, doing, source }
    };
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(io("open"))?;
    file.take(CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(io("read"))?;
    if bytes.len() as u64 > CONFIG_BYTES {
        let what = format!("the file has more than {CONFIG_BYTES} bytes, a JSON object was expected");
        return Err(LoadError::NotConfig { path, what });
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(LoadError::NotConfig { path, what: "the file is not UTF-8, JSON was expected".into() });
    };
    Ok(LlamaConfig::parse(&text, &path)?)
}

/// Reads the weights of a checkpoint as fp32, in the order of [`parameters`]. Names, shapes and types are checked before
/// any weight is read. Buffers that older files carry (`*.rotary_emb.inv_freq`) and a copy of a tied output matrix are
/// ignored.
///
/// # Errors
/// If the tensors are not exactly those of the configuration, or the file cannot be read.
pub fn load(folder: &Path, config: &LlamaConfig) -> Result<Vec<(String, Tensor)>, LoadError> {
    let path = folder.join(WEIGHTS_FILE);
    let index = folder.join(INDEX_FILE);
    if !path.exists() && index.exists() {
        return Err(LoadError::Sharded { path: index });
    }
    let file = SafetensorsFile::open(&path)?;
    let specs = parameters(config);
    check(&path, &file, config, &specs)?;
    let read = |spec: ParameterSpec| {
        let tensor = file.tensor(&spec.name)?;
        let tensor = if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(DType::F32) };
        Ok((spec.name, tensor))
    };
    specs.into_iter().map(read).collect()
}

/// Writes `config.json` and `model.safetensors` into a folder that exists.
///
/// # Errors
/// If a file cannot be written, or two tensors have one name.
pub fn save(folder: &Path, config: &LlamaConfig, tensors: &[(String, &Tensor)]) -> Result<(), FileError> {
    let json = config.to_json();
    write_atomically(&folder.join(CONFIG_FILE), |w| w.write_all(json.as_bytes()))?;
    // Hugging Face's reader insists on this key.
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    write_safetensors(&folder.join(WEIGHTS_FILE), tensors, Some(&metadata))
}

fn check(
    path: &Path,
    file: &SafetensorsFile,
    config: &LlamaConfig,
    specs: &[ParameterSpec],
) -> Result<(), LoadError> {
    let known: BTreeSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    let tied_head = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    let ignored = |name: &str| name.ends_with(".rotary_emb.inv_freq") || tied_head(name);
    let missing: Vec<String> =
        specs.iter().filter(|s| file.info(&s.name).is_none()).map(|s| s.name.clone()).collect();
    let unexpected: Vec<String> =
        file.names().filter(|n| !known.contains(n) && !ignored(n)).map(String::from).collect();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(LoadError::Names { path: path.into(), missing, unexpected });
    }
    let shapes = specs.iter().map(|s| (s.name.as_str(), s.shape.clone()));
    let head = std::iter::once(("lm_head.weight", vec![config.vocab_size, config.hidden_size]));
    for (name, expected) in shapes.chain(head) {
        let Some((dtype, found)) = file.info(name) else { continue };
        let (path, name) = (path.to_path_buf(), name.to_string());
        if found != expected {
            return Err(LoadError::Shape { path, name, found: found.to_vec(), expected });
        }
        if !matches!(dtype, DType::F32 | DType::F16 | DType::Bf16) {
            return Err(LoadError::Dtype { path, name, found: dtype });
        }
    }
    Ok(())
}

fn describe_names(missing: &[String], unexpected: &[String]) -> String {
    let list = |names: &[String]| {
        let shown: Vec<String> = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect();
        let more = names.len() - shown.len();
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        shown.join(", ") + &and_more
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("tensors are missing: {}", list(missing)));
    }
    if !unexpected.is_empty() {
        parts.push(format!("tensors do not belong to this model: {}", list(unexpected)));
    }
    parts.join("; ")
}
