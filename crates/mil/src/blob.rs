//! Weight files, storage version 2.
//!
//! Little endian throughout. A header of 64 bytes (number of arrays, version), then for each array a record of 64 bytes and
//! its data. Records and data start on multiples of 64, gaps are zero, and nothing follows the last array's data. An array
//! is known by the offset of its record.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arcane_tensor::{DType, Tensor};

use crate::TensorType;

const ALIGNMENT: usize = 64;
const VERSION: u32 = 2;
const SENTINEL: u32 = 0xDEAD_BEEF;

/// The code of a dtype in a record; `None` for those that a weight file cannot hold.
pub const fn blob_code(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F16 => Some(1),
        DType::F32 => Some(2),
        DType::U8 => Some(3),
        DType::I8 => Some(4),
        DType::Bf16 => Some(5),
        DType::I16 => Some(6),
        DType::U16 => Some(7),
        DType::I32 => Some(14),
        DType::U32 => Some(15),
        DType::Bool | DType::F64 | DType::I64 | DType::U64 => None,
    }
}

/// Builds a weight file. Arrays of the same dtype and bytes share one record.
#[derive(Clone, Debug, Default)]
pub struct BlobWriter {
    bytes: Vec<u8>,
    count: u32,
    /// Offsets of the records by the hash of their code and data.
    records: HashMap<u64, Vec<usize>>,
}

impl BlobWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an array, if it is not there yet, and gives the offset of its record; `None` where [`blob_code`] has none.
    pub fn add(&mut self, tensor: &Tensor) -> Option<u64> {
        let code = blob_code(tensor.dtype())?;
        let data = tensor.bytes();
        let mut hasher = DefaultHasher::new();
        (code, data).hash(&mut hasher);
        let hash = hasher.finish();
        let same = |&&record: &&usize| self.code(record) == code && self.data(record) == data;
        if let Some(&record) = self.records.get(&hash).into_iter().flatten().find(same) {
            return Some(record as u64);
        }
        let record = self.append(code, data);
        self.records.entry(hash).or_default().push(record);
        Some(record as u64)
    }

    /// The file; empty if no array was added.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn append(&mut self, code: u32, data: &[u8]) -> usize {
        if self.bytes.is_empty() {
            self.bytes.resize(ALIGNMENT, 0);
            self.bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        }
        self.count += 1;
        self.bytes[..4].copy_from_slice(&self.count.to_le_bytes());
        let record = self.bytes.len().next_multiple_of(ALIGNMENT);
        let start = record + ALIGNMENT;
        self.bytes.resize(record, 0);
        self.bytes.extend_from_slice(&SENTINEL.to_le_bytes());
        self.bytes.extend_from_slice(&code.to_le_bytes());
        self.bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(&(start as u64).to_le_bytes());
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(data);
        record
    }

    fn code(&self, record: usize) -> u32 {
        u32_at(&self.bytes, record + 4)
    }

    fn data(&self, record: usize) -> &[u8] {
        &self.bytes[record + ALIGNMENT..][..u64_at(&self.bytes, record + 8) as usize]
    }
}

/// Why an array of a weight file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The operating system refused something.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `open`, `read`, ...
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no weight file of version 2.
    #[error("{}: not a weight file of version 2: {what}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// There is no array of the wanted type at an offset.
    #[error("{}: at offset {offset}: {what}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The offset asked for, in bytes.
        offset: u64,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A path that is not below the folder of the program.
    #[error("the weight path `{path}` is not below `@model_path/`")]
    Outside {
        /// The path as it stands in the text.
        path: String,
    },
    /// There are no weight files.
    #[error("the array at offset {offset} of `{path}` is needed and no weight files are given")]
    Unavailable {
        /// The path as it stands in the text.
        path: String,
        /// The offset of the record, in bytes.
        offset: u64,
    },
}

/// An open weight file. Opening reads the header only, an array is read when it is asked for.
#[derive(Debug)]
pub struct BlobFile {
    path: PathBuf,
    length: u64,
    source: Source,
}

/// Where the bytes of a weight file are.
#[derive(Debug)]
enum Source {
    File(Mutex<File>),
    Memory(Vec<u8>),
}

