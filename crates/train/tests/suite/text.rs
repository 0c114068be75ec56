//! Runs on text.

use std::fmt::Write as _;
use std::fs;

use arcane_compile::Precision;
use arcane_models::read_config;
use arcane_train::config::Config;
use arcane_train::run::{Run, Start};
use arcane_train::tokenizer::Tokenizer;

use crate::support::{Bench, assert_same_files, environment};

/// Sentences that a model soon learns, as documents.
fn sentences(documents: usize) -> String {
    let mut text = String::new();
    for i in 0..documents {
        let (who, what) =
            (["the cat", "a dog", "the bird"][i % 3], ["sleeps", "runs home", "sings"][i / 3 % 3]);
        writeln!(text, "One day {who} {what}, and then {who} {what} again.\n<|endoftext|>").unwrap();
    }
    text
}

/// A bench with text, and the configuration of a model with random weights that learns its tokenizer.
fn bench() -> Bench {
    let bench = Bench::new();
    fs::write(bench.path("text.txt"), sentences(60)).unwrap();
    let model = fs::read_to_string(bench.path("model/config.json")).unwrap();
    fs::write(bench.path("random.json"), model.replace("\"vocab_size\": 64", "\"vocab_size\": 300")).unwrap();
    bench
}

fn config(bench: &Bench, overrides: &[&str]) -> Config {
    let text = r#"
        model.config = "random.json"
        data = { train = "text.txt", valid_fraction = 0.2, vocab = 300, seq = 16, order = "shuffle" }
        train = { steps = 30, batch = 4 }
        optimizer.lr = 1e-2
        run.eval_every = 15
    "#;
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::parse(text, &bench.path("run.toml"), &overrides).unwrap()
}

fn open(bench: &Bench, run: &str, start: Start, overrides: &[&str]) -> Result<Run, String> {
    let environment = environment(2, Precision::Fp32);
    Run::open(&config(bench, overrides), &bench.path(run), start, &environment).map_err(|e| {
        assert!(e.is_input(), "{e}");
        e.to_string()
    })
}

fn train(bench: &Bench, run: &str, start: Start, overrides: &[&str]) -> std::path::PathBuf {
    open(bench, run, start, overrides).unwrap().train(&|| false, &mut |_| {}).unwrap().checkpoint
}

#[test]
fn text_becomes_tokens_that_a_model_learns() {
    let bench = bench();
    let mut run = open(&bench, "a", Start::New, &[]).unwrap();
    let report = run.trainer().data().report().clone();
    assert_eq!((report.train.documents, report.valid.unwrap().documents), (Some(49), Some(11)));
    assert!(report.learnt.is_some_and(|n| (257..=300).contains(&n)), "{report}");
    let summary = run.train(&|| false, &mut |_| {}).unwrap();
    let metrics = bench.metrics("a");
    let (first, last) = (metrics[0]["loss"].as_f64().unwrap(), metrics[29]["loss"].as_f64().unwrap());
    assert!(last < 0.6 * first, "{first} {last}");
    assert_eq!(metrics[29]["valid_bits_per_byte"].as_f64(), summary.valid_bits_per_byte);
    assert!(metrics[28].get("valid_bits_per_byte").is_none());
    // The checkpoint has the tokenizer and says which token ends a text.
    let tokenizer = Tokenizer::open(&summary.checkpoint).unwrap();
    let config = read_config(&summary.checkpoint).unwrap();
    assert_eq!((config.vocab_size, config.bos_token_id), (300, None));
    assert_eq!(config.eos_token_id, [tokenizer.eos().unwrap()]);
}

