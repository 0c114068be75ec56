//! Wrong input: exit status 2, one line on stderr, nothing written.

use std::fs;

use arcane_models::{initialize, save};
use arcane_tensor::{DType, Tensor};

use crate::support::{Place, text};
use crate::tiny_model::tiny;

/// The line that the program refuses with.
#[track_caller]
fn refusal(place: &Place, arguments: &[&str]) -> String {
    let output = place.arcane(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    let line = stderr.strip_prefix("error: ").and_then(|line| line.strip_suffix('\n'));
    let line = line.unwrap_or_else(|| panic!("not one line of error: {stderr}"));
    assert!(!line.contains('\n'), "{stderr}");
    assert!(!place.path("runs").exists());
    line.into()
}

#[track_caller]
fn assert_refused(place: &Place, more: &[&str], expected: &str) {
    let line = refusal(place, &[&["train", "small.toml", "--device", "cpu"][..], more].concat());
    assert!(line.contains(expected), "{line}");
}

#[test]
fn usage() {
    let place = Place::new();
    for arguments in [
        &["train", "--nonsense"][..],
        &["train", "small.toml", "--steps", "0"],
        &["train", "small.toml", "--steps", "x"],
        &["train", "small.toml", "--threads", "0"],
        &["train", "small.toml", "--threads", "100000"],
        &["train", "small.toml", "--device", "tpu"],
        &["train", "small.toml", "--dtype", "int8"],
        &["train", "a.toml", "b.toml"],
        &["bench", "train", "--config", "stories260k", "--batch", "1"],
        &["nonsense"],
    ] {
        refusal(&place, arguments);
    }
    let line = refusal(&place, &["train", "small.toml", "--device", "ane"]);
    let (begin, end) = ("--device ane: not available here: ", "; expected sim, cpu or auto");
    assert!(line.starts_with(begin) && line.ends_with(end), "{line}");
    let line = refusal(&place, &["train", "small.toml", "--device", "sim", "--chip", "m9"]);
    assert!(line.starts_with("--chip: unknown chip `m9`, one of m1, "), "{line}");
}

#[test]
fn help_is_not_an_error() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["--version"], &["train", "--help"], &["bench", "train", "--help"]] {
        assert!(!place.succeed(arguments).is_empty());
    }
}

#[test]
fn a_configuration_that_is_missing_or_wrong() {
    let place = Place::new();
    let line = refusal(&place, &["train", "none.toml", "--device", "cpu"]);
    assert!(line.starts_with("none.toml: cannot read the configuration: "), "{line}");
    let line = refusal(&place, &["train", "tokens.bin", "--device", "cpu"]);
    assert!(line.starts_with("tokens.bin:"), "{line}");
    let config = fs::read_to_string(place.path("small.toml")).unwrap();
    place.write("small.toml", config.replace("steps = 4", "stepz = 4").as_bytes());
    assert_refused(&place, &[], "small.toml:3:11: unknown key `stepz`, expected one of `steps`");
    place.write("small.toml", &config.as_bytes()[..config.len() / 2]);
    assert_refused(&place, &[], "small.toml:");
    place.write("small.toml", config.as_bytes());
    assert_refused(&place, &["--set", "train.stepz=4"], "--set train.stepz=4: unknown key `stepz`");
    assert_refused(&place, &["--set", "train"], "--set train: expected key=value");
    assert_refused(&place, &["--set", "data.vocab=65"], "small.toml: data.vocab: 65 ids");
    assert_refused(&place, &["--set", "data.train=notes.txt"], "notes.txt: cannot read the text");
    let config = config.replace("model.from = \"model\"", "model.program = \"model.mil\"");
    place.write("small.toml", config.as_bytes());
    assert_refused(
        &place,
        &[],
        "small.toml: model.program: training a MIL program is not supported; use from",
    );
}

#[test]
fn data_that_does_not_fit() {
    let place = Place::new();
    place.write("tokens.bin", &[5, 0].repeat(16));
    assert_refused(&place, &[], "tokens.bin: 16 tokens, expected at least 17");
    place.write("tokens.bin", &[64, 0].repeat(100));
    assert_refused(
        &place,
        &[],
        "tokens.bin: token 0 has id 64, expected an id below the vocabulary's size of 64",
    );
    place.write("tokens.bin", &[1]);
    assert_refused(&place, &[], "tokens.bin: 1 bytes of data, expected a multiple of 2");
    fs::remove_file(place.path("tokens.bin")).unwrap();
    assert_refused(&place, &[], "tokens.bin: cannot read the tokens");
}

#[test]
fn weights_that_do_not_fit() {
    let place = Place::new();
    let path = place.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_refused(&place, &[], "model.safetensors: ");
    let weights = initialize(&tiny(), 5);
    let mut borrowed: Vec<(String, &Tensor)> = weights.iter().map(|(n, t)| (n.clone(), t)).collect();
    let (name, _) = borrowed.remove(2);
    save(&place.path("model"), &tiny(), &borrowed).unwrap();
    assert_refused(&place, &[], &format!("model.safetensors: tensors are missing: `{name}`"));
    let other = Tensor::zeros(DType::F32, &[3]);
    borrowed.push((name.clone(), &other));
    save(&place.path("model"), &tiny(), &borrowed).unwrap();
    assert_refused(&place, &[], &format!("model.safetensors: tensor `{name}` has shape [3]"));
    place.write("model/config.json", b"{}");
    assert_refused(&place, &[], "config.json: ");
}

#[test]
fn a_run_that_exists_and_one_that_does_not() {
    let place = Place::new();
    fs::create_dir(place.path("old")).unwrap();
    assert_refused(&place, &["--run", "old"], "old: the folder exists already; expected --resume");
    assert_eq!(fs::read_dir(place.path("old")).unwrap().count(), 0);
    assert_refused(&place, &["--run", "new", "--resume"], "new: no run to resume");
    assert!(!place.path("new").exists());
}

#[test]
fn more_memory_than_there_is() {
    let place = Place::new();
    let set = ["--set", "data.seq=1000", "--set", "train.batch=2000000"];
    let line = refusal(&place, &[&["train", "small.toml", "--device", "cpu"][..], &set].concat());
    if cfg!(target_os = "linux") {
        let (before, after) = line.split_once(" GB are available; the largest batch that fits is ").unwrap();
        assert!(before.starts_with("small.toml: train.batch: a batch of 2000000 needs about "), "{line}");
        let numbers: Vec<f64> = before.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [batch, needed, available] = numbers[..] else { panic!("{line}") };
        let largest: f64 = after.parse().unwrap();
        assert!(needed > available && (1.0..batch).contains(&largest), "{line}");
    }
}
