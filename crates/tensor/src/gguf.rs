//! GGUF, the model format of ggml and llama.cpp: metadata by key, a list of tensors, then their data.
//!
//! Little-endian files of versions 2 and 3, which differ in nothing that is read here. Source of the format: `docs/gguf.md`
//! of ggml.

mod cursor;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use self::cursor::{Cursor, Fault};
use crate::{Encoding, FileError, MappedFile, element_count};

pub use self::write::{GgufEntry, write_gguf};

const FORMAT: &str = "GGUF";
const MAGIC: &[u8; 4] = b"GGUF";
const VERSIONS: [u32; 2] = [2, 3];
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_ALIGNMENT: u32 = 1 << 20;
/// The most dimensions that ggml has.
const MAX_RANK: u32 = 4;
/// Arrays may hold arrays; real files do not.
const MAX_DEPTH: usize = 4;
/// The fewest bytes of a key with its value (lengths, type and one byte), and of a tensor's entry.
const KEY_BYTES: u64 = 8 + 4 + 1;
const ENTRY_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// A value of the metadata. Integers of 8 and 16 bits are widened.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the types' own names")]
pub enum GgufValue {
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    /// An array of another type, which is checked and skipped.
    Other {
        /// The number of the element type.
        element_type: u32,
        /// How many elements there are.
        len: u64,
    },
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// How its elements are stored.
    pub encoding: Encoding,
    /// Its shape, outermost dimension first (the file lists the innermost first).
    pub shape: Vec<usize>,
    /// Where its data are in the file, in bytes.
    pub range: Range<usize>,
}

/// An open file, read through a memory map: opening reads and checks all but the tensors' data.
#[derive(Debug)]
pub struct GgufFile {
    file: MappedFile,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl GgufFile {
    /// Whether these are the first bytes of such a file.
    pub fn recognizes(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Opens a file and checks its header: every length, count and offset lies in the file, keys and names are distinct, and
    /// tensors do not overlap.
    ///
    /// # Errors
    /// Each names the path and the byte, key or tensor at fault; [`FileError::Dtype`] for an encoding that [`Encoding`]
    /// lacks.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = MappedFile::open(path, FORMAT)?;
        let (metadata, tensors) = parse(file.bytes()).map_err(|fault| match fault {
            Fault::Format(what) => FileError::Format { path: path.into(), format: FORMAT, what },
            Fault::Dtype { name, dtype } => FileError::Dtype { path: path.into(), name, dtype },
        })?;
        Ok(Self { file, metadata, tensors })
    }

    /// The metadata by key.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// The file without its header's contents, for a reader that keeps the ranges.
    pub fn into_file(self) -> MappedFile {
        self.file
    }
}

type Parsed = (BTreeMap<String, GgufValue>, BTreeMap<String, GgufTensor>);

fn parse(bytes: &[u8]) -> Result<Parsed, Fault> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(MAGIC.len(), "the magic number")? != MAGIC {
        return Err(Fault::Format("the first four bytes are not \"GGUF\"".into()));
    }
    let version = cursor.u32("the version")?;
    if !VERSIONS.contains(&version) {
        let big_endian = if VERSIONS.contains(&version.swap_bytes()) { " (a big-endian file)" } else { "" };
        return Err(Fault::Format(format!("version {version}{big_endian}, 2 or 3 was expected")));
    }
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of keys")?;
    cursor.room(key_count, KEY_BYTES, "keys")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..key_count {
        let at = cursor.position();
        let key = cursor.string("a key")?;
        let value = value(&mut cursor, &key)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(Fault::Format(format!("byte {at}: key `{key}` occurs twice")));
        }
    }
    let alignment = alignment(&metadata)?;
    cursor.room(tensor_count, ENTRY_BYTES, "tensors")?;
    let mut entries = Vec::new();
    for _ in 0..tensor_count {
        entries.push(entry(&mut cursor)?);
    }
    let data_start = cursor.position().checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    Ok((metadata, place(entries, data_start, alignment, bytes.len())?))
}

fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<GgufValue, Fault> {
    let at = cursor.position();
    Ok(match cursor.u32("a value's type")? {
        0 => GgufValue::U32(u32::from(cursor.array::<1>(key)?[0])),
        1 => GgufValue::I32(i32::from(i8::from_le_bytes(cursor.array(key)?))),
        2 => GgufValue::U32(u32::from(u16::from_le_bytes(cursor.array(key)?))),
        3 => GgufValue::I32(i32::from(i16::from_le_bytes(cursor.array(key)?))),
        4 => GgufValue::U32(u32::from_le_bytes(cursor.array(key)?)),
        5 => GgufValue::I32(i32::from_le_bytes(cursor.array(key)?)),
        6 => GgufValue::F32(f32::from_le_bytes(cursor.array(key)?)),
        7 => match cursor.array::<1>(key)?[0] {
            byte @ (0 | 1) => GgufValue::Bool(byte == 1),
            byte => {
                return Err(Fault::Format(format!(
                    "byte {at}: key `{key}` is the bool {byte}, 0 or 1 was expected"
                )));
            }
        },
        8 => GgufValue::String(cursor.string(key)?),
        9 => array(cursor, key)?,
        10 => GgufValue::U64(u64::from_le_bytes(cursor.array(key)?)),
        11 => GgufValue::I64(i64::from_le_bytes(cursor.array(key)?)),
        12 => GgufValue::F64(f64::from_le_bytes(cursor.array(key)?)),
        other => return Err(unknown_type(at, key, other)),
    })
}

fn unknown_type(at: usize, key: &str, found: u32) -> Fault {
    Fault::Format(format!("byte {at}: key `{key}` has type {found}, 0 to 12 was expected"))
}

fn array(cursor: &mut Cursor<'_>, key: &str) -> Result<GgufValue, Fault> {
    let at = cursor.position();
    let element_type = cursor.u32("an array's type")?;
    let len = cursor.u64("an array's length")?;
    Ok(match element_type {
        5 => GgufValue::I32s(
            cursor.elements(len, 4, key)?.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        ),
        6 => GgufValue::F32s(
            cursor.elements(len, 4, key)?.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        ),
        8 => {
            cursor.room(len, 8, "strings")?;
            GgufValue::Strings((0..len).map(|_| cursor.string(key)).collect::<Result<_, _>>()?)
        }
        _ => {
            skip(cursor, key, at, element_type, len, MAX_DEPTH)?;
            GgufValue::Other { element_type, len }
        }
    })
}

/// Passes over the elements of an array.
fn skip(
    cursor: &mut Cursor<'_>,
    key: &str,
    at: usize,
    element: u32,
    len: u64,
    depth: usize,
) -> Result<(), Fault> {
    let size = match element {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => {
            cursor.room(len, 8, "strings")?;
            return (0..len).try_for_each(|_| cursor.string(key).map(drop));
        }
        9 if depth > 1 => {
            cursor.room(len, 12, "arrays")?;
            return (0..len).try_for_each(|_| {
                let at = cursor.position();
                let element = cursor.u32("an array's type")?;
                let len = cursor.u64("an array's length")?;
                skip(cursor, key, at, element, len, depth - 1)
            });
        }
        9 => {
            let what = format!("byte {at}: key `{key}` has arrays more than {MAX_DEPTH} deep");
            return Err(Fault::Format(what));
        }
        other => return Err(unknown_type(at, key, other)),
    };
    cursor.elements(len, size, key).map(drop)
}

fn alignment(metadata: &BTreeMap<String, GgufValue>) -> Result<usize, Fault> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(GgufValue::U32(n)) if n.is_power_of_two() && *n <= MAX_ALIGNMENT => Ok(*n as usize),
        Some(other) => {
            let what = format!(
                "key `{ALIGNMENT_KEY}` is {other:?}, a power of two up to {MAX_ALIGNMENT} was expected"
            );
            Err(Fault::Format(what))
        }
    }
}

