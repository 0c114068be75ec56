//! Errors of files that hold tensors, and writing a file as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What can be wrong with a file of tensors. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused something.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `open`, `write`, ...
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A new file or folder would take the place of something.
    #[error("{}: exists already; a new path{} was expected", path.display(), if *folder { " or an empty folder" } else { "" })]
    Exists {
        /// What is there.
        path: PathBuf,
        /// Whether an empty folder would be taken.
        folder: bool,
    },
    /// The file is shorter or longer than its header says.
    #[error("{}: the file should have {expected} bytes ({why}), it has {found}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// The length that the header calls for, in bytes.
        expected: u64,
        /// The length of the file, in bytes.
        found: u64,
        /// Where the expected length comes from.
        why: &'static str,
    },
    /// The contents break the format.
    #[error("{}: not a valid {format} file: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that was expected.
        format: &'static str,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A tensor has an element type that [`crate::DType`] lacks.
    #[error("{}: tensor `{name}` has element type {dtype}, which is not supported", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The element type in the file's own spelling.
        dtype: String,
    },
    /// The file has no tensor of this name.
    #[error("{}: no tensor `{name}` among the {count} in the file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// How many tensors there are.
        count: usize,
    },
    /// A name that cannot be written: it occurs twice, or the format reserves it.
    #[error("{}: tensor name `{name}` {what}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// Why not.
        what: &'static str,
    },
}

impl FileError {
    /// Wraps an I/O error: `.map_err(FileError::io(path, "open"))`.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), doing, source }
    }
}

/// Reads a file that should be small. Of one that has more than `limit` bytes no more is read.
///
/// # Errors
/// The system's; [`io::ErrorKind::InvalidData`] if the file is longer.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let what = format!("it has more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(bytes)
}

/// Writes a file so that a reader sees either the old contents or all of the new ones, also after a crash: a temporary
/// file beside the target is filled, synchronised to the disk and renamed over it. A symbolic link stays, its target is
/// replaced. What is not a regular file (a pipe, `/dev/stdout`) is written in place.
///
/// # Errors
/// [`FileError::Io`] if the folder cannot be written or `fill` fails; the target is then untouched.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
        let file = File::options().write(true).open(path).map_err(FileError::io(path, "open"))?;
        return write_through(&file, fill).map_err(FileError::io(path, "write"));
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".arcane-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The permissions of any new file, less the umask; a temporary file's own default is 0600.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(folder).map_err(FileError::io(path, "create"))?;
    write_through(temporary.as_file(), fill).map_err(FileError::io(path, "write"))?;
    temporary.as_file().sync_all().map_err(FileError::io(path, "synchronise"))?;
    temporary.persist(&target).map_err(|e| FileError::io(path, "replace")(e.error))?;
    sync_folder(folder).map_err(FileError::io(path, "synchronise the folder of"))
}

/// Makes a folder so that a reader sees either nothing or all of it, also after a crash: a temporary folder beside `path`
/// is filled, synchronised to the disk and renamed. `fill` writes files and folders into the path that it is given.
///
/// # Errors
/// [`FileError::Exists`] if there is anything but an empty folder at `path`; [`FileError::Io`]; what `fill` says. Nothing is
/// left at `path` then but what was there.
pub fn write_folder_atomically<E: From<FileError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    match fs::symlink_metadata(path) {
        Ok(info) => {
            let is_empty = || fs::read_dir(path).map(|mut entries| entries.next().is_none());
            if !info.is_dir() || !is_empty().map_err(FileError::io(path, "list"))? {
                return Err(FileError::Exists { path: path.into(), folder: true }.into());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(FileError::io(path, "look at")(e).into()),
    }
    let target = std::path::absolute(path).map_err(FileError::io(path, "create"))?;
    let parent = target.parent().unwrap_or(&target);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".arcane-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The permissions of any new folder, less the umask.
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    let temporary = builder.tempdir_in(parent).map_err(FileError::io(path, "create"))?;
    fill(temporary.path())?;
    let finish = || {
        sync_all(temporary.path())?;
        fs::rename(temporary.path(), &target)
    };
    finish().map_err(FileError::io(path, "write"))?;
    // It has moved: there is nothing left to clean up.
    let _ = temporary.keep();
    Ok(sync_folder(parent).map_err(FileError::io(path, "synchronise the folder of"))?)
}

/// Makes a folder and all in it durable.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

fn write_through(file: &File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    fill(&mut writer)?;
    writer.flush()
}

/// Makes a rename in the folder durable; only Unix has the notion.
#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "it can fail on Unix"))]
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_contents_and_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half of the new")?;
            Err(io::Error::other("stopped"))
        });
        assert!(failed.unwrap_err().to_string().contains("stopped"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_keeps_pointing_to_the_replaced_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_folder_is_there_as_a_whole_or_not_at_all() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("new");
        let write = |name: &'static str| {
            move |folder: &Path| write_atomically(&folder.join(name), |w| w.write_all(b"x"))
        };
        let failed = write_folder_atomically(&path, |folder| {
            write("a")(folder)?;
            Err(FileError::Exists { path: folder.into(), folder: false })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);

        fs::create_dir(&path).unwrap();
        write_folder_atomically(&path, write("a")).unwrap();
        let error = write_folder_atomically(&path, write("b")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{}: exists already; a new path or an empty folder was expected", path.display())
        );
        assert_eq!(fs::read(path.join("a")).unwrap(), b"x");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        assert!(write_folder_atomically(&path.join("a"), write("b")).is_err());
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        let error = read_limited(&path, 4).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::InvalidData, "it has more than 4 bytes")
        );
        assert_eq!(read_limited(&folder.path().join("b"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_error_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("a.txt");
        let error = write_atomically(&path, |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}
