//! The factor on the loss that keeps fp16 gradients above the smallest numbers of the type.

use serde::{Deserialize, Serialize};

const START: f64 = 65_536.0;
const MIN: f64 = 1.0;
const MAX: f64 = 16_777_216.0;
/// Clean updates before the factor is doubled.
const PATIENCE: u32 = 2000;

/// What is to be done with an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its gradients are finite: apply it.
    Apply,
    /// A gradient is infinite or NaN: skip it and count it as skipped.
    Skip,
}

/// A loss scale, static or dynamic. A dynamic one starts at 2^16, halves on overflow (not below 1) and doubles after 2000
/// updates without one (not above 2^24). Powers of two leave the digits of the gradients alone.
#[derive(Debug, Clone, PartialEq)]
pub struct LossScale {
    state: LossScaleState,
    dynamic: bool,
}

/// What a checkpoint keeps of a loss scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScaleState {
    /// The factor.
    pub scale: f64,
    /// Updates since the last overflow or doubling.
    pub good_steps: u32,
}

impl LossScale {
    /// Always this factor. An overflow still skips the update.
    pub fn fixed(scale: f64) -> Self {
        Self { state: LossScaleState { scale, good_steps: 0 }, dynamic: false }
    }

    /// A factor that adapts.
    pub fn dynamic() -> Self {
        Self { state: LossScaleState { scale: START, good_steps: 0 }, dynamic: true }
    }

    /// The factor for the next update.
    pub fn scale(&self) -> f64 {
        self.state.scale
    }

    /// Whether it adapts.
    pub fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    /// Whether it adapts and cannot be lowered any more.
    pub fn is_exhausted(&self) -> bool {
        self.dynamic && self.state.scale <= MIN
    }

    /// Takes note whether the gradients of an update were finite, and decides about the update.
    pub fn update(&mut self, finite: bool) -> Verdict {
        let LossScaleState { scale, good_steps } = &mut self.state;
        if !finite {
            *good_steps = 0;
            if self.dynamic {
                *scale = (*scale / 2.0).max(MIN);
            }
            return Verdict::Skip;
        }
        if self.dynamic {
            *good_steps += 1;
            if *good_steps >= PATIENCE {
                *good_steps = 0;
                *scale = (*scale * 2.0).min(MAX);
            }
        }
        Verdict::Apply
    }

    /// What a checkpoint has to keep.
    pub fn state(&self) -> LossScaleState {
        self.state
    }

    /// Goes on from a checkpoint. A static scale stays what the configuration says; a dynamic one is brought into its range.
    pub fn restore(&mut self, state: LossScaleState) {
        if self.dynamic && state.scale.is_finite() {
            self.state = LossScaleState { scale: state.scale.clamp(MIN, MAX), ..state };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_halves_and_skips_down_to_one() {
        let mut scale = LossScale::dynamic();
        assert_eq!(scale.update(false), Verdict::Skip);
        assert_eq!(scale.scale(), 32_768.0);
        for _ in 0..40 {
            scale.update(false);
        }
        assert_eq!(scale.scale(), 1.0);
        assert!(scale.is_exhausted() && !LossScale::fixed(1.0).is_exhausted());
    }

    #[test]
    fn doubles_after_2000_clean_updates_in_a_row() {
        let mut scale = LossScale::dynamic();
        for _ in 0..1999 {
            assert_eq!(scale.update(true), Verdict::Apply);
        }
        scale.update(false);
        for _ in 0..1999 {
            scale.update(true);
        }
        assert_eq!(scale.scale(), 32_768.0);
        scale.update(true);
        assert_eq!(scale.scale(), 65_536.0);
        for _ in 0..20 * 2000 {
            scale.update(true);
        }
        assert_eq!(scale.scale(), 16_777_216.0);
    }

    #[test]
    fn a_restored_scale_goes_on_as_if_never_stopped() {
        let mut straight = LossScale::dynamic();
        straight.update(false);
        for _ in 0..1500 {
            straight.update(true);
        }
        let text = serde_json::to_string(&straight.state()).unwrap();
        let mut resumed = LossScale::dynamic();
        resumed.restore(serde_json::from_str(&text).unwrap());
        for _ in 0..600 {
            straight.update(true);
            resumed.update(true);
        }
        assert_eq!(straight, resumed);
        assert_eq!(straight.scale(), 65_536.0);
    }

    #[test]
    fn a_static_scale_skips_but_stays() {
        let mut scale = LossScale::fixed(256.0);
        assert_eq!((scale.update(false), scale.scale()), (Verdict::Skip, 256.0));
        scale.restore(LossScaleState { scale: 2.0, good_steps: 0 });
        assert_eq!(scale.scale(), 256.0);
    }
}
