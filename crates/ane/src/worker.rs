//! What the engine's thread holds: programs, which of them are loaded, and when a compilation failed.
//!
//! An engine has room for a limited number of programs, and a compilation that fails restarts a service of the whole system.
//! So a program is compiled and loaded once however often it is asked for, the one used least recently makes room for the
//! next, and after a failure the next compilation waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arcane_engine::{DeviceStage, EngineError, Recovery};

use crate::attributes::{Expected, PortPlace, Side, places};
use crate::dispatch::Dispatcher;
use crate::driver::{Driver, Model, Source};
use crate::engine::{Clock, Counters};
use crate::fault::Fault;
use crate::program::{Program, Resident};
use crate::staging::{Folder, Workspace};

/// What a failed load waits for before it is tried again. (maderix, libane.)
const LOAD_PAUSE: Duration = Duration::from_millis(100);
/// One engine of this process at a time compiles, loads or unloads: what two of them name alike shares a folder, which the
/// framework removes when one unloads. (Working practice: cgt/ane, maderix.)
static ALONE: Mutex<()> = Mutex::new(());
/// How many programs make room for one that cannot be loaded, one after another.
const MAKE_ROOM: usize = 4;

/// What is to be compiled and loaded.
pub(crate) struct Wanted {
    pub(crate) function: String,
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) weights: Vec<u8>,
    pub(crate) inputs: Vec<Expected>,
    pub(crate) outputs: Vec<Expected>,
}

/// A program at a framework, with its folders.
pub(crate) struct Body {
    /// Dropped before its folders.
    pub(crate) model: Box<dyn Model>,
    folder: Folder,
    /// Where the framework wants it, if that is elsewhere.
    copy: Option<Folder>,
}

pub(crate) struct Worker {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) workspace: Workspace,
    pub(crate) clock: Clock,
    /// How many programs may be loaded.
    pub(crate) budget: usize,
    /// How long to wait after a compilation that failed.
    pub(crate) pause: Duration,
    pub(crate) counters: Arc<Mutex<Counters>>,
    pub(crate) programs: BTreeMap<String, Weak<Program>>,
    pub(crate) failed_at: Option<Duration>,
    /// Counts uses, to tell which was last.
    pub(crate) uses: u64,
}

impl Worker {
    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The program, compiled and loaded if it is not there yet.
    pub(crate) fn obtain(
        &mut self,
        wanted: &Wanted,
        dispatcher: &Arc<Dispatcher>,
    ) -> Result<Arc<Program>, EngineError> {
        if let Some(program) = self.programs.get(&wanted.key).and_then(Weak::upgrade) {
            return Ok(program);
        }
        let _alone = alone();
        let at = |stage| move |fault: Fault| fault.explain(stage, &wanted.function);
        let body = self.body(&wanted.key, &wanted.text, &wanted.weights);
        let body = body.map_err(at(DeviceStage::Compile))?;
        let cached = body.model.is_compiled().map_err(at(DeviceStage::Compile))?;
        if !cached {
            self.compile(&body).map_err(at(DeviceStage::Compile))?;
        }
        let loaded = match self.load(&body) {
            // What the system has kept may be of another build of it.
            Err(_) if cached => {
                body.model.purge().map_err(at(DeviceStage::Compile))?;
                self.compile(&body).map_err(at(DeviceStage::Compile))?;
                self.load(&body)
            }
            loaded => loaded,
        };
        loaded.map_err(at(DeviceStage::Load))?;
        let places = ports(body.model.as_ref(), wanted).map_err(|fault| {
            self.unload(&body);
            fault.explain(DeviceStage::Load, &wanted.function)
        })?;
        self.uses += 1;
        let program = Arc::new(Program::new(wanted, body, places, self.uses, dispatcher));
        self.programs.insert(wanted.key.clone(), Arc::downgrade(&program));
        Ok(program)
    }

    /// Writes a program to where the framework wants it.
    fn body(&self, key: &str, text: &str, weights: &[u8]) -> Result<Body, Fault> {
        let folder = Folder::hold(&self.workspace.path().join(key), text, weights)?;
        let model = self.driver.model(&Source { text, weights, key, folder: folder.path() })?;
        let elsewhere = (model.folder() != folder.path()).then(|| model.folder().to_path_buf());
        let copy = elsewhere.map(|path| Folder::hold(&path, text, weights)).transpose()?;
        let body = Body { model, folder, copy };
        body.restore()?;
        Ok(body)
    }

