//! One update after another.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arcane_chip::Chip;
use arcane_compile::{PlanOptions, Precision, Prediction};
use arcane_models::LlamaConfig;
use arcane_session::{CallId, Engines, Session, SessionError};
use arcane_tensor::Tensor;

use crate::batches::{BatchBuffers, Data};
use crate::checkpoint::{
    CheckpointError, FORMAT_VERSION, State, read_state, restore_moments, write_checkpoint,
};
use crate::clock::Clock;
use crate::config::{Config, LossScaleConfig, OptimizerConfig};
use crate::error::{SetupError, StepError};
use crate::loss_scale::{LossScale, Verdict};
use crate::memory::Request;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::program::ProgramOptions;
use crate::schedule::Schedule;

/// What a run gets from around it.
#[derive(Clone)]
pub struct Environment {
    /// What computes.
    pub engines: Engines,
    /// The chip that programs are compiled for; without one the host runs everything.
    pub chip: Option<&'static Chip>,
    /// What it computes in.
    pub precision: Precision,
    /// What times the updates.
    pub clock: Arc<dyn Clock>,
    /// Bytes of memory that there are, if that is known.
    pub available_bytes: Option<u64>,
}

impl Environment {
    /// How programs are planned.
    pub fn planning(&self) -> PlanOptions {
        PlanOptions { precision: self.precision, chip: self.chip, freeze: true, ..PlanOptions::default() }
    }
}

/// A model in training.
///
/// An update takes `accumulate` micro-batches of `batch` sequences from the data. If a gradient is not finite the update is
/// skipped: weights and moments stay as they are, the data go on, a dynamic loss scale halves. Update k, from 0, has the
/// schedule's rate k, whether or not updates before it were skipped; the bias corrections count those that were applied.
///
/// The loss scale is a factor on the mean loss. Programs differentiate sums, whose gradients grow with the batch, so they are
/// seeded with the scale divided by the tokens of an update, rounded up to a power of two: that leaves digits alone.
pub struct Trainer {
    model: Model,
    data: Data,
    session: Session,
    calls: Calls,
    buffers: BatchBuffers,
    clock: Arc<dyn Clock>,
    optimizer: OptimizerConfig,
    schedule: Schedule,
    loss_scale: LossScale,
    /// Sequences in a micro-batch, micro-batches in an update, predictions in a sequence.
    batch: usize,
    accumulate: usize,
    seq: usize,
    seed: u64,
    /// The gradient's seed at a loss scale of 1.
    unit_seed: f64,
    progress: Progress,
    /// Whether weights and moments are those after some number of updates.
    is_whole: bool,
    times: StepTimes,
    /// What an update would take on the chip that it is compiled for.
    predicted: Option<Prediction>,
}

struct Calls {
    forward_backward: CallId,
    update: CallId,
    evaluate: Option<CallId>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    step: u64,
    skipped: u64,
    position: u64,
    tokens: u64,
}

/// Where the time of an update went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// Data, loss and gradients of all micro-batches.
    pub forward_backward: Duration,
    /// Clipping and optimiser.
    pub update: Duration,
}

/// Sums over micro-batches.
#[derive(Clone, Copy)]
struct Sums {
    loss: f64,
    weight: f64,
    finite: bool,
}

impl Trainer {
    /// Builds, plans and loads the training program of a model and sets its weights. All memory is allocated here.
    ///
    /// # Errors
    /// [`SetupError`]; one about too little memory comes before any is allocated.
    pub fn new(
        config: &Config,
        model: Model,
        data: Data,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        let (batch, accumulate, seq) = (config.train.batch, config.train.accumulate, config.data.seq);
        let evaluate = data.valid_sequences() > 0;
        let options = ProgramOptions { batch, seq, accumulate, evaluate, optimizer: &config.optimizer };
        let (engines, planning) = (&environment.engines, environment.planning());
        let request = Request { engines, model: &model.config, options, planning };
        let plan = request.plan_within(environment.available_bytes)?;
        let predicted = environment.chip.map(|chip| plan.predict_update(accumulate, chip));
        let session = Session::new(plan, &environment.engines)?;
        model.weights(|name, tensor| Ok(session.set(name, tensor)?))?;
        if config.optimizer.clip > 0.0 {
            session.set_scalar("clip", config.optimizer.clip as f32)?;
        }
        let buffers = BatchBuffers {
            tokens: session.buffer("tokens")?.clone(),
            targets: session.buffer("targets")?.clone(),
            weights: session.buffer("weights")?.clone(),
        };
        buffers.count_all()?;
        let calls = Calls {
            forward_backward: session.call_id("forward_backward")?,
            update: session.call_id("update")?,
            evaluate: evaluate.then(|| session.call_id("evaluate")).transpose()?,
        };
        Ok(Self {
            model,
            data,
            session,
            calls,
            buffers,
            clock: environment.clock.clone(),
            optimizer: config.optimizer.clone(),
            schedule: Schedule::new(config),
            loss_scale: loss_scale(config, environment.precision),
            batch,
            accumulate,
            seq,
            seed: config.train.seed,
            unit_seed: 1.0 / (batch as f64 * accumulate as f64 * seq as f64).log2().ceil().exp2(),
            progress: Progress::default(),
            is_whole: true,
            times: StepTimes::default(),
            predicted,
        })
    }

