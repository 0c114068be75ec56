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

/// The lines of stderr that name the report.
fn report_lines(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("report.html")).collect()
}

#[test]
fn a_run_says_once_where_its_report_is() {
    let place = Place::new();
    let set = ["--set", "data.valid_fraction=0.2", "--set", "run.eval_every=1", "--set", "run.save_every=1"];
    let run = [&["train", "small.toml", "--device", "cpu", "--json"][..], &set].concat();
    let output = place.arcane(&run);
    let stderr = text(&output.stderr);
    assert_eq!(report_lines(&stderr), ["report runs/small/report.html"], "{stderr}");
    let result: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let report = fs::read_to_string(result["report"].as_str().unwrap()).unwrap();
    assert!(report.contains("4 of 4") && report.contains("<th>train.steps</th><td>4</td>"), "{report}");
    // Times are real here, so there is a speed.
    assert!(report.contains("aria-label=\"Tokens a second\""), "{report}");
    let metrics = place.metrics("runs/small");
    let loss = |m: &&Value| m["valid_loss"].as_f64().unwrap();
    let best = metrics.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!(result["best_valid_loss"], best["valid_loss"]);
    let folder = format!("checkpoints/step-{:06}", best["step"].as_u64().unwrap());
    assert!(result["best_checkpoint"].as_str().unwrap().ends_with(&folder), "{result}");
    assert_eq!(result["alarms"], 0);
}

#[test]
fn the_best_checkpoint_is_named_at_the_end() {
    let place = Place::new();
    // What training never sees becomes less likely with each update.
    place.write("unlike.bin", &[63, 0].repeat(40));
    let run = |name: &str, set: &[&str]| {
        let options = ["--run", name, "--set", "run.keep=1", "--set", "run.eval_every=1"];
        let mut all = [&["train", "small.toml", "--device", "cpu"][..], &options].concat();
        all.extend(set.iter().flat_map(|key| ["--set", key]));
        place.succeed(&all)
    };
    let falling = run("falling", &["data.valid=tokens.bin", "optimizer.lr=1e-4"]);
    assert!(falling.trim_end().ends_with("checkpoints/step-000004, the best"), "{falling}");
    let rising = run("rising", &["data.valid=unlike.bin"]);
    assert!(
        rising.contains(", best ") && rising.contains("checkpoints/step-000001 (valid loss "),
        "{rising}"
    );
    assert!(place.path("rising/checkpoints/step-000001/state.json").exists());
    let none = run("none", &["run.eval_every=0"]);
    assert!(none.trim_end().ends_with("checkpoints/step-000004"), "{none}");
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
    assert!(text(&output.stderr).starts_with("device: sim of m4, since "), "{}", text(&output.stderr));
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
    assert_eq!(report_lines(&stderr), ["report runs/small/report.html, 2 alarms"], "{stderr}");
    assert!(place.path("runs/small/checkpoints/step-000001/state.json").exists());
}

#[test]
fn alarms_are_warnings_that_do_not_repeat_themselves() {
    let place = Place::new();
    let set = ["--set", "train.loss_scale=1e30", "--dtype", "fp16"];
    let output = place.arcane(&[&["train", "small.toml", "--device", "cpu"][..], &set].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [warning] = warnings[..] else { panic!("{stderr}") };
    assert!(warning.starts_with("warning: step 1: a gradient is not finite at loss scale "), "{warning}");
    assert_eq!(report_lines(&stderr), ["report runs/small/report.html, 4 alarms"], "{stderr}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_step_writes_a_checkpoint_and_exits_with_130() {
    let place = Place::new();
    let child = place
        .command(&["train", "small.toml", "--device", "cpu", "--steps", "100000000", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = place.path("runs/small/metrics.jsonl");
    let deadline = Instant::now() + Duration::from_mins(1);
    while fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let stderr = text(&output.stderr);
    assert_eq!(report_lines(&stderr), ["report runs/small/report.html"], "{stderr}");
    let summary: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(
        (summary["stopped"].as_bool(), summary["steps"].as_u64()),
        (Some(true), Some(place.metrics("runs/small").len() as u64))
    );
    let steps = summary["steps"].as_u64().unwrap();
    let report = fs::read_to_string(place.path("runs/small/report.html")).unwrap();
    assert!(report.contains("of 100,000,000</dd>"), "{report}");
    assert!(place.path(&format!("runs/small/checkpoints/step-{steps:06}/state.json")).exists());
    let more = (steps + 2).to_string();
    place.succeed(&["train", "small.toml", "--device", "cpu", "--resume", "--steps", &more]);
    assert_eq!(place.metrics("runs/small").len() as u64, steps + 2);
}
