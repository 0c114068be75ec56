//! Keys of `config.json` that change the mathematics, with the only values under which they do not.

use serde_json::Value;

use crate::ModelType;

/// A key, what is expected of it, and whether a value (never null) leaves the mathematics alone.
pub(crate) type Unsupported = (&'static str, &'static str, fn(&Value) -> bool);

fn never(_: &Value) -> bool {
    false
}

fn off(v: &Value) -> bool {
    v.as_bool() == Some(false)
}

fn on(v: &Value) -> bool {
    v.as_bool() == Some(true)
}

fn zero(v: &Value) -> bool {
    v.as_f64() == Some(0.0)
}

fn one(v: &Value) -> bool {
    v.as_f64() == Some(1.0)
}

fn zero_or_off(v: &Value) -> bool {
    zero(v) || off(v)
}

fn empty(v: &Value) -> bool {
    v.as_object().is_some_and(serde_json::Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
}

/// What is expected in place of a value that changes the mathematics of a model; none for another value.
pub(crate) fn expected_instead(
    model_type: ModelType,
    &(key, expected, is_neutral): &Unsupported,
    value: &Value,
) -> Option<&'static str> {
    let (expected, is_neutral) = match (model_type, key) {
        // Its window counts only under `use_sliding_window`, which has to be off.
        (ModelType::Qwen3, "sliding_window") => return None,
        // These norms are a part of the model.
        (ModelType::Qwen3, "use_qk_norm" | "qk_norm" | "qk_layernorm") => ("true", on(value)),
        _ => (expected, is_neutral(value)),
    };
    (!is_neutral).then_some(expected)
}

/// Checked in this order. `rope_scaling`, `rope_parameters` and `layer_types` are read by the parser itself.
pub(crate) const UNSUPPORTED: &[Unsupported] = &[
    // Biases.
    ("attention_bias", "false", off),
    ("mlp_bias", "false", off),
    ("qkv_bias", "false", off),
    ("use_qkv_bias", "false", off),
    ("attention_out_bias", "false", off),
    ("use_bias", "false", off),
    ("bias", "false", off),
    ("lm_head_bias", "false", off),
    // Rotary embeddings on a part of a head, of some layers, of interleaved pairs; other positions.
    ("partial_rotary_factor", "1", one),
    ("rotary_pct", "1", one),
    ("rotary_dim", "null", never),
    ("rope_interleaved", "false", off),
    ("rope_local_base_freq", "null", never),
    ("rope_ratio", "1", one),
    ("no_rope_layers", "null", empty),
    ("no_rope_layer_interval", "null", never),
    ("use_rope", "true", on),
    ("position_embedding_type", "\"rope\"", |v| v == "rope" || v == "rotary"),
    ("alibi", "false", off),
    ("use_alibi", "false", off),
    // Attention that is not causal over the whole context.
    ("sliding_window", "null", never),
    ("use_sliding_window", "false", off),
    ("sliding_window_pattern", "null", never),
    ("attention_chunk_size", "null", never),
    ("is_encoder_decoder", "false", off),
    ("add_cross_attention", "false", off),
    ("cross_attention_hidden_size", "null", never),
    ("use_bidirectional_attention", "false", off),
    // Other projections and norms in attention.
    ("use_qk_norm", "false", off),
    ("qk_norm", "false", off),
    ("qk_layernorm", "false", off),
    ("use_qkv_norm", "false", off),
    ("clip_qkv", "null", never),
    ("q_lora_rank", "null", zero),
    ("kv_lora_rank", "null", zero),
    ("num_kv_shared_layers", "0", zero),
    ("use_parallel_residual", "false", off),
    ("parallel_attn", "false", off),
    // Another activation.
    ("hidden_activation", "\"silu\"", |v| v == "silu"),
    ("activation_function", "\"silu\"", |v| v == "silu"),
    // Scales and caps.
    ("scale_attn_weights", "true", on),
    ("attn_logit_softcapping", "null", never),
    ("final_logit_softcapping", "null", never),
    ("attn_logit_softcap", "null", never),
    ("attention_logit_cap", "null", never),
    ("logits_soft_cap", "null", never),
    ("query_pre_attn_scalar", "null", never),
    ("attention_multiplier", "null", never),
    ("embedding_multiplier", "1", one),
    ("residual_multiplier", "1", one),
    ("logits_scaling", "1", one),
    ("logits_multiplier", "1", one),
    ("lm_head_multiplier", "1", one),
    ("key_multiplier", "1", one),
    ("logit_scale", "1", one),
    ("scale_emb", "1", one),
    ("scale_embeddings", "false", off),
    ("scale_depth", "null", never),
    ("dim_model_base", "null", never),
    ("attn_temperature_tuning", "false", zero_or_off),
    // Dropout.
    ("attention_dropout", "0", zero),
    ("hidden_dropout", "0", zero),
    ("hidden_dropout_prob", "0", zero),
    ("attention_probs_dropout_prob", "0", zero),
    ("attn_pdrop", "0", zero),
    ("resid_pdrop", "0", zero),
    ("embd_pdrop", "0", zero),
    ("embedding_dropout", "0", zero),
    ("dropout", "0", zero),
    ("layerdrop", "0", zero),
    // Experts, and heads that predict further tokens.
    ("num_experts", "0", zero),
    ("num_local_experts", "0", zero),
    ("n_routed_experts", "0", zero),
    ("n_shared_experts", "0", zero),
    ("num_experts_per_tok", "0", zero),
    ("moe_intermediate_size", "0", zero),
    ("num_nextn_predict_layers", "0", zero),
    // Weights that are stored in another form.
    ("quantization_config", "null", never),
    ("quantization", "null", never),
    ("compression_config", "null", never),
    ("pruned_heads", "{}", empty),
    ("block_configs", "null", never),
    ("pretraining_tp", "1", one),
    ("tie_encoder_decoder", "false", off),
];
