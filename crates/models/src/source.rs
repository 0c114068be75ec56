//! One way to open a model, whatever its files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arcane_mil::{Function, Rewriter};
use arcane_tensor::{FileError, GgufFile};

use crate::gguf_tokenizer::tokenizer_json;
use crate::stored::{Parameter, Weights};
use crate::{LlamaConfig, LoadError, checkpoint, gguf, llama2c};

/// A model in files: its configuration, and its weights where they lie. Opening reads headers only and checks that every
/// parameter is there with its shape.
pub struct Source {
    path: PathBuf,
    format: SourceFormat,
    config: LlamaConfig,
    weights: Weights,
    tokenizer: Option<PathBuf>,
}

/// The kinds of files that a model can be opened from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFormat {
    /// A folder with `config.json` and safetensors files, as Hugging Face has it.
    HuggingFace,
    /// A `.bin` file of llama2.c.
    Llama2c,
    /// A GGUF file.
    Gguf,
}

impl Source {
    /// Opens a Hugging Face folder (weights in one file, or in several with an index), a `.bin` file of llama2.c (version 0 or
    /// 1) or a GGUF file; which of them a file is, its first bytes say.
    ///
    /// # Errors
    /// [`LoadError`] names the file, the place and what was expected.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let (format, (config, weights)) = if path.is_dir() {
            let config = checkpoint::read_config(path)?;
            let weights = checkpoint::open_weights(path, &config)?;
            (SourceFormat::HuggingFace, (config, weights))
        } else if has_extension(path, "safetensors") || has_extension(path, "json") {
            let what = "a part of a model, the folder that holds it with the rest was expected".into();
            return Err(LoadError::NotModel { path: path.into(), what });
        } else if has_extension(path, "gguf") || starts_like_gguf(path) {
            (SourceFormat::Gguf, gguf::open(path)?)
        } else {
            (SourceFormat::Llama2c, llama2c::open(path)?)
        };
        let tokenizer = find_tokenizer(path, format, &config);
        Ok(Self { path: path.into(), format, config, weights, tokenizer })
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of its files.
    pub fn format(&self) -> SourceFormat {
        self.format
    }

    /// The model's configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The parameters in the order of [`crate::parameters`].
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = Parameter<'_>> {
        self.weights.parameters()
    }

    /// A function of this model with its weights as constants, each in the type of the parameter that it takes the place of.
    pub fn with_weights(&self, function: &Function) -> Function {
        let weights: BTreeMap<&str, Parameter<'_>> = self.parameters().map(|p| (p.name(), p)).collect();
        let mut rewriter = Rewriter::new(function);
        // Parameters are values before all others.
        let (weighed, others): (Vec<_>, Vec<_>) =
            function.parameters().iter().partition(|p| weights.contains_key(p.name.as_str()));
        for p in others {
            let new = rewriter.builder.parameter(&p.name, function.ty(p.value).clone(), p.role);
            rewriter.set(p.value, new);
        }
        for p in weighed {
            let tensor = weights[p.name.as_str()].to_f32().cast(function.ty(p.value).dtype);
            let new = rewriter.builder.constant(&p.name, tensor);
            rewriter.set(p.value, new);
        }
        for operation in function.operations() {
            rewriter.copy(operation);
        }
        rewriter.finish()
    }

    /// The tokenizer's file: `tokenizer.json`, else `tokenizer.bin`, in the folder or beside the file; for a `.bin` also
    /// `tokN.bin` for a vocabulary of N. None if there is none of them.
    pub fn tokenizer_path(&self) -> Option<&Path> {
        self.tokenizer.as_deref()
    }

    /// The text of a `tokenizer.json` made of the metadata of a GGUF file, or why there is none; it is read again for this. A
    /// tokenizer beside the file ([`Source::tokenizer_path`]) goes before it: whoever puts one there means it.
    ///
    /// # Errors
    /// [`FileError`] if the file can no longer be read.
    pub fn tokenizer_in_file(&self) -> Result<Result<String, String>, FileError> {
        if self.format != SourceFormat::Gguf {
            return Ok(Err("no tokenizer was found beside the weights".into()));
        }
        let file = GgufFile::open(&self.path)?;
        Ok(tokenizer_json(file.metadata())
            .map_err(|why| format!("the tokenizer in the file's metadata cannot be used: {why}")))
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}, {:?})", self.path.display(), self.format)
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// Whether a file has GGUF's first bytes; one that cannot be read has not, and its reader will say why.
fn starts_like_gguf(path: &Path) -> bool {
    use std::io::Read;
    let mut bytes = Vec::new();
    let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
    let mut read = || std::fs::File::open(path)?.take(8).read_to_end(&mut bytes);
    is_file && read().is_ok() && GgufFile::recognizes(&bytes)
}

fn find_tokenizer(path: &Path, format: SourceFormat, config: &LlamaConfig) -> Option<PathBuf> {
    let folder = if format == SourceFormat::HuggingFace { path } else { path.parent()? };
    let mut names = vec!["tokenizer.json".to_string(), "tokenizer.bin".into()];
    if format == SourceFormat::Llama2c {
        names.push(format!("tok{}.bin", config.vocab_size));
    }
    names.into_iter().map(|name| folder.join(name)).find(|file| file.is_file() && file != path)
}
