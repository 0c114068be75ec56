//! The software engine: runs MIL on any CPU.
//!
//! Loading goes function → ops that have kernels (`expand`) → clusters of fusable ops (`fuse`) and recognised regions → nodes on storage (`lower`,
//! `work`, `chain`) → an order and a place in memory for everything (`schedule`, `arena`) → instructions for the kernels.
//! A submitted call runs the instructions one after another, each on all threads, and allocates nothing.

mod arena;
mod chain;
mod expand;
mod fuse;
mod indexing;
mod integer;
mod lower;
mod moves;
mod recurrent;
mod schedule;
mod silicon;
mod spatial;
mod view;
mod wide;
mod work;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcane_mil::{Function, Program, TensorType};

use self::schedule::Schedule;
use crate::api::{
    Binding, Buffer, Description, Direction, Engine, EngineError, LoadOptions, Loaded, Numerics, Port,
    Report, Ticket,
};
use crate::kernels::memory::HostMemory;
use crate::kernels::{Context, Fault, Lookup, PORTS};

/// Runs MIL on this machine's processor.
pub struct SoftwareEngine {
    pool: Arc<rayon::ThreadPool>,
    numerics: Numerics,
}

impl SoftwareEngine {
    /// An engine with a number of threads.
    pub fn new(threads: usize) -> Result<Self, EngineError> {
        Self::with_numerics(threads, Numerics::default())
    }

    /// An engine with a number of threads that computes in an arithmetic.
    pub fn with_numerics(threads: usize, numerics: Numerics) -> Result<Self, EngineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("arcane-{i}"))
            .build()
            .map_err(|e| EngineError::Threads { wanted: threads, why: e.to_string() })?;
        Ok(Self { pool: Arc::new(pool), numerics })
    }
}

impl Engine for SoftwareEngine {
    fn describe(&self) -> Description {
        Description { name: "software".into(), threads: self.pool.current_num_threads() }
    }

    fn load(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<Arc<dyn Loaded>, EngineError> {
        let function = program.function(function).ok_or_else(|| EngineError::NoFunction(function.into()))?;
        Ok(Arc::new(SoftwareLoaded::new(function, options, self.pool.clone(), self.numerics)?))
    }

    fn required_bytes(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<usize, EngineError> {
        let function = program.function(function).ok_or_else(|| EngineError::NoFunction(function.into()))?;
        let function = prepared(function, self.numerics);
        let schedule = schedule::schedule(&function, &lower::lower(&function, options.fuse, self.numerics)?);
        let threads = self.pool.current_num_threads();
        Ok(schedule.arena_bytes + schedule.constant_bytes + threads * schedule.scratch_bytes())
    }

    fn buffer(&self, ty: &TensorType) -> Result<Buffer, EngineError> {
        Buffer::new(ty)
    }
}

/// The function as it is lowered: with ops that have kernels, in the types that it is computed in.
fn prepared(function: &Function, numerics: Numerics) -> Cow<'_, Function> {
    match numerics {
        Numerics::Declared => expand::expand(function),
        Numerics::Chip(_) => Cow::Owned(expand::expand(&silicon::decomposed(function)).into_owned()),
        Numerics::Fp32 => Cow::Owned(expand::expand(&wide::widened(function)).into_owned()),
    }
}

/// How many functions have been loaded in this process.
static LOADED: AtomicU64 = AtomicU64::new(0);

/// A function laid out as instructions.
struct SoftwareLoaded {
    /// Which one it is: bindings know theirs.
    identity: u64,
    pool: Arc<rayon::ThreadPool>,
    ports: Vec<Port>,
    /// For each output the parameter whose buffer it may share, as port numbers.
    aliases: Vec<(usize, usize)>,
    schedule: Schedule,
    constants: HostMemory,
    /// See [`Context::lookups`].
    lookups: Option<Vec<Lookup>>,
    fault: Fault,
    /// The arena and each thread's scratch; a call holds them.
    working: Mutex<Working>,
}

struct Working {
    arena: HostMemory,
    scratch: Vec<HostMemory>,
}

/// A prepared binding.
struct Bound {
    /// The loaded function that it belongs to.
    owner: u64,
    /// The memory of each port.
    ports: Vec<Arc<HostMemory>>,
    /// The memories of the ports, each once, and whether it is written; with a port's name.
    memories: Vec<(Arc<HostMemory>, bool, String)>,
}

fn memory(bytes: usize) -> Result<HostMemory, EngineError> {
    HostMemory::zeroed(bytes).ok_or(EngineError::Memory { bytes })
}

impl SoftwareLoaded {
    fn new(
        function: &Function,
        options: LoadOptions,
        pool: Arc<rayon::ThreadPool>,
        numerics: Numerics,
    ) -> Result<Self, EngineError> {
        let function = &*prepared(function, numerics);
        let lowered = lower::lower(function, options.fuse, numerics)?;
        let schedule = schedule::schedule(function, &lowered);
        let constants = memory(schedule.constant_bytes)?;
        if let Some(mut bytes) = constants.write() {
            for (offset, tensor) in &lowered.constants {
                bytes[*offset..offset + tensor.bytes().len()].copy_from_slice(tensor.bytes());
            }
        }
        let threads = 0..pool.current_num_threads();
        let scratch = threads.map(|_| memory(schedule.scratch_bytes())).collect::<Result<_, _>>()?;
        let port =
            |name: &str, v, direction| Port { name: name.into(), ty: function.ty(v).clone(), direction };
        let inputs = function.parameters().iter().map(|p| port(&p.name, p.value, Direction::Input));
        let outputs = function.outputs().iter().map(|o| port(&o.name, o.value, Direction::Output));
        let first_output = function.parameters().len();
        Ok(Self {
            identity: LOADED.fetch_add(1, Ordering::Relaxed),
            pool,
            ports: inputs.chain(outputs).collect(),
            aliases: function.aliases().iter().map(|a| (first_output + a.output, a.parameter)).collect(),
            working: Mutex::new(Working { arena: memory(schedule.arena_bytes)?, scratch }),
            schedule,
            constants,
            lookups: lowered.lookups,
            fault: Fault::default(),
        })
    }

