//! The program from outside: exit status, stdout, stderr, files.

mod bench;
mod check;
mod closed_output;
mod convert;
mod corpus;
mod demo;
mod generate;
mod killed;
mod neural_engine;
mod packages;
mod refused;
mod run;
mod silicon;
mod simulated;
mod support;
#[path = "../../../train/tests/suite/tiny_model.rs"]
mod tiny_model;
mod train;
