//! The Neural Engine as an [`Engine`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arcane_chip::Chip;
use arcane_chip::surface::SurfaceLayout;
use arcane_engine::{
    Buffer, Description, DeviceError, DeviceStage, Direction, Engine, EngineError, LoadOptions, Loaded, Port,
    Recovery,
};
use arcane_mil::{Builder, Emitted, Function, Program, TensorType, ValueId, identifiers};
use sha2::{Digest, Sha256};

use crate::attributes::Expected;
use crate::capability::Capabilities;
use crate::dispatch::{DRAIN, Dispatcher};
use crate::driver::Driver;
use crate::fault::Fault;
use crate::program::AneLoaded;
use crate::staging::Workspace;
use crate::worker::{Wanted, Worker};

/// The time since some moment, for what has to be waited for.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What every function is called in a program: the in-memory driver is known to take no other name.
const MAIN: &str = "main";

/// How an engine is used.
#[derive(Clone)]
pub struct Options {
    /// The chip that programs are checked for.
    pub chip: &'static Chip,
    /// What the chip's engine is called, and the system's build: both are part of a compiled program's name.
    pub architecture: String,
    /// See `architecture`.
    pub build: String,
    /// Where folders of programs may be made.
    pub workspace: PathBuf,
    /// How many programs may be loaded at once.
    pub programs: usize,
    /// How long compiling and loading one program, or making a request, may take.
    pub deadline: Duration,
    /// How long to wait after a compilation that failed: the service restarts.
    pub pause: Duration,
    /// What tells the time.
    pub clock: Clock,
    /// What the engine is known not to do.
    pub capabilities: Capabilities,
}

impl Options {
    /// The usual ones for a chip, below a folder. (15 s: `ANEForge`; a fused program of three layers took 131 s once.)
    pub fn new(chip: &'static Chip, workspace: PathBuf, clock: Clock) -> Self {
        Self {
            chip,
            architecture: chip.architecture.to_string(),
            build: String::new(),
            workspace,
            programs: *chip.limits.planned_programs,
            deadline: Duration::from_mins(10),
            pause: Duration::from_secs(15),
            clock,
            capabilities: Capabilities::default(),
        }
    }
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Compilations.
    pub compiles: u64,
    /// Loads.
    pub loads: u64,
    /// Programs that are loaded.
    pub loaded: u64,
    /// Programs that were loaded at once, at most.
    pub most_loaded: u64,
    /// Programs that made room for others.
    pub evictions: u64,
    /// Programs that the engine had lost.
    pub reloads: u64,
    /// Unloads that the framework refused; the slot stays taken.
    pub failed_unloads: u64,
}

/// The Neural Engine behind a driver.
pub struct AneEngine {
    driver: Arc<dyn Driver>,
    dispatcher: Arc<Dispatcher>,
    counters: Arc<Mutex<Counters>>,
    options: Options,
}

