//! The self-test: small programs with known results, each of which stands for something that larger ones rely on.
//!
//! A probe whose result is another one switches a capability off, or, if it is required, the whole driver. Values are exact in
//! fp16. (The probes and their results: the facts of about twenty projects, see `probes`.)

mod probes;

use std::time::Duration;

use crate::capability::{Capabilities, Capability};
use crate::engine::AneEngine;
use crate::unavailable::Unavailable;

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result is the expected one.
    Passed(String),
    /// It is not; what was found.
    Failed(String),
    /// It was not run; why.
    Skipped(String),
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The driver cannot be used.
    Required,
    /// A capability is switched off.
    Off(Capability),
    /// It is worth knowing.
    Note,
}

/// A probe and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Its number: `P4`.
    pub id: &'static str,
    /// What it tries.
    pub name: &'static str,
    /// What should come out.
    pub expected: &'static str,
    /// What did.
    pub outcome: Outcome,
    /// What a failure means.
    pub consequence: Consequence,
    /// How long it took.
    pub took: Duration,
}

/// All probes of one driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The driver.
    pub driver: &'static str,
    /// In the order in which they ran; after a required one that failed none did.
    pub probes: Vec<ProbeResult>,
    /// What they switched off.
    pub capabilities: Capabilities,
}

impl Report {
    /// Whether the driver can be used.
    ///
    /// # Errors
    /// [`Unavailable::SelfTest`] with the required probe that failed.
    pub fn usable(&self) -> Result<(), Unavailable> {
        let failed = self.probes.iter().find_map(|p| match (&p.outcome, p.consequence) {
            (Outcome::Failed(why), Consequence::Required) => Some((p, why)),
            _ => None,
        });
        let error = |(p, why): (&ProbeResult, &String)| Unavailable::SelfTest {
            probe: format!("{} ({})", p.id, p.name),
            why: format!("{why}, {} was expected", p.expected),
        };
        failed.map(error).map_or(Ok(()), Err)
    }
}

/// A probe before it runs.
struct Probe {
    id: &'static str,
    name: &'static str,
    expected: &'static str,
    consequence: Consequence,
    /// Only in the full test: it takes long, or makes an error on purpose.
    full: bool,
    run: fn(&mut AneEngine) -> Outcome,
}

/// Tries an engine, and from then on has it refuse what it does not do.
pub fn self_test(engine: &mut AneEngine, full: bool) -> Report {
    let driver = engine.driver().name();
    let mut report = Report { driver, probes: Vec::new(), capabilities: Capabilities::default() };
    engine.restrict(Capabilities::default());
    for probe in probes::ALL.iter().filter(|p| full || !p.full) {
        let began = (engine.options().clock)();
        let outcome = (probe.run)(engine);
        let took = (engine.options().clock)().saturating_sub(began);
        if let (Outcome::Failed(found), Consequence::Off(capability)) = (&outcome, probe.consequence) {
            let reason = format!("probe {} gave {found}, {} was expected", probe.id, probe.expected);
            report.capabilities.switch_off(capability, reason);
            // What follows is written without it.
            engine.restrict(report.capabilities.clone());
        }
        let ends = matches!((&outcome, probe.consequence), (Outcome::Failed(_), Consequence::Required));
        let Probe { id, name, expected, consequence, .. } = *probe;
        report.probes.push(ProbeResult { id, name, expected, outcome, consequence, took });
        if ends {
            break;
        }
    }
    report
}