impl BlobFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`BlobError::Io`]; [`BlobError::Header`] if the version is not 2 or the file is too short for a header.
    pub fn open(path: &Path) -> Result<Self, BlobError> {
        let io = |doing| move |source| BlobError::Io { path: path.into(), doing, source };
        let header = |what: String| BlobError::Header { path: path.into(), what };
        // Asked before the file is opened: opening a pipe waits for its other end.
        let info = std::fs::metadata(path).map_err(io("open"))?;
        if !info.is_file() {
            return Err(header("it is no regular file".into()));
        }
        let length = info.len();
        let file = File::open(path).map_err(io("open"))?;
        if length < ALIGNMENT as u64 {
            return Err(header(format!("it has {length} bytes, a header of {ALIGNMENT} was expected")));
        }
        Self { path: path.into(), length, source: Source::File(Mutex::new(file)) }.with_header()
    }

    /// A file that is in memory; `path` is its name in errors.
    ///
    /// # Errors
    /// [`BlobError::Header`], as for [`BlobFile::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, BlobError> {
        if bytes.len() < ALIGNMENT {
            let what = format!("it has {} bytes, a header of {ALIGNMENT} was expected", bytes.len());
            return Err(BlobError::Header { path: path.into(), what });
        }
        Self { path: path.into(), length: bytes.len() as u64, source: Source::Memory(bytes) }.with_header()
    }

    /// Itself, if its header is right.
    fn with_header(self) -> Result<Self, BlobError> {
        let mut start = [0; 8];
        self.read(0, &mut start)?;
        match u32_at(&start, 4) {
            VERSION => Ok(self),
            version => Err(BlobError::Header { path: self.path, what: format!("its version is {version}") }),
        }
    }

    /// The array whose record is at `offset`, of type `ty`.
    ///
    /// Readers on the Neural Engine take the type from the program, and files exist that say `fp16` for `int8`: that one
    /// difference is allowed. Records need not be aligned, and a size of 0 means that of the type.
    ///
    /// # Errors
    /// [`BlobError::Record`] if there is no record at the offset, or it has another type or size, or its data is not inside
    /// the file; [`BlobError::Io`].
    pub fn tensor(&self, offset: u64, ty: &TensorType) -> Result<Tensor, BlobError> {
        let (start, bytes) = self.data(offset, ty)?;
        let mut data = vec![0; bytes];
        self.read(start, &mut data)?;
        Tensor::from_bytes(ty.dtype, &ty.shape, &data).map_err(|e| BlobError::Record {
            path: self.path.clone(),
            offset,
            what: e.to_string(),
        })
    }

    /// Checks that there is an array of type `ty` at `offset`, without reading it.
    ///
    /// # Errors
    /// As those of [`BlobFile::tensor`].
    pub fn verify(&self, offset: u64, ty: &TensorType) -> Result<(), BlobError> {
        self.data(offset, ty).map(drop)
    }

    /// Where the data of the record at `offset` is, and its length.
    fn data(&self, offset: u64, ty: &TensorType) -> Result<(u64, usize), BlobError> {
        let fault = |what: String| BlobError::Record { path: self.path.clone(), offset, what };
        let end = offset.checked_add(ALIGNMENT as u64).filter(|&end| end <= self.length);
        let Some(end) = end.filter(|_| offset >= ALIGNMENT as u64) else {
            let what = format!("a record was expected between the header and the end, at {}", self.length);
            return Err(fault(what));
        };
        let mut record = [0; 24];
        self.read(offset, &mut record)?;
        let sentinel = u32_at(&record, 0);
        if sentinel != SENTINEL {
            return Err(fault(format!(
                "found {sentinel:#010x}, a record with {SENTINEL:#010x} was expected"
            )));
        }
        let (code, size, start) = (u32_at(&record, 4), u64_at(&record, 8), u64_at(&record, 16));
        let wanted = blob_code(ty.dtype);
        if wanted != Some(code) && !(ty.dtype == DType::I8 && Some(code) == blob_code(DType::F16)) {
            let known = TYPES.into_iter().find(|&d| blob_code(d) == Some(code));
            let found = known.map_or(format!("type code {code}"), |d| d.to_string());
            return Err(fault(format!("the array is {found}, {ty} was expected")));
        }
        let bytes = arcane_tensor::element_count(&ty.shape).and_then(|n| n.checked_mul(ty.dtype.size()));
        // Some writers leave the size out.
        let Some(bytes) = bytes.filter(|&b| b as u64 == size || size == 0) else {
            return Err(fault(format!("the array has {size} bytes, {ty} was expected")));
        };
        let size = bytes as u64;
        if start < end || start.checked_add(size).is_none_or(|last| last > self.length) {
            let what = format!(
                "the array is at {start} and has {size} bytes, between {end} and {} was expected",
                self.length
            );
            return Err(fault(what));
        }
        Ok((start, bytes))
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), BlobError> {
        let file = match &self.source {
            Source::File(file) => file,
            Source::Memory(bytes) => {
                into.copy_from_slice(&bytes[at as usize..at as usize + into.len()]);
                return Ok(());
            }
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let done = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(into));
        done.map_err(|source| BlobError::Io { path: self.path.clone(), doing: "read", source })
    }
}

