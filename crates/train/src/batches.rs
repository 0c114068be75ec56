//! The data of a run, batch by batch, written straight into an engine's buffers.

use arcane_engine::{Buffer, EngineError};
use std::path::Path;

use crate::config::{Config, DataConfig};
use crate::documents::{is_text, read_text};
use crate::error::SetupError;
use crate::model::Model;
use crate::order::Order;
use crate::text::{DataReport, Encoded, PartReport, fit_tokenizer, shuffle, split_off};
use crate::tokenizer::Tokenizer;
use crate::tokens::Tokens;

/// Training and validation tokens, and the order of the former.
#[derive(Debug, Clone)]
pub struct Data {
    train: Tokens,
    order: Order,
    valid: Option<Tokens>,
    /// Bytes of the text that the validation sequences predict, where they are text.
    valid_bytes: Option<u64>,
    seq: usize,
    report: DataReport,
}

/// The buffers of a batch: `tokens` and `targets` `[B, S]` int32, `weights` `[B, S]` fp32.
#[derive(Debug, Clone)]
pub struct BatchBuffers {
    /// Inputs.
    pub tokens: Buffer,
    /// What is to be predicted.
    pub targets: Buffer,
    /// 1 for a target that counts, 0 for padding.
    pub weights: Buffer,
}

impl Data {
    /// Opens the data of a configuration: token ids, which are checked against the model's vocabulary, or text. Text gives the
    /// model its tokenizer and a preset its number of ids, see `data.vocab`.
    ///
    /// # Errors
    /// [`SetupError`] if a file cannot be used, has an id beyond the vocabulary, or not one whole sequence; if text has no
    /// tokenizer, or one with more ids than the model.
    pub fn open(config: &Config, model: &mut Model) -> Result<Self, SetupError> {
        let data = &config.data;
        let mut report = DataReport::default();
        let mut texts = |path: &Path| -> Result<Option<Vec<String>>, SetupError> {
            if !is_text(path)? {
                return Ok(None);
            }
            let (texts, dropped) = read_text(path)?;
            report.dropped.add(dropped);
            Ok(Some(texts))
        };
        let mut train_texts = texts(&data.train)?;
        let valid_path = data.valid.as_ref().filter(|_| config.run.eval_every > 0);
        let mut valid_texts = valid_path.map(|path| texts(path)).transpose()?.flatten();
        if let (Some(texts), Some(fraction)) = (&mut train_texts, data.valid_fraction) {
            valid_texts = Some(split_off(texts, fraction)).filter(|_| config.run.eval_every > 0);
        }
        let tokenizer = if train_texts.is_some() || valid_texts.is_some() {
            let (tokenizer, learnt) = fit_tokenizer(config, model, train_texts.as_deref())?;
            report.learnt = learnt.then(|| tokenizer.vocab_size());
            Some(tokenizer)
        } else {
            None
        };
        let vocab = data.vocab.unwrap_or(model.config.vocab_size);
        if vocab > model.config.vocab_size {
            let what = format!("{vocab} ids, but the model has {}", model.config.vocab_size);
            return Err(SetupError::Key { key: "data.vocab", what });
        }
        let train_texts = train_texts.map(|texts| shuffle(texts, config));
        let mut train = Part::open(config, &data.train, train_texts.as_deref(), tokenizer.as_ref(), vocab)?;
        let valid = match (&valid_texts, valid_path, data.valid_fraction) {
            (Some(texts), path, _) => {
                let path = path.unwrap_or(&data.train);
                Some(Part::open(config, path, Some(texts), tokenizer.as_ref(), vocab)?)
            }
            (None, Some(path), _) => Some(Part::open(config, path, None, None, vocab)?),
            (None, None, Some(fraction)) => {
                let tokens = train.tokens.split_off(fraction);
                Some(Part { tokens, documents: None, predicted_bytes: None })
            }
            (None, None, None) => None,
        };
        let valid = valid.filter(|_| config.run.eval_every > 0);
        report.train = train.report(data.seq);
        report.valid = valid.as_ref().map(|valid| valid.report(data.seq));
        let valid_bytes = valid.as_ref().and_then(|valid| valid.predicted_bytes);
        let opened = Self::new(config, train.tokens, valid.map(|valid| valid.tokens))?;
        Ok(Self { valid_bytes, report, ..opened })
    }

    /// Data from tokens whose ids are known to the model.
    ///
    /// # Errors
    /// [`SetupError::Tokens`] if there is not one whole sequence.
    pub fn new(config: &Config, train: Tokens, valid: Option<Tokens>) -> Result<Self, SetupError> {
        let DataConfig { seq, .. } = config.data;
        let sequences = train.whole_sequences(seq)?;
        if let Some(valid) = &valid {
            valid.whole_sequences(seq)?;
        }
        let order = Order::new(config, sequences);
        Ok(Self { order, train, valid, valid_bytes: None, seq, report: DataReport::default() })
    }

