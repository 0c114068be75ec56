//! Folders in which a framework finds programs.
//!
//! A [`Workspace`] is a folder of this process alone (0700), with a file that the process holds locked. What a process that
//! has ended left behind is not locked any more, and the next one removes it. Below it each program has a folder, which goes
//! when its last [`Folder`] does.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;

/// What the folders of processes are called, before a number.
const PREFIX: &str = "arcane-engine-";
/// The file that its process holds locked.
const LOCK: &str = "lock";
/// How many processes may have a workspace beside one another.
const WORKSPACES: usize = 10_000;
/// The text of a program, and the file of its weights.
const TEXT: &str = "model.mil";
const WEIGHTS: &str = "weights/weight.bin";

/// How many hold each folder of this process.
static HELD: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

/// A folder of this process alone.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

/// A folder with a program, for as long as anyone holds it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |e| Fault::File { path: path.into(), doing, why: e.to_string() }
}

impl Workspace {
    /// Makes one below `parent`, after removing those of processes that have ended.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub(crate) fn create(parent: &Path) -> Result<Self, Fault> {
        sweep(parent).map_err(failed(parent, "list the folder"))?;
        for n in 0..WORKSPACES {
            let path = parent.join(format!("{PREFIX}{n}"));
            match private_folder(&path) {
                Ok(()) => match lock(&path) {
                    Ok(lock) => return Ok(Self { path, _lock: lock }),
                    // Somebody took it for left behind in the moment before it was locked.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(failed(&path, "lock the folder")(e)),
                },
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, "make the folder")(e)),
            }
        }
        let why = format!("{WORKSPACES} exist already");
        Err(Fault::File { path: parent.join(PREFIX), doing: "make the folder", why })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed now the next process sweeps.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of processes that have ended. Those of others are left to them.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !entry.file_type()?.is_dir() {
            continue;
        }
        // One without the file is just being made, or in part removed by somebody else.
        let Ok(file) = OpenOptions::new().write(true).open(entry.path().join(LOCK)) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn lock(folder: &Path) -> io::Result<File> {
    let file = new_file(&folder.join(LOCK))?;
    file.try_lock()?;
    Ok(file)
}

/// A file for this user alone that is not there yet; a symbolic link is not followed.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

impl Folder {
    /// Writes a program to a folder, or holds the one that this process has there already.
    ///
    /// # Errors
    /// [`Fault::File`] if it cannot be written, or is there and not of this process.
    pub(crate) fn hold(path: &Path, text: &str, weights: &[u8]) -> Result<Self, Fault> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(path) {
            *count += 1;
        } else {
            write(path, text, weights).inspect_err(|_| {
                // What is somebody else's stays.
                if own(path).is_ok() {
                    let _ = fs::remove_dir_all(path);
                }
            })?;
            held.insert(path.into(), 1);
        }
        // Made last: it takes the lock when it is dropped.
        Ok(Self { path: path.into() })
    }

    /// Writes the program again to where it was, if the framework has removed it; `from` is another folder with the program.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub(crate) fn restore(&self, from: &Self) -> Result<(), Fault> {
        if self.path.join(TEXT).exists() {
            return Ok(());
        }
        let read =
            |file: &str| fs::read(from.path.join(file)).map_err(failed(&from.path, "read the program"));
        let text = read(TEXT)?;
        let weights = if from.path.join(WEIGHTS).exists() { read(WEIGHTS)? } else { Vec::new() };
        write(&self.path, &String::from_utf8_lossy(&text), &weights)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = held.get_mut(&self.path) else { return };
        *count -= 1;
        if *count == 0 {
            held.remove(&self.path);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn write(path: &Path, text: &str, weights: &[u8]) -> Result<(), Fault> {
    match private_folder(path) {
        // The names of some folders are the framework's, so that it may be from an earlier process; nobody else's is taken.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            own(path)?;
            fs::remove_dir_all(path).map_err(failed(path, "replace the folder"))?;
            private_folder(path).map_err(failed(path, "make the folder"))?;
        }
        made => made.map_err(failed(path, "make the folder"))?,
    }
    let file = |name: &str, bytes: &[u8]| -> Result<(), Fault> {
        let path = path.join(name);
        let written = new_file(&path).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
        written.map_err(failed(&path, "write"))
    };
    file(TEXT, text.as_bytes())?;
    if !weights.is_empty() {
        let folder = path.join("weights");
        private_folder(&folder).map_err(failed(&folder, "make the folder"))?;
        file(WEIGHTS, weights)?;
    }
    Ok(())
}

/// Whether what is there is a folder, no link, and the owner that of its parent's new entries: this user.
fn own(path: &Path) -> Result<(), Fault> {
    let found = fs::symlink_metadata(path).map_err(failed(path, "look at the folder"))?;
    let probe = path.with_extension("owner");
    let mine = new_file(&probe).and_then(|f| f.metadata()).map_err(failed(&probe, "make"));
    let _ = fs::remove_file(&probe);
    if found.is_dir() && found.uid() == mine?.uid() {
        return Ok(());
    }
    let why = "it exists and is not a folder of this user".into();
    Err(Fault::File { path: path.into(), doing: "use the folder", why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_workspace_is_private_and_goes_with_its_process() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("arcane-engine-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let first = Workspace::create(parent.path()).unwrap();
        assert_eq!(first.path(), left, "what an ended process left behind was removed");
        let second = Workspace::create(parent.path()).unwrap();
        assert_ne!(first.path(), second.path());
        assert_eq!(mode(first.path()), 0o700);
        drop((first, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_are_counted() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("program");
        let first = Folder::hold(&path, "text", b"weights").unwrap();
        let second = Folder::hold(&path, "text", b"weights").unwrap();
        assert_eq!((mode(&path), mode(&path.join(WEIGHTS))), (0o700, 0o600));
        drop(first);
        assert_eq!(fs::read(path.join(TEXT)).unwrap(), b"text");
        let other = Folder::hold(&parent.path().join("other"), "text", b"weights").unwrap();
        fs::remove_dir_all(other.path()).unwrap();
        other.restore(&second).unwrap();
        assert_eq!(fs::read(other.path().join(WEIGHTS)).unwrap(), b"weights");
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (target, path) = (parent.path().join("target"), parent.path().join("program"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let error = Folder::hold(&path, "text", b"").unwrap_err();
        assert!(error.to_string().contains("not a folder of this user"), "{error}");
        assert!(target.exists() && fs::read_dir(&target).unwrap().next().is_none());
    }
}
