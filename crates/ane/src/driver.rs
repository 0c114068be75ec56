//! What the engine needs of a framework: models, requests and surfaces.
//!
//! [`crate::AneEngine`] is written against these traits. Everything behind them is called on one thread, the engine's own, but
//! for [`Driver::surface`].

use std::path::Path;
use std::sync::Arc;

use arcane_engine::{Buffer, DeviceMemory};

use crate::attributes::Property;
use crate::fault::Fault;
use crate::unavailable::Unavailable;

/// A way to the engine by its name, or why it is not there.
pub type Way = (&'static str, Result<Arc<dyn Driver>, Unavailable>);

/// A way to the engine.
pub trait Driver: Send + Sync {
    /// Its name: `client`, `in_memory`.
    fn name(&self) -> &'static str;

    /// Zeroed memory that the engine and the host share.
    fn surface(&self, bytes: usize) -> Result<Arc<dyn DeviceMemory>, Fault>;

    /// Whether a buffer is in memory of this driver.
    fn owns(&self, buffer: &Buffer) -> bool;

    /// A program, neither compiled nor loaded.
    fn model(&self, source: &Source<'_>) -> Result<Box<dyn Model>, Fault>;
}

/// A program as the framework is given it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'s> {
    /// MIL.
    pub text: &'s str,
    /// The weight file, empty if there is none.
    pub weights: &'s [u8],
    /// A name that no other program has.
    pub key: &'s str,
    /// A folder that holds the text as `model.mil`, and the weight file as `weights/weight.bin`.
    pub folder: &'s Path,
}

/// A program of a framework.
pub trait Model: Send + Sync {
    /// Where the framework wants to find text and weights when it compiles and loads; often [`Source::folder`].
    fn folder(&self) -> &Path;

    /// Whether the system has it compiled.
    fn is_compiled(&self) -> Result<bool, Fault>;

    /// Compiles it.
    fn compile(&self) -> Result<(), Fault>;

    /// Makes the system forget the compiled form.
    fn purge(&self) -> Result<(), Fault>;

    /// Takes one of the engine's slots.
    fn load(&self) -> Result<(), Fault>;

    /// What the framework says of the ports of a loaded program, if it does.
    fn attributes(&self) -> Result<Option<Property>, Fault>;

    /// Gives the slot back.
    fn unload(&self) -> Result<(), Fault>;

    /// Surfaces at the program's symbols, to be evaluated often.
    fn request(&self, inputs: &[Placed<'_>], outputs: &[Placed<'_>]) -> Result<Box<dyn Request>, Fault>;
}

/// A surface and the number of the symbol that it is for.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'b> {
    /// The symbol's number among inputs, or outputs.
    pub symbol: usize,
    /// Memory of the driver.
    pub surface: &'b Buffer,
}

/// Surfaces at symbols.
pub trait Request: Send + Sync {
    /// Maps the surfaces for the engine once; without it each evaluation does.
    fn map(&self) -> Result<(), Fault>;

    /// Undoes [`Request::map`].
    fn unmap(&self) -> Result<(), Fault>;

    /// Runs the program, which is loaded.
    fn evaluate(&self) -> Result<(), Fault>;
}
