//! What a run has been through, in as little memory as a picture of it needs.

use std::collections::VecDeque;

use crate::alarm::Alarm;
use crate::metrics::Metrics;

/// At most this many buckets in a series: about two for each point of a chart.
const BUCKETS: usize = 1024;
/// How many alarms are kept; all are counted.
const ALARMS: usize = 200;

/// The mean loss over the validation data after an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// The update.
    pub step: u64,
    /// The loss, in nats.
    pub loss: f64,
    /// The same in bits a byte of text, where the data are text.
    pub bits_per_byte: Option<f64>,
}

/// Everything that a report of a run shows over its updates: a function of the metrics in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// Training losses.
    pub loss: Series,
    /// Learning rates.
    pub lr: Series,
    /// Norms of gradients.
    pub grad_norm: Series,
    /// Tokens a second.
    pub speed: Series,
    /// Factors on the loss.
    pub loss_scale: Series,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// The latest alarms and their updates.
    pub alarms: VecDeque<(u64, Alarm)>,
    /// How many alarms there have been.
    pub alarm_count: u64,
    /// How many updates were skipped.
    pub skipped: u64,
    /// The first update that there are metrics of.
    pub first_step: u64,
    /// The last update.
    pub last: Option<Metrics>,
    /// What all updates took, in milliseconds.
    pub ms: f64,
}

impl History {
    /// Takes the metrics of the next update.
    pub fn push(&mut self, metrics: &Metrics) {
        let Metrics { step, tokens, ms, .. } = *metrics;
        if self.last.is_none() {
            self.first_step = step;
        }
        let new_tokens = tokens.saturating_sub(self.last.map_or(0, |last| last.tokens));
        self.loss.push(step, metrics.loss);
        self.lr.push(step, metrics.lr);
        self.grad_norm.push(step, metrics.grad_norm);
        // Not finite, and so left out, where no time was taken.
        self.speed.push(step, new_tokens as f64 / (ms / 1e3));
        self.loss_scale.push(step, metrics.loss_scale);
        if let Some(loss) = metrics.valid_loss {
            let bits_per_byte = metrics.valid_bits_per_byte;
            self.evaluations.push(Evaluation { step, loss, bits_per_byte });
        }
        for alarm in metrics.alarms() {
            self.alarm_count += 1;
            if self.alarms.len() == ALARMS {
                self.alarms.pop_front();
            }
            self.alarms.push_back((step, alarm));
        }
        self.skipped += u64::from(metrics.skipped);
        self.ms += ms;
        self.last = Some(*metrics);
    }
}

impl<'a> FromIterator<&'a Metrics> for History {
    fn from_iter<I: IntoIterator<Item = &'a Metrics>>(metrics: I) -> Self {
        let mut history = Self::default();
        metrics.into_iter().for_each(|m| history.push(m));
        history
    }
}

/// A quantity over the updates of a run, in at most 1024 buckets of equally many values. When they are full, each two
/// become one, so a series is the same however it has grown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    buckets: Vec<Bucket>,
    /// Values in a bucket, as a power of two.
    doublings: u32,
}

/// Successive values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The update of the first value, and of the last one.
    pub steps: [u64; 2],
    /// The smallest and the largest of the finite values.
    pub range: [f64; 2],
    count: u64,
    finite: u64,
    sum: f64,
}

impl Bucket {
    fn new(step: u64, value: f64) -> Self {
        if value.is_finite() {
            Self { steps: [step; 2], range: [value; 2], count: 1, finite: 1, sum: value }
        } else {
            let range = [f64::INFINITY, f64::NEG_INFINITY];
            Self { steps: [step; 2], range, count: 1, finite: 0, sum: 0.0 }
        }
    }

    fn append(&mut self, next: Self) {
        self.steps[1] = next.steps[1];
        self.range = [self.range[0].min(next.range[0]), self.range[1].max(next.range[1])];
        self.count += next.count;
        self.finite += next.finite;
        self.sum += next.sum;
    }

    /// Its place among the updates.
    pub fn middle(&self) -> f64 {
        f64::midpoint(self.steps[0] as f64, self.steps[1] as f64)
    }

    /// The mean of the finite values, if there are any.
    pub fn mean(&self) -> Option<f64> {
        (self.finite > 0).then(|| self.sum / self.finite as f64)
    }
}

