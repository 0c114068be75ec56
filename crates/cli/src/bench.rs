//! `arcane bench`.

mod chip;
mod conformance;
mod generate;
mod kernels;

use std::io::Write;
use std::path::{Path, PathBuf};

use arcane_engine::SimulatedEngine;
use arcane_models::{LlamaConfig, preset};
use arcane_train::batches::Data;
use arcane_train::config::{
    Config, DataConfig, DataOrder, IdDtype, ModelConfig, OptimizerConfig, RunConfig, ScheduleConfig,
    SimConfig, TrainConfig,
};
use arcane_train::model::{Model, known_preset, read_model_config};
use arcane_train::tokens::Tokens;
use arcane_train::trainer::{StepTimes, Trainer};
use arcane_train::{SetupError, StepError};
use serde_json::{Value, json};

use crate::device::{Chosen, Device, DeviceArguments};
use crate::failure::Failure;
use crate::system::peak_resident_bytes;

/// Updates before those that are timed.
const WARM_UP: u64 = 2;
/// A causal mask takes the square of it in bytes.
const MAX_SEQ: i64 = 1 << 24;
/// Random tokens that are made, unless one sequence takes more.
const MAX_TOKENS: u64 = 1 << 22;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Time whole updates: loss, gradients and `AdamW`, on random weights and tokens.
    Train(TrainArguments),
    /// Time generation: the prompt, and each token after it, beside the memory's bandwidth.
    Generate(generate::Arguments),
    /// The model of a chip's time: what it is fitted to, and how far it is off.
    Chip(chip::Arguments),
    /// Measure the memory's bandwidth and single kernels: the best of several runs.
    Kernels(kernels::Arguments),
    /// Run every case of the conformance suite on an engine, and compare with the reference evaluator.
    Conformance(conformance::Arguments),
}

#[derive(Debug, clap::Args)]
struct TrainArguments {
    /// A preset's name, or a Hugging Face config.json.
    #[arg(long)]
    config: String,
    /// Sequences in an update.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Predictions in a sequence.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MAX_SEQ))]
    seq: u32,
    /// Updates that are timed.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The seed of weights and tokens.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Add where the time goes.
    #[arg(long)]
    profile: bool,
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        What::Train(arguments) => train(arguments),
        What::Chip(_) => print(&chip::measure()),
        What::Generate(arguments) => print(&generate::measure(arguments)?),
        What::Kernels(arguments) => print(&kernels::measure(arguments)?),
        What::Conformance(arguments) => print(&conformance::measure(arguments)?),
    }
}

fn train(arguments: &TrainArguments) -> Result<(), Failure> {
    let model = model_config(&arguments.config).map_err(|e| Failure::setup(e, "--config"))?;
    let chosen = arguments.device.choose(Device::Auto)?;
    let config = config(arguments);
    let setup = || -> Result<Trainer, SetupError> {
        let tokens = random_tokens(&config, &model)?;
        let data = Data::new(&config, tokens, None)?;
        Trainer::new(&config, Model::random(model.clone(), arguments.seed), data, &chosen.environment)
    };
    let mut trainer = setup().map_err(|e| Failure::setup(e, &format!("--config {}", arguments.config)))?;
    let timed = time(&mut trainer, arguments.steps).map_err(|e| Failure::Failed(e.into()))?;
    let result = report(arguments, &model, &chosen, &timed);
    print(&result)
}

fn print(result: &Value) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{result}").map_err(|e| Failure::Failed(e.into()))
}

/// A preset's name, or else a file.
fn model_config(name: &str) -> Result<LlamaConfig, SetupError> {
    match preset(name) {
        Some(config) => Ok(config),
        None if Path::new(name).exists() => read_model_config(Path::new(name)),
        None => known_preset(name),
    }
}

