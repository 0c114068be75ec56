//! Element-wise ops and sums. Everything is computed wide and rounded once, half away from zero.

use arcane_mil::{Binary, Gelu, Unary};

use super::Tables;
use super::activation::{Activation, activation, reciprocal};
use super::half::{rounded, value};

/// An op of two fp16 numbers.
///
/// A quotient is the product with a tabulated reciprocal (ironmill, M2: the error of a true division is three times less).
/// `None` if it needs tables that are not known, or is not modelled.
pub fn binary(tables: Tables, kind: Binary, x: u16, y: u16) -> Option<u16> {
    let (a, b) = (value(x), value(y));
    Some(rounded(match kind {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::RealDiv => match tables {
            Tables::H16 => a * value(reciprocal(y)),
            Tables::Unknown => return None,
        },
        Binary::FloorDiv | Binary::Mod | Binary::Pow => return None,
    }))
}

/// An op of one fp16 number; `None` if it needs tables that are not known, or is not modelled.
pub fn unary(tables: Tables, kind: Unary, x: u16) -> Option<u16> {
    let a = value(x);
    let function = match kind {
        Unary::Identity => return Some(x),
        Unary::Abs => return Some(rounded(a.abs())),
        Unary::Sign => return Some(rounded(if a == 0.0 { 0.0 } else { a.signum() })),
        Unary::Square => return Some(rounded(a * a)),
        Unary::Sqrt => Activation::Sqrt,
        Unary::Rsqrt { epsilon } => Activation::Rsqrt { epsilon },
        Unary::Inverse { epsilon } => Activation::Inverse { epsilon },
        Unary::Exp => Activation::Exp,
        Unary::Exp2 => Activation::Exp2,
        Unary::Erf => Activation::Erf,
        Unary::Tanh => Activation::Tanh,
        Unary::Gelu(Gelu::Exact | Gelu::Tanh) => Activation::Gelu,
        Unary::Log { epsilon } => Activation::Log { epsilon },
        Unary::Sigmoid => Activation::Sigmoid,
        Unary::Silu => Activation::Silu,
        _ => return None,
    };
    match tables {
        Tables::H16 => Some(activation(function, x)),
        Tables::Unknown => None,
    }
}

/// The sum of fp16 numbers: exact, rounded once. (`ANEForge`: integers up to 2048 are exact and 2049 is 2050.)
pub fn sum(values: impl IntoIterator<Item = u16>) -> u16 {
    rounded(wide_sum(values).0)
}

/// The mean of fp16 numbers: their exact sum by their number, rounded once. Of no numbers it is 0.
pub fn mean(values: impl IntoIterator<Item = u16>) -> u16 {
    let (sum, count) = wide_sum(values);
    rounded(sum / count as f64)
}

/// The sum in units of the smallest fp16 number, which an i128 holds for any array in memory; infinities are kept apart.
fn wide_sum(values: impl IntoIterator<Item = u16>) -> (f64, usize) {
    let (mut finite, mut infinite, mut count) = (0i128, 0.0, 0);
    for bits in values {
        let x = value(bits);
        if x.is_infinite() {
            infinite += x;
        } else {
            finite += (x * 2f64.powi(24)) as i128;
        }
        count += 1;
    }
    (finite as f64 * 2f64.powi(-24) + infinite, count)
}
