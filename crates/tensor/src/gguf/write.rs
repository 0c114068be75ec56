//! Writing GGUF.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{DEFAULT_ALIGNMENT, GgufValue, MAGIC, MAX_RANK, number_of};
use crate::{Encoding, FileError, write_atomically};

const VERSION: u32 = 3;

/// A tensor that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufEntry {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub encoding: Encoding,
    /// Its shape, outermost dimension first; at most four dimensions.
    pub shape: Vec<usize>,
}

/// Writes a file of version 3 with the default alignment of 32 bytes, keys and tensors in the order given, with one tensor in
/// memory at a time: `bytes` gives the data of the entry of this index, and is called once for each. The bytes depend on the
/// arguments alone. The file is replaced atomically.
///
/// # Errors
/// [`FileError::Name`] for a key or name that occurs twice, or a tensor that the format cannot hold; [`FileError::Io`], also
/// for what `bytes` says and if it gives another number of bytes than the entry takes.
pub fn write_gguf<'a>(
    path: &Path,
    metadata: &[(String, GgufValue)],
    entries: &[GgufEntry],
    mut bytes: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> Result<(), FileError> {
    let (header, lengths) = header(path, metadata, entries)?;
    write_atomically(path, |w| {
        w.write_all(&header)?;
        for (i, &length) in lengths.iter().enumerate() {
            let data = bytes(i)?;
            if data.len() != length {
                let what = format!("{} bytes for tensor `{}`, not {length}", data.len(), entries[i].name);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            w.write_all(&data)?;
            w.write_all(&[0; DEFAULT_ALIGNMENT][..length.next_multiple_of(DEFAULT_ALIGNMENT) - length])?;
        }
        Ok(())
    })
}

/// Everything before the data, and the length of each tensor's.
fn header(
    path: &Path,
    metadata: &[(String, GgufValue)],
    entries: &[GgufEntry],
) -> Result<(Vec<u8>, Vec<usize>), FileError> {
    let error = |name: &str, what| FileError::Name { path: path.into(), name: name.into(), what };
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    let mut seen = BTreeSet::new();
    for (key, value) in metadata {
        if !seen.insert(key) {
            return Err(error(key, "occurs twice as a key"));
        }
        string(&mut out, key);
        if !put(&mut out, value) {
            return Err(error(key, "is a key of an array type that is only read"));
        }
    }
    let (mut seen, mut lengths, mut offset) = (BTreeSet::new(), Vec::new(), 0usize);
    for GgufEntry { name, encoding, shape } in entries {
        if !seen.insert(name) {
            return Err(error(name, "occurs twice"));
        }
        let length = encoding.byte_len(shape).filter(|_| shape.len() <= MAX_RANK as usize);
        let padded = length.and_then(|n| n.checked_next_multiple_of(DEFAULT_ALIGNMENT));
        let (Some(length), Some(end)) = (length, padded.and_then(|n| offset.checked_add(n))) else {
            return Err(error(name, "has a shape that its encoding cannot hold"));
        };
        string(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        out.extend(shape.iter().rev().flat_map(|&d| (d as u64).to_le_bytes()));
        out.extend(number_of(*encoding).to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        lengths.push(length);
        offset = end;
    }
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
    Ok((out, lengths))
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Appends a value's type and the value; whether it can be written.
fn put(out: &mut Vec<u8>, value: &GgufValue) -> bool {
    let mut scalar = |number: u32, bytes: &[u8]| {
        out.extend(number.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        GgufValue::U32(x) => scalar(4, &x.to_le_bytes()),
        GgufValue::I32(x) => scalar(5, &x.to_le_bytes()),
        GgufValue::U64(x) => scalar(10, &x.to_le_bytes()),
        GgufValue::I64(x) => scalar(11, &x.to_le_bytes()),
        GgufValue::F32(x) => scalar(6, &x.to_le_bytes()),
        GgufValue::F64(x) => scalar(12, &x.to_le_bytes()),
        GgufValue::Bool(x) => scalar(7, &[u8::from(*x)]),
        GgufValue::String(text) => {
            scalar(8, &[]);
            string(out, text);
        }
        GgufValue::Strings(texts) => {
            array(out, 8, texts.len());
            for text in texts {
                string(out, text);
            }
        }
        GgufValue::F32s(values) => {
            array(out, 6, values.len());
            out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
        GgufValue::I32s(values) => {
            array(out, 5, values.len());
            out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
        GgufValue::Other { .. } => return false,
    }
    true
}

fn array(out: &mut Vec<u8>, element_type: u32, len: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(element_type.to_le_bytes());
    out.extend((len as u64).to_le_bytes());
}
