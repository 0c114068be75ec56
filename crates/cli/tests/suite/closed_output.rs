//! Results whose reader has gone, as in `arcane generate ... | head -c 20`.

use crate::support::{Place, text};
use crate::{generate, run};

/// Runs the program with a stdout that nobody reads.
#[track_caller]
fn assert_ends_quietly(place: &Place, arguments: &[&str]) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = place.command(arguments).stdout(writer).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
}

#[test]
fn every_command_ends_quietly_when_nobody_reads_its_results() {
    let place = generate::place();
    let generate = ["generate", "speaker", "--prompt", "the cat", "--max-tokens", "20"];
    assert_ends_quietly(&place, &generate);
    assert_ends_quietly(&place, &[&generate[..], &["--json"]].concat());
    assert_ends_quietly(&place, &["eval", "speaker", "--data", "documents.txt"]);
    assert_ends_quietly(&place, &["train", "small.toml", "--device", "cpu"]);
    assert_ends_quietly(&place, &["convert", "speaker", "a.bin", "--to", "bin"]);
    let bench = ["bench", "train", "--config", "stories260k", "--batch", "1", "--seq", "8", "--steps", "1"];
    assert_ends_quietly(&place, &bench);
    assert_ends_quietly(&place, &["--help"]);
    // What was to be written beside stdout is there.
    assert!(place.path("a.bin").exists() && place.path("runs/small/checkpoints/step-000004").exists());
}

#[test]
fn programs_are_checked_and_run_for_a_reader_that_goes() {
    let place = run::place();
    assert_ends_quietly(&place, &["check", "two.mil"]);
    assert_ends_quietly(&place, &["check", "two.mil", "--print"]);
    #[cfg(unix)]
    assert_ends_quietly(
        &place,
        &["run", "two.mil", "--function", "double", "--inputs", "x.npz", "--outputs", "/dev/stdout"],
    );
}
