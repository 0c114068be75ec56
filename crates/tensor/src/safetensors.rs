//! The checkpoint format of Hugging Face: a length, a JSON header, then the elements of all tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};
use serde_json::{Map, Value, json};

use crate::{DType, FileError, MappedFile, Tensor, element_count, write_atomically};

const FORMAT: &str = "safetensors";
/// Bytes of the length in front of the header.
const LENGTH_BYTES: usize = 8;
const METADATA_KEY: &str = "__metadata__";

/// An open file of tensors, read through a memory map: opening reads the header only, a tensor is copied out when it is
/// asked for.
///
/// The file must not be changed in place while it is open; [`write_safetensors`] replaces a file and so is safe.
pub struct SafetensorsFile {
    file: MappedFile,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    /// Where the elements are in the file, in bytes.
    range: Range<usize>,
}

impl SafetensorsFile {
    /// Opens a file and checks its header: the offsets of the tensors must follow each other without overlap or hole, fit
    /// the shapes and end at the end of the file.
    ///
    /// # Errors
    /// Each names the path and, where one is at fault, the tensor.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = MappedFile::open(path, FORMAT)?;
        let map = file.bytes();
        let found = map.len() as u64;
        if map.len() < LENGTH_BYTES {
            return Err(length_error(path, LENGTH_BYTES as u64, found, "the header's length alone takes 8"));
        }
        let (header_bytes, header) = SafeTensors::read_metadata(map).map_err(|e| explain(path, map, &e))?;
        let data_start = LENGTH_BYTES + header_bytes;
        let mut entries = BTreeMap::new();
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let Some(dtype) = dtype_of(info.dtype) else {
                return Err(FileError::Dtype { path: path.into(), name, dtype: info.dtype.to_string() });
            };
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            entries.insert(name, Entry { dtype, shape: info.shape.clone(), range });
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { file, entries, metadata })
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The type and shape of a tensor, if there is one of this name.
    pub fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        self.entries.get(name).map(|e| (e.dtype, e.shape.as_slice()))
    }

    /// Copies a tensor out of the file, in the type it has there.
    ///
    /// # Errors
    /// [`FileError::Missing`] if there is none of this name; [`FileError::Format`] if a `bool` is neither 0 nor 1.
    pub fn tensor(&self, name: &str) -> Result<Tensor, FileError> {
        let entry = self.entries.get(name).ok_or_else(|| FileError::Missing {
            path: self.file.path().into(),
            name: name.into(),
            count: self.entries.len(),
        })?;
        Tensor::from_bytes(entry.dtype, &entry.shape, &self.file.bytes()[entry.range.clone()])
            .map_err(|e| format_error(self.file.path(), format!("tensor `{name}`: {e}")))
    }

    /// Where the elements of a tensor are in the file, in bytes, if there is one of this name.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).map(|e| e.range.clone())
    }

    /// The file without its header's contents, for a reader that keeps the ranges.
    pub fn into_file(self) -> MappedFile {
        self.file
    }

    /// The free-form strings of the header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SafetensorsFile({}, {} tensors)", self.file.path().display(), self.entries.len())
    }
}

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsEntry {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Writes tensors and metadata. The bytes depend on the arguments alone: tensors stand in the order of their element size
/// (largest first, which aligns them) and then of their names, metadata in the order of its keys. The file is replaced
/// atomically.
///
/// # Errors
/// [`FileError::Name`] for a name that occurs twice or is `__metadata__`; [`FileError::Io`].
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, &Tensor)],
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<(), FileError> {
    let entry = |(name, t): &(String, &Tensor)| SafetensorsEntry {
        name: name.clone(),
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
    };
    let entries: Vec<SafetensorsEntry> = tensors.iter().map(entry).collect();
    stream_safetensors(path, &entries, metadata, |i| Ok(Cow::Borrowed(tensors[i].1.bytes())))
}

