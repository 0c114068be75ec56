//! Losses and gradients that stand out.

use std::cell::Cell;
use std::fs;

use arcane_compile::Precision;
use arcane_train::run::{Event, Start};
use serde_json::{Value, json};

use crate::support::{Bench, environment};

/// Updates of the runs here, and the one whose data are unlike all others.
const STEPS: &str = "train.steps=140";
const SPIKE: u64 = 120;
const OPTIONS: [&str; 3] = [STEPS, "data.train=even.bin", "data.order=sequential"];

/// A bench whose tokens are drawn from two, but for the batch of one update. So there is little to learn, and that evenly.
fn bench(has_spike: bool) -> Bench {
    let bench = Bench::new();
    // The first token of an update is the last target of the one before.
    let spike = 32 * (SPIKE as u32 - 1) + 1..32 * SPIKE as u32;
    let token = |i: u32| if has_spike && spike.contains(&i) { i * i * 7 % 61 } else { 1 + bit(i) };
    bench.write_tokens("even.bin", (0..=32 * 140).map(|i| token(i) as u16));
    bench
}

/// A bit that looks random: the high one of a multiplicative hash.
fn bit(i: u32) -> u32 {
    (i ^ (i >> 3)).wrapping_mul(2_654_435_769).wrapping_mul(i | 1) >> 31
}

/// The options, with the path of the data in the bench.
fn options(bench: &Bench, more: &[&str]) -> Vec<String> {
    let place =
        |option: &&str| option.replace("=even.bin", &format!("={}", bench.path("even.bin").display()));
    OPTIONS.iter().chain(more).map(place).collect()
}

fn run(bench: &Bench, name: &str, more: &[&str]) {
    let options = options(bench, more);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    bench.run(name, &options, &environment(1, Precision::Fp32));
}

/// The updates with alarms, and the alarms.
fn alarms(bench: &Bench, name: &str) -> Vec<(u64, Value)> {
    let with = |m: &Value| Some((m["step"].as_u64()?, m.get("alarms")?.clone()));
    bench.metrics(name).iter().filter_map(with).collect()
}

#[test]
fn a_spike_raises_alarms_and_an_even_run_raises_none() {
    let even = bench(false);
    run(&even, "a", &[]);
    assert_eq!(alarms(&even, "a"), []);
    let report = fs::read_to_string(even.path("a/report.html")).unwrap();
    assert!(!report.contains("<g class=\"mark\">"));

    let bench = bench(true);
    run(&bench, "a", &[]);
    let found = alarms(&bench, "a");
    let (step, first) = &found[0];
    assert_eq!((*step, &first[0]["kind"], &first[0]["of"]), (SPIKE, &json!("outlier"), &json!("loss")));
    assert!(first[0]["deviations"].as_f64().unwrap() > 7.0, "{first}");
    assert_eq!(first[1]["of"], "grad_norm");
    let report = fs::read_to_string(bench.path("a/report.html")).unwrap();
    let marked = format!("<g class=\"mark\"><title>update {SPIKE}: loss ");
    assert!(report.contains(&marked) && report.contains(" standard deviations above "), "{report}");
    let count: usize = found.iter().map(|(_, alarms)| alarms.as_array().unwrap().len()).sum();
    assert_eq!(report.matches("<g class=\"mark\">").count(), count);
    // They can be turned off, and change nothing else.
    run(&bench, "off", &["run.alarm=0"]);
    assert_eq!(alarms(&bench, "off"), []);
    let weights =
        |run: &str| fs::read(bench.path(run).join("checkpoints/step-000140/model.safetensors")).unwrap();
    assert!(weights("a") == weights("off"));
}

#[test]
fn a_run_that_goes_on_raises_the_alarms_of_one_that_was_not_stopped() {
    let bench = bench(true);
    run(&bench, "straight", &[]);
    let metrics = |run: &str| fs::read_to_string(bench.path(run).join("metrics.jsonl")).unwrap();
    assert!(metrics("straight").contains("\"outlier\""));
    let options = options(&bench, &[]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let environment = environment(1, Precision::Fp32);
    for stop_after in [30, SPIKE - 1, SPIKE] {
        let name = format!("stopped-{stop_after}");
        let mut run = bench.open(&name, Start::New, &options, &environment).unwrap();
        let done = Cell::new(0);
        let stop = || done.get() == stop_after;
        run.train(&stop, &mut |event| {
            if let Event::Update(metrics) = event {
                done.set(metrics.step);
            }
        })
        .unwrap();
        drop(run);
        bench.resume(&name, &options, &environment).unwrap();
        assert_eq!(metrics(&name), metrics("straight"));
    }
}
