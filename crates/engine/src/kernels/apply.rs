//! The element loops of chains: one step over consecutive elements, one reduction of a row.

use arcane_mil::{Binary, Compare, Logical, Reduce, Unary};

use super::fused::Step;
use super::math::{exp, extreme, maximum, minimum, round_f16, sigmoid, sign, sum};

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

/// Runs one step over n elements.
///
/// # Safety
/// The sources and `to` must hold n elements, `to` apart from the sources or the same element for element.
#[inline(always)]
pub(super) unsafe fn apply(step: Step, [a, b, c]: [Source; 3], to: *mut f32, n: usize, round: bool) {
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
        }
        if round {
            for i in 0..n {
                *to.add(i) = round_f16(*to.add(i));
            }
        }
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
