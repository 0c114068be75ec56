//! `arcane doctor`.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::neural_engine::{Found, find};
use crate::system::{available_bytes, processors};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run the self-test of the Neural Engine, with the probes that take longer; its outcome is kept for --device ane and auto.
    #[arg(long)]
    full: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let report = report(arguments.full);
    let printed = if arguments.json { writeln!(io::stdout(), "{report}") } else { print(&report) };
    printed.map_err(|e| Failure::Failed(e.into()))
}

/// What this machine can do and why not.
fn report(full: bool) -> Value {
    let mut report = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "processors": processors(),
        "available_bytes": available_bytes(),
        "devices": { "cpu": true, "sim": true, "ane": false },
    });
    let found = match find() {
        Ok(found) => found,
        Err(why) => {
            report["ane"] = json!({ "why": why.to_string() });
            return report;
        }
    };
    let tested = if full {
        let tested = found.test(true);
        Found::keep(&tested);
        Some(tested)
    } else {
        found.kept_report()
    };
    let usable = |t: &Value| t["drivers"].as_array().is_some_and(|d| d.iter().any(|d| d["usable"] == true));
    report["devices"]["ane"] = tested.as_ref().map_or(Value::Null, |t| usable(t).into());
    report["ane"] = neural_engine(&found, tested.as_ref());
    report
}

fn neural_engine(found: &Found, tested: Option<&Value>) -> Value {
    let machine = &found.machine;
    json!({
        "processor": machine.processor,
        "system_version": machine.version,
        "build": machine.build,
        "architecture": machine.architecture,
        "engines": machine.engines,
        "cores": machine.cores,
        "chip": found.chip.name,
        "chip_is_known": found.exact,
        "drivers": found.drivers().map(|(name, why)| json!({ "name": name, "why": why })).collect::<Vec<_>>(),
        "self_test": tested,
    })
}

fn print(report: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), Into::into);
    writeln!(
        out,
        "arcane {} on {} {}, {} processors",
        text(&report["version"]),
        text(&report["system"]),
        text(&report["machine"]),
        report["processors"]
    )?;
    writeln!(out, "cpu  works\nsim  works")?;
    let ane = &report["ane"];
    if let Some(why) = ane["why"].as_str() {
        return writeln!(out, "ane  not available here: {why}");
    }
    writeln!(
        out,
        "ane  {}, macOS {} ({}), {} engine(s) {}, planned for {}{}",
        text(&ane["processor"]),
        text(&ane["system_version"]),
        text(&ane["build"]),
        ane["engines"],
        text(&ane["architecture"]),
        text(&ane["chip"]),
        if ane["chip_is_known"] == true { "" } else { ", the nearest that is known" }
    )?;
    let Some(drivers) = ane["self_test"]["drivers"].as_array() else {
        for d in ane["drivers"].as_array().into_iter().flatten() {
            let state =
                d["why"].as_str().map_or("is there".into(), |why| format!("not available here: {why}"));
            writeln!(out, "     {}: {state}", text(&d["name"]))?;
        }
        return writeln!(out, "     not tested yet: arcane doctor --full");
    };
    for d in drivers {
        let state = match d["why"].as_str() {
            None => "works".into(),
            Some(why) => format!("not available here: {why}"),
        };
        writeln!(out, "     {}: {state}", text(&d["name"]))?;
        for p in d["probes"].as_array().into_iter().flatten() {
            let (id, name, outcome) = (text(&p["id"]), text(&p["name"]), text(&p["outcome"]));
            let note = match (outcome.as_str(), text(&p["consequence"]).as_str()) {
                ("failed", "note" | "required") => format!(", {} was expected", text(&p["expected"])),
                ("failed", off) => format!(", {} was expected: {off} is off", text(&p["expected"])),
                _ => String::new(),
            };
            writeln!(out, "       {id:<4} {name:<12} {outcome}: {}{note}", text(&p["found"]))?;
        }
    }
    Ok(())
}
