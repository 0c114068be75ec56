//! Coefficients from published latencies.
//!
//! Each fitted coefficient of a chip is a value that all chips share times a deviation of the chip. The sum over all rows of
//! |ln(predicted / measured)|, each at most 1 so that a row that contradicts the others has no say, plus a penalty on the
//! squared logarithms of the deviations, is made small by changing one number at a time, in steps that halve. Nothing is
//! random: the same rows give the same bits.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Coefficients;
use super::rows::{Row, rows};
use crate::Chip;

/// A coefficient that is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitted {
    /// See [`crate::Rates::floor_us`].
    Floor,
    /// See [`crate::Rates::weight_gb_s`].
    Weights,
    /// See [`crate::Rates::staging_gb_s`].
    Staging,
    /// See [`crate::Rates::half_rate_positions`].
    Positions,
    /// See [`crate::Rates::pass_mib`]; one value for all chips.
    Pass,
}

impl Fitted {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Floor, Self::Weights, Self::Staging, Self::Positions, Self::Pass];

    /// The key in the data files.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Floor => "floor_us",
            Self::Weights => "weight_gb_s",
            Self::Staging => "staging_gb_s",
            Self::Positions => "half_rate_positions",
            Self::Pass => "pass_mib",
        }
    }

    /// Where the search for the shared value begins.
    const fn start(self) -> f64 {
        match self {
            Self::Floor => 150.0,
            Self::Weights => 57.0,
            Self::Staging => 5.0,
            Self::Positions => 20.0,
            Self::Pass => 1.5,
        }
    }

    /// What a chip's deviation of e costs, in rows that are off by e, for each row of the fit; `None` if chips have none. Floor
    /// and staging are those of an operating system and of software around, which differ more than engines do.
    const fn stiffness(self) -> Option<f64> {
        match self {
            Self::Floor | Self::Staging => Some(0.002),
            Self::Weights | Self::Positions => Some(0.01),
            Self::Pass => None,
        }
    }

    fn of(self, coefficients: &mut Coefficients) -> &mut f64 {
        match self {
            Self::Floor => &mut coefficients.floor_us,
            Self::Weights => &mut coefficients.weight_gb_s,
            Self::Staging => &mut coefficients.staging_gb_s,
            Self::Positions => &mut coefficients.half_rate_positions,
            Self::Pass => &mut coefficients.pass_mib,
        }
    }
}

/// The largest error of a row that the fit minds.
const OUTLIER: f64 = 1.0;

/// Steps below this relative size change nothing that matters.
const SMALLEST_STEP: f64 = 1e-3;

