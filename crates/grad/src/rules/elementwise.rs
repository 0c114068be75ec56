//! Element-wise ops: each slope in terms of the operand x or of the result y, whichever is cheaper.

use arcane_mil::{Binary, BuildError, Builder, Compare, Gelu, Unary, ValueId};

use super::select;
use crate::adjoint::Adjoints;
use crate::broadcast::reduce_to;

pub(super) fn unary(a: &mut Adjoints<'_>, kind: Unary, x: ValueId, y: ValueId) -> Result<(), BuildError> {
    let g = a.of(y);
    a.give(x, |f| match kind {
        Unary::Identity => Ok(g),
        Unary::Exp => f.mul(g, y),
        Unary::Square => {
            let slope = f.scale(x, 2.0)?;
            f.mul(slope, g)
        }
        Unary::Sqrt => {
            let half = f.scale(g, 0.5)?;
            f.real_div(half, y)
        }
        Unary::Log { epsilon } => {
            let shifted = shift(f, x, epsilon)?;
            f.real_div(g, shifted)
        }
        Unary::Sigmoid => {
            let (left, right) = (f.mul(g, y)?, one_minus(f, y)?);
            f.mul(left, right)
        }
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Not => {
            Ok(f.scalar(f.ty(g).dtype, 0.0))
        }
        Unary::LinearActivation { alpha, .. } => f.scale(g, alpha),
        _ => {
            if let Some(pieces) = bounds(kind) {
                return pieces.give(f, x, y, g);
            }
            let slope = slope(f, kind, x, y)?;
            f.mul(slope, g)
        }
    })
}

/// A function that is linear in pieces: its slope inside of bounds on its operand or its result, and outside of them.
struct Pieces {
    /// Of the operand.
    conditions: Vec<(Compare, f64)>,
    /// Of the result.
    below: Option<f64>,
    inside: f64,
    outside: f64,
}

impl Pieces {
    fn give(&self, f: &mut Builder, x: ValueId, y: ValueId, g: ValueId) -> Result<ValueId, BuildError> {
        let mut found = f.scale(g, self.inside)?;
        let other = f.scale(g, self.outside)?;
        for &(order, bound) in &self.conditions {
            let bound = f.scalar(f.ty(x).dtype, bound);
            let holds = f.compare(order, x, bound)?;
            found = f.select(holds, found, other)?;
        }
        if let Some(limit) = self.below {
            let dtype = f.ty(y).dtype;
            let (limit, zero) = (f.scalar(dtype, limit), f.scalar(dtype, 0.0));
            let holds = f.compare(Compare::Less, y, limit)?;
            found = f.select(holds, found, zero)?;
        }
        Ok(found)
    }
}

fn bounds(kind: Unary) -> Option<Pieces> {
    use Compare::{Greater, GreaterEqual, Less, LessEqual};
    let pieces = |conditions: &[(Compare, f64)], inside, outside| {
        Some(Pieces { conditions: conditions.to_vec(), below: None, inside, outside })
    };
    match kind {
        Unary::Clip { alpha, beta } => pieces(&[(GreaterEqual, alpha), (LessEqual, beta)], 1.0, 0.0),
        Unary::Threshold { alpha } | Unary::ThresholdedRelu { alpha } => {
            pieces(&[(GreaterEqual, alpha)], 1.0, 0.0)
        }
        Unary::Relu => pieces(&[(Greater, 0.0)], 1.0, 0.0),
        Unary::Relu6 => pieces(&[(Greater, 0.0), (Less, 6.0)], 1.0, 0.0),
        Unary::LeakyRelu { alpha } => pieces(&[(GreaterEqual, 0.0)], 1.0, alpha),
        Unary::ClampedRelu { alpha, beta } => {
            let leaky = pieces(&[(GreaterEqual, 0.0)], 1.0, alpha)?;
            Some(Pieces { below: Some(beta), ..leaky })
        }
        _ => None,
    }
}

