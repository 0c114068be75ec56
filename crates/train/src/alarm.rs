//! Alarms: what an update computed is not finite, or far above what the updates before it did.
//!
//! Outliers are found as in llm.c (Karpathy 2024, `outlier_detector.h`): by their distance from the mean of a window of values,
//! in standard deviations of that window. An outlier does not enter the window, lest the next one look usual, unless it is one
//! of several in a row: then the level has changed. Two things differ. A value is compared with a window that it is not part of,
//! since its own weight bounds what can be found: 7 there are about 15 here. And the window may be as good as constant.
//!
//! | constant | value | from |
//! |---|---|---|
//! | [`WINDOW`] | 64 values | llm.c |
//! | [`IN_A_ROW`] | 3 outliers | llm.c |
//! | [`DEFAULT_THRESHOLD`] | 7 standard deviations | the scripts of llm.c for GPT-2 and GPT-3 (`-sl 7.0 -sg 7.0`) |
//! | [`LEAST_DEVIATION`] | a thousandth of the mean | here: one batch over and over has losses that differ by their rounding |
//!
//! A window is a function of the values so far, so a run that goes on fills it from its metrics and raises the same alarms as one
//! that was never stopped.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Values in a window; until there are as many nothing is an outlier.
pub const WINDOW: usize = 64;
/// From this one of several outliers in a row on they enter the window.
pub const IN_A_ROW: u32 = 3;
/// Standard deviations above the mean that make an outlier, unless the configuration says otherwise.
pub const DEFAULT_THRESHOLD: f64 = 7.0;
/// The smallest standard deviation that a window is taken to have, as a part of its mean.
pub const LEAST_DEVIATION: f64 = 1e-3;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The mean loss of an update.
    Loss,
    /// The norm of its gradients, before clipping.
    GradNorm,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::GradNorm => "gradient norm",
        })
    }
}

/// How far a value is above those before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// The mean of the window.
    pub mean: f64,
    /// The distance from it, in standard deviations of the window.
    pub deviations: f64,
}

/// What is unusual about an update. In JSON an alarm is an object with `kind` and what follows from nothing else in the line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Alarm {
    /// A value is far above those before it.
    Outlier {
        /// Of what.
        of: Quantity,
        /// The value.
        #[serde(skip)]
        value: f64,
        /// How far it is above the others.
        #[serde(flatten)]
        outlier: Outlier,
    },
    /// A value is infinite or NaN.
    NotFinite {
        /// Of what.
        of: Quantity,
        /// The value.
        #[serde(skip)]
        value: f64,
    },
    /// A gradient is infinite or NaN, and the update was skipped.
    Skipped {
        /// The factor on the loss.
        #[serde(skip)]
        loss_scale: f64,
    },
}

impl Alarm {
    /// What it is about.
    pub const fn of(&self) -> Quantity {
        match self {
            Self::Outlier { of, .. } | Self::NotFinite { of, .. } => *of,
            Self::Skipped { .. } => Quantity::GradNorm,
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outlier { of, value, outlier: Outlier { mean, deviations } } => write!(
                f,
                "{of} {value:.4} is {deviations:.1} standard deviations above {mean:.4}, the mean of {WINDOW} updates before"
            ),
            Self::NotFinite { of, value } => write!(f, "the {of} is {value}"),
            Self::Skipped { loss_scale } => {
                write!(f, "a gradient is not finite at loss scale {loss_scale}, the update is skipped")
            }
        }
    }
}

/// The windows of all that is watched.
#[derive(Debug, Clone)]
pub struct Watch {
    loss: Detector,
    grad_norm: Detector,
}

impl Watch {
    /// Values more than `threshold` standard deviations above the mean are outliers; with 0 none is.
    pub fn new(threshold: f64) -> Self {
        Self { loss: Detector::new(threshold), grad_norm: Detector::new(threshold) }
    }

    /// Takes the next update into the windows, and notes in its metrics what is an outlier.
    pub fn check(&mut self, metrics: &mut Metrics) {
        metrics.loss_outlier = self.loss.push(metrics.loss);
        metrics.grad_norm_outlier = self.grad_norm.push(metrics.grad_norm);
    }
}

/// The window of one quantity.
#[derive(Debug, Clone)]
struct Detector {
    threshold: f64,
    values: [f64; WINDOW],
    /// How many there have been.
    count: usize,
    outliers_in_a_row: u32,
}

impl Detector {
    fn new(threshold: f64) -> Self {
        Self { threshold, values: [0.0; WINDOW], count: 0, outliers_in_a_row: 0 }
    }

    fn push(&mut self, value: f64) -> Option<Outlier> {
        if !value.is_finite() {
            return None;
        }
        let outlier = self.compare(value).filter(|o| self.threshold > 0.0 && o.deviations > self.threshold);
        self.outliers_in_a_row = if outlier.is_some() { self.outliers_in_a_row + 1 } else { 0 };
        if outlier.is_none() || self.outliers_in_a_row >= IN_A_ROW {
            self.values[self.count % WINDOW] = value;
            self.count += 1;
        }
        outlier
    }

