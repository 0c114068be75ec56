//! Why a run cannot start, and why it ended.

use std::path::PathBuf;

use arcane_compile::PlanError;
use arcane_engine::EngineError;
use arcane_models::LoadError;
use arcane_session::SessionError;
use arcane_tensor::FileError;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::documents::DocumentsError;
use crate::metrics::{Metrics, MetricsError};
use crate::program::ProgramError;
use crate::report::ReportError;
use crate::run_folder::RunFolderError;
use crate::samples::SamplesError;
use crate::tokenizer::TokenizerError;
use crate::tokens::TokensError;

/// Why a run cannot start. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A key of the configuration asks for something that is not there, or does not fit the rest. The message does not name
    /// the configuration's file.
    #[error("{key}: {what}")]
    Key {
        /// The dotted key.
        key: &'static str,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// There is not enough memory. The message does not name the configuration's file.
    #[error(
        "train.batch: a batch of {batch} needs about {}, {} are available; {}",
        gigabytes(*needed),
        gigabytes(*available),
        advice(*largest)
    )]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes that there are.
        available: u64,
        /// Sequences in a micro-batch.
        batch: usize,
        /// The largest batch that fits; 0 if none does.
        largest: usize,
    },
    /// There is not enough memory to run a model.
    #[error(
        "{what} needs about {}, {} are available",
        gigabytes(*needed),
        gigabytes(*available)
    )]
    TooLarge {
        /// What was to run.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// The configuration cannot be written down.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file that belongs to the model cannot be read.
    #[error("{}: cannot read the {what}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder of a run has no checkpoint to take the weights from.
    #[error("{}: the run has no checkpoint yet, expected one in `checkpoints`", .0.display())]
    NoCheckpoint(PathBuf),
    /// The data cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The text cannot be used.
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The run's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The run's metrics cannot be used.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The run's samples cannot be used.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// The run's files do not make a report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The checkpoint to go on from cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The resolved configuration, or what else the run was set up with, cannot be written.
    #[error(transparent)]
    Write(FileError),
    /// The training program cannot be built: a bug.
    #[error("the training program cannot be built: {0}")]
    Program(#[from] ProgramError),
    /// The training program has no plan: a bug.
    #[error("the training program has no plan: {0}")]
    Plan(#[from] PlanError),
    /// The engine does not take the plan.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The engine's buffers cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl SetupError {
    /// Whether what was given is at fault, not the program or the engine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Key { .. }
            | Self::Memory { .. }
            | Self::TooLarge { .. }
            | Self::Config(_)
            | Self::Load(_)
            | Self::Read { .. }
            | Self::NoCheckpoint(_)
            | Self::Tokens(_)
            | Self::Documents(_)
            | Self::Tokenizer(_)
            | Self::Folder(_)
            | Self::Metrics(_)
            | Self::Samples(_)
            | Self::Report(_)
            | Self::Checkpoint(_)
            | Self::Write(_) => true,
            Self::Program(_) | Self::Plan(_) | Self::Session(_) | Self::Engine(_) => false,
        }
    }

    /// Whether the message is about the configuration and lacks the name of its file.
    pub fn is_about_config(&self) -> bool {
        matches!(self, Self::Key { .. } | Self::Memory { .. })
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

fn advice(largest: usize) -> String {
    match largest {
        0 => "no batch of this model and data.seq fits".into(),
        n => format!("the largest batch that fits is {n}"),
    }
}

/// Why an update was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Numbers have left their range, and going on would not bring them back.
    #[error("training diverged at update {}: {what}", metrics.step)]
    Diverged {
        /// The update.
        metrics: Box<Metrics>,
        /// What happened.
        what: String,
    },
    /// A call failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A buffer cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why a run ended early. Complete checkpoints are still there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An update was not done.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The metrics cannot be written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A checkpoint cannot be written.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}
