//! Gradients that are not finite.

use std::fs;

use arcane_compile::Precision;
use arcane_train::run::Start;
use arcane_train::{RunError, StepError};
use serde_json::{Value, json};

use crate::support::{Bench, assert_same_files, environment};

/// Replaces a value of the state of a checkpoint.
fn set_state(path: &std::path::Path, change: impl FnOnce(&mut Value)) {
    let path = path.join("state.json");
    let mut state: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut state);
    fs::write(path, state.to_string()).unwrap();
}

#[test]
fn an_overflow_is_skipped_and_counted_and_halves_the_scale() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp16);
    let options = ["train.batch=64", "data.order=sequential"];
    let mut run = bench.open("a", Start::New, &options, &environment).unwrap();
    let start = run.train(&|| true, &mut |_| {}).unwrap();
    set_state(&start.checkpoint, |state| state["loss_scale"]["scale"] = json!(16_777_216.0));
    let end = bench.resume("a", &options, &environment).unwrap();
    let metrics = bench.metrics("a");
    let skipped: Vec<bool> = metrics.iter().map(|m| m.get("skipped").is_some()).collect();
    assert!(skipped[0] && !skipped[5], "{metrics:?}");
    let count = skipped.iter().filter(|&&s| s).count();
    let mut scale = 16_777_216.0;
    for (m, skipped) in metrics.iter().zip(&skipped) {
        assert_eq!((m["loss_scale"].as_f64(), m["grad_norm"].is_null()), (Some(scale), *skipped));
        assert!(m["loss"].is_number());
        scale /= if *skipped { 2.0 } else { 1.0 };
    }
    assert_eq!(metrics[5]["tokens"], 6 * 64 * 16);
    let state: Value =
        serde_json::from_str(&fs::read_to_string(end.checkpoint.join("state.json")).unwrap()).unwrap();
    assert_eq!(
        (&state["step"], &state["skipped"], &state["position"]),
        (&json!(6), &json!(count), &json!(384))
    );
}

#[test]
fn a_skipped_update_leaves_weights_and_moments_alone() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp16);
    // A static scale that always overflows.
    let options = ["train.loss_scale=1e30", "train.steps=2"];
    let end = bench.run("a", &options, &environment);
    assert!(bench.metrics("a").iter().all(|m| m["skipped"] == true));
    let mut fresh = bench.open("b", Start::New, &options, &environment).unwrap();
    let start = fresh.train(&|| true, &mut |_| {}).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(
            fs::read(start.checkpoint.join(file)).unwrap(),
            fs::read(end.checkpoint.join(file)).unwrap()
        );
    }
}

#[test]
fn bias_corrections_count_applied_updates_only() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let options = ["train.steps=3", "data.order=sequential"];
    let mut run = bench.open("a", Start::New, &options, &environment).unwrap();
    let start = run.train(&|| true, &mut |_| {}).unwrap();
    // As if the first two updates of three had been skipped on the first data.
    let moved = |state: &mut Value, position: u64| {
        (state["position"], state["tokens"]) = (json!(position), json!(16 * position));
    };
    set_state(&start.checkpoint, |state| {
        (state["step"], state["skipped"]) = (json!(2), json!(2));
        moved(state, 0);
    });
    fs::rename(&start.checkpoint, bench.path("a/checkpoints/step-000002")).unwrap();
    let late = bench.resume("a", &options, &environment).unwrap();
    let early = bench.run("b", &["train.steps=1", "data.order=sequential"], &environment);
    set_state(&early.checkpoint, |state| {
        (state["step"], state["skipped"]) = (json!(3), json!(2));
    });
    set_state(&late.checkpoint, |_| {});
    assert_same_files(&early.checkpoint, &late.checkpoint);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let options = ["optimizer.lr=1e38", "optimizer.clip=0", "run.save_every=1"];
    let mut run = bench.open("a", Start::New, &options, &environment).unwrap();
    let error = run.train(&|| false, &mut |_| {}).unwrap_err();
    let RunError::Step(StepError::Diverged { metrics, .. }) = &error else { panic!("{error}") };
    assert_eq!(bench.metrics("a").len() as u64, metrics.step);
    let checkpoints = arcane_train::run_folder::checkpoints(&bench.path("a")).unwrap();
    assert_eq!(checkpoints.last().map(|c| c.step), Some(metrics.step - 1));
}

#[test]
fn overflow_under_the_smallest_dynamic_scale_ends_the_run() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp16);
    let options = ["optimizer.lr=1e30", "optimizer.clip=0", "train.steps=1000"];
    let mut run = bench.open("a", Start::New, &options, &environment).unwrap();
    let error = run.train(&|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("gradients overflow under the smallest loss scale, 1"), "{error}");
}
