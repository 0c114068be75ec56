//! The calls of a plan, prepared and run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use arcane_compile::{Place, Plan, Work};
use arcane_engine::{Buffer, EngineError, Recovery};
use arcane_mil::Role;

use crate::programs::{Programs, Recipe, Run, recovery};
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
    programs: Programs,
    state: Mutex<State>,
    changed: Condvar,
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
    /// A program; it is not loaded while its constants are to come.
    Run {
        recipe: Recipe,
        run: RwLock<Option<Run>>,
    },
    Copy {
        from: Buffer,
        to: Buffer,
    },
}

impl Calls {
    /// Loads every function without constants once and prepares every step.
    pub(crate) fn new(
        plan: &Plan,
        buffers: &[Buffer],
        engines: &Engines,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        let programs = Programs::new(engines, plan.program.clone(), options);
        let mut calls = Vec::with_capacity(plan.calls.len());
        for call in &plan.calls {
            let mut steps = Vec::with_capacity(call.steps.len());
            for step in &call.steps {
                let work = prepared(&programs, &step.work, &call.name, buffers)?;
                steps.push(PreparedStep { place: step.place(), work, after: step.after.clone() });
            }
            let uses_accelerator = steps.iter().any(|s| s.place == Place::Engine);
            calls.push(PreparedCall { steps, uses_accelerator });
        }
        let needs_thread = calls.iter().any(|c| c.uses_accelerator);
        let shared = Arc::new(Shared {
            calls,
            options,
            programs,
            state: Mutex::default(),
            changed: Condvar::new(),
            steps: AtomicU64::new(0),
        });
        let accelerator = needs_thread
            .then(|| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name("arcane-accelerator".into()).spawn(move || shared.serve())
            })
            .transpose()
            .map_err(|e| SessionError::Plan(format!("no thread could be started: {e}")))?;
        Ok(Self { shared, running: Mutex::new(()), accelerator })
    }

    /// What engines hold beside buffers.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.shared.programs.bytes()
    }

    /// Forgets all programs with constants: what those are made of has changed.
    pub(crate) fn forget_constants(&self) {
        let _alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (recipe, run) in self.shared.calls.iter().flat_map(PreparedCall::programs) {
            if !recipe.constants.is_empty() {
                *run.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        self.shared.programs.forget_constants();
    }

    /// Loads the programs of a call that are not loaded.
    pub(crate) fn complete(&self, call: usize) -> Result<(), SessionError> {
        let _alone = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (recipe, run) in self.shared.calls[call].programs() {
            let mut run = run.write().unwrap_or_else(PoisonError::into_inner);
            if run.is_none() {
                *run = Some(self.shared.programs.run(recipe)?);
            }
        }
        Ok(())
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
        Recovered { loads: self.shared.programs.repeated(), steps: self.shared.steps.load(Ordering::Relaxed) }
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
        let (recipe, run) = match &step.work {
            PreparedWork::Copy { from, to } => return from.copy_to(to),
            PreparedWork::Run { recipe, run } => (recipe, run),
        };
        let mut tried = 0;
        loop {
            let error = {
                let held = run.read().unwrap_or_else(PoisonError::into_inner);
                match held.as_ref().map(|Run { loaded, binding }| {
                    loaded.submit(binding).and_then(|ticket| loaded.wait(ticket, self.options.deadline))
                }) {
                    Some(Ok(_)) => {
                        self.steps.fetch_add(u64::from(tried > 0), Ordering::Relaxed);
                        return Ok(());
                    }
                    Some(Err(e)) => Some(e),
                    None => None,
                }
            };
            let Some(error) = error else {
                // Another step has found that the engine had lost it.
                let again = self.programs.run(recipe).map_err(of_engine)?;
                *run.write().unwrap_or_else(PoisonError::into_inner) = Some(again);
                continue;
            };
            if tried == self.options.retries {
                return Err(error);
            }
            tried += 1;
            match recovery(&error) {
                Recovery::None => return Err(error),
                Recovery::Retry => std::thread::sleep(self.options.back_off),
                Recovery::Reload => self.let_go(recipe),
            }
        }
    }

    /// Lets all steps of a program that the engine has lost go of it; the next to run loads it.
    fn let_go(&self, recipe: &Recipe) {
        self.programs.lost(recipe);
        for (other, run) in self.calls.iter().flat_map(PreparedCall::programs) {
            if other.is_of_one_program(recipe) {
                *run.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
    }
}

/// The engine's part of an error of loading and binding.
fn of_engine(error: SessionError) -> EngineError {
    match error {
        SessionError::Load { source, .. } | SessionError::Bind { source, .. } => source,
        other => unreachable!("a program is loaded and bound: {other}"),
    }
}

impl PreparedCall {
    /// The steps that run a program.
    fn programs(&self) -> impl Iterator<Item = (&Recipe, &RwLock<Option<Run>>)> {
        self.steps.iter().filter_map(|s| match &s.work {
            PreparedWork::Run { recipe, run } => Some((recipe, run)),
            PreparedWork::Copy { .. } => None,
        })
    }
}

/// A step on the session's buffers, with its program where that has no constants.
fn prepared(
    programs: &Programs,
    work: &Work,
    call: &str,
    buffers: &[Buffer],
) -> Result<PreparedWork, SessionError> {
    let buffer = |index: usize, what: &dyn Fn() -> String| {
        buffers.get(index).cloned().ok_or_else(|| {
            SessionError::Plan(format!("{} is on buffer {index}, there are {}", what(), buffers.len()))
        })
    };
    let (place, function, ports) = match work {
        Work::Copy { from, to } => {
            let what = || format!("a copy of call `{call}`");
            return Ok(PreparedWork::Copy { from: buffer(*from, &what)?, to: buffer(*to, &what)? });
        }
        Work::Run { place, function, ports } => (*place, function, ports),
    };
    let is_constant = |port: &str| {
        let function = programs.function(function);
        function.and_then(|f| f.parameter(port)).is_some_and(|p| p.role == Role::Constant)
    };
    let mut recipe = Recipe {
        place,
        function: function.clone(),
        call: call.into(),
        ports: Vec::with_capacity(ports.len()),
        constants: Vec::new(),
    };
    for p in ports {
        let bound = buffer(p.buffer, &|| format!("port `{}` of call `{call}`", p.port))?;
        if is_constant(&p.port) {
            recipe.constants.push((p.port.clone(), p.buffer, bound));
        } else {
            recipe.ports.push((p.port.clone(), bound));
        }
    }
    let run = if recipe.constants.is_empty() { Some(programs.run(&recipe)?) } else { None };
    Ok(PreparedWork::Run { recipe, run: RwLock::new(run) })
}
