//! `arcane bench chip --fit`: the coefficients of the model of time, and how far it is off.

use std::collections::BTreeMap;

use arcane_chip::price::fit::{Fit, Fitted, Miss, fit, leave_one_chip_out, leave_one_source_out, quantile};
use arcane_chip::{Chip, Confidence};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fit the model of time to the published latencies, and predict each source and each chip from the others.
    #[arg(long, required = true)]
    fit: bool,
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
}

/// The fit and its errors: |ln(predicted / measured)| at the median, and of 68 % of the rows at most.
pub(crate) fn measure() -> Value {
    let (fit, sources, chips) = (fit(), leave_one_source_out(), leave_one_chip_out());
    let (in_fit, unseen): (Vec<&Miss>, Vec<&Miss>) = sources.iter().partition(|m| m.is_chip_in_fit);
    json!({
        "coefficients": coefficients(&fit),
        "sources_left_out": {
            "scored": errors(in_fit.iter().copied().filter(|m| is_scored(m))),
            "by_kind": by(&in_fit, |m| &m.kind),
            "by_source": by(&in_fit, |m| &m.source),
            "chips_without_rows": errors(unseen.iter().copied().filter(|m| is_scored(m))),
        },
        "chips_left_out": {
            "scored": errors(chips.iter().filter(|m| is_scored(m))),
            "by_chip": by(&chips.iter().collect::<Vec<_>>(), |m| m.chip),
        },
    })
}

/// Comparisons with other devices are reported, and not part of the score.
fn is_scored(miss: &Miss) -> bool {
    !miss.kind.starts_with("compare")
}

fn errors<'a>(misses: impl Iterator<Item = &'a Miss>) -> Value {
    let misses: Vec<&Miss> = misses.collect();
    let of = |part| quantile(misses.iter().copied(), part);
    json!({ "rows": misses.len(), "median": of(0.5), "within_68": of(0.68) })
}

fn by<'a>(misses: &[&'a Miss], key: impl Fn(&'a Miss) -> &'a str) -> Value {
    let mut groups: BTreeMap<&str, Vec<&Miss>> = BTreeMap::new();
    for miss in misses {
        groups.entry(key(miss)).or_default().push(miss);
    }
    groups.into_iter().map(|(key, misses)| (key.to_owned(), errors(misses.into_iter()))).collect()
}

fn coefficients(fit: &Fit) -> Value {
    let fitted = Chip::all().iter().filter(|c| c.rates.weight_gb_s.confidence == Confidence::Fitted);
    let of = |chip: &Chip| -> Value {
        Fitted::ALL.into_iter().map(|f| (f.key().to_owned(), json!(fit.value(f, chip)))).collect()
    };
    fitted.map(|chip| (chip.name.clone(), of(chip))).collect()
}