/// dy/dx of a smooth op.
fn slope(f: &mut Builder, kind: Unary, x: ValueId, y: ValueId) -> Result<ValueId, BuildError> {
    let dtype = f.ty(x).dtype;
    match kind {
        Unary::Abs => f.unary(Unary::Sign, x),
        Unary::Rsqrt { .. } => {
            let (half, square) = (f.scale(y, -0.5)?, f.square(y)?);
            f.mul(half, square)
        }
        Unary::Inverse { .. } => {
            let square = f.square(y)?;
            f.neg(square)
        }
        Unary::Exp2 => f.scale(y, std::f64::consts::LN_2),
        Unary::Erf => {
            let bell = bell(f, x, 1.0)?;
            f.scale(bell, std::f64::consts::FRAC_2_SQRT_PI)
        }
        Unary::Sin => f.unary(Unary::Cos, x),
        Unary::Cos => {
            let sin = f.unary(Unary::Sin, x)?;
            f.neg(sin)
        }
        Unary::Sinh => f.unary(Unary::Cosh, x),
        Unary::Cosh => f.unary(Unary::Sinh, x),
        Unary::Tan => {
            let square = f.square(y)?;
            shift(f, square, 1.0)
        }
        Unary::Tanh => {
            let square = f.square(y)?;
            one_minus(f, square)
        }
        Unary::Asin | Unary::Acos => {
            let square = f.square(x)?;
            let rest = one_minus(f, square)?;
            let slope = f.rsqrt(rest, 0.0)?;
            if kind == Unary::Asin { Ok(slope) } else { f.neg(slope) }
        }
        Unary::Atan | Unary::Atanh => {
            let square = f.square(x)?;
            let rest = if kind == Unary::Atan { shift(f, square, 1.0)? } else { one_minus(f, square)? };
            f.unary(Unary::Inverse { epsilon: 0.0 }, rest)
        }
        Unary::Softplus => f.sigmoid(x),
        Unary::Softsign => {
            let size = f.abs(x)?;
            let below = shift(f, size, 1.0)?;
            let square = f.square(below)?;
            f.unary(Unary::Inverse { epsilon: 0.0 }, square)
        }
        Unary::ScaledTanh { alpha, beta } => {
            let scaled = f.scale(x, beta)?;
            let tanh = f.unary(Unary::Tanh, scaled)?;
            let square = f.square(tanh)?;
            let rest = one_minus(f, square)?;
            f.scale(rest, alpha * beta)
        }
        Unary::SigmoidHard { alpha, beta } => {
            let line = f.unary(Unary::LinearActivation { alpha, beta }, x)?;
            let (zero, one) = (f.scalar(dtype, 0.0), f.scalar(dtype, 1.0));
            let (over, under) =
                (f.compare(Compare::Greater, line, zero)?, f.compare(Compare::Less, line, one)?);
            let inside = f.logical_and(over, under)?;
            let alpha = f.scalar(dtype, alpha);
            f.select(inside, alpha, zero)
        }
        Unary::Elu { alpha } => {
            let (zero, one) = (f.scalar(dtype, 0.0), f.scalar(dtype, 1.0));
            let positive = f.compare(Compare::Greater, x, zero)?;
            let power = shift(f, y, alpha)?;
            f.select(positive, one, power)
        }
        Unary::Silu => sigmoid_unit(f, x, 1.0),
        Unary::Gelu(Gelu::Sigmoid) => sigmoid_unit(f, x, 1.702),
        Unary::Gelu(Gelu::Exact) => {
            let scaled = f.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
            let erf = f.unary(Unary::Erf, scaled)?;
            let both = shift(f, erf, 1.0)?;
            let below = f.scale(both, 0.5)?;
            let bell = bell(f, x, 0.5)?;
            let weighted = f.mul(x, bell)?;
            let density = f.scale(weighted, 1.0 / (2.0 * std::f64::consts::PI).sqrt())?;
            f.add(below, density)
        }
        // x·sigmoid(2u) with u = √(2/π)·(x + 0.044715·x³).
        Unary::Gelu(Gelu::Tanh) => {
            let factor = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            let square = f.square(x)?;
            let line =
                f.unary(Unary::LinearActivation { alpha: 0.044_715 * factor, beta: factor }, square)?;
            let inner = f.mul(x, line)?;
            let s = f.sigmoid(inner)?;
            let rest = one_minus(f, s)?;
            let steep =
                f.unary(Unary::LinearActivation { alpha: 3.0 * 0.044_715 * factor, beta: factor }, square)?;
            let weighted = f.mul(x, steep)?;
            let weighted = f.mul(weighted, rest)?;
            let sum = shift(f, weighted, 1.0)?;
            f.mul(s, sum)
        }
        other => unreachable!("{} has its rule above", other.name()),
    }
}

