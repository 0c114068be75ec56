//! Loaded programs, their bindings and calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arcane_chip::surface::PAGE_BYTES;
use arcane_engine::{
    Binding, Buffer, DeviceStage, Direction, EngineError, Loaded, Port, Recovery, Report, Ticket,
};

use crate::attributes::PortPlace;
use crate::dispatch::{Dispatcher, Task};
use crate::driver::{Driver, Placed, Request};
use crate::fault::Fault;
use crate::poison;
use crate::worker::{Body, Wanted, Worker};

/// The name by which an error calls what belongs together.
const BINDING: &str = "the binding";

/// Whether a program has one of the engine's slots, and when it was used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) loaded: bool,
    /// The number of the use.
    pub(crate) used: u64,
}

/// A program that the framework has compiled. It may have made room for others, and is loaded again when it is called.
pub(crate) struct Program {
    key: String,
    /// Inputs, then outputs.
    places: Vec<PortPlace>,
    resident: Mutex<Resident>,
    requests: Mutex<Vec<Weak<Prepared>>>,
    /// None once it is being dropped.
    body: Option<Body>,
    dispatcher: Arc<Dispatcher>,
}

impl Program {
    pub(crate) fn new(
        wanted: &Wanted,
        body: Body,
        places: Vec<PortPlace>,
        used: u64,
        dispatcher: &Arc<Dispatcher>,
    ) -> Self {
        Self {
            key: wanted.key.clone(),
            places,
            resident: Mutex::new(Resident { loaded: true, used }),
            requests: Mutex::default(),
            body: Some(body),
            dispatcher: Arc::clone(dispatcher),
        }
    }

    pub(crate) fn resident(&self) -> MutexGuard<'_, Resident> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn body(&self) -> Option<&Body> {
        self.body.as_ref()
    }

    /// Unmaps the surfaces of all requests, which an unloaded program cannot keep.
    pub(crate) fn unmap(&self) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|r| r.strong_count() > 0);
        requests.iter().filter_map(Weak::upgrade).for_each(|r| r.unmap());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let (key, loaded) = (std::mem::take(&mut self.key), self.resident().loaded);
        self.dispatcher.later(move |worker| worker.retire(&key, body, loaded));
    }
}

/// A function on the engine.
pub(crate) struct AneLoaded {
    driver: Arc<dyn Driver>,
    program: Arc<Program>,
    /// The function's own name, which its program may not have.
    function: String,
    ports: Vec<Port>,
    /// Whether surfaces are mapped once.
    maps: bool,
    deadline: Duration,
}

impl AneLoaded {
    pub(crate) fn new(
        driver: Arc<dyn Driver>,
        program: Arc<Program>,
        function: String,
        ports: Vec<Port>,
        maps: bool,
        deadline: Duration,
    ) -> Self {
        Self { driver, program, function, ports, maps, deadline }
    }

    fn fault(&self, fault: &Fault) -> EngineError {
        fault.explain(DeviceStage::Evaluate, &self.function)
    }

    /// The buffer of each port.
    fn by_port<'b>(&self, buffers: &[(&str, &'b Buffer)]) -> Result<Vec<&'b Buffer>, EngineError> {
        let error = |port: &str, why: String| EngineError::Port { port: port.into(), why };
        let mut bound: Vec<Option<&Buffer>> = vec![None; self.ports.len()];
        for (name, buffer) in buffers {
            let port = self.ports.iter().position(|p| p.name == *name);
            let port = port.ok_or_else(|| error(name, "the function has no such port".into()))?;
            if bound[port].replace(buffer).is_some() {
                return Err(error(name, "bound twice".into()));
            }
            if *buffer.ty() != self.ports[port].ty {
                let why = format!("the surface is {}, {} was expected", buffer.ty(), self.ports[port].ty);
                return Err(error(name, why));
            }
        }
        let all = self.ports.iter().zip(bound);
        let bound: Vec<&Buffer> = all
            .map(|(p, b)| b.ok_or_else(|| error(&p.name, "not bound".into())))
            .collect::<Result<_, _>>()?;
        for (i, port) in self.ports.iter().enumerate().filter(|(_, p)| p.direction == Direction::Output) {
            let shared = (0..i).find(|&j| bound[j].same_memory(bound[i]));
            if let Some(j) = shared {
                let why = format!("shares its buffer with `{}`", self.ports[j].name);
                return Err(error(&port.name, why));
            }
        }
        Ok(bound)
    }

    /// The surface that the engine gets for a buffer: its own, or another one with the program's rows and a copy each call.
    fn surface(&self, port: usize, buffer: &Buffer) -> Result<Buffer, EngineError> {
        let place = &self.program.places[port];
        let fits = self.driver.owns(buffer)
            && buffer.row_stride() == place.row_stride
            && buffer.read_padded(<[u8]>::len)? >= place.bytes;
        if fits {
            return Ok(buffer.clone());
        }
        let bytes = place.bytes.next_multiple_of(PAGE_BYTES);
        let memory = self.driver.surface(bytes).map_err(|f| self.fault(&f))?;
        Buffer::on_device(buffer.ty(), place.row_stride, memory)
    }
}

