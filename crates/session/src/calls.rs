//! The calls of a plan, prepared and run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arcane_compile::{Place, Plan, PortBinding, Work};
use arcane_engine::{Binding, Buffer, EngineError, Loaded, Recovery};

use crate::{Engines, SessionError, SessionOptions};

/// How often something was tried again and went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Loads.
    pub loads: u64,
    /// Steps.
    pub steps: u64,
}

/// All calls, and the thread that runs the accelerator's steps.
pub(crate) struct Calls {
    shared: Arc<Shared>,
    /// Held while a call runs.
    running: Mutex<()>,
    accelerator: Option<JoinHandle<()>>,
}

struct Shared {
    calls: Vec<PreparedCall>,
    options: SessionOptions,
    state: Mutex<State>,
    changed: Condvar,
    loads: AtomicU64,
    steps: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The call that runs.
    call: Option<usize>,
    /// How many steps of the call are done, by place: the number of the next one.
    done: [usize; 2],
    /// Whether the accelerator has come to its end of the call.
    accelerator_done: bool,
    failed: Option<EngineError>,
    closed: bool,
}

struct PreparedCall {
    steps: Vec<PreparedStep>,
    uses_accelerator: bool,
}

struct PreparedStep {
    place: Place,
    work: PreparedWork,
    after: Vec<usize>,
}

enum PreparedWork {
    Run { loaded: Arc<dyn Loaded>, binding: Binding },
    Copy { from: Buffer, to: Buffer },
}

