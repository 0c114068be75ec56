//! The program from outside: exit status, stdout, stderr, files.

mod bench;
mod refused;
mod support;
mod train;