#[test]
fn bits_per_byte_are_the_loss_over_the_bytes_that_are_predicted() {
    let bench = bench();
    // 257 tokens: every byte is a token, so a sequence of 16 predicts 16 bytes, or one fewer for each end of a document.
    fs::write(bench.path("valid.txt"), "0123456789\n<|endoftext|>\nabcdefghijklmnopqrstuvwxyz, and more")
        .unwrap();
    let valid = format!("data.valid={}", bench.path("valid.txt").display());
    let base = "model.config='random.json'\ndata={train='text.txt',vocab=257,seq=16}\ntrain={steps=1,batch=1}\n\
                optimizer.lr=1e-3\nrun.eval_every=1";
    let config = Config::parse(base, &bench.path("run.toml"), &[valid]).unwrap();
    let environment = environment(1, Precision::Fp32);
    let mut run = Run::open(&config, &bench.path("a"), Start::New, &environment).unwrap();
    let summary = run.train(&|| false, &mut |_| {}).unwrap();
    let report = run.trainer().data().report().valid.unwrap();
    assert_eq!((report.tokens, report.unused), (10 + 1 + 36 + 1, 48 - 33));
    // Tokens 1 to 32: nine digits, the end of the first document, 22 letters.
    let expected = summary.valid_loss.unwrap() * 32.0 / (31.0 * std::f64::consts::LN_2);
    assert!((summary.valid_bits_per_byte.unwrap() - expected).abs() < 1e-12);
}

#[test]
fn a_run_on_text_that_was_stopped_has_the_bytes_of_one_that_was_not() {
    let bench = bench();
    let straight = train(&bench, "straight", Start::New, &[]);
    train(&bench, "stopped", Start::New, &["train.steps=11"]);
    let resumed = train(&bench, "stopped", Start::Resume, &[]);
    assert_same_files(&straight, &resumed);
    let metrics = |run: &str| fs::read(bench.path(run).join("metrics.jsonl")).unwrap();
    assert!(metrics("straight") == metrics("stopped"));
    // Another seed is another order of documents and other weights, not another tokenizer.
    let other = train(&bench, "other", Start::New, &["train.seed=1"]);
    let file = |folder: &std::path::Path, name: &str| fs::read(folder.join(name)).unwrap();
    assert!(file(&other, "tokenizer.json") == file(&straight, "tokenizer.json"));
    assert_ne!(bench.metrics("other")[0]["loss"], bench.metrics("straight")[0]["loss"]);
}

#[test]
fn a_checkpoint_brings_its_tokenizer() {
    let bench = bench();
    let first = train(&bench, "first", Start::New, &["train.steps=2"]);
    let from = format!("model.from={}", bench.path("first").display());
    let base =
        "model.from='first'\ndata={train='text.txt',seq=16}\ntrain={steps=1,batch=2}\noptimizer.lr=1e-3";
    let config = Config::parse(base, &bench.path("run.toml"), &[from]).unwrap();
    let environment = environment(1, Precision::Fp32);
    let mut run = Run::open(&config, &bench.path("second"), Start::New, &environment).unwrap();
    assert_eq!(run.trainer().data().report().learnt, None);
    let second = run.train(&|| false, &mut |_| {}).unwrap().checkpoint;
    let file = |folder: &std::path::Path| fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(file(&first) == file(&second));
}

#[test]
fn a_preset_has_as_many_ids_as_data_vocab_says() {
    let bench = bench();
    let base = "model.preset='stories260k'\ndata={train='text.txt',vocab=290,seq=16}\ntrain={steps=1,batch=1}\noptimizer.lr=1e-3";
    let environment = environment(1, Precision::Fp32);
    let open = |overrides: &[String]| {
        let config = Config::parse(base, &bench.path("run.toml"), overrides).unwrap();
        Run::open(&config, &bench.path("preset"), Start::New, &environment)
    };
    assert_eq!(open(&[]).unwrap().trainer().model_config().vocab_size, 290);
    fs::remove_dir_all(bench.path("preset")).unwrap();
    // A tokenizer that is given says what it needs.
    let first = train(&bench, "first", Start::New, &["train.steps=1"]);
    let tokenizer = format!("data.tokenizer={}", first.display());
    let error = open(&[tokenizer, "data.vocab=270".into()]).err().unwrap().to_string();
    assert!(
        error.starts_with("data.tokenizer: the tokenizer has ") && error.ends_with("but the model has 270"),
        "{error}"
    );
}

