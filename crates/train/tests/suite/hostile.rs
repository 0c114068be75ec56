//! Input that is wrong: an error that says what, and no run folder.

use std::fs;

use arcane_compile::Precision;
use arcane_models::{LlamaConfig, initialize, load, save};
use arcane_tensor::{DType, Tensor};
use arcane_train::run::Start;

use crate::support::{Bench, environment};
use crate::tiny_model::tiny;

#[track_caller]
fn assert_refused(bench: &Bench, start: Start, overrides: &[&str], expected: &str) {
    let result = bench.open("run", start, overrides, &environment(1, Precision::Fp32));
    let error = result.err().expect("it should be refused");
    assert!(error.is_input(), "{error}");
    let message = error.to_string();
    assert!(message.contains(expected), "{message}");
    assert!(!message.contains('\n') && !bench.path("run").exists());
}

#[test]
fn ids_beyond_the_vocabulary() {
    let bench = Bench::new();
    bench.write_tokens("tokens.bin", (0..100).map(|i| if i == 70 { 64 } else { 1 }));
    assert_refused(&bench, Start::New, &[], "tokens.bin: token 70 has id 64, expected an id below");
    assert_refused(&bench, Start::New, &["data.vocab=65"], "data.vocab: 65 ids, but the model has 64");
}

#[test]
fn fewer_tokens_than_one_sequence() {
    let bench = Bench::new();
    bench.write_tokens("tokens.bin", [1; 16]);
    assert_refused(&bench, Start::New, &[], "16 tokens, expected at least 17");
    bench.write_tokens("tokens.bin", [1; 33]);
    let split = ["data.valid_fraction=0.3", "run.eval_every=1"];
    assert_refused(&bench, Start::New, &split, "9 tokens, expected at least 17");
}

#[test]
fn a_truncated_file_of_weights() {
    let bench = Bench::new();
    let path = bench.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_refused(&bench, Start::New, &[], "model.safetensors: ");
    }
}

#[test]
fn a_missing_tensor_and_one_of_another_shape() {
    let bench = Bench::new();
    let weights = initialize(&tiny(), 5);
    let mut borrowed: Vec<(String, &Tensor)> = weights.iter().map(|(n, t)| (n.clone(), t)).collect();
    let (name, _) = borrowed.remove(3);
    save(&bench.path("model"), &tiny(), &borrowed).unwrap();
    assert_refused(&bench, Start::New, &[], &format!("tensors are missing: `{name}`"));
    let other = Tensor::zeros(DType::F32, &[32, 31]);
    borrowed.push((name.clone(), &other));
    save(&bench.path("model"), &tiny(), &borrowed).unwrap();
    assert_refused(&bench, Start::New, &[], &format!("tensor `{name}` has shape [32, 31]"));
}

#[test]
fn sources_that_are_not_there_or_not_supported() {
    let bench = Bench::new();
    let text = |overrides: &[&str], expected: &str| assert_refused(&bench, Start::New, overrides, expected);
    fs::write(bench.path("model.bin"), "").unwrap();
    fs::write(bench.path("text.txt"), "Once upon a time").unwrap();
    fs::create_dir_all(bench.path("empty/checkpoints")).unwrap();
    let at = |key: &str, name: &str| format!("{key}={}", bench.path(name).display());
    text(&[&at("model.from", "none")], "none: cannot open");
    text(
        &[&at("model.from", "model.bin")],
        "model.bin: the file should have 28 bytes (the header alone), it has 0",
    );
    text(&[&at("model.from", "empty")], "the run has no checkpoint yet");
    text(&[&at("data.train", "none.bin")], "none.bin: cannot read the tokens");
    // The model's tokenizer.json is not one.
    text(&[&at("data.train", "text.txt")], "model/tokenizer.json: `model` is missing");
    fs::remove_file(bench.path("model/tokenizer.json")).unwrap();
    text(&[&at("data.train", "text.txt"), "data.vocab=64"], "data.tokenizer: text needs a tokenizer");
    text(&[&at("data.tokenizer", "none.json")], "none.json: cannot read the tokenizer");
}