fn config(arguments: &TrainArguments) -> Config {
    Config {
        model: ModelConfig::default(),
        data: DataConfig {
            train: PathBuf::from("random tokens"),
            valid: None,
            valid_fraction: None,
            tokenizer: None,
            vocab: None,
            seq: arguments.seq as usize,
            order: DataOrder::Sequential,
            id_dtype: IdDtype::Auto,
            first_sequence: 0,
        },
        train: TrainConfig {
            steps: WARM_UP + arguments.steps,
            batch: arguments.batch as usize,
            accumulate: 1,
            seed: arguments.seed,
            loss_scale: None,
        },
        optimizer: OptimizerConfig::default(),
        schedule: ScheduleConfig::default(),
        run: RunConfig::default(),
        sim: SimConfig::default(),
    }
}

/// A few batches of random tokens, the same ones over and over.
fn random_tokens(config: &Config, model: &LlamaConfig) -> Result<Tokens, SetupError> {
    const BATCHES: u64 = 4;
    let seq = config.data.seq as u64;
    let sequences = (BATCHES * config.train.batch as u64).min(MAX_TOKENS / seq).max(1);
    Ok(Tokens::random(&config.data.train, sequences * seq + 1, model.vocab_size, config.train.seed)?)
}

struct Timed {
    /// Milliseconds of each update, sorted.
    ms: Vec<f64>,
    /// The loss of the last update.
    loss: f64,
    /// Where the time went, update by update.
    times: Vec<StepTimes>,
}

fn time(trainer: &mut Trainer, steps: u64) -> Result<Timed, StepError> {
    let mut timed = Timed { ms: Vec::new(), loss: f64::NAN, times: Vec::new() };
    for step in 0..WARM_UP + steps {
        let metrics = trainer.step()?;
        if step >= WARM_UP {
            timed.ms.push(metrics.ms);
            timed.loss = metrics.loss;
            timed.times.push(trainer.times());
        }
    }
    timed.ms.sort_by(f64::total_cmp);
    Ok(timed)
}

fn report(arguments: &TrainArguments, model: &LlamaConfig, chosen: &Chosen, timed: &Timed) -> Value {
    let (batch, seq) = (f64::from(arguments.batch), f64::from(arguments.seq));
    let (ms, tokens) = (median(&timed.ms), batch * seq);
    let params = model.parameter_count();
    let attention = 12.0 * model.num_hidden_layers as f64 * model.hidden_size as f64 * seq;
    let flops = (6.0 * params as f64 + attention) * tokens;
    let mut result = json!({
        "config": arguments.config,
        "params": params,
        "batch": arguments.batch,
        "seq": arguments.seq,
        "device": chosen.device,
        "dtype": chosen.environment.precision.name(),
        "ms": ms,
        "tok_s": tokens / ms * 1e3,
        "gflops": flops / ms / 1e6,
        "peak_rss_bytes": peak_resident_bytes(),
        "loss": timed.loss,
    });
    if let Some(simulated) = &chosen.simulated {
        result["simulated"] = counters(simulated);
    }
    if arguments.profile {
        result["profile"] = profile(timed);
    }
    result
}

/// What the simulated engine has done, all updates together.
fn counters(engine: &SimulatedEngine) -> Value {
    let c = engine.counters();
    json!({
        "chip": engine.chip().name,
        "compiles": c.compiles,
        "loads": c.loads,
        "most_loaded": c.most_loaded,
        "dispatches": c.dispatches,
        "bytes_read": c.bytes_read,
        "bytes_written": c.bytes_written,
        "busy_ms_modelled": c.busy_ns * 1e-6,
        "energy_mj_modelled": c.energy_mj,
    })
}

/// The median time of each part of an update.
fn profile(timed: &Timed) -> Value {
    let part = |of: fn(&StepTimes) -> std::time::Duration| {
        let mut ms: Vec<f64> = timed.times.iter().map(|t| of(t).as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        median(&ms)
    };
    json!({
        "forward_backward_ms": part(|t| t.forward_backward),
        "update_ms": part(|t| t.update),
    })
}

/// Of sorted numbers, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}
