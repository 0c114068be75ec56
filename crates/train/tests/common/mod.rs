//! What tests that compare with `PyTorch` share: the record of a training run, and a trainer that has to follow it.
//!
//! `fixtures/llama_fixture.py` writes such records and says by which conventions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arcane_chip::Chip;
use arcane_compile::Precision;
use arcane_engine::{Engine, SimulatedEngine, SoftwareEngine};
use arcane_session::Engines;
use arcane_tensor::Tensor;
use arcane_train::batches::Data;
use arcane_train::clock::Clock;
use arcane_train::config::Config;
use arcane_train::model::Model;
use arcane_train::trainer::{Environment, Trainer};
use serde::Deserialize;

/// A recorded training run.
#[derive(Deserialize)]
pub(crate) struct Trajectory {
    hyper: Hyper,
    lr: Vec<f64>,
    pub(crate) loss: Vec<f64>,
    grad_norm: Vec<f64>,
    loss_after: f64,
    /// Of the weights after the last update.
    #[serde(rename = "final")]
    pub(crate) final_weights: BTreeMap<String, Checksums>,
}

/// What a run was made with.
#[derive(Deserialize)]
struct Hyper {
    steps: u64,
    batch: usize,
    seq: usize,
    first_sequence: u64,
    lr: f64,
    min_lr: f64,
    schedule: String,
    warmup: u64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    wd: f64,
    clip: f64,
}

/// What is kept of a tensor.
#[derive(Deserialize)]
pub(crate) struct Checksums {
    shape: Vec<usize>,
    pub(crate) sum: f64,
    pub(crate) l2: f64,
    pub(crate) absmax: f64,
    /// Flat index and value of some elements.
    pub(crate) at: Vec<(usize, f64)>,
}

/// How far from the record a run may be.
pub(crate) struct Allowed {
    /// Of each loss, in nats.
    pub(crate) loss: f64,
    /// Of each gradient norm, relative.
    pub(crate) grad_norm: f64,
    /// Of the final weights, relative: of each tensor's norm and largest magnitude; elements relative to the largest
    /// magnitude, the sum to the norm times √n.
    pub(crate) weights: f64,
}

impl Trajectory {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The configuration of the run.
    pub(crate) fn config(&self, model: &Path, tokens: &Path) -> String {
        let h = &self.hyper;
        format!(
            "[model]\nfrom = '{}'\n\
             [data]\ntrain = '{}'\nseq = {}\norder = \"sequential\"\nfirst_sequence = {}\n\
             [train]\nsteps = {}\nbatch = {}\n\
             [optimizer]\nlr = {:?}\nbetas = [{:?}, {:?}]\neps = {:?}\nweight_decay = {:?}\nclip = {:?}\n\
             [schedule]\nname = {:?}\nwarmup = {}\nmin_lr = {:?}\n",
            model.display(),
            tokens.display(),
            h.seq,
            h.first_sequence,
            h.steps,
            h.batch,
            h.lr,
            h.beta1,
            h.beta2,
            h.eps,
            h.wd,
            h.clip,
            h.schedule,
            h.warmup,
            h.min_lr,
        )
    }

    /// A trainer of the model in a folder, before the first of the recorded steps, on a chip's simulated engine or the host.
    pub(crate) fn trainer(
        &self,
        chip: Option<&'static Chip>,
        model: &Path,
        tokens: &Path,
        precision: Precision,
    ) -> Trainer {
        let config = Config::parse(&self.config(model, tokens), &model.join("run.toml"), &[]).unwrap();
        let accelerator = chip.map(|c| Arc::new(SimulatedEngine::new(c, 2).unwrap()) as Arc<dyn Engine>);
        let environment = Environment {
            engines: Engines { accelerator, host: Arc::new(SoftwareEngine::new(2).unwrap()) },
            chip,
            precision,
            clock: Arc::new(Stopped),
            available_bytes: None,
        };
        let mut model = Model::open(&config).unwrap();
        let data = Data::open(&config, &mut model).unwrap();
        Trainer::new(&config, model, data, &environment).unwrap()
    }

    /// Trains as recorded and compares every step, the weights after the last one, and the loss that they have on the next
    /// batch.
    pub(crate) fn assert_followed_by(&self, mut trainer: Trainer, allowed: &Allowed) {
        for (k, ((&loss, &norm), &lr)) in self.loss.iter().zip(&self.grad_norm).zip(&self.lr).enumerate() {
            let found = trainer.step().unwrap();
            assert!(!found.skipped, "step {k} was skipped");
            assert_close(&format!("loss of step {k}"), found.loss, loss, allowed.loss);
            let within = allowed.grad_norm * norm;
            assert_close(&format!("gradient norm of step {k}"), found.grad_norm, norm, within);
            assert_close(&format!("learning rate of step {k}"), found.lr, lr, 1e-9 * lr);
        }
        for (name, expected) in &self.final_weights {
            expected.assert_of(name, &trainer.tensor(name).unwrap(), allowed.weights);
        }
        let after = trainer.step().unwrap().loss;
        assert_close("loss after the last step", after, self.loss_after, allowed.loss);
    }
}

impl Checksums {
    /// Checks a tensor of that name; see [`Allowed::weights`].
    fn assert_of(&self, name: &str, tensor: &Tensor, relative: f64) {
        assert_eq!(tensor.shape(), self.shape, "{name}");
        let values = tensor.to_f64s();
        let sum: f64 = values.iter().sum();
        let l2 = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let absmax = values.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let root_n = (values.len() as f64).sqrt();
        assert_close(&format!("{name}: sum"), sum, self.sum, relative * self.l2 * root_n);
        assert_close(&format!("{name}: norm"), l2, self.l2, relative * self.l2);
        assert_close(&format!("{name}: largest magnitude"), absmax, self.absmax, relative * self.absmax);
        for &(i, value) in &self.at {
            assert_close(&format!("{name}: element {i}"), values[i], value, relative * self.absmax);
        }
    }
}

/// Checks |found − expected| ≤ allowed.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: f64, expected: f64, allowed: f64) {
    let close = (found - expected).abs() <= allowed;
    assert!(close, "{what}: {found:e}, {expected:e} within {allowed:e} was expected");
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}
