//! Which checkpoints are there after a run.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use arcane_compile::Precision;
use arcane_train::run::{Event, Start};
use arcane_train::run_folder::checkpoints;

use crate::support::{Bench, assert_same_files, environment};

/// Random tokens are learnt by heart, so the validation loss rises after a few updates.
const OPTIONS: [&str; 5] =
    ["train.steps=12", "data.valid_fraction=0.2", "run.eval_every=1", "run.save_every=4", "run.keep=1"];

fn steps(run: &Path) -> Vec<u64> {
    checkpoints(run).unwrap().iter().map(|checkpoint| checkpoint.step).collect()
}

/// The update after which the validation loss was the lowest.
fn best_step(bench: &Bench, run: &str) -> u64 {
    let losses = bench.metrics(run).into_iter().map(|m| (m["step"].as_u64(), m["valid_loss"].as_f64()));
    losses.min_by(|a, b| a.1.unwrap().total_cmp(&b.1.unwrap())).unwrap().0.unwrap()
}

#[test]
fn the_best_checkpoint_stays_when_one_is_kept() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let summary = bench.run("a", &OPTIONS, &environment);
    let best = best_step(&bench, "a");
    assert!(best > 1 && best < 12 && !best.is_multiple_of(4), "the best update is {best}");
    assert_eq!(steps(&bench.path("a")), [best, 12]);
    let (path, evaluation) = summary.best.unwrap();
    assert_eq!((evaluation.step, path.is_dir()), (best, true));
    let report = fs::read_to_string(bench.path("a/report.html")).unwrap();
    let row = format!("<tr><th>checkpoints/step-{best:06}</th><td>validation loss ");
    assert!(report.contains(&row) && report.contains("<td>the best</td>"), "{report}");

    let without = [&OPTIONS[..], &["run.keep_best=false"]].concat();
    bench.run("b", &without, &environment);
    assert_eq!(steps(&bench.path("b")), [12]);
    let all = [&OPTIONS[..4], &["run.keep=0"]].concat();
    let summary = bench.run("c", &all, &environment);
    assert_eq!(steps(&bench.path("c")), [4, 8, 12]);
    assert_eq!(summary.best.map(|(_, best)| best.step), Some(4));
}

#[test]
fn a_run_stopped_at_any_update_ends_with_the_checkpoints_of_a_straight_one() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let options = [&OPTIONS[..4], &["run.keep=2"]].concat();
    bench.run("straight", &options, &environment);
    let straight = bench.path("straight");
    assert_eq!(steps(&straight).len(), 3);
    for stop_after in 0..12 {
        let name = format!("stopped-{stop_after}");
        let mut run = bench.open(&name, Start::New, &options, &environment).unwrap();
        let done = Cell::new(0);
        run.train(&|| done.get() == stop_after, &mut |event| {
            if let Event::Update(metrics) = event {
                done.set(metrics.step);
            }
        })
        .unwrap();
        drop(run);
        let summary = bench.resume(&name, &options, &environment).unwrap();
        let stopped = bench.path(&name);
        assert_eq!(steps(&stopped), steps(&straight), "stopped after {stop_after}");
        assert_eq!(summary.best.map(|(_, best)| best.step), Some(best_step(&bench, "straight")));
        for checkpoint in checkpoints(&straight).unwrap() {
            let name = checkpoint.path.file_name().unwrap();
            assert_same_files(&checkpoint.path, &stopped.join("checkpoints").join(name));
        }
    }
}

#[test]
fn a_run_killed_before_it_removed_a_checkpoint_removes_it_when_it_goes_on() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    bench.run("a", &OPTIONS, &environment);
    let expected = steps(&bench.path("a"));
    // What the run would have left had it been killed right after its last checkpoint.
    let last = bench.path("a/checkpoints/step-000012");
    let earlier = bench.path("a/checkpoints/step-000008");
    fs::create_dir(&earlier).unwrap();
    for entry in fs::read_dir(&last).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, earlier.join(path.file_name().unwrap())).unwrap();
    }
    bench.resume("a", &OPTIONS, &environment).unwrap();
    assert_eq!(steps(&bench.path("a")), expected);
}
