//! Validation loss.

use arcane_compile::Precision;

use crate::support::{Bench, environment};

#[test]
fn validation_is_the_mean_over_all_its_sequences_and_leaves_training_alone() {
    let bench = Bench::new();
    let environment = environment(2, Precision::Fp32);
    // Five sequences: the third batch of two is half padding.
    bench.write_tokens("valid.bin", (0..81).map(|i| i * 7 % 64));
    let valid = format!("data.valid={}", bench.path("valid.bin").display());
    let last_loss = |run: &str, options: &[&str]| {
        bench.run(run, options, &environment);
        bench.metrics(run).last().unwrap()["valid_loss"].as_f64().unwrap()
    };
    let in_parts = last_loss("two", &[&valid, "run.eval_every=3"]);
    assert!(bench.metrics("two")[1].get("valid_loss").is_none());
    // The same weights, all five sequences at once.
    bench.run("without", &[], &environment);
    let from = format!("model.from={}", bench.path("two").display());
    let before = format!("data.train={}", bench.path("valid.bin").display());
    bench.run(
        "five",
        &[&from, &before, "data.order=sequential", "train.batch=5", "train.steps=1"],
        &environment,
    );
    let at_once = bench.metrics("five")[0]["loss"].as_f64().unwrap();
    assert!((in_parts - at_once).abs() < 1e-6, "{in_parts} {at_once}");
    // The training was that without validation.
    for (mut with, without) in bench.metrics("two").into_iter().zip(bench.metrics("without")) {
        with.as_object_mut().unwrap().remove("valid_loss");
        assert_eq!(with, without);
    }
}

#[test]
fn a_fraction_is_kept_from_training() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    bench.run("a", &["data.valid_fraction=0.5", "run.eval_every=6"], &environment);
    assert!(bench.metrics("a")[5]["valid_loss"].as_f64().unwrap() > 0.0);
    bench.run("b", &["data.valid_fraction=0.5"], &environment);
    assert_eq!(bench.metrics("a")[4], bench.metrics("b")[4]);
    bench.run("c", &[], &environment);
    assert_ne!(bench.metrics("b")[0], bench.metrics("c")[0]);
}
