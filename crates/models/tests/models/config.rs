use std::path::Path;

use arcane_models::{LlamaConfig, preset, preset_names};
use serde_json::{Value, json};

use crate::{tiny, tiny_qwen3};

fn base() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8,
        "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
    })
}

fn with(changes: &Value) -> Value {
    let mut config = base();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn parse(config: &Value) -> Result<LlamaConfig, String> {
    LlamaConfig::parse(&config.to_string(), Path::new("dir/config.json")).map_err(|e| e.to_string())
}

#[track_caller]
fn check_refused(changes: &Value, message: &str) {
    let error = parse(&with(changes)).expect_err(&changes.to_string());
    assert_eq!(error, format!("dir/config.json: {message}"));
}

#[track_caller]
fn check_same(changes: &Value, others: &Value) {
    assert_eq!(parse(&with(changes)).unwrap(), parse(&with(others)).unwrap());
}

#[test]
fn both_spellings_give_one_model() {
    check_same(
        &json!({"rope_theta": 5e5, "rope_scaling": null, "torch_dtype": "bfloat16"}),
        &json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "bfloat16"}),
    );
    check_same(
        &json!({"rope_scaling": {"type": "default"}}),
        &json!({"rope_theta": 10_000, "rope_parameters": {"rope_theta": 10_000.0}}),
    );
}

#[test]
fn keys_that_only_describe_the_file_are_ignored() {
    let harmless = json!({
        "transformers_version": "4.57.0", "use_cache": true, "is_llama_config": true, "rope_interleaved": false,
        "attention_bias": false, "mlp_bias": null, "attention_dropout": 0.0, "pretraining_tp": 1, "bias": null,
        "quantization_config": null, "sliding_window": null, "partial_rotary_factor": 1.0, "pruned_heads": {},
        "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention", "full_attention"],
        "a_key_of_the_future": {"nested": [1, 2, 3]},
    });
    check_same(&harmless, &json!({}));
}

#[test]
fn absent_keys_have_the_defaults_of_hugging_face() {
    let text = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
        "num_attention_heads": 4, "vocab_size": 100, "num_key_value_heads": null, "head_dim": null}"#;
    let config = LlamaConfig::parse(text, Path::new("c")).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.max_position_embeddings, config.rope_theta), (2048, 10_000.0));
    assert_eq!((config.rms_norm_eps, config.initializer_range), (1e-6, 0.02));
    assert!(!config.tie_word_embeddings);
    assert_eq!((config.bos_token_id, config.eos_token_id, config.pad_token_id), (None, vec![], None));
}

#[test]
fn token_ids_may_be_lists_null_or_minus_one() {
    let eos = |ids: Value| parse(&with(&json!({"eos_token_id": ids}))).map(|c| c.eos_token_id);
    assert_eq!(eos(json!(7)), Ok(vec![7]));
    assert_eq!(eos(json!([7, 9])), Ok(vec![7, 9]));
    assert_eq!(eos(json!(null)), Ok(vec![]));
    assert!(eos(json!([7, "x"])).unwrap_err().contains("`eos_token_id` is [7,\"x\"]"));
    let config = parse(&with(&json!({"pad_token_id": -1, "bos_token_id": null}))).unwrap();
    assert_eq!((config.pad_token_id, config.bos_token_id), (None, None));
    check_refused(&json!({"bos_token_id": -2}), "`bos_token_id` is -2, a token id or null was expected");
}

#[test]
fn what_changes_the_mathematics_is_refused_by_name() {
    for changes in [
        json!({"attention_bias": true}),
        json!({"mlp_bias": true}),
        json!({"use_bias": true}),
        json!({"attention_bias": "no"}),
        json!({"partial_rotary_factor": 0.5}),
        json!({"rope_interleaved": true}),
        json!({"sliding_window": 4096}),
        json!({"use_sliding_window": true}),
        json!({"attention_chunk_size": 8192}),
        json!({"no_rope_layers": [1, 1, 1, 0, 1]}),
        json!({"use_qk_norm": true}),
        json!({"qk_norm": true}),
        json!({"clip_qkv": 8.0}),
        json!({"attn_logit_softcapping": 50.0}),
        json!({"final_logit_softcapping": 30.0}),
        json!({"attention_multiplier": 0.015}),
        json!({"embedding_multiplier": 12.0}),
        json!({"residual_multiplier": 0.22}),
        json!({"logits_scaling": 8.0}),
        json!({"scale_emb": 12}),
        json!({"attention_dropout": 0.1}),
        json!({"num_experts": 8}),
        json!({"num_local_experts": 8}),
        json!({"quantization_config": {"bits": 4}}),
        json!({"quantization": {"bits": 4, "group_size": 64}}),
        json!({"pruned_heads": {"0": [1]}}),
        json!({"pretraining_tp": 2}),
        json!({"layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention", "full_attention"]}),
        json!({"layer_types": ["full_attention"]}),
        json!({"model_type": "mistral"}),
        json!({"model_type": "qwen2"}),
        json!({"architectures": ["Qwen3ForCausalLM"]}),
        json!({"architectures": ["LlamaForSequenceClassification"]}),
        json!({"hidden_act": "gelu"}),
        json!({"hidden_activation": "gelu"}),
        json!({"rope_scaling": [2]}),
    ] {
        let (key, value) = changes.as_object().unwrap().iter().next().unwrap();
        let error = parse(&with(&changes)).expect_err(&changes.to_string());
        let start = format!("dir/config.json: `{key}` is {value}");
        let start: String = start.chars().take(90).collect();
        assert!(error.starts_with(&start) && error.ends_with("was expected"), "{error}");
    }
}

