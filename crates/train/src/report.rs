//! `report.html`: a page that shows a run, made from the run's files alone.
//!
//! The page is one file without scripts that fetches nothing. A run writes it at each evaluation and checkpoint and where it
//! ends; it goes on with the curves of its metrics after a stop. What is drawn is bounded ([`crate::history::Series`]), so
//! neither its size nor the time that it takes grows with the run.

mod axis;
mod chart;
mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arcane_tensor::{FileError, write_atomically};

use crate::config::{Config, ConfigError};
use crate::history::History;
use crate::metrics::{Metrics, MetricsError, read_metrics};
use crate::run_folder::{RunFolder, RunFolderError, checkpoints};
use crate::samples::{Sample, SamplesError, add_sample, read_samples};
use crate::setup::Setup;

/// Why there is no report. Every message of a file starts with its path.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of the run cannot be read.
    #[error("{}: cannot read the {what}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// `setup.json` is not what a run writes.
    #[error("{}: not the setup of a run: {what}", path.display())]
    Setup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The run's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The metrics cannot be used.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The samples cannot be used.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// The checkpoints cannot be listed.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The report cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// What a report shows, checkpoints aside: they are listed when it is written.
#[derive(Debug, Clone)]
pub struct Report {
    folder: RunFolder,
    config: Config,
    setup: Setup,
    history: History,
    samples: Vec<Sample>,
}

impl Report {
    /// Reads the files of a run.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn read(run: &Path) -> Result<Self, ReportError> {
        let folder = RunFolder::at(run);
        let read = |path: &Path, what| {
            fs::read_to_string(path).map_err(|source| ReportError::Read { path: path.into(), what, source })
        };
        let path = folder.config_path();
        let config = Config::parse(&read(&path, "configuration")?, &path, &[])?;
        let path = folder.setup_path();
        let setup = serde_json::from_str(&read(&path, "setup")?)
            .map_err(|e| ReportError::Setup { path, what: e.to_string() })?;
        let history = read_metrics(&folder.metrics_path())?.iter().collect();
        let samples = read_samples(&folder.samples_path())?;
        Ok(Self { folder, config, setup, history, samples })
    }

    /// Takes the metrics of an update that have been added to the file.
    pub fn push(&mut self, metrics: &Metrics) {
        self.history.push(metrics);
    }

    /// What the run has been through.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes the page.
    ///
    /// # Errors
    /// [`ReportError`]; an older page is as it was then.
    pub fn write(&self) -> Result<(), ReportError> {
        let html = page::html(self, &checkpoints(self.folder.path())?);
        Ok(write_atomically(&self.folder.report_path(), |w| w.write_all(html.as_bytes()))?)
    }
}

/// Adds a sample to the files of a run, its report among them.
///
/// # Errors
/// [`ReportError`].
pub fn record_sample(run: &Path, sample: Sample) -> Result<(), ReportError> {
    add_sample(&RunFolder::at(run).samples_path(), sample)?;
    Report::read(run)?.write()
}
