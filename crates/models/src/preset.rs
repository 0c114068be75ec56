//! Models that are known by name.

use crate::LlamaConfig;
use crate::ModelType::{self, Llama, Qwen3};

struct Row {
    name: &'static str,
    model_type: ModelType,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
    rope_theta: f64,
    eps: f64,
    bos: u32,
    eos: u32,
}

#[rustfmt::skip]
const ROWS: [Row; 7] = [
    // llama2.c, Karpathy 2023.
    Row { name: "stories260k",  model_type: Llama, hidden: 64,   intermediate: 172,  layers: 5,  heads: 8,  kv_heads: 4,  head_dim: 8,   vocab: 512,     context: 512,    rope_theta: 10_000.0,    eps: 1e-5, bos: 1,       eos: 2 },
    // What `arcane train` trains where it is given no configuration: the most that two cores can do in two minutes.
    Row { name: "demo",         model_type: Llama, hidden: 160,  intermediate: 448,  layers: 4,  heads: 5,  kv_heads: 5,  head_dim: 32,  vocab: 1024,    context: 256,    rope_theta: 10_000.0,    eps: 1e-5, bos: 1,       eos: 2 },
    Row { name: "stories15m",   model_type: Llama, hidden: 288,  intermediate: 768,  layers: 6,  heads: 6,  kv_heads: 6,  head_dim: 48,  vocab: 32_000,  context: 256,    rope_theta: 10_000.0,    eps: 1e-5, bos: 1,       eos: 2 },
    Row { name: "stories42m",   model_type: Llama, hidden: 512,  intermediate: 1376, layers: 8,  heads: 8,  kv_heads: 8,  head_dim: 64,  vocab: 32_000,  context: 1024,   rope_theta: 10_000.0,    eps: 1e-5, bos: 1,       eos: 2 },
    Row { name: "stories110m",  model_type: Llama, hidden: 768,  intermediate: 2048, layers: 12, heads: 12, kv_heads: 12, head_dim: 64,  vocab: 32_000,  context: 1024,   rope_theta: 10_000.0,    eps: 1e-5, bos: 1,       eos: 2 },
    // SmolLM2, Allal et al. 2025.
    Row { name: "smollm2-135m", model_type: Llama, hidden: 576,  intermediate: 1536, layers: 30, heads: 9,  kv_heads: 3,  head_dim: 64,  vocab: 49_152,  context: 8192,   rope_theta: 100_000.0,   eps: 1e-5, bos: 1,       eos: 2 },
    // Qwen3, Yang et al. 2025.
    Row { name: "qwen3-0.6b",   model_type: Qwen3, hidden: 1024, intermediate: 3072, layers: 28, heads: 16, kv_heads: 8,  head_dim: 128, vocab: 151_936, context: 40_960, rope_theta: 1_000_000.0, eps: 1e-6, bos: 151_643, eos: 151_645 },
];

/// The names that [`preset`] knows, smallest model first.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

/// The configuration of a known model, `None` for another name. All have a tied output matrix.
pub fn preset(name: &str) -> Option<LlamaConfig> {
    let row = ROWS.iter().find(|row| row.name == name)?;
    Some(LlamaConfig {
        model_type: row.model_type,
        hidden_size: row.hidden,
        intermediate_size: row.intermediate,
        num_hidden_layers: row.layers,
        num_attention_heads: row.heads,
        num_key_value_heads: row.kv_heads,
        head_dim: row.head_dim,
        vocab_size: row.vocab,
        max_position_embeddings: row.context,
        rms_norm_eps: row.eps,
        rope_theta: row.rope_theta,
        tie_word_embeddings: true,
        initializer_range: 0.02,
        bos_token_id: Some(row.bos),
        eos_token_id: vec![row.eos],
        pad_token_id: None,
    })
}
