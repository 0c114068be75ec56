//! `arcane train`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use arcane_chip::Chip;
use arcane_chip::price::relative_half_width;
use arcane_train::config::Config;
use arcane_train::report::record_sample;
use arcane_train::run::{Run, Start, Summary};
use arcane_train::run_folder::{RunFolder, RunFolderError};
use arcane_train::samples::Sample;
use arcane_train::tokenizer::TOKENIZER_FILE;
use arcane_train::trainer::Environment;
use serde_json::json;

use crate::device::{Device, DeviceArguments};
use crate::failure::Failure;
use crate::generate::sample;
use crate::interrupt::on_interrupt;
use crate::progress::Progress;

/// What is trained without a configuration, and what it is called in messages.
const DEMO: (&str, &str) = ("demo.toml", include_str!("demo.toml"));
/// Where the demo runs; the next time in `runs/demo-2`.
const DEMO_FOLDER: &str = "runs/demo";
/// Folders that are tried.
const DEMO_FOLDERS: u64 = 1000;
/// How a sample begins, and the most tokens that it has beside.
const SAMPLE_PROMPT: &str = "It was";
const SAMPLE_TOKENS: usize = 120;
/// Far more than any configuration has.
const CONFIG_BYTES: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration; without one a small model is trained on novels by Jane Austen, in about two minutes.
    config: Option<PathBuf>,
    /// The run's folder [default: run.dir of the configuration, else runs/NAME after the configuration's file;
    /// without a configuration the first of runs/demo, runs/demo-2, ... that does not exist].
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
    let (name, text) = read_text(arguments.config.as_deref())?;
    let mut config = parse(&name, &text, arguments)?;
    let shown = run_folder(arguments, &config);
    let folder =
        std::path::absolute(&shown).map_err(|e| Failure::input(format!("--run {}: {e}", shown.display())))?;
    config.run.dir = Some(folder.clone());
    let start = if arguments.resume { Start::Resume } else { Start::New };
    if start == Start::New && folder.symlink_metadata().is_ok() {
        return Err(Failure::Input(RunFolderError::Exists(folder).into()));
    }
    let chosen = arguments.device.choose_with(Device::Auto, config.sim.faults())?;
    let mut run = Run::open(&config, &folder, start, &chosen.environment)
        .map_err(|error| Failure::setup(error, &name.display().to_string()))?;
    let trainer = run.trainer();
    let _ = writeln!(
        std::io::stderr(),
        "model: {} parameters; data: {}",
        trainer.model_config().parameter_count(),
        trainer.data().report()
    );
    let interrupted = on_interrupt("stopping after this update")?;
    let mut progress = Progress::new(config.train.steps, trainer.updates(), trainer.tokens());
    let stop = || interrupted.load(Ordering::Relaxed);
    let result = run.train(&stop, &mut |event| progress.show(event));
    say_report(&progress, &shown, run.history().alarm_count);
    let summary = result?;
    print_summary(arguments, &folder, &run, &summary).map_err(|e| Failure::Failed(e.into()))?;
    if summary.stopped {
        return Err(Failure::Interrupted);
    }
    if arguments.json {
        return Ok(());
    }
    let updates = run.trainer().updates();
    // The trainer's memory is free for the sample.
    drop(run);
    after_training(&config, &shown, updates, &summary, &chosen.environment)
}

/// Says where the report is, if the run came as far as that.
fn say_report(progress: &Progress, run: &Path, alarms: u64) {
    let report = RunFolder::at(run).report_path();
    if !report.exists() {
        return;
    }
    let alarms = match alarms {
        0 => String::new(),
        1 => ", 1 alarm".into(),
        n => format!(", {n} alarms"),
    };
    progress.say(&format!("report {}{alarms}", report.display()));
}

/// What follows a run over text that has come to its end after so many updates: a sample on stdout and in the report, and on
/// stderr what to try next.
fn after_training(
    config: &Config,
    folder: &Path,
    updates: u64,
    summary: &Summary,
    environment: &Environment,
) -> Result<(), Failure> {
    if !summary.checkpoint.join(TOKENIZER_FILE).exists() {
        return Ok(());
    }
    let text = match sample(&summary.checkpoint, SAMPLE_PROMPT, SAMPLE_TOKENS, environment) {
        Ok(text) => text,
        // The run itself has succeeded: a tokenizer that came with token ids may be of no use.
        Err(failure) => {
            let why = failure.message().unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "no sample: {why}");
            return Ok(());
        }
    };
    writeln!(std::io::stdout(), "\na sample:\n{SAMPLE_PROMPT}{text}\n")
        .map_err(|e| Failure::Failed(e.into()))?;
    let sample = Sample { step: updates, prompt: SAMPLE_PROMPT.into(), text };
    record_sample(folder, sample).map_err(|e| Failure::Failed(e.into()))?;
    let (folder, data) = (folder.display(), config.data.valid.as_ref().unwrap_or(&config.data.train));
    let _ = writeln!(
        std::io::stderr(),
        "try next: arcane generate {folder} --prompt \"{SAMPLE_PROMPT}\"\n          arcane eval {folder} --data {} --limit 10",
        data.display()
    );
    Ok(())
}

