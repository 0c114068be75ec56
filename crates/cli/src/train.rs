//! `arcane train`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arcane_train::config::Config;
use arcane_train::metrics::Metrics;
use arcane_train::run::{Event, Run, Start, Summary};
use arcane_train::run_folder::RunFolderError;
use serde_json::json;

use crate::device::{Device, DeviceArguments};
use crate::failure::Failure;

/// At most one line of progress in this time, but for the first, the last and those with a validation loss.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Far more than any configuration has.
const CONFIG_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration.
    config: Option<PathBuf>,
    /// The run's folder [default: run.dir of the configuration, else runs/NAME after the configuration's file].
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Go on from the latest checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// How many updates the whole run has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Replace a value of the configuration; relative paths are relative to the current folder.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The seed of everything random.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(file) = &arguments.config else {
        return Err(Failure::input("no CONFIG was given, expected arcane train CONFIG.toml"));
    };
    let mut config = read_config(file, arguments)?;
    let folder = run_folder(arguments, &config, file)?;
    config.run.dir = Some(folder.clone());
    let start = if arguments.resume { Start::Resume } else { Start::New };
    if start == Start::New && folder.symlink_metadata().is_ok() {
        return Err(Failure::Input(RunFolderError::Exists(folder).into()));
    }
    let chosen = arguments.device.choose(Device::Auto)?;
    let name = file.display().to_string();
    let mut run = Run::open(&config, &folder, start, &chosen.environment)
        .map_err(|error| Failure::setup(error, &name))?;
    let interrupted = on_interrupt()?;
    let first = run.trainer().updates() + 1;
    let mut progress = Progress { steps: config.train.steps, first, last_line: None };
    let stop = || interrupted.load(Ordering::Relaxed);
    let summary = run.train(&stop, &mut |event| progress.show(event))?;
    print_summary(arguments, &folder, &run, &summary).map_err(|e| Failure::Failed(e.into()))?;
    if summary.stopped { Err(Failure::Interrupted) } else { Ok(()) }
}

fn read_config(file: &Path, arguments: &Arguments) -> Result<Config, Failure> {
    let wrong = |what: String| Failure::input(format!("{}: {what}", file.display()));
    let read = || {
        let mut text = String::new();
        File::open(file)?.take(CONFIG_BYTES + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|e| wrong(format!("cannot read the configuration: {e}")))?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(wrong(format!("more than {CONFIG_BYTES} bytes, a configuration was expected")));
    }
    let mut overrides = arguments.set.clone();
    overrides.extend(arguments.steps.map(|n| format!("train.steps={n}")));
    overrides.extend(arguments.seed.map(|n| format!("train.seed={n}")));
    Config::parse(&text, file, &overrides).map_err(|e| Failure::Input(e.into()))
}

fn run_folder(arguments: &Arguments, config: &Config, file: &Path) -> Result<PathBuf, Failure> {
    let folder = match (&arguments.run, &config.run.dir) {
        (Some(folder), _) | (None, Some(folder)) => folder.clone(),
        (None, None) => Path::new("runs").join(file.file_stem().unwrap_or_default()),
    };
    std::path::absolute(&folder).map_err(|e| Failure::input(format!("--run {}: {e}", folder.display())))
}

/// A flag that Ctrl-C sets. The second Ctrl-C ends the program at once: files are written as a whole or not at all.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = {
        let flag = flag.clone();
        move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            let _ = writeln!(std::io::stderr(), "stopping after this update; Ctrl-C again stops at once");
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::Failed(e.into()))?;
    Ok(flag)
}

/// Lines on stderr.
struct Progress {
    steps: u64,
    first: u64,
    last_line: Option<Instant>,
}

impl Progress {
    fn show(&mut self, event: Event<'_>) {
        let line = match event {
            Event::Update(metrics) => {
                let at_an_end = metrics.step == self.first || metrics.step == self.steps;
                let is_due = self.last_line.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
                if !(at_an_end || is_due || metrics.valid_loss.is_some() || metrics.skipped) {
                    return;
                }
                self.last_line = Some(Instant::now());
                self.line(metrics)
            }
            Event::Checkpoint(path) => format!("checkpoint {}", path.display()),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    fn line(&self, metrics: &Metrics) -> String {
        let Metrics { step, loss, lr, ms, .. } = metrics;
        let norm = if metrics.skipped {
            format!("skipped: overflow at loss scale {}", metrics.loss_scale)
        } else {
            format!("grad norm {:.4}", metrics.grad_norm)
        };
        let valid = metrics.valid_loss.map_or(String::new(), |loss| format!("  valid loss {loss:.4}"));
        format!("step {step}/{}  loss {loss:.4}{valid}  lr {lr:.3e}  {norm}  {ms:.1} ms", self.steps)
    }
}

fn print_summary(arguments: &Arguments, folder: &Path, run: &Run, summary: &Summary) -> std::io::Result<()> {
    let trainer = run.trainer();
    let (updates, loss) = (trainer.updates(), summary.last.map(|m| m.loss));
    let mut out = std::io::stdout();
    if arguments.json {
        let value = json!({
            "run": folder,
            "checkpoint": summary.checkpoint,
            "steps": updates,
            "loss": loss,
            "valid_loss": summary.valid_loss,
            "tokens": trainer.tokens(),
            "skipped": trainer.skipped(),
            "stopped": summary.stopped,
        });
        return writeln!(out, "{value}");
    }
    let loss = loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
    writeln!(out, "{updates} updates{loss}, checkpoint {}", summary.checkpoint.display())
}
