//! `arcane generate`.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arcane_train::clock::Clock;
use arcane_train::generation::{Ending, Generator, Request, StopStrings, Wish};
use arcane_train::model::Model;
use arcane_train::sampling::Sampling;
use arcane_train::tokenizer::{TokenStream, Tokenizer};
use arcane_train::trainer::Environment;
use serde_json::json;

use crate::device::{Device, DeviceArguments};
use crate::failure::Failure;
use crate::interrupt::on_interrupt;
use crate::model::ModelArguments;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The start of the text, taken as it is.
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// The most tokens to add.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// End the text before this string; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print the text and figures as JSON when all is done.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, clap::Args)]
struct SamplingArguments {
    /// What logits are divided by; 0 takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = temperature, allow_negative_numbers = true)]
    temperature: f64,
    /// Choose among the K most likely tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = probability, allow_negative_numbers = true)]
    top_p: f64,
    /// Make tokens that have occurred less likely; 1 for no penalty.
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = penalty, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// The seed of the draws.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

fn number(text: &str, is_good: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|&x: &f64| x.is_finite() && is_good(x));
    value.ok_or_else(|| format!("{expected} was expected"))
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0, "a number of at least 0")
}

fn probability(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0 && x <= 1.0, "a number above 0 and up to 1")
}

fn penalty(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0, "a number above 0")
}

impl From<SamplingArguments> for Sampling {
    fn from(arguments: SamplingArguments) -> Self {
        let SamplingArguments { temperature, top_k, top_p, repetition_penalty, seed } = arguments;
        Self { temperature, top_k, top_p, repetition_penalty, seed }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let tokenizer = arguments.model.open_tokenizer(&model)?;
    let prompt = prompt_tokens(&tokenizer, &arguments.prompt)?;
    let limit = model.config.max_position_embeddings;
    if prompt.len() > limit {
        let n = prompt.len();
        let what = format!("--prompt: {n} tokens, the model's context of at most {limit} was expected");
        return Err(Failure::input(what));
    }
    let chosen = arguments.device.choose(Device::Cpu)?;
    let length = prompt.len().saturating_add(arguments.max_tokens);
    let mut generator = Generator::new(&model, length, prompt.len(), &chosen.environment)
        .map_err(|e| Failure::setup(e, &arguments.model.path().display().to_string()))?;
    let interrupted = on_interrupt("stopping after this token")?;
    let mut output = Output::new(&tokenizer, &prompt, &arguments.stop, !arguments.json);
    let end_tokens = end_tokens(&model, &tokenizer);
    let request = Request {
        prompt: &prompt,
        max_tokens: arguments.max_tokens,
        sampling: arguments.sampling.into(),
        end_tokens: &end_tokens,
    };
    let mut timing = Timing::new(&*chosen.environment.clock);
    let ending = generator.generate(&request, &mut |token| {
        timing.token();
        let wish = output.push(token);
        Ok(if interrupted.load(Ordering::Relaxed) { Wish::Stop(Ending::Interrupted) } else { wish })
    });
    timing.end();
    let ending = ending.map_err(|e| Failure::Failed(e.into()))?;
    output.finish(ending)?;
    let report = Report { arguments, prompt: prompt.len(), ending, timing: &timing, text: &output.text };
    report.print().map_err(|e| Failure::Failed(e.into()))?;
    if ending == Ending::Interrupted && interrupted.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted);
    }
    Ok(())
}

/// A text of up to `max_tokens` tokens that a trained model begins by itself, or goes on with after `prompt`.
pub(crate) fn sample(
    checkpoint: &Path,
    prompt: &str,
    max_tokens: usize,
    environment: &Environment,
) -> Result<String, Failure> {
    let given = ModelArguments::new(checkpoint);
    let model = given.open()?;
    let tokenizer = given.open_tokenizer(&model)?;
    let prompt = prompt_tokens(&tokenizer, prompt)?;
    let mut generator = Generator::new(&model, prompt.len() + max_tokens, prompt.len(), environment)
        .map_err(|e| Failure::setup(e, &checkpoint.display().to_string()))?;
    let mut output = Output::new(&tokenizer, &prompt, &[], false);
    let end_tokens = end_tokens(&model, &tokenizer);
    let request =
        Request { prompt: &prompt, max_tokens, sampling: Sampling::default(), end_tokens: &end_tokens };
    let ending = generator.generate(&request, &mut |token| Ok(output.push(token)));
    output.finish(ending.map_err(|e| Failure::Failed(e.into()))?)?;
    Ok(output.text)
}

