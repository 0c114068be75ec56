//! What is known of each chip, as data: limits, legality of ops, surfaces, price and energy, with source and confidence.
//!
//! A [`Chip`] is read from `data/<name>.toml` and the file of its family; every number there is a [`Fact`]. [`violations`]
//! lists what of a function the chip's engine would refuse or compute wrongly, [`price`] models what it would cost, and
//! [`surface`] says how its arrays lie in memory.
//!
//! Everything here is a function of its arguments and the embedded data.

mod chip;
mod constraint;
mod fact;
mod legality;

pub mod arithmetic;
pub mod price;
pub mod surface;

pub use chip::{Chip, Dialect, Energy, Family, Limits, Rates, UnknownChip};
pub use constraint::{Constraint, Severity, Violation, constraints, is_legal, op_violations, violations};
pub use fact::{Confidence, Fact};
pub use legality::{Legality, Support, legality};
