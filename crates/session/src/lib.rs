//! A Plan on engines: buffers, aliasing, prepared bindings, overlap, faults.
//!
//! A [`Session`] allocates every buffer of a [`Plan`], loads every function once and prepares one binding for each step. From
//! then on [`Session::run`], [`Session::scalar`], [`Session::set_scalar`] and [`Session::zero`] allocate nothing themselves.
//!
//! Steps of the host run on the caller's thread, those of the accelerator on a thread of their own, each in the plan's order
//! and as soon as the steps are done that it waits for.

mod calls;
mod error;
mod programs;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arcane_compile::{BufferKind, FORMAT_VERSION, PREPARE, Place, Plan, Work};
use arcane_engine::{Buffer, Engine, EngineError, LoadOptions};
use arcane_tensor::{DType, Tensor};

use self::calls::Calls;
pub use calls::Recovered;
pub use error::SessionError;

/// What computes.
#[derive(Clone)]
pub struct Engines {
    /// Runs the programs that a plan puts on the engine of a chip.
    pub accelerator: Option<Arc<dyn Engine>>,
    /// Runs all others.
    pub host: Arc<dyn Engine>,
}

impl Engines {
    /// The host alone.
    pub fn host(host: Arc<dyn Engine>) -> Self {
        Self { accelerator: None, host }
    }

    /// The engine of a place.
    pub(crate) fn of(&self, place: Place) -> Result<&Arc<dyn Engine>, SessionError> {
        match place {
            Place::Host => Ok(&self.host),
            Place::Engine => self
                .accelerator
                .as_ref()
                .ok_or_else(|| SessionError::Plan("it has programs for an engine, and there is none".into())),
        }
    }

    /// Bytes that a session of a plan will hold: its buffers, and what the engines hold for its functions.
    ///
    /// # Errors
    /// [`SessionError::Load`] if an engine refuses a function, [`SessionError::Plan`] if one is missing.
    pub fn required_bytes(&self, plan: &Plan) -> Result<u64, SessionError> {
        let mut bytes = plan.memory_bytes() as u64;
        for (f, &place) in plan.program.functions.iter().zip(&plan.places) {
            let held = self.of(place)?.required_bytes(&plan.program, f.name(), LoadOptions::default());
            let load = |source| SessionError::Load { function: f.name().into(), source };
            bytes = bytes.saturating_add(held.map_err(load)? as u64);
        }
        bytes = bytes.saturating_add(plan.constant_bytes() as u64);
        Ok(bytes)
    }
}

/// How a session loads, waits and recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// How functions are loaded.
    pub load: LoadOptions,
    /// How long a step may take.
    pub deadline: Duration,
    /// How often a step, or a load, is tried again after an error that may pass.
    pub retries: u32,
    /// How long to wait before each of these.
    pub back_off: Duration,
}

impl Default for SessionOptions {
    /// The engine's defaults, ten minutes, eight times, 3 ms.
    fn default() -> Self {
        Self {
            load: LoadOptions::default(),
            deadline: Duration::from_mins(10),
            retries: 8,
            back_off: Duration::from_millis(3),
        }
    }
}

/// A call of the session's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(usize);

/// A plan on engines.
pub struct Session {
    plan: Plan,
    /// One for each of the plan's buffers.
    buffers: Vec<Buffer>,
    calls: Calls,
    by_name: HashMap<String, usize>,
    /// Which calls have programs whose constants have changed since they were loaded.
    outdated: Vec<AtomicBool>,
    /// The call that computes what is made of weights alone, and whether the weights have changed since.
    prepare: Option<usize>,
    stale: AtomicBool,
    /// Which buffers `prepare` reads.
    prepared_from: Vec<bool>,
    /// Which calls write one of them.
    changes_weights: Vec<bool>,
}

impl Session {
    /// Brings a plan onto engines, with default options. Buffers start as zeros.
    ///
    /// # Errors
    /// [`SessionError`] if the plan is malformed, or an engine refuses a function or has not the memory.
    pub fn new(plan: Plan, engines: &Engines) -> Result<Self, SessionError> {
        Self::with_options(plan, engines, SessionOptions::default())
    }

