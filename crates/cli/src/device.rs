//! The flags that say where and in what a program computes.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use arcane_ane::{AneEngine, Unavailable};
use arcane_chip::Chip;
use arcane_chip::arithmetic::{Tables, unmodelled};
use arcane_compile::{Place, Plan, Precision};
use arcane_engine::{Engine, EngineError, Faults, Numerics, SimulatedEngine, SoftwareEngine};
use arcane_session::Engines;
use arcane_train::trainer::Environment;
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::neural_engine;
use crate::system::{SystemClock, available_bytes, processors};

/// More threads than any machine has are a mistake.
const MAX_THREADS: u64 = 1024;

/// Where, in what, and with how many threads.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArguments {
    /// Where the program runs [default: auto where a model is trained, else cpu].
    #[arg(long, value_enum)]
    pub(crate) device: Option<Device>,
    /// The chip whose engine sim simulates; ane takes this machine's.
    #[arg(long, value_name = "CHIP", default_value = "m4")]
    pub(crate) chip: String,
    /// The arithmetic of fp16: as declared, that of the chip's silicon, or fp32.
    #[arg(long, value_enum, default_value = "declared")]
    pub(crate) numerics: NumericsChoice,
    /// What products and activations are computed in [default: fp32 on cpu, fp16 on sim and ane].
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Dtype>,
    /// Threads that compute [default: as many as there are processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u64>,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The Neural Engine where it works, else the simulated one.
    Auto,
    /// The Neural Engine.
    Ane,
    /// The simulated Neural Engine.
    Sim,
    /// The software engine.
    Cpu,
}

impl Device {
    /// Its name, of one that was chosen.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ane => "ane",
            Self::Sim => "sim",
            Self::Cpu => "cpu",
        }
    }
}

/// What a program computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// Everything in fp32.
    Fp32,
    /// Products and activations in fp16; weights and their updates in fp32.
    Fp16,
}

/// In which arithmetic fp16 is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumericsChoice {
    /// As the types say, rounded once, ties to even.
    Declared,
    /// As the silicon of the chip computes.
    Chip,
    /// In fp32.
    Fp32,
}

/// The engines that the flags ask for, and what goes with them.
pub(crate) struct Chosen {
    /// The device's name.
    pub(crate) device: &'static str,
    /// The simulated engine, if the device has one.
    pub(crate) simulated: Option<Arc<SimulatedEngine>>,
    /// The tables of the silicon, if that is what is computed.
    pub(crate) tables: Option<Tables>,
    /// What a run gets.
    pub(crate) environment: Environment,
}

impl Chosen {
    /// Says on stderr which ops of a plan have no model of the silicon that computes them.
    pub(crate) fn report_unmodelled(&self, plan: &Plan) {
        let Some(tables) = self.tables else { return };
        let silicon = if self.simulated.is_some() { Place::Engine } else { Place::Host };
        let functions = plan.program.functions.iter().zip(&plan.places).filter(|(_, p)| **p == silicon);
        let ops: BTreeSet<&str> = functions.flat_map(|(f, _)| unmodelled(tables, f)).collect();
        if !ops.is_empty() {
            let ops: Vec<&str> = ops.into_iter().collect();
            let line = format!(
                "--numerics chip: no model of {}; computed in declared types, rounded half away from zero",
                ops.join(", ")
            );
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

impl DeviceArguments {
    /// Starts the engines that are asked for, or else the default ones.
    pub(crate) fn choose(&self, default: Device) -> Result<Chosen, Failure> {
        self.choose_with(default, Faults::default())
    }

    /// The same; a simulated engine fails as `faults` says.
    pub(crate) fn choose_with(&self, default: Device, faults: Faults) -> Result<Chosen, Failure> {
        let wanted = self.device.unwrap_or(default);
        let mut chip = Chip::named(&self.chip).map_err(|e| Failure::input(format!("--chip: {e}")))?;
        let (device, ane) = match (wanted, Self::neural_engine(wanted)) {
            (_, Some(Ok(engine))) => (Device::Ane, Some(engine)),
            (Device::Ane, Some(Err(why))) => {
                let why = format!("--device ane: not available here: {why}; expected sim, cpu or auto");
                return Err(Failure::input(why));
            }
            (_, Some(Err(why))) => {
                let line =
                    format!("device: sim of {}, since the Neural Engine is not available: {why}", self.chip);
                let _ = writeln!(std::io::stderr(), "{}", line.replace('\n', " "));
                (Device::Sim, None)
            }
            (chosen, None) => (chosen, None),
        };
        if let Some(engine) = &ane {
            // Programs for another chip might not load.
            chip = engine.options().chip;
        }
        let threads = self.threads.map_or_else(processors, |n| n as usize);
        let failed = |e: EngineError| Failure::Failed(e.into());
        let numerics = match self.numerics {
            NumericsChoice::Declared => Numerics::Declared,
            NumericsChoice::Fp32 => Numerics::Fp32,
            NumericsChoice::Chip => Numerics::Chip(
                chip.known_tables().map_err(|e| Failure::input(format!("--numerics chip: {e}")))?,
            ),
        };
        let simulated = match device {
            Device::Sim => {
                let engine = SimulatedEngine::with_numerics(chip, threads, faults, numerics);
                Some(Arc::new(engine.map_err(failed)?))
            }
            _ => None,
        };
        if ane.is_some() && numerics != Numerics::Declared {
            return Err(Failure::input(
                "--numerics: the Neural Engine computes as it does; cpu or sim was expected",
            ));
        }
        // Beside an accelerator the host is a processor.
        let on_chip = simulated.is_some() || ane.is_some();
        let on_host = if on_chip { Numerics::Declared } else { numerics };
        let host = SoftwareEngine::with_numerics(threads, on_host).map_err(failed)?;
        let host: Arc<dyn Engine> = Arc::new(host);
        let precision = match self.dtype.unwrap_or(if on_chip { Dtype::Fp16 } else { Dtype::Fp32 }) {
            Dtype::Fp32 => Precision::Fp32,
            Dtype::Fp16 if on_chip => Precision::Engine,
            Dtype::Fp16 => Precision::Fp16,
        };
        let accelerator = simulated.clone().map(|s| s as Arc<dyn Engine>);
        let accelerator = accelerator.or(ane.map(|e| e as Arc<dyn Engine>));
        let environment = Environment {
            engines: Engines { accelerator, host },
            chip: on_chip.then_some(chip),
            precision,
            clock: Arc::new(SystemClock::start()),
            available_bytes: available_bytes(),
        };
        let tables = match numerics {
            Numerics::Chip(tables) => Some(tables),
            Numerics::Declared | Numerics::Fp32 => None,
        };
        Ok(Chosen { device: device.name(), simulated, tables, environment })
    }

    /// The Neural Engine, or why not, if it is asked for.
    fn neural_engine(wanted: Device) -> Option<Result<Arc<AneEngine>, Unavailable>> {
        matches!(wanted, Device::Ane | Device::Auto).then(neural_engine::engine)
    }
}
