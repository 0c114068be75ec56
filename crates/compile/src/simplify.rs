//! Passes that leave out what need not be computed.
//!
//! Each pass is a function from MIL to MIL with the same interface and, unless it says otherwise, the same bits in every
//! output for every input (the payload of a NaN aside). [`arcane_mil::Builder::finish`], through which every function comes,
//! runs the verifier in debug builds.

mod common;
mod identities;
mod scatter;

use arcane_mil::{Function, Op, ValueId, remove_dead_code};

pub use common::common_subexpressions;
pub use identities::fold_identities;
pub use scatter::scatter_into;

/// A rewrite of a function.
pub type Pass = fn(&Function) -> Function;

/// The passes of [`simplify`] with their names, in order.
pub const PASSES: &[(&str, Pass)] = &[
    // First, because ops that differ only by an identity become equal.
    ("fold_identities", fold_identities),
    // Merges what differentiation and unrolled layers spell twice: zeros, numbers, masks, tables.
    ("common_subexpressions", common_subexpressions),
    // The next pass counts uses: only those that matter may count.
    ("remove_dead_code", remove_dead_code),
    ("scatter_into", scatter_into),
    // The zeros that were scattered into, and the scatters themselves.
    ("remove_dead_code", remove_dead_code),
];

/// Runs all [`PASSES`] once. A second run finds nothing more.
#[must_use]
pub fn simplify(function: &Function) -> Function {
    PASSES.iter().fold(function.clone(), |f, (_, pass)| pass(&f))
}

/// The op that defines a value; `None` for a parameter.
fn definition(f: &Function, v: ValueId) -> Option<&Op> {
    // A builder numbers values as it defines them, so the results of operations ascend.
    let i = f.operations().partition_point(|o| o.results.last().is_some_and(|&last| last < v));
    let operation = f.operations().get(i)?;
    operation.results.contains(&v).then_some(&operation.op)
}
