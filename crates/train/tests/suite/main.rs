//! Whole runs of tiny models.

mod alarms;
mod determinism;
mod evaluation;
mod generation;
mod hostile;
mod overflow;
mod report;
mod retention;
mod support;
mod text;
mod tiny_model;