impl AneEngine {
    /// The engine behind a driver.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the workspace cannot be made, [`EngineError::Threads`].
    pub fn new(driver: Arc<dyn Driver>, options: Options) -> Result<Self, EngineError> {
        let workspace = Workspace::create(&options.workspace);
        let workspace = workspace.map_err(|f| f.explain(DeviceStage::Compile, "no function yet"))?;
        let counters = Arc::new(Mutex::new(Counters::default()));
        let worker = Worker {
            driver: Arc::clone(&driver),
            workspace,
            clock: Arc::clone(&options.clock),
            budget: options.programs,
            pause: options.pause,
            counters: Arc::clone(&counters),
            programs: BTreeMap::new(),
            failed_at: None,
            uses: 0,
        };
        let dispatcher = Dispatcher::start(worker);
        let dispatcher = dispatcher.map_err(|e| EngineError::Threads { wanted: 1, why: e.to_string() })?;
        Ok(Self { driver, dispatcher: Arc::new(dispatcher), counters, options })
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is used.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The same engine without what capabilities say that it does not do.
    pub(crate) fn restrict(&mut self, capabilities: Capabilities) {
        self.options.capabilities = capabilities;
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    pub(crate) fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// Asks the framework's compiler for a text without weights; nothing is loaded.
    pub(crate) fn try_to_compile(&self, key: &'static str, text: &'static str) -> Result<(), Fault> {
        let deadline = self.options.deadline + self.options.pause;
        self.dispatcher.run(deadline, move |worker| worker.try_to_compile(key, text))?
    }

    /// Text and weights of a function, or why the engine is not asked: a compilation that fails costs the whole system time.
    fn emit(&self, function: &Function) -> Result<Emitted, EngineError> {
        let refuse = |cause: String, remedy| -> EngineError {
            Box::new(DeviceError {
                stage: DeviceStage::Compile,
                function: function.name().into(),
                code: 1,
                status: None,
                cause,
                remedy,
                recovery: Recovery::None,
            })
            .into()
        };
        let mut main = Builder::extend(function);
        main.rename(MAIN);
        function.outputs().iter().for_each(|o| main.output(&o.name, o.value));
        let program = Program::new(vec![main.finish()]);
        let emitted = arcane_mil::print(&program)
            .map_err(|e| refuse(format!("InvalidMILProgram: {e}"), "correct the program"))?;
        let violations = arcane_chip::violations(self.options.chip, function);
        if let Some(v) = violations.into_iter().find(arcane_chip::Violation::is_fatal) {
            return Err(refuse(format!("CompilationFailure: {v}"), v.remedy));
        }
        if let Some((cause, remedy)) = self.options.capabilities.refusal(function, &emitted) {
            return Err(refuse(cause, remedy));
        }
        Ok(emitted)
    }

    /// The name of a program, which no other has: a hash of all that its compiled form depends on, each preceded by its length.
    fn key(&self, emitted: &Emitted) -> String {
        let mut hash = Sha256::new();
        let parts = [
            self.driver.name().as_bytes(),
            self.options.architecture.as_bytes(),
            self.options.build.as_bytes(),
            emitted.text.as_bytes(),
            &emitted.weights,
        ];
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().fold(String::new(), |mut key, byte| {
            // Writing to a String cannot fail.
            let _ = write!(key, "{byte:02x}");
            key
        })
    }
}

impl Drop for AneEngine {
    /// Waits until what was let go of is gone: the folders of a process that ends are removed, and its slots given back.
    fn drop(&mut self) {
        // Letting go of a request lets go of its program, which is one job more. A thread that is lost is not waited for.
        for _ in 0..2 {
            let _ = self.dispatcher.run(DRAIN, |_| ());
        }
    }
}

fn layout(ty: &TensorType) -> Result<SurfaceLayout, EngineError> {
    SurfaceLayout::of(ty).map_err(|e| EngineError::Port { port: ty.to_string(), why: e.to_string() })
}

impl Engine for AneEngine {
    fn describe(&self) -> Description {
        let name = format!("ane {} by {}", self.options.chip.name, self.driver.name());
        Description { name, threads: 1 }
    }

    fn load(
        &self,
        program: &Program,
        function: &str,
        _options: LoadOptions,
    ) -> Result<Arc<dyn Loaded>, EngineError> {
        let chosen = program.function(function).ok_or_else(|| EngineError::NoFunction(function.into()))?;
        let emitted = self.emit(chosen)?;
        let names = identifiers(chosen);
        let expected = |v: ValueId| -> Result<Expected, EngineError> {
            let ty = chosen.ty(v);
            Ok(Expected { name: names[v.index()].clone(), dtype: ty.dtype, layout: layout(ty)? })
        };
        let inputs = chosen.parameters().iter().map(|p| expected(p.value));
        let outputs = chosen.outputs().iter().map(|o| expected(o.value));
        let wanted = Wanted {
            function: function.into(),
            key: self.key(&emitted),
            text: emitted.text,
            weights: emitted.weights,
            inputs: inputs.collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        let dispatcher = Arc::clone(&self.dispatcher);
        let deadline = self.options.deadline + self.options.pause;
        let program = self
            .dispatcher
            .run(deadline, move |worker| worker.obtain(&wanted, &dispatcher))
            .map_err(|fault: Fault| fault.explain(DeviceStage::Compile, function))??;
        let port = |name: &String, v: ValueId, direction| Port {
            name: name.clone(),
            ty: chosen.ty(v).clone(),
            direction,
        };
        let ports = chosen.parameters().iter().map(|p| port(&p.name, p.value, Direction::Input));
        let ports = ports.chain(chosen.outputs().iter().map(|o| port(&o.name, o.value, Direction::Output)));
        Ok(Arc::new(AneLoaded::new(
            Arc::clone(&self.driver),
            program,
            function.into(),
            ports.collect(),
            self.options.capabilities.maps_surfaces(),
            self.options.deadline,
        )))
    }

    fn required_bytes(
        &self,
        program: &Program,
        function: &str,
        _options: LoadOptions,
    ) -> Result<usize, EngineError> {
        program.function(function).map_or_else(|| Err(EngineError::NoFunction(function.into())), |_| Ok(0))
    }

    fn buffer(&self, ty: &TensorType) -> Result<Buffer, EngineError> {
        let layout = layout(ty)?;
        let memory = self.driver.surface(layout.bytes);
        let memory = memory.map_err(|_| EngineError::Memory { bytes: layout.bytes })?;
        Buffer::on_device(ty, layout.row_stride, memory)
    }
}
