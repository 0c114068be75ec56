//! `arcane bench`.

use std::fs;

use arcane_models::LlamaConfig;
use serde_json::Value;

use crate::support::{Place, text};
use crate::tiny_model::{save_random, tiny};

fn bench(place: &Place, config: &str, more: &[&str]) -> Value {
    let arguments = ["bench", "train", "--config", config, "--batch", "2", "--seq", "16", "--device", "cpu"];
    let out = place.succeed(&[&arguments[..], &["--steps", "3", "--json"], more].concat());
    assert_eq!(out.lines().count(), 1);
    serde_json::from_str(&out).unwrap()
}

#[test]
fn train_prints_the_figures_of_the_manual() {
    let place = Place::new();
    let figures = bench(&place, "stories260k", &[]);
    let keys: Vec<&String> = figures.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "config",
            "params",
            "batch",
            "seq",
            "device",
            "dtype",
            "ms",
            "tok_s",
            "gflops",
            "peak_rss_bytes",
            "loss"
        ]
    );
    let number = |key: &str| figures[key].as_f64().unwrap();
    assert_eq!((number("params"), number("batch"), number("seq")), (260_032.0, 2.0, 16.0));
    assert_eq!((&figures["device"], &figures["dtype"]), (&"cpu".into(), &"fp32".into()));
    let tok_s = 32.0 / number("ms") * 1e3;
    assert!((number("tok_s") / tok_s - 1.0).abs() < 1e-9);
    let flops = 6.0 * 260_032.0 + 12.0 * 5.0 * 64.0 * 16.0;
    assert!((number("gflops") / (flops * tok_s / 1e9) - 1.0).abs() < 1e-9);
    // Random weights know nothing: ln 512.
    assert!((number("loss") - 512f64.ln()).abs() < 0.5);
}

#[test]
fn train_takes_a_file_and_a_type_and_says_where_the_time_goes() {
    let place = Place::new();
    fs::write(place.path("tiny.json"), tiny().to_json()).unwrap();
    let figures = bench(&place, "tiny.json", &["--dtype", "fp16", "--profile", "--seed", "3"]);
    assert_eq!((&figures["config"], &figures["dtype"]), (&"tiny.json".into(), &"fp16".into()));
    let parts = &figures["profile"];
    assert!(
        parts["forward_backward_ms"].as_f64().unwrap() > 0.0 && parts["update_ms"].as_f64().unwrap() > 0.0
    );
    // The same seed, the same loss.
    let again = bench(&place, "tiny.json", &["--dtype", "fp16", "--seed", "3", "--threads", "1"]);
    assert_eq!(figures["loss"], again["loss"]);
}

#[test]
fn generate_prints_the_figures_of_the_manual() {
    let place = Place::new();
    let bench = |more: &[&str]| -> Value {
        let arguments = ["bench", "generate", "--prompt-tokens", "20", "--new-tokens", "5", "--threads", "1"];
        let out = place.succeed(&[&arguments, more].concat());
        assert_eq!(out.lines().count(), 1);
        serde_json::from_str(&out).unwrap()
    };
    let figures = bench(&["--model", "model"]);
    let keys: Vec<&String> = figures.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "config",
            "params",
            "dtype",
            "device",
            "threads",
            "prompt_tokens",
            "new_tokens",
            "prefill_ms",
            "prefill_tok_s",
            "ms",
            "tok_s",
            "bytes_per_token",
            "gb_s",
            "memory_read_gb_s",
            "memory_share",
            "peak_rss_bytes"
        ]
    );
    let number = |key: &str| figures[key].as_f64().unwrap();
    assert_eq!((&figures["config"], &figures["dtype"]), (&"model".into(), &"fp32".into()));
    // The weights, and the caches of two layers: keys and values of two heads of 8 numbers at 128 positions.
    let caches = 2 * 2 * 2 * 8 * 128;
    let params = tiny().parameter_count();
    assert_eq!(figures["bytes_per_token"], 4 * (params + caches));
    let equal = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    equal(number("prefill_tok_s"), 20e3 / number("prefill_ms"));
    equal(number("tok_s"), 1e3 / number("ms"));
    equal(number("gb_s"), number("bytes_per_token") / number("ms") / 1e6);
    equal(number("memory_share"), number("gb_s") / number("memory_read_gb_s"));
    // In fp16 gains stay fp32. Of an embedding that is not the output matrix one row is read.
    let untied = LlamaConfig { tie_word_embeddings: false, ..tiny() };
    save_random(&place.path("untied"), &untied);
    let gains = 5 * 32;
    let expected = 2 * (params + caches - gains) + 4 * gains + 2 * 32;
    assert_eq!(bench(&["--model", "untied", "--dtype", "fp16"])["bytes_per_token"], expected);
    assert_eq!(bench(&["--config", "stories260k"])["params"], 260_032);
}

#[test]
fn generate_refuses_what_it_cannot_measure() {
    let place = Place::new();
    for (arguments, expected) in [
        (&["--model", "model", "--new-tokens", "20"][..], "148 tokens, the model's context of at most 32"),
        (&["--config", "stories1"], "no preset `stories1`, expected one of stories260k"),
        (&["--model", "nowhere"], "nowhere: "),
        (&["--model", "model", "--config", "stories260k"], "cannot be used with"),
        (&[], "<--config <CONFIG>|--model <PATH>>"),
    ] {
        let output = place.arcane(&[&["bench", "generate"][..], arguments].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn kernels_and_memory_are_measured() {
    let result = Place::new().succeed(&["bench", "kernels", "--threads", "1"]);
    let result: Value = serde_json::from_str(&result).unwrap();
    assert!(result["memory_read_gb_s"].as_f64().unwrap() > 0.0);
    let kernels = result["kernels"].as_array().unwrap();
    assert!(kernels.len() > 3 && kernels.iter().all(|k| k["gflops"].as_f64().unwrap() > 0.0), "{kernels:?}");
}
