//! The Engine trait and the software engine, which runs MIL on any CPU.
//!
//! An [`Engine`] is handed a MIL function and gives back a [`Loaded`] one; buffers are bound to its ports once, and the
//! binding is submitted as often as wanted. [`SoftwareEngine`] is the engine that every machine has.

mod api;
pub mod conformance;
mod kernels;
mod software;

pub use api::{
    Binding, Buffer, Description, Direction, Engine, EngineError, LoadOptions, Loaded, Port, Report, Ticket,
};
pub use software::SoftwareEngine;
