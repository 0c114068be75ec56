//! The Engine trait and the software engine, which runs MIL on any CPU.
//!
//! An [`Engine`] is handed a MIL function and gives back a [`Loaded`] one; buffers are bound to its ports once, and the
//! binding is submitted as often as wanted. [`SoftwareEngine`] is the engine that every machine has; [`SimulatedEngine`] puts
//! the rules, the surfaces and the clock of a chip's Neural Engine around it.

mod api;
pub mod conformance;
mod kernels;
mod simulated;
mod software;

pub use api::{
    Binding, Buffer, Description, DeviceError, DeviceMemory, DeviceStage, Direction, Engine, EngineError,
    LoadOptions, Loaded, Numerics, Port, Recovery, Report, Ticket,
};
pub use simulated::{Counters, Faults, SimulatedEngine, StatusMeaning, status_meaning};
pub use software::SoftwareEngine;
