//! The program from outside: exit status, stdout, stderr, files.

mod bench;
mod check;
mod convert;
mod corpus;
mod demo;
mod generate;
mod killed;
mod refused;
mod run;
mod simulated;
mod support;
mod train;
