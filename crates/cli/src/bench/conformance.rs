//! `arcane bench conformance`: an engine against the reference evaluator.

use arcane_engine::conformance::{self, Case};
use arcane_engine::{Engine, EngineError, LoadOptions};
use serde_json::{Value, json};

use crate::device::{Device, DeviceArguments};
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// What an engine made of a case.
enum Verdict {
    Passed,
    /// It does not take such programs.
    Refused(String),
    Failed(String),
}

fn judge(engine: &dyn Engine, case: &Case) -> Verdict {
    match conformance::check(engine, case, LoadOptions::default()) {
        Ok(()) => Verdict::Passed,
        Err(conformance::Failure::Engine { case, source: EngineError::Device(e) }) if e.code == 1 => {
            Verdict::Refused(format!("{case}: {e}"))
        }
        Err(failure) => Verdict::Failed(failure.to_string()),
    }
}

/// How many cases an engine passes, and which not.
pub(crate) fn measure(arguments: &Arguments) -> Result<Value, Failure> {
    let chosen = arguments.device.choose(Device::Cpu)?;
    let engines = &chosen.environment.engines;
    let engine = engines.accelerator.as_ref().unwrap_or(&engines.host);
    let (mut passed, mut refused, mut failed) = (0, Vec::new(), Vec::new());
    let cases = conformance::cases();
    for case in &cases {
        match judge(engine.as_ref(), case) {
            Verdict::Passed => passed += 1,
            Verdict::Refused(why) => refused.push(why),
            Verdict::Failed(why) => failed.push(why),
        }
    }
    Ok(json!({
        "device": chosen.device,
        "engine": engine.describe().name,
        "cases": cases.len(),
        "passed": passed,
        "refused": refused,
        "failed": failed,
    }))
}
