//! Runs that are killed at any moment, while a checkpoint is written included, go on and end with the same bytes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::Place;

/// A checkpoint after each update; killing and going on until the run is done.
const STEPS: &str = "30";

/// A linear congruential generator: moments only have to be spread.
struct Moments(u64);

impl Moments {
    fn next(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        most.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

fn arguments(run: &str) -> Vec<&str> {
    let mut all = vec!["train", "small.toml", "--run", run, "--device", "cpu", "--steps", STEPS];
    for key in ["run.save_every=1", "run.keep=2", "run.eval_every=2", "data.valid_fraction=0.1"] {
        all.extend(["--set", key]);
    }
    all.extend(["--set", "data.order=shuffle"]);
    all
}

/// The checkpoints that there are.
fn kept(run: &Path) -> Vec<String> {
    let names = std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.display().to_string()).collect();
    names.sort();
    names
}

/// The files of the last checkpoint.
fn last(run: &Path) -> Vec<(String, Vec<u8>)> {
    let checkpoint = run.join(format!("checkpoints/step-0000{STEPS}"));
    let files = std::fs::read_dir(checkpoint).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Kills runs `kills` times in all; each run that was killed is resumed until it is done, then another one starts.
fn kill_and_resume(kills: usize) {
    let place = Place::new();
    let start = std::time::Instant::now();
    place.succeed(&arguments("straight"));
    let whole = start.elapsed();
    let expected = last(&place.path("straight"));
    let expected_kept = kept(&place.path("straight"));
    let steps = |run: &str| place.metrics(run).iter().map(|m| m["step"].clone()).collect::<Vec<_>>();
    let (mut moments, mut killed, mut runs) = (Moments(7), 0, 0);
    while killed < kills {
        let run = format!("run-{runs}");
        runs += 1;
        loop {
            let mut all = arguments(&run);
            if place.path(&run).exists() {
                all.push("--resume");
            }
            let mut child = place.command(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(moments.next(whole));
            // A process that has ended by itself cannot be killed any more.
            let ended = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if ended || output.status.code().is_some() {
                assert!(output.status.success(), "{run}: {}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            killed += 1;
        }
        assert_eq!(last(&place.path(&run)), expected, "{run}");
        assert_eq!(kept(&place.path(&run)), expected_kept, "{run}");
        assert_eq!(steps(&run), steps("straight"), "{run}");
        std::fs::remove_dir_all(place.path(&run)).unwrap();
    }
}

#[test]
fn killed_runs_go_on_to_the_same_bytes() {
    kill_and_resume(6);
}

#[test]
#[ignore = "takes a minute or more"]
fn two_hundred_killed_runs_go_on_to_the_same_bytes() {
    kill_and_resume(200);
}