/// A tensor whose offset still counts from the start of the data.
struct Unplaced {
    name: String,
    encoding: Encoding,
    shape: Vec<usize>,
    byte_len: usize,
    offset: u64,
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Unplaced, Fault> {
    let name = cursor.string("a tensor's name")?;
    let rank = cursor.u32(&name)?;
    if rank > MAX_RANK {
        return Err(Fault::Format(format!(
            "tensor `{name}` has {rank} dimensions, at most {MAX_RANK} were expected"
        )));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let dim = cursor.u64(&name)?;
        let dim = usize::try_from(dim).ok().filter(|&d| d > 0);
        shape.push(
            dim.ok_or_else(|| {
                Fault::Format(format!("tensor `{name}` has a dimension that is zero or huge"))
            })?,
        );
    }
    shape.reverse();
    let type_number = cursor.u32(&name)?;
    let offset = cursor.u64(&name)?;
    let Some(encoding) = encoding_of(type_number) else {
        return Err(Fault::Dtype { dtype: type_name(type_number), name });
    };
    let Some(byte_len) = encoding.byte_len(&shape) else {
        let why = match element_count(&shape) {
            None => "has more elements than can be addressed".to_string(),
            Some(_) => format!(
                "is {encoding}, a multiple of {} was expected for the innermost",
                encoding.block_len()
            ),
        };
        return Err(Fault::Format(format!("tensor `{name}` of shape {shape:?} {why}")));
    };
    Ok(Unplaced { name, encoding, shape, byte_len, offset })
}

/// Gives each tensor its place in the file.
fn place(
    mut entries: Vec<Unplaced>,
    data_start: usize,
    alignment: usize,
    file_len: usize,
) -> Result<BTreeMap<String, GgufTensor>, Fault> {
    entries.sort_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    let mut tensors: BTreeMap<String, GgufTensor> = BTreeMap::new();
    let mut previous: Option<(String, usize)> = None;
    for Unplaced { name, encoding, shape, byte_len, offset } in entries {
        if !offset.is_multiple_of(alignment as u64) {
            let what = format!(
                "tensor `{name}` starts {offset} bytes into the data, a multiple of {alignment} was expected"
            );
            return Err(Fault::Format(what));
        }
        let start = usize::try_from(offset).ok().and_then(|o| data_start.checked_add(o));
        let Some((start, end)) = start.and_then(|s| Some((s, s.checked_add(byte_len)?))) else {
            return Err(Fault::Format(format!("tensor `{name}` ends beyond what can be addressed")));
        };
        if end > file_len {
            let what = format!("tensor `{name}` ends at byte {end}, the file has {file_len}");
            return Err(Fault::Format(what));
        }
        if let Some((other, last)) = previous.as_ref().filter(|(_, last)| *last > start) {
            let what = format!("tensor `{name}` starts at byte {start}, but tensor `{other}` ends at {last}");
            return Err(Fault::Format(what));
        }
        previous = Some((name.clone(), end));
        let tensor = GgufTensor { encoding, shape, range: start..end };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(Fault::Format(format!("tensor `{name}` occurs twice")));
        }
    }
    Ok(tensors)
}

const ENCODINGS: [(u32, Encoding); 6] = [
    (0, Encoding::F32),
    (1, Encoding::F16),
    (2, Encoding::Q4_0),
    (3, Encoding::Q4_1),
    (8, Encoding::Q8_0),
    (30, Encoding::Bf16),
];

fn encoding_of(number: u32) -> Option<Encoding> {
    ENCODINGS.iter().find(|(n, _)| *n == number).map(|(_, encoding)| *encoding)
}

fn number_of(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q4_0 => 2,
        Encoding::Q4_1 => 3,
        Encoding::Q8_0 => 8,
        Encoding::Bf16 => 30,
    }
}

/// ggml's name of an element type, for messages.
fn type_name(number: u32) -> String {
    let name = match number {
        6 => "Q5_0",
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16..=23 | 29 => "IQ",
        24..=27 => "an integer",
        28 => "F64",
        _ => "",
    };
    if name.is_empty() { format!("{number}") } else { format!("{number} ({name})") }
}