    /// What became of the files.
    pub fn report(&self) -> &DataReport {
        &self.report
    }

    /// The bits that a byte of the validation text takes under a mean loss in nats; `None` where it is not text.
    pub fn valid_bits_per_byte(&self, loss: f64) -> Option<f64> {
        let bytes = self.valid_bytes.filter(|&bytes| bytes > 0)? as f64;
        let predictions = (self.valid_sequences() * self.seq as u64) as f64;
        Some(loss * predictions / (bytes * std::f64::consts::LN_2))
    }

    /// How many sequences there are for validation.
    pub fn valid_sequences(&self) -> u64 {
        self.valid.as_ref().map_or(0, |valid| valid.sequences(self.seq))
    }

    /// Writes the training sequences from a position on, as many as the buffers take.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if a call holds a buffer.
    pub fn fill_training(&mut self, position: u64, buffers: &BatchBuffers) -> Result<(), EngineError> {
        let Self { train, order, seq, .. } = self;
        rows(*seq, buffers, |row, tokens, targets| {
            train.sequence(order.sequence(position + row), *seq, tokens, targets);
        })
    }

    /// Writes the validation sequences from number `first` on. Where there are no more, the last one is repeated with weights
    /// of 0; [`BatchBuffers::count_all`] ends that.
    ///
    /// # Errors
    /// As [`Data::fill_training`].
    ///
    /// # Panics
    /// If there is no sequence `first`.
    pub fn fill_validation(&self, first: u64, buffers: &BatchBuffers) -> Result<(), EngineError> {
        let valid = self.valid.as_ref().expect("there are validation sequences");
        let last = valid.sequences(self.seq) - 1;
        rows(self.seq, buffers, |row, tokens, targets| {
            valid.sequence((first + row).min(last), self.seq, tokens, targets);
        })?;
        buffers.weights.write(|bytes| {
            let weights: &mut [f32] = bytemuck::cast_slice_mut(bytes);
            for (row, weights) in (first..).zip(weights.chunks_exact_mut(self.seq)) {
                weights.fill(if row > last { 0.0 } else { 1.0 });
            }
        })
    }
}

/// What is trained on, or what is kept for validation.
struct Part {
    tokens: Tokens,
    documents: Option<usize>,
    /// Bytes of the text that the tokens of whole sequences predict.
    predicted_bytes: Option<u64>,
}

impl Part {
    /// Of texts, or else of a file of ids.
    fn open(
        config: &Config,
        path: &Path,
        texts: Option<&[String]>,
        tokenizer: Option<&Tokenizer>,
        vocab: usize,
    ) -> Result<Self, SetupError> {
        let DataConfig { seq, id_dtype, .. } = config.data;
        let (Some(texts), Some(tokenizer)) = (texts, tokenizer) else {
            let tokens = Tokens::open(path, id_dtype, vocab)?;
            return Ok(Self { tokens, documents: None, predicted_bytes: None });
        };
        let encoded = Encoded::new(texts, tokenizer)?;
        let tokens = encoded.tokens(path, vocab)?;
        let predicted = tokens.sequences(seq) as usize * seq;
        let predicted_bytes = Some(encoded.predicted_bytes(predicted)?);
        Ok(Self { tokens, documents: Some(texts.len()), predicted_bytes })
    }

    fn report(&self, seq: usize) -> PartReport {
        let tokens = self.tokens.len();
        let used = self.tokens.sequences(seq) as usize * seq + 1;
        PartReport { documents: self.documents, tokens, unused: tokens.saturating_sub(used) }
    }
}

impl BatchBuffers {
    /// Sets all weights to 1.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if a call holds the buffer.
    pub fn count_all(&self) -> Result<(), EngineError> {
        self.weights.write(|bytes| bytemuck::cast_slice_mut::<u8, f32>(bytes).fill(1.0))
    }
}

/// Calls `fill` with each row's number, inputs and targets.
fn rows(
    seq: usize,
    buffers: &BatchBuffers,
    mut fill: impl FnMut(u64, &mut [i32], &mut [i32]),
) -> Result<(), EngineError> {
    buffers.tokens.write(|tokens| {
        buffers.targets.write(|targets| {
            let tokens = bytemuck::cast_slice_mut::<u8, i32>(tokens).chunks_exact_mut(seq);
            let targets = bytemuck::cast_slice_mut::<u8, i32>(targets).chunks_exact_mut(seq);
            for (row, (tokens, targets)) in (0..).zip(tokens.zip(targets)) {
                fill(row, tokens, targets);
            }
        })
    })?
}
