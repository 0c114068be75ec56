//! The folder of a run: `config.toml`, `setup.json`, `metrics.jsonl`, `samples.jsonl`, `report.html`, `checkpoints/step-000100/`.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

/// Folders with this prefix in `checkpoints/` are being written or removed; the next run removes what is left of them.
const TEMPORARY: &str = ".temporary-";
const CHECKPOINTS: &str = "checkpoints";
/// A checkpoint without this file is not one.
const STATE_FILE: &str = "state.json";

/// What can go wrong with the folder of a run. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// A new run would mix with an old one.
    #[error("{}: the folder exists already; expected --resume, or another folder", .0.display())]
    Exists(PathBuf),
    /// There is no run to resume.
    #[error("{}: no run to resume, expected a folder that holds `checkpoints`", .0.display())]
    NoRun(PathBuf),
    /// The operating system refused something.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// What a checkpoint should hold could not be written; no checkpoint is left.
    #[error("{}: cannot write the checkpoint: {source}", path.display())]
    Fill {
        /// The checkpoint.
        path: PathBuf,
        /// What its writer said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The writer of a checkpoint left out the file that makes it one.
    #[error("{}: a checkpoint without {STATE_FILE}", .0.display())]
    NoState(PathBuf),
}

/// A complete checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Updates done.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The folder of a run that is being written.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Creates the folder of a new run, for its owner alone (0700). Missing folders above it are created, too.
    ///
    /// # Errors
    /// [`RunFolderError::Exists`] if there is anything at `path`; [`RunFolderError::Io`].
    pub fn create(path: &Path) -> Result<Self, RunFolderError> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(io_error(parent, "create the folder"))?;
        }
        if path.symlink_metadata().is_ok() {
            return Err(RunFolderError::Exists(path.into()));
        }
        // Whole or not at all: a run that ends right now can be resumed, or made again.
        let above = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let made = builder.prefix(TEMPORARY).tempdir_in(above);
        let made = made.map_err(io_error(path, "create the folder"))?;
        let checkpoints = made.path().join(CHECKPOINTS);
        private_folder(&checkpoints).map_err(io_error(&checkpoints, "create the folder"))?;
        fs::rename(made.path(), path).map_err(io_error(path, "create the folder"))?;
        // It has another name now.
        let _ = made.keep();
        Ok(Self { path: path.into() })
    }

    /// Opens the folder of a run that is to go on, and removes what an interrupted run left half-written in `checkpoints/`.
    ///
    /// # Errors
    /// [`RunFolderError::NoRun`] if there is none; [`RunFolderError::Io`].
    pub fn resume(path: &Path) -> Result<Self, RunFolderError> {
        let run = Self::at(path);
        let checkpoints = run.checkpoints_path();
        if !checkpoints.is_dir() {
            return Err(RunFolderError::NoRun(path.into()));
        }
        for entry in entries(&checkpoints)? {
            if entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with(TEMPORARY)) {
                fs::remove_dir_all(&entry).map_err(io_error(&entry, "remove what was left half-written"))?;
            }
        }
        Ok(run)
    }

    /// The folder of a run, which is there; nothing is looked at or changed.
    pub fn at(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the resolved configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Where the metrics are.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where it stands what the run was set up with.
    pub fn setup_path(&self) -> PathBuf {
        self.path.join("setup.json")
    }

    /// Where the samples are.
    pub fn samples_path(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// Where the report is.
    pub fn report_path(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// The checkpoint after `step` updates, whether or not there is one.
    pub fn checkpoint(&self, step: u64) -> Checkpoint {
        Checkpoint { step, path: self.checkpoints_path().join(format!("step-{step:06}")) }
    }

    /// The newest complete checkpoint.
    ///
    /// # Errors
    /// [`RunFolderError::Io`].
    pub fn latest(&self) -> Result<Option<Checkpoint>, RunFolderError> {
        latest_checkpoint(&self.path)
    }

    /// Writes the checkpoint after `step` updates so that it is there as a whole or not at all: `fill` writes into a
    /// temporary folder, whose files are synchronised to the disk before it gets its name. `fill` has to write `state.json`.
    /// A complete checkpoint of this step is left as it is, and `fill` is not called.
    ///
    /// # Errors
    /// [`RunFolderError`]; other checkpoints are untouched.
    pub fn save_checkpoint(
        &self,
        step: u64,
        fill: impl FnOnce(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<Checkpoint, RunFolderError> {
        let folder = self.checkpoints_path();
        let checkpoint = self.checkpoint(step);
        let path = &checkpoint.path;
        if path.join(STATE_FILE).is_file() {
            return Ok(checkpoint);
        }
        let temporary = temporary_folder(&folder)?;
        fill(temporary.path()).map_err(|source| RunFolderError::Fill { path: path.clone(), source })?;
        if !temporary.path().join(STATE_FILE).is_file() {
            return Err(RunFolderError::NoState(path.clone()));
        }
        sync_tree(temporary.path())?;
        if path.exists() {
            // Without a state it was not a checkpoint.
            fs::remove_dir_all(path).map_err(io_error(path, "remove what is no checkpoint"))?;
        }
        fs::rename(temporary.path(), path).map_err(io_error(path, "name the checkpoint"))?;
        // It has moved: there is nothing left to clean up.
        let _ = temporary.keep();
        sync(&folder)?;
        Ok(checkpoint)
    }

    /// Removes a checkpoint so that it is there as a whole or not at all.
    ///
    /// # Errors
    /// [`RunFolderError::Io`].
    pub fn remove_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), RunFolderError> {
        let path = &checkpoint.path;
        // Renamed first, lest a half-removed one looks complete.
        let grave = temporary_folder(&self.checkpoints_path())?;
        fs::rename(path, grave.path().join("old")).map_err(io_error(path, "remove the old checkpoint"))?;
        grave.close().map_err(io_error(path, "remove the old checkpoint"))
    }

    fn checkpoints_path(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }
}

/// The complete checkpoints of a run, oldest first. Nothing is changed; a folder without `checkpoints/` has none.
///
/// # Errors
/// [`RunFolderError::Io`].
pub fn checkpoints(run: &Path) -> Result<Vec<Checkpoint>, RunFolderError> {
    let folder = run.join(CHECKPOINTS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Checkpoint> = entries(&folder)?
        .into_iter()
        .filter(|path| path.join(STATE_FILE).is_file())
        .filter_map(|path| {
            let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
            let step = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
            Some(Checkpoint { step, path })
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The newest complete checkpoint of a run, if it has one. Nothing is changed.
///
/// # Errors
/// [`RunFolderError::Io`].
pub fn latest_checkpoint(run: &Path) -> Result<Option<Checkpoint>, RunFolderError> {
    Ok(checkpoints(run)?.pop())
}

fn io_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> RunFolderError {
    move |source| RunFolderError::Io { path: path.into(), doing, source }
}

fn private_folder(path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is Unix's"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn temporary_folder(folder: &Path) -> Result<tempfile::TempDir, RunFolderError> {
    tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(folder)
        .map_err(io_error(folder, "create a temporary folder"))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, RunFolderError> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(io_error(folder, "list the folder"))
}

/// Makes a folder, what it holds and its list of names durable.
fn sync_tree(path: &Path) -> Result<(), RunFolderError> {
    if path.is_dir() {
        for entry in entries(path)? {
            sync_tree(&entry)?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> Result<(), RunFolderError> {
    // Only Unix can synchronise folders.
    if path.is_dir() && !cfg!(unix) {
        return Ok(());
    }
    File::open(path).and_then(|f| f.sync_all()).map_err(io_error(path, "synchronise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_run() -> (tempfile::TempDir, RunFolder) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(&folder.path().join("runs").join("a")).unwrap();
        (folder, run)
    }

    fn save(run: &RunFolder, step: u64) -> Checkpoint {
        run.save_checkpoint(step, |path| {
            fs::create_dir(path.join("inner"))?;
            fs::write(path.join("inner").join("model"), b"weights")?;
            Ok(fs::write(path.join(STATE_FILE), format!("{step}"))?)
        })
        .unwrap()
    }

    fn names(run: &RunFolder) -> Vec<String> {
        let mut names: Vec<_> = entries(&run.checkpoints_path())
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_run_is_private_and_an_old_one_is_not_overwritten() {
        let (_folder, run) = new_run();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(run.path()).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert!(matches!(RunFolder::create(run.path()), Err(RunFolderError::Exists(_))));
        assert!(RunFolder::resume(run.path()).is_ok());
        let missing = run.path().join("missing");
        assert!(matches!(RunFolder::resume(&missing), Err(RunFolderError::NoRun(_))));
        assert!(!missing.exists());
    }

    #[test]
    fn checkpoints_are_found_by_number_not_by_name() {
        let (_folder, run) = new_run();
        assert_eq!(run.latest().unwrap(), None);
        for step in [100, 1_000_000, 999_999] {
            save(&run, step);
        }
        let latest = run.latest().unwrap().unwrap();
        assert_eq!(
            (latest.step, fs::read(latest.path.join("inner/model")).unwrap()),
            (1_000_000, b"weights".to_vec())
        );
        assert_eq!(names(&run), ["step-000100", "step-1000000", "step-999999"]);
        assert_eq!(latest_checkpoint(&run.path().join("inner")).unwrap(), None);
    }

    #[test]
    fn a_failed_checkpoint_leaves_nothing() {
        let (_folder, run) = new_run();
        let failed = run.save_checkpoint(5, |path| {
            fs::write(path.join(STATE_FILE), "half")?;
            Err("disk full".into())
        });
        assert!(
            failed.unwrap_err().to_string().contains("step-000005: cannot write the checkpoint: disk full")
        );
        let stateless = run.save_checkpoint(5, |path| Ok(fs::write(path.join("model"), "")?));
        assert!(matches!(stateless, Err(RunFolderError::NoState(_))));
        assert_eq!(names(&run), [""; 0]);
    }

    #[test]
    fn leftovers_are_no_checkpoints_and_go_when_the_run_resumes() {
        let (_folder, run) = new_run();
        save(&run, 1);
        let checkpoints = run.checkpoints_path();
        let leftover = checkpoints.join(format!("{TEMPORARY}x"));
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join(STATE_FILE), "").unwrap();
        fs::create_dir(checkpoints.join("step-000009")).unwrap();
        fs::create_dir(checkpoints.join("step-x")).unwrap();
        assert_eq!(run.latest().unwrap().unwrap().step, 1);
        let run = RunFolder::resume(run.path()).unwrap();
        assert_eq!(names(&run), ["step-000001", "step-000009", "step-x"]);
        save(&run, 9);
        assert_eq!(run.latest().unwrap().unwrap().step, 9);
    }

    #[test]
    fn a_removed_checkpoint_leaves_nothing() {
        let (_folder, run) = new_run();
        let [first, second] = [1, 2].map(|step| save(&run, step));
        run.remove_checkpoint(&first).unwrap();
        assert_eq!(names(&run), ["step-000002"]);
        assert_eq!(checkpoints(run.path()).unwrap(), [second]);
        assert!(run.remove_checkpoint(&first).is_err());
    }

    #[test]
    fn a_complete_checkpoint_is_not_written_again() {
        let (_folder, run) = new_run();
        let first = save(&run, 3);
        let again = run.save_checkpoint(3, |_| Err("not called".into())).unwrap();
        assert_eq!(again, first);
    }
}
