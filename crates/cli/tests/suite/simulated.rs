//! `--device sim`, `arcane plan`.

use std::fs;

use serde_json::Value;

use crate::support::{Place, text};

const TRAIN: [&str; 4] = ["train", "small.toml", "--device", "sim"];

fn bytes(place: &Place, run: &str, step: u32) -> Vec<Vec<u8>> {
    let folder = place.path(run).join(format!("checkpoints/step-{step:06}"));
    let files = ["model.safetensors", "optimizer.safetensors", "state.json"];
    files.iter().map(|f| fs::read(folder.join(f)).unwrap()).collect()
}

#[test]
fn training_is_simulated_by_default_and_marked_as_modelled() {
    let place = Place::new();
    let output = place.arcane(&["train", "small.toml", "--json"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("device: sim of m4"), "{stderr}");
    let summary: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(summary["modelled"]["chip"], "m4");
    for m in place.metrics("runs/small") {
        assert!(
            m["predicted_ms"].as_f64().unwrap() > 0.0 && m["predicted_mj"].as_f64().unwrap() > 0.0,
            "{m}"
        );
    }
    let output = place.arcane(&["train", "small.toml", "--run", "again"]);
    assert!(text(&output.stderr).contains("modelled, not measured: "), "{}", text(&output.stderr));
    place.succeed(&["train", "small.toml", "--device", "cpu", "--run", "cpu"]);
    for (sim, cpu) in place.metrics("runs/small").iter().zip(place.metrics("cpu")) {
        let difference = sim["loss"].as_f64().unwrap() - cpu["loss"].as_f64().unwrap();
        assert!(difference.abs() < 2e-2, "{sim} {cpu}");
    }
}

#[test]
fn an_engine_that_fails_loses_no_update() {
    let place = Place::new();
    let steps = ["--steps", "6", "--set", "run.save_every=2"];
    place.succeed(&[&TRAIN[..], &steps, &["--run", "straight"]].concat());
    for (run, fault, cause) in [
        (
            "evaluate",
            "sim.fail_evaluate=25",
            "a surface is missing, too small or another's (code 8, status 0x1d)",
        ),
        ("hang", "sim.hang=25", "did not end before its deadline (code 3, status 0xf)"),
    ] {
        let output = place.arcane(&[&TRAIN[..], &steps, &["--run", run, "--set", fault]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(cause), "{stderr}");
        let done = place.metrics(run).len();
        assert!((1..6).contains(&done), "{done} updates");
        assert_eq!(bytes(&place, run, done as u32).len(), 3, "the updates so far have a checkpoint");
        place.succeed(&[&TRAIN[..], &steps, &["--run", run, "--resume"]].concat());
        assert_eq!(bytes(&place, run, 6), bytes(&place, "straight", 6), "{run}");
    }
}

#[test]
fn an_engine_that_cannot_be_used_leaves_nothing() {
    let place = Place::new();
    for (fault, cause) in [
        ("sim.fail_compile=2", "ANECCompile() failed"),
        ("sim.slots=1", "all 1 slots for programs are taken"),
    ] {
        let output = place.arcane(&[&TRAIN[..], &["--set", fault]].concat());
        let stderr = text(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(cause), "{stderr}");
        assert!(!place.path("runs/small").exists());
    }
}

#[test]
fn errors_that_pass_do_not_show_in_the_result() {
    let place = Place::new();
    place.succeed(&[&TRAIN[..], &["--run", "straight"]].concat());
    let faults = ["--set", "sim.fail_load=1", "--set", "sim.fail_evaluate=3", "--set", "sim.status=0x12"];
    place.succeed(&[&TRAIN[..], &["--run", "shaken"], &faults].concat());
    assert_eq!(bytes(&place, "shaken", 4), bytes(&place, "straight", 4));
}

#[test]
fn a_plan_says_what_the_contract_names() {
    let place = Place::new();
    let plan =
        place.succeed(&["plan", "stories260k", "--chip", "m1", "--json", "--tokens-per-update", "1024"]);
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((plan["chip"].as_str(), plan["tokens"].as_u64()), (Some("m1"), Some(1024)));
    let number = |key: &str| plan[key].as_f64().unwrap_or_else(|| panic!("{key} in {plan}"));
    assert!(number("predicted_ms") > 0.0 && number("predicted_mj") > 0.0 && number("flops") > 0.0);
    assert!((0.0..=1.0).contains(&number("critical_host_share")) && number("utilization") < 1.0);
    assert!(number("programs") <= 60.0 && number("dispatches") >= number("programs"));
    let out = place.succeed(&["plan", "small.toml", "--chip", "m4", "--explain", "--out", "plan"]);
    assert!(out.contains("ops repeat") && out.contains("on the host:"), "{out}");
    let index: Value = serde_json::from_slice(&fs::read(place.path("plan/plan.json")).unwrap()).unwrap();
    let programs = index["programs"].as_array().unwrap();
    for p in programs {
        let file = place.path("plan/programs").join(p["name"].as_str().unwrap()).join("model.mil");
        assert!(file.is_file(), "{}", file.display());
        if p["place"] == "engine" {
            place.succeed(&["check", file.to_str().unwrap(), "--chip", "m4"]);
        }
    }
    let again = place.arcane(&["plan", "small.toml", "--out", "plan"]);
    assert_eq!(again.status.code(), Some(2));
    let unknown = place.arcane(&["plan", "stories260k", "--chip", "m9"]);
    assert_eq!(unknown.status.code(), Some(2));
}