impl Loaded for AneLoaded {
    fn ports(&self) -> &[Port] {
        &self.ports
    }

    fn kernels(&self) -> Vec<&'static str> {
        vec!["program"]
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn bind(&self, buffers: &[(&str, &Buffer)]) -> Result<Binding, EngineError> {
        let buffers = self.by_port(buffers)?;
        let inputs = self.ports.iter().take_while(|p| p.direction == Direction::Input).count();
        let mut prepared = Prepared {
            program: Arc::clone(&self.program),
            function: self.function.clone(),
            direct: Vec::new(),
            before: Vec::new(),
            outputs: Vec::new(),
            request: None,
            mapped: AtomicBool::new(false),
            maps: AtomicBool::new(self.maps),
            phase: Mutex::new(Phase::Idle),
            changed: Condvar::new(),
        };
        let mut surfaces = Vec::with_capacity(buffers.len());
        for (port, buffer) in buffers.into_iter().enumerate() {
            let surface = self.surface(port, buffer)?;
            let own = !surface.same_memory(buffer);
            if port < inputs && own {
                prepared.before.push((buffer.clone(), surface.clone()));
            }
            if port >= inputs {
                let name = self.ports[port].name.clone();
                let copied = own.then(|| buffer.clone());
                prepared.outputs.push(Output { name, surface: surface.clone(), copied });
            }
            let written = port >= inputs;
            let known = prepared.direct.iter().any(|(b, _)| b.same_memory(&surface));
            if !known {
                prepared.direct.push((surface.clone(), written));
            }
            surfaces.push(surface);
        }
        let program = Arc::clone(&self.program);
        let request = self.program.dispatcher.run(self.deadline, move |_| {
            let placed: Vec<Placed<'_>> = surfaces
                .iter()
                .zip(&program.places)
                .map(|(surface, place)| Placed { symbol: place.symbol, surface })
                .collect();
            let (inputs, outputs) = placed.split_at(inputs);
            let nothing = || Fault::Nil { call: "body" };
            program.body().ok_or_else(nothing)?.model.request(inputs, outputs)
        });
        prepared.request = Some(request.and_then(|r| r).map_err(|f| self.fault(&f))?);
        let prepared = Arc::new(prepared);
        let mut requests = self.program.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|r| r.strong_count() > 0);
        requests.push(Arc::downgrade(&prepared));
        Ok(Binding::new(Box::new(prepared)))
    }

    fn submit(&self, binding: &Binding) -> Result<Ticket, EngineError> {
        let prepared = binding.get::<Arc<Prepared>>();
        let prepared = prepared.filter(|p| Arc::ptr_eq(&p.program, &self.program));
        let prepared = prepared.ok_or(EngineError::Foreign(BINDING))?;
        prepared.begin()?;
        if let Err(fault) = self.program.dispatcher.submit(Arc::clone(prepared) as Arc<dyn Task>) {
            // It will not run, so that what it uses is free.
            prepared.end(&Err(fault.clone()))?;
            return Err(self.fault(&fault));
        }
        Ok(Ticket::pending(Arc::clone(prepared) as _))
    }

    fn wait(&self, ticket: Ticket, deadline: Duration) -> Result<Report, EngineError> {
        let prepared = match ticket.running::<Prepared>() {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        let Some(outcome) = prepared.wait(deadline) else {
            // What the call uses stays reserved: the engine may still write to it.
            return Err(self.fault(&self.program.dispatcher.give_up()));
        };
        prepared.end(&outcome)?;
        outcome.map_err(|f| self.fault(&f)).map(|()| Report { instructions: 1 })
    }
}

/// What a call is about.
enum Phase {
    Idle,
    Submitted,
    Done(Result<(), Fault>),
}

/// An output of a program.
struct Output {
    name: String,
    /// Where the engine writes it.
    surface: Buffer,
    /// Where it is wanted, if that is elsewhere.
    copied: Option<Buffer>,
}