    /// Brings a plan onto engines.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn with_options(
        plan: Plan,
        engines: &Engines,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        if plan.format_version != FORMAT_VERSION {
            let version = plan.format_version;
            return Err(SessionError::Plan(format!(
                "format version {version}, {FORMAT_VERSION} was expected"
            )));
        }
        if plan.places.len() != plan.program.functions.len() {
            return Err(SessionError::Plan("it does not say of each function where it runs".into()));
        }
        let by_name = index_by_name(&plan)?;
        let mut buffers = Vec::with_capacity(plan.buffers.len());
        for b in &plan.buffers {
            let buffer = engines.of(b.place)?.buffer(&b.ty);
            buffers.push(buffer.map_err(|source| SessionError::Buffer { buffer: b.name.clone(), source })?);
        }
        let calls = Calls::new(&plan, &buffers, engines, options)?;
        let prepare = plan.calls.iter().position(|c| c.name == PREPARE);
        let (prepared_from, changes_weights) = prepared_from(&plan, prepare);
        let outdated: Vec<AtomicBool> =
            plan.calls.iter().map(|c| AtomicBool::new(!plan.constants_of(c).is_empty())).collect();
        let has_constants = outdated.iter().any(|o| o.load(Ordering::Relaxed));
        let stale = AtomicBool::new(prepare.is_some() || has_constants);
        Ok(Self { plan, buffers, calls, by_name, outdated, prepare, stale, prepared_from, changes_weights })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of all buffers and of what the engines hold for intermediate values.
    pub fn memory_bytes(&self) -> usize {
        self.plan.memory_bytes() + self.calls.scratch_bytes()
    }

    /// How often steps and loads were tried again.
    pub fn recovered(&self) -> Recovered {
        self.calls.recovered()
    }

    /// The call of a name, to be looked up once.
    ///
    /// # Errors
    /// [`SessionError::NoCall`].
    pub fn call_id(&self, name: &str) -> Result<CallId, SessionError> {
        let found = self.plan.calls.iter().position(|c| c.name == name);
        found.map(CallId).ok_or_else(|| SessionError::NoCall(name.into()))
    }

    /// Runs the steps of a call. If weights have changed, those of `prepare` run before them, and programs that have weights as
    /// constants are loaded.
    ///
    /// # Errors
    /// [`SessionError::Call`] with the call's name; buffers that the call writes then hold nothing of use.
    /// [`SessionError::Load`] if an engine refuses a program.
    pub fn run(&self, call: CallId) -> Result<(), SessionError> {
        if self.prepare != Some(call.0) && self.stale.swap(false, Ordering::Relaxed) {
            self.renew().inspect_err(|_| self.stale.store(true, Ordering::Relaxed))?;
        }
        let outdated = &self.outdated[call.0];
        if outdated.load(Ordering::Relaxed) {
            self.calls.complete(call.0)?;
            outdated.store(false, Ordering::Relaxed);
        }
        if self.changes_weights[call.0] {
            self.stale.store(true, Ordering::Relaxed);
        }
        self.run_call(call.0)
    }

    /// Computes what is made of weights anew, and lets go of programs that have old weights.
    fn renew(&self) -> Result<(), SessionError> {
        if let Some(prepare) = self.prepare {
            self.run_call(prepare)?;
        }
        let calls = self.plan.calls.iter().zip(&self.outdated);
        let with_constants: Vec<&AtomicBool> =
            calls.filter(|(c, _)| !self.plan.constants_of(c).is_empty()).map(|(_, o)| o).collect();
        if !with_constants.is_empty() {
            self.calls.forget_constants();
            for outdated in with_constants {
                outdated.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn run_call(&self, call: usize) -> Result<(), SessionError> {
        let named =
            |source: EngineError| SessionError::Call { call: self.plan.calls[call].name.clone(), source };
        self.calls.run(call).map_err(named)
    }

    /// As [`Session::run`], by name.
    ///
    /// # Errors
    /// [`SessionError::NoCall`], [`SessionError::Call`].
    pub fn call(&self, name: &str) -> Result<(), SessionError> {
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
        self.changed(index);
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

    /// Notes that the host writes a buffer.
    fn changed(&self, index: usize) {
        if self.prepared_from[index] {
            self.stale.store(true, Ordering::Relaxed);
        }
    }

    fn fill_zero(&self, index: usize) -> Result<(), SessionError> {
        self.changed(index);
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

/// Which buffers hold what something is made of that outlives a call, prepared values and constants of programs, and which calls
/// write one of them.
fn prepared_from(plan: &Plan, prepare: Option<usize>) -> (Vec<bool>, Vec<bool>) {
    let mut reads = vec![false; plan.buffers.len()];
    for step in prepare.iter().flat_map(|&p| &plan.calls[p].steps) {
        match &step.work {
            Work::Copy { from, .. } => reads[*from] = true,
            Work::Run { function, ports, .. } => {
                let inputs = plan.program.function(function).map_or(0, |f| f.parameters().len());
                ports.iter().take(inputs).for_each(|p| reads[p.buffer] = true);
            }
        }
    }
    for constant in plan.calls.iter().flat_map(|c| plan.constants_of(c)) {
        reads[constant] = true;
    }
    let writes = |(i, c): (usize, &arcane_compile::Call)| {
        Some(i) != prepare
            && c.runs().any(|(function, ports)| {
                let inputs = plan.program.function(function).map_or(0, |f| f.parameters().len());
                ports.iter().skip(inputs).any(|p| reads[p.buffer])
            })
    };
    let changes = plan.calls.iter().enumerate().map(writes).collect();
    (reads, changes)
}
