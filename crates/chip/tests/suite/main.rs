//! Facts, constraints and golden lists of violations.

mod constraints;
mod facts;
mod golden;
