//! MIL to a Plan: which functions run, on which buffers, with which types.
