//! A Plan on an engine: buffers, aliasing and prepared bindings.
//!
//! A [`Session`] allocates every buffer of a [`Plan`], loads every function once and prepares one binding for each call. From
//! then on [`Session::run`], [`Session::scalar`], [`Session::set_scalar`] and [`Session::zero`] allocate nothing themselves.

mod error;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arcane_compile::{BufferKind, FORMAT_VERSION, Plan};
use arcane_engine::{Binding, Buffer, Engine, LoadOptions, Loaded, Report};
use arcane_tensor::{DType, Tensor};

pub use error::SessionError;

/// How a session loads and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How functions are loaded.
    pub load: LoadOptions,
    /// How long a call may take.
    pub deadline: Duration,
}

impl Default for SessionOptions {
    /// The engine's defaults, and ten minutes.
    fn default() -> Self {
        Self { load: LoadOptions::default(), deadline: Duration::from_mins(10) }
    }
}

/// A call of the session's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(usize);

/// A call that is ready to be submitted.
struct Prepared {
    loaded: Arc<dyn Loaded>,
    binding: Binding,
}

/// A plan on an engine.
pub struct Session {
    plan: Plan,
    engine: Arc<dyn Engine>,
    deadline: Duration,
    /// One for each of the plan's buffers, and of the plan's calls.
    buffers: Vec<Buffer>,
    calls: Vec<Prepared>,
    by_name: HashMap<String, usize>,
    scratch_bytes: usize,
}

impl Session {
    /// Brings a plan onto an engine, with default options. Buffers start as zeros.
    ///
    /// # Errors
    /// [`SessionError`] if the plan is malformed, or the engine refuses a function or has not the memory.
    pub fn new(plan: Plan, engine: Arc<dyn Engine>) -> Result<Self, SessionError> {
        Self::with_options(plan, engine, SessionOptions::default())
    }

    /// Brings a plan onto an engine.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn with_options(
        plan: Plan,
        engine: Arc<dyn Engine>,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        if plan.format_version != FORMAT_VERSION {
            let version = plan.format_version;
            return Err(SessionError::Plan(format!(
                "format version {version}, {FORMAT_VERSION} was expected"
            )));
        }
        let by_name = index_by_name(&plan)?;
        let mut buffers = Vec::with_capacity(plan.buffers.len());
        for b in &plan.buffers {
            let buffer = engine.buffer(&b.ty);
            buffers.push(buffer.map_err(|source| SessionError::Buffer { buffer: b.name.clone(), source })?);
        }
        let loaded = load_functions(&plan, engine.as_ref(), options.load)?;
        let calls = prepare_calls(&plan, &buffers, &loaded)?;
        let scratch_bytes = loaded.iter().map(|(_, l)| l.scratch_bytes()).sum();
        Ok(Self { plan, engine, deadline: options.deadline, buffers, calls, by_name, scratch_bytes })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Bytes of all buffers and of what the engine holds for intermediate values.
    pub fn memory_bytes(&self) -> usize {
        self.plan.memory_bytes() + self.scratch_bytes
    }

    /// The call of a name, to be looked up once.
    ///
    /// # Errors
    /// [`SessionError::NoCall`].
    pub fn call_id(&self, name: &str) -> Result<CallId, SessionError> {
        let found = self.plan.calls.iter().position(|c| c.name == name);
        found.map(CallId).ok_or_else(|| SessionError::NoCall(name.into()))
    }

    /// Submits a call and waits for it.
    ///
    /// # Errors
    /// [`SessionError::Call`] with the call's name.
    pub fn run(&self, call: CallId) -> Result<Report, SessionError> {
        let Prepared { loaded, binding } = &self.calls[call.0];
        let report = loaded.submit(binding).and_then(|ticket| loaded.wait(ticket, self.deadline));
        report.map_err(|source| SessionError::Call { call: self.plan.calls[call.0].name.clone(), source })
    }

