//! A whole training step of small Llama and Qwen3 models on the software engine: fused kernels against unfused ones and against the
//! reference evaluator, on one thread and on two.

use std::collections::BTreeMap;

use arcane_engine::{Engine, LoadOptions, SoftwareEngine, conformance};
use arcane_mil::{Builder, Opset, Program, Role, TensorType, evaluate};
use arcane_models::{LlamaConfig, ModelType};
use arcane_tensor::{DType, Tensor};

const MODELS: [ModelType; 2] = [ModelType::Llama, ModelType::Qwen3];
const BATCH: usize = 2;
const SEQ: usize = 20;

fn config(model_type: ModelType) -> LlamaConfig {
    let mut config = arcane_models::preset("stories260k").expect("a preset");
    config.hidden_size = 24;
    config.intermediate_size = 40;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.head_dim = 6;
    config.vocab_size = 53;
    config.model_type = model_type;
    config
}

/// `loss` and the gradient of every parameter.
fn step(config: &LlamaConfig) -> Program {
    let mut f = Builder::new("main", Opset::Ios18);
    let parameters = arcane_models::declare_parameters(&mut f, config);
    let ids = TensorType::new(DType::I32, &[BATCH, SEQ]);
    let tokens = f.parameter("tokens", ids.clone(), Role::Batch);
    let targets = f.parameter("targets", ids, Role::Batch);
    let weights = f.parameter("weights", TensorType::new(DType::F32, &[BATCH, SEQ]), Role::Batch);
    let scale = f.parameter("loss_scale", TensorType::new(DType::F32, &[]), Role::Scalar);
    let (loss, _) =
        arcane_models::loss(&mut f, config, &parameters, tokens, targets, weights).expect("well-typed");
    let names: Vec<(String, _)> = parameters.iter().map(|(n, v)| (n.to_string(), v)).collect();
    let wrt: Vec<_> = names.iter().map(|(_, v)| *v).collect();
    let gradients = arcane_grad::gradients(&mut f, &[(loss, scale)], &wrt).expect("differentiable");
    f.output("loss", loss);
    for ((name, _), &gradient) in names.iter().zip(&gradients) {
        f.output(&format!("gradient.{name}"), gradient);
    }
    Program::new(vec![arcane_compile::simplify(&f.finish())])
}

fn inputs(config: &LlamaConfig) -> BTreeMap<String, Tensor> {
    let mut inputs: BTreeMap<String, Tensor> = arcane_models::initialize(config, 7)
        .into_iter()
        .map(|(name, tensor)| {
            // Larger weights than at the start of training, so that attention is not flat.
            let values: Vec<f64> = tensor.to_f64s().iter().map(|x| x * 8.0).collect();
            (name, Tensor::from_f64s(DType::F32, tensor.shape(), &values).expect("same shape"))
        })
        .collect();
    let ids = |step: usize| (0..BATCH * SEQ).map(|i| ((i * 31 + step) % config.vocab_size) as i32).collect();
    inputs.insert("tokens".into(), Tensor::new(&[BATCH, SEQ], ids(0)).expect("one id a position"));
    inputs.insert("targets".into(), Tensor::new(&[BATCH, SEQ], ids(31)).expect("one id a position"));
    let weights = (0..BATCH * SEQ).map(|i| if i % 7 == 3 { 0f32 } else { 1.0 }).collect();
    inputs.insert("weights".into(), Tensor::new(&[BATCH, SEQ], weights).expect("one weight a position"));
    inputs.insert("loss_scale".into(), Tensor::scalar(0.25f32));
    inputs
}

fn run(config: &LlamaConfig, threads: usize, fuse: bool) -> BTreeMap<String, Tensor> {
    let engine = SoftwareEngine::new(threads).expect("threads start");
    conformance::run(&engine, &step(config), "main", &inputs(config), LoadOptions { fuse }).expect("it runs")
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let (a, b) = (a.to_f64s(), b.to_f64s());
    norm(&mut a.iter().zip(&b).map(|(x, y)| x - y)) / norm(&mut b.iter().copied())
}

