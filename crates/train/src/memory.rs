//! How much memory a training program takes, and which batch fits what there is.

use arcane_compile::{Plan, PlanOptions, plan};
use arcane_models::LlamaConfig;
use arcane_session::{Engines, SessionError};

use crate::error::SetupError;
use crate::program::{ProgramOptions, training_program};

/// A training program with its plan's memory compared to what there is.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The model.
    pub(crate) model: &'a LlamaConfig,
    /// What the program is built for.
    pub(crate) options: ProgramOptions<'a>,
    /// How it is planned.
    pub(crate) planning: PlanOptions,
    /// What runs it.
    pub(crate) engines: &'a Engines,
}

impl Request<'_> {
    /// The plan, if it fits into `available` bytes (`None`: it is not known how many there are).
    ///
    /// # Errors
    /// [`SetupError::Memory`] with what is needed, what there is, and the largest batch that fits.
    pub(crate) fn plan_within(&self, available: Option<u64>) -> Result<Plan, SetupError> {
        let Some(available) = available else { return self.plan() };
        let needed = match self.try_plan(available)? {
            Outcome::Fits { plan, .. } => return Ok(*plan),
            Outcome::Exceeds(needed) => needed,
        };
        let largest = self.largest_batch(needed, available)?;
        Err(SetupError::Memory { needed, available, batch: self.options.batch, largest })
    }

    fn plan(&self) -> Result<Plan, SetupError> {
        let program = training_program(self.model, &self.options)?;
        Ok(plan(&program, &self.planning)?)
    }

    fn try_plan(&self, available: u64) -> Result<Outcome, SetupError> {
        // Building the program takes memory of its own for masks and tables.
        let floor = self.floor_bytes();
        if floor > available {
            return Ok(Outcome::Exceeds(floor));
        }
        let plan = self.plan()?;
        let needed = self.session_bytes(&plan)?.saturating_add(self.copy_bytes());
        if needed > available {
            return Ok(Outcome::Exceeds(needed));
        }
        Ok(Outcome::Fits { needed, plan: Box::new(plan) })
    }

    /// The largest batch below the one that `needed` more than is `available`; 0 if not even one sequence fits. The next
    /// guess is by turns where a straight line puts the limit, which it is close to, and half-way.
    fn largest_batch(&self, needed: u64, available: u64) -> Result<usize, SetupError> {
        let (mut low, mut high) = ((0, 0), (self.options.batch, needed));
        let mut guess = 1;
        for halve in [false, true].into_iter().cycle() {
            if high.0 - low.0 <= 1 {
                break;
            }
            let request = Request { options: ProgramOptions { batch: guess, ..self.options }, ..*self };
            match request.try_plan(available)? {
                Outcome::Fits { needed, .. } => low = (guess, needed),
                Outcome::Exceeds(needed) => high = (guess, needed),
            }
            if low.0 == 0 {
                break;
            }
            let per_sequence = (high.1.saturating_sub(low.1) / (high.0 - low.0) as u64).max(1);
            let more = ((available - low.1) / per_sequence) as usize;
            let most = (high.0 - low.0).saturating_sub(1).max(1);
            guess = low.0 + if halve { most.div_ceil(2) } else { more.clamp(1, most) };
        }
        Ok(low.0)
    }

    /// A lower bound that needs no program: weights, moments, gradients, the causal mask, the rotary tables.
    fn floor_bytes(&self) -> u64 {
        let seq = self.options.seq as u128;
        let tables = seq * seq + 4 * seq * self.model.head_dim as u128;
        let weights = 16 * u128::from(self.model.parameter_count());
        u64::try_from(weights + tables).unwrap_or(u64::MAX)
    }

    /// The plan's buffers, and what the engines hold beside them for as long as the functions are loaded.
    fn session_bytes(&self, plan: &Plan) -> Result<u64, SessionError> {
        self.engines.required_bytes(plan)
    }

    /// Beside the session: a checkpoint is written from copies, at most both moments at a time.
    fn copy_bytes(&self) -> u64 {
        self.model.parameter_count().saturating_mul(8)
    }
}

enum Outcome {
    Fits { needed: u64, plan: Box<Plan> },
    Exceeds(u64),
}

#[cfg(test)]
mod tests {
    use arcane_engine::SoftwareEngine;
    use arcane_models::preset;
    use arcane_session::Session;

    use super::*;
    use crate::config::OptimizerConfig;

    const BATCH: usize = 100_000;

    fn engines() -> Engines {
        Engines::host(std::sync::Arc::new(SoftwareEngine::new(1).unwrap()))
    }

    /// Calls `check` with a request for stories260k.
    fn with_request(batch: usize, seq: usize, check: impl FnOnce(Request<'_>)) {
        let model = preset("stories260k").unwrap();
        let engines = engines();
        let optimizer: OptimizerConfig = toml::from_str("lr = 1.0").unwrap();
        let options = ProgramOptions { batch, seq, accumulate: 1, evaluate: true, optimizer: &optimizer };
        check(Request { model: &model, options, planning: PlanOptions::default(), engines: &engines });
    }

    #[test]
    fn what_is_needed_is_what_a_session_takes() {
        with_request(2, 64, |request| {
            let plan = request.plan().unwrap();
            let needed = request.session_bytes(&plan).unwrap();
            let session = Session::new(plan, &engines()).unwrap();
            assert_eq!(needed, session.memory_bytes() as u64);
        });
    }

    #[test]
    fn the_largest_batch_fits_and_the_next_does_not() {
        let available = 200 << 20;
        let mut found = 0;
        with_request(BATCH, 64, |request| {
            let error = request.plan_within(Some(available)).unwrap_err();
            let SetupError::Memory { needed, largest, .. } = error else { panic!("{error}") };
            assert!(needed > available && (2..BATCH).contains(&largest));
            found = largest;
        });
        with_request(found, 64, |request| assert!(request.plan_within(Some(available)).is_ok()));
        with_request(found + 1, 64, |request| assert!(request.plan_within(Some(available)).is_err()));
    }

    #[test]
    fn a_sequence_that_is_too_long_for_any_batch_is_refused_before_its_mask_is_made() {
        with_request(1, 2_000_000_000, |request| {
            let error = request.plan_within(Some(1 << 30)).unwrap_err();
            assert!(error.to_string().contains("no batch"), "{error}");
        });
    }
}
