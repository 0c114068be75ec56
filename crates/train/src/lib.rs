//! Training: data, optimiser, schedules, loss scale, metrics, checkpoints.

pub mod config;

pub mod order;
pub mod tokens;

pub mod loss_scale;
pub mod schedule;

pub mod metrics;
pub mod run_folder;
