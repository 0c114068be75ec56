//! `arcane train` without a configuration.

use std::fs;

use serde_json::Value;

use crate::support::{Place, text};

/// The demo, cut down to a moment.
const SHORT: [&str; 13] = [
    "train",
    "--device",
    "cpu",
    "--set",
    "train.batch=1",
    "--set",
    "data.seq=16",
    "--set",
    "data.valid_fraction=0.003",
    "--set",
    "run.eval_every=1",
    "--steps",
    "1",
];

#[test]
fn the_demo_runs_from_anywhere_and_more_than_once() {
    let place = Place::new();
    let output = place.arcane(&SHORT);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let out = text(&output.stdout);
    assert!(out.starts_with("1 updates, loss ") && out.contains(" bits/byte, checkpoint "), "{out}");
    for expected in [
        "parameters; data: 115 documents of ",
        "a tokenizer of 1024 tokens made from the text",
        "step 1/1  loss ",
        "try next: arcane generate runs/demo --prompt ",
    ] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let checkpoint = place.path("runs/demo/checkpoints/step-000001");
    let config: Value =
        serde_json::from_str(&fs::read_to_string(checkpoint.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["vocab_size"], &config["eos_token_id"]), (&1024.into(), &0.into()));
    assert!(checkpoint.join("tokenizer.json").exists());
    let report = fs::read_to_string(place.path("runs/demo/report.html")).unwrap();
    assert!(report.contains("<p>after update 1</p>\n<pre><b>It was</b>"), "{report}");
    assert!(report.contains("<td>1024 tokens, made from the training text</td>"), "{report}");

    // The next one is another run with the same bytes; a run that is named is not overwritten.
    place.succeed(&SHORT);
    let weights =
        |run: &str| fs::read(place.path(run).join("checkpoints/step-000001/model.safetensors")).unwrap();
    assert!(weights("runs/demo") == weights("runs/demo-2"));
    let refused = place.arcane(&[&SHORT[..], &["--run", "runs/demo"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("runs/demo: the folder exists already; expected --resume"));

    // It is the latest that goes on, also by the configuration that it wrote.
    place.succeed(&[&SHORT[..11], &["--steps", "2", "--resume"]].concat());
    assert_eq!((place.metrics("runs/demo").len(), place.metrics("runs/demo-2").len()), (1, 2));
    let config = ["train", "runs/demo/config.toml", "--device", "cpu", "--resume", "--steps", "2"];
    place.succeed(&config);
    let after =
        |run: &str| fs::read(place.path(run).join("checkpoints/step-000002/model.safetensors")).unwrap();
    assert!(after("runs/demo") == after("runs/demo-2"));
}
