//! The trajectory of the pretrained stories260k that `PyTorch` computed.

mod common;

use std::path::Path;

use arcane_chip::Chip;
use arcane_compile::Precision;
use arcane_tensor::Tensor;
use arcane_train::trainer::Trainer;

use common::{Allowed, Checksums, Trajectory, assert_close};

/// The record, and what makes a trainer that is to follow it, on a chip's simulated engine or the host.
fn recorded_on(chip: Option<&'static Chip>) -> (Trajectory, impl Fn(&Trajectory, Precision) -> Trainer) {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let recorded = Trajectory::read(&shared.join("trajectories/stories260k.json"));
    let trainer = move |recorded: &Trajectory, precision| {
        let tokens = shared.join("trajectories/tinystories-train.tok512.bin");
        recorded.trainer(chip, &shared.join("data/stories260k"), &tokens, precision)
    };
    (recorded, trainer)
}

fn recorded() -> (Trajectory, impl Fn(&Trajectory, Precision) -> Trainer) {
    recorded_on(None)
}

/// The checksums as the readme of the trajectory compares them: everything relative to itself. An element counts as at least
/// a thousandth of the largest one; below that it is but the difference of larger ones.
fn assert_checksums(name: &str, tensor: &Tensor, expected: &Checksums, relative: f64) {
    let values = tensor.to_f64s();
    let close = |what: &str, found: f64, expected: f64, size: f64| {
        assert_close(&format!("{name}: {what}"), found, expected, relative * size.abs());
    };
    close("sum", values.iter().sum(), expected.sum, expected.sum);
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    close("norm", norm, expected.l2, expected.l2);
    close("largest", values.iter().fold(0.0f64, |m, x| m.max(x.abs())), expected.absmax, expected.absmax);
    for &(i, value) in &expected.at {
        close(&format!("element {i}"), values[i], value, value.abs().max(1e-3 * expected.absmax));
    }
}

#[test]
#[ignore = "needs ../shared"]
fn fp32_follows_pytorch_to_its_final_weights() {
    let (recorded, trainer) = recorded();
    let mut trained = trainer(&recorded, Precision::Fp32);
    for _ in &recorded.loss {
        trained.step().unwrap();
    }
    assert_eq!(recorded.final_weights.len(), 47);
    for (name, expected) in &recorded.final_weights {
        assert_checksums(name, &trained.tensor(name).unwrap(), expected, 1e-4);
    }
    let allowed = Allowed { loss: 2e-5, grad_norm: 1e-5, weights: 1e-4 };
    recorded.assert_followed_by(trainer(&recorded, Precision::Fp32), &allowed);
}

#[test]
#[ignore = "needs ../shared"]
fn fp16_stays_near_and_skips_nothing() {
    let (recorded, trainer) = recorded();
    let allowed = Allowed { loss: 2e-2, grad_norm: 1e-2, weights: 1e-3 };
    recorded.assert_followed_by(trainer(&recorded, Precision::Fp16), &allowed);
}

#[test]
#[ignore = "needs ../shared"]
fn simulated_engines_stay_near_and_skip_nothing() {
    for chip in ["m1", "m4"] {
        let (recorded, trainer) = recorded_on(Some(Chip::named(chip).unwrap()));
        let allowed = Allowed { loss: 2e-2, grad_norm: 1e-2, weights: 1e-3 };
        recorded.assert_followed_by(trainer(&recorded, Precision::Engine), &allowed);
    }
}
