//! Numbers with their source.

use std::fmt;
use std::ops::Deref;

use serde::Deserialize;

/// How well a fact is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Measured by two or more independent sources.
    MeasuredTwice,
    /// Measured by one source.
    MeasuredOnce,
    /// Stated without a test.
    Stated,
    /// Concluded from several measurements.
    Inferred,
    /// Sources contradict each other; [`Fact::other`] or [`Fact::note`] has the other side.
    Conflict,
    /// Fitted to the rows that [`Fact::source`] names, by code of this crate.
    Fitted,
    /// Taken from other chips by the rule that [`Fact::source`] names.
    Interpolated,
}

impl Confidence {
    /// The name in the data files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MeasuredTwice => "measured-twice",
            Self::MeasuredOnce => "measured-once",
            Self::Stated => "stated",
            Self::Inferred => "inferred",
            Self::Conflict => "conflict",
            Self::Fitted => "fitted",
            Self::Interpolated => "interpolated",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value with its source. It dereferences to the value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Who measured or said it, or the rule that it was interpolated by.
    pub source: String,
    /// How well it is known.
    pub confidence: Confidence,
    /// What another source has, where they contradict each other.
    #[serde(default = "none")]
    pub other: Option<T>,
    /// The versions of macOS that it was seen on, where it depends on them.
    pub os: Option<String>,
    /// What has to be known to use it.
    pub note: Option<String>,
}

/// The default of a field whose type need not have one.
fn none<T>() -> Option<T> {
    None
}

impl<T> Deref for Fact<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
