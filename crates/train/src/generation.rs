//! Text token by token: prefill, decode, sampling, stop strings.

use std::collections::BTreeSet;

use arcane_compile::{BufferKind, Plan};
use arcane_engine::Buffer;
use arcane_mil::Function;
use arcane_models::{LlamaConfig, StepShape, step};
use arcane_session::{CallId, Session};

use crate::error::SetupError;
use crate::inference::{InferenceError, load};
use crate::model::Model;
use crate::program::ProgramError;
use crate::sampling::{Sampler, Sampling};
use crate::trainer::Environment;

/// Contexts are this many positions, or twice as many, and so on: few different programs then serve all lengths.
const SMALLEST_CONTEXT: usize = 128;
/// A function for a number of tokens.
#[derive(Debug, Clone, Copy)]
struct StepKind {
    name: &'static str,
    /// How many tokens a call takes. It divides every context, so that a padded call stays inside it.
    tokens: usize,
    /// From how many tokens on one call, be it padded, is faster than several of the smaller ones.
    least: usize,
}

/// Largest first. On two cores a call of 128 takes as long as six of 16, and one of 16 as long as two of one, for models of 15
/// and of 42 million parameters (`arcane bench generate`): a weight is read once for all tokens of a call.
const STEPS: [StepKind; 3] = [
    StepKind { name: "prefill_128", tokens: 128, least: 97 },
    StepKind { name: "prefill_16", tokens: 16, least: 2 },
    StepKind { name: "decode", tokens: 1, least: 1 },
];

/// The matrix whose rows are the tokens' vectors.
const EMBEDDING: &str = "model.embed_tokens.weight";

/// The functions that a prompt of so many tokens, and single tokens after it, are taken with.
fn steps_for(prompt: usize) -> impl Iterator<Item = StepKind> {
    STEPS.into_iter().filter(move |step| step.least <= prompt.max(1))
}

/// Bytes of weights and caches that decoding a token reads, each once: of an embedding that is not the output matrix one row,
/// of the caches every position.
fn bytes_per_token(plan: &Plan, config: &LlamaConfig) -> usize {
    let runs = plan.call("decode").into_iter().flat_map(arcane_compile::Call::runs);
    let buffers: BTreeSet<usize> = runs.flat_map(|(_, ports)| ports).map(|port| port.buffer).collect();
    let bytes = buffers.into_iter().map(|i| &plan.buffers[i]).map(|buffer| match buffer.kind {
        BufferKind::Weight if buffer.name == EMBEDDING && !config.tie_word_embeddings => {
            buffer.ty.bytes() / config.vocab_size
        }
        BufferKind::Weight | BufferKind::State => buffer.ty.bytes(),
        _ => 0,
    });
    bytes.sum()
}

/// Which of the steps, largest first, takes the next of `left` tokens. A step starts at a multiple of its length.
fn next_step(steps: impl IntoIterator<Item = StepKind>, position: usize, left: usize) -> usize {
    let fits = |step: StepKind| step.least <= left && position.is_multiple_of(step.tokens);
    steps.into_iter().position(fits).expect("decode takes any token")
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The model ended the text.
    EndOfText,
    /// A stop string came up; it is not part of the text.
    StopString,
    /// As many tokens as asked for.
    MaxTokens,
    /// The model's context is full.
    ContextFull,
    /// The receiver of the text wanted no more.
    Interrupted,
}

impl Ending {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::StopString => "stop_string",
            Self::MaxTokens => "max_tokens",
            Self::ContextFull => "context_full",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What is to be generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// The text so far; at least one token.
    pub prompt: &'a [u32],
    /// The most tokens to add.
    pub max_tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Tokens that end the text.
    pub end_tokens: &'a [u32],
}

/// A model with the caches of one text.
pub struct Generator {
    session: Session,
    /// Largest first, as in [`STEPS`].
    steps: Vec<Step>,
    logits: Vec<f32>,
    logits_buffer: Buffer,
    context: usize,
    vocab: usize,
    position: usize,
    bytes_per_token: usize,
}

/// The call of a function, and the buffers of its batch.
struct Step {
    kind: StepKind,
    call: CallId,
    ids: Buffer,
    positions: Buffer,
    mask: Buffer,
    last: Buffer,
}

/// The context that holds so many tokens, or the model's own where that is less than they need.
fn context_for(tokens: usize, limit: usize) -> usize {
    let mut context = SMALLEST_CONTEXT;
    while context < tokens && context < limit {
        context *= 2;
    }
    context
}

