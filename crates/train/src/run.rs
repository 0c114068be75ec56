//! A run: its folder, its updates, its checkpoints.

use std::path::{Path, PathBuf};

use arcane_tensor::write_atomically;

use crate::batches::Data;
use crate::config::Config;
use crate::error::{RunError, SetupError, StepError};
use crate::metrics::{Metrics, MetricsLog};
use crate::model::Model;
use crate::run_folder::{RunFolder, RunFolderError};
use crate::trainer::{Environment, Trainer};

/// Whether a run starts or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In a folder that does not exist yet.
    New,
    /// From the latest checkpoint in its folder; from the beginning if there is none.
    Resume,
}

/// A run, ready to train.
pub struct Run {
    trainer: Trainer,
    folder: RunFolder,
    metrics: MetricsLog,
    steps: u64,
    save_every: u64,
    eval_every: u64,
    keep: usize,
}

/// What a run tells while it trains.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// An update was done or skipped.
    Update(&'a Metrics),
    /// A checkpoint was written.
    Checkpoint(&'a Path),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Whether it was stopped before its last update.
    pub stopped: bool,
    /// The latest checkpoint.
    pub checkpoint: PathBuf,
    /// The last update of this call, if there was one.
    pub last: Option<Metrics>,
    /// The last validation loss of this call, if there was one.
    pub valid_loss: Option<f64>,
    /// The same in bits a byte of text, where the validation data are text.
    pub valid_bits_per_byte: Option<f64>,
}

impl Run {
    /// Reads, checks and allocates everything, and only then creates or changes the folder `path`. A run that goes on takes its
    /// model from its checkpoint; everything else follows `config`, which is written to the folder.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn open(
        config: &Config,
        path: &Path,
        start: Start,
        environment: &Environment,
    ) -> Result<Self, SetupError> {
        let resolved = config.to_toml()?;
        let resumed = match start {
            Start::New if path.symlink_metadata().is_ok() => {
                return Err(RunFolderError::Exists(path.into()).into());
            }
            Start::New => None,
            Start::Resume => Some(RunFolder::resume(path)?),
        };
        let checkpoint = resumed.as_ref().map(RunFolder::latest).transpose()?.flatten();
        let mut model = match &checkpoint {
            Some(checkpoint) => Model::from_path(&checkpoint.path)?,
            None => Model::open(config)?,
        };
        let data = Data::open(config, &mut model)?;
        let mut trainer = Trainer::new(config, model, data, environment)?;
        if let Some(checkpoint) = &checkpoint {
            trainer.restore(&checkpoint.path)?;
        }
        let folder = match resumed {
            Some(folder) => folder,
            None => RunFolder::create(path)?,
        };
        let metrics = match start {
            Start::New => MetricsLog::create(&folder.metrics_path())?,
            Start::Resume => MetricsLog::resume(&folder.metrics_path(), trainer.updates())?,
        };
        write_atomically(&folder.config_path(), |w| w.write_all(resolved.as_bytes()))
            .map_err(SetupError::Write)?;
        Ok(Self {
            trainer,
            folder,
            metrics,
            steps: config.train.steps,
            save_every: config.run.save_every,
            eval_every: config.run.eval_every,
            keep: config.run.keep,
        })
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Trains up to the configured number of updates, or until `stop` says so between two updates. Each update has its line of
    /// metrics before the next one begins; a checkpoint is written every `run.save_every` updates and at the end.
    ///
    /// # Errors
    /// [`RunError`]; an update that diverges has its line, and no checkpoint is written of it.
    pub fn train(
        &mut self,
        stop: &dyn Fn() -> bool,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary, RunError> {
        let (mut last, mut valid, mut stopped) = (None, None, false);
        while self.trainer.updates() < self.steps {
            stopped = stop();
            if stopped {
                break;
            }
            let metrics = self.update()?;
            on_event(Event::Update(&metrics));
            valid = metrics.valid_loss.map(|loss| (loss, metrics.valid_bits_per_byte)).or(valid);
            last = Some(metrics);
            if is_due(self.save_every, metrics.step) && metrics.step < self.steps {
                on_event(Event::Checkpoint(&self.save()?));
            }
        }
        let checkpoint = self.save()?;
        on_event(Event::Checkpoint(&checkpoint));
        let (valid_loss, valid_bits_per_byte) =
            (valid.map(|(loss, _)| loss), valid.and_then(|(_, bits)| bits));
        Ok(Summary { stopped, checkpoint, last, valid_loss, valid_bits_per_byte })
    }

    fn update(&mut self) -> Result<Metrics, RunError> {
        let mut metrics = match self.trainer.step() {
            Ok(metrics) => metrics,
            Err(e) => {
                if let StepError::Diverged { metrics, .. } = &e {
                    self.metrics.append(metrics)?;
                }
                return Err(e.into());
            }
        };
        if is_due(self.eval_every, metrics.step) {
            metrics.valid_loss = self.trainer.evaluate()?;
            metrics.valid_bits_per_byte =
                metrics.valid_loss.and_then(|loss| self.trainer.data().valid_bits_per_byte(loss));
        }
        self.metrics.append(&metrics)?;
        Ok(metrics)
    }

    fn save(&self) -> Result<PathBuf, RunError> {
        self.metrics.sync()?;
        let Self { trainer, folder, keep, .. } = self;
        let saved = folder.save_checkpoint(trainer.updates(), *keep, |path| Ok(trainer.save(path)?))?;
        Ok(saved.path)
    }
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
