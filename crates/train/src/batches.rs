//! The data of a run, batch by batch, written straight into an engine's buffers.

use arcane_engine::{Buffer, EngineError};
use arcane_models::LlamaConfig;

use crate::config::{Config, DataConfig};
use crate::error::SetupError;
use crate::order::Order;
use crate::tokens::Tokens;

/// Files with these endings hold text, not ids.
const TEXT_ENDINGS: [&str; 6] = ["txt", "json", "jsonl", "csv", "parquet", "gz"];

/// Training and validation tokens, and the order of the former.
#[derive(Debug, Clone)]
pub struct Data {
    train: Tokens,
    order: Order,
    valid: Option<Tokens>,
    seq: usize,
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
    /// Opens the data of a configuration and checks every id against the vocabulary.
    ///
    /// # Errors
    /// [`SetupError`] if a file cannot be used, has an id beyond the vocabulary, or not one whole sequence.
    pub fn open(config: &Config, model: &LlamaConfig) -> Result<Self, SetupError> {
        let data = &config.data;
        let vocab = data.vocab.unwrap_or(model.vocab_size);
        if vocab > model.vocab_size {
            let what = format!("{vocab} ids, but the model has {}", model.vocab_size);
            return Err(SetupError::Key { key: "data.vocab", what });
        }
        let open = |key, path: &std::path::Path| {
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if TEXT_ENDINGS.contains(&ending) {
                let what = format!(
                    "{}: expected token ids in a `.bin` or `.npy` file; text is not supported",
                    path.display()
                );
                return Err(SetupError::Key { key, what });
            }
            Ok(Tokens::open(path, data.id_dtype, vocab)?)
        };
        let mut train = open("data.train", &data.train)?;
        let mut valid = data.valid_fraction.map(|fraction| train.split_off(fraction));
        if config.run.eval_every == 0 {
            valid = None;
        } else if let Some(path) = &data.valid {
            valid = Some(open("data.valid", path)?);
        }
        Self::new(config, train, valid)
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
        Ok(Self { order: Order::new(config, sequences), train, valid, seq })
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
