//! `NumPy`'s `.npz` format: a zip archive of `.npy` files, stored (`numpy.savez`) or deflated (`numpy.savez_compressed`).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use zip::read::ZipFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::npy::npy_prefix;
use crate::{FileError, NpyError, Tensor, element_count, npy_header, read_npy, write_atomically};

const FORMAT: &str = "npz";
const SUFFIX: &str = ".npy";
/// The arrays of one file may take as many bytes as the file and this many more, which deflated ones need.
const MAX_INFLATED: u64 = 1 << 30;
/// A header of numpy's takes 128 bytes.
const FIRST_READ: usize = 128;
/// No header is longer.
const MAX_HEADER: usize = 1 << 20;

/// What can be wrong with a `.npz` file. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The archive cannot be read or written, or its contents are no arrays.
    #[error(transparent)]
    File(#[from] FileError),
    /// An array is no valid `.npy` file, or cannot become one.
    #[error("{}: array `{name}`: {source}", path.display())]
    Array {
        /// The archive.
        path: PathBuf,
        /// The array.
        name: String,
        /// Why.
        source: NpyError,
    },
}

/// Reads every array of an archive, in the archive's order. What the archive says of its sizes is checked against the file
/// and against the arrays' headers before memory is taken.
///
/// # Errors
/// [`NpzError`] for a damaged archive, another compression than deflate, members that are no arrays, names that occur twice,
/// and arrays of more than 1 GiB over the size of the file.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, NpzError> {
    let fault = |what: String| FileError::Format { path: path.into(), format: FORMAT, what };
    // Asked before the file is opened: opening a pipe waits for its other end.
    let info = std::fs::metadata(path).map_err(FileError::io(path, "open"))?;
    if !info.is_file() {
        return Err(fault("it is no regular file".into()).into());
    }
    let file = File::open(path).map_err(FileError::io(path, "open"))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|e| fault(e.to_string()))?;
    let mut left = info.len().saturating_add(MAX_INFLATED);
    let mut names = HashSet::new();
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| fault(format!("member {i}: {e}")))?;
        let name = member.name().map_err(|e| fault(format!("member {i}: {e}")))?.into_owned();
        let Some(name) = name.strip_suffix(SUFFIX).map(str::to_string) else {
            return Err(fault(format!("member `{name}` does not end in .npy")).into());
        };
        if !names.insert(name.clone()) {
            return Err(FileError::Name { path: path.into(), name, what: "occurs twice" }.into());
        }
        let size = sizes_hold(&member, info.len()).and_then(|size| {
            left =
                left.checked_sub(size).ok_or("the arrays take more than 1 GiB over the size of the file")?;
            Ok(size)
        });
        let size = size.map_err(|what| fault(format!("array `{name}`: {what}")))?;
        let tensor = match array(&mut member, size) {
            Ok(tensor) => tensor,
            Err(ArrayFault::Npy(source)) => return Err(NpzError::Array { path: path.into(), name, source }),
            Err(ArrayFault::Io(e)) => return Err(fault(format!("array `{name}`: {e}")).into()),
        };
        arrays.push((name, tensor));
    }
    Ok(arrays)
}

/// Writes arrays as `numpy.savez` does, stored and in order. The bytes depend on the arrays alone. The file is replaced
/// atomically.
///
/// # Errors
/// [`FileError::Name`] for a name that occurs twice; [`NpzError::Array`] for `bf16`, which `.npy` lacks; [`FileError::Io`].
pub fn write_npz(path: &Path, arrays: &[(String, &Tensor)]) -> Result<(), NpzError> {
    let mut names = HashSet::new();
    let mut prefixes = Vec::new();
    for (name, tensor) in arrays {
        if !names.insert(name) {
            let name = name.clone();
            return Err(FileError::Name { path: path.into(), name, what: "occurs twice" }.into());
        }
        let array = |source| NpzError::Array { path: path.into(), name: name.clone(), source };
        prefixes.push(npy_prefix(tensor).map_err(array)?);
    }
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    write_atomically(path, |inner| {
        let mut latch = Latch { inner, failed: None };
        let mut archive = ZipWriter::new_stream(&mut latch);
        for ((name, tensor), prefix) in arrays.iter().zip(&prefixes) {
            archive.start_file(format!("{name}{SUFFIX}"), options)?;
            archive.write_all(prefix)?;
            archive.write_all(tensor.bytes())?;
        }
        archive.finish()?;
        latch.failed.map_or(Ok(()), Err)
    })?;
    Ok(())
}

/// Keeps the first error and takes everything after it: an archive's writer complains on stderr when it is dropped over one
/// that fails.
struct Latch<'a> {
    inner: &'a mut dyn Write,
    failed: Option<io::Error>,
}

impl Write for Latch<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none()
            && let Err(e) = self.inner.write_all(bytes)
        {
            self.failed = Some(e);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The size that a member declares, if it is one that its compressed size allows.
fn sizes_hold<R: Read>(member: &ZipFile<'_, R>, file: u64) -> Result<u64, &'static str> {
    /// What deflate saves at most: 258 bytes in two bits.
    const MAX_RATIO: u64 = 1032;
    let (size, compressed) = (member.size(), member.compressed_size());
    if compressed > file {
        return Err("it is longer than the file");
    }
    let most = match member.compression() {
        CompressionMethod::Stored => compressed,
        CompressionMethod::Deflated => compressed.saturating_mul(MAX_RATIO),
        _ => return Err("its compression is neither none nor deflate"),
    };
    if size > most { Err("it declares more bytes than it can have") } else { Ok(size) }
}

enum ArrayFault {
    Npy(NpyError),
    Io(io::Error),
}

impl From<NpyError> for ArrayFault {
    fn from(e: NpyError) -> Self {
        Self::Npy(e)
    }
}

impl From<io::Error> for ArrayFault {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Reads a member of `size` bytes: the header first, which has to call for as many.
fn array(member: &mut impl Read, size: u64) -> Result<Tensor, ArrayFault> {
    let mut bytes = Vec::new();
    let mut wanted = FIRST_READ;
    let header = loop {
        member.by_ref().take((wanted - bytes.len()) as u64).read_to_end(&mut bytes)?;
        match npy_header(&bytes) {
            Err(NpyError::Truncated { expected, .. })
                if bytes.len() == wanted && wanted < expected && expected <= MAX_HEADER =>
            {
                wanted = expected;
            }
            header => break header?,
        }
    };
    let data = element_count(&header.shape).and_then(|n| n.checked_mul(header.dtype.size()));
    let expected = data.and_then(|data| data.checked_add(header.data_offset));
    let Some(expected) = expected.filter(|&e| e as u64 == size) else {
        return Err(NpyError::Length {
            dtype: header.dtype,
            shape: header.shape,
            expected: data.unwrap_or(usize::MAX),
            found: usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(header.data_offset),
        }
        .into());
    };
    bytes.reserve_exact(expected.saturating_sub(bytes.len()));
    // One byte more than there should be: the end of the member is where its checksum is compared.
    let rest = (expected + 1).saturating_sub(bytes.len()) as u64;
    member.by_ref().take(rest).read_to_end(&mut bytes)?;
    Ok(read_npy(&bytes)?)
}

#[cfg(test)]
mod tests;