/// The `config.json` of Qwen3-0.6B as it was published, with changes.
fn published_qwen3(changes: &Value) -> Value {
    let mut config = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151_643, "eos_token_id": 151_645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 40_960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6,
        "rope_scaling": null, "rope_theta": 1_000_000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151_936,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn the_published_qwen3_is_read() {
    let preset = preset("qwen3-0.6b").unwrap();
    let newer = json!({"layer_types": vec!["full_attention"; 28], "rope_theta": null,
        "rope_parameters": {"rope_theta": 1_000_000, "rope_type": "default"}});
    // transformers puts this window into files of models that do not use it.
    let idle = json!({"sliding_window": 4096, "qk_norm": true});
    for changes in [json!({}), newer, idle] {
        assert_eq!(parse(&published_qwen3(&changes)), Ok(preset.clone()), "{changes}");
    }
    let shorter =
        parse(&published_qwen3(&json!({"max_position_embeddings": null, "rope_theta": null}))).unwrap();
    assert_eq!((shorter.max_position_embeddings, shorter.rope_theta), (32_768, 10_000.0));
}

#[test]
fn what_changes_qwen3s_mathematics_is_refused_by_name() {
    for (changes, message) in [
        (json!({"use_sliding_window": true}), "`use_sliding_window` is true, false was expected"),
        (json!({"attention_bias": true}), "`attention_bias` is true, false was expected"),
        (json!({"qk_norm": false}), "`qk_norm` is false, true was expected"),
        (
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            "`rope_scaling.rope_type` is \"yarn\", ",
        ),
        (json!({"num_experts": 128}), "`num_experts` is 128, 0 was expected"),
        (
            json!({"model_type": "qwen3_moe"}),
            "`model_type` is \"qwen3_moe\", \"llama\" or \"qwen3\" was expected",
        ),
        (
            json!({"architectures": ["LlamaForCausalLM"]}),
            "`architectures` is [\"LlamaForCausalLM\"], [\"Qwen3ForCausalLM\"] was expected",
        ),
        (json!({"layer_types": ["full_attention"]}), "`layer_types` is [\"full_attention\"], "),
        (json!({"head_dim": null}), "`head_dim` is missing, a positive whole number was expected"),
        (json!({"num_key_value_heads": null}), "`num_key_value_heads` is missing, "),
    ] {
        let error = parse(&published_qwen3(&changes)).expect_err(message);
        assert!(error.starts_with(&format!("dir/config.json: {message}")), "{error}");
    }
}

/// The keys by which Hugging Face's transformers chooses the class and leaves out windows.
#[test]
fn a_written_configuration_names_its_class() {
    let written = |config: LlamaConfig| serde_json::from_str::<Value>(&config.to_json()).unwrap();
    let llama = written(tiny(true));
    assert_eq!(
        (&llama["model_type"], &llama["architectures"]),
        (&json!("llama"), &json!(["LlamaForCausalLM"]))
    );
    assert_eq!((&llama["mlp_bias"], llama.get("use_sliding_window")), (&json!(false), None));
    let qwen3 = written(preset("qwen3-0.6b").unwrap());
    assert_eq!(
        (&qwen3["model_type"], &qwen3["architectures"]),
        (&json!("qwen3"), &json!(["Qwen3ForCausalLM"]))
    );
    assert_eq!((&qwen3["use_sliding_window"], qwen3.get("mlp_bias")), (&json!(false), None));
    // All that the published file says, but for what concerns transformers alone.
    for (key, value) in published_qwen3(&json!({"torch_dtype": "float32"})).as_object().unwrap() {
        let describes_the_file =
            ["transformers_version", "use_cache", "attention_dropout"].contains(&key.as_str());
        assert!(describes_the_file || qwen3[key] == *value || qwen3[key].as_f64() == value.as_f64(), "{key}");
    }
}

#[test]
fn scaled_rotary_embeddings_are_refused() {
    let rope3 = json!({"factor": 8.0, "rope_type": "llama3"});
    check_refused(
        &json!({"rope_scaling": rope3}),
        "`rope_scaling.rope_type` is \"llama3\", \"default\" was expected",
    );
    check_refused(
        &json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
        "`rope_scaling.type` is \"linear\", \"default\" was expected",
    );
    check_refused(
        &json!({"rope_scaling": {"factor": 2.0}}),
        "`rope_scaling.factor` is 2.0, null was expected",
    );
    check_refused(
        &json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        "`rope_parameters.partial_rotary_factor` is 0.5, 1 was expected",
    );
    check_refused(
        &json!({"rope_parameters": {"full_attention": {}}}),
        "`rope_parameters.full_attention` is {}, null was expected",
    );
    check_refused(
        &json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}),
        "`rope_theta` is 10000 and `rope_parameters.rope_theta` is 1000000, one value was expected",
    );
}

