//! The Engine trait and the software engine, which runs MIL on any CPU.
