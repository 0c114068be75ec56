//! Whole runs of tiny models.

mod determinism;
mod evaluation;
mod hostile;
mod overflow;
mod support;
mod text;
