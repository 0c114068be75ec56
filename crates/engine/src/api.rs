//! What every engine offers: loading, buffers, bindings, submission.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arcane_chip::arithmetic::Tables;
use arcane_mil::{Program, TensorType};
use arcane_tensor::{Tensor, TensorError};

pub use crate::kernels::memory::DeviceMemory;
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
    /// A buffer is in use by the host or by another call, or the system does not give a device's memory away.
    #[error("the buffer bound to `{0}` is locked: a host view, another call or the system holds it")]
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
    #[error("{op} at `{path}`: index {index} is outside an axis of {limit}")]
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
    /// The engine has gaps between the rows of an array, and what was asked for has none.
    #[error("{0} has gaps between its rows, an array without them was expected")]
    Gaps(String),
    /// An accelerator, its driver or its compiler gave an error.
    #[error(transparent)]
    Device(#[from] Box<DeviceError>),
}

/// What an accelerator was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceStage {
    /// Compiling a program.
    Compile,
    /// Loading a compiled program.
    Load,
    /// Executing a loaded program.
    Evaluate,
}

impl DeviceStage {
    const fn doing(self) -> &'static str {
        match self {
            Self::Compile => "compiling",
            Self::Load => "loading",
            Self::Evaluate => "evaluating",
        }
    }
}

/// An error of an accelerator, with the numbers that its driver gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} `{function}`: {cause} (code {code}{}); {remedy}", stage.doing(), hexadecimal(*status))]
pub struct DeviceError {
    /// What was going on.
    pub stage: DeviceStage,
    /// The function.
    pub function: String,
    /// The driver's error code.
    pub code: u32,
    /// The status below it, if there is one.
    pub status: Option<u32>,
    /// What it means.
    pub cause: String,
    /// What helps.
    pub remedy: &'static str,
    /// What a caller may do.
    pub recovery: Recovery,
}

/// What may help after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// The same again, a little later.
    Retry,
    /// Loading the program again, then the same.
    Reload,
    /// Nothing: the program or the engine cannot be used.
    None,
}

fn hexadecimal(status: Option<u32>) -> String {
    status.map_or(String::new(), |s| format!(", status {s:#x}"))
}

/// In which arithmetic an engine computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// As the types say: fp16 results are rounded once, ties to even.
    #[default]
    Declared,
    /// fp16 values are fp32 ones inside of a function.
    Fp32,
    /// fp16 ops as the Neural Engine computes them ([`arcane_chip::arithmetic`]), with its tables. Ops without a model are
    /// rounded once, ties away from zero.
    Chip(Tables),
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

/// Memory that an engine reads and writes: an array of one type. Clones share the memory.
///
/// Accelerators begin each row, along the last axis, at a multiple of some number of bytes. The host reads and writes only
/// arrays without gaps; [`Buffer::copy_to`] takes elements from one kind into the other.
#[derive(Clone, Debug)]
pub struct Buffer {
    ty: TensorType,
    rows: Rows,
    memory: Arc<HostMemory>,
}

/// How the rows of an array lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    /// Bytes of a row.
    pub(crate) length: usize,
    /// Bytes from a row to the next.
    pub(crate) stride: usize,
}

impl Rows {
    /// The rows of a type without gaps.
    fn dense(ty: &TensorType) -> Self {
        let length = ty.shape.last().map_or(1, |&w| w) * ty.dtype.size();
        Self { length, stride: length }
    }

    /// Whether there are gaps.
    fn has_gaps(self) -> bool {
        self.length != self.stride
    }
}

impl Buffer {
    /// Zeroed host memory of a type.
    pub(crate) fn new(ty: &TensorType) -> Result<Self, EngineError> {
        let memory = HostMemory::zeroed(ty.bytes()).ok_or(EngineError::Memory { bytes: ty.bytes() })?;
        Ok(Self { ty: ty.clone(), rows: Rows::dense(ty), memory: Arc::new(memory) })
    }

