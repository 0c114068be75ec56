//! Models that are known by name.

use crate::LlamaConfig;

struct Row {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    context: usize,
    rope_theta: f64,
}

#[rustfmt::skip]
const ROWS: [Row; 6] = [
    // llama2.c, Karpathy 2023.
    Row { name: "stories260k",   hidden: 64,  intermediate: 172,  layers: 5,  heads: 8,  kv_heads: 4,  vocab: 512,    context: 512,  rope_theta: 10_000.0 },
    // What `arcane train` trains where it is given no configuration: the most that two cores can do in two minutes.
    Row { name: "demo",          hidden: 160, intermediate: 448,  layers: 4,  heads: 5,  kv_heads: 5,  vocab: 1024,   context: 256,  rope_theta: 10_000.0 },
    Row { name: "stories15m",    hidden: 288, intermediate: 768,  layers: 6,  heads: 6,  kv_heads: 6,  vocab: 32_000, context: 256,  rope_theta: 10_000.0 },
    Row { name: "stories42m",    hidden: 512, intermediate: 1376, layers: 8,  heads: 8,  kv_heads: 8,  vocab: 32_000, context: 1024, rope_theta: 10_000.0 },
    Row { name: "stories110m",   hidden: 768, intermediate: 2048, layers: 12, heads: 12, kv_heads: 12, vocab: 32_000, context: 1024, rope_theta: 10_000.0 },
    // SmolLM2, Allal et al. 2025.
    Row { name: "smollm2-135m",  hidden: 576, intermediate: 1536, layers: 30, heads: 9,  kv_heads: 3,  vocab: 49_152, context: 8192, rope_theta: 100_000.0 },
];

/// The names that [`preset`] knows, smallest model first.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

/// The configuration of a known model, `None` for another name. All have a tied output matrix.
pub fn preset(name: &str) -> Option<LlamaConfig> {
    let row = ROWS.iter().find(|row| row.name == name)?;
    Some(LlamaConfig {
        hidden_size: row.hidden,
        intermediate_size: row.intermediate,
        num_hidden_layers: row.layers,
        num_attention_heads: row.heads,
        num_key_value_heads: row.kv_heads,
        head_dim: row.hidden / row.heads,
        vocab_size: row.vocab,
        max_position_embeddings: row.context,
        rms_norm_eps: 1e-5,
        rope_theta: row.rope_theta,
        tie_word_embeddings: true,
        initializer_range: 0.02,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        pad_token_id: None,
    })
}
