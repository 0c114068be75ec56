//! The element loops of chains: one step over consecutive elements, one reduction of a row.

use arcane_mil::{Binary, Compare, Gelu, Logical, Reduce, Unary};
use half::f16;

use super::Lookup;
use super::fused::Step;
use super::math::{
    erf, exp, extreme, gelu, maximum, minimum, round_f16, round_f16_away, round_f16_away_wide, sigmoid, sign,
    sum, tanh,
};

/// An operand in a block.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// One value an element.
    Slice(*const f32),
    /// The same value everywhere.
    Value(f32),
    /// One value a row.
    Rows(*const f32),
}

/// How a step's results become fp16, if they do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// They stay fp32.
    None,
    /// To nearest, ties to even.
    Even,
    /// To nearest, ties away from zero: the Neural Engine's way.
    Away,
}

impl Rounding {
    /// A single number.
    #[inline(always)]
    pub(super) fn of(self, x: f32) -> f32 {
        match self {
            Self::None => x,
            Self::Even => round_f16(x),
            Self::Away => round_f16_away(x),
        }
    }
}

/// Runs one step over n elements.
///
/// # Safety
/// The sources and `to` must hold n elements, `to` apart from the sources or the same element for element.
#[inline(always)]
pub(super) unsafe fn apply(step: Step, [a, b, c]: [Source; 3], to: *mut f32, n: usize, rounding: Rounding) {
    // SAFETY: the caller's pointers hold n elements.
    unsafe {
        match step {
            Step::Unary(kind) => unary(kind, a, to, n),
            Step::Truth => map1(a, to, n, |x| f32::from(u8::from(x != 0.0))),
            Step::FiniteOrZero => map1(a, to, n, |x| if x.is_infinite() { 0.0 } else { x }),
            Step::Binary(kind) => match kind {
                Binary::Add => map2(a, b, to, n, |x, y| x + y),
                Binary::Sub => map2(a, b, to, n, |x, y| x - y),
                Binary::Mul => map2(a, b, to, n, |x, y| x * y),
                Binary::RealDiv => map2(a, b, to, n, |x, y| x / y),
                Binary::FloorDiv => map2(a, b, to, n, floor_div),
                Binary::Mod => map2(a, b, to, n, modulo),
                Binary::Pow => power(a, b, to, n),
                Binary::Maximum => map2(a, b, to, n, maximum),
                Binary::Minimum => map2(a, b, to, n, minimum),
            },
            Step::Compare(kind) => {
                let truth = |b: bool| f32::from(u8::from(b));
                match kind {
                    Compare::Equal => map2(a, b, to, n, |x, y| truth(x == y)),
                    Compare::NotEqual => map2(a, b, to, n, |x, y| truth(x != y)),
                    Compare::Less => map2(a, b, to, n, |x, y| truth(x < y)),
                    Compare::LessEqual => map2(a, b, to, n, |x, y| truth(x <= y)),
                    Compare::Greater => map2(a, b, to, n, |x, y| truth(x > y)),
                    Compare::GreaterEqual => map2(a, b, to, n, |x, y| truth(x >= y)),
                }
            }
            Step::Logical(Logical::And) => map2(a, b, to, n, |x, y| x * y),
            Step::Logical(Logical::Or) => map2(a, b, to, n, maximum),
            Step::Logical(Logical::Xor) => map2(a, b, to, n, |x, y| (x - y).abs()),
            Step::Select => {
                for i in 0..n {
                    *to.add(i) = if value(a, i) == 0.0 { value(c, i) } else { value(b, i) };
                }
            }
            Step::Reduce(_) => unreachable!("reductions go to row registers"),
            Step::Lookup(_) | Step::Quotient(_) => unreachable!("tables are looked up apart"),
        }
        match rounding {
            Rounding::None => {}
            Rounding::Even => round(to, n, round_f16),
            Rounding::Away => round(to, n, round_f16_away),
        }
    }
}

#[inline(always)]
unsafe fn round(to: *mut f32, n: usize, by: impl Fn(f32) -> f32) {
    for i in 0..n {
        // SAFETY: as for `apply`.
        unsafe { *to.add(i) = by(*to.add(i)) };
    }
}