/// The tokens of a prompt, with those that the tokenizer puts before a text.
fn prompt_tokens(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>, Failure> {
    let mut tokens = tokenizer.begin().to_vec();
    tokens.extend(tokenizer.encode(prompt, false).map_err(|e| Failure::Input(e.into()))?);
    if tokens.is_empty() {
        // What ends one text comes before the next.
        tokens.extend(tokenizer.eos());
    }
    if tokens.is_empty() {
        return Err(Failure::input("--prompt: no tokens, a text was expected"));
    }
    Ok(tokens)
}

/// What ends a text: its end, or the start of another.
fn end_tokens(model: &Model, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut tokens = model.config.eos_token_id.clone();
    tokens.extend(tokenizer.eos());
    tokens.extend(tokenizer.bos());
    tokens
}

/// The text, on stdout as it comes.
struct Output<'a> {
    stream: TokenStream<'a>,
    stops: StopStrings,
    shown: bool,
    text: String,
    failed: Option<anyhow::Error>,
}

impl<'a> Output<'a> {
    fn new(tokenizer: &'a Tokenizer, prompt: &[u32], stops: &[String], shown: bool) -> Self {
        let mut stream = tokenizer.stream();
        stream.follow(prompt);
        Self { stream, stops: StopStrings::new(stops), shown, text: String::new(), failed: None }
    }

    fn push(&mut self, token: u32) -> Wish {
        let piece = match self.stream.push(token) {
            Ok(piece) => piece.unwrap_or_default(),
            Err(e) => return self.fail(e),
        };
        let (certain, stopped) = self.stops.push(&piece);
        match self.show(&certain) {
            Err(e) => self.fail(e),
            Ok(()) if stopped => Wish::Stop(Ending::StopString),
            Ok(()) => Wish::More,
        }
    }

    fn fail(&mut self, error: impl Into<anyhow::Error>) -> Wish {
        self.failed = Some(error.into());
        Wish::Stop(Ending::Interrupted)
    }

    fn show(&mut self, text: &str) -> std::io::Result<()> {
        self.text.push_str(text);
        if !self.shown || text.is_empty() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Shows what was held back, and ends the line.
    fn finish(&mut self, ending: Ending) -> Result<(), Failure> {
        if let Some(error) = self.failed.take() {
            return Err(Failure::Failed(error));
        }
        if ending != Ending::StopString {
            let rest = self.stream.clone().finish().map_err(|e| Failure::Failed(e.into()))?;
            let (certain, stopped) = self.stops.push(&rest.unwrap_or_default());
            let held = if stopped { String::new() } else { self.stops.finish() };
            self.show(&(certain + &held)).map_err(|e| Failure::Failed(e.into()))?;
        }
        if self.shown {
            writeln!(std::io::stdout()).map_err(|e| Failure::Failed(e.into()))?;
        }
        Ok(())
    }
}

/// When the tokens came.
struct Timing<'a> {
    clock: &'a dyn Clock,
    start: Duration,
    first: Option<Duration>,
    last: Duration,
    tokens: usize,
}

impl<'a> Timing<'a> {
    fn new(clock: &'a dyn Clock) -> Self {
        let start = clock.now();
        Self { clock, start, first: None, last: start, tokens: 0 }
    }

    fn token(&mut self) {
        self.tokens += 1;
        self.first.get_or_insert(self.clock.now());
    }

    fn end(&mut self) {
        self.last = self.clock.now();
    }

    /// The prompt, up to the first token.
    fn prefill(&self) -> Duration {
        self.first.unwrap_or(self.last).saturating_sub(self.start)
    }

    /// All tokens but the first.
    fn decode(&self) -> Duration {
        self.last.saturating_sub(self.first.unwrap_or(self.last))
    }

    fn tokens_per_second(&self) -> f64 {
        let seconds = self.decode().as_secs_f64();
        if seconds > 0.0 { self.tokens.saturating_sub(1) as f64 / seconds } else { 0.0 }
    }
}

struct Report<'a> {
    arguments: &'a Arguments,
    prompt: usize,
    ending: Ending,
    timing: &'a Timing<'a>,
    text: &'a str,
}

impl Report<'_> {
    fn print(&self) -> std::io::Result<()> {
        let Self { arguments, prompt, ending, timing, text } = self;
        let (ms, rate) = (|d: Duration| d.as_secs_f64() * 1e3, timing.tokens_per_second());
        if arguments.json {
            let value = json!({
                "prompt": arguments.prompt,
                "text": text,
                "prompt_tokens": prompt,
                "tokens": timing.tokens,
                "ending": ending.name(),
                "prefill_ms": ms(timing.prefill()),
                "decode_ms": ms(timing.decode()),
                "tok_s": rate,
                "seed": arguments.sampling.seed,
            });
            return writeln!(std::io::stdout(), "{value}");
        }
        let tokens = timing.tokens;
        let (prefill, ending) = (ms(timing.prefill()), ending.name().replace('_', " "));
        let line =
            format!("{prompt} prompt tokens in {prefill:.0} ms, {tokens} tokens at {rate:.1} tokens/s");
        writeln!(std::io::stderr(), "{line} ({ending})")
    }
}
