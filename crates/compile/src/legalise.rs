//! Passes that write a program in the ops, sizes and ranges of an engine that computes in fp16.
//!
//! Each is a function from MIL to MIL with the same interface and, up to rounding, the same results. None knows a model:
//! what they rewrite is found by dataflow.

mod attention;
mod contraction;
mod head;
mod norm;

pub use attention::decompose_attention;
pub use contraction::pad_contractions;
pub use head::chunk_heads;
pub use norm::scale_norms;
