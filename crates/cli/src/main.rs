//! The program `arcane`.
//!
//! Progress goes to stderr, results to stdout. Exit status: 0 done, or the reader of the results has gone; 1 it ran and failed;
//! 2 the input or the usage was wrong, with one line on stderr; 130 stopped by Ctrl-C.

mod bench;
mod check;
mod convert;
mod device;
mod doctor;
mod eval;
mod failure;
mod generate;
mod interrupt;
mod model;
mod neural_engine;
mod plan;
mod program;
mod progress;
mod run;
mod system;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Trains neural networks on the Neural Engine, or on any CPU.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model as a configuration says.
    Train(train::Arguments),
    /// Continue a text.
    Generate(generate::Arguments),
    /// Compute the loss of a model on documents.
    Eval(eval::Arguments),
    /// Run a MIL program.
    Run(run::Arguments),
    /// Read a MIL program and check it.
    Check(check::Arguments),
    /// Say what would run where on a chip, and how long it would take.
    Plan(plan::Arguments),
    /// Write a model in another format.
    Convert(convert::Arguments),
    /// Measure, and print the figures as JSON.
    Bench(bench::Arguments),
    /// Say what this machine can do, and why not.
    Doctor(doctor::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => return usage(&e),
    };
    let result = match arguments.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                let _ = writeln!(std::io::stderr(), "error: {message}");
            }
            ExitCode::from(failure.status())
        }
    }
}

/// Help and version as clap has them; an error of usage as one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let _ = error.print();
        let failed = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return ExitCode::from(if failed { 2 } else { 0 });
    }
    let text = error.render().to_string();
    let line: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let _ = writeln!(std::io::stderr(), "{} (--help lists what there is)", line.join(" "));
    ExitCode::from(2)
}
