//! Which checkpoints a run writes and which it keeps.

use crate::config::RunConfig;
use crate::history::Evaluation;
use crate::run_folder::Checkpoint;

/// The rules of `[run]` for checkpoints.
///
/// A checkpoint is written every `save_every` updates, where a run stops, and at its end. With `keep = 0` all of them stay.
/// Else there stay, after each checkpoint, that one; the newest of those before it that `save_every` calls for, `keep` in all;
/// and the best one if `keep_best` is on. So that there is a best one, an evaluation that gives a lower validation loss than all
/// before writes a checkpoint, too. A checkpoint of a run that was stopped serves to go on and is removed by the next one, so
/// that a run that goes on ends with the checkpoints of one that was never stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    save_every: u64,
    keep: usize,
    keep_best: bool,
}

impl Retention {
    /// The rules of a configuration.
    pub fn new(config: &RunConfig) -> Self {
        Self { save_every: config.save_every, keep: config.keep, keep_best: config.keep_best }
    }

    /// Whether an update that is not the last one is followed by a checkpoint. `best` is the best one so far.
    pub fn calls_for(&self, step: u64, evaluation: Option<Evaluation>, best: Option<Evaluation>) -> bool {
        let is_best = || evaluation.is_some_and(|e| is_better(e, best));
        self.is_scheduled(step) || (self.keep > 0 && self.keep_best && is_best())
    }

    /// Which checkpoints before the one of update `newest` have to go. `checkpoints` are those that there are, oldest first.
    pub fn superseded<'a>(
        &self,
        checkpoints: &'a [Checkpoint],
        newest: u64,
        best: Option<Evaluation>,
    ) -> Vec<&'a Checkpoint> {
        if self.keep == 0 {
            return Vec::new();
        }
        let best = best.filter(|_| self.keep_best).map(|best| best.step);
        let mut scheduled_before = 0;
        let mut goes = |checkpoint: &&Checkpoint| {
            if self.is_scheduled(checkpoint.step) {
                scheduled_before += 1;
                if scheduled_before < self.keep {
                    return false;
                }
            }
            best != Some(checkpoint.step)
        };
        checkpoints.iter().rev().filter(|c| c.step < newest).filter(|c| goes(c)).collect()
    }

    fn is_scheduled(&self, step: u64) -> bool {
        self.save_every > 0 && step.is_multiple_of(self.save_every)
    }
}

/// The evaluation with the lowest loss among those of checkpoints, the earliest of several. Evaluations and checkpoints are in
/// the order of their updates.
pub fn best(evaluations: &[Evaluation], checkpoints: &[Checkpoint]) -> Option<Evaluation> {
    let has_checkpoint =
        |e: &&Evaluation| checkpoints.binary_search_by_key(&e.step, |checkpoint| checkpoint.step).is_ok();
    evaluations
        .iter()
        .filter(has_checkpoint)
        .fold(None, |best, &evaluation| if is_better(evaluation, best) { Some(evaluation) } else { best })
}

/// Whether an evaluation is better than the best one before it. A loss that is not finite never is.
fn is_better(evaluation: Evaluation, best: Option<Evaluation>) -> bool {
    evaluation.loss.is_finite() && best.is_none_or(|best| evaluation.loss < best.loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(step: u64, loss: f64) -> Evaluation {
        Evaluation { step, loss, bits_per_byte: None }
    }

    fn checkpoints(steps: &[u64]) -> Vec<Checkpoint> {
        steps.iter().map(|&step| Checkpoint { step, path: format!("step-{step:06}").into() }).collect()
    }

    /// The checkpoints at the end of a run of `losses.len()` updates, evaluated after each, that is stopped after some of them.
    fn end(rules: Retention, losses: &[f64], stops: &[u64]) -> Vec<u64> {
        let mut steps: Vec<u64> = Vec::new();
        let evaluations: Vec<_> = (1..).zip(losses).map(|(step, &loss)| evaluation(step, loss)).collect();
        for e in &evaluations {
            let best_before = best(&evaluations, &checkpoints(&steps));
            let is_last = e.step == losses.len() as u64;
            if is_last || stops.contains(&e.step) || rules.calls_for(e.step, Some(*e), best_before) {
                steps.push(e.step);
                let there = checkpoints(&steps);
                let gone: Vec<u64> = rules
                    .superseded(&there, e.step, best(&evaluations, &there))
                    .iter()
                    .map(|c| c.step)
                    .collect();
                steps.retain(|step| !gone.contains(step));
            }
        }
        steps
    }

    const LOSSES: [f64; 10] = [9.0, 5.0, 3.0, 4.0, 3.0, 6.0, 7.0, f64::NAN, 8.0, 4.0];

    #[test]
    fn the_best_of_all_evaluations_stays_and_the_newest() {
        let rules = Retention { save_every: 2, keep: 2, keep_best: true };
        assert_eq!(end(rules, &LOSSES, &[]), [3, 8, 10]);
        assert_eq!(end(Retention { keep: 1, ..rules }, &LOSSES, &[]), [3, 10]);
        assert_eq!(end(Retention { save_every: 0, ..rules }, &LOSSES, &[]), [3, 10]);
        assert_eq!(end(Retention { keep_best: false, ..rules }, &LOSSES, &[]), [8, 10]);
        assert_eq!(end(Retention { keep: 0, ..rules }, &LOSSES, &[]), [2, 4, 6, 8, 10]);
    }

    #[test]
    fn stops_change_nothing() {
        for keep in 1..4 {
            for save_every in [0, 1, 2, 3, 4] {
                let rules = Retention { save_every, keep, keep_best: true };
                let straight = end(rules, &LOSSES, &[]);
                for stops in 0..1u64 << 9 {
                    let stops: Vec<u64> = (1..10).filter(|step| stops >> (step - 1) & 1 == 1).collect();
                    assert_eq!(end(rules, &LOSSES, &stops), straight, "{rules:?} {stops:?}");
                }
            }
        }
    }

    #[test]
    fn the_earliest_of_equally_good_checkpoints_is_the_best() {
        let evaluations =
            [evaluation(1, f64::NAN), evaluation(2, 3.0), evaluation(4, 3.0), evaluation(5, 1.0)];
        assert_eq!(best(&evaluations, &checkpoints(&[1, 2, 3, 4])), Some(evaluations[1]));
        assert_eq!(best(&evaluations, &checkpoints(&[1, 3])), None);
    }

    #[test]
    fn later_checkpoints_are_left_alone() {
        let rules = Retention { save_every: 1, keep: 1, keep_best: true };
        let there = checkpoints(&[1, 2, 9]);
        let gone: Vec<u64> = rules.superseded(&there, 2, None).iter().map(|c| c.step).collect();
        assert_eq!(gone, [1]);
    }
}