    /// As [`Session::run`], by name.
    ///
    /// # Errors
    /// [`SessionError::NoCall`], [`SessionError::Call`].
    pub fn call(&self, name: &str) -> Result<Report, SessionError> {
        self.run(self.call_id(name)?)
    }

    /// The buffer of a name.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`].
    pub fn buffer(&self, name: &str) -> Result<&Buffer, SessionError> {
        self.index(name).map(|i| &self.buffers[i])
    }

    fn index(&self, name: &str) -> Result<usize, SessionError> {
        self.by_name.get(name).copied().ok_or_else(|| SessionError::NoBuffer(name.into()))
    }

    /// The buffers that hold a weight's copies.
    fn copies(&self, weight: usize) -> impl Iterator<Item = usize> + '_ {
        let is_copy = move |b: &arcane_compile::PlanBuffer| b.kind == BufferKind::Copy { of: weight };
        self.plan.buffers.iter().enumerate().filter_map(move |(i, b)| is_copy(b).then_some(i))
    }

    /// Sets a buffer from a tensor of its shape: of its dtype, or, where both are floats, rounded to it. A weight's copies are
    /// set with it.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`], or [`SessionError::Buffer`] for another type.
    pub fn set(&self, name: &str, tensor: &Tensor) -> Result<(), SessionError> {
        let weight = self.index(name)?;
        self.put(weight, tensor)?;
        for copy in self.copies(weight) {
            let rounded = tensor.cast(self.buffers[weight].ty().dtype);
            self.put(copy, &rounded)?;
        }
        Ok(())
    }

    fn put(&self, index: usize, tensor: &Tensor) -> Result<(), SessionError> {
        let buffer = &self.buffers[index];
        let dtype = buffer.ty().dtype;
        let rounds = dtype != tensor.dtype() && dtype.is_float() && tensor.dtype().is_float();
        let set = if rounds { buffer.set(&tensor.cast(dtype)) } else { buffer.set(tensor) };
        set.map_err(|source| self.buffer_error(index, source))
    }

    /// A copy of a buffer.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`], or [`SessionError::Buffer`] while a call writes it.
    pub fn get(&self, name: &str) -> Result<Tensor, SessionError> {
        let index = self.index(name)?;
        self.buffers[index].to_tensor().map_err(|source| self.buffer_error(index, source))
    }

    /// The number in a buffer of one element, of type fp32, fp64, int32 or bool.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`], [`SessionError::NotScalar`], or [`SessionError::Buffer`] while a call writes it.
    pub fn scalar(&self, name: &str) -> Result<f64, SessionError> {
        let index = self.index(name)?;
        let buffer = &self.buffers[index];
        let number = buffer.read(|bytes| number(buffer.ty().dtype, bytes));
        let number = number.map_err(|source| self.buffer_error(index, source))?;
        number.ok_or_else(|| self.not_scalar(index, "a scalar of fp32, fp64, int32 or bool"))
    }

    /// Sets the number in an fp32 buffer of one element.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`], [`SessionError::NotScalar`], or [`SessionError::Buffer`] while a call uses it.
    pub fn set_scalar(&self, name: &str, value: f32) -> Result<(), SessionError> {
        let index = self.index(name)?;
        let buffer = &self.buffers[index];
        if buffer.ty().dtype != DType::F32 || buffer.ty().len() != 1 {
            return Err(self.not_scalar(index, "a scalar of fp32"));
        }
        let written = buffer.write(|bytes| bytes.copy_from_slice(&value.to_le_bytes()));
        written.map_err(|source| self.buffer_error(index, source))
    }

    /// Sets a buffer to zeros, and a weight's copies with it.
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`], or [`SessionError::Buffer`] while a call uses it.
    pub fn zero(&self, name: &str) -> Result<(), SessionError> {
        let index = self.index(name)?;
        self.fill_zero(index)?;
        self.copies(index).try_for_each(|copy| self.fill_zero(copy))
    }

    /// Sets the buffers that the plan wants zeroed at the start of an update to zeros.
    ///
    /// # Errors
    /// [`SessionError::Buffer`] while a call uses one.
    pub fn zero_accumulators(&self) -> Result<(), SessionError> {
        let zeroed = self.plan.buffers.iter().enumerate().filter(|(_, b)| b.zeroed);
        zeroed.map(|(i, _)| i).try_for_each(|i| self.fill_zero(i))
    }

    fn fill_zero(&self, index: usize) -> Result<(), SessionError> {
        self.buffers[index].write(|bytes| bytes.fill(0)).map_err(|source| self.buffer_error(index, source))
    }

    fn buffer_error(&self, index: usize, source: arcane_engine::EngineError) -> SessionError {
        SessionError::Buffer { buffer: self.plan.buffers[index].name.clone(), source }
    }

    fn not_scalar(&self, index: usize, expected: &'static str) -> SessionError {
        let b = &self.plan.buffers[index];
        SessionError::NotScalar { buffer: b.name.clone(), found: b.ty.clone(), expected }
    }
}

/// The number that the bytes of one element stand for.
fn number(dtype: DType, bytes: &[u8]) -> Option<f64> {
    match dtype {
        DType::F32 => bytes.try_into().ok().map(|b| f64::from(f32::from_le_bytes(b))),
        DType::F64 => bytes.try_into().ok().map(f64::from_le_bytes),
        DType::I32 => bytes.try_into().ok().map(|b| f64::from(i32::from_le_bytes(b))),
        DType::Bool => bytes.try_into().ok().map(|[b]: [u8; 1]| f64::from(b)),
        _ => None,
    }
}

fn index_by_name(plan: &Plan) -> Result<HashMap<String, usize>, SessionError> {
    let mut by_name = HashMap::new();
    for (i, b) in plan.buffers.iter().enumerate() {
        if by_name.insert(b.name.clone(), i).is_some() {
            return Err(SessionError::Plan(format!("two buffers are called `{}`", b.name)));
        }
    }
    Ok(by_name)
}

type LoadedFunctions<'a> = Vec<(&'a str, Arc<dyn Loaded>)>;

/// Each function that a call names, loaded once.
fn load_functions<'a>(
    plan: &'a Plan,
    engine: &dyn Engine,
    options: LoadOptions,
) -> Result<LoadedFunctions<'a>, SessionError> {
    let mut loaded: LoadedFunctions<'a> = Vec::new();
    for call in &plan.calls {
        let name = call.function.as_str();
        if loaded.iter().any(|(n, _)| *n == name) {
            continue;
        }
        let function = engine.load(&plan.program, name, options);
        let function = function.map_err(|source| SessionError::Load { function: name.into(), source })?;
        loaded.push((name, function));
    }
    Ok(loaded)
}

/// The binding of each call.
fn prepare_calls(
    plan: &Plan,
    buffers: &[Buffer],
    loaded: &LoadedFunctions<'_>,
) -> Result<Vec<Prepared>, SessionError> {
    let mut calls = Vec::with_capacity(plan.calls.len());
    for call in &plan.calls {
        let mut ports = Vec::with_capacity(call.ports.len());
        for p in &call.ports {
            let Some(buffer) = buffers.get(p.buffer) else {
                let what = format!("port `{}` of call `{}` is on buffer {}", p.port, call.name, p.buffer);
                return Err(SessionError::Plan(format!("{what}, there are {}", buffers.len())));
            };
            ports.push((p.port.as_str(), buffer));
        }
        let found = loaded.iter().find(|(name, _)| *name == call.function);
        let loaded = Arc::clone(&found.expect("every function of a call was loaded").1);
        let binding = loaded.bind(&ports);
        let binding = binding.map_err(|source| SessionError::Bind { call: call.name.clone(), source })?;
        calls.push(Prepared { loaded, binding });
    }
    Ok(calls)
}
