//! Facts, constraints and golden lists of violations.

mod captured;
mod constraints;
mod document;
mod facts;
mod golden;
