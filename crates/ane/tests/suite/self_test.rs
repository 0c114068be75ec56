//! The self-test: what it finds, and what it switches off.

use std::collections::BTreeMap;

use arcane_ane::{AneEngine, Capability, Outcome, Report, self_test};

use crate::stand_in::{Adding, DRIVERS, StandIn};

fn outcomes(report: &Report) -> BTreeMap<&str, &Outcome> {
    report.probes.iter().map(|p| (p.id, &p.outcome)).collect()
}

/// Runs all probes, which have to give what they should; the time of a call may be any.
pub(crate) fn checks_out(mut engine: AneEngine, what: &str) -> Report {
    let report = self_test(&mut engine, true);
    for p in report.probes.iter().filter(|p| !["P16", "P15", "F1", "F2", "F3"].contains(&p.id)) {
        assert!(matches!(p.outcome, Outcome::Passed(_)), "{what}: {p:?}");
    }
    report.usable().unwrap();
    report
}

#[test]
fn the_stand_in_passes_and_only_has_no_fp32_ports() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let report = checks_out(stand_in.engine(driver), driver);
        let off: Vec<Capability> = report.capabilities.missing().map(|(c, _)| c).collect();
        assert!(off.is_empty() || off == [Capability::Fp32Ports], "{off:?}");
        assert!(outcomes(&report).contains_key("E1"), "the full test has more");
    }
}

#[test]
fn what_the_attributes_do_not_tell_is_found_and_switched_off() {
    for (rules, probe, capability, found) in [
        ("no_attributes;reversed_symbols", "P6", Capability::SeveralPorts, "outputs swapped"),
        ("no_attributes;row_bytes=256", "P5", Capability::PaddedRows, "at element"),
    ] {
        let stand_in = StandIn::new(rules);
        let mut engine = stand_in.engine("client");
        let report = self_test(&mut engine, false);
        // Rows of 128 bytes are cut short, too, so that the driver is of no use.
        if probe == "P5" {
            let text = report.usable().unwrap_err().to_string();
            assert!(text.contains("P4 (identity)"), "{text}");
            continue;
        }
        report.usable().unwrap();
        let Outcome::Failed(why) = outcomes(&report)[probe] else { panic!("{rules}: {probe} passed") };
        assert!(why.contains(found), "{why}");
        assert!(report.capabilities.missing().any(|(c, _)| c == capability));
        stand_in.plant("");
    }
}

#[test]
fn rows_of_four_alone_can_be_wrong() {
    let stand_in = StandIn::new("no_attributes;row_bytes=128");
    let mut engine = stand_in.engine("client");
    let report = self_test(&mut engine, false);
    report.usable().unwrap();
    let off: Vec<Capability> = report.capabilities.missing().map(|(c, _)| c).collect();
    assert!(off.contains(&Capability::PaddedRows), "{off:?}");
    let reason =
        report.capabilities.missing().find(|(c, _)| *c == Capability::PaddedRows).unwrap().1.to_string();
    assert!(reason.starts_with("probe P5 gave"), "{reason}");
    // What needs it is refused with the reason, what does not still runs.
    assert_eq!(Adding::new(&engine, 21.0).unwrap().call(1.0).unwrap(), 22.0);
    stand_in.plant("");
}

#[test]
fn a_required_probe_that_fails_ends_the_test() {
    let stand_in = StandIn::new("fail=evaluateWithModel:options:request:qos:error::8:16");
    let mut engine = stand_in.engine("client");
    let report = self_test(&mut engine, true);
    assert_eq!(report.probes.last().unwrap().id, "P4");
    let text = report.usable().unwrap_err().to_string();
    assert!(
        text.starts_with("probe P4 (identity) of the self-test failed") && text.contains("0x16"),
        "{text}"
    );
}
