//! Runs that have to come to the same numbers.

use std::cell::Cell;
use std::fs;

use arcane_compile::Precision;
use arcane_tensor::SafetensorsFile;
use arcane_train::run::{Event, Start};

use crate::support::{Bench, assert_same_files, environment};

const PRECISIONS: [Precision; 2] = [Precision::Fp32, Precision::Fp16];

#[test]
fn a_run_stopped_at_any_update_ends_with_the_bytes_of_a_straight_one() {
    let bench = Bench::new();
    for precision in PRECISIONS {
        let environment = environment(2, precision);
        let options =
            ["train.accumulate=2", "schedule.name=cosine", "schedule.warmup=2", "data.valid_fraction=0.2"];
        let straight = format!("straight-{}", precision.name());
        let expected = bench.run(&straight, &options, &environment);
        assert!(!expected.stopped);
        for stop_after in 0..6 {
            let name = format!("stopped-{}-{stop_after}", precision.name());
            let mut run = bench.open(&name, Start::New, &options, &environment).unwrap();
            let done = Cell::new(0);
            let summary = run
                .train(&|| done.get() == stop_after, &mut |event| {
                    if let Event::Update(metrics) = event {
                        done.set(metrics.step);
                    }
                })
                .unwrap();
            assert!(summary.stopped);
            assert!(summary.checkpoint.ends_with(format!("checkpoints/step-{stop_after:06}")));
            drop(run);
            let resumed = bench.resume(&name, &options, &environment).unwrap();
            assert_same_files(&expected.checkpoint, &resumed.checkpoint);
            assert_eq!(bench.metrics(&straight), bench.metrics(&name));
        }
    }
}

#[test]
fn resuming_cuts_metrics_past_the_checkpoint() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let expected = bench.run("a", &["run.save_every=4"], &environment);
    let before = bench.metrics("a");
    // As if the run had been killed after update 6, before its checkpoint.
    fs::remove_dir_all(&expected.checkpoint).unwrap();
    bench.resume("a", &["run.save_every=4"], &environment).unwrap();
    assert_eq!(bench.metrics("a"), before);
    // There is nothing left to do.
    let summary = bench.resume("a", &[], &environment).unwrap();
    assert_eq!((summary.last, summary.stopped), (None, false));
    assert_eq!(bench.metrics("a"), before);
}

#[test]
fn resuming_without_a_checkpoint_starts_from_the_beginning() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let expected = bench.run("a", &[], &environment);
    let before = bench.metrics("a");
    fs::remove_dir_all(&expected.checkpoint).unwrap();
    bench.resume("a", &[], &environment).unwrap();
    assert_eq!(bench.metrics("a"), before);
}

#[test]
fn resuming_survives_that_the_checkpoint_it_came_from_is_removed() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    bench.run("a", &["train.steps=2"], &environment);
    let summary = bench.resume("a", &["run.keep=1", "run.save_every=1"], &environment).unwrap();
    let kept = fs::read_dir(bench.path("a/checkpoints")).unwrap().count();
    assert_eq!(
        (kept, fs::read_to_string(summary.checkpoint.join("tokenizer.json")).unwrap()),
        (1, "{}".into())
    );
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let bench = Bench::new();
    for precision in PRECISIONS {
        let [one, two] = [1, 2].map(|threads| {
            bench
                .run(&format!("{}-{threads}", precision.name()), &[], &environment(threads, precision))
                .checkpoint
        });
        assert_same_files(&one, &two);
    }
}

#[test]
fn four_micro_batches_of_two_are_one_batch_of_eight() {
    let bench = Bench::new();
    let environment = environment(2, Precision::Fp32);
    let once = bench.run("once", &["train.batch=8", "optimizer.lr=1e-3"], &environment);
    let accumulated =
        bench.run("four", &["train.batch=2", "train.accumulate=4", "optimizer.lr=1e-3"], &environment);
    for (a, b) in bench.metrics("once").iter().zip(bench.metrics("four")) {
        for key in ["loss", "grad_norm"] {
            let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((a - b).abs() <= 1e-6 * a, "{key}: {a} and {b}");
        }
        assert_eq!(a["tokens"], b["tokens"]);
    }
    let weights = |path: &std::path::Path| SafetensorsFile::open(&path.join("model.safetensors")).unwrap();
    let (a, b) = (weights(&once.checkpoint), weights(&accumulated.checkpoint));
    for name in a.names() {
        let (a, b) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
        let worst = (0..a.len()).map(|i| (a.get(i) - b.get(i)).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{name}: {worst}");
    }
}

#[test]
fn a_run_goes_on_from_the_weights_of_another() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let first = bench.run("a", &["train.steps=2", "data.order=sequential"], &environment);
    let from = |path: &std::path::Path| format!("model.from={}", path.display());
    for (run, source) in [("b", bench.path("a")), ("c", first.checkpoint)] {
        let options = [from(&source), "train.steps=1".into(), "data.order=sequential".into()];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        bench.run(run, &options, &environment);
    }
    assert_eq!(bench.metrics("b"), bench.metrics("c"));
    assert_ne!(bench.metrics("a")[0]["loss"], bench.metrics("b")[0]["loss"]);
}
