//! The flags that say where and in what a program computes.

use std::io::Write;
use std::sync::Arc;

use arcane_compile::Precision;
use arcane_engine::{Engine, SoftwareEngine};
use arcane_train::trainer::Environment;
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::system::{SystemClock, available_bytes, processors};

/// More threads than any machine has are a mistake.
const MAX_THREADS: u64 = 1024;

/// Where, in what, and with how many threads.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArguments {
    /// Where the program runs [default: auto where a model is trained, else cpu].
    #[arg(long, value_enum)]
    pub(crate) device: Option<Device>,
    /// What products and activations are computed in [default: fp32 on cpu].
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

/// What a program computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// Everything in fp32.
    Fp32,
    /// Products and activations in fp16; weights and their updates in fp32.
    Fp16,
}

impl Dtype {
    fn precision(self) -> Precision {
        match self {
            Self::Fp32 => Precision::Fp32,
            Self::Fp16 => Precision::Fp16,
        }
    }
}

/// The engine that the flags ask for, and what goes with it.
pub(crate) struct Chosen {
    /// The device's name.
    pub(crate) device: &'static str,
    /// What a run gets.
    pub(crate) environment: Environment,
}

impl DeviceArguments {
    /// Starts the engine that is asked for, or else the default one.
    pub(crate) fn choose(&self, default: Device) -> Result<Chosen, Failure> {
        let device = self.device.unwrap_or(default);
        match device {
            Device::Cpu => {}
            Device::Auto => {
                let line =
                    "device: cpu, since this build has neither the Neural Engine nor the simulated one";
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Device::Ane | Device::Sim => {
                let name = if device == Device::Ane { "ane" } else { "sim" };
                return Err(Failure::input(format!(
                    "--device {name}: this build does not have this device, expected cpu or auto"
                )));
            }
        }
        let threads = self.threads.map_or_else(processors, |n| n as usize);
        let engine: Arc<dyn Engine> = match SoftwareEngine::new(threads) {
            Ok(engine) => Arc::new(engine),
            Err(e) => return Err(Failure::Failed(e.into())),
        };
        let environment = Environment {
            engine,
            precision: self.dtype.map_or(Precision::Fp32, Dtype::precision),
            clock: Arc::new(SystemClock::start()),
            available_bytes: available_bytes(),
        };
        Ok(Chosen { device: "cpu", environment })
    }
}
