//! `arcane train`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Place, text};

#[test]
fn a_run_leaves_what_the_manual_says() {
    let place = Place::new();
    let out = place.succeed(&["train", "small.toml", "--device", "cpu"]);
    assert!(out.starts_with("4 updates, loss ") && out.lines().count() == 1, "{out}");
    // The folder is named after the configuration.
    let metrics = place.metrics("runs/small");
    assert_eq!(metrics.iter().map(|m| m["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for m in &metrics {
        let keys: Vec<&String> = m.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["step", "loss", "lr", "grad_norm", "tokens", "ms", "loss_scale"]);
        assert!(m["ms"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(metrics[3]["tokens"], 4 * 2 * 16);
    let mut names: Vec<String> = fs::read_dir(place.path("runs/small/checkpoints/step-000004"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "optimizer.safetensors", "state.json"]);
    let resolved = fs::read_to_string(place.path("runs/small/config.toml")).unwrap();
    assert!(resolved.contains("weight_decay = 0.1"), "{resolved}");
}

#[test]
fn steps_are_the_total_and_a_run_resumes_to_them() {
    let place = Place::new();
    let run = ["train", "small.toml", "--run", "a", "--device", "cpu", "--json"];
    let with = |more: &[&str]| {
        let out = place.succeed(&[&run[..], more].concat());
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let first = with(&["--steps", "3"]);
    assert_eq!((first["steps"].as_u64(), first["skipped"].as_u64()), (Some(3), Some(0)));
    assert_eq!(first["loss"], place.metrics("a")[2]["loss"]);
    let second = with(&["--resume", "--steps", "5"]);
    assert_eq!((second["steps"].as_u64(), second["tokens"].as_u64()), (Some(5), Some(160)));
    assert_eq!(place.metrics("a").len(), 5);
    // Nothing is left to do.
    assert!(with(&["--resume", "--steps", "5"])["loss"].is_null());
    // The weights of the resumed run are those of a straight one.
    place.succeed(&["train", "small.toml", "--run", "b", "--device", "cpu", "--steps", "5"]);
    let weights =
        |run: &str| fs::read(place.path(run).join("checkpoints/step-000005/model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"));
}

#[test]
fn flags_override_the_configuration() {
    let place = Place::new();
    let set = ["--set", "optimizer.lr=0.5", "--set", "run.dir=c", "--seed", "7", "--threads", "1"];
    place.succeed(&[&["train", "small.toml", "--dtype", "fp16", "--device", "cpu"][..], &set].concat());
    assert_eq!(place.metrics("c")[0]["lr"], 0.5);
    assert_eq!(place.metrics("c")[0]["loss_scale"], 65536.0);
    let state = fs::read_to_string(place.path("c/checkpoints/step-000004/state.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&state).unwrap()["seed"], 7);
}

#[test]
fn auto_says_where_it_runs() {
    let place = Place::new();
    let output = place.arcane(&["train", "small.toml", "--steps", "1"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("device: cpu, since "), "{}", text(&output.stderr));
}

#[test]
fn a_run_succeeds_whose_tokenizer_gives_no_sample() {
    let place = Place::new();
    // It came with the model; training over token ids has no use for it.
    place.write("model/tokenizer.json", b"{}");
    let output = place.arcane(&["train", "small.toml", "--device", "cpu"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("no sample: ") && last.contains("tokenizer.json: `model` is missing"), "{last}");
    assert_eq!(text(&output.stdout).lines().count(), 1);
}

#[test]
fn a_run_that_diverges_exits_with_1_and_keeps_its_checkpoint() {
    let place = Place::new();
    let set = ["--set", "optimizer.lr=1e38", "--set", "optimizer.clip=0", "--set", "run.save_every=1"];
    let output = place.arcane(&[&["train", "small.toml", "--device", "cpu"][..], &set].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: training diverged at update "), "{stderr}");
    assert!(place.path("runs/small/checkpoints/step-000001/state.json").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_step_writes_a_checkpoint_and_exits_with_130() {
    let place = Place::new();
    let mut child = place
        .command(&["train", "small.toml", "--device", "cpu", "--steps", "100000000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let metrics = place.path("runs/small/metrics.jsonl");
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut out).unwrap();
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (summary["stopped"].as_bool(), summary["steps"].as_u64()),
        (Some(true), Some(place.metrics("runs/small").len() as u64))
    );
    let steps = summary["steps"].as_u64().unwrap();
    assert!(place.path(&format!("runs/small/checkpoints/step-{steps:06}/state.json")).exists());
    let more = (steps + 2).to_string();
    place.succeed(&["train", "small.toml", "--device", "cpu", "--resume", "--steps", &more]);
    assert_eq!(place.metrics("runs/small").len() as u64, steps + 2);
}