impl Generator {
    /// Loads a model for texts of up to `tokens` tokens, or as many as its context has. `prompt` says how many tokens come
    /// at once: which prefill functions are worth loading.
    ///
    /// # Errors
    /// [`SetupError`]; one about too little memory comes before any is allocated.
    pub fn new(
        model: &Model,
        tokens: usize,
        prompt: usize,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        let config = &model.config;
        let limit = config.max_position_embeddings;
        let context = context_for(tokens.min(limit), limit);
        let functions: Vec<Function> = steps_for(prompt)
            .map(|kind| step(kind.name, config, StepShape { tokens: kind.tokens, context }))
            .collect::<Result<_, _>>()
            .map_err(ProgramError::from)?;
        let what = format!("generating with a context of {context} tokens");
        let session = load(model, &functions, &what, environment)?;
        let port = |name: &str, port: &str| session.buffer(&format!("{name}.{port}")).cloned();
        let steps = steps_for(prompt)
            .map(|kind| {
                Ok(Step {
                    kind,
                    call: session.call_id(kind.name)?,
                    ids: port(kind.name, "tokens")?,
                    positions: port(kind.name, "positions")?,
                    mask: port(kind.name, "mask")?,
                    last: port(kind.name, "last")?,
                })
            })
            .collect::<Result<_, SetupError>>()?;
        let logits_buffer = session.buffer("logits")?.clone();
        let vocab = config.vocab_size;
        let bytes_per_token = bytes_per_token(session.plan(), config);
        Ok(Self {
            session,
            steps,
            logits: vec![0.0; vocab],
            logits_buffer,
            context: context.min(limit),
            vocab,
            position: 0,
            bytes_per_token,
        })
    }

    /// How many tokens a text may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Bytes of weights and caches that decoding a token reads: the caches are read whole, as far as they may reach.
    pub fn bytes_per_token(&self) -> usize {
        self.bytes_per_token
    }

    /// How many tokens the text has.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Starts another text.
    pub fn clear(&mut self) {
        self.position = 0;
    }

    /// Adds tokens to the text and gives the logits of the next one.
    ///
    /// # Errors
    /// [`InferenceError`]: a token outside the vocabulary, logits that are not finite, a call that failed.
    ///
    /// # Panics
    /// If there are no tokens, or more than the context has room for.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32], InferenceError> {
        assert!(!tokens.is_empty() && self.position + tokens.len() <= self.context, "tokens fit the context");
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= self.vocab) {
            return Err(InferenceError::Vocab { token, vocab: self.vocab });
        }
        let mut left = tokens;
        while !left.is_empty() {
            let kinds = self.steps.iter().map(|step| step.kind);
            let step = &self.steps[next_step(kinds, self.position, left.len())];
            let (now, rest) = left.split_at(step.kind.tokens.min(left.len()));
            step.run(&self.session, now, self.position)?;
            self.position += now.len();
            left = rest;
        }
        self.read_logits()
    }

    fn read_logits(&mut self) -> Result<&[f32], InferenceError> {
        let logits = &mut self.logits;
        self.logits_buffer.read(|bytes| {
            for (to, from) in logits.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *to = f32::from_le_bytes(*from);
            }
        })?;
        let count = self.logits.iter().filter(|x| !x.is_finite()).count();
        if count > 0 {
            let what = format!("the logits after token {}", self.position);
            return Err(InferenceError::NotFinite { what, count, total: self.logits.len() });
        }
        Ok(&self.logits)
    }

    /// Generates, and hands each token to `take`, which says whether it wants more. End tokens are not handed over.
    ///
    /// # Errors
    /// As [`Generator::feed`].
    ///
    /// # Panics
    /// As [`Generator::feed`], for the prompt.
    pub fn generate(
        &mut self,
        request: &Request<'_>,
        take: &mut dyn FnMut(u32) -> Result<Wish, InferenceError>,
    ) -> Result<Ending, InferenceError> {
        let mut sampler = Sampler::new(request.sampling, self.vocab);
        request.prompt.iter().for_each(|&token| sampler.note(token));
        let context = self.context;
        if request.max_tokens == 0 {
            return Ok(Ending::MaxTokens);
        }
        self.feed(request.prompt)?;
        for n in 1.. {
            let token = sampler.next(&self.logits);
            if request.end_tokens.contains(&token) {
                return Ok(Ending::EndOfText);
            }
            sampler.note(token);
            match take(token)? {
                Wish::More => {}
                Wish::Stop(ending) => return Ok(ending),
            }
            if n == request.max_tokens {
                return Ok(Ending::MaxTokens);
            }
            if self.position == context {
                return Ok(Ending::ContextFull);
            }
            self.feed(&[token])?;
        }
        unreachable!("the loop ends by itself")
    }
}

