//! The element loops of chains: one step over consecutive elements, one reduction of a row.

use arcane_mil::{Binary, Compare, Logical, Reduce, Unary};
use half::f16;

use super::Lookup;
use super::fused::Step;
use super::math::{
    exp, extreme, maximum, minimum, round_f16, round_f16_away, round_f16_away_wide, sigmoid, sign, sum,
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
            Unary::Exp => map1(a, to, n, exp),
            Unary::Log { epsilon } => {
                let epsilon = epsilon as f32;
                map1(a, to, n, |x| (x + epsilon).ln());
            }
            Unary::Sigmoid => map1(a, to, n, sigmoid),
            Unary::Silu => map1(a, to, n, |x| x * sigmoid(x)),
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
                Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::LogSumExp => v,
            };
        }
    };
    match kind {
        Reduce::Sum | Reduce::LogSumExp => sum(values, |x| x) as f32,
        Reduce::Mean => (sum(values, |x| x) / cols as f64) as f32,
        Reduce::SumSquare => sum(values, |x| x * x) as f32,
        Reduce::Max => extreme(values, f32::NEG_INFINITY, maximum),
        Reduce::Min => extreme(values, f32::INFINITY, minimum),
    }
}