/// Looks elements up in a table by their fp16 bits; with `factor` the results are its products with what was found, rounded away
/// from zero.
///
/// # Safety
/// As for `apply`; the elements are fp16 numbers.
pub(super) unsafe fn look_up(table: &Lookup, factor: Option<Source>, x: Source, to: *mut f32, n: usize) {
    for i in 0..n {
        // SAFETY: as the caller promises; a table has an entry for all bits.
        unsafe {
            let found = table[usize::from(f16::from_f32(value(x, i)).to_bits())];
            *to.add(i) = factor.map_or(found, |f| round_f16_away(value(f, i) * found));
        }
    }
}

/// The reduction of a row in the Neural Engine's arithmetic: wide, and rounded once, squares before they are added up.
///
/// # Safety
/// The source must hold the row.
pub(super) unsafe fn reduce_row_away(kind: Reduce, source: Source, cols: usize) -> f32 {
    // SAFETY: as the caller promises.
    let values = (0..cols).map(|i| unsafe { value(source, i) });
    match kind {
        Reduce::Sum => round_f16_away_wide(values.map(f64::from).sum()),
        Reduce::Mean => round_f16_away_wide(values.map(f64::from).sum::<f64>() / cols as f64),
        Reduce::SumSquare => round_f16_away_wide(values.map(|x| f64::from(round_f16_away(x * x))).sum()),
        Reduce::Prod => round_f16_away_wide(values.map(f64::from).product()),
        Reduce::L1Norm => round_f16_away_wide(values.map(|x| f64::from(x.abs())).sum()),
        Reduce::L2Norm => {
            round_f16_away_wide(values.map(|x| f64::from(round_f16_away(x * x))).sum::<f64>().sqrt())
        }
        Reduce::LogSum => round_f16_away_wide(values.map(f64::from).sum::<f64>().ln()),
        Reduce::Max => values.fold(f32::NEG_INFINITY, maximum),
        Reduce::Min => values.fold(f32::INFINITY, minimum),
        Reduce::LogSumExp => unreachable!("it is made of other steps"),
    }
}

#[inline(always)]
unsafe fn unary(kind: Unary, a: Source, to: *mut f32, n: usize) {
    // SAFETY: as for `apply`.
    unsafe {
        match kind {
            Unary::Abs => map1(a, to, n, f32::abs),
            Unary::Identity => map1(a, to, n, |x| x),
            Unary::Sign => map1(a, to, n, sign),
            Unary::Square => map1(a, to, n, |x| x * x),
            Unary::Sqrt => map1(a, to, n, f32::sqrt),
            Unary::Rsqrt { epsilon } => {
                let epsilon = epsilon as f32;
                map1(a, to, n, |x| 1.0 / (x + epsilon).sqrt());
            }
            Unary::Inverse { epsilon } => {
                let epsilon = epsilon as f32;
                map1(a, to, n, |x| 1.0 / (x + epsilon));
            }
            Unary::Exp => map1(a, to, n, exp),
            Unary::Log { epsilon } => {
                let epsilon = epsilon as f32;
                map1(a, to, n, |x| (x + epsilon).ln());
            }
            Unary::Erf => map1(a, to, n, erf),
            Unary::Tanh => map1(a, to, n, tanh),
            Unary::Not => map1(a, to, n, |x| 1.0 - x),
            Unary::Sigmoid => map1(a, to, n, sigmoid),
            Unary::Silu => map1(a, to, n, |x| x * sigmoid(x)),
            Unary::Relu => map1(a, to, n, |x| maximum(x, 0.0)),
            Unary::Gelu(Gelu::Exact) => map1(a, to, n, gelu),
            Unary::Gelu(Gelu::Tanh) => {
                // √(2/π)
                let factor = 0.797_884_6_f32;
                map1(a, to, n, |x| x * sigmoid(2.0 * factor * (x + 0.044_715 * x * x * x)));
            }
            Unary::Gelu(Gelu::Sigmoid) => map1(a, to, n, |x| x * sigmoid(1.702 * x)),
            rare => seldom(rare, a, to, n),
        }
    }
}

