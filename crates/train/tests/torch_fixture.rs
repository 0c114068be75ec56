//! Gradients, losses and weights of small models against those that `PyTorch` computed
//! (`fixtures/llama_fixture.py`).

mod common;

use std::path::PathBuf;

use arcane_compile::Precision;
use arcane_tensor::{SafetensorsFile, Tensor, difference};
use arcane_train::config::Config;
use arcane_train::trainer::Trainer;

use common::{Allowed, Trajectory, assert_close};

/// A model with its own output matrix, and heads wider than its width divided by their number.
const UNTIED: &str = "untied";
/// A model whose output matrix is the embedding, with three query heads for each key head.
const TIED: &str = "tied";
/// A model with a norm on each head of its queries and keys.
const QWEN3: &str = "qwen3";

fn fixture(variant: &str, precision: Precision) -> (PathBuf, Trajectory, Trainer) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(variant);
    let recorded = Trajectory::read(&folder.join("trajectory.json"));
    let trainer = recorded.trainer(None, &folder, &folder.join("tokens.bin"), precision);
    (folder, recorded, trainer)
}

/// The gradients of step 0: of the mean loss, before clipping.
fn check_gradients(variant: &str) {
    let (folder, _, mut trainer) = fixture(variant, Precision::Fp32);
    // The trainer's are of the sum of losses, times the seed.
    let factor = trainer.gradient_seed();
    trainer.step().unwrap();
    let factor = factor * trainer.tokens() as f64;
    let file = SafetensorsFile::open(&folder.join("gradients.safetensors")).unwrap();
    for name in file.names() {
        let expected = file.tensor(name).unwrap();
        let sum = trainer.tensor(&format!("gradient.{name}")).unwrap();
        let mean: Vec<f64> = sum.to_f64s().iter().map(|g| g / factor).collect();
        let found = difference(&Tensor::new(sum.shape(), mean).unwrap(), &expected).unwrap();
        let largest = expected.to_f64s().iter().fold(0.0f64, |m, g| m.max(g.abs()));
        assert_close(&format!("{name}: norm of the difference, relative"), found.norm_rel, 0.0, 1e-4);
        assert_close(&format!("{name}: largest difference"), found.max_abs, 0.0, 1e-4 * largest);
    }
}

fn check_trajectory(variant: &str, precision: Precision, allowed: &Allowed) {
    let (_, recorded, trainer) = fixture(variant, precision);
    recorded.assert_followed_by(trainer, allowed);
}

/// The run itself is 5e-7 (losses) and 3e-7 (norms) away from the same in fp64.
const FP32: Allowed = Allowed { loss: 2e-5, grad_norm: 1e-5, weights: 1e-4 };
const FP16: Allowed = Allowed { loss: 5e-3, grad_norm: 5e-3, weights: 2e-3 };

#[test]
fn the_configurations_are_those_of_the_records() {
    for variant in [UNTIED, TIED, QWEN3] {
        let (folder, recorded, _) = fixture(variant, Precision::Fp32);
        let path = folder.join("train.toml");
        let written = std::fs::read_to_string(&path).unwrap();
        let parse = |text: &str| Config::parse(text, &path, &[]).unwrap();
        assert_eq!(parse(&written), parse(&recorded.config(&folder, &folder.join("tokens.bin"))));
    }
}

#[test]
fn gradients_with_an_output_matrix() {
    check_gradients(UNTIED);
}

#[test]
fn gradients_with_a_tied_embedding() {
    check_gradients(TIED);
}

#[test]
fn gradients_with_head_norms() {
    check_gradients(QWEN3);
}

#[test]
fn fp32_training_follows_pytorch_with_an_output_matrix() {
    check_trajectory(UNTIED, Precision::Fp32, &FP32);
}

#[test]
fn fp32_training_follows_pytorch_with_a_tied_embedding() {
    check_trajectory(TIED, Precision::Fp32, &FP32);
}

#[test]
fn fp32_training_follows_pytorch_with_head_norms() {
    check_trajectory(QWEN3, Precision::Fp32, &FP32);
}

#[test]
fn fp16_training_stays_close_with_an_output_matrix() {
    check_trajectory(UNTIED, Precision::Fp16, &FP16);
}

#[test]
fn fp16_training_stays_close_with_a_tied_embedding() {
    check_trajectory(TIED, Precision::Fp16, &FP16);
}

#[test]
fn fp16_training_stays_close_with_head_norms() {
    check_trajectory(QWEN3, Precision::Fp16, &FP16);
}