/// The shared value of a coefficient, or a chip's deviation from it, both as logarithms.
type Key = (Fitted, Option<&'static str>);

/// A fit's result.
#[derive(Clone, Debug)]
pub struct Fit {
    logarithms: BTreeMap<Key, f64>,
}

impl Fit {
    /// The coefficients of a chip: a chip that had no rows has the shared values.
    pub fn coefficients(&self, chip: &Chip) -> Coefficients {
        let mut coefficients = Coefficients::of(chip);
        for fitted in Fitted::ALL {
            let shared = self.logarithms[&(fitted, None)];
            let deviation =
                self.logarithms.iter().find(|((f, name), _)| *f == fitted && *name == Some(&chip.name));
            *fitted.of(&mut coefficients) = (shared + deviation.map_or(0.0, |(_, d)| *d)).exp();
        }
        coefficients
    }

    /// The fitted coefficient of a chip.
    pub fn value(&self, fitted: Fitted, chip: &Chip) -> f64 {
        *fitted.of(&mut self.coefficients(chip))
    }

    fn loss(&self, rows: &[&Row]) -> f64 {
        let mut chips: BTreeMap<&str, Coefficients> = BTreeMap::new();
        let errors = rows.iter().map(|row| {
            let c = chips.entry(&row.chip.name).or_insert_with(|| self.coefficients(row.chip));
            log_error(row, c).abs().min(OUTLIER)
        });
        let errors: f64 = errors.sum();
        let deviations = self.logarithms.iter().filter(|((_, chip), _)| chip.is_some());
        let penalty = deviations.map(|((f, _), d)| f.stiffness().unwrap_or(0.0) * d * d).sum::<f64>();
        errors + penalty * rows.len() as f64
    }
}

fn log_error(row: &Row, coefficients: &Coefficients) -> f64 {
    (row.predicted_ms(coefficients) / row.ms).ln()
}

fn fit_rows(rows: &[&Row]) -> Fit {
    let mut logarithms: BTreeMap<Key, f64> = BTreeMap::new();
    for fitted in Fitted::ALL {
        logarithms.insert((fitted, None), fitted.start().ln());
        if fitted.stiffness().is_some() {
            for row in rows {
                logarithms.insert((fitted, Some(&row.chip.name)), 0.0);
            }
        }
    }
    let mut steps: BTreeMap<Key, f64> = logarithms.keys().map(|&key| (key, 0.5)).collect();
    let mut fit = Fit { logarithms };
    let mut loss = fit.loss(rows);
    while steps.values().any(|&step| step > SMALLEST_STEP) {
        for (&key, step) in &mut steps {
            let here = fit.logarithms[&key];
            let better = [1.0, -1.0].into_iter().find_map(|sign| {
                fit.logarithms.insert(key, here + sign * *step);
                Some(fit.loss(rows)).filter(|&l| l < loss - 1e-9)
            });
            if let Some(better) = better {
                loss = better;
            } else {
                fit.logarithms.insert(key, here);
                *step *= 0.5;
            }
        }
    }
    fit
}

/// The fit to all rows.
pub fn fit() -> Fit {
    fit_rows(&rows().iter().collect::<Vec<_>>())
}

/// How far a prediction was off.
#[derive(Clone, Debug, PartialEq)]
pub struct Miss {
    /// Who measured it.
    pub source: String,
    /// `conv`, `conv_chain`, `matmul`, or a comparison with other devices.
    pub kind: String,
    /// The chip.
    pub chip: &'static str,
    /// What was measured, in ms.
    pub measured_ms: f64,
    /// ln(predicted / measured)
    pub log_error: f64,
    /// Whether the fit that predicted it had other rows of this chip.
    pub is_chip_in_fit: bool,
}

/// Every row predicted by a fit to the rows that `is_held_out` does not put into its group.
fn cross_validated(group: impl Fn(&Row) -> &str) -> Vec<Miss> {
    let rows = rows();
    let groups: BTreeSet<&str> = rows.iter().map(&group).collect();
    let misses = groups.into_iter().flat_map(|held_out| {
        let (tested, fitted): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| group(row) == held_out);
        let fit = fit_rows(&fitted);
        tested.into_iter().map(move |row| Miss {
            source: row.source.clone(),
            kind: row.kind.clone(),
            chip: &row.chip.name,
            measured_ms: row.ms,
            log_error: log_error(row, &fit.coefficients(row.chip)),
            is_chip_in_fit: fitted.iter().any(|f| f.chip.name == row.chip.name),
        })
    });
    misses.collect()
}

/// Every row predicted from the rows of the other sources.
pub fn leave_one_source_out() -> Vec<Miss> {
    cross_validated(|row| &row.source)
}

/// Every row predicted from the rows of the other chips.
pub fn leave_one_chip_out() -> Vec<Miss> {
    cross_validated(|row| &row.chip.name)
}

/// The magnitude that a part of all errors does not exceed; 0 if there are none.
pub fn quantile<'a>(misses: impl IntoIterator<Item = &'a Miss>, part: f64) -> f64 {
    let mut errors: Vec<f64> = misses.into_iter().map(|m| m.log_error.abs()).collect();
    errors.sort_by(f64::total_cmp);
    let at = (errors.len() as f64 * part) as usize;
    errors.get(at.min(errors.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
