//! Files as bytes in memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::FileError;

/// An open file whose bytes are read through a memory map: only the pages that are looked at are loaded.
///
/// The file must not be changed in place while it is open; this crate's own writers replace a file and so are safe.
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Opens a file; `format` names what it should hold, for messages.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Format`] for a folder and for what has no bytes to map, such as a pipe.
    pub fn open(path: &Path, format: &'static str) -> Result<Self, FileError> {
        // Before it is opened: opening a pipe waits for its writer.
        let info = fs::metadata(path).map_err(FileError::io(path, "open"))?;
        if !info.is_file() {
            let what = if info.is_dir() { "a folder" } else { "not a regular file" };
            let what = format!("it is {what}, a file was expected");
            return Err(FileError::Format { path: path.into(), format, what });
        }
        let file = File::open(path).map_err(FileError::io(path, "open"))?;
        let map = map_file(&file).map_err(FileError::io(path, "map"))?;
        Ok(Self { path: path.into(), map })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedFile({}, {} bytes)", self.path.display(), self.map.len())
    }
}

#[expect(unsafe_code, reason = "model files are larger than what should be read at once")]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to `MappedFile`, whose documentation asks that the file is not changed in
    // place while it is open; this crate replaces files by renaming and never writes into one.
    unsafe { Mmap::map(file) }
}
