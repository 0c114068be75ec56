//! `arcane bench`.

use std::fs;

use serde_json::Value;

use crate::support::{Place, tiny};

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
fn kernels_and_memory_are_measured() {
    let result = Place::new().succeed(&["bench", "kernels", "--threads", "1"]);
    let result: Value = serde_json::from_str(&result).unwrap();
    assert!(result["memory_read_gb_s"].as_f64().unwrap() > 0.0);
    let kernels = result["kernels"].as_array().unwrap();
    assert!(kernels.len() > 3 && kernels.iter().all(|k| k["gflops"].as_f64().unwrap() > 0.0), "{kernels:?}");
}
