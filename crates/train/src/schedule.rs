//! The learning rate of each update.

use crate::config::{Config, ScheduleName};

/// A warm-up, then a constant or half a cosine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape after the warm-up.
    pub name: ScheduleName,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// Where the cosine ends.
    pub min_lr: f64,
    /// Updates of linear warm-up.
    pub warmup: u64,
    /// Updates in the whole run.
    pub steps: u64,
}

impl Schedule {
    /// The schedule of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            name: config.schedule.name,
            lr: config.optimizer.lr,
            min_lr: config.schedule.min_lr,
            warmup: config.schedule.warmup,
            steps: config.train.steps,
        }
    }

    /// The learning rate of update `k`, from 0: `lr·(k+1)/warmup` while `k < warmup`, then `lr`, or
    /// `min_lr + (lr − min_lr)·½·(1 + cos(π·(k − warmup)/(steps − warmup)))`, which stays at `min_lr` past the last step.
    pub fn lr(&self, k: u64) -> f64 {
        if k < self.warmup {
            return self.lr * (k + 1) as f64 / self.warmup as f64;
        }
        match self.name {
            ScheduleName::Constant => self.lr,
            ScheduleName::Cosine if k >= self.steps => self.min_lr,
            ScheduleName::Cosine => {
                let angle =
                    std::f64::consts::PI * (k - self.warmup) as f64 / (self.steps - self.warmup) as f64;
                self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + angle.cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSINE: Schedule =
        Schedule { name: ScheduleName::Cosine, lr: 3e-3, min_lr: 3e-4, warmup: 10, steps: 100 };

    #[test]
    fn cosine_has_the_published_values() {
        for (k, expected) in [(0, 3e-4), (9, 3e-3), (10, 3e-3), (55, 1.65e-3), (99, 3.0082e-4)] {
            let lr = COSINE.lr(k);
            assert!((lr - expected).abs() < 5e-9, "step {k}: {lr}");
        }
        assert_eq!(COSINE.lr(100), 3e-4);
    }

    #[test]
    fn constant_stays_after_the_warm_up() {
        let schedule = Schedule { name: ScheduleName::Constant, ..COSINE };
        assert_eq!((schedule.lr(4), schedule.lr(10), schedule.lr(1000)), (1.5e-3, 3e-3, 3e-3));
        let without = Schedule { warmup: 0, ..schedule };
        assert_eq!(without.lr(0), 3e-3);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_is_finite() {
        let schedule = Schedule { warmup: 200, ..COSINE };
        assert_eq!(schedule.lr(99), 1.5e-3);
        assert_eq!(schedule.lr(200), 3e-4);
    }
}
