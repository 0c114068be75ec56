//! Tests of the compiler, against the reference evaluator.

#![allow(missing_docs, reason = "tests are not documented")]

mod engine_plan;
mod execute;
mod golden;
mod legalise;
mod plan;
mod precision;
mod published;
mod random;
mod simplify;