/// Kinds that are not worth a copy of their loops for every instruction set and operand.
#[inline(never)]
unsafe fn seldom(kind: Unary, a: Source, to: *mut f32, n: usize) {
    let leaky = |x: f32, alpha: f32| if x >= 0.0 { x } else { alpha * x };
    // SAFETY: as for `apply`.
    unsafe {
        match kind {
            Unary::Exp2 => map1(a, to, n, f32::exp2),
            Unary::Floor => map1(a, to, n, f32::floor),
            Unary::Ceil => map1(a, to, n, f32::ceil),
            Unary::Round => map1(a, to, n, f32::round_ties_even),
            Unary::Sin => map1(a, to, n, f32::sin),
            Unary::Cos => map1(a, to, n, f32::cos),
            Unary::Tan => map1(a, to, n, f32::tan),
            Unary::Asin => map1(a, to, n, f32::asin),
            Unary::Acos => map1(a, to, n, f32::acos),
            Unary::Atan => map1(a, to, n, f32::atan),
            Unary::Atanh => map1(a, to, n, atanh),
            Unary::Sinh => map1(a, to, n, f32::sinh),
            Unary::Cosh => map1(a, to, n, f32::cosh),
            Unary::Clip { alpha, beta } => {
                map1(a, to, n, |x| minimum(maximum(x, alpha as f32), beta as f32));
            }
            Unary::Threshold { alpha } => map1(a, to, n, |x| maximum(x, alpha as f32)),
            Unary::Relu6 => map1(a, to, n, |x| minimum(maximum(x, 0.0), 6.0)),
            Unary::LeakyRelu { alpha } => map1(a, to, n, |x| leaky(x, alpha as f32)),
            Unary::ClampedRelu { alpha, beta } => {
                map1(a, to, n, |x| minimum(leaky(x, alpha as f32), beta as f32));
            }
            Unary::ThresholdedRelu { alpha } => {
                map1(a, to, n, |x| if x >= alpha as f32 { x } else { 0.0 });
            }
            Unary::Elu { alpha } => map1(a, to, n, |x| if x > 0.0 { x } else { alpha as f32 * x.exp_m1() }),
            Unary::SigmoidHard { alpha, beta } => {
                map1(a, to, n, |x| minimum(maximum(alpha as f32 * x + beta as f32, 0.0), 1.0));
            }
            Unary::ScaledTanh { alpha, beta } => map1(a, to, n, |x| alpha as f32 * tanh(beta as f32 * x)),
            Unary::Softplus => map1(a, to, n, |x| maximum(x, 0.0) + (-x.abs()).exp().ln_1p()),
            Unary::Softsign => map1(a, to, n, |x| x / (1.0 + x.abs())),
            Unary::LinearActivation { alpha, beta } => map1(a, to, n, |x| alpha as f32 * x + beta as f32),
            frequent => unreachable!("{} has a loop of its own", frequent.name()),
        }
    }
}

/// artanh x, without the cancellation of `f32::atanh` near 0.
fn atanh(x: f32) -> f32 {
    f64::from(x).atanh() as f32
}

/// ⌊x / y⌋ of the exact quotient.
fn floor_div(x: f32, y: f32) -> f32 {
    if y == 0.0 {
        x / y
    } else if x.is_infinite() {
        f32::NAN
    } else if y.is_infinite() && x != 0.0 {
        if (x < 0.0) == (y < 0.0) { 0.0 } else { -1.0 }
    } else {
        (f64::from(x) / f64::from(y)).floor() as f32
    }
}

