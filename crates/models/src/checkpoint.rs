//! Checkpoints: a folder with `config.json` and `model.safetensors` (or several files with an index), as Hugging Face's
//! transformers reads and writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use arcane_tensor::{
    DType, Encoding, FileError, MappedFile, SafetensorsFile, Tensor, write_atomically, write_safetensors,
};
use serde_json::Value;

use crate::stored::{Stored, Weights};
use crate::{LlamaConfig, LoadError, ParameterSpec, parameters};

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// A configuration takes a few hundred bytes; more than this is another file.
const CONFIG_BYTES: u64 = 1 << 20;
/// An index takes about a hundred bytes a tensor.
const INDEX_BYTES: u64 = 1 << 26;
/// More files than any model is cut into.
const MAX_SHARDS: usize = 4096;

/// Reads the `config.json` of a checkpoint.
///
/// # Errors
/// If the file cannot be read, or as [`LlamaConfig::parse`].
pub fn read_config(folder: &Path) -> Result<LlamaConfig, LoadError> {
    let path = folder.join(CONFIG_FILE);
    let text = read_json(&path, CONFIG_BYTES)?;
    Ok(LlamaConfig::parse(&text, &path)?)
}

/// The text of a file that should hold a JSON object.
fn read_json(path: &Path, limit: u64) -> Result<String, LoadError> {
    let io = |doing| {
        let path = path.to_path_buf();
        move |source| FileError::Io { path, doing, source }
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("open"))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io("read"))?;
    if bytes.len() as u64 > limit {
        let what = format!("the file has more than {limit} bytes, a JSON object was expected");
        return Err(LoadError::NotConfig { path: path.into(), what });
    }
    String::from_utf8(bytes).map_err(|_| LoadError::NotConfig {
        path: path.into(),
        what: "the file is not UTF-8, JSON was expected".into(),
    })
}

/// Reads the weights of a checkpoint as fp32, in the order of [`parameters`]. Names, shapes and types are checked before
/// any weight is read. Buffers that older files carry (`*.rotary_emb.inv_freq`) and a copy of a tied output matrix are
/// ignored.
///
/// # Errors
/// If the tensors are not exactly those of the configuration, or the file cannot be read.
pub fn load(folder: &Path, config: &LlamaConfig) -> Result<Vec<(String, Tensor)>, LoadError> {
    let weights = open_weights(folder, config)?;
    Ok(weights.parameters().map(|p| (p.name().into(), p.to_f32())).collect())
}

/// Writes `config.json` and `model.safetensors` into a folder that exists.
///
/// # Errors
/// If a file cannot be written, or two tensors have one name.
pub fn save(folder: &Path, config: &LlamaConfig, tensors: &[(String, &Tensor)]) -> Result<(), FileError> {
    let json = config.to_json();
    write_atomically(&folder.join(CONFIG_FILE), |w| w.write_all(json.as_bytes()))?;
    write_safetensors(&folder.join(WEIGHTS_FILE), tensors, Some(&metadata()))
}

/// Hugging Face's reader insists on this key.
pub(crate) fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_string(), "pt".to_string())])
}

/// Opens the weights of a folder and checks that they are those of the configuration.
pub(crate) fn open_weights(folder: &Path, config: &LlamaConfig) -> Result<Weights, LoadError> {
    let single = folder.join(WEIGHTS_FILE);
    let index = folder.join(INDEX_FILE);
    let tensors = if !single.exists() && index.exists() {
        Tensors::of_index(folder, &index)?
    } else {
        Tensors::of_file(&single)?
    };
    tensors.check(config)
}

/// The tensors of one or several files.
struct Tensors {
    /// The file, or the index of the files.
    path: PathBuf,
    files: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    file: usize,
    range: std::ops::Range<usize>,
}

impl Tensors {
    fn of_file(path: &Path) -> Result<Self, LoadError> {
        let file = SafetensorsFile::open(path)?;
        let mut tensors = Self { path: path.into(), files: Vec::new(), entries: BTreeMap::new() };
        tensors.add(file);
        Ok(tensors)
    }

