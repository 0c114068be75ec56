//! `arcane check`.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use arcane_chip::{Chip, Violation, violations};
use arcane_mil::{Program, print};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::program::ProgramFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// MIL text, a folder that holds model.mil, or an .mlpackage.
    program: PathBuf,
    /// Print the canonical text; weight files are then read from the program's folder.
    #[arg(long)]
    print: bool,
    /// List what this chip's engine has against the program, one line each; notes go to stderr.
    #[arg(long, value_name = "CHIP")]
    chip: Option<String>,
    /// List it as a JSON array.
    #[arg(long, requires = "chip", conflicts_with = "print")]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let chip = arguments.chip.as_deref().map(Chip::named).transpose();
    let chip = chip.map_err(|e| Failure::Input(e.into()))?;
    let file = ProgramFile::open(&arguments.program)?;
    let path = file.path().display();
    let program = if arguments.print {
        let program = file.program(None)?;
        to_stdout(&print(&program).map_err(|e| Failure::input(format!("{path}: {e}")))?.text)?;
        program
    } else {
        file.checked()?
    };
    match chip {
        Some(chip) => on_chip(arguments, &path.to_string(), &program, chip),
        None if arguments.print => Ok(()),
        None => {
            let ops: usize = program.functions.iter().map(|f| f.operations().len()).sum();
            to_stdout(&format!("{path}: {} functions, {ops} ops, well-typed\n", program.functions.len()))
        }
    }
}

fn to_stdout(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::Failed(e.into()))
}

fn to_stderr(text: &str) {
    // Nothing is lost that the exit status does not say.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Lists what a chip's engine has against a program. With `--print` stdout is the text's, and the list goes to stderr.
fn on_chip(arguments: &Arguments, path: &str, program: &Program, chip: &Chip) -> Result<(), Failure> {
    let functions = program.functions.iter();
    let found = functions.flat_map(|f| violations(chip, f).into_iter().map(move |v| (f.name(), v)));
    let (fatal, notes): (Vec<_>, Vec<_>) = found.partition(|(_, v)| v.is_fatal());
    let several = program.functions.len() > 1;
    let lines = |found: &[(&str, Violation)], kind: &str| {
        found.iter().fold(String::new(), |mut text, (function, violation)| {
            let prefix = if several { format!("{function}: ") } else { String::new() };
            let _ = writeln!(text, "{kind}{prefix}{violation}");
            text
        })
    };
    to_stderr(&lines(&notes, "note: "));
    if arguments.json {
        let array = fatal.iter().map(|(function, violation)| as_json(function, violation)).collect();
        to_stdout(&format!("{}\n", Value::Array(array)))?;
    } else if arguments.print {
        to_stderr(&lines(&fatal, ""));
    } else {
        to_stdout(&lines(&fatal, ""))?;
    }
    if fatal.is_empty() {
        to_stderr(&format!("{path}: nothing is against running it on {}\n", chip.name));
        return Ok(());
    }
    let count = fatal.len();
    Err(Failure::Failed(anyhow::anyhow!("{path}: {count} violations of what {} runs", chip.name)))
}

fn as_json(function: &str, v: &Violation) -> Value {
    json!({
        "function": function,
        "path": v.path,
        "op": v.op,
        "id": v.id,
        "severity": v.severity.name(),
        "message": v.message,
        "limit": v.limit,
        "actual": v.actual,
        "remedy": v.remedy,
        "source": v.source,
        "confidence": v.confidence.name(),
    })
}
