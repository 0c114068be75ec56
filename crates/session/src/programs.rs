//! The programs of a plan on their engines: loaded when they are needed, loaded again when an engine has lost them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arcane_compile::Place;
use arcane_engine::{Binding, Buffer, EngineError, Loaded, Recovery};
use arcane_mil::{Function, Program, Role, with_constants};
use arcane_tensor::Tensor;

use crate::{Engines, SessionError, SessionOptions};

/// What a step runs, and on which buffers.
pub(crate) struct Recipe {
    pub(crate) place: Place,
    pub(crate) function: String,
    /// The call that it is part of.
    pub(crate) call: String,
    /// Ports that are bound.
    pub(crate) ports: Vec<(String, Buffer)>,
    /// Parameters that are constants of the program, with the index of the plan's buffer.
    pub(crate) constants: Vec<(String, usize, Buffer)>,
}

impl Recipe {
    /// Whether two steps run one program.
    pub(crate) fn is_of_one_program(&self, other: &Self) -> bool {
        let constants =
            |r: &Self| -> Vec<usize> { r.constants.iter().map(|(_, buffer, _)| *buffer).collect() };
        self.function == other.function && constants(self) == constants(other)
    }
}

/// A loaded program, bound.
pub(crate) struct Run {
    pub(crate) loaded: Arc<dyn Loaded>,
    pub(crate) binding: Binding,
}

/// A function, and the buffers that its constants come from.
type Key = (String, Vec<usize>);

/// All programs of a session.
pub(crate) struct Programs {
    engines: Engines,
    program: Program,
    options: SessionOptions,
    loaded: Mutex<HashMap<Key, Arc<dyn Loaded>>>,
    /// Loads that went well only after others had failed.
    repeated: AtomicU64,
    bytes: AtomicUsize,
}

impl Programs {
    pub(crate) fn new(engines: &Engines, program: Program, options: SessionOptions) -> Self {
        Self {
            engines: engines.clone(),
            program,
            options,
            loaded: Mutex::default(),
            repeated: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    /// How many loads went well only after others had failed.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(Ordering::Relaxed)
    }

    /// What engines hold for the programs that are loaded, beside buffers.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The function of a step.
    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        self.program.function(name)
    }

    /// The program of a step, loaded where it is not, and bound.
    pub(crate) fn run(&self, recipe: &Recipe) -> Result<Run, SessionError> {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(recipe);
        let loaded = if let Some(loaded) = all.get(&key) {
            Arc::clone(loaded)
        } else {
            let loaded = self.load(recipe)?;
            self.bytes.fetch_add(loaded.scratch_bytes(), Ordering::Relaxed);
            all.insert(key, Arc::clone(&loaded));
            loaded
        };
        drop(all);
        bound(recipe, loaded)
    }

    /// Forgets a program that an engine has lost.
    pub(crate) fn lost(&self, recipe: &Recipe) {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_one(&mut all, &key(recipe));
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets the programs that have constants: those have changed.
    pub(crate) fn forget_constants(&self) {
        let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outdated: Vec<Key> =
            all.keys().filter(|(_, constants)| !constants.is_empty()).cloned().collect();
        outdated.sort();
        for key in &outdated {
            self.forget_one(&mut all, key);
        }
    }

    fn forget_one(&self, all: &mut HashMap<Key, Arc<dyn Loaded>>, key: &Key) {
        if let Some(loaded) = all.remove(key) {
            self.bytes.fetch_sub(loaded.scratch_bytes(), Ordering::Relaxed);
        }
    }

    fn load(&self, recipe: &Recipe) -> Result<Arc<dyn Loaded>, SessionError> {
        let engine = self.engines.of(recipe.place)?;
        let failed = |source| SessionError::Load { function: recipe.function.clone(), source };
        let complete;
        let program = if recipe.constants.is_empty() {
            &self.program
        } else {
            complete = self.with_constants(recipe).map_err(failed)?;
            &complete
        };
        let mut tried = 0;
        loop {
            match engine.load(program, &recipe.function, self.options.load) {
                Ok(loaded) => {
                    self.repeated.fetch_add(u64::from(tried > 0), Ordering::Relaxed);
                    return Ok(loaded);
                }
                Err(e) if tried < self.options.retries && recovery(&e) == Recovery::Retry => {
                    tried += 1;
                    std::thread::sleep(self.options.back_off);
                }
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// The function of a step with the elements of its constants.
    fn with_constants(&self, recipe: &Recipe) -> Result<Program, EngineError> {
        let function = self.program.function(&recipe.function);
        let function = function.ok_or_else(|| EngineError::NoFunction(recipe.function.clone()))?;
        let mut tensors: HashMap<&str, Arc<Tensor>> = HashMap::new();
        for (port, _, buffer) in &recipe.constants {
            let parameter = function.parameter(port).filter(|p| p.role == Role::Constant);
            let parameter = parameter.ok_or_else(|| EngineError::Port {
                port: port.clone(),
                why: "it is no constant of the function".into(),
            })?;
            let tensor = buffer.view(function.ty(parameter.value))?.to_tensor()?;
            tensors.insert(port, Arc::new(tensor));
        }
        Ok(Program { functions: vec![with_constants(function, |name| tensors.get(name).cloned())] })
    }
}

fn key(recipe: &Recipe) -> Key {
    (recipe.function.clone(), recipe.constants.iter().map(|(_, index, _)| *index).collect())
}

fn bound(recipe: &Recipe, loaded: Arc<dyn Loaded>) -> Result<Run, SessionError> {
    let failed = |source| SessionError::Bind { call: recipe.call.clone(), source };
    let mut views = Vec::with_capacity(recipe.ports.len());
    for (port, buffer) in &recipe.ports {
        // A buffer in the shape of the port that it is bound to.
        let view = match loaded.ports().iter().find(|p| p.name == *port) {
            None => buffer.clone(),
            Some(found) => buffer.view(&found.ty).map_err(|source| {
                failed(EngineError::Port { port: port.clone(), why: format!("its buffer: {source}") })
            })?,
        };
        views.push((port.as_str(), view));
    }
    let ports: Vec<(&str, &Buffer)> = views.iter().map(|(port, view)| (*port, view)).collect();
    let binding = loaded.bind(&ports).map_err(failed)?;
    Ok(Run { loaded, binding })
}

/// What can be done about an error.
pub(crate) fn recovery(error: &EngineError) -> Recovery {
    match error {
        EngineError::Device(e) => e.recovery,
        _ => Recovery::None,
    }
}
