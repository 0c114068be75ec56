//! Writing a model that has been opened in another form.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arcane_tensor::{
    DType, EncodeError, Encoding, FileError, GgufEntry, GgufValue, SafetensorsEntry, stream_safetensors,
    write_atomically, write_folder_atomically, write_gguf as write_gguf_file,
};

use crate::checkpoint::{CONFIG_FILE, WEIGHTS_FILE, metadata};
use crate::gguf::{self, tensor_name};
use crate::gguf_tokenizer::tokenizer_metadata;
use crate::llama2c::{self, Llama2cVersion};
use crate::{Parameter, Source, SourceFormat};

/// Why a model cannot be written. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model has a property that the format has no place for.
    #[error("{}: {what}", path.display())]
    Inexpressible {
        /// The model.
        path: PathBuf,
        /// The property, and what the format can hold.
        what: String,
    },
    /// A weight cannot be stored in the encoding.
    #[error("{}: tensor `{name}`: {source}", path.display())]
    Encode {
        /// The model.
        path: PathBuf,
        /// The tensor, as Hugging Face names it.
        name: String,
        /// Why not.
        source: EncodeError,
    },
}

/// Files that are copied from one Hugging Face folder to another.
const COMPANIONS: [&str; 6] = [
    TOKENIZER_FILE,
    "tokenizer.bin",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    CHAT_TEMPLATE,
];
const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Writes a Hugging Face folder: `config.json`, `model.safetensors` and, where there is one, the tokenizer, which may be made of a
/// GGUF file's metadata. `dtype` is the
/// type of all weights; without it they keep the type that they have, and quantised ones become fp32. Gains that a GGUF file
/// had to widen go back to the type of the matrices where that loses nothing.
///
/// Gives remarks for the user: what was left behind.
///
/// # Errors
/// [`ExportError`]; [`FileError::Exists`] if there is anything but an empty folder at `path`.
pub fn write_hugging_face(
    source: &Source,
    path: &Path,
    dtype: Option<DType>,
) -> Result<Vec<String>, ExportError> {
    let parameters: Vec<Parameter> = source.parameters().collect();
    let model = dtype.unwrap_or_else(|| plain(parameters[0].encoding()));
    let type_of = |p: &Parameter| match dtype {
        Some(dtype) => dtype,
        None if source.format() == SourceFormat::Gguf && p.shape().len() == 1 && fits(p, model) => model,
        None => plain(p.encoding()),
    };
    let entry = |p: &Parameter| SafetensorsEntry {
        name: p.name().into(),
        dtype: type_of(p),
        shape: p.shape().to_vec(),
    };
    let entries: Vec<SafetensorsEntry> = parameters.iter().map(entry).collect();
    let json = source.config().to_json_as(model);
    let tokenizer = match source.tokenizer_path() {
        Some(_) => None,
        None => Some(source.tokenizer_in_file()?),
    };
    write_folder_atomically(path, |folder| {
        write_atomically(&folder.join(CONFIG_FILE), |w| w.write_all(json.as_bytes()))?;
        copy_companions(source, folder)?;
        if let Some(Ok(json)) = &tokenizer {
            write_atomically(&folder.join(TOKENIZER_FILE), |w| w.write_all(json.as_bytes()))?;
        }
        streamed(source, |failed| {
            stream_safetensors(&folder.join(WEIGHTS_FILE), &entries, Some(&metadata()), |i| {
                let encoding = Encoding::of(entries[i].dtype).unwrap_or(Encoding::F32);
                failed.check(&parameters[i], parameters[i].bytes_as(encoding))
            })
        })
    })?;
    Ok(tokenizer.and_then(Result::err).into_iter().collect())
}

/// The type in which weights of an encoding are kept without loss, but for the rounding of quantised ones to fp32.
fn plain(encoding: Encoding) -> DType {
    encoding.dtype().unwrap_or(DType::F32)
}

/// Whether every element of a parameter is a number of this type.
fn fits(parameter: &Parameter, dtype: DType) -> bool {
    let Some(encoding) = Encoding::of(dtype) else { return false };
    let Ok(stored) = parameter.bytes_as(encoding) else { return false };
    let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
    parameter.to_f32().as_slice().is_some_and(|values| values.iter().zip(&encoding.decode(&stored)).all(same))
}

fn copy_companions(source: &Source, folder: &Path) -> Result<(), ExportError> {
    let copy = |from: &Path, name: &str| {
        let failed = |source| FileError::Io { path: from.into(), doing: "read", source };
        let mut file = File::open(from).map_err(failed)?;
        write_atomically(&folder.join(name), |w| io::copy(&mut file, w).map(drop))
    };
    if source.format() == SourceFormat::HuggingFace {
        for name in COMPANIONS {
            let from = source.path().join(name);
            if from.is_file() {
                copy(&from, name)?;
            }
        }
    } else if let Some(tokenizer) = source.tokenizer_path() {
        let is_json = tokenizer.extension().is_some_and(|e| e == "json");
        copy(tokenizer, if is_json { TOKENIZER_FILE } else { "tokenizer.bin" })?;
    }
    Ok(())
}