#[test]
fn the_parts_of_a_single_document_are_cut_at_a_line() {
    let bench = bench();
    let mut lines = String::new();
    (0..200).for_each(|i| writeln!(lines, "line {i} of one text").unwrap());
    fs::write(bench.path("one.md"), &lines).unwrap();
    let one = format!("data.train={}", bench.path("one.md").display());
    let run = open(&bench, "a", Start::New, &[&one]).unwrap();
    let report = run.trainer().data().report();
    assert_eq!((report.train.documents, report.valid.unwrap().documents), (Some(1), Some(1)));
    let share =
        report.valid.unwrap().tokens as f64 / (report.train.tokens + report.valid.unwrap().tokens) as f64;
    assert!((0.17..0.23).contains(&share), "{report}");
}

#[test]
fn what_was_left_out_is_counted() {
    let bench = bench();
    let mut text = String::new();
    sentences(40).lines().step_by(2).for_each(|line| writeln!(text, "{{\"text\":\"{line}\"}}").unwrap());
    text.push_str("{\"text\":\"\"}\n{\"title\":\"x\"}\n");
    let mut bytes = text.into_bytes();
    bytes.extend(b"{\"text\":\"not \xFF UTF-8\"}\n");
    fs::write(bench.path("lines.jsonl"), bytes).unwrap();
    let lines = format!("data.train={}", bench.path("lines.jsonl").display());
    let run = open(&bench, "a", Start::New, &[&lines]).unwrap();
    let report = run.trainer().data().report().to_string();
    for expected in [
        " documents of ",
        "1 empty documents, 1 lines without `text`, ",
        "1 places that are not UTF-8 replaced by U+FFFD",
    ] {
        assert!(report.contains(expected), "{report}");
    }
}

#[test]
fn text_that_cannot_be_used() {
    let bench = bench();
    let refuse = |overrides: &[&str], expected: &str| {
        let message = open(&bench, "run", Start::New, overrides).err().expect("it should be refused");
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        assert!(!bench.path("run").exists());
    };
    let at = |name: &str| format!("data.train={}", bench.path(name).display());
    let write = |name: &str, text: &str| fs::write(bench.path(name), text).unwrap();
    write("broken.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\"\n");
    write("empty.txt", "\n\n");
    write("table.csv", "a,b");
    write("short.txt", "a b");
    write("wrong.json", "{}");
    refuse(&[&at("broken.jsonl")], "broken.jsonl:2:");
    refuse(&[&at("empty.txt")], "empty.txt: no text in it");
    refuse(&[&at("table.csv")], "table.csv: expected text (.txt, .text, .md or .jsonl");
    refuse(&[&at("none.txt")], "none.txt: cannot read the text");
    refuse(&[&at("short.txt")], "short.txt: 4 tokens, expected at least 17");
    refuse(&["data.vocab=301"], "data.vocab: 301 ids, but the model has 300");
    refuse(&["data.vocab=100"], "data.vocab: a vocabulary of 100 tokens, expected at least 257");
    let tokenizer = format!("data.tokenizer={}", bench.path("wrong.json").display());
    refuse(&[&tokenizer], "wrong.json: `model` is missing");
    let none = Config::parse(
        "model.config='random.json'\ndata={train='text.txt',seq=16}\ntrain={steps=1,batch=1}\noptimizer.lr=1e-3",
        &bench.path("run.toml"),
        &[],
    );
    let environment = environment(1, Precision::Fp32);
    let error =
        Run::open(&none.unwrap(), &bench.path("run"), Start::New, &environment).err().unwrap().to_string();
    assert!(
        error.starts_with("data.tokenizer: text needs a tokenizer") && error.contains("data.vocab"),
        "{error}"
    );
}
