//! Training: data, optimiser, schedules, loss scale, metrics, checkpoints.
//!
//! A [`run::Run`] is a folder with a [`trainer::Trainer`]: the trainer runs the plan of a [`program`] over batches of
//! [`batches::Data`], update after update, and the run records them, watches them, writes checkpoints and a report.

pub mod config;

pub mod batches;
pub mod documents;
pub mod order;
pub mod tokenizer;
pub mod tokens;

pub mod text;

pub mod model;
pub mod program;

mod memory;

pub mod clock;
pub mod loss_scale;
pub mod schedule;
pub mod trainer;

pub mod alarm;
pub mod checkpoint;
pub mod history;
pub mod metrics;
pub mod report;
pub mod retention;
pub mod run;
pub mod run_folder;
pub mod samples;
pub mod setup;

mod inference;

pub mod evaluation;
pub mod generation;
pub mod sampling;

mod error;

pub use error::{RunError, SetupError, StepError};
pub use inference::InferenceError;
