//! Reverse-mode differentiation of MIL, as a rewrite from MIL to MIL.
//!
//! [`gradients`] appends to a function the ops that compute the derivatives of its outputs. What it appends is plain MIL:
//! it can be printed, verified, evaluated, differentiated again.
//!
//! An *adjoint* of a value is the derivative of Σ outputs·adjoints with respect to it. Inside, an adjoint may have any shape
//! that broadcasts to its value's: the adjoint of what a `reduce_sum` sums up is the sum's own, until a rule needs all of it.

mod adjoint;
mod broadcast;
mod rules;
mod spatial;

use arcane_mil::{BuildError, Builder, Op, Operation, TensorType, Unary, ValueId};

use adjoint::Adjoints;

/// Why a function cannot be differentiated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GradError {
    /// The derivative of an op on the way from a value to an output is not defined.
    #[error("{op} at `{path}` cannot be differentiated: {why}")]
    NotDifferentiable {
        /// The op's name.
        op: &'static str,
        /// The path of its first result.
        path: String,
        /// What stands in the way.
        why: &'static str,
    },
    /// The derivative of, or with respect to, a value that is not of a float type was asked for.
    #[error("`{path}` is {ty}, a float type was expected")]
    NotFloat {
        /// The value's path.
        path: String,
        /// Its type.
        ty: TensorType,
    },
    /// An output's adjoint has not the output's type.
    #[error("the adjoint of `{path}` is {found}, {expected} was expected")]
    AdjointType {
        /// The output's path.
        path: String,
        /// The output's type.
        expected: TensorType,
        /// The adjoint's type.
        found: TensorType,
    },
    /// An op of the derivative cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Appends the ops that compute the derivatives of Σ outputs·adjoints and returns one value for each of `wrt`, of its type.
///
/// `outputs` pairs each value that is differentiated with its adjoint, a value of the same type; a loss has the adjoint 1, or
/// the loss scale. A value may be of any kind on both sides: a parameter, a constant or the result of an op. A value that
/// has no influence on the outputs has a derivative of zeros. Values may occur more than once.
///
/// An op is differentiated only if it lies on a way from a value of `wrt` to an output. Comparisons, logic, `sign` and
/// whatever is not of a float type end a way: their derivative is zero. Where contributions meet they are added in the
/// reverse order of the ops that make them. Ops are named by the path of the op whose derivative they are: the derivative of
/// `layers.3.attn.q` consists of `layers.3.attn.q.grad.matmul` and so on.
///
/// # Errors
/// See [`GradError`]. The builder may then hold ops that nothing uses.
pub fn gradients(
    f: &mut Builder,
    outputs: &[(ValueId, ValueId)],
    wrt: &[ValueId],
) -> Result<Vec<ValueId>, GradError> {
    for &v in outputs.iter().map(|(output, _)| output).chain(wrt) {
        if !f.ty(v).dtype.is_float() {
            return Err(GradError::NotFloat { path: path(f, v), ty: f.ty(v).clone() });
        }
    }
    let operations = f.function().operations().to_vec();
    let on_way = depends_on(f, &operations, wrt);
    let mut found = vec![None; on_way.len()];
    for &(output, adjoint) in outputs {
        if f.ty(adjoint) != f.ty(output) {
            let (expected, found) = (f.ty(output).clone(), f.ty(adjoint).clone());
            return Err(GradError::AdjointType { path: path(f, output), expected, found });
        }
        Adjoints { f, on_way: &on_way, found: &mut found }.give(output, |_| Ok(adjoint))?;
    }
    for operation in operations.iter().rev() {
        let reached = operation.results.iter().any(|r| found[r.index()].is_some());
        if reached && operation.op.operands().iter().any(|v| on_way[v.index()]) {
            let scope = path(f, operation.results[0]) + ".grad";
            f.scope(&scope, |f| {
                rules::differentiate(&mut Adjoints { f, on_way: &on_way, found: &mut found }, operation)
            })?;
        }
    }
    wrt.iter().map(|&v| materialised(f, v, found[v.index()])).collect()
}

fn path(f: &Builder, v: ValueId) -> String {
    f.function().value(v).path.clone()
}

/// For each value whether a derivative can flow from it back to one of `wrt`.
fn depends_on(f: &Builder, operations: &[Operation], wrt: &[ValueId]) -> Vec<bool> {
    let mut depends = vec![false; f.function().values().len()];
    for v in wrt {
        depends[v.index()] = true;
    }
    for operation in operations {
        let is_flat = matches!(operation.op, Op::Unary { kind: Unary::Sign, .. });
        if is_flat || !operation.op.operands().iter().any(|v| depends[v.index()]) {
            continue;
        }
        // Integers that stand for floats: that there is no rule has to be said.
        let quantised = matches!(operation.op, Op::Quantization(_));
        for &r in &operation.results {
            depends[r.index()] |= quantised || f.ty(r).dtype.is_float();
        }
    }
    depends
}

/// The derivative with respect to `v` in v's type, from its adjoint.
fn materialised(f: &mut Builder, v: ValueId, adjoint: Option<ValueId>) -> Result<ValueId, GradError> {
    let (ty, scope) = (f.ty(v).clone(), path(f, v) + ".grad");
    f.scope(&scope, |f| match adjoint {
        Some(g) => Ok(broadcast::materialise(f, g, &ty.shape)?),
        None => Ok(f.fill(ty.dtype, &ty.shape, 0.0)),
    })
}