#[test]
fn gradients_are_those_of_the_reference() {
    for config in MODELS.map(config) {
        let want = evaluate(&step(&config).functions[0], &inputs(&config)).expect("it runs");
        for fuse in [true, false] {
            for (name, got) in &run(&config, 2, fuse) {
                let off = distance(got, &want[name]);
                assert!(off < 1e-4, "{}: {name}, fuse {fuse}: off by {off:e}", config.model_type.name());
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for config in MODELS.map(config) {
        let (one, two) = (run(&config, 1, true), run(&config, 2, true));
        for (name, tensor) in &one {
            assert_eq!(tensor.bytes(), two[name].bytes(), "{name}");
        }
        assert_eq!(run(&config, 5, true), two);
    }
}

#[test]
fn composites_are_recognised() {
    for config in MODELS.map(config) {
        check_recognised(&config);
    }
}

fn check_recognised(config: &LlamaConfig) {
    let engine = SoftwareEngine::new(1).expect("threads start");
    let loaded = engine.load(&step(config), "main", LoadOptions::default()).expect("it loads");
    let count = |name: &str| loaded.kernels().iter().filter(|k| **k == name).count();
    assert_eq!(count("cross_entropy"), 1);
    assert_eq!(count("attention"), config.num_hidden_layers);
    assert_eq!(count("attention_gradient"), config.num_hidden_layers);
    // Seven products a layer forward and fourteen backward; the head's are in the cross entropy.
    assert_eq!(count("gemm"), 21 * config.num_hidden_layers);
    let needed =
        engine.required_bytes(&step(config), "main", LoadOptions::default()).expect("it can be laid out");
    assert_eq!(loaded.scratch_bytes(), needed);
    let unfused = engine.load(&step(config), "main", LoadOptions { fuse: false }).expect("it loads");
    assert!(loaded.kernels().len() * 2 < unfused.kernels().len());
}

/// Loss and gradients of a head so large that the kernel takes its rows in three chunks.
fn large_head() -> (Program, BTreeMap<String, Tensor>) {
    const ROWS: usize = 40;
    const VOCABULARY: usize = 1 << 19;
    let shapes = [("hidden", [ROWS, 2]), ("head", [VOCABULARY, 2]), ("weights", [ROWS, 1])];
    let mut f = Builder::new("main", Opset::Ios18);
    let [hidden, head, weights] =
        shapes.map(|(name, shape)| f.parameter(name, TensorType::new(DType::F32, &shape), Role::Batch));
    let targets = f.parameter("targets", TensorType::new(DType::I32, &[ROWS, 1]), Role::Batch);
    let loss = f.cross_entropy(hidden, head, targets, weights).expect("well-typed");
    let one = f.scalar(DType::F32, 1.0);
    let gradients = arcane_grad::gradients(&mut f, &[(loss, one)], &[hidden, head]).expect("differentiable");
    for (name, value) in ["loss", "d_hidden", "d_head"].into_iter().zip([loss, gradients[0], gradients[1]]) {
        f.output(name, value);
    }
    let mut inputs: BTreeMap<String, Tensor> = shapes
        .iter()
        .map(|(name, shape)| {
            let values =
                (0..shape[0] * shape[1]).map(|i| ((i * 37 + 11) % 101) as f32 / 25.0 - 2.0).collect();
            (name.to_string(), Tensor::new::<f32>(shape, values).expect("one value an element"))
        })
        .collect();
    let targets = (0..ROWS).map(|i| (i * 7919 % VOCABULARY) as i32).collect();
    inputs.insert("targets".into(), Tensor::new(&[ROWS, 1], targets).expect("one target a row"));
    (Program::new(vec![arcane_compile::simplify(&f.finish())]), inputs)
}

#[test]
fn a_head_in_chunks_gives_what_one_pass_gives() {
    let (program, inputs) = large_head();
    let engine = SoftwareEngine::new(2).expect("threads start");
    let run =
        |fuse| conformance::run(&engine, &program, "main", &inputs, LoadOptions { fuse }).expect("it runs");
    let (chunked, whole) = (run(true), run(false));
    for (name, tensor) in &chunked {
        let off = distance(tensor, &whole[name]);
        assert!(off < 1e-5, "{name}: off by {off:e}");
    }
    let needed =
        |fuse| engine.required_bytes(&program, "main", LoadOptions { fuse }).expect("it can be laid out");
    assert!(2 * needed(true) < needed(false));
}