impl Series {
    /// Adds the value of an update.
    pub fn push(&mut self, step: u64, value: f64) {
        let new = Bucket::new(step, value);
        match self.buckets.last_mut() {
            Some(last) if last.count < 1 << self.doublings => last.append(new),
            _ => {
                if self.buckets.len() == BUCKETS {
                    self.halve();
                }
                self.buckets.push(new);
            }
        }
    }

    fn halve(&mut self) {
        for i in 0..BUCKETS / 2 {
            let mut pair = self.buckets[2 * i];
            pair.append(self.buckets[2 * i + 1]);
            self.buckets[i] = pair;
        }
        self.buckets.truncate(BUCKETS / 2);
        self.doublings += 1;
    }

    /// The buckets, in order.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Means over up to `half` buckets to either side of each; `None` where all of these lack finite values.
    pub fn smoothed(&self, half: usize) -> Vec<Option<f64>> {
        let around = |i: usize| {
            let near = &self.buckets[i.saturating_sub(half)..(i + half + 1).min(self.buckets.len())];
            let finite: u64 = near.iter().map(|b| b.finite).sum();
            (finite > 0).then(|| near.iter().map(|b| b.sum).sum::<f64>() / finite as f64)
        };
        (0..self.buckets.len()).map(around).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        values.into_iter().zip(1..).for_each(|(value, step)| series.push(step, value));
        series
    }

    #[test]
    fn few_values_are_all_there() {
        let series = series((0..BUCKETS).map(|i| i as f64));
        assert_eq!(series.buckets().len(), BUCKETS);
        assert!(series.buckets().iter().zip(0..).all(|(b, i)| b.mean() == Some(f64::from(i))));
    }

    #[test]
    fn many_values_keep_their_extremes_and_their_mean() {
        let n = 100_000u64;
        let series = series((0..n).map(|i| if i == 54_321 { 1e6 } else { i as f64 }));
        let buckets = series.buckets();
        assert!((BUCKETS / 2..=BUCKETS).contains(&buckets.len()), "{}", buckets.len());
        assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), n);
        assert!(buckets.windows(2).all(|pair| pair[0].steps[1] + 1 == pair[1].steps[0]));
        assert_eq!((buckets[0].steps[0], buckets[buckets.len() - 1].steps[1]), (1, n));
        let high = buckets.iter().find(|b| b.range[1] == 1e6).unwrap();
        assert!(high.steps[0] <= 54_322 && high.steps[1] >= 54_322);
        assert_eq!(buckets[0].mean(), Some((buckets[0].count - 1) as f64 / 2.0));
    }

    #[test]
    fn values_that_are_not_finite_are_gaps() {
        let series = series([1.0, f64::NAN, f64::INFINITY, 4.0]);
        let means: Vec<_> = series.buckets().iter().map(Bucket::mean).collect();
        assert_eq!(means, [Some(1.0), None, None, Some(4.0)]);
        assert_eq!(series.smoothed(0), means);
        assert_eq!(series.smoothed(1), [Some(1.0), Some(1.0), Some(4.0), Some(4.0)]);
    }

    #[test]
    fn speed_is_new_tokens_over_time() {
        let metrics = [(1, 100, 50.0), (2, 300, 100.0), (3, 400, 0.0)].map(|(step, tokens, ms)| Metrics {
            step,
            tokens,
            ms,
            ..Metrics::default()
        });
        let history = History::from_iter(&metrics);
        let speeds: Vec<_> = history.speed.buckets().iter().map(Bucket::mean).collect();
        assert_eq!(speeds, [Some(2000.0), Some(2000.0), None]);
        assert_eq!((history.ms, history.first_step), (150.0, 1));
    }

    #[test]
    fn alarms_are_all_counted_and_the_latest_kept() {
        let skipped = |step| Metrics { step, skipped: true, grad_norm: f64::NAN, ..Metrics::default() };
        let metrics: Vec<Metrics> = (1..=500).map(skipped).collect();
        let history = History::from_iter(&metrics);
        assert_eq!((history.alarm_count, history.skipped, history.alarms.len()), (500, 500, ALARMS));
        assert_eq!(history.alarms.back().map(|(step, _)| *step), Some(500));
    }
}
