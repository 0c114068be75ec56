//! Weight files, storage version 2.
//!
//! Little endian throughout. A header of 64 bytes (number of arrays, version), then for each array a record of 64 bytes and
//! its data. Records and data start on multiples of 64, gaps are zero, and nothing follows the last array's data. An array
//! is known by the offset of its record, which has the type, the number of bytes, where the data begin, and how many bits of
//! the last byte are unused where elements have less than a byte.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use arcane_tensor::{DType, FileError, MappedFile, Tensor};

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
        DType::I4 => Some(8),
        DType::U1 => Some(9),
        DType::U2 => Some(10),
        DType::U4 => Some(11),
        DType::U3 => Some(12),
        DType::U6 => Some(13),
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
        let data = &*tensor.packed();
        let unused = (8 * data.len() - tensor.len() * tensor.dtype().bits()) as u64;
        let mut hasher = DefaultHasher::new();
        (code, unused, data).hash(&mut hasher);
        let hash = hasher.finish();
        let same = |&&record: &&usize| {
            let unused_there = u64_at(&self.bytes, record + 24);
            self.code(record) == code && unused_there == unused && self.data(record) == data
        };
        if let Some(&record) = self.records.get(&hash).into_iter().flatten().find(same) {
            return Some(record as u64);
        }
        let record = self.append(code, data, unused);
        self.records.entry(hash).or_default().push(record);
        Some(record as u64)
    }

    /// The file; empty if no array was added.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn append(&mut self, code: u32, data: &[u8], unused: u64) -> usize {
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
        self.bytes.extend_from_slice(&unused.to_le_bytes());
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

/// An open weight file, read through a memory map: an array is copied out of it, once, when it is asked for.
#[derive(Debug)]
pub struct BlobFile {
    path: PathBuf,
    source: Source,
}

/// Where the bytes of a weight file are.
#[derive(Debug)]
enum Source {
    File(MappedFile),
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
        if length < ALIGNMENT as u64 {
            return Err(header(format!("it has {length} bytes, a header of {ALIGNMENT} was expected")));
        }
        let map = MappedFile::open(path, "a weight file").map_err(|e| match e {
            FileError::Io { doing, source, .. } => io(doing)(source),
            other => header(other.to_string()),
        })?;
        Self { path: path.into(), source: Source::File(map) }.with_header()
    }

    /// A file that is in memory; `path` is its name in errors.
    ///
    /// # Errors
    /// [`BlobError::Header`], as for [`BlobFile::open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, BlobError> {
        Self { path: path.into(), source: Source::Memory(bytes) }.with_header()
    }

    /// Itself, if its header is right. Only the version counts: writers differ in what they put beside it.
    fn with_header(self) -> Result<Self, BlobError> {
        let bytes = self.bytes();
        let what = match bytes.len() {
            ALIGNMENT.. if u32_at(bytes, 4) == VERSION => return Ok(self),
            ALIGNMENT.. => format!("its version is {}", u32_at(bytes, 4)),
            length => format!("it has {length} bytes, a header of {ALIGNMENT} was expected"),
        };
        Err(BlobError::Header { path: self.path, what })
    }

    fn bytes(&self) -> &[u8] {
        match &self.source {
            Source::File(map) => map.bytes(),
            Source::Memory(bytes) => bytes,
        }
    }

    /// The array whose record is at `offset`, of type `ty`.
    ///
    /// Readers on the Neural Engine take the type from the program, and files exist that say `fp16` for `int8`: that one
    /// difference is allowed. Records need not be aligned, a size of 0 stands for that of the type, and what follows the place
    /// of the data is ignored, but for the number of unused bits of types of less than a byte.
    ///
    /// # Errors
    /// [`BlobError::Record`] if there is no record at the offset, or it has another type or size, or its data is not inside
    /// the file; [`BlobError::Io`].
    pub fn tensor(&self, offset: u64, ty: &TensorType) -> Result<Tensor, BlobError> {
        let data = self.data(offset, ty)?;
        Tensor::from_packed(ty.dtype, &ty.shape, data).map_err(|e| BlobError::Record {
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

    /// The data of the record at `offset`.
    fn data(&self, offset: u64, ty: &TensorType) -> Result<&[u8], BlobError> {
        let fault = |what: String| BlobError::Record { path: self.path.clone(), offset, what };
        let bytes = self.bytes();
        let record = usize::try_from(offset).ok().filter(|&at| at >= ALIGNMENT);
        let record = record.and_then(|at| bytes.get(at..at.checked_add(ALIGNMENT)?));
        let Some(record) = record else {
            let what = format!("a record was expected between the header and the end, at {}", bytes.len());
            return Err(fault(what));
        };
        let sentinel = u32_at(record, 0);
        if sentinel != SENTINEL {
            return Err(fault(format!(
                "found {sentinel:#010x}, a record with {SENTINEL:#010x} was expected"
            )));
        }
        let (code, size, start) = (u32_at(record, 4), u64_at(record, 8), u64_at(record, 16));
        let wanted = blob_code(ty.dtype);
        if wanted != Some(code) && !(ty.dtype == DType::I8 && Some(code) == blob_code(DType::F16)) {
            let known = TYPES.into_iter().find(|&d| blob_code(d) == Some(code));
            let found = known.map_or(format!("type code {code}"), |d| d.to_string());
            return Err(fault(format!("the array is {found}, {ty} was expected")));
        }
        let bits = arcane_tensor::element_count(&ty.shape).and_then(|n| n.checked_mul(ty.dtype.bits()));
        let wanted = bits.map(|b| b.div_ceil(8));
        let Some(wanted) = wanted.filter(|&b| size == 0 || b as u64 == size) else {
            return Err(fault(format!("the array has {size} bytes, {ty} was expected")));
        };
        let (unused, expected) = (u64_at(record, 24), (8 * wanted - bits.unwrap_or(0)) as u64);
        if ty.dtype.is_sub_byte() && unused != 0 && unused != expected {
            let what = format!("the array has {unused} unused bits at its end, {expected} were expected");
            return Err(fault(what));
        }
        let end = offset + ALIGNMENT as u64;
        let data = usize::try_from(start).ok().filter(|_| start >= end);
        let data = data.and_then(|at| bytes.get(at..at.checked_add(wanted)?));
        let Some(data) = data else {
            let what = format!(
                "the array is at {start} and has {wanted} bytes, between {end} and {} was expected",
                bytes.len()
            );
            return Err(fault(what));
        };
        Ok(data)
    }
}

/// The types that have a code.
const TYPES: [DType; 15] = [
    DType::F16,
    DType::F32,
    DType::U8,
    DType::I8,
    DType::Bf16,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
    DType::I4,
    DType::U1,
    DType::U2,
    DType::U4,
    DType::U3,
    DType::U6,
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
