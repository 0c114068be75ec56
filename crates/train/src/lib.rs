//! Training: data, optimiser, schedules, loss scale, metrics, checkpoints.
//!
//! A [`run::Run`] is a folder with a [`trainer::Trainer`]: the trainer runs the plan of a [`program`] over batches of
//! [`batches::Data`], update after update, and the run records them and writes checkpoints.

pub mod config;

pub mod batches;
pub mod order;
pub mod tokenizer;
pub mod tokens;

pub mod model;
pub mod program;

mod memory;

pub mod clock;
pub mod loss_scale;
pub mod schedule;
pub mod trainer;

pub mod checkpoint;
pub mod metrics;
pub mod run;
pub mod run_folder;

mod inference;

pub mod evaluation;
pub mod generation;
pub mod sampling;

mod error;

pub use error::{RunError, SetupError, StepError};
pub use inference::InferenceError;
