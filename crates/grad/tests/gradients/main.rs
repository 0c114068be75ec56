//! Every rule against central differences of the reference evaluator, and what is built.

mod check;
mod functions;
mod model;
mod movement;
mod rules;
mod structure;
