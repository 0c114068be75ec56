//! Ops without a kernel, rewritten as ops that have one. What is left of an op after this has a kernel, or is refused.
//!
//! An expansion keeps the rounding of the op's declared type: it computes in fp32 and casts to fp16 once, at the op's result.
//! Moves and reshapes do not round, so they stay in the op's own type.

mod convolution;
mod einsum;
mod normalisation;

use std::borrow::Cow;

use arcane_mil::{BuildError, Builder, Function, Normalisation, Op, Rewriter, ValueId};

/// What an expansion gives: the values that stand for the op's results, or `None` if the op is left as it is.
type Expanded = Result<Option<Vec<ValueId>>, BuildError>;

/// The function with every op that has an expansion in its expanded form. Ports stay.
///
/// # Panics
/// If an expansion makes an ill-typed op: a bug of it.
pub(super) fn expand(function: &Function) -> Cow<'_, Function> {
    if !function.operations().iter().any(|o| has_expansion(function, &o.op)) {
        return Cow::Borrowed(function);
    }
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    for operation in function.operations() {
        let op = operation.op.map_operands(|v| rewriter.get(v));
        let first = &function.value(operation.results[0]).path;
        let expanded = rewriter.builder.scope(first, |f| expansion(f, &op));
        match expanded.unwrap_or_else(|e| panic!("an expansion made an ill-typed op: {e}")) {
            None => rewriter.copy(operation),
            Some(values) => {
                for (&old, new) in operation.results.iter().zip(values) {
                    rewriter.builder.set_path(new, function.value(old).path.clone());
                    rewriter.set(old, new);
                }
            }
        }
    }
    Cow::Owned(rewriter.finish())
}

/// Whether `expansion` has something to do for an op.
fn has_expansion(function: &Function, op: &Op) -> bool {
    match op {
        Op::Convolution(c) => !super::fuse::is_row_product(function, c),
        Op::Einsum(_) | Op::Channelwise(_) => true,
        Op::Normalisation(n) => !matches!(n, Normalisation::LocalResponse { .. }),
        _ => false,
    }
}

fn expansion(f: &mut Builder, op: &Op) -> Expanded {
    match op {
        Op::Convolution(c) => convolution::convolution(f, c),
        Op::Einsum(e) => einsum::einsum(f, e),
        Op::Channelwise(c) => normalisation::channelwise(f, c),
        Op::Normalisation(n) => normalisation::normalisation(f, n),
        _ => Ok(None),
    }
}