#[test]
fn other_kinds_of_model() {
    let bench = Bench::new();
    let refuse = |model: &str, expected: &str| {
        let text = format!(
            "model.{model}\ndata = {{ train = \"tokens.bin\", seq = 16 }}\n\
             train = {{ steps = 6, batch = 2 }}\noptimizer.lr = 1e-2"
        );
        let config =
            arcane_train::config::Config::parse(&text, &bench.path("run.toml"), &[]).expect("a valid file");
        let environment = environment(1, Precision::Fp32);
        let result = arcane_train::run::Run::open(&config, &bench.path("run"), Start::New, &environment);
        let error = result.err().expect("it should be refused").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!bench.path("run").exists());
    };
    refuse(
        "program = \"a.mil\"",
        "model.program: training a MIL program is not supported; use from, config or preset",
    );
    refuse("preset = \"stories\"", "no preset `stories`, expected one of stories260k, demo, stories15m");
    refuse("config = \"tokens.bin\"", "tokens.bin:1:1: ");
}

#[test]
fn a_folder_that_is_a_run_already_or_none_to_resume() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    assert_refused(&bench, Start::Resume, &[], "no run to resume");
    bench.run("old", &["train.steps=1"], &environment);
    let before = bench.metrics("old");
    let error = bench.open("old", Start::New, &[], &environment).err().unwrap().to_string();
    assert!(error.contains("the folder exists already; expected --resume"), "{error}");
    assert_eq!(bench.metrics("old"), before);
}

#[test]
fn a_checkpoint_that_does_not_fit() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    let checkpoint = bench.run("run", &["train.steps=1"], &environment).checkpoint;
    let refuse = |overrides: &[&str], expected: &str| {
        let error = bench.open("run", Start::Resume, overrides, &environment).err().unwrap();
        assert!(error.is_input() && error.to_string().contains(expected), "{error}");
    };
    refuse(&["train.seed=1"], "the run's seed is 0, train.seed is 1");
    let path = checkpoint.join("state.json");
    let state = fs::read_to_string(&path).unwrap();
    fs::write(&path, state.replace("\"format_version\": 1", "\"format_version\": 2, \"other\": 0")).unwrap();
    refuse(&[], "state.json: format_version 2, 1 was expected");
    fs::write(&path, &state[..state.len() / 2]).unwrap();
    refuse(&[], "state.json: not the state of a run");
    fs::write(&path, &state).unwrap();
    let moments = fs::read(checkpoint.join("optimizer.safetensors")).unwrap();
    fs::write(checkpoint.join("optimizer.safetensors"), &moments[..moments.len() - 4]).unwrap();
    refuse(&[], "optimizer.safetensors: ");
    fs::copy(checkpoint.join("model.safetensors"), checkpoint.join("optimizer.safetensors")).unwrap();
    refuse(&[], "no tensor `moment1.model.embed_tokens.weight`");
}

#[test]
fn a_batch_that_does_not_fit_into_memory() {
    let bench = Bench::new();
    let refused = ["train.batch=10000000", "data.seq=100"];
    let config = bench.config(&refused);
    let error =
        bench.open("run", Start::New, &refused, &environment(1, Precision::Fp32)).err().unwrap().to_string();
    assert!(error.starts_with("train.batch: a batch of 10000000 needs about "), "{error}");
    assert!(error.contains("1.07 GB are available; the largest batch that fits is "), "{error}");
    assert!(!bench.path("run").exists() && config.train.batch == 10_000_000);
}

#[test]
fn weights_of_other_types_are_read_as_fp32() {
    let bench = Bench::new();
    let half: Vec<(String, Tensor)> =
        initialize(&tiny(), 5).into_iter().map(|(n, t)| (n, t.cast(DType::F16))).collect();
    let borrowed: Vec<(String, &Tensor)> = half.iter().map(|(n, t)| (n.clone(), t)).collect();
    let config: LlamaConfig = tiny();
    save(&bench.path("model"), &config, &borrowed).unwrap();
    let end = bench.run("run", &["train.steps=1"], &environment(1, Precision::Fp32));
    assert!(load(&end.checkpoint, &config).unwrap().iter().all(|(_, t)| t.dtype() == DType::F32));
}