/// As [`write_safetensors`], with one tensor in memory at a time: `bytes` gives the little-endian elements of the entry of
/// this index, and is called once for each in the order of the file.
///
/// # Errors
/// As [`write_safetensors`], and what `bytes` says; it is an error if it gives another number of bytes than the entry takes.
pub fn stream_safetensors<'a>(
    path: &Path,
    entries: &[SafetensorsEntry],
    metadata: Option<&BTreeMap<String, String>>,
    mut bytes: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> Result<(), FileError> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(entries[i].dtype.size()), &entries[i].name));

    let mut header = Map::new();
    if let Some(metadata) = metadata {
        header.insert(METADATA_KEY.into(), json!(metadata));
    }
    let mut offset = 0;
    for &i in &order {
        let SafetensorsEntry { name, dtype, shape } = &entries[i];
        let name_error = |what| FileError::Name { path: path.into(), name: name.clone(), what };
        if name == METADATA_KEY {
            return Err(name_error("is reserved by the format"));
        }
        let takes = element_count(shape).and_then(|n| n.checked_mul(dtype.size()));
        let end = takes.and_then(|n| n.checked_add(offset));
        let end = end.ok_or_else(|| name_error("has more elements than can be addressed"))?;
        let entry = json!({ "dtype": name_of(*dtype), "shape": shape, "data_offsets": [offset, end] });
        if header.insert(name.clone(), entry).is_some() {
            return Err(name_error("occurs twice"));
        }
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');

    write_atomically(path, |w| {
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(&header)?;
        order.iter().try_for_each(|&i| {
            let SafetensorsEntry { name, dtype, shape } = &entries[i];
            let bytes = bytes(i)?;
            if element_count(shape).and_then(|n| n.checked_mul(dtype.size())) != Some(bytes.len()) {
                let what =
                    format!("{} bytes for tensor `{name}` of type {dtype} and shape {shape:?}", bytes.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            w.write_all(&bytes)
        })
    })
}

fn format_error(path: &Path, what: String) -> FileError {
    FileError::Format { path: path.into(), format: FORMAT, what }
}

fn length_error(path: &Path, expected: u64, found: u64, why: &'static str) -> FileError {
    FileError::Length { path: path.into(), expected, found, why }
}

/// The reader's error in terms of this file: which length was expected, which tensor is wrong.
fn explain(path: &Path, bytes: &[u8], error: &SafeTensorError) -> FileError {
    let found = bytes.len() as u64;
    let declared = bytes.first_chunk::<LENGTH_BYTES>().map_or(0, |b| u64::from_le_bytes(*b));
    let header_end = declared.saturating_add(LENGTH_BYTES as u64);
    let header = bytes.get(LENGTH_BYTES..usize::try_from(header_end).unwrap_or(usize::MAX));
    match error {
        SafeTensorError::HeaderTooLarge => format_error(
            path,
            format!("the first 8 bytes give a header of {declared} bytes, at most 100 MB are read"),
        ),
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => {
            length_error(path, header_end, found, "at least, for the header that it announces")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let data =
                header.and_then(|h| serde_json::from_slice::<Metadata>(h).ok()).map_or(0, |m| m.data_len());
            length_error(path, header_end.saturating_add(data as u64), found, "the end of its last tensor")
        }
        SafeTensorError::InvalidOffset(name) => {
            let what = "overlap another tensor, leave a hole or run backwards; each tensor must start where another ends";
            format_error(path, format!("the data_offsets of tensor `{name}` {what}"))
        }
        SafeTensorError::TensorInvalidInfo | SafeTensorError::ValidationOverflow => {
            let what = header.and_then(misfit).unwrap_or_else(|| error.to_string());
            format_error(path, what)
        }
        other => format_error(path, other.to_string()),
    }
}

/// The first tensor (by name) of a header whose shape and type do not take the bytes between its offsets.
fn misfit(header: &[u8]) -> Option<String> {
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    header.iter().filter(|(name, _)| *name != METADATA_KEY).find_map(|(name, entry)| {
        let dtype: Dtype = serde_json::from_value(entry["dtype"].clone()).ok()?;
        let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).ok()?;
        let (start, end): (u64, u64) = serde_json::from_value(entry["data_offsets"].clone()).ok()?;
        let bits = shape.iter().try_fold(dtype.bitsize() as u64, |n, &d| n.checked_mul(d));
        let takes = bits.map_or("more bytes than can be addressed".into(), |n| format!("{} bytes", n / 8));
        let given = end.wrapping_sub(start);
        (bits != given.checked_mul(8)).then(|| {
            format!("tensor `{name}` of type {dtype} and shape {shape:?} takes {takes}, its data_offsets give {given}")
        })
    })
}

fn dtype_of(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U8 => DType::U8,
        Dtype::U16 => DType::U16,
        Dtype::U32 => DType::U32,
        Dtype::U64 => DType::U64,
        _ => return None,
    })
}

fn name_of(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::F32 => "F32",
        DType::F64 => "F64",
        // The format has no types of less than a byte: each element keeps the byte that it has in memory.
        DType::I8 | DType::I4 => "I8",
        DType::I16 => "I16",
        DType::I32 => "I32",
        DType::I64 => "I64",
        DType::U8 | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => "U8",
        DType::U16 => "U16",
        DType::U32 => "U32",
        DType::U64 => "U64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_dtypes() -> Vec<(String, Tensor)> {
        use DType::{Bf16, Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        [Bool, F16, Bf16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64]
            .map(|d| (format!("t.{d}"), Tensor::from_f64s(d, &[3], &[0.0, 1.0, 1.0]).unwrap()))
            .to_vec()
    }

    fn borrowed(tensors: &[(String, Tensor)]) -> Vec<(String, &Tensor)> {
        tensors.iter().map(|(n, t)| (n.clone(), t)).collect()
    }

    #[test]
    fn every_dtype_comes_back_with_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let tensors = all_dtypes();
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        write_safetensors(&path, &borrowed(&tensors), Some(&metadata)).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &metadata);
        assert!(file.names().is_sorted());
        assert_eq!(file.names().count(), tensors.len());
        for (name, tensor) in &tensors {
            assert_eq!(file.info(name), Some((tensor.dtype(), tensor.shape())));
            assert_eq!(&file.tensor(name).unwrap(), tensor);
        }
        let error = file.tensor("other").unwrap_err().to_string();
        assert!(error.contains("no tensor `other` among the 13"), "{error}");
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_order_of_the_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let metadata: BTreeMap<_, _> = (0..20).map(|i| (format!("key{i}"), format!("{i}"))).collect();
        let mut tensors = all_dtypes();
        write_safetensors(&a, &borrowed(&tensors), Some(&metadata)).unwrap();
        tensors.reverse();
        write_safetensors(&b, &borrowed(&tensors), Some(&metadata)).unwrap();
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }

    #[test]
    fn names_that_would_collide_are_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let t = Tensor::scalar(1.0f32);
        let twice = [("x".to_string(), &t), ("x".to_string(), &t)];
        assert!(write_safetensors(&path, &twice, None).unwrap_err().to_string().contains("`x` occurs twice"));
        let reserved = [("__metadata__".to_string(), &t)];
        assert!(write_safetensors(&path, &reserved, None).unwrap_err().to_string().contains("reserved"));
        assert!(!path.exists());
    }
}