/// What the receiver of a token wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The next token.
    More,
    /// No more, for this reason.
    Stop(Ending),
}

impl Step {
    /// Runs the function on tokens that start at a position; what is missing is padded with token 0, which writes to
    /// positions that no token sees before it is overwritten.
    fn run(&self, session: &Session, tokens: &[u32], start: usize) -> Result<(), InferenceError> {
        let (n, count) = (self.kind.tokens, tokens.len());
        let put = |buffer: &Buffer, value: &dyn Fn(usize) -> u32| {
            buffer.write(|bytes| {
                for (i, slot) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *slot = value(i).to_le_bytes();
                }
            })
        };
        put(&self.ids, &|i| tokens.get(i).copied().unwrap_or(0))?;
        put(&self.positions, &|i| (start + i) as u32)?;
        put(&self.last, &|_| (count - 1) as u32)?;
        self.mask.write(|bytes| {
            let context = bytes.len() / n;
            for (i, row) in bytes.chunks_exact_mut(context).enumerate() {
                let (seen, unseen) = row.split_at_mut(start + i + 1);
                seen.fill(1);
                unseen.fill(0);
            }
        })?;
        session.run(self.call)?;
        Ok(())
    }
}

/// Finds stop strings in a text that comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The end of the text that may be the start of a stop string.
    held: String,
}

impl StopStrings {
    /// Any of these ends the text; empty ones are left out.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Takes a piece; gives the text that is certain, and whether a stop string came up behind it.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let certain = (0..=self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| {
                let end = &self.held[at..];
                end.is_empty() || self.stops.iter().any(|s| s.starts_with(end))
            })
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that was held back; no more pieces come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_powers_of_two_and_reach_the_models_own() {
        assert_eq!([1, 128, 129, 600].map(|n| context_for(n, 4096)), [128, 128, 256, 1024]);
        assert_eq!(context_for(700, 700), 1024);
        assert_eq!(context_for(40, 50), 128);
    }

    /// The lengths of the calls for a prompt, as a generator does them.
    fn calls(prompt: usize) -> Vec<usize> {
        let steps: Vec<StepKind> = steps_for(prompt).collect();
        let (mut calls, mut position) = (Vec::new(), 0);
        while position < prompt {
            let n = steps[next_step(steps.iter().copied(), position, prompt - position)].tokens;
            calls.push(n);
            position += n.min(prompt - position);
        }
        calls
    }

    #[test]
    fn a_prompt_takes_few_calls() {
        assert_eq!(calls(1), [1]);
        assert_eq!(calls(2), [16]);
        assert_eq!(calls(16), [16]);
        assert_eq!(calls(17), [16, 1]);
        assert_eq!(calls(96), [16; 6]);
        assert_eq!(calls(97), [128]);
        assert_eq!(calls(128), [128]);
        assert_eq!(calls(145), [128, 16, 1]);
        assert_eq!(calls(250), [128, 128]);
        assert_eq!(calls(300), [vec![128; 2], vec![16; 3]].concat());
        let loaded = |prompt| steps_for(prompt).map(|step| step.name).collect::<Vec<_>>();
        assert_eq!((loaded(0), loaded(16)), (vec!["decode"], vec!["prefill_16", "decode"]));
    }

    #[test]
    fn a_text_that_goes_on_between_the_starts_of_prefills_is_decoded() {
        let next = |position, left| STEPS[next_step(STEPS, position, left)].tokens;
        assert_eq!([next(5, 20), next(16, 20), next(16, 128), next(128, 128)], [1, 16, 16, 128]);
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_nothing_of_it_is_given() {
        let mut stops = StopStrings::new(&["\n\nQ:".into(), "END".into(), String::new()]);
        assert_eq!(stops.push("one\n"), ("one".into(), false));
        assert_eq!(stops.push("two E"), ("\ntwo ".into(), false));
        assert_eq!(stops.push("xN"), ("ExN".into(), false));
        assert_eq!(stops.push("\n\n"), (String::new(), false));
        assert_eq!(stops.push("Q: three"), (String::new(), true));
    }

    #[test]
    fn the_first_of_several_stop_strings_ends_the_text() {
        let mut stops = StopStrings::new(&["c".into(), "bc".into()]);
        assert_eq!(stops.push("abcd"), ("a".into(), true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_comes_at_the_end() {
        let mut stops = StopStrings::new(&["éz".into()]);
        assert_eq!(stops.push("aé"), ("a".into(), false));
        assert_eq!(stops.finish(), "é");
        assert_eq!(StopStrings::new(&[]).push("all of it"), ("all of it".into(), false));
    }
}