/// The remainder with the sign of y.
fn modulo(x: f32, y: f32) -> f32 {
    let rest = x % y;
    if rest == 0.0 {
        0f32.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

/// xʸ. Squares, roots and inverses, which models write as powers, are what they are.
#[inline(never)]
unsafe fn power(a: Source, b: Source, to: *mut f32, n: usize) {
    // SAFETY: as for `apply`.
    unsafe {
        match b {
            Source::Value(2.0) => map1(a, to, n, |x| x * x),
            Source::Value(1.0) => map1(a, to, n, |x| x),
            Source::Value(3.0) => map1(a, to, n, |x| x * x * x),
            Source::Value(-1.0) => map1(a, to, n, |x| 1.0 / x),
            // √x is −0 of −0, and NaN of −∞.
            Source::Value(0.5) => {
                map1(a, to, n, |x| if x == f32::NEG_INFINITY { f32::INFINITY } else { (x + 0.0).sqrt() });
            }
            Source::Value(-0.5) => {
                map1(a, to, n, |x| if x == f32::NEG_INFINITY { 0.0 } else { 1.0 / (x + 0.0).sqrt() });
            }
            _ => map2(a, b, to, n, f32::powf),
        }
    }
}

#[inline(always)]
unsafe fn value(source: Source, i: usize) -> f32 {
    match source {
        // SAFETY: as for `apply`.
        Source::Slice(p) | Source::Rows(p) => unsafe { *p.add(i) },
        Source::Value(v) => v,
    }
}

#[inline(always)]
unsafe fn map1(a: Source, to: *mut f32, n: usize, f: impl Fn(f32) -> f32) {
    // SAFETY: as for `apply`.
    unsafe {
        match a {
            Source::Slice(p) | Source::Rows(p) => {
                for i in 0..n {
                    *to.add(i) = f(*p.add(i));
                }
            }
            Source::Value(v) => std::slice::from_raw_parts_mut(to, n).fill(f(v)),
        }
    }
}

#[inline(always)]
unsafe fn map2(a: Source, b: Source, to: *mut f32, n: usize, f: impl Fn(f32, f32) -> f32) {
    // SAFETY: as for `apply`.
    unsafe {
        match (a, b) {
            (Source::Value(x), Source::Value(y)) => std::slice::from_raw_parts_mut(to, n).fill(f(x, y)),
            (Source::Value(x), Source::Slice(q) | Source::Rows(q)) => {
                for i in 0..n {
                    *to.add(i) = f(x, *q.add(i));
                }
            }
            (Source::Slice(p) | Source::Rows(p), Source::Value(y)) => {
                for i in 0..n {
                    *to.add(i) = f(*p.add(i), y);
                }
            }
            (Source::Slice(p) | Source::Rows(p), Source::Slice(q) | Source::Rows(q)) => {
                for i in 0..n {
                    *to.add(i) = f(*p.add(i), *q.add(i));
                }
            }
        }
    }
}

/// A source in row r of a block.
///
/// # Safety
/// The row must be in the block.
#[inline(always)]
pub(super) unsafe fn at_row(source: Source, r: usize, cols: usize) -> Source {
    // SAFETY: the caller's row is in the block.
    unsafe {
        match source {
            Source::Slice(p) => Source::Slice(p.add(r * cols)),
            Source::Rows(p) => Source::Value(*p.add(r)),
            value @ Source::Value(_) => value,
        }
    }
}

/// The reduction of a row of `cols` elements.
///
/// # Safety
/// The source must hold the row.
#[inline(always)]
pub(super) unsafe fn reduce_row(kind: Reduce, source: Source, cols: usize) -> f32 {
    let values = match source {
        // SAFETY: the slice holds the row.
        Source::Slice(p) | Source::Rows(p) => unsafe { std::slice::from_raw_parts(p, cols) },
        Source::Value(v) => {
            let (x, n) = (f64::from(v), cols as f64);
            return match kind {
                Reduce::Sum => (x * n) as f32,
                Reduce::SumSquare => (x * x * n) as f32,
                Reduce::L1Norm => (x.abs() * n) as f32,
                Reduce::L2Norm => (x.abs() * n.sqrt()) as f32,
                Reduce::LogSum => (x * n).ln() as f32,
                Reduce::Prod => x.powf(n) as f32,
                Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::LogSumExp => v,
            };
        }
    };
    match kind {
        Reduce::Sum | Reduce::LogSumExp => sum(values, |x| x) as f32,
        Reduce::Mean => (sum(values, |x| x) / cols as f64) as f32,
        Reduce::SumSquare => sum(values, |x| x * x) as f32,
        Reduce::L1Norm => sum(values, f32::abs) as f32,
        Reduce::L2Norm => sum(values, |x| x * x).sqrt() as f32,
        Reduce::LogSum => sum(values, |x| x).ln() as f32,
        Reduce::Prod => values.iter().map(|&x| f64::from(x)).product::<f64>() as f32,
        Reduce::Max => extreme(values, f32::NEG_INFINITY, maximum),
        Reduce::Min => extreme(values, f32::INFINITY, minimum),
    }
}