/// Writes a `.bin` file of llama2.c, in fp32. Gives remarks as [`write_hugging_face`].
///
/// # Errors
/// [`ExportError::Inexpressible`] if the model is not as all models of the format are; [`FileError::Exists`] if there is
/// anything at `path`.
pub fn write_llama2c(
    source: &Source,
    path: &Path,
    version: Llama2cVersion,
) -> Result<Vec<String>, ExportError> {
    refuse_existing(path)?;
    llama2c::write(source, path, version)?;
    let mut remarks = Vec::new();
    let config = source.config();
    if config.bos_token_id != Some(llama2c::BOS) || config.eos_token_id != [llama2c::EOS] {
        remarks.push(
            "llama2.c takes token 1 as the start and token 2 as the end of a text, this model does not"
                .into(),
        );
    }
    if let Some(tokenizer) = source.tokenizer_path() {
        remarks.push(format!("the file holds no tokenizer; keep {} beside it", tokenizer.display()));
    }
    Ok(remarks)
}

/// Writes a GGUF file with matrices in `encoding`, or as they are stored without it, and gains in fp32, as llama.cpp expects.
/// A `tokenizer.json` goes into the metadata if llama.cpp knows its kind. Gives remarks as [`write_hugging_face`].
///
/// # Errors
/// [`ExportError`]; [`FileError::Exists`] if there is anything at `path`.
pub fn write_gguf(
    source: &Source,
    path: &Path,
    encoding: Option<Encoding>,
) -> Result<Vec<String>, ExportError> {
    refuse_existing(path)?;
    let config = source.config();
    let parameters: Vec<Parameter> = source.parameters().collect();
    let mut entries = Vec::new();
    for parameter in &parameters {
        let is_matrix = parameter.shape().len() > 1;
        let encoding = if is_matrix { encoding.unwrap_or(parameter.encoding()) } else { Encoding::F32 };
        refuse_partial_blocks(source, parameter, encoding)?;
        let (name, shape) = (tensor_name(parameter.name()), parameter.shape().to_vec());
        entries.push(GgufEntry { name, encoding, shape });
    }
    let mut metadata = gguf::metadata(config);
    metadata.extend(file_metadata(&entries));
    let mut remarks = Vec::new();
    match tokenizer_metadata(source)? {
        Ok(tokenizer) => metadata.extend(tokenizer),
        Err(why) => remarks.push(format!("{why}; the file holds no tokenizer, which llama.cpp needs")),
    }
    if config.eos_token_id.len() > 2 {
        remarks.push("only two of the tokens that end a text have a place in the file".into());
    }
    streamed(source, |failed| {
        write_gguf_file(path, &metadata, &entries, |i| {
            let bytes = parameters[i].interleaved_bytes_as(config, entries[i].encoding);
            failed.check(&parameters[i], bytes)
        })
    })?;
    Ok(remarks)
}

fn refuse_partial_blocks(source: &Source, p: &Parameter, encoding: Encoding) -> Result<(), ExportError> {
    if encoding.byte_len(p.shape()).is_some() {
        return Ok(());
    }
    let what = format!(
        "tensor `{}` has rows of {} numbers, {encoding} takes multiples of {}",
        p.name(),
        p.shape().last().copied().unwrap_or(1),
        encoding.block_len()
    );
    Err(ExportError::Inexpressible { path: source.path().into(), what })
}

/// The keys that describe the encodings.
fn file_metadata(entries: &[GgufEntry]) -> Vec<(String, GgufValue)> {
    let projection = entries.iter().find(|e| e.name.ends_with("attn_q.weight"));
    // Numbers of llama.cpp's `llama_ftype`.
    let file_type = match projection.map_or(Encoding::F32, |e| e.encoding) {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q4_0 => 2,
        Encoding::Q4_1 => 3,
        Encoding::Q8_0 => 7,
        Encoding::Bf16 => 32,
    };
    let mut keys = vec![("general.file_type".to_string(), GgufValue::U32(file_type))];
    if entries.iter().any(|e| e.encoding.dtype().is_none()) {
        keys.push(("general.quantization_version".into(), GgufValue::U32(2)));
    }
    keys
}

fn refuse_existing(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(FileError::Exists { path: path.into(), folder: false }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FileError::Io { path: path.into(), doing: "look at", source }),
    }
}

/// Keeps why a weight could not be encoded while a writer passes on an I/O error.
struct Failure<'a> {
    source: &'a Source,
    error: Option<ExportError>,
}

impl Failure<'_> {
    fn check<'b>(
        &mut self,
        parameter: &Parameter,
        bytes: Result<Cow<'b, [u8]>, EncodeError>,
    ) -> io::Result<Cow<'b, [u8]>> {
        bytes.map_err(|source| {
            let (path, name) = (self.source.path().into(), parameter.name().into());
            self.error = Some(ExportError::Encode { path, name, source });
            io::Error::other("a weight cannot be encoded")
        })
    }
}

fn streamed(
    source: &Source,
    write: impl FnOnce(&mut Failure<'_>) -> Result<(), FileError>,
) -> Result<(), ExportError> {
    let mut failure = Failure { source, error: None };
    let result = write(&mut failure);
    match failure.error {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}
