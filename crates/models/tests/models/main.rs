//! Configurations, the function of a model, random weights, checkpoints, and models in other files.

mod checkpoint;
mod config;
mod formats;
mod hostile;
mod init;
mod llama;

use std::path::{Path, PathBuf};

use arcane_models::{LlamaConfig, ModelType};

/// Small, with grouped heads and a head width that is not `hidden_size / num_attention_heads`.
fn tiny(tied: bool) -> LlamaConfig {
    LlamaConfig {
        model_type: ModelType::Llama,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        vocab_size: 32,
        max_position_embeddings: 16,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: tied,
        initializer_range: 0.02,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        pad_token_id: None,
    }
}

fn tiny_qwen3() -> LlamaConfig {
    LlamaConfig { model_type: ModelType::Qwen3, rms_norm_eps: 1e-6, rope_theta: 1e6, ..tiny(true) }
}

fn shared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared")
}
