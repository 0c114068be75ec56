use std::collections::BTreeMap;

use arcane_mil::{Builder, Function, Opset, Role, Strictness, TensorType, evaluate, verify};
use arcane_models::{
    Init, LlamaConfig, ParameterSpec, StepShape, declare_parameters, initialize, load, loss, parameters,
    read_config, step,
};
use arcane_tensor::{DType, Tensor};

use crate::{tiny, tiny_qwen3};

fn loss_function(config: &LlamaConfig, batch: usize, seq: usize) -> Function {
    let mut f = Builder::new("evaluate", Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let mut input = |name, dtype| f.parameter(name, TensorType::new(dtype, &[batch, seq]), Role::Batch);
    let tokens = input("tokens", DType::I32);
    let targets = input("targets", DType::I32);
    let weights = input("weights", DType::F32);
    let (loss_sum, weight_sum) = loss(&mut f, config, &params, tokens, targets, weights).unwrap();
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    f.finish()
}

/// Loss sum and weight sum over `[1, S]`.
fn run(
    config: &LlamaConfig,
    params: &[(String, Tensor)],
    tokens: &[i32],
    targets: &[i32],
    weights: &[f32],
) -> [f64; 2] {
    let shape = [1, tokens.len()];
    let function = loss_function(config, 1, tokens.len());
    let mut inputs: BTreeMap<String, Tensor> = params.iter().cloned().collect();
    inputs.insert("tokens".into(), Tensor::new(&shape, tokens.to_vec()).unwrap());
    inputs.insert("targets".into(), Tensor::new(&shape, targets.to_vec()).unwrap());
    inputs.insert("weights".into(), Tensor::new(&shape, weights.to_vec()).unwrap());
    let outputs = evaluate(&function, &inputs).unwrap();
    ["loss_sum", "weight_sum"].map(|name| outputs[name].get(0))
}

fn all_kinds() -> [LlamaConfig; 3] {
    [tiny(true), tiny(false), tiny_qwen3()]
}

const TOKENS: [i32; 6] = [1, 7, 30, 7, 12, 3];
const TARGETS: [i32; 6] = [7, 30, 7, 12, 3, 9];

#[test]
fn the_function_is_valid_and_its_ports_are_the_checkpoints_names() {
    for config in all_kinds() {
        let function = loss_function(&config, 2, 8);
        verify(&function, Strictness::Open).unwrap();
        let specs = parameters(&config);
        assert_eq!(specs.iter().any(|s| s.name == "lm_head.weight"), !config.tie_word_embeddings);
        for (spec, port) in specs.iter().zip(function.parameters()) {
            assert_eq!((&port.name, port.role), (&spec.name, Role::Param));
            assert_eq!(function.ty(port.value), &TensorType::new(DType::F32, &spec.shape));
        }
        let total: usize = specs.iter().map(|s| s.shape.iter().product::<usize>()).sum();
        assert_eq!(total as u64, config.parameter_count());
    }
}

#[test]
fn qwen3s_head_norms_stand_after_the_projections() {
    let specs = parameters(&tiny_qwen3());
    let at = specs.iter().position(|s| s.name == "model.layers.1.self_attn.o_proj.weight").unwrap();
    for (spec, part) in specs[at + 1..].iter().zip(["self_attn.q_norm", "self_attn.k_norm"]) {
        let name = format!("model.layers.1.{part}.weight");
        let expected = ParameterSpec { name, shape: vec![4], decay: false, init: Init::Ones };
        assert_eq!(spec, &expected);
    }
    let others: Vec<ParameterSpec> = specs
        .into_iter()
        .filter(|s| !s.name.ends_with("q_norm.weight") && !s.name.ends_with("k_norm.weight"))
        .collect();
    assert_eq!(others, parameters(&tiny(true)));
}

#[test]
fn values_are_named_like_the_checkpoint() {
    let function = loss_function(&tiny(true), 2, 8);
    for path in [
        "embed_tokens",
        "layers.0.input_layernorm",
        "layers.1.self_attn.q_proj",
        "layers.1.self_attn.o_proj",
        "layers.0.mlp.down_proj",
        "layers.0.post_attention_layernorm",
        "norm",
        "loss_sum",
    ] {
        assert_eq!(function.values().iter().filter(|v| v.path == path).count(), 1, "{path}");
    }
    let masks = function.values().iter().filter(|v| v.path == "causal_mask").count();
    assert_eq!(masks, 1);
}

#[test]
fn random_weights_give_the_loss_of_a_uniform_guess() {
    for config in all_kinds() {
        let params = initialize(&config, 5);
        let [sum, weight] = run(&config, &params, &TOKENS, &TARGETS, &[1.0; 6]);
        assert_eq!(weight, 6.0);
        let (mean, uniform) = (sum / weight, (config.vocab_size as f64).ln());
        assert!((mean - uniform).abs() < 0.1, "{mean} against {uniform}");
    }
}

/// Weights large enough that every part of the model matters.
fn strong(config: &LlamaConfig) -> Vec<(String, Tensor)> {
    initialize(&LlamaConfig { initializer_range: 0.5, ..config.clone() }, 5)
}

#[test]
fn a_position_of_weight_zero_does_not_count() {
    let config = tiny(true);
    let params = strong(&config);
    let mut weights = [1.0; 6];
    weights[3] = 0.0;
    let mut targets = TARGETS;
    let masked = run(&config, &params, &TOKENS, &targets, &weights);
    targets[3] = 21;
    assert_eq!(run(&config, &params, &TOKENS, &targets, &weights), masked);
    assert_eq!(masked[1], 5.0);
    assert_ne!(run(&config, &params, &TOKENS, &targets, &[1.0; 6])[0], masked[0]);
}

#[test]
fn only_earlier_tokens_and_their_order_matter() {
    let config = tiny(true);
    let params = strong(&config);
    let at = |position: usize, tokens: &[i32]| {
        let mut weights = [0.0; 6];
        weights[position] = 1.0;
        run(&config, &params, tokens, &TARGETS, &weights)[0]
    };
    let plain = at(3, &TOKENS);
    assert_eq!(at(3, &[1, 7, 30, 7, 25, 26]), plain);
    assert_ne!(at(3, &[2, 7, 30, 7, 12, 3]), plain);
    assert_ne!(at(3, &[7, 1, 30, 7, 12, 3]), plain, "the rotary embedding tells positions apart");
}

/// Query head h uses key and value head h div group: repeating the rows of each such head by hand changes nothing.
#[test]
fn grouped_heads_equal_repeated_heads() {
    let grouped = tiny(false);
    let full = LlamaConfig { num_key_value_heads: grouped.num_attention_heads, ..grouped.clone() };
    let group = grouped.num_attention_heads / grouped.num_key_value_heads;
    let params = strong(&grouped);
    let repeated: Vec<(String, Tensor)> = params
        .iter()
        .map(|(name, tensor)| {
            if !name.contains("k_proj") && !name.contains("v_proj") {
                return (name.clone(), tensor.clone());
            }
            let head = grouped.head_dim * grouped.hidden_size;
            let heads = tensor.as_slice::<f32>().unwrap().chunks(head);
            let rows: Vec<f32> = heads.flat_map(|rows| rows.repeat(group)).collect();
            let shape = [tensor.shape()[0] * group, grouped.hidden_size];
            (name.clone(), Tensor::new(&shape, rows).unwrap())
        })
        .collect();
    let expected = run(&full, &repeated, &TOKENS, &TARGETS, &[1.0; 6]);
    assert_eq!(run(&grouped, &params, &TOKENS, &TARGETS, &[1.0; 6]), expected);
}

/// Queries and keys of Qwen3 have the length of their gains, whatever that of the projections is; those of Llama have not.
#[test]
fn head_norms_take_out_the_length_of_queries_and_keys() {
    let scaled = |config: &LlamaConfig, part: &str| {
        let params = strong(config).into_iter().map(|(name, tensor)| {
            let factor = if name.ends_with(part) { 3.0 } else { 1.0 };
            let values: Vec<f64> = tensor.to_f64s().iter().map(|x| factor * x).collect();
            (name, Tensor::from_f64s(DType::F32, tensor.shape(), &values).unwrap())
        });
        run(config, &params.collect::<Vec<_>>(), &TOKENS, &TARGETS, &[1.0; 6])[0]
    };
    let (qwen3, llama) = (tiny_qwen3(), tiny(true));
    let (of_qwen3, of_llama) = (scaled(&qwen3, "nothing"), scaled(&llama, "nothing"));
    for part in ["q_proj.weight", "k_proj.weight"] {
        // What is left is the epsilon of the norm.
        assert!((scaled(&qwen3, part) / of_qwen3 - 1.0).abs() < 1e-4, "{part}");
        assert!((scaled(&llama, part) / of_llama - 1.0).abs() > 1e-3, "{part}");
    }
    let by_gain = ["q_norm.weight", "k_norm.weight"].map(|part| scaled(&qwen3, part));
    assert!(by_gain.iter().all(|loss| (loss / of_qwen3 - 1.0).abs() > 1e-3));
    // Both multiply all scores.
    assert!((by_gain[0] / by_gain[1] - 1.0).abs() < 1e-5);
}

#[test]
fn wrong_inputs_are_errors() {
    let config = tiny(true);
    let built = |shapes: [&[usize]; 3], tokens: DType| {
        let mut f = Builder::new("f", Opset::Ios18);
        let params = declare_parameters(&mut f, &config);
        let mut input = |name, dtype, shape| f.parameter(name, TensorType::new(dtype, shape), Role::Batch);
        let tokens = input("tokens", tokens, shapes[0]);
        let targets = input("targets", DType::I32, shapes[1]);
        let weights = input("weights", DType::F32, shapes[2]);
        loss(&mut f, &config, &params, tokens, targets, weights).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(built([&[2, 4]; 3], DType::I32), Ok(()));
    assert!(built([&[8]; 3], DType::I32).unwrap_err().contains("tokens are tensor<int32, [8]>"));
    assert!(built([&[2, 4], &[2, 5], &[2, 4]], DType::I32).is_err());
    assert!(built([&[2, 4], &[2, 4], &[2, 3]], DType::I32).is_err());
    assert!(built([&[2, 4]; 3], DType::F32).is_err());
}

fn published_loss(seq: usize, sequences: usize) -> f64 {
    let folder = crate::shared().join("data/stories260k");
    let config = read_config(&folder).unwrap();
    let params = load(&folder, &config).unwrap();
    let bytes = std::fs::read(crate::shared().join("trajectories/tinystories-train.tok512.bin")).unwrap();
    let ids: Vec<i32> = bytes.chunks_exact(2).map(|b| i32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
    let losses = (0..sequences).map(|i| {
        let window = &ids[i * seq..=(i + 1) * seq];
        run(&config, &params, &window[..seq], &window[1..], &vec![1.0; seq])[0]
    });
    losses.sum::<f64>() / (seq * sequences) as f64
}

#[test]
#[ignore = "needs ../shared"]
fn the_published_model_knows_its_stories() {
    let loss = published_loss(16, 1);
    assert!(loss < 4.0, "{loss}");
}

/// The first loss of the trajectory, as `PyTorch` computed it.
#[test]
#[ignore = "needs ../shared"]
fn the_first_loss_of_the_trajectory_is_reproduced() {
    let text = std::fs::read_to_string(crate::shared().join("trajectories/stories260k.json")).unwrap();
    let trajectory: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = trajectory["loss"][0].as_f64().unwrap();
    let loss = published_loss(128, 8);
    assert!((loss - expected).abs() < 2e-6, "{loss} against {expected}");
}

/// Logits after `tokens` in steps of `n` tokens, on caches of 8 positions that hold garbage at first.
fn logits_by_steps(config: &LlamaConfig, params: &[(String, Tensor)], tokens: &[i32], n: usize) -> Vec<f64> {
    let context = 8;
    let function = step("f", config, StepShape { tokens: n, context }).unwrap();
    let mut state: BTreeMap<String, Tensor> = params.iter().cloned().collect();
    for p in function.parameters().iter().filter(|p| p.role == Role::State) {
        let ty = function.ty(p.value);
        state.insert(p.name.clone(), Tensor::new(&ty.shape, vec![9.0f32; ty.len()]).unwrap());
    }
    let mut logits = Vec::new();
    for (i, part) in tokens.chunks(n).enumerate() {
        let position = |k: usize| i * n + k;
        let mut inputs = state.clone();
        let ids: Vec<i32> = (0..n).map(|k| part.get(k).copied().unwrap_or(0)).collect();
        let mask: Vec<bool> = (0..n).flat_map(|k| (0..context).map(move |c| c <= position(k))).collect();
        inputs.insert("f.tokens".into(), Tensor::new(&[1, n], ids).unwrap());
        let positions: Vec<i32> = (0..n).map(|k| position(k) as i32).collect();
        inputs.insert("f.positions".into(), Tensor::new(&[n], positions).unwrap());
        inputs.insert("f.mask".into(), Tensor::new(&[n, context], mask).unwrap());
        inputs.insert("f.last".into(), Tensor::new(&[1], vec![part.len() as i32 - 1]).unwrap());
        let outputs = evaluate(&function, &inputs).unwrap();
        logits = outputs["logits"].to_f64s();
        for a in function.aliases() {
            let (old, new) = (&function.parameters()[a.parameter].name, &function.outputs()[a.output].name);
            state.insert(old.clone(), outputs[new].clone());
        }
    }
    logits
}

#[test]
fn steps_of_any_length_give_the_logits_of_the_whole_text() {
    for config in all_kinds() {
        let params = strong(&config);
        let by_ones = logits_by_steps(&config, &params, &TOKENS, 1);
        // The loss of a target is the log-sum-exp of the logits minus the target's.
        let total: f64 = by_ones.iter().map(|l| l.exp()).sum();
        for target in [0, 9] {
            let mut targets = TARGETS;
            targets[5] = target;
            let [loss, _] = run(&config, &params, &TOKENS, &targets, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
            let expected = total.ln() - by_ones[target as usize];
            assert!((loss - expected).abs() < 1e-5 * loss.abs().max(1.0), "{loss} against {expected}");
        }
        // 4 + 2 padded, and 2 + 2 + 2.
        for n in [2, 4] {
            for (a, b) in logits_by_steps(&config, &params, &TOKENS, n).iter().zip(&by_ones) {
                assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "steps of {n}: {a} against {b}");
            }
        }
    }
}