/// The types that have a code.
const TYPES: [DType; 9] = [
    DType::F16,
    DType::F32,
    DType::U8,
    DType::I8,
    DType::Bf16,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
];

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_documented_layout() {
        let mut file = BlobWriter::new();
        let three = Tensor::from_f64s(DType::F16, &[3], &[1.0, -2.0, 0.5]).unwrap();
        let ints = Tensor::new(&[20], (0..20).collect::<Vec<i32>>()).unwrap();
        assert_eq!(file.add(&three), Some(64));
        assert_eq!(file.add(&ints), Some(192));
        let bytes = file.finish();
        assert_eq!(bytes.len(), 256 + 80, "nothing follows the last array");

        let mut expected = vec![0; bytes.len()];
        expected[0] = 2;
        expected[4] = 2;
        expected[64..68].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE]);
        expected[68] = 1;
        expected[72] = 6;
        expected[80] = 128;
        expected[128..134].copy_from_slice(&[0x00, 0x3C, 0x00, 0xC0, 0x00, 0x38]);
        expected[192..196].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE]);
        expected[196] = 14;
        expected[200] = 80;
        expected[209] = 1;
        for i in 0..20u8 {
            expected[256 + 4 * usize::from(i)] = i;
        }
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_record_and_its_data_are_aligned() {
        let mut file = BlobWriter::new();
        let offsets: Vec<u64> =
            (1..200).map(|n| file.add(&Tensor::new(&[n], vec![n as u8; n]).unwrap()).unwrap()).collect();
        let bytes = file.finish();
        assert_eq!((u32_at(&bytes, 0), u32_at(&bytes, 4)), (199, 2));
        let mut end = 64;
        for (n, &record) in (1..200u64).zip(&offsets) {
            let at = record as usize;
            assert_eq!(record, end, "records follow each other without a hole");
            assert_eq!(u32_at(&bytes, at), SENTINEL);
            assert_eq!((u64_at(&bytes, at + 8), u64_at(&bytes, at + 16)), (n, record + 64));
            assert!(bytes[at + 24..at + 64].iter().all(|&b| b == 0));
            end = (record + 64 + n).next_multiple_of(64);
        }
    }

    #[test]
    fn equal_arrays_of_one_type_share_a_record() {
        let mut file = BlobWriter::new();
        let ones = |dtype, shape: &[usize]| Tensor::from_f64s(dtype, shape, &[1.0; 4]).unwrap();
        let first = file.add(&ones(DType::I8, &[4]));
        assert_eq!(file.add(&ones(DType::I8, &[2, 2])), first);
        assert_ne!(file.add(&ones(DType::U8, &[4])), first, "the same bytes in another type");
        assert_eq!(u32_at(&file.finish(), 0), 2);
    }

    #[test]
    fn types_without_a_code_are_refused() {
        let mut file = BlobWriter::new();
        for dtype in [DType::Bool, DType::F64, DType::I64, DType::U64] {
            assert_eq!(file.add(&Tensor::zeros(dtype, &[16])), None);
        }
        assert!(file.finish().is_empty());
    }
}
