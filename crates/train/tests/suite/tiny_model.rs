//! A model small enough for any test. The tests of `arcane-cli` include this file, too.

use std::fs;
use std::path::Path;

use arcane_models::{LlamaConfig, initialize, preset, save};

/// Two layers, four query heads for two key heads.
pub(crate) fn tiny() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 64,
        max_position_embeddings: 32,
        ..preset("stories260k").unwrap()
    }
}

/// Makes a folder with a model of random weights, always the same ones.
pub(crate) fn save_random(folder: &Path, config: &LlamaConfig) {
    fs::create_dir(folder).unwrap();
    let weights = initialize(config, 5);
    let weights: Vec<_> = weights.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
    save(folder, config, &weights).unwrap();
}