/// A request with its surfaces, evaluated often.
pub(crate) struct Prepared {
    program: Arc<Program>,
    function: String,
    /// The surfaces of the request, each once, and whether the engine writes it.
    direct: Vec<(Buffer, bool)>,
    /// What is copied into surfaces before a call.
    before: Vec<(Buffer, Buffer)>,
    outputs: Vec<Output>,
    /// None only while it is being made or dropped.
    request: Option<Box<dyn Request>>,
    mapped: AtomicBool,
    maps: AtomicBool,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Prepared {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies inputs, marks outputs, and takes the surfaces from the host.
    fn begin(&self) -> Result<(), EngineError> {
        let mut phase = self.phase();
        if !matches!(*phase, Phase::Idle) {
            return Err(EngineError::Locked(self.function.clone()));
        }
        self.before.iter().try_for_each(|(from, to)| from.copy_to(to))?;
        self.outputs.iter().try_for_each(|o| poison::mark(&o.surface))?;
        for (n, (buffer, write)) in self.direct.iter().enumerate() {
            if !buffer.begin_device_use(*write) {
                self.direct[..n].iter().for_each(|(b, w)| b.end_device_use(*w));
                return Err(EngineError::Locked(self.function.clone()));
            }
        }
        *phase = Phase::Submitted;
        Ok(())
    }

    /// The call's outcome, or none by the deadline.
    fn wait(&self, deadline: Duration) -> Option<Result<(), Fault>> {
        let running = |phase: &mut Phase| matches!(phase, Phase::Submitted);
        let (mut phase, _) = self
            .changed
            .wait_timeout_while(self.phase(), deadline, running)
            .unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *phase, Phase::Submitted) {
            Phase::Done(outcome) => Some(outcome),
            Phase::Idle | Phase::Submitted => None,
        }
    }

    /// Gives the surfaces back, and lets outputs out only if the call has written them.
    fn end(&self, outcome: &Result<(), Fault>) -> Result<(), EngineError> {
        self.direct.iter().for_each(|(buffer, write)| buffer.end_device_use(*write));
        *self.phase() = Phase::Idle;
        let mut result = Ok(());
        for output in &self.outputs {
            if outcome.is_ok() && poison::is_written(&output.surface)? {
                if let Some(copied) = &output.copied {
                    output.surface.copy_to(copied)?;
                }
                continue;
            }
            if outcome.is_ok() {
                let fault = Fault::NotWritten(output.name.clone());
                result = Err(fault.explain(DeviceStage::Evaluate, &self.function));
            }
            poison::spoil(output.copied.as_ref().unwrap_or(&output.surface))?;
        }
        result
    }

    fn evaluate(&self, worker: &mut Worker) -> Result<(), Fault> {
        let request = self.request.as_ref().ok_or(Fault::Nil { call: "request" })?;
        worker.make_resident(&self.program)?;
        self.map(request.as_ref());
        let evaluated = request.evaluate();
        match evaluated {
            Err(fault) if fault.recovery(DeviceStage::Evaluate) == Recovery::Reload => {
                worker.reload(&self.program)?;
                self.map(request.as_ref());
                request.evaluate()
            }
            evaluated => evaluated,
        }
    }

    /// Maps the surfaces once; if the framework refuses, evaluations do without.
    fn map(&self, request: &dyn Request) {
        if self.maps.load(Ordering::Relaxed)
            && !self.mapped.swap(true, Ordering::Relaxed)
            && request.map().is_err()
        {
            self.maps.store(false, Ordering::Relaxed);
            self.mapped.store(false, Ordering::Relaxed);
        }
    }

    /// Undoes the mapping. An error changes nothing: the program goes, and its mappings with it.
    fn unmap(&self) {
        if self.mapped.swap(false, Ordering::Relaxed)
            && let Some(request) = &self.request
        {
            let _ = request.unmap();
        }
    }
}

impl Task for Prepared {
    fn run(self: Arc<Self>, worker: &mut Worker) {
        let outcome = self.evaluate(worker);
        *self.phase() = Phase::Done(outcome);
        self.changed.notify_all();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let mapped = self.mapped.load(Ordering::Relaxed);
        // The program goes after this: it is held until the job is done.
        let program = Arc::clone(&self.program);
        self.program.dispatcher.later(move |_| {
            if mapped {
                let _ = request.unmap();
            }
            drop(request);
            drop(program);
        });
    }
}
