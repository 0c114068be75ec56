//! Programs in `tests/cases` and what each chip has against them. `UPDATE=1` writes the lists anew; read the difference.

use std::fmt::Write;
use std::path::Path;

use arcane_chip::{Chip, violations};
use arcane_mil::{NoWeights, check};

fn list(text: &str) -> String {
    let program = check(text, &NoWeights).unwrap();
    let mut out = String::new();
    for name in ["m1", "m2-pro", "m3-ultra", "m4", "m6"] {
        let chip = Chip::named(name).unwrap();
        writeln!(out, "# {name}").unwrap();
        for v in program.functions.iter().flat_map(|f| violations(chip, f)) {
            writeln!(out, "{}: {v}", v.severity.name()).unwrap();
        }
    }
    out
}

#[track_caller]
fn lists(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let text = std::fs::read_to_string(folder.join(format!("{case}.mil"))).unwrap();
    let (found, file) = (list(&text), folder.join(format!("{case}.txt")));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    for (n, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{case}.txt:{}", n + 1);
    }
    assert_eq!(found.len(), expected.len(), "{case}.txt has another length");
}

#[test]
fn a_layer_that_every_engine_runs() {
    lists("mlp");
}

#[test]
fn a_model_as_it_is_written() {
    lists("language_model");
}

#[test]
fn attention_in_the_newest_dialect() {
    lists("attention");
}