    /// Zeroed memory of `bytes` bytes whose rows are `stride` bytes apart.
    pub(crate) fn with_rows(ty: &TensorType, stride: usize, bytes: usize) -> Result<Self, EngineError> {
        let memory = HostMemory::zeroed(bytes).ok_or(EngineError::Memory { bytes })?;
        let rows = Rows { stride, ..Rows::dense(ty) };
        Ok(Self { ty: ty.clone(), rows, memory: Arc::new(memory) })
    }

    /// Zeroed memory of the host, without gaps.
    ///
    /// # Errors
    /// [`EngineError::Memory`].
    pub fn on_host(ty: &TensorType) -> Result<Self, EngineError> {
        Self::new(ty)
    }

    /// The memory of a device, as an array whose rows are `row_stride` bytes apart.
    ///
    /// # Errors
    /// [`EngineError::Memory`] if the array takes more bytes than there are, or its rows overlap.
    pub fn on_device(
        ty: &TensorType,
        row_stride: usize,
        memory: Arc<dyn DeviceMemory>,
    ) -> Result<Self, EngineError> {
        let rows = Rows { stride: row_stride, ..Rows::dense(ty) };
        let count = ty.bytes() / rows.length.max(1);
        let bytes = count.saturating_sub(1).saturating_mul(row_stride).saturating_add(rows.length);
        if bytes > memory.len() || row_stride < rows.length {
            return Err(EngineError::Memory { bytes });
        }
        Ok(Self { ty: ty.clone(), rows, memory: Arc::new(HostMemory::of_device(memory)) })
    }

    /// The memory of a device of this kind that it is in, if it is.
    pub fn device_memory<T: DeviceMemory>(&self) -> Option<&T> {
        self.memory.device().and_then(|d| (d as &dyn Any).downcast_ref())
    }

    /// Bytes from the start of a row to that of the next.
    pub fn row_stride(&self) -> usize {
        self.rows.stride
    }

    /// Calls `write` with all bytes, those of the gaps included.
    ///
    /// # Errors
    /// [`EngineError::Locked`].
    pub fn write_padded<T>(&self, write: impl FnOnce(&mut [u8]) -> T) -> Result<T, EngineError> {
        let mut view = self.memory.write().ok_or_else(|| EngineError::Locked("host view".into()))?;
        Ok(write(&mut view))
    }

    /// Calls `read` with all bytes, those of the gaps included.
    ///
    /// # Errors
    /// [`EngineError::Locked`].
    pub fn read_padded<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T, EngineError> {
        let view = self.memory.read().ok_or_else(|| EngineError::Locked("host view".into()))?;
        Ok(read(&view))
    }

    /// Keeps the host from touching what a device is about to read, or write; false if it is in use.
    #[must_use]
    pub fn begin_device_use(&self, write: bool) -> bool {
        self.memory.reserve(write)
    }

    /// Ends what [`Buffer::begin_device_use`] began.
    pub fn end_device_use(&self, write: bool) {
        self.memory.free(write);
    }

    /// The same memory as an array of another shape, with as many elements of the same dtype.
    ///
    /// # Errors
    /// [`EngineError::Type`] for another dtype or number of elements; [`EngineError::Gaps`] if the rows would be cut.
    pub fn view(&self, ty: &TensorType) -> Result<Self, EngineError> {
        if ty.dtype != self.ty.dtype || ty.len() != self.ty.len() {
            return Err(EngineError::Type { buffer: self.ty.clone(), given: ty.clone() });
        }
        if *ty != self.ty && self.rows.has_gaps() {
            return Err(EngineError::Gaps(format!("a buffer of {}", self.ty)));
        }
        let rows = if *ty == self.ty { self.rows } else { Rows::dense(ty) };
        Ok(Self { ty: ty.clone(), rows, memory: Arc::clone(&self.memory) })
    }

    /// How its rows lie.
    pub(crate) fn rows(&self) -> Rows {
        self.rows
    }

    /// Whether its elements follow each other without gaps.
    pub fn is_dense(&self) -> bool {
        !self.rows.has_gaps()
    }