#[test]
fn sizes_out_of_range_are_errors() {
    for value in [json!(0), json!(-1), json!(1.5), json!("8"), json!(true), json!(u64::MAX), json!([8])] {
        for key in [
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "max_position_embeddings",
        ] {
            let error = parse(&with(&json!({key: value}))).expect_err(key);
            let start = format!("dir/config.json: `{key}` is {value}, a whole number from 1 to ");
            assert!(error.starts_with(&start), "{error}");
        }
    }
    for key in ["rms_norm_eps", "rope_theta", "initializer_range"] {
        for value in [json!(0), json!(-1e-5), json!("x")] {
            let expected = format!("`{key}` is {value}, a positive number was expected");
            check_refused(&json!({key: value}), &expected);
        }
    }
    let mut config = base();
    config.as_object_mut().unwrap().shift_remove("vocab_size");
    let error = parse(&config).unwrap_err();
    assert_eq!(error, "dir/config.json: `vocab_size` is missing, a positive whole number was expected");
}

#[test]
fn sizes_that_do_not_fit_together_are_errors() {
    check_refused(
        &json!({"num_key_value_heads": 3}),
        "`num_attention_heads` is 8 and `num_key_value_heads` is 3, a multiple was expected",
    );
    check_refused(
        &json!({"head_dim": 7}),
        "`head_dim` is 7, an even number was expected for the rotary embedding",
    );
    check_refused(
        &json!({"hidden_size": 65}),
        "`hidden_size` is 65 and `num_attention_heads` is 8, a multiple was expected where `head_dim` is missing",
    );
    let huge = json!({"hidden_size": 1 << 20, "num_hidden_layers": 1 << 12, "intermediate_size": 1 << 20,
        "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16, "head_dim": 1 << 16, "vocab_size": 1 << 24});
    assert!(parse(&with(&huge)).unwrap_err().contains("parameters, at most 1099511627776 were expected"));
}

#[test]
fn a_text_that_is_not_json_gives_line_and_column() {
    let error = |text: &str| LlamaConfig::parse(text, Path::new("c.json")).unwrap_err().to_string();
    assert_eq!(
        error("{\n  \"hidden_size\": 64,\n}"),
        "c.json:3:1: trailing comma, a JSON object was expected"
    );
    assert!(error("").starts_with("c.json:1:1: EOF while parsing a value, "));
    assert!(error("{\"hidden_size\": 1e999}").starts_with("c.json:1:"));
    assert!(error(&"[".repeat(100_000)).contains("recursion limit exceeded"));
    assert_eq!(error("[1]"), "c.json: the file holds [1], a JSON object was expected");
    let long = format!("{{\"model_type\": \"{}\"}}", "é".repeat(10_000));
    assert!(error(&long).len() < 400);
}

#[test]
fn a_written_configuration_is_read_back() {
    let mut configs: Vec<LlamaConfig> = preset_names().filter_map(preset).collect();
    configs.extend([tiny(true), tiny(false), tiny_qwen3()]);
    configs.push(LlamaConfig { eos_token_id: vec![2, 5], pad_token_id: Some(0), ..tiny(false) });
    configs.push(LlamaConfig { eos_token_id: vec![], bos_token_id: None, rms_norm_eps: 1e-6, ..tiny(false) });
    for config in configs {
        assert_eq!(LlamaConfig::parse(&config.to_json(), Path::new("c")), Ok(config));
    }
}

#[test]
fn presets_have_the_documented_numbers_of_parameters() {
    let counts = [
        ("stories260k", 260_032),
        ("demo", 1_435_040),
        ("stories15m", 15_191_712),
        ("stories42m", 41_689_600),
        ("stories110m", 109_529_856),
        ("smollm2-135m", 134_515_008),
        ("qwen3-0.6b", 596_049_920),
    ];
    assert!(preset_names().eq(counts.map(|(name, _)| name)));
    for (name, count) in counts {
        let config = preset(name).unwrap();
        assert_eq!(config.parameter_count(), count, "{name}");
        assert_eq!(LlamaConfig::parse(&config.to_json(), Path::new("c")).unwrap(), config);
    }
    assert!(preset("stories15M").is_none());
}

#[test]
#[ignore = "needs ../shared"]
fn presets_equal_the_published_configurations() {
    for (folder, name) in [("stories260k", "stories260k"), ("smollm2-135m-instruct", "smollm2-135m")] {
        let config = arcane_models::read_config(&crate::shared().join("data").join(folder)).unwrap();
        let published = LlamaConfig { pad_token_id: None, ..config };
        assert_eq!(preset(name), Some(published));
    }
}
