//! Ops that give back an operand, and pairs of ops that are one.

use arcane_mil::{Binary, Function, Op, Rewriter, Unary, ValueId, broadcast};
use arcane_tensor::DType;

use super::definition;

/// What stands for an op.
enum Folded {
    /// A value that exists.
    Value(ValueId),
    /// Another op.
    Op(Op),
}

/// Leaves out ops that change nothing: `identity`; a factor, a divisor of 1; `x − 0` and `x + (−0)` (`x + 0` turns −0 into
/// 0 and stays); a cast, reshape, transpose, tile, split or concat to what is there. Of two reshapes, two transposes, and a
/// cast after a cast that loses nothing, one stays.
#[must_use]
pub fn fold_identities(f: &Function) -> Function {
    let mut rewriter = Rewriter::new(f);
    rewriter.copy_parameters();
    for operation in f.operations() {
        let op = operation.op.map_operands(|v| rewriter.get(v));
        match fold(rewriter.builder.function(), &op) {
            Some(Folded::Value(v)) => rewriter.set(operation.results[0], v),
            Some(Folded::Op(folded)) => rewriter.replace(operation, folded),
            None => rewriter.replace(operation, op),
        }
    }
    rewriter.finish()
}

fn fold(f: &Function, op: &Op) -> Option<Folded> {
    match op {
        Op::Unary { kind: Unary::Identity, x } => Some(Folded::Value(*x)),
        Op::Cast { x, dtype } => fold_cast(f, *x, *dtype),
        Op::Binary { kind, x, y } => {
            let keeps = |kept, other, on_right| is_neutral(f, *kind, kept, other, on_right);
            if keeps(*x, *y, true) {
                Some(Folded::Value(*x))
            } else {
                keeps(*y, *x, false).then_some(Folded::Value(*y))
            }
        }
        Op::Reshape { x, shape } => fold_reshape(f, *x, shape),
        Op::Transpose { x, perm } => fold_transpose(f, *x, perm),
        Op::Concat { values, .. } if values.len() == 1 => Some(Folded::Value(values[0])),
        Op::Split { x, sizes, .. } if sizes.len() == 1 => Some(Folded::Value(*x)),
        Op::Tile { x, reps } if reps.iter().all(|&r| r == 1) => Some(Folded::Value(*x)),
        _ => None,
    }
}

fn fold_cast(f: &Function, x: ValueId, dtype: DType) -> Option<Folded> {
    if f.ty(x).dtype == dtype {
        return Some(Folded::Value(x));
    }
    let Some(Op::Cast { x: inner, .. }) = definition(f, x) else { return None };
    let from = f.ty(*inner).dtype;
    if !loses_nothing(from, f.ty(x).dtype) {
        return None;
    }
    Some(if from == dtype { Folded::Value(*inner) } else { Folded::Op(Op::Cast { x: *inner, dtype }) })
}

/// Whether every value of `from` is one of `to`.
fn loses_nothing(from: DType, to: DType) -> bool {
    if from == to || from == DType::Bool {
        return true;
    }
    match (from.is_float(), to.is_float()) {
        (true, true) => matches!(
            (from, to),
            (DType::F16 | DType::Bf16, DType::F32 | DType::F64) | (DType::F32, DType::F64)
        ),
        (true, false) => false,
        (false, true) => magnitude_bits(from) <= significand_bits(to),
        (false, false) => {
            to != DType::Bool
                && (is_signed(to) || !is_signed(from))
                && magnitude_bits(from) <= magnitude_bits(to)
        }
    }
}

fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64)
}

/// Bits of the largest magnitude of an integer type. That of the smallest negative number is a power of two, which floats
/// hold.
fn magnitude_bits(dtype: DType) -> usize {
    8 * dtype.size() - usize::from(is_signed(dtype))
}

fn significand_bits(dtype: DType) -> usize {
    match dtype {
        DType::Bf16 => 8,
        DType::F16 => 11,
        DType::F32 => 24,
        DType::F64 => 53,
        _ => 0,
    }
}

/// Whether `kept op other` (`other op kept` if not `on_right`) is `kept`, in its type.
fn is_neutral(f: &Function, kind: Binary, kept: ValueId, other: ValueId, on_right: bool) -> bool {
    let Some(value) = number(f, other) else { return false };
    let same = |wanted: f64| value.to_bits() == wanted.to_bits();
    let neutral = match kind {
        Binary::Mul => same(1.0),
        Binary::RealDiv | Binary::Pow => on_right && same(1.0),
        Binary::Sub => on_right && same(0.0),
        Binary::Add if f.ty(kept).dtype.is_float() => same(-0.0),
        Binary::Add => same(0.0),
        Binary::FloorDiv | Binary::Mod | Binary::Maximum | Binary::Minimum => false,
    };
    let shape = &f.ty(kept).shape;
    neutral && broadcast(shape, &f.ty(other).shape).as_ref() == Some(shape)
}

/// The number that a value is everywhere.
fn number(f: &Function, v: ValueId) -> Option<f64> {
    match definition(f, v)? {
        Op::Const(t) if t.len() == 1 => Some(t.get(0)),
        Op::Fill { dtype, value, .. } => Some(arcane_tensor::round_to(*dtype, *value)),
        _ => None,
    }
}

fn fold_reshape(f: &Function, x: ValueId, shape: &[usize]) -> Option<Folded> {
    if f.ty(x).shape == shape {
        return Some(Folded::Value(x));
    }
    let Some(Op::Reshape { x: inner, .. }) = definition(f, x) else { return None };
    if f.ty(*inner).shape == shape {
        return Some(Folded::Value(*inner));
    }
    Some(Folded::Op(Op::Reshape { x: *inner, shape: shape.to_vec() }))
}

fn fold_transpose(f: &Function, x: ValueId, perm: &[usize]) -> Option<Folded> {
    if perm.is_sorted() {
        return Some(Folded::Value(x));
    }
    let Some(Op::Transpose { x: inner, perm: first }) = definition(f, x) else { return None };
    let perm: Vec<usize> = perm.iter().map(|&p| first[p]).collect();
    if perm.is_sorted() {
        return Some(Folded::Value(*inner));
    }
    Some(Folded::Op(Op::Transpose { x: *inner, perm }))
}
