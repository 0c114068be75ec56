//! `--device ane`, `auto` and `arcane doctor`: here without an engine, and with feature `gnustep` against the stand-in.

use serde_json::Value;

use crate::support::{Place, text};

/// Runs the program with rules for the stand-in.
fn arcane(place: &Place, rules: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = place.command(arguments);
    command.env("ARCANE_STAND_IN", rules);
    command.output().unwrap()
}

fn doctor(place: &Place, rules: &str, arguments: &[&str]) -> Value {
    let output = arcane(place, rules, &[&["doctor", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[cfg(not(any(target_vendor = "apple", feature = "gnustep")))]
#[test]
fn without_an_engine_it_explains_itself() {
    let place = Place::new();
    let output = arcane(&place, "", &["train", "small.toml", "--device", "ane"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("error: --device ane: not available here: the Neural Engine is part of"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1);
    assert!(!place.path("runs").exists());
    let output = arcane(&place, "", &["train", "small.toml", "--device", "auto"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let fallback: Vec<&str> = stderr.lines().filter(|l| l.contains("device: sim of m4, since")).collect();
    assert_eq!(fallback.len(), 1, "{stderr}");
    let report = doctor(&place, "", &[]);
    assert_eq!(report["devices"]["ane"], false);
    assert!(report["ane"]["why"].as_str().unwrap().contains("Apple silicon"), "{report}");
    let output = arcane(&place, "", &["doctor"]);
    assert!(text(&output.stdout).contains("ane  not available here: "), "{}", text(&output.stdout));
}

#[cfg(feature = "gnustep")]
mod with_stand_in {
    use super::*;

    fn losses(place: &Place, run: &str) -> Vec<String> {
        place.metrics(run).iter().map(|m| format!("{} {}", m["loss"], m["grad_norm"])).collect()
    }

    fn checkpoint(place: &Place, run: &str) -> Vec<Vec<u8>> {
        let folder = place.path(run).join("checkpoints/step-000004");
        let files = ["model.safetensors", "optimizer.safetensors"];
        files.iter().map(|f| std::fs::read(folder.join(f)).unwrap()).collect()
    }

    #[test]
    fn training_gives_the_simulated_engines_bits_on_either_driver() {
        let place = Place::new();
        place.succeed(&["train", "small.toml", "--device", "sim", "--run", "sim"]);
        for (run, rules) in
            [("client", ""), ("memory", "missing_class=_ANEClient"), ("reversed", "reversed_symbols")]
        {
            let output = arcane(&place, rules, &["train", "small.toml", "--device", "ane", "--run", run]);
            assert_eq!(output.status.code(), Some(0), "{run}: {}", text(&output.stderr));
            assert_eq!(losses(&place, run), losses(&place, "sim"), "{run}");
            assert_eq!(checkpoint(&place, run), checkpoint(&place, "sim"), "{run}");
        }
    }

    #[test]
    fn the_self_test_is_run_once_and_kept() {
        let place = Place::new();
        let report = doctor(&place, "", &[]);
        assert_eq!((&report["devices"]["ane"], &report["ane"]["self_test"]), (&Value::Null, &Value::Null));
        let full = doctor(&place, "", &["--full"]);
        assert_eq!(full["devices"]["ane"], true, "{full}");
        let drivers = full["ane"]["self_test"]["drivers"].as_array().unwrap();
        assert_eq!(drivers.len(), 2);
        for d in drivers {
            let probes = d["probes"].as_array().unwrap();
            assert!(probes.iter().any(|p| p["id"] == "E1" && p["outcome"] == "passed"), "{d}");
        }
        assert_eq!(doctor(&place, "", &[])["ane"]["self_test"], full["ane"]["self_test"]);
        let output = arcane(&place, "", &["doctor"]);
        let shown = text(&output.stdout);
        assert!(
            shown.contains("client: works") && shown.contains("P6   order        passed: 18 and 19"),
            "{shown}"
        );
    }

    #[test]
    fn auto_falls_back_with_the_reason_and_ane_ends_with_it() {
        let place = Place::new();
        for (rules, reason) in [
            ("virtual_machine", "this is a virtual machine"),
            ("missing_class=_ANERequest", "the framework has no class `_ANERequest`"),
            (
                "fail=evaluateWithModel:options:request:qos:error::8:16;\
                 fail=evaluateWithQoS:options:request:error::8:16",
                "probe P4 (identity) of the self-test failed",
            ),
        ] {
            let _ = std::fs::remove_dir_all(place.path("cache"));
            let output = arcane(&place, rules, &["train", "small.toml", "--device", "ane"]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{rules}: {stderr}");
            assert!(stderr.contains("not available here") && stderr.contains(reason), "{rules}: {stderr}");
            let output = arcane(&place, rules, &["bench", "conformance", "--device", "auto"]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{rules}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(
                stderr.contains("device: sim of m4, since") && stderr.contains(reason),
                "{rules}: {stderr}"
            );
        }
    }

    #[test]
    fn conformance_is_measured_on_the_engine() {
        let place = Place::new();
        let measure = |device: &str| -> Value {
            let output = arcane(&place, "", &["bench", "conformance", "--device", device]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let (sim, ane) = (measure("sim"), measure("ane"));
        assert_eq!((sim["device"].as_str(), ane["device"].as_str()), (Some("sim"), Some("ane")));
        assert_eq!(
            (&sim["cases"], &sim["passed"], &sim["failed"]),
            (&ane["cases"], &ane["passed"], &ane["failed"])
        );
        assert_eq!(ane["failed"], Value::Array(Vec::new()), "{ane}");
    }

    #[test]
    fn an_update_that_the_engine_fails_is_tried_again_or_ends_with_its_cause() {
        let place = Place::new();
        place.succeed(&["train", "small.toml", "--device", "sim", "--run", "sim"]);
        // The self-test is behind it, so that calls count from training's first one.
        doctor(&place, "", &["--full"]);
        let selector = "evaluateWithModel:options:request:qos:error:";
        let passes = format!("fail={selector}:8:12@9");
        let output = arcane(&place, &passes, &["train", "small.toml", "--device", "ane", "--run", "shaken"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(checkpoint(&place, "shaken"), checkpoint(&place, "sim"));
        let ends = format!("fail={selector}:8:1d@9");
        let output = arcane(&place, &ends, &["train", "small.toml", "--device", "ane", "--run", "ended"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("(code 8, status 0x1d)"), "{stderr}");
    }
}
