//! The Neural Engine of this machine: whether it works, by a self-test whose outcome is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arcane_ane::{
    AneEngine, Capabilities, Capability, Consequence, Driver, Frameworks, Libraries, Machine, Options,
    Outcome, Report, Unavailable, self_test,
};
use arcane_chip::Chip;
use arcane_tensor::{read_limited, write_atomically};
use serde_json::{Value, json};

/// Far more than a report has.
const REPORT_BYTES: u64 = 1 << 20;

/// The machine, and the ways to its engine.
pub(crate) struct Found {
    pub(crate) machine: Machine,
    pub(crate) chip: &'static Chip,
    /// Whether the chip is known by its name; else it is the nearest older one.
    pub(crate) exact: bool,
    drivers: Vec<(&'static str, Result<Arc<dyn Driver>, Unavailable>)>,
}

/// Opens the frameworks.
pub(crate) fn find() -> Result<Found, Unavailable> {
    let frameworks = Frameworks::open(&libraries())?;
    let machine = frameworks.machine().clone();
    let unknown = || Unavailable::Machine(format!("the processor `{}` is not known", machine.processor));
    let (chip, exact) = machine.chip().ok_or_else(unknown)?;
    Ok(Found { chip, exact, drivers: frameworks.drivers(), machine })
}

/// Those of the system; in a build for tests on Linux, the one that a variable names.
fn libraries() -> Libraries {
    #[cfg(feature = "gnustep")]
    if let Some(path) = std::env::var_os("ARCANE_STAND_IN_LIBRARY") {
        return Libraries::stand_in(Path::new(&path));
    }
    Libraries::system()
}

/// The engine of this machine, as the self-test left it: the first driver that can be used.
pub(crate) fn engine() -> Result<Arc<AneEngine>, Unavailable> {
    let found = find()?;
    let kept = found.kept_report();
    let report = match kept {
        Some(report) => report,
        None => {
            let report = found.test(false);
            found.keep(&report);
            report
        }
    };
    let mut reason = Unavailable::Machine("there is no way to the engine".into());
    for (name, driver) in &found.drivers {
        let entry = report["drivers"].as_array().and_then(|d| d.iter().find(|d| d["name"] == *name));
        match (driver, entry.map(|e| (e, e["usable"] == true))) {
            (Ok(driver), Some((entry, true))) => {
                let options = Options { capabilities: capabilities(entry), ..found.options() };
                let engine = AneEngine::new(Arc::clone(driver), options);
                return engine.map(Arc::new).map_err(|e| Unavailable::Framework(e.to_string()));
            }
            (Err(why), _) => reason = why.clone(),
            (Ok(_), entry) => {
                let why = entry.and_then(|(e, _)| e["why"].as_str()).unwrap_or("it was not tested");
                reason = Unavailable::Machine(format!("{name}: {why}"));
            }
        }
    }
    Err(reason)
}

/// What a kept report says that a driver does not do.
fn capabilities(entry: &Value) -> Capabilities {
    let mut capabilities = Capabilities::default();
    for (name, reason) in entry["off"].as_object().into_iter().flatten() {
        if let Some(capability) = Capability::named(name) {
            capabilities.switch_off(capability, reason.as_str().unwrap_or_default());
        }
    }
    capabilities
}

impl Found {
    fn options(&self) -> Options {
        let began = Instant::now();
        let clock = Arc::new(move || began.elapsed());
        let mut options = Options::new(self.chip, std::env::temp_dir(), clock);
        options.build.clone_from(&self.machine.build);
        if !self.machine.architecture.is_empty() {
            options.architecture.clone_from(&self.machine.architecture);
        }
        options
    }

    /// The ways to the engine, and why those that are not there are not.
    pub(crate) fn drivers(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        self.drivers.iter().map(|(name, driver)| (*name, driver.as_ref().err().map(ToString::to_string)))
    }

    /// Runs the self-test on every driver that is there.
    pub(crate) fn test(&self, full: bool) -> Value {
        let drivers: Vec<Value> = self
            .drivers
            .iter()
            .map(|(name, driver)| {
                let tested = match driver {
                    Err(why) => Err(why.to_string()),
                    Ok(driver) => {
                        AneEngine::new(Arc::clone(driver), self.options()).map_err(|e| e.to_string())
                    }
                };
                match tested {
                    Err(why) => json!({ "name": name, "usable": false, "why": why, "off": {}, "probes": [] }),
                    Ok(mut engine) => driver_report(&self_test(&mut engine, full)),
                }
            })
            .collect();
        json!({ "key": self.key(), "full": full, "drivers": drivers })
    }

    /// What a report depends on: system, engine and this program.
    fn key(&self) -> Value {
        let program = std::env::current_exe().and_then(std::fs::metadata).ok();
        let modified = program.as_ref().and_then(|m| m.modified().ok());
        let modified = modified.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "program_bytes": program.map(|m| m.len()),
            "program_modified": modified.map(|t| t.as_secs()),
            "build": self.machine.build,
            "processor": self.machine.processor,
            "architecture": self.machine.architecture,
            "drivers": self.drivers.iter().map(|(_, d)| d.is_ok()).collect::<Vec<_>>(),
        })
    }

    /// The report of an earlier test on the same system with the same program.
    pub(crate) fn kept_report(&self) -> Option<Value> {
        let bytes = read_limited(&report_path()?, REPORT_BYTES).ok()?;
        let report: Value = serde_json::from_slice(&bytes).ok()?;
        (report["key"] == self.key()).then_some(report)
    }

    /// Keeps a report. That it cannot be kept costs the next start the same test.
    pub(crate) fn keep(&self, report: &Value) {
        let Some(path) = report_path() else { return };
        let made = path.parent().map(std::fs::create_dir_all);
        if made.is_some_and(|m| m.is_ok()) {
            let _ = write_atomically(&path, |file| writeln!(file, "{report}"));
        }
    }
}

/// The user's folder of caches, if there is one.
fn report_path() -> Option<PathBuf> {
    let home = |below: &str| std::env::var_os("HOME").map(|home| Path::new(&home).join(below));
    let folder = match std::env::var_os("XDG_CACHE_HOME").filter(|f| !f.is_empty()) {
        Some(folder) => Some(folder.into()),
        None if cfg!(target_vendor = "apple") => home("Library/Caches"),
        None => home(".cache"),
    };
    Some(folder?.join("arcane/neural-engine.json"))
}

/// A driver's report as JSON.
fn driver_report(report: &Report) -> Value {
    let off: serde_json::Map<String, Value> =
        report.capabilities.missing().map(|(c, reason)| (c.name().into(), reason.into())).collect();
    let probes: Vec<Value> = report
        .probes
        .iter()
        .map(|p| {
            let (outcome, found) = match &p.outcome {
                Outcome::Passed(found) => ("passed", found),
                Outcome::Failed(found) => ("failed", found),
                Outcome::Skipped(why) => ("skipped", why),
            };
            let consequence = match p.consequence {
                Consequence::Required => "required",
                Consequence::Off(capability) => capability.name(),
                Consequence::Note => "note",
            };
            json!({
                "id": p.id,
                "name": p.name,
                "expected": p.expected,
                "outcome": outcome,
                "found": found,
                "consequence": consequence,
                "ms": p.took.as_secs_f64() * 1e3,
            })
        })
        .collect();
    let usable = report.usable();
    json!({
        "name": report.driver,
        "usable": usable.is_ok(),
        "why": usable.err().map(|e| e.to_string()),
        "off": off,
        "probes": probes,
    })
}