    /// The distance from the mean, if the window is full and there is a measure for it. The sums are new each time, so they
    /// depend on what is in the window alone.
    fn compare(&self, value: f64) -> Option<Outlier> {
        if self.count < WINDOW {
            return None;
        }
        let n = WINDOW as f64;
        let mean = self.values.iter().sum::<f64>() / n;
        let variance = self.values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let deviation = variance.sqrt().max(LEAST_DEVIATION * mean.abs());
        (deviation > 0.0).then(|| Outlier { mean, deviations: (value - mean) / deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value that goes up and down by at most 0.1 around a level.
    fn around(level: f64, i: usize) -> f64 {
        level + 0.1 * (i as f64 * 2.4).sin()
    }

    fn alarms(detector: &mut Detector, values: impl IntoIterator<Item = f64>) -> Vec<usize> {
        values.into_iter().enumerate().filter_map(|(i, v)| detector.push(v).map(|_| i)).collect()
    }

    #[test]
    fn a_spike_in_a_full_window_is_an_outlier_and_one_before_is_not() {
        let spiked = |at: usize| (0..100).map(move |i| around(2.0, i) + if i == at { 3.0 } else { 0.0 });
        assert_eq!(alarms(&mut Detector::new(7.0), spiked(WINDOW)), [WINDOW]);
        assert_eq!(alarms(&mut Detector::new(7.0), spiked(WINDOW - 1)), [0; 0]);
        assert_eq!(alarms(&mut Detector::new(0.0), spiked(WINDOW)), [0; 0]);
        // Downwards is no reason for alarm.
        assert_eq!(alarms(&mut Detector::new(7.0), spiked(WINDOW).map(|v| -v)), [0; 0]);
    }

    #[test]
    fn the_distance_is_that_from_the_values_before() {
        let mut detector = Detector::new(7.0);
        // Mean 2, standard deviation 1.
        (0..WINDOW).for_each(|i| assert_eq!(detector.push(if i % 2 == 0 { 1.0 } else { 3.0 }), None));
        assert_eq!(detector.push(9.0), None);
        let mut detector = Detector::new(7.0);
        (0..WINDOW).for_each(|i| assert_eq!(detector.push(if i % 2 == 0 { 1.0 } else { 3.0 }), None));
        assert_eq!(detector.push(9.5), Some(Outlier { mean: 2.0, deviations: 7.5 }));
    }

    #[test]
    fn smooth_curves_and_constant_ones_raise_none() {
        let falling = (0..2000).map(|i| around(2.0 + 9.0 / (1.0 + i as f64 / 20.0), i));
        assert_eq!(alarms(&mut Detector::new(7.0), falling), [0; 0]);
        let rising = (0..2000).map(|i| i as f64);
        assert_eq!(alarms(&mut Detector::new(7.0), rising), [0; 0]);
        let rounded = (0..2000).map(|i| 1.0 + if i % 97 == 96 { 1e-4 } else { 0.0 });
        assert_eq!(alarms(&mut Detector::new(7.0), rounded), [0; 0]);
        let zero = (0..100).map(|i| if i == 90 { 1.0 } else { 0.0 });
        assert_eq!(alarms(&mut Detector::new(7.0), zero), [0; 0]);
    }

    #[test]
    fn outliers_do_not_hide_the_next_and_a_new_level_is_soon_usual() {
        let two = (0..120).map(|i| around(2.0, i) + if i == 80 || i == 100 { 2.0 } else { 0.0 });
        assert_eq!(alarms(&mut Detector::new(7.0), two), [80, 100]);
        let jump = (0..400).map(|i| around(if i < 100 { 2.0 } else { 5.0 }, i));
        let found = alarms(&mut Detector::new(7.0), jump);
        assert!(found.starts_with(&[100, 101, 102]) && found.len() < 8, "{found:?}");
    }

    #[test]
    fn values_that_are_not_finite_leave_the_window_alone() {
        let mut detector = Detector::new(7.0);
        let values = (0..WINDOW * 2).map(|i| if i % 2 == 0 { around(2.0, i) } else { f64::NAN });
        assert_eq!(alarms(&mut detector, values), [0; 0]);
        assert_eq!(detector.push(f64::INFINITY), None);
        assert!(detector.push(9.0).is_some());
    }

    #[test]
    fn texts_say_what_and_how_much() {
        let outlier = Outlier { mean: 2.25, deviations: 7.31 };
        let text = Alarm::Outlier { of: Quantity::Loss, value: 9.1, outlier }.to_string();
        assert_eq!(
            text,
            "loss 9.1000 is 7.3 standard deviations above 2.2500, the mean of 64 updates before"
        );
        let text = Alarm::NotFinite { of: Quantity::GradNorm, value: f64::INFINITY }.to_string();
        assert_eq!(text, "the gradient norm is inf");
    }
}
