//! `arcane convert`.

use std::fs;

use crate::support::{Place, text};

#[track_caller]
fn refusal(place: &Place, arguments: &[&str]) -> String {
    let output = place.arcane(&[&["convert"][..], arguments].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        output.stdout.is_empty() && stderr.starts_with("error: ") && stderr.lines().count() == 1,
        "{stderr}"
    );
    stderr
}

#[test]
fn a_model_goes_through_every_format_and_comes_back() {
    let place = Place::new();
    for (from, to, format) in
        [("model", "a.bin", "bin"), ("a.bin", "a.gguf", "gguf"), ("a.gguf", "back", "hf")]
    {
        assert_eq!(place.succeed(&["convert", from, to, "--to", format]), format!("{to}\n"));
    }
    for file in ["model.safetensors", "config.json"] {
        let read = |folder: &str| fs::read(place.path(folder).join(file)).unwrap();
        assert_eq!(read("back"), read("model"), "{file}");
    }
    place.succeed(&["convert", "model", "b.bin", "--to", "bin", "--bin-version", "1"]);
    assert!(fs::read(place.path("b.bin")).unwrap().starts_with(b"24ka"));
    place.succeed(&["convert", "b.bin", "half", "--to", "hf", "--dtype", "f16"]);
    assert!(fs::read_to_string(place.path("half/config.json")).unwrap().contains("float16"));
}

#[test]
fn a_model_in_any_format_is_trained_on() {
    let place = Place::new();
    place.succeed(&["convert", "model", "a.bin", "--to", "bin"]);
    place.succeed(&["convert", "model", "a.gguf", "--to", "gguf"]);
    let train = |from: &str, run: &str| {
        let set = format!("model.from=\"{from}\"");
        place.succeed(&["train", "small.toml", "--device", "cpu", "--set", &set, "--run", run]);
        fs::read(place.path(run).join("checkpoints/step-000004/model.safetensors")).unwrap()
    };
    let want = train("model", "runs/hf");
    assert_eq!(train("a.bin", "runs/bin"), want);
    assert_eq!(train("a.gguf", "runs/gguf"), want);
    // A run stands for its newest checkpoint.
    place.succeed(&["convert", "runs/bin", "out", "--to", "hf"]);
    assert_eq!(fs::read(place.path("out/model.safetensors")).unwrap(), want);
}

#[test]
fn what_cannot_be_converted_is_refused_and_nothing_written() {
    let place = Place::new();
    place.write("there", b"old");
    place.write("p.mil", b"program(1.3) { func main<ios18>(bool x) { bool y = identity(x = x); } -> (y); }");
    place.write("noise.gguf", b"GGUF but not much more");
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/file", b"old");
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(place.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for (arguments, expected) in [
        (&["model", "there", "--to", "bin"][..], "there: exists already; a new path was expected"),
        (&["model", "there", "--to", "hf"], "there: exists already; a new path or an empty folder"),
        (&["model", "full", "--to", "hf"], "full: exists already; a new path or an empty folder"),
        (&["none", "new", "--to", "hf"], "none: cannot open"),
        (&["noise.gguf", "new", "--to", "hf"], "noise.gguf: not a valid GGUF file: "),
        (&["tokens.bin", "new", "--to", "hf"], "tokens.bin: "),
        (&["model", "none/new", "--to", "bin"], "none/new: cannot create"),
        (&["model", "new", "--to", "onnx"], "possible values: hf, bin, gguf, mlpackage, mil"),
        (&["model", "there", "--to", "mlpackage"], "there: exists already; a new path or an empty folder"),
        (&["model", "full", "--to", "mil"], "full: exists already; a new path or an empty folder"),
        (
            &["model", "new", "--to", "mlpackage", "--dtype", "bf16"],
            "--dtype: a program computes in fp32 or fp16",
        ),
        (
            &["model", "new", "--to", "mlpackage", "--seq", "100000"],
            "--seq: 100000 tokens, at most the model's context",
        ),
        (&["model", "new", "--to", "hf", "--seq", "4"], "--seq: only a program takes a number of tokens"),
        (&["p.mil", "new", "--to", "hf"], "p.mil: it is a program, expected --to mlpackage or mil"),
        (
            &["p.mil", "new", "--to", "mil", "--seq", "4"],
            "p.mil: it is a program, which keeps its types and shapes",
        ),
        (
            &["p.mil", "new", "--to", "mlpackage"],
            "p.mil: main: parameter `x`: Core ML has no input or output of type bool",
        ),
        (&["model", "new", "--to", "bin", "--dtype", "fp16"], "--dtype: a .bin holds fp32 alone"),
        (&["model", "new", "--to", "hf", "--dtype", "q8_0"], "--dtype: a Hugging Face folder holds no q8_0"),
        (&["model", "new", "--to", "hf", "--bin-version", "1"], "--bin-version: only a .bin has one"),
        (&["model", "new", "--to", "gguf", "--dtype", "q4_0"], "invalid value 'q4_0'"),
    ] {
        let line = refusal(&place, arguments);
        assert!(line.contains(expected), "{line}");
        assert_eq!(names(), before, "{arguments:?}");
    }
    assert_eq!(fs::read(place.path("there")).unwrap(), b"old");
}