/// The slope of x·sigmoid(c·x): s·(1 + c·x·(1 − s)).
fn sigmoid_unit(f: &mut Builder, x: ValueId, c: f64) -> Result<ValueId, BuildError> {
    let scaled = if c == 1.0 { x } else { f.scale(x, c)? };
    let s = f.sigmoid(scaled)?;
    let rest = one_minus(f, s)?;
    let weighted = f.mul(scaled, rest)?;
    let one = f.scalar(f.ty(x).dtype, 1.0);
    let sum = f.add(one, weighted)?;
    f.mul(s, sum)
}

/// e^(−c·x²)
fn bell(f: &mut Builder, x: ValueId, c: f64) -> Result<ValueId, BuildError> {
    let square = f.square(x)?;
    let exponent = f.scale(square, -c)?;
    f.unary(Unary::Exp, exponent)
}

fn shift(f: &mut Builder, x: ValueId, c: f64) -> Result<ValueId, BuildError> {
    let c = f.scalar(f.ty(x).dtype, c);
    f.add(x, c)
}

fn one_minus(f: &mut Builder, x: ValueId) -> Result<ValueId, BuildError> {
    let one = f.scalar(f.ty(x).dtype, 1.0);
    f.sub(one, x)
}

pub(super) fn binary(
    a: &mut Adjoints<'_>,
    kind: Binary,
    x: ValueId,
    y: ValueId,
    result: ValueId,
) -> Result<(), BuildError> {
    let (g, shape) = (a.of(result), a.f.shape(result));
    match kind {
        Binary::Add => {
            a.give_reduced(x, &shape, |_| Ok(g))?;
            a.give_reduced(y, &shape, |_| Ok(g))
        }
        Binary::Sub => {
            a.give_reduced(x, &shape, |_| Ok(g))?;
            a.give(y, |f| {
                let reduced = reduce_to(f, g, &shape, &f.shape(y))?;
                f.neg(reduced)
            })
        }
        Binary::Mul => {
            a.give_reduced(x, &shape, |f| f.mul(g, y))?;
            a.give_reduced(y, &shape, |f| f.mul(g, x))
        }
        Binary::RealDiv => {
            a.give_reduced(x, &shape, |f| f.real_div(g, y))?;
            a.give_reduced(y, &shape, |f| {
                let product = f.mul(g, result)?;
                let slope = f.real_div(product, y)?;
                f.neg(slope)
            })
        }
        Binary::FloorDiv => {
            a.give_reduced(x, &shape, |f| f.scale(g, 0.0))?;
            a.give_reduced(y, &shape, |f| f.scale(g, 0.0))
        }
        Binary::Mod => {
            a.give_reduced(x, &shape, |_| Ok(g))?;
            a.give_reduced(y, &shape, |f| {
                let whole = f.binary(Binary::FloorDiv, x, y)?;
                let slope = f.neg(whole)?;
                f.mul(slope, g)
            })
        }
        Binary::Pow => {
            a.give_reduced(x, &shape, |f| {
                let less = shift(f, y, -1.0)?;
                let power = f.binary(Binary::Pow, x, less)?;
                let slope = f.mul(y, power)?;
                f.mul(slope, g)
            })?;
            a.give_reduced(y, &shape, |f| {
                let log = f.unary(Unary::Log { epsilon: 0.0 }, x)?;
                let slope = f.mul(result, log)?;
                f.mul(slope, g)
            })
        }
        Binary::Maximum | Binary::Minimum => {
            let order = if kind == Binary::Maximum { Compare::GreaterEqual } else { Compare::LessEqual };
            let is_x = a.f.compare(order, x, y)?;
            select(a, is_x, x, y, result)
        }
    }
}
