//! What an engine computes, bit for bit: a scalar model that is slow and obviously right.
//!
//! | what | rule | evidence |
//! |---|---|---|
//! | products | [`Accumulator`]: Q15.16, each product rounded to it, small ones dropped, overflow at 2¹⁵ stays | captured on M4 and M6; sums of whole kernels on M3 Ultra; errors of `x·Wᵀ` on six chips |
//! | int8 products | [`int8_product`]: a sum in int32, scaled afterwards | captured on M6 |
//! | element-wise ops | [`binary`], [`unary`]: computed wide, rounded once, half away from zero | captured on M6 |
//! | sums over axes | [`sum`], [`mean`]: exact, rounded once | measured on M2 and five other chips |
//! | activations | [`activation()`]: 33 points, linear between them | tables decoded from programs for H16; errors measured on M6 |
//!
//! Numbers are fp16 bits. What no source has measured is not in here: softmax and norms, sines, the order in which the array
//! adds (it matters for overflow alone; terms are taken in the order given), and whether several passes over the input
//! channels leave the accumulator. `data/activation-h16.toml` holds the tables and `data/family-*.toml` which generations
//! the rules are known of.
//!
//! Sources: the M6 microarchitecture study, llms-on-apple-neural-engine (M5 Pro), rustane (M3 Ultra), ironmill (M2), `ANEForge`,
//! ane-guide (M1 Max).

mod activation;
mod coverage;
mod elementwise;
mod half;
mod product;
mod table;

use serde::Deserialize;

use crate::{Chip, Fact};

pub use activation::{Activation, activation};
pub use coverage::unmodelled;
pub use elementwise::{binary, mean, sum, unary};
pub use half::{decoded, is_infinite, rounded, value};
pub use product::{Accumulator, Overflow, int8_product};

/// What is known of a generation's arithmetic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// The rules of products, element-wise ops and sums.
    pub rules: Fact<Rules>,
    /// The tables of activations.
    pub tables: Fact<Tables>,
}

/// Rules of products, element-wise ops and sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// Those of this module.
    Known,
    /// Not known well enough to compute with.
    Unknown,
}

/// Tables of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// Those of the M4 generation.
    H16,
    /// Not known.
    Unknown,
}

/// A chip's arithmetic is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the arithmetic of {chip} is not known ({why}), one of {} was expected", known().collect::<Vec<_>>().join(", "))]
pub struct UnknownArithmetic {
    /// The chip.
    pub chip: String,
    /// What stands against the rules.
    pub why: String,
}

/// The chips whose arithmetic is known.
fn known() -> impl Iterator<Item = &'static str> {
    Chip::all().iter().filter(|c| *c.arithmetic.rules == Rules::Known).map(|c| c.name.as_str())
}

impl Chip {
    /// The tables of a chip whose arithmetic is known.
    ///
    /// # Errors
    /// [`UnknownArithmetic`].
    pub fn known_tables(&self) -> Result<Tables, UnknownArithmetic> {
        match *self.arithmetic.rules {
            Rules::Known => Ok(*self.arithmetic.tables),
            Rules::Unknown => {
                Err(UnknownArithmetic { chip: self.name.clone(), why: self.arithmetic.rules.source.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