    /// Compiles a text and lets go of it.
    pub(crate) fn try_to_compile(&mut self, key: &str, text: &str) -> Result<(), Fault> {
        let _alone = alone();
        let body = self.body(key, text, &[])?;
        self.compile(&body)
    }

    fn compile(&mut self, body: &Body) -> Result<(), Fault> {
        if let Some(failed_at) = self.failed_at.take() {
            let passed = (self.clock)().saturating_sub(failed_at);
            thread::sleep(self.pause.saturating_sub(passed));
        }
        self.count(|c| c.compiles += 1);
        body.model.compile().inspect_err(|_| self.failed_at = Some((self.clock)()))
    }

    /// Loads a program: again after a moment if that fails, then in the place of others.
    fn load(&mut self, body: &Body) -> Result<(), Fault> {
        while self.loaded() >= self.budget.max(1) && self.evict() {}
        let mut evicted = 0;
        let mut again = true;
        loop {
            body.restore()?;
            let fault = match body.model.load() {
                Ok(()) => {
                    self.count(|c| {
                        c.loads += 1;
                        c.loaded += 1;
                        c.most_loaded = c.most_loaded.max(c.loaded);
                    });
                    return Ok(());
                }
                Err(fault) => fault,
            };
            if fault.recovery(DeviceStage::Load) != Recovery::Retry {
                return Err(fault);
            }
            if again {
                again = false;
            } else if evicted < MAKE_ROOM && self.evict() {
                evicted += 1;
            } else {
                return Err(fault);
            }
            thread::sleep(LOAD_PAUSE);
        }
    }

    fn loaded(&self) -> usize {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).loaded as usize
    }

    /// Unloads the program that was used least recently; false if there is none.
    fn evict(&mut self) -> bool {
        let loaded = self.programs.values().filter_map(Weak::upgrade).filter(|p| p.resident().loaded);
        let Some(program) = loaded.min_by_key(|p| p.resident().used) else { return false };
        program.unmap();
        program.resident().loaded = false;
        if let Some(body) = program.body() {
            self.unload(body);
        }
        self.count(|c| c.evictions += 1);
        true
    }

    /// Gives a slot back. That this may fail changes nothing for the caller: the slot then stays taken.
    fn unload(&self, body: &Body) {
        let failed = body.model.unload().is_err();
        self.count(|c| {
            c.loaded -= 1;
            c.failed_unloads += u64::from(failed);
        });
    }

    /// Unloads what nobody holds any more, and removes its folders.
    pub(crate) fn retire(&mut self, key: &str, body: Body, loaded: bool) {
        let _alone = alone();
        if loaded {
            self.unload(&body);
        }
        drop(body);
        if self.programs.get(key).is_some_and(|p| p.strong_count() == 0) {
            self.programs.remove(key);
        }
    }

    /// Loads a program that had to make room, or whose slot the engine has lost.
    pub(crate) fn make_resident(&mut self, program: &Program) -> Result<(), Fault> {
        self.uses += 1;
        program.resident().used = self.uses;
        if program.resident().loaded {
            return Ok(());
        }
        let Some(body) = program.body() else { return Ok(()) };
        let _alone = alone();
        self.load(body)?;
        *program.resident() = Resident { loaded: true, used: self.uses };
        Ok(())
    }

    /// Loads a program again that the engine says is gone.
    pub(crate) fn reload(&mut self, program: &Program) -> Result<(), Fault> {
        program.unmap();
        if std::mem::take(&mut program.resident().loaded)
            && let Some(body) = program.body()
        {
            let _alone = alone();
            self.unload(body);
        }
        self.count(|c| c.reloads += 1);
        self.make_resident(program)
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body {
    /// Writes the program again to where the framework wants it, if it is gone from there.
    fn restore(&self) -> Result<(), Fault> {
        self.copy.as_ref().map_or(Ok(()), |copy| copy.restore(&self.folder))
    }
}

/// Where the ports of a loaded program are: inputs, then outputs.
fn ports(model: &dyn Model, wanted: &Wanted) -> Result<Vec<PortPlace>, Fault> {
    let attributes = model.attributes()?;
    let mut all = places(attributes.as_ref(), Side::Inputs, &wanted.inputs)?;
    all.extend(places(attributes.as_ref(), Side::Outputs, &wanted.outputs)?);
    Ok(all)
}
