//! `setup.json`: what a run was set up with that its configuration does not say.

use arcane_compile::Precision;
use arcane_models::LlamaConfig;
use serde::{Deserialize, Serialize};

use crate::text::DataReport;

/// The model, what it is computed in, and what became of the data: a function of the configuration, the data and the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The model.
    pub model: ModelShape,
    /// What it is computed in: `fp32` or `fp16`.
    pub precision: String,
    /// What became of the data.
    pub data: DataReport,
}

/// How large a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Weights in all.
    pub parameters: u64,
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Token ids.
    pub vocab: usize,
}

impl Setup {
    /// Of a run.
    pub fn new(model: &LlamaConfig, precision: Precision, data: &DataReport) -> Self {
        let model = ModelShape {
            parameters: model.parameter_count(),
            layers: model.num_hidden_layers,
            width: model.hidden_size,
            heads: model.num_attention_heads,
            vocab: model.vocab_size,
        };
        Self { model, precision: precision.name().into(), data: data.clone() }
    }
}
