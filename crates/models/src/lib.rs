//! Model architectures as MIL functions, and their checkpoints.