    /// Copies the elements, in row-major order, into a buffer of the same dtype and number of elements. Nothing is allocated.
    ///
    /// # Errors
    /// [`EngineError::Type`], [`EngineError::Gaps`] if both have gaps and other rows, [`EngineError::Locked`].
    pub fn copy_to(&self, other: &Self) -> Result<(), EngineError> {
        let (from, to) = (self.rows, other.rows);
        if other.ty.dtype != self.ty.dtype || other.ty.len() != self.ty.len() {
            return Err(EngineError::Type { buffer: other.ty.clone(), given: self.ty.clone() });
        }
        let length = match (from.has_gaps(), to.has_gaps()) {
            (false, false) => self.ty.bytes(),
            (true, false) => from.length,
            (false, true) => to.length,
            (true, true) if from.length == to.length => from.length,
            (true, true) => return Err(EngineError::Gaps(format!("a buffer of {}", self.ty))),
        };
        let stride = |rows: Rows| if rows.has_gaps() { rows.stride } else { length };
        let (from_stride, to_stride) = (stride(from), stride(to));
        let locked = || EngineError::Locked("host copy".into());
        let source = self.memory.read().ok_or_else(locked)?;
        let mut target = other.memory.write().ok_or_else(locked)?;
        for row in 0..self.ty.bytes() / length.max(1) {
            let (at, to) = (row * from_stride, row * to_stride);
            target[to..to + length].copy_from_slice(&source[at..at + length]);
        }
        Ok(())
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

    fn dense(&self) -> Result<(), EngineError> {
        if self.is_dense() { Ok(()) } else { Err(EngineError::Gaps(format!("a buffer of {}", self.ty))) }
    }

    /// Calls `read` with the elements' bytes in row-major order.
    ///
    /// # Errors
    /// [`EngineError::Locked`], [`EngineError::Gaps`].
    pub fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T, EngineError> {
        self.dense()?;
        let view = self.memory.read().ok_or_else(|| EngineError::Locked("host view".into()))?;
        Ok(read(&view[..self.ty.bytes()]))
    }

    /// Calls `write` with the elements' bytes in row-major order.
    ///
    /// # Errors
    /// [`EngineError::Locked`], [`EngineError::Gaps`].
    pub fn write<T>(&self, write: impl FnOnce(&mut [u8]) -> T) -> Result<T, EngineError> {
        self.dense()?;
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

impl Binding {
    /// A binding in an engine's own form.
    pub fn new(inner: Box<dyn Any + Send + Sync>) -> Self {
        Self { inner }
    }

    /// The engine's own form, if it is that of this engine.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.inner.downcast_ref()
    }
}

/// A submitted call.
#[must_use = "a submitted call has to be waited for"]
pub struct Ticket {
    call: Call,
}

enum Call {
    Done(Result<Report, EngineError>),
    Pending(Arc<dyn Any + Send + Sync>),
}

impl Ticket {
    /// A call that has come to its end.
    pub fn done(outcome: Result<Report, EngineError>) -> Self {
        Self { call: Call::Done(outcome) }
    }

    /// A call that its engine still runs, in the engine's own form.
    pub fn pending(call: Arc<dyn Any + Send + Sync>) -> Self {
        Self { call: Call::Pending(call) }
    }

    /// The outcome of a call that was done at once.
    ///
    /// # Errors
    /// The call's own; [`EngineError::Foreign`] if an engine still runs it.
    pub fn outcome(self) -> Result<Report, EngineError> {
        match self.call {
            Call::Done(outcome) => outcome,
            Call::Pending(_) => Err(EngineError::Foreign("the ticket")),
        }
    }

    /// The running call in an engine's own form.
    ///
    /// # Errors
    /// The outcome, if the call is done; [`EngineError::Foreign`] if it is of another engine.
    pub fn running<T: Any + Send + Sync>(self) -> Result<Arc<T>, Result<Report, EngineError>> {
        match self.call {
            Call::Done(outcome) => Err(outcome),
            Call::Pending(call) => call.downcast().map_err(|_| Err(EngineError::Foreign("the ticket"))),
        }
    }
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