/// The text of the configuration and what it is called: that of the demo without a file.
pub(crate) fn read_text(file: Option<&Path>) -> Result<(PathBuf, String), Failure> {
    let Some(file) = file else { return Ok((DEMO.0.into(), DEMO.1.into())) };
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
    Ok((file.into(), text))
}

fn parse(name: &Path, text: &str, arguments: &Arguments) -> Result<Config, Failure> {
    let mut overrides = arguments.set.clone();
    overrides.extend(arguments.steps.map(|n| format!("train.steps={n}")));
    overrides.extend(arguments.seed.map(|n| format!("train.seed={n}")));
    Config::parse(text, name, &overrides).map_err(|e| Failure::Input(e.into()))
}

/// The run's folder as the user would write it.
fn run_folder(arguments: &Arguments, config: &Config) -> PathBuf {
    match (&arguments.run, &config.run.dir, &arguments.config) {
        (Some(folder), _, _) | (None, Some(folder), _) => folder.clone(),
        (None, None, Some(file)) => Path::new("runs").join(file.file_stem().unwrap_or_default()),
        (None, None, None) => demo_folder(arguments.resume),
    }
}

/// The first folder for a demo that does not exist; to resume, the last one that does.
fn demo_folder(resume: bool) -> PathBuf {
    let number = |n: u64| match n {
        1 => PathBuf::from(DEMO_FOLDER),
        n => PathBuf::from(format!("{DEMO_FOLDER}-{n}")),
    };
    let free = (1..DEMO_FOLDERS).find(|&n| number(n).symlink_metadata().is_err()).unwrap_or(DEMO_FOLDERS);
    number(if resume { (free - 1).max(1) } else { free })
}

fn print_summary(arguments: &Arguments, folder: &Path, run: &Run, summary: &Summary) -> std::io::Result<()> {
    let trainer = run.trainer();
    let (updates, loss) = (trainer.updates(), summary.last.map(|m| m.loss));
    let best = summary.best.as_ref();
    let mut out = std::io::stdout();
    if arguments.json {
        let value = json!({
            "run": folder,
            "checkpoint": summary.checkpoint,
            "steps": updates,
            "loss": loss,
            "valid_loss": summary.valid_loss,
            "valid_bits_per_byte": summary.valid_bits_per_byte,
            "tokens": trainer.tokens(),
            "skipped": trainer.skipped(),
            "stopped": summary.stopped,
            "best_checkpoint": best.map(|(path, _)| path),
            "best_valid_loss": best.map(|(_, evaluation)| evaluation.loss),
            "report": RunFolder::at(folder).report_path(),
            "alarms": run.history().alarm_count,
            "modelled": trainer.predicted().map(|p| json!({
                "chip": arguments.device.chip,
                "predicted_ms": p.total_ms,
                "predicted_mj": p.energy_mj,
                "uncertainty": uncertainty(arguments),
            })),
        });
        return writeln!(out, "{value}");
    }
    if let Some(p) = trainer.predicted() {
        let _ = writeln!(
            std::io::stderr(),
            "modelled, not measured: {:.2} ms and {:.1} mJ an update on {} (± {:.0} %)",
            p.total_ms,
            p.energy_mj,
            arguments.device.chip,
            uncertainty(arguments) * 100.0
        );
    }
    let loss = loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
    let valid = summary.valid_loss.map(|loss| valid_text(loss, summary.valid_bits_per_byte));
    let valid = valid.map_or(String::new(), |text| format!(", {text}"));
    let best = match best {
        Some((path, _)) if *path == summary.checkpoint => ", the best".into(),
        Some((path, best)) => {
            format!(", best {} ({})", path.display(), valid_text(best.loss, best.bits_per_byte))
        }
        None => String::new(),
    };
    writeln!(out, "{updates} updates{loss}{valid}, checkpoint {}{best}", summary.checkpoint.display())
}

/// The relative half-width of what is modelled for the chip of the flags, which is known to exist.
fn uncertainty(arguments: &Arguments) -> f64 {
    Chip::named(&arguments.device.chip).map_or(0.0, relative_half_width)
}

fn valid_text(loss: f64, bits_per_byte: Option<f64>) -> String {
    match bits_per_byte {
        Some(bits) => format!("valid {bits:.3} bits/byte"),
        None => format!("valid loss {loss:.4}"),
    }
}
