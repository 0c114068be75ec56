//! Ops that treat each element by itself.

use arcane_tensor::round_to;

use super::layout::broadcast_offsets;
use super::{Value, ValueError, wrap};
use crate::{Binary, Compare, Logical, TensorType, Unary};

pub(super) fn unary(kind: Unary, x: &Value) -> Vec<f64> {
    let dtype = x.ty.dtype;
    let f = |x: f64| match kind {
        Unary::Identity => x,
        Unary::Abs if dtype.is_int() => wrap(dtype, (x as i128).abs()),
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign if x == 0.0 => 0.0,
        Unary::Sign => f64::NAN,
        Unary::Square if dtype.is_int() => wrap(dtype, x as i128 * x as i128),
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt { epsilon } => 1.0 / (x + round_to(dtype, epsilon)).sqrt(),
        Unary::Exp => x.exp(),
        Unary::Log { epsilon } => (x + round_to(dtype, epsilon)).ln(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Silu => x / (1.0 + (-x).exp()),
    };
    x.data.iter().map(|&x| f(x)).collect()
}

pub(super) fn binary(kind: Binary, x: &Value, y: &Value, ty: &TensorType) -> Result<Vec<f64>, ValueError> {
    pairs(x, y, ty)
        .into_iter()
        .map(|(x, y)| if ty.dtype.is_int() { integer(kind, x, y, ty) } else { Ok(float(kind, x, y)) })
        .collect()
}

fn float(kind: Binary, x: f64, y: f64) -> f64 {
    match kind {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::RealDiv => x / y,
        Binary::Maximum => larger(x, y),
        Binary::Minimum => smaller(x, y),
    }
}

fn integer(kind: Binary, x: f64, y: f64, ty: &TensorType) -> Result<f64, ValueError> {
    let (x, y) = (x as i128, y as i128);
    let exact = match kind {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::RealDiv => x.checked_div(y).ok_or(ValueError::DivisionByZero)?,
        Binary::Maximum => x.max(y),
        Binary::Minimum => x.min(y),
    };
    Ok(wrap(ty.dtype, exact))
}

/// The larger of two, NaN if either is.
pub(super) fn larger(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) }
}

/// The smaller of two, NaN if either is.
pub(super) fn smaller(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.min(y) }
}

pub(super) fn compare(kind: Compare, x: &Value, y: &Value, ty: &TensorType) -> Vec<f64> {
    let holds = |(x, y): (f64, f64)| match kind {
        Compare::Equal => x == y,
        Compare::NotEqual => x != y,
        Compare::Less => x < y,
        Compare::LessEqual => x <= y,
        Compare::Greater => x > y,
        Compare::GreaterEqual => x >= y,
    };
    pairs(x, y, ty).into_iter().map(|pair| f64::from(u8::from(holds(pair)))).collect()
}

pub(super) fn logical(kind: Logical, x: &Value, y: &Value, ty: &TensorType) -> Vec<f64> {
    let holds = |x: bool, y: bool| match kind {
        Logical::And => x && y,
        Logical::Or => x || y,
    };
    pairs(x, y, ty).into_iter().map(|(x, y)| f64::from(u8::from(holds(x != 0.0, y != 0.0)))).collect()
}

pub(super) fn select(cond: &Value, a: &Value, b: &Value, ty: &TensorType) -> Vec<f64> {
    let taken = |v: &Value| broadcast_offsets(&v.ty.shape, &ty.shape);
    let sources = taken(cond).into_iter().zip(taken(a)).zip(taken(b));
    sources.map(|((c, i), j)| if cond.data[c] == 0.0 { b.data[j] } else { a.data[i] }).collect()
}

fn pairs(x: &Value, y: &Value, ty: &TensorType) -> Vec<(f64, f64)> {
    let of = |v: &Value| broadcast_offsets(&v.ty.shape, &ty.shape);
    of(x).into_iter().zip(of(y)).map(|(i, j)| (x.data[i], y.data[j])).collect()
}