    /// Goes on from a checkpoint whose model the trainer was made with.
    ///
    /// # Errors
    /// [`CheckpointError`] if the checkpoint is damaged, of another format, model or seed.
    pub fn restore(&mut self, folder: &Path) -> Result<(), CheckpointError> {
        let state = read_state(folder)?;
        if state.seed != self.seed {
            let path = folder.join("state.json");
            return Err(CheckpointError::Seed { path, found: state.seed, given: self.seed });
        }
        restore_moments(folder, &self.model.config, &self.session)?;
        self.loss_scale.restore(state.loss_scale);
        let State { step, skipped, position, tokens, .. } = state;
        self.progress = Progress { step, skipped, position, tokens };
        Ok(())
    }

    /// Writes a checkpoint into a folder that exists.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn save(&self, folder: &Path) -> Result<(), CheckpointError> {
        let Progress { step, skipped, position, tokens } = self.progress;
        let state = State {
            format_version: FORMAT_VERSION,
            step,
            skipped,
            position,
            tokens,
            loss_scale: self.loss_scale.state(),
            seed: self.seed,
        };
        write_checkpoint(folder, &self.model, &self.session, &state)
    }

    /// The data.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The model's configuration.
    pub fn model_config(&self) -> &LlamaConfig {
        &self.model.config
    }

    /// Updates so far, the skipped ones among them.
    pub fn updates(&self) -> u64 {
        self.progress.step
    }

    /// How many updates were skipped because a gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.progress.skipped
    }

    /// Tokens taken from the data so far.
    pub fn tokens(&self) -> u64 {
        self.progress.tokens
    }

    /// A weight (`model.norm.weight`), moment (`moment1.model.norm.weight`) or gradient of the last update
    /// (`gradient.model.norm.weight`: of the sum of losses, times [`Trainer::gradient_seed`] of that update).
    ///
    /// # Errors
    /// [`SessionError::NoBuffer`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, SessionError> {
        self.session.get(name)
    }

    /// What the gradients of the next update are seeded with.
    pub fn gradient_seed(&self) -> f64 {
        self.loss_scale.scale() * self.unit_seed
    }

    /// Bytes that the session holds: buffers, constants and intermediate values.
    pub fn memory_bytes(&self) -> usize {
        self.session.memory_bytes()
    }

    /// Where the time of the last update went.
    pub fn times(&self) -> StepTimes {
        self.times
    }

    /// Whether weights and moments are those after [`Trainer::updates`] updates, so that a checkpoint can be written: they are
    /// not if an update failed half-way.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What an update would take on the chip that it is compiled for, modelled.
    pub fn predicted(&self) -> Option<Prediction> {
        self.predicted
    }

    /// Does one update. Nothing is allocated here but for a shuffle where a pass over the data ends.
    ///
    /// # Errors
    /// [`StepError::Diverged`] if the loss is not finite under a static loss scale, the norm of finite gradients overflows, or
    /// gradients overflow under the smallest dynamic scale; weights are then no longer worth keeping. Others are the engine's.
    pub fn step(&mut self) -> Result<Metrics, StepError> {
        let start = self.clock.now();
        let scale = self.loss_scale.scale();
        let lr = self.schedule.lr(self.progress.step);
        // Rounded as the program gets it, so that the update takes out just that.
        let seed = f64::from(self.gradient_seed() as f32);
        let before = self.progress;
        // Weights and moments are as they were, so the data are, too.
        let sums = self.forward_backward(seed).inspect_err(|_| self.progress = before);
        let sums = sums?;
        let middle = self.clock.now();
        let mut metrics = Metrics {
            step: self.progress.step + 1,
            loss: sums.loss / sums.weight,
            lr,
            grad_norm: f64::NAN,
            loss_scale: scale,
            predicted_ms: self.predicted.map(|p| p.total_ms),
            predicted_mj: self.predicted.map(|p| p.energy_mj),
            ..Metrics::default()
        };
        let exhausted = self.loss_scale.is_exhausted();
        let verdict = self.loss_scale.update(sums.finite);
        match verdict {
            Verdict::Apply => {
                self.is_whole = false;
                metrics.grad_norm = self.update(lr, 1.0 / (sums.weight * seed))?;
                self.is_whole = true;
            }
            Verdict::Skip => {
                metrics.skipped = true;
                self.progress.skipped += 1;
            }
        }
        self.progress.step += 1;
        let end = self.clock.now();
        metrics.tokens = self.progress.tokens;
        metrics.ms = end.saturating_sub(start).as_secs_f64() * 1e3;
        self.times =
            StepTimes { forward_backward: middle.saturating_sub(start), update: end.saturating_sub(middle) };
        let what = if !metrics.loss.is_finite() && !self.loss_scale.is_dynamic() {
            format!("the loss is {}", metrics.loss)
        } else if metrics.skipped && exhausted {
            format!("gradients overflow under the smallest loss scale, {scale}")
        } else if !metrics.skipped && !metrics.grad_norm.is_finite() {
            format!("the norm of the gradients is {}", metrics.grad_norm)
        } else {
            return Ok(metrics);
        };
        Err(StepError::Diverged { metrics: Box::new(metrics), what })
    }

    fn forward_backward(&mut self, seed: f64) -> Result<Sums, StepError> {
        self.session.set_scalar("loss_scale", seed as f32)?;
        self.session.zero_accumulators()?;
        let mut sums = Sums { loss: 0.0, weight: 0.0, finite: true };
        for _ in 0..self.accumulate {
            self.data.fill_training(self.progress.position, &self.buffers)?;
            self.session.run(self.calls.forward_backward)?;
            sums.loss += self.session.scalar("loss_sum")?;
            sums.weight += self.session.scalar("weight_sum")?;
            sums.finite &= self.session.scalar("finite")? != 0.0;
            self.progress.position += self.batch as u64;
            self.progress.tokens += (self.batch * self.seq) as u64;
        }
        Ok(sums)
    }

    /// Applies the gradients; gives the norm of those of the mean loss.
    fn update(&self, lr: f64, gradient_scale: f64) -> Result<f64, SessionError> {
        let OptimizerConfig { betas: [beta1, beta2], weight_decay, .. } = self.optimizer;
        let t = (self.progress.step - self.progress.skipped + 1) as f64;
        for (name, value) in [
            ("gradient_scale", gradient_scale),
            ("step_size", lr / (1.0 - beta1.powf(t))),
            ("decay", 1.0 - lr * weight_decay),
            ("root_correction", 1.0 / (1.0 - beta2.powf(t)).sqrt()),
        ] {
            self.session.set_scalar(name, value as f32)?;
        }
        self.session.run(self.calls.update)?;
        self.session.scalar("grad_norm")
    }

    /// The mean loss over the validation data, `None` if there are none. Training goes on as if nothing had happened.
    ///
    /// # Errors
    /// [`StepError`], the engine's.
    pub fn evaluate(&mut self) -> Result<Option<f64>, StepError> {
        let Some(call) = self.calls.evaluate else { return Ok(None) };
        let (mut loss, mut weight) = (0.0, 0.0);
        for first in (0..self.data.valid_sequences()).step_by(self.batch) {
            self.data.fill_validation(first, &self.buffers)?;
            self.session.run(call)?;
            loss += self.session.scalar("loss_sum")?;
            weight += self.session.scalar("weight_sum")?;
        }
        self.buffers.count_all()?;
        Ok(Some(loss / weight))
    }
}

fn loss_scale(config: &Config, precision: Precision) -> LossScale {
    match (config.train.loss_scale, precision) {
        (Some(LossScaleConfig::Static(scale)), _) => LossScale::fixed(scale),
        (Some(LossScaleConfig::Dynamic), _) | (None, Precision::Fp16 | Precision::Engine) => {
            LossScale::dynamic()
        }
        (None, Precision::Fp32) => LossScale::fixed(1.0),
    }
}
