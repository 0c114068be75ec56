//! Functions that the engine looks up in tables of 33 points, and those that it makes of them. All are the M4 generation's.

use super::half::{decoded, exponent_of, rounded, value};
use super::table::{Table, h16};

/// A function with a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// tanh x
    Tanh,
    /// x / (1 + e⁻ˣ), fitted: −0.0017 at 0.
    Silu,
    /// x · Φ(x), fitted: −0.00075 at 0. Its tanh form has the same bits.
    Gelu,
    /// erf x, 1 from 2 on
    Erf,
    /// eˣ = 2^(x · log₂ e), the product rounded.
    Exp,
    /// 2ˣ
    Exp2,
    /// ln(x + ε)
    Log {
        /// ε, added with a rounding.
        epsilon: f64,
    },
    /// 1 / (x + ε)
    Inverse {
        /// ε, added with a rounding.
        epsilon: f64,
    },
    /// √x
    Sqrt,
    /// 1 / √(x + ε)
    Rsqrt {
        /// ε, added with a rounding.
        epsilon: f64,
    },
}

/// A function of an fp16 number. Tables are interpolated at full precision and the result is rounded once.
pub fn activation(function: Activation, x: u16) -> u16 {
    let (a, tables) = (value(x), h16());
    let with = |epsilon: f64| rounded(a + value(rounded(epsilon)));
    match function {
        Activation::Sigmoid => rounded(tables.sigmoid.centred(a)),
        Activation::Tanh => rounded(tables.tanh.odd(a)),
        Activation::Silu => rounded(tables.silu.centred(a)),
        Activation::Gelu => rounded(tables.gelu.centred(a)),
        Activation::Erf => erf(a),
        Activation::Exp => exp2(rounded(a * value(rounded(std::f64::consts::LOG2_E)))),
        Activation::Exp2 => exp2(x),
        Activation::Log { epsilon } => log(with(epsilon)),
        Activation::Inverse { epsilon } => reciprocal(with(epsilon)),
        Activation::Sqrt => root(&tables.sqrt, x, 1),
        Activation::Rsqrt { epsilon } => root(&tables.rsqrt, with(epsilon), -1),
    }
}

/// erf of a number: a table of step 1/16, and ±1 outside of it.
fn erf(x: f64) -> u16 {
    let y = if x.abs() < 2.0 { h16().erf.interpolated(16.0 * x.abs()) } else { 1.0 };
    rounded(y.copysign(x))
}

/// 2ˣ from a table over the fraction: 0 below −25, infinite from 16 on.
fn exp2(x: u16) -> u16 {
    let (a, table) = (value(x), &h16().exp2);
    if a < table.ends.x[0] {
        return rounded(table.ends.y[0]);
    }
    if a >= table.ends.x[1] {
        return rounded(table.ends.y[1]);
    }
    rounded(table.interpolated((a - a.floor()) * table.inverse_step) * 2f64.powi(a.floor() as i32))
}

/// ln x from the exponent and a table of log₂ over the mantissa, in three roundings. Of 0 it is −45440: log₂ gives −∞, which
/// the multiplication by ln 2 takes for −65536. Of a negative number it is 0. (ane-guide.)
fn log(x: u16) -> u16 {
    let a = value(x);
    if a < 0.0 {
        return 0;
    }
    let log2 = if a == 0.0 || a.is_infinite() {
        rounded(if a == 0.0 { f64::NEG_INFINITY } else { f64::INFINITY })
    } else {
        let (mantissa, exponent) = split(a);
        let fraction = rounded(h16().log2.interpolated((mantissa - 0.5) * 64.0));
        rounded(f64::from(exponent) + value(fraction))
    };
    rounded(decoded(log2) * value(rounded(std::f64::consts::LN_2)))
}

/// 1 / x from a table over the mantissa; the sign of zero is lost.
pub(super) fn reciprocal(x: u16) -> u16 {
    let (a, table) = (value(x), &h16().reciprocal);
    if a == 0.0 {
        return rounded(table.ends.y[0]);
    }
    if a.is_infinite() {
        return rounded(table.ends.y[1]);
    }
    let (mantissa, exponent) = split(a.abs());
    let y = table.interpolated((mantissa - 0.5) * table.inverse_step) * 2f64.powi(-exponent);
    rounded(y.copysign(a))
}

/// x^(±1/2) from a table over m in [0.5, 2) at places 16·m, with x = m·4ᵉ. Of a negative number it is 0 (ane-guide).
fn root(table: &Table, x: u16, sign: i32) -> u16 {
    let a = value(x);
    if a < 0.0 {
        return 0;
    }
    if a == 0.0 || a.is_infinite() {
        return rounded(if (a == 0.0) == (sign > 0) { 0.0 } else { f64::INFINITY });
    }
    let (mantissa, exponent) = split(a);
    let odd = exponent.rem_euclid(2);
    let m = mantissa * f64::from(1 << odd);
    rounded(table.interpolated(16.0 * m) * 2f64.powi(sign * (exponent - odd) / 2))
}

/// A positive number as a mantissa in [0.5, 1) and an exponent.
fn split(x: f64) -> (f64, i32) {
    let exponent = exponent_of(x) + 1;
    (x * 2f64.powi(-exponent), exponent)
}
