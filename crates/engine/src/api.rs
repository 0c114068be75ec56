//! What every engine offers: loading, buffers, bindings, submission.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arcane_mil::{Program, TensorType};
use arcane_tensor::{Tensor, TensorError};

use crate::kernels::memory::HostMemory;

/// Why an engine refused or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The program has no such function.
    #[error("the program has no function `{0}`")]
    NoFunction(String),
    /// The engine cannot run an op as it stands.
    #[error("{op} at `{path}`: {why}")]
    Unsupported {
        /// The op's name.
        op: &'static str,
        /// Its path.
        path: String,
        /// Why not.
        why: String,
    },
    /// A binding does not fit the ports.
    #[error("port `{port}`: {why}")]
    Port {
        /// The port.
        port: String,
        /// What is wrong.
        why: String,
    },
    /// A buffer is in use by the host or by another call.
    #[error("the buffer bound to `{0}` is locked: a host view or another call holds it")]
    Locked(String),
    /// A tensor does not fit a buffer.
    #[error("a buffer of {buffer} was given {given}")]
    Type {
        /// The buffer's type.
        buffer: TensorType,
        /// What was given.
        given: TensorType,
    },
    /// A run-time index is out of range.
    #[error("{op} at `{path}`: index {index} is outside 0..{limit}")]
    Index {
        /// The op's name.
        op: &'static str,
        /// Its path.
        path: String,
        /// The index.
        index: i64,
        /// The length of the indexed axis.
        limit: usize,
    },
    /// Memory for a buffer or for a program's intermediate values could not be had.
    #[error("{bytes} bytes of memory could not be allocated")]
    Memory {
        /// How much was asked for.
        bytes: usize,
    },
    /// The threads could not be started.
    #[error("{wanted} threads could not be started: {why}")]
    Threads {
        /// How many were asked for.
        wanted: usize,
        /// Why not.
        why: String,
    },
    /// The buffer or binding belongs to another engine or program.
    #[error("{0} belongs to another engine or program")]
    Foreign(&'static str),
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name: `software`, ...
    pub name: String,
    /// Threads that compute.
    pub threads: usize,
}

/// How a function is to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether ops may be fused. Off only to compare: results of element-wise fusions have the same bits either way.
    pub fuse: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { fuse: true }
    }
}

/// Which way data flows through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Read by the function.
    Input,
    /// Written by the function.
    Output,
}

/// A parameter or result of a loaded function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Its direction.
    pub direction: Direction,
}

/// Memory that an engine reads and writes: a dense array of one type. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    ty: TensorType,
    memory: Arc<HostMemory>,
}

impl Buffer {
    /// Zeroed host memory of a type.
    pub(crate) fn new(ty: &TensorType) -> Result<Self, EngineError> {
        let memory = HostMemory::zeroed(ty.bytes()).ok_or(EngineError::Memory { bytes: ty.bytes() })?;
        Ok(Self { ty: ty.clone(), memory: Arc::new(memory) })
    }

    /// Its type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The memory behind it.
    pub(crate) fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Whether two buffers are one memory.
    pub fn same_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }

    /// Calls `read` with the elements' bytes in row-major order.
    pub fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T, EngineError> {
        let view = self.memory.read().ok_or_else(|| EngineError::Locked("host view".into()))?;
        Ok(read(&view[..self.ty.bytes()]))
    }

    /// Calls `write` with the elements' bytes in row-major order.
    pub fn write<T>(&self, write: impl FnOnce(&mut [u8]) -> T) -> Result<T, EngineError> {
        let mut view = self.memory.write().ok_or_else(|| EngineError::Locked("host view".into()))?;
        Ok(write(&mut view[..self.ty.bytes()]))
    }

    /// A copy as a tensor.
    pub fn to_tensor(&self) -> Result<Tensor, EngineError> {
        let copied: Result<Tensor, TensorError> =
            self.read(|bytes| Tensor::from_bytes(self.ty.dtype, &self.ty.shape, bytes))?;
        Ok(copied.expect("a buffer holds elements of its type"))
    }

    /// Copies a tensor of the buffer's type in.
    pub fn set(&self, tensor: &Tensor) -> Result<(), EngineError> {
        let given = TensorType::new(tensor.dtype(), tensor.shape());
        if given != self.ty {
            return Err(EngineError::Type { buffer: self.ty.clone(), given });
        }
        self.write(|bytes| bytes.copy_from_slice(tensor.bytes()))
    }
}

/// Ports with their buffers, prepared once and submitted often.
pub struct Binding {
    /// The engine's own form.
    pub(crate) inner: Box<dyn Any + Send + Sync>,
}

/// A submitted call.
#[derive(Debug)]
#[must_use = "a submitted call has to be waited for"]
pub struct Ticket {
    pub(crate) outcome: Result<Report, EngineError>,
}

/// What a finished call reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Instructions that the engine executed.
    pub instructions: usize,
}

/// Something that runs MIL functions.
pub trait Engine: Send + Sync {
    /// What it is.
    fn describe(&self) -> Description;

    /// Prepares one function of a program.
    fn load(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<Arc<dyn Loaded>, EngineError>;

    /// Bytes that [`Engine::load`] would hold for a function beside its ports; nothing is allocated to find out.
    fn required_bytes(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<usize, EngineError>;

    /// A buffer of a type, zeroed.
    fn buffer(&self, ty: &TensorType) -> Result<Buffer, EngineError>;
}

/// A function that an engine is ready to run.
pub trait Loaded: Send + Sync {
    /// Its parameters in declared order, then its outputs in declared order.
    fn ports(&self) -> &[Port];

    /// The kernel of each instruction in order: `chain`, `gemm`, `attention`, ...
    fn kernels(&self) -> Vec<&'static str>;

    /// Bytes of intermediate values that the engine holds for it.
    fn scratch_bytes(&self) -> usize;

    /// Ties every port to a buffer of its type. An output may share the buffer of the parameter it is aliased to; any other
    /// sharing between an output and another port is refused.
    fn bind(&self, buffers: &[(&str, &Buffer)]) -> Result<Binding, EngineError>;

    /// Starts a call. Nothing above may assume that it has completed before [`Loaded::wait`] returns.
    fn submit(&self, binding: &Binding) -> Result<Ticket, EngineError>;

    /// Waits for a call, at most until the deadline.
    fn wait(&self, ticket: Ticket, deadline: Duration) -> Result<Report, EngineError>;
}
