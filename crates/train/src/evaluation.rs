//! The loss of a model on documents, each alone.

use std::collections::{BTreeMap, VecDeque};

use arcane_engine::Buffer;
use arcane_models::LlamaConfig;
use arcane_session::{CallId, Session};

use crate::error::SetupError;
use crate::inference::{InferenceError, load};
use crate::model::Model;
use crate::program::evaluation;
use crate::trainer::Environment;

/// Predictions of a call, about: large enough for products to be fast, small enough to stay in cache.
const CALL_TOKENS: usize = 2048;
/// Windows are padded to this length, or twice it, and so on.
const SMALLEST_LENGTH: usize = 64;
/// The longest window by default.
const LONGEST_WINDOW: usize = 1024;

/// Predictions in a window by default: the model's context, at most 1024.
pub fn default_window(config: &LlamaConfig) -> usize {
    config.max_position_embeddings.min(LONGEST_WINDOW)
}

/// The sums of an evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evaluation {
    /// Sum of the losses of all predictions, in nats.
    pub loss_sum: f64,
    /// Predictions.
    pub tokens: u64,
}

impl Evaluation {
    /// Nats a prediction.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.tokens as f64
    }
}

/// Consecutive predictions in a document: where they start, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    document: usize,
    start: usize,
    len: usize,
}

/// Cuts documents of so many tokens into windows of at most `seq` predictions: every token but a document's first is predicted
/// once.
fn windows(lengths: impl Iterator<Item = usize>, seq: usize) -> impl Iterator<Item = Window> {
    lengths.enumerate().flat_map(move |(document, tokens)| {
        let predictions = tokens.saturating_sub(1);
        (0..predictions).step_by(seq).map(move |start| Window {
            document,
            start,
            len: seq.min(predictions - start),
        })
    })
}

/// Windows of about one length, many of which are predicted in one call.
struct Lane {
    /// Predictions in a padded window.
    len: usize,
    /// Windows in a call.
    batch: usize,
    waiting: VecDeque<Window>,
}

/// The function of a lane.
struct Call {
    id: CallId,
    tokens: Buffer,
    targets: Buffer,
    weights: Buffer,
    loss_sum: String,
}

/// Evaluates a model on documents of token ids, in windows of `seq` predictions. `progress` gets the sums so far after each
/// call.
///
/// # Errors
/// [`SetupError`] if the model cannot be loaded, a token is not in its vocabulary or there is nothing to predict; in the
/// inner result [`InferenceError`] if a call fails or a loss is not finite.
///
/// # Panics
/// If `seq` is 0.
pub fn evaluate(
    model: &Model,
    documents: &[Vec<u32>],
    seq: usize,
    environment: &Environment,
    progress: &mut dyn FnMut(Evaluation),
) -> Result<Result<Evaluation, InferenceError>, SetupError> {
    let vocab = model.config.vocab_size;
    let bad = documents.iter().flatten().find(|&&token| token as usize >= vocab);
    if let Some(&token) = bad {
        let error = InferenceError::Vocab { token, vocab };
        return Err(SetupError::Key { key: "data", what: error.to_string() });
    }
    let lanes = lanes(documents, seq);
    if lanes.is_empty() {
        let what = "no document has two tokens, expected at least one to predict".into();
        return Err(SetupError::Key { key: "data", what });
    }
    let functions: Result<Vec<_>, _> =
        lanes.iter().map(|l| evaluation(&lane_name(l.len), &model.config, l.batch, l.len)).collect();
    let what = format!("evaluating in windows of {seq} tokens");
    let session = load(model, &functions?, &what, environment)?;
    let calls: Result<Vec<Call>, SetupError> =
        lanes.iter().map(|lane| Call::new(&session, &lane_name(lane.len))).collect();
    Ok(run(&session, lanes.into_iter().zip(calls?), documents, progress))
}

