//! Axes: from values to places, and where the ticks are.

/// Above this ratio of the largest value to the smallest an axis of positive values is logarithmic.
const LOGARITHMIC_ABOVE: f64 = 50.0;
/// The most intervals between ticks.
const INTERVALS: f64 = 6.0;
/// The part of an axis that stays free at either end.
const MARGIN: f64 = 0.04;

/// A range of values from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// An axis that shows all finite ones of these values, logarithmic if that takes it; `None` if there are none.
    pub(super) fn of_values(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = extremes(values)?;
        let logarithmic = low > 0.0 && high / low > LOGARITHMIC_ABOVE;
        let place = |v: f64| if logarithmic { v.log10() } else { v };
        let (mut from, mut to) = (place(low), place(high));
        // A single value is in the middle.
        let margin = if from < to { MARGIN * (to - from) } else { (0.1 * from.abs()).max(1e-9) };
        (from, to) = (from - margin, to + margin);
        if low >= 0.0 && !logarithmic {
            from = from.max(0.0);
        }
        (to - from).is_finite().then_some(Self { low: from, high: to, logarithmic })
    }

    /// An axis of updates, from the first to the last.
    pub(super) fn of_steps(first: u64, last: u64) -> Self {
        let (low, high) = (first as f64, last as f64);
        Self { low, high: high.max(low + 1.0), logarithmic: false }
    }

    /// Where a value is, from 0 to 1; values beyond the axis are at its ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Round values on the axis, in ascending order.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let linear = |low: f64, high: f64| {
            let step = round_step((high - low) / INTERVALS);
            let first = (low / step).ceil();
            let values = (0..20).map(move |i| (first + f64::from(i)) * step);
            values.take_while(move |v| *v <= high + 1e-9 * step)
        };
        if !self.logarithmic {
            return linear(self.low, self.high).collect();
        }
        let decades = self.high - self.low;
        if decades > 2.0 * INTERVALS {
            let step = (decades / INTERVALS).ceil();
            let first = (self.low / step).ceil() * step;
            let exponents = (0..20).map(|i| first + f64::from(i) * step);
            return exponents.take_while(|e| *e <= self.high).map(|e| 10f64.powf(e)).collect();
        }
        let digits: &[f64] = if decades > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let values = powers.flat_map(|e| digits.iter().map(move |d| d * 10f64.powi(e)));
        values.filter(|v| (self.low..=self.high).contains(&v.log10())).collect()
    }

    /// Whole updates on an axis of them.
    pub(super) fn step_ticks(&self) -> Vec<f64> {
        self.ticks().into_iter().filter(|step| step.fract() == 0.0).collect()
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// The smallest of 1, 2, 5, 10, 20, ... (and of 0.5, 0.2, ...) that is not below a step.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|d| d * power).into_iter().find(|s| *s >= step).unwrap_or(10.0 * power)
}

/// A number with about four digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 {
        return if size == 0.0 { "0".into() } else { value.to_string() };
    }
    let trim = |text: &str| {
        let text = if text.contains('.') { text.trim_end_matches('0') } else { text };
        text.trim_end_matches('.').to_string()
    };
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.3e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", trim(digits));
    }
    if size >= 1e4 {
        return grouped(value.round() as i64);
    }
    let decimals = (3.0 - size.log10().floor()).max(0.0) as usize;
    trim(&format!("{value:.decimals$}"))
}

/// Numbers with the same decimals, as many as it takes.
pub(super) fn labels(values: &[f64]) -> Vec<String> {
    let texts: Vec<String> = values.iter().map(|v| number(*v)).collect();
    if texts.iter().any(|text| text.contains(['e', ','])) {
        return texts;
    }
    let decimals = |text: &String| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let most = texts.iter().map(decimals).max().unwrap_or(0);
    values.iter().map(|v| format!("{v:.most$}")).collect()
}

/// A whole number with its thousands apart.
pub(super) fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let groups: Vec<&str> = (0..digits.len())
        .filter(|i| *i == 0 || (digits.len() - i).is_multiple_of(3))
        .map(|start| {
            let end = start + (digits.len() - start - 1) % 3 + 1;
            &digits[start..end]
        })
        .collect();
    format!("{}{}", if value < 0 { "-" } else { "" }, groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(values: &[f64]) -> Axis {
        Axis::of_values(values.iter().copied()).unwrap()
    }

    #[test]
    fn values_are_inside_and_ticks_are_round() {
        let linear = axis(&[1.3, f64::NAN, 7.0]);
        assert_eq!(linear.ticks(), [2.0, 4.0, 6.0]);
        assert!(linear.place(1.3) > 0.0 && linear.place(7.0) < 1.0);
        assert_eq!((linear.place(-100.0), linear.place(f64::INFINITY)), (0.0, 1.0));
        let labels: Vec<String> = axis(&[2e-4, 4e-3]).ticks().into_iter().map(number).collect();
        assert_eq!(labels, ["0.001", "0.002", "0.003", "0.004"]);
    }

    #[test]
    fn wide_positive_ranges_are_logarithmic() {
        let axis = axis(&[0.5, 400.0]);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0]);
        assert!((axis.place(1.0) - axis.place(0.5) - (axis.place(2.0) - axis.place(1.0))).abs() < 1e-12);
        assert_eq!(
            Axis::of_values([1.0, 60.0].into_iter()).unwrap().ticks(),
            [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
        );
    }

    #[test]
    fn any_values_have_an_axis_with_a_few_ticks_or_none() {
        assert_eq!(Axis::of_values([f64::NAN].into_iter()), None);
        assert_eq!(Axis::of_values([-1e308, 1e308].into_iter()), None);
        let cases: [&[f64]; 7] = [
            &[0.0],
            &[-3.0],
            &[1e-300, 1e300],
            &[1e17, 1e17 + 64.0],
            &[5e-324, 1e-320],
            &[0.0, 1e-12],
            &[-5.0, 1e9],
        ];
        for values in cases {
            let axis = axis(values);
            assert!(axis.ticks().len() < 20, "{values:?}");
            assert!(values.iter().all(|v| (0.0..=1.0).contains(&axis.place(*v))), "{values:?}");
        }
    }

    #[test]
    fn steps_are_whole() {
        assert_eq!(Axis::of_steps(1, 3).step_ticks(), [1.0, 2.0, 3.0]);
        assert_eq!(Axis::of_steps(1, 1).step_ticks(), [1.0, 2.0]);
        assert_eq!(Axis::of_steps(1, 100_000).step_ticks(), [2e4, 4e4, 6e4, 8e4, 1e5]);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (3.398_123, "3.398"),
            (0.0003, "3e-4"),
            (-0.25, "-0.25"),
            (1234.6, "1235"),
            (123_456.7, "123,457"),
            (1_500_000.0, "1.5e6"),
            (f64::NAN, "NaN"),
            (0.0, "0"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
        assert_eq!(labels(&[2.9, 3.0, 3.1]), ["2.9", "3.0", "3.1"]);
        assert_eq!(labels(&[0.0, 20_000.0]), ["0", "20,000"]);
        assert_eq!(labels(&[0.0, 3e-4]), ["0", "3e-4"]);
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (-12_345_678, "-12,345,678")];
        for (value, expected) in cases {
            assert_eq!(grouped(value), expected);
        }
    }
}