impl Calls {
    /// Loads every function once and prepares every step; gives the bytes that the engines hold, too.
    pub(crate) fn new(
        plan: &Plan,
        buffers: &[Buffer],
        engines: &Engines,
        options: SessionOptions,
    ) -> Result<(Self, usize), SessionError> {
        let mut loader = Loader { plan, engines, options, loaded: Vec::new(), repeated: 0 };
        let mut calls = Vec::with_capacity(plan.calls.len());
        for call in &plan.calls {
            let mut steps = Vec::with_capacity(call.steps.len());
            for step in &call.steps {
                let work = loader.prepare(&step.work, &call.name, buffers)?;
                steps.push(PreparedStep { place: step.place(), work, after: step.after.clone() });
            }
            let uses_accelerator = steps.iter().any(|s| s.place == Place::Engine);
            calls.push(PreparedCall { steps, uses_accelerator });
        }
        let scratch = loader.loaded.iter().map(|(_, l)| l.scratch_bytes()).sum();
        let needs_thread = calls.iter().any(|c| c.uses_accelerator);
        let shared = Arc::new(Shared {
            calls,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            loads: AtomicU64::new(loader.repeated),
            steps: AtomicU64::new(0),
        });
        let accelerator = needs_thread
            .then(|| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name("arcane-accelerator".into()).spawn(move || shared.serve())
            })
            .transpose()
            .map_err(|e| SessionError::Plan(format!("no thread could be started: {e}")))?;
        Ok((Self { shared, running: Mutex::new(()), accelerator }, scratch))
    }

    /// Runs a call to its end.
    pub(crate) fn run(&self, call: usize) -> Result<(), EngineError> {
        let _alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        if !shared.calls[call].uses_accelerator {
            return shared.calls[call].steps.iter().try_for_each(|s| shared.run_step(s));
        }
        {
            let mut state = shared.lock();
            *state = State { call: Some(call), ..State::default() };
            shared.changed.notify_all();
        }
        shared.run_place(call, Place::Host);
        let mut state = shared.lock();
        while !state.accelerator_done {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.call = None;
        state.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn recovered(&self) -> Recovered {
        Recovered {
            loads: self.shared.loads.load(Ordering::Relaxed),
            steps: self.shared.steps.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.accelerator.take() {
            // It has no result: errors are in the state.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accelerator's thread: runs its steps of each call until the session is closed.
    fn serve(&self) {
        loop {
            let mut state = self.lock();
            let call = loop {
                if state.closed {
                    return;
                }
                match state.call.filter(|_| !state.accelerator_done) {
                    Some(call) => break call,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            self.run_place(call, Place::Engine);
            self.lock().accelerator_done = true;
            self.changed.notify_all();
        }
    }

    /// Runs the steps of one place in order; ends early if anything has failed.
    fn run_place(&self, call: usize, place: Place) {
        let steps = &self.calls[call].steps;
        for (i, step) in steps.iter().enumerate().filter(|(_, s)| s.place == place) {
            if !self.wait_for(steps, &step.after) {
                return;
            }
            let outcome = self.run_step(step);
            let mut state = self.lock();
            match outcome {
                Ok(()) => state.done[place as usize] = i + 1,
                Err(e) => {
                    state.failed.get_or_insert(e);
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until steps are done; false if something has failed.
    fn wait_for(&self, steps: &[PreparedStep], after: &[usize]) -> bool {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return false;
            }
            if after.iter().all(|&s| state.done[steps[s].place as usize] > s) {
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_step(&self, step: &PreparedStep) -> Result<(), EngineError> {
        let (loaded, binding) = match &step.work {
            PreparedWork::Copy { from, to } => return from.copy_to(to),
            PreparedWork::Run { loaded, binding } => (loaded, binding),
        };
        let mut tried = 0;
        loop {
            let report = loaded.submit(binding).and_then(|ticket| loaded.wait(ticket, self.options.deadline));
            match report {
                Ok(_) => {
                    self.steps.fetch_add(u64::from(tried > 0), Ordering::Relaxed);
                    return Ok(());
                }
                Err(e) if tried < self.options.retries && may_pass(&e) => {
                    tried += 1;
                    std::thread::sleep(self.options.back_off);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Whether the same may go well a little later.
fn may_pass(error: &EngineError) -> bool {
    matches!(error, EngineError::Device(e) if e.recovery == Recovery::Retry)
}

struct Loader<'a> {
    plan: &'a Plan,
    engines: &'a Engines,
    options: SessionOptions,
    loaded: Vec<(&'a str, Arc<dyn Loaded>)>,
    repeated: u64,
}

impl<'a> Loader<'a> {
    fn prepare(
        &mut self,
        work: &'a Work,
        call: &str,
        buffers: &[Buffer],
    ) -> Result<PreparedWork, SessionError> {
        let buffer = |index: usize, what: &dyn Fn() -> String| {
            buffers.get(index).ok_or_else(|| {
                SessionError::Plan(format!("{} is on buffer {index}, there are {}", what(), buffers.len()))
            })
        };
        match work {
            Work::Copy { from, to } => {
                let what = || format!("a copy of call `{call}`");
                let (from, to) = (buffer(*from, &what)?.clone(), buffer(*to, &what)?.clone());
                Ok(PreparedWork::Copy { from, to })
            }
            Work::Run { place, function, ports } => {
                let loaded = self.load(*place, function)?;
                let mut bound = Vec::with_capacity(ports.len());
                for p in ports {
                    let what = || format!("port `{}` of call `{call}`", p.port);
                    bound.push((p.port.as_str(), self.view(&loaded, p, buffer(p.buffer, &what)?, call)?));
                }
                let bound: Vec<(&str, &Buffer)> = bound.iter().map(|(port, b)| (*port, b)).collect();
                let binding = loaded.bind(&bound);
                let binding = binding.map_err(|source| SessionError::Bind { call: call.into(), source })?;
                Ok(PreparedWork::Run { loaded, binding })
            }
        }
    }

    /// A buffer in the shape of the port that it is bound to.
    fn view(
        &self,
        loaded: &Arc<dyn Loaded>,
        port: &PortBinding,
        buffer: &Buffer,
        call: &str,
    ) -> Result<Buffer, SessionError> {
        let Some(found) = loaded.ports().iter().find(|p| p.name == port.port) else {
            return Ok(buffer.clone());
        };
        buffer.view(&found.ty).map_err(|source| {
            let why = format!("buffer `{}`: {source}", self.plan.buffers[port.buffer].name);
            let source = EngineError::Port { port: port.port.clone(), why };
            SessionError::Bind { call: call.into(), source }
        })
    }

    /// A function, loaded once.
    fn load(&mut self, place: Place, function: &'a str) -> Result<Arc<dyn Loaded>, SessionError> {
        if let Some((_, loaded)) = self.loaded.iter().find(|(name, _)| *name == function) {
            return Ok(Arc::clone(loaded));
        }
        let engine = self.engines.of(place)?;
        let mut tried = 0;
        let loaded = loop {
            match engine.load(&self.plan.program, function, self.options.load) {
                Ok(loaded) => break loaded,
                Err(e) if tried < self.options.retries && may_pass(&e) => {
                    tried += 1;
                    std::thread::sleep(self.options.back_off);
                }
                Err(source) => return Err(SessionError::Load { function: function.into(), source }),
            }
        };
        self.repeated += u64::from(tried > 0);
        self.loaded.push((function, Arc::clone(&loaded)));
        Ok(loaded)
    }
}