impl Call {
    fn new(session: &Session, name: &str) -> Result<Self, SetupError> {
        let port = |port: &str| session.buffer(&format!("{name}.{port}")).cloned();
        Ok(Self {
            id: session.call_id(name)?,
            tokens: port("tokens")?,
            targets: port("targets")?,
            weights: port("weights")?,
            loss_sum: format!("{name}.loss_sum"),
        })
    }
}

fn lane_name(len: usize) -> String {
    format!("evaluate_{len}")
}

/// The windows of all documents by length; lanes without windows are left out.
fn lanes(documents: &[Vec<u32>], seq: usize) -> Vec<Lane> {
    let mut waiting: BTreeMap<usize, VecDeque<Window>> = BTreeMap::new();
    for window in windows(documents.iter().map(Vec::len), seq) {
        let len = window.len.next_power_of_two().max(SMALLEST_LENGTH).min(seq);
        waiting.entry(len).or_default().push_back(window);
    }
    let lane = |(len, waiting): (usize, VecDeque<Window>)| {
        let batch = (CALL_TOKENS / len).clamp(1, waiting.len());
        Lane { len, batch, waiting }
    };
    waiting.into_iter().map(lane).collect()
}

fn run(
    session: &Session,
    lanes: impl Iterator<Item = (Lane, Call)>,
    documents: &[Vec<u32>],
    progress: &mut dyn FnMut(Evaluation),
) -> Result<Evaluation, InferenceError> {
    let mut sums = Evaluation::default();
    for (mut lane, call) in lanes {
        while !lane.waiting.is_empty() {
            let count = lane.batch.min(lane.waiting.len());
            let batch: Vec<Window> = lane.waiting.drain(..count).collect();
            let token = |row: usize, i: usize| {
                let window = batch.get(row).filter(|w| i < w.len)?;
                Some((window.document, window.start + i))
            };
            let fill = |buffer: &Buffer, value: &dyn Fn(Option<(usize, usize)>) -> [u8; 4]| {
                buffer.write(|bytes| {
                    for (i, slot) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                        *slot = value(token(i / lane.len, i % lane.len));
                    }
                })
            };
            fill(&call.tokens, &|at| at.map_or(0, |(d, i)| documents[d][i]).to_le_bytes())?;
            fill(&call.targets, &|at| at.map_or(0, |(d, i)| documents[d][i + 1]).to_le_bytes())?;
            fill(&call.weights, &|at| f32::from(u8::from(at.is_some())).to_le_bytes())?;
            session.run(call.id)?;
            let loss_sum = session.scalar(&call.loss_sum)?;
            if !loss_sum.is_finite() {
                let what = format!("the loss after {} predictions", sums.tokens);
                return Err(InferenceError::NotFinite { what, count: 1, total: 1 });
            }
            sums.loss_sum += loss_sum;
            sums.tokens += batch.iter().map(|w| w.len as u64).sum::<u64>();
            progress(sums);
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_predicted_once() {
        let all: Vec<Window> = windows([0, 1, 2, 9, 10].into_iter(), 4).collect();
        let window = |document, start, len| Window { document, start, len };
        assert_eq!(
            all,
            [
                window(2, 0, 1),
                window(3, 0, 4),
                window(3, 4, 4),
                window(4, 0, 4),
                window(4, 4, 4),
                window(4, 8, 1),
            ]
        );
    }

    #[test]
    fn windows_share_calls_with_those_of_about_their_length() {
        let documents: Vec<Vec<u32>> = [3, 65, 66, 300].map(|n| vec![0; n]).to_vec();
        let lanes = lanes(&documents, 200);
        let shape: Vec<_> = lanes.iter().map(|l| (l.len, l.batch, l.waiting.len())).collect();
        // 2 and 64 predictions; 65 and 99; 200.
        assert_eq!(shape, [(64, 2, 2), (128, 2, 2), (200, 1, 1)]);
    }
}