    /// Opens each file that the index names; index and files have to name the same tensors.
    fn of_index(folder: &Path, path: &Path) -> Result<Self, LoadError> {
        let text = read_json(path, INDEX_BYTES)?;
        let wrong = |what: String| LoadError::Index { path: path.into(), what };
        let value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
        let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
            return Err(wrong(
                "`weight_map` is missing, an object from tensors to files was expected".into(),
            ));
        };
        let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (tensor, shard) in map {
            let plain = |name: &&str| {
                let mut parts = Path::new(name).components();
                // A separator at the end is no part of a component.
                matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
                    && !name.contains(['/', '\\'])
            };
            let Some(shard) = shard.as_str().filter(plain) else {
                let what =
                    format!("tensor `{tensor}` is in {shard}, the name of a file in the folder was expected");
                return Err(wrong(what));
            };
            shards.entry(shard).or_default().insert(tensor);
        }
        if shards.len() > MAX_SHARDS {
            return Err(wrong(format!("{} files, at most {MAX_SHARDS} were expected", shards.len())));
        }
        let mut tensors = Self { path: path.into(), files: Vec::new(), entries: BTreeMap::new() };
        for (shard, listed) in shards {
            let file = SafetensorsFile::open(&folder.join(shard))?;
            if let Some(name) = listed.iter().find(|name| file.info(name).is_none()) {
                return Err(wrong(format!("tensor `{name}` is not in {shard}, where it was expected")));
            }
            if let Some(name) = file.names().find(|name| !listed.contains(name)) {
                let what = match map.get(name).and_then(Value::as_str) {
                    Some(other) => format!("tensor `{name}` is in {shard}, {other} alone was expected"),
                    None => format!("tensor `{name}` is in {shard}, but not in `weight_map`"),
                };
                return Err(wrong(what));
            }
            tensors.add(file);
        }
        Ok(tensors)
    }

    fn add(&mut self, file: SafetensorsFile) {
        for name in file.names() {
            if let (Some((dtype, shape)), Some(range)) = (file.info(name), file.range(name)) {
                let entry = Entry { dtype, shape: shape.to_vec(), file: self.files.len(), range };
                self.entries.insert(name.into(), entry);
            }
        }
        self.files.push(file.into_file());
    }

    fn check(self, config: &LlamaConfig) -> Result<Weights, LoadError> {
        let specs = parameters(config);
        self.check_names(config, &specs)?;
        let mut stored = Vec::new();
        for spec in &specs {
            stored.push(self.stored(&spec.name, &spec.shape)?);
        }
        if self.entries.contains_key("lm_head.weight") {
            self.stored("lm_head.weight", &[config.vocab_size, config.hidden_size])?;
        }
        Ok(Weights { files: self.files, specs, stored })
    }

    fn check_names(&self, config: &LlamaConfig, specs: &[ParameterSpec]) -> Result<(), LoadError> {
        let known: BTreeSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        let tied_head = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
        let ignored = |name: &str| name.ends_with(".rotary_emb.inv_freq") || tied_head(name);
        let missing: Vec<String> =
            specs.iter().filter(|s| !self.entries.contains_key(&s.name)).map(|s| s.name.clone()).collect();
        let unexpected: Vec<String> =
            self.entries.keys().filter(|n| !known.contains(n.as_str()) && !ignored(n)).cloned().collect();
        if missing.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(LoadError::Names { path: self.path.clone(), missing, unexpected })
    }

    /// Where a tensor of a shape is; it is known to be there.
    fn stored(&self, name: &str, expected: &[usize]) -> Result<Stored, LoadError> {
        let Entry { dtype, shape, file, range } = &self.entries[name];
        let (path, name) = (self.files[*file].path().to_path_buf(), name.to_string());
        if shape != expected {
            return Err(LoadError::Shape { path, name, found: shape.clone(), expected: expected.to_vec() });
        }
        let Some(encoding) = Encoding::of(*dtype) else {
            return Err(LoadError::Dtype { path, name, found: *dtype });
        };
        Ok(Stored { file: *file, range: range.clone(), encoding, interleaved_heads: None })
    }
}
