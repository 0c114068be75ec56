//! `arcane bench generate`: how long a prompt and each token after it take.

use std::path::PathBuf;
use std::time::Duration;

use arcane_models::LlamaConfig;
use arcane_train::generation::{Generator, Request, Wish};
use arcane_train::model::Model;
use arcane_train::sampling::Sampling;
use arcane_train::tokens::Tokens;
use arcane_train::{InferenceError, SetupError};
use serde_json::{Value, json};

use super::kernels::memory_read;
use super::{median, model_config};
use crate::device::{Chosen, Device, DeviceArguments};
use crate::failure::Failure;
use crate::system::peak_resident_bytes;

/// Texts that are timed, after one that is not.
const ROUNDS: usize = 3;
/// Tokens of the text that is not timed: enough to have run every function.
const WARM_UP_TOKENS: usize = 2;
/// The most likely token, always: what is drawn does not change what a token costs.
const GREEDY: Sampling =
    Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelChoice,
    /// Tokens of the prompt, which are random.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens that are added to the prompt.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    new_tokens: u32,
    /// The seed of random weights and of the prompt.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ModelChoice {
    /// A preset's name, or a Hugging Face config.json; weights are random.
    #[arg(long)]
    config: Option<String>,
    /// A run, a checkpoint, a Hugging Face folder, a llama2.c .bin or a .gguf.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
}

impl ModelChoice {
    fn open(&self, seed: u64) -> Result<Model, SetupError> {
        match (&self.model, &self.config) {
            (Some(path), _) => Model::from_path(path),
            (None, config) => Ok(Model::random(model_config(config.as_deref().unwrap_or_default())?, seed)),
        }
    }

    /// What was given.
    fn name(&self) -> String {
        let path = self.model.as_ref().map(|path| path.display().to_string());
        path.or_else(|| self.config.clone()).unwrap_or_default()
    }

    /// What it was given with.
    fn flag(&self) -> &'static str {
        if self.model.is_some() { "--model" } else { "--config" }
    }
}

/// The figures of a model.
pub(crate) fn measure(arguments: &Arguments) -> Result<Value, Failure> {
    let choice = &arguments.model;
    let model = choice.open(arguments.seed).map_err(|e| Failure::setup(e, choice.flag()))?;
    let (prompt, new) = (arguments.prompt_tokens as usize, arguments.new_tokens as usize);
    check_length(&model.config, prompt, new)?;
    let chosen = arguments.device.choose(Device::Cpu)?;
    let name = format!("{} {}", choice.flag(), choice.name());
    let setup = || -> Result<(Generator, Vec<u32>), SetupError> {
        let generator = Generator::new(&model, prompt + new, prompt, &chosen.environment)?;
        let tokens =
            Tokens::random("the prompt".as_ref(), prompt as u64, model.config.vocab_size, arguments.seed)?;
        Ok((generator, tokens.to_vec()))
    };
    let (mut generator, tokens) = setup().map_err(|e| Failure::setup(e, &name))?;
    let timed = time(&mut generator, &tokens, new, &chosen).map_err(|e| Failure::Failed(e.into()))?;
    let (bytes, peak) = (generator.bytes_per_token(), peak_resident_bytes());
    drop(generator);
    let (prefill_ms, ms) = (median(&timed.prefill_ms), median(&timed.token_ms));
    let threads = chosen.environment.engines.host.describe().threads;
    let (gb_s, memory) = (bytes as f64 / ms / 1e6, memory_read(threads));
    Ok(json!({
        "config": choice.name(),
        "params": model.config.parameter_count(),
        "dtype": chosen.environment.precision.name(),
        "device": chosen.device,
        "threads": threads,
        "prompt_tokens": prompt,
        "new_tokens": new,
        "prefill_ms": prefill_ms,
        "prefill_tok_s": prompt as f64 / prefill_ms * 1e3,
        "ms": ms,
        "tok_s": 1e3 / ms,
        "bytes_per_token": bytes,
        "gb_s": gb_s,
        "memory_read_gb_s": memory,
        "memory_share": gb_s / memory,
        "peak_rss_bytes": peak,
    }))
}

fn check_length(config: &LlamaConfig, prompt: usize, new: usize) -> Result<(), Failure> {
    let limit = config.max_position_embeddings;
    if prompt + new <= limit {
        return Ok(());
    }
    let what = format!(
        "--prompt-tokens {prompt} --new-tokens {new}: {} tokens, the model's context of at most {limit} was expected",
        prompt + new
    );
    Err(Failure::input(what))
}

/// Milliseconds of each round's prompt, up to its first new token, and of each token after that; sorted.
struct Timed {
    prefill_ms: Vec<f64>,
    token_ms: Vec<f64>,
}

fn time(
    generator: &mut Generator,
    prompt: &[u32],
    new: usize,
    chosen: &Chosen,
) -> Result<Timed, InferenceError> {
    let mut timed = Timed { prefill_ms: Vec::new(), token_ms: Vec::new() };
    for round in 0..=ROUNDS {
        generator.clear();
        let max_tokens = if round == 0 { WARM_UP_TOKENS } else { new };
        let request = Request { prompt, max_tokens, sampling: GREEDY, end_tokens: &[] };
        let mut times: Vec<Duration> = Vec::with_capacity(max_tokens + 1);
        times.push(chosen.environment.clock.now());
        generator.generate(&request, &mut |_| {
            times.push(chosen.environment.clock.now());
            Ok(Wish::More)
        })?;
        let mut spans = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64() * 1e3);
        if round > 0 {
            timed.prefill_ms.extend(spans.next());
            timed.token_ms.extend(spans);
        }
    }
    timed.prefill_ms.sort_by(f64::total_cmp);
    timed.token_ms.sort_by(f64::total_cmp);
    Ok(timed)
}
