//! How sure a predicted time is.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::chip::parse;
use crate::{Chip, Confidence, Fact};

/// `data/errors.toml`: the part of e by which predictions of rows that a fit did not have are off, 68 % of them at most.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Errors {
    chip_in_fit: Fact<f64>,
    other_chip: Fact<f64>,
}

/// The relative half-width of the interval that holds a measured time with 68 % probability: what cross validation gives for
/// sources that a fit does not have, on a chip that it has and on one that it does not.
pub fn relative_half_width(chip: &Chip) -> f64 {
    static ERRORS: OnceLock<Errors> = OnceLock::new();
    let errors = ERRORS.get_or_init(|| parse("errors", include_str!("../../data/errors.toml")));
    let fitted = chip.rates.weight_gb_s.confidence == Confidence::Fitted;
    let log_error = if fitted { &errors.chip_in_fit } else { &errors.other_chip };
    log_error.exp() - 1.0
}
