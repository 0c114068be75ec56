//! Ops without a kernel, rewritten as ops that have one. What is left of an op after this has a kernel, or is refused.
//!
//! An expansion keeps the rounding of the op's declared type: it computes in fp32 and casts to fp16 once, at the op's result.
//! Moves and reshapes do not round, so they stay in the op's own type.

mod constexpr;
mod convolution;
mod einsum;
mod movement;
mod normalisation;
mod sample;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arcane_mil::{
    BuildError, Builder, Function, Index, Make, Normalisation, Op, Operation, Rearrangement, Rewriter,
    Sample, StateOp, TensorType, ValueId,
};
use arcane_tensor::Tensor;

/// The longest dimension for which an expansion or a copy makes a table.
pub(super) const LONGEST: usize = 1 << 26;

/// What an expansion gives: the values that stand for the op's results, or `None` if the op is left as it is.
type Expanded = Result<Option<Vec<ValueId>>, BuildError>;

/// The function with every op that has an expansion in its expanded form. Ports stay.
///
/// # Panics
/// If an expansion makes an ill-typed op: a bug of it.
pub(super) fn expand(function: &Function) -> Cow<'_, Function> {
    if !function.operations().iter().any(|o| has_expansion(function, o)) {
        return Cow::Borrowed(function);
    }
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    let mut constants = HashMap::new();
    for operation in function.operations() {
        match &operation.op {
            Op::Const(tensor) => {
                rewriter.copy(operation);
                constants.insert(operation.results[0], tensor.clone());
                continue;
            }
            Op::Constexpr(_) if compressed(function, operation, &mut rewriter, &mut constants) => continue,
            // What a state holds is the value that was written last.
            Op::State(StateOp::Read { state: v } | StateOp::Write { data: v, .. }) => {
                let v = rewriter.get(*v);
                rewriter.set(operation.results[0], v);
                continue;
            }
            _ => {}
        }
        if !has_expansion(function, operation) {
            rewriter.copy(operation);
            continue;
        }
        let op = operation.op.map_operands(|v| rewriter.get(v));
        let types: Vec<&TensorType> = operation.results.iter().map(|&r| function.ty(r)).collect();
        let first = &function.value(operation.results[0]).path;
        let expanded = rewriter.builder.scope(first, |f| expansion(f, &op, &types));
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

/// Puts constants in place of an op on compressed weights, if its operands are constants that fit each other. `constants` are
/// those so far, by the old function's values.
fn compressed(
    function: &Function,
    operation: &Operation,
    rewriter: &mut Rewriter<'_>,
    constants: &mut HashMap<ValueId, Arc<Tensor>>,
) -> bool {
    let Op::Constexpr(op) = &operation.op else { return false };
    let types: Vec<TensorType> = operation.results.iter().map(|&r| function.ty(r).clone()).collect();
    let Some(tensors) = constexpr::constants(op, &types, |v| constants.get(&v).cloned()) else {
        return false;
    };
    for (&old, tensor) in operation.results.iter().zip(tensors) {
        let tensor = Arc::new(tensor);
        let path = &function.value(old).path;
        let new =
            rewriter.builder.push_at(path, Op::Const(tensor.clone())).expect("constants have a type")[0];
        rewriter.set(old, new);
        constants.insert(old, tensor);
    }
    true
}

/// Whether `expansion` has something to do for an op.
fn has_expansion(function: &Function, operation: &Operation) -> bool {
    let (op, result) = (&operation.op, operation.results[0]);
    let longest = function.ty(result).shape.iter().copied().max().unwrap_or(0);
    match op {
        Op::Convolution(c) => !super::fuse::is_row_product(function, c),
        Op::Constexpr(_)
        | Op::State(_)
        | Op::Dimensions(_)
        | Op::Join(_)
        | Op::Einsum(_)
        | Op::Channelwise(_) => true,
        // Constants are made of these; what is larger is left, and refused.
        Op::Make(m) => match m {
            Make::Shape { .. } | Make::FillLike { .. } => true,
            Make::Range { .. } | Make::OneHot { .. } => longest <= LONGEST,
        },
        Op::Rearrange(r) => {
            let plane =
                function.ty(result).shape.iter().rev().take(2).fold(1usize, |n, &d| n.saturating_mul(d));
            matches!(r.kind, Rearrangement::SpaceToBatch { .. })
                || matches!(r.kind, Rearrangement::BandPart { .. }) && plane <= LONGEST
        }
        Op::Index(i) => matches!(i, Index::GatherBatched { .. }),
        Op::Sample(s) => longest <= LONGEST && (s.grid().is_some() || matches!(s, Sample::Affine { .. })),
        Op::Normalisation(n) => !matches!(n, Normalisation::LocalResponse { .. }),
        _ => false,
    }
}

/// `types` are those of the op's results.
fn expansion(f: &mut Builder, op: &Op, types: &[&TensorType]) -> Expanded {
    match op {
        Op::Convolution(c) => convolution::convolution(f, c),
        Op::Dimensions(d) => movement::dimensions(f, d, types[0]),
        Op::Join(j) => movement::join(f, j, types[0]),
        Op::Make(m) => movement::make(f, m, types[0]),
        Op::Rearrange(r) => movement::rearrange(f, r, types[0]),
        Op::Index(i) => movement::index(f, i),
        Op::Sample(s) => sample::sample(f, s, types[0]),
        Op::Einsum(e) => einsum::einsum(f, e),
        Op::Channelwise(c) => normalisation::channelwise(f, c),
        Op::Normalisation(n) => normalisation::normalisation(f, n),
        _ => Ok(None),
    }
}