    /// Whether two ports may share memory: inputs with inputs, an output with the parameter it is aliased to.
    fn may_share(&self, a: usize, b: usize) -> bool {
        let both_inputs = [a, b].iter().all(|&p| self.ports[p].direction == Direction::Input);
        both_inputs || self.aliases.contains(&(a, b)) || self.aliases.contains(&(b, a))
    }

    fn run(&self, bound: &Bound) -> Result<Report, EngineError> {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        let Working { arena, scratch } = &mut *working;
        self.pool.install(|| {
            let bases = Bases { arena, constants: &self.constants, ports: &bound.ports };
            for (i, scheduled) in self.schedule.instructions.iter().enumerate() {
                let lookups = self.lookups.as_deref();
                let context = Context { bases: &bases, scratch, fault: &self.fault, instruction: i, lookups };
                scheduled.instruction.run(&context);
            }
        });
        match self.fault.take() {
            Some((i, index)) => Err(self.schedule.instructions[i].bad_index(index)),
            None => Ok(Report { instructions: self.schedule.instructions.len() }),
        }
    }
}

/// Where each base of an access begins.
struct Bases<'a> {
    arena: &'a HostMemory,
    constants: &'a HostMemory,
    ports: &'a [Arc<HostMemory>],
}

impl crate::kernels::Locate for Bases<'_> {
    fn start(&self, base: usize) -> *mut u8 {
        match base {
            crate::kernels::ARENA => self.arena.start(),
            crate::kernels::CONSTANTS => self.constants.start(),
            port => self.ports[port - PORTS].start(),
        }
    }
}

impl Loaded for SoftwareLoaded {
    fn ports(&self) -> &[Port] {
        &self.ports
    }

    fn kernels(&self) -> Vec<&'static str> {
        self.schedule.instructions.iter().map(|i| i.instruction.name()).collect()
    }

    fn scratch_bytes(&self) -> usize {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.arena.len()
            + self.constants.len()
            + working.scratch.iter().map(HostMemory::len).sum::<usize>()
    }

    fn bind(&self, buffers: &[(&str, &Buffer)]) -> Result<Binding, EngineError> {
        let port_error = |port: &str, why: String| EngineError::Port { port: port.into(), why };
        let mut bound: Vec<Option<&Buffer>> = vec![None; self.ports.len()];
        for (name, buffer) in buffers {
            let i = self.ports.iter().position(|p| p.name == *name);
            let i = i.ok_or_else(|| port_error(name, "the function has no such port".into()))?;
            if bound[i].replace(buffer).is_some() {
                return Err(port_error(name, "bound twice".into()));
            }
            if *buffer.ty() != self.ports[i].ty {
                let why = format!("the buffer is {}, {} was expected", buffer.ty(), self.ports[i].ty);
                return Err(port_error(name, why));
            }
            if !buffer.is_dense() {
                return Err(port_error(name, "the buffer has gaps between its rows".into()));
            }
        }
        let mut memories: Vec<(Arc<HostMemory>, bool, String)> = Vec::new();
        let mut ports = Vec::new();
        for (i, port) in self.ports.iter().enumerate() {
            let buffer = bound[i].ok_or_else(|| port_error(&port.name, "not bound".into()))?;
            for (j, other) in bound[..i].iter().enumerate() {
                if other.is_some_and(|o| o.same_memory(buffer)) && !self.may_share(i, j) {
                    let why = format!(
                        "shares its buffer with `{}`, to which it is not aliased",
                        self.ports[j].name
                    );
                    return Err(port_error(&port.name, why));
                }
            }
            let writes = port.direction == Direction::Output;
            match memories.iter_mut().find(|(m, _, _)| Arc::ptr_eq(m, buffer.memory())) {
                Some((_, written, _)) => *written |= writes,
                None => memories.push((buffer.memory().clone(), writes, port.name.clone())),
            }
            ports.push(buffer.memory().clone());
        }
        Ok(Binding { inner: Box::new(Bound { owner: self.identity, ports, memories }) })
    }

    fn submit(&self, binding: &Binding) -> Result<Ticket, EngineError> {
        let bound = binding.inner.downcast_ref::<Bound>().filter(|b| b.owner == self.identity);
        let bound = bound.ok_or(EngineError::Foreign("the binding"))?;
        let release = |n: usize| {
            for (memory, written, _) in &bound.memories[..n] {
                if *written { memory.release_write() } else { memory.release_read() }
            }
        };
        for (n, (memory, written, name)) in bound.memories.iter().enumerate() {
            let acquired = if *written { memory.acquire_write() } else { memory.acquire_read() };
            if !acquired {
                release(n);
                return Err(EngineError::Locked(name.clone()));
            }
        }
        let outcome = self.run(bound);
        release(bound.memories.len());
        Ok(Ticket::done(outcome))
    }

    fn wait(&self, ticket: Ticket, _deadline: Duration) -> Result<Report, EngineError> {
        ticket.outcome()
    }
}
