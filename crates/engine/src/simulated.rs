//! The simulated Neural Engine: the software engine behind the rules of a chip.
//!
//! Like the real one it is handed text and a weight file, refuses what the chip refuses with the driver's codes, numbers the
//! ports of a program by name, keeps arrays in surfaces with padded rows, and has a limited number of programs loaded. It
//! computes what the program's types say. A virtual clock and an energy meter go by the chip's prices; nothing waits for
//! them.

mod faults;
mod program;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arcane_chip::Chip;
use arcane_chip::surface::SurfaceLayout;
use arcane_mil::{BlobFile, Program, TensorType};

pub use self::faults::{Faults, StatusMeaning, status_meaning};
use self::program::SimulatedProgram;
use crate::api::{
    Buffer, Description, DeviceError, DeviceStage, Engine, EngineError, LoadOptions, Loaded, Numerics,
    Recovery,
};
use crate::software::SoftwareEngine;

/// What the engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Programs that were compiled.
    pub compiles: u64,
    /// Programs that were loaded.
    pub loads: u64,
    /// Programs that are loaded.
    pub loaded: u64,
    /// Programs that were loaded at once, at most.
    pub most_loaded: u64,
    /// Executions.
    pub dispatches: u64,
    /// Bytes of the surfaces that executions read, and that they wrote.
    pub bytes_read: u64,
    /// See `bytes_read`.
    pub bytes_written: u64,
    /// The time that the engine would have been busy, in ns.
    pub busy_ns: f64,
    /// What the engine's rail would have taken, in mJ.
    pub energy_mj: f64,
}

/// State that all programs of an engine share.
#[derive(Debug)]
struct Device {
    chip: &'static Chip,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    counters: Counters,
    faults: Faults,
}

impl Device {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A Neural Engine that is simulated.
pub struct SimulatedEngine {
    device: Arc<Device>,
    software: SoftwareEngine,
}

impl SimulatedEngine {
    /// The engine of a chip, computed by a number of threads.
    ///
    /// # Errors
    /// [`EngineError::Threads`].
    pub fn new(chip: &'static Chip, threads: usize) -> Result<Self, EngineError> {
        Self::with_faults(chip, threads, Faults::default())
    }

    /// The engine of a chip that will fail as `faults` says.
    ///
    /// # Errors
    /// [`EngineError::Threads`].
    pub fn with_faults(chip: &'static Chip, threads: usize, faults: Faults) -> Result<Self, EngineError> {
        Self::with_numerics(chip, threads, faults, Numerics::default())
    }

    /// The same, computing in an arithmetic.
    ///
    /// # Errors
    /// [`EngineError::Threads`].
    pub fn with_numerics(
        chip: &'static Chip,
        threads: usize,
        faults: Faults,
        numerics: Numerics,
    ) -> Result<Self, EngineError> {
        let state = Mutex::new(State { counters: Counters::default(), faults });
        let software = SoftwareEngine::with_numerics(threads, numerics)?;
        Ok(Self { device: Arc::new(Device { chip, state }), software })
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.device.with(|s| s.counters)
    }

    /// What it simulates.
    pub fn chip(&self) -> &'static Chip {
        self.device.chip
    }

    /// The program as the chip's compiler gets it: printed, read, checked.
    fn compile(&self, program: &Program, function: &str) -> Result<Program, EngineError> {
        let refuse = |cause: String, remedy| compile_error(function, cause, remedy);
        let count = self.device.with(|s| {
            s.counters.compiles += 1;
            s.faults.compile(s.counters.compiles, function).map_or(Ok(s.counters.compiles), Err)
        })?;
        let limit = *self.device.chip.limits.compiles_per_process as u64;
        if count > limit {
            let cause = format!("CompilationFailure: the process has compiled {limit} programs");
            return Err(refuse(cause, "share programs between layers, or start a new process"));
        }
        let chosen = program.function(function).ok_or_else(|| EngineError::NoFunction(function.into()))?;
        let alone = Program::new(vec![chosen.clone()]);
        let invalid = |why: String| refuse(format!("InvalidMILProgram: {why}"), "correct the program");
        let emitted = arcane_mil::print(&alone).map_err(|e| invalid(e.to_string()))?;
        let read = if emitted.weights.is_empty() {
            arcane_mil::read(&emitted.text, &arcane_mil::NoWeights)
        } else {
            let path = Path::new("weights/weight.bin");
            let weights = BlobFile::from_bytes(path, emitted.weights).map_err(|e| invalid(e.to_string()))?;
            arcane_mil::read(&emitted.text, &weights)
        };
        let read = read.map_err(|e| invalid(e.to_string()))?;
        let violations = read.functions.iter().flat_map(|f| arcane_chip::violations(self.device.chip, f));
        if let Some(v) = violations.into_iter().find(arcane_chip::Violation::is_fatal) {
            return Err(refuse(format!("CompilationFailure: {v}"), v.remedy));
        }
        Ok(read)
    }
}

fn compile_error(function: &str, cause: String, remedy: &'static str) -> EngineError {
    let error = DeviceError {
        stage: DeviceStage::Compile,
        function: function.into(),
        code: 1,
        status: None,
        cause,
        remedy,
        recovery: Recovery::None,
    };
    Box::new(error).into()
}

impl Engine for SimulatedEngine {
    fn describe(&self) -> Description {
        let name = format!("simulated {}", self.device.chip.name);
        Description { name, threads: self.software.describe().threads }
    }

    fn load(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<Arc<dyn Loaded>, EngineError> {
        let compiled = self.compile(program, function)?;
        let inner = self.software.load(&compiled, function, options)?;
        let read = compiled.function(function).ok_or_else(|| EngineError::NoFunction(function.into()))?;
        Ok(Arc::new(SimulatedProgram::load(&self.device, read, inner)?))
    }

    fn required_bytes(
        &self,
        program: &Program,
        function: &str,
        options: LoadOptions,
    ) -> Result<usize, EngineError> {
        self.software.required_bytes(program, function, options)
    }

    fn buffer(&self, ty: &TensorType) -> Result<Buffer, EngineError> {
        let layout = surface(ty)?;
        Buffer::with_rows(ty, layout.row_stride, layout.bytes)
    }
}

fn surface(ty: &TensorType) -> Result<SurfaceLayout, EngineError> {
    SurfaceLayout::of(ty).map_err(|e| EngineError::Port { port: ty.to_string(), why: e.to_string() })
}
