//! Which ops the engine has, by family.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::chip::parse;
use crate::{Confidence, Family};

/// How a family runs an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// As it is.
    Native,
    /// Only as other ops, or by ways that MIL text has not.
    Composed,
    /// Not at all.
    None,
}

/// A row of the table of ops.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Legality {
    /// The names of the ops in MIL.
    pub ops: Vec<String>,
    /// The rule's name in a [`crate::Violation`].
    pub id: String,
    /// On an M1.
    h13: Support,
    /// On an M2.
    h14: Support,
    /// On an M3.
    h15: Support,
    /// On an M4 and later.
    h16: Support,
    /// Who measured or said it.
    pub source: String,
    /// How well it is known.
    pub confidence: Confidence,
    /// What to write instead, where a family does not run the ops as they are.
    pub remedy: Option<String>,
    /// What else is to be known.
    pub note: Option<String>,
}

impl Legality {
    /// How a family runs the ops of this row.
    pub fn on(&self, family: Family) -> Support {
        match family {
            Family::H13 => self.h13,
            Family::H14 => self.h14,
            Family::H15 => self.h15,
            Family::H16 | Family::H17 | Family::H18 => self.h16,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    row: Vec<Legality>,
}

fn table() -> &'static [Legality] {
    static TABLE: OnceLock<Vec<Legality>> = OnceLock::new();
    TABLE.get_or_init(|| parse::<File>("ops", include_str!("../data/ops.toml")).row)
}

/// The row of an op, by its name in MIL; `None` if nothing is known of it.
pub fn legality(op: &str) -> Option<&'static Legality> {
    table().iter().find(|row| row.ops.iter().any(|name| name == op))
}

#[cfg(test)]
mod tests;
