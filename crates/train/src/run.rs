//! A run: its folder, its updates, its checkpoints.

use std::path::{Path, PathBuf};

use arcane_tensor::write_atomically;

use crate::alarm::Watch;
use crate::batches::Data;
use crate::config::Config;
use crate::error::{RunError, SetupError, StepError};
use crate::history::{Evaluation, History};
use crate::metrics::{Metrics, MetricsLog};
use crate::model::Model;
use crate::report::Report;
use crate::retention::{Retention, best};
use crate::run_folder::{Checkpoint, RunFolder, RunFolderError, checkpoints};
use crate::samples::cut_samples;
use crate::setup::Setup;
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
    watch: Watch,
    report: Report,
    steps: u64,
    eval_every: u64,
    retention: Retention,
    /// The best checkpoint that there is.
    best: Option<Evaluation>,
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
    /// The checkpoint with the lowest validation loss and its evaluation, if one was evaluated.
    pub best: Option<(PathBuf, Evaluation)>,
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
        let (metrics, past) = match start {
            Start::New => (MetricsLog::create(&folder.metrics_path())?, Vec::new()),
            Start::Resume => MetricsLog::resume(&folder.metrics_path(), trainer.updates())?,
        };
        cut_samples(&folder.samples_path(), trainer.updates())?;
        write_atomically(&folder.config_path(), |w| w.write_all(resolved.as_bytes()))
            .map_err(SetupError::Write)?;
        let setup = Setup::new(trainer.model_config(), environment.precision, trainer.data().report());
        write_atomically(&folder.setup_path(), |w| Ok(serde_json::to_writer_pretty(w, &setup)?))
            .map_err(SetupError::Write)?;
        let mut watch = Watch::new(config.run.alarm);
        for mut metrics in past {
            watch.check(&mut metrics);
        }
        let report = Report::read(path)?;
        let best = best(&report.history().evaluations, &checkpoints(path)?);
        Ok(Self {
            trainer,
            folder,
            metrics,
            watch,
            report,
            steps: config.train.steps,
            eval_every: config.run.eval_every,
            retention: Retention::new(&config.run),
            best,
        })
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// What the run has been through, earlier calls included.
    pub fn history(&self) -> &History {
        self.report.history()
    }

    /// Trains up to the configured number of updates, or until `stop` says so between two updates. Each update has its line of
    /// metrics before the next one begins; a checkpoint is written where [`Retention`] calls for one and at the end, the report
    /// after each of them and each evaluation.
    ///
    /// # Errors
    /// [`RunError`]; an update that diverges has its line and its place in the report, and no checkpoint is written of it. If
    /// an engine fails, a checkpoint of the updates so far is written first.
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
            if metrics.step == self.steps {
                break;
            }
            if self.retention.calls_for(metrics.step, self.evaluation(), self.best) {
                on_event(Event::Checkpoint(&self.save()?));
            } else if metrics.valid_loss.is_some() {
                self.report.write()?;
            }
        }
        let checkpoint = self.save()?;
        on_event(Event::Checkpoint(&checkpoint));
        let (valid_loss, valid_bits_per_byte) =
            (valid.map(|(loss, _)| loss), valid.and_then(|(_, bits)| bits));
        let best = self.best.map(|best| (self.folder.checkpoint(best.step).path, best));
        Ok(Summary { stopped, checkpoint, last, valid_loss, valid_bits_per_byte, best })
    }

    fn update(&mut self) -> Result<Metrics, RunError> {
        let mut metrics = match self.trainer.step() {
            Ok(metrics) => metrics,
            Err(e) => {
                if let StepError::Diverged { metrics, .. } = &e {
                    self.record(metrics)?;
                    self.report.write()?;
                } else if self.trainer.is_whole() && self.trainer.updates() > 0 {
                    // What failed is the engine: nothing of the updates before it is lost.
                    self.save()?;
                }
                return Err(e.into());
            }
        };
        self.watch.check(&mut metrics);
        if self.eval_every > 0 && metrics.step.is_multiple_of(self.eval_every) {
            metrics.valid_loss = self.trainer.evaluate()?;
            metrics.valid_bits_per_byte =
                metrics.valid_loss.and_then(|loss| self.trainer.data().valid_bits_per_byte(loss));
        }
        self.record(&metrics)?;
        Ok(metrics)
    }

    fn record(&mut self, metrics: &Metrics) -> Result<(), RunError> {
        self.metrics.append(metrics)?;
        self.report.push(metrics);
        Ok(())
    }

    /// The evaluation of the weights as they are, if they were evaluated.
    fn evaluation(&self) -> Option<Evaluation> {
        let step = self.trainer.updates();
        self.history().evaluations.last().copied().filter(|evaluation| evaluation.step == step)
    }

    /// Writes a checkpoint, removes those that it supersedes, writes the report.
    fn save(&mut self) -> Result<PathBuf, RunError> {
        self.metrics.sync()?;
        let Self { trainer, folder, .. } = self;
        let step = trainer.updates();
        let saved = folder.save_checkpoint(step, |path| Ok(trainer.save(path)?))?;
        let there: Vec<Checkpoint> = checkpoints(folder.path())?;
        self.best = best(&self.report.history().evaluations, &there);
        for checkpoint in self.retention.superseded(&there, step, self.best) {
            folder.remove_checkpoint(checkpoint)?;
        }
        self.report.write()?;
        Ok(saved.path)
    }
}
