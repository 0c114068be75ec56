//! Whole runs of tiny models.

mod determinism;
mod evaluation;
mod generation;
mod hostile;
mod overflow;
mod support;
mod text;
mod tiny_model;
