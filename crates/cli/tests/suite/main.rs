//! The program from outside: exit status, stdout, stderr, files.

mod bench;
mod check;
mod convert;
mod refused;
mod support;
mod train;
