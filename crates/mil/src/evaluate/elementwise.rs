//! Ops that treat each element by itself.

use arcane_tensor::{DType, round_to};

use super::layout::broadcast_offsets;
use super::{Value, activation, wrap};
use crate::{Binary, Compare, Logical, TensorType, Unary};

pub(super) fn unary(kind: Unary, x: &Value) -> Vec<f64> {
    let dtype = x.ty.dtype;
    let integer = |x: f64| match kind {
        Unary::Abs => wrap(dtype, (x as i128).abs()),
        Unary::Square => wrap(dtype, x as i128 * x as i128),
        Unary::Exp2 => wrap(dtype, power(2, x as i128)),
        Unary::Threshold { alpha } => round_to(dtype, larger(x, alpha)),
        _ => activation::float(kind, dtype, x),
    };
    let one = |&x: &f64| if dtype.is_int() { integer(x) } else { activation::float(kind, dtype, x) };
    x.data.iter().map(one).collect()
}

pub(super) fn binary(kind: Binary, x: &Value, y: &Value, ty: &TensorType) -> Vec<f64> {
    let one = |(x, y)| if ty.dtype.is_int() { integer(kind, x, y, ty) } else { float(kind, x, y) };
    pairs(x, y, ty).into_iter().map(one).collect()
}

/// Conversion: an integer is truncated and wrapped; values beyond 64 bits saturate there first, NaN is 0.
pub(super) fn cast(x: &Value, dtype: DType) -> Vec<f64> {
    let one = |&x: &f64| if dtype.is_int() { wrap(dtype, i128::from(x as i64)) } else { x };
    x.data.iter().map(one).collect()
}

fn float(kind: Binary, x: f64, y: f64) -> f64 {
    match kind {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::RealDiv => x / y,
        Binary::FloorDiv => floor_div(x, y),
        Binary::Mod => modulo(x, y),
        Binary::Pow => x.powf(y),
        Binary::Maximum => larger(x, y),
        Binary::Minimum => smaller(x, y),
    }
}

fn integer(kind: Binary, x: f64, y: f64, ty: &TensorType) -> f64 {
    let (x, y) = (x as i128, y as i128);
    let exact = match kind {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::RealDiv => x.checked_div(y).unwrap_or(0),
        Binary::FloorDiv if y == 0 => 0,
        Binary::FloorDiv => (x - floored(x, y)) / y,
        Binary::Mod => floored(x, y),
        Binary::Pow => power(x, y),
        Binary::Maximum => x.max(y),
        Binary::Minimum => x.min(y),
    };
    wrap(ty.dtype, exact)
}

/// The remainder with the divisor's sign, 0 by 0.
fn floored(x: i128, y: i128) -> i128 {
    let rest = x.checked_rem(y).unwrap_or(0);
    if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
}

/// xʸ truncated, of which the low bits are right.
fn power(x: i128, y: i128) -> i128 {
    match (x, y) {
        (1, _) => 1,
        (-1, _) => {
            if y % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, ..0) => 0,
        // Fewer than 2^32 factors: squares of what is left.
        _ => {
            let (mut result, mut square, mut left) = (1i128, x, y);
            while left > 0 {
                if left % 2 == 1 {
                    result = result.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                left /= 2;
            }
            result
        }
    }
}

fn floor_div(x: f64, y: f64) -> f64 {
    if y == 0.0 {
        x / y
    } else if x.is_infinite() {
        f64::NAN
    } else if y.is_infinite() && x != 0.0 {
        if (x < 0.0) == (y < 0.0) { 0.0 } else { -1.0 }
    } else {
        (x / y).floor()
    }
}

fn modulo(x: f64, y: f64) -> f64 {
    let rest = x % y;
    if rest == 0.0 {
        0f64.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
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
        Logical::Xor => x != y,
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
