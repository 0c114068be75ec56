//! Normalisations and activations by channel.

use arcane_mil::{BuildError, Builder, Channelwise, Compare, Normalisation, Reduce, Unary, ValueId};

use crate::GradError;
use crate::adjoint::Adjoints;

pub(super) fn normalisation(a: &mut Adjoints<'_>, n: &Normalisation, y: ValueId) -> Result<(), GradError> {
    let shape = a.f.shape(n.x());
    let rank = shape.len();
    let spatial: Vec<usize> = (2..rank).collect();
    match n {
        Normalisation::Batch { x, mean, variance, gamma, beta, epsilon } => {
            if a.needs(*mean) || a.needs(*variance) {
                return Err(not_differentiable(a, "batch_norm", y, "mean and variance are constants"));
            }
            let g = a.full(y)?;
            let dtype = a.f.ty(*x).dtype;
            let mean = over(a.f, *mean, &shape, &[1])?;
            let mean = a.f.cast(mean, dtype);
            let variance = over(a.f, *variance, &shape, &[1])?;
            let inverse = a.f.rsqrt(variance, *epsilon)?;
            let inverse = a.f.cast(inverse, dtype);
            let centred = a.f.sub(*x, mean)?;
            let unit = a.f.mul(centred, inverse)?;
            affine(a, unit, [*gamma, *beta], g, &[1])?;
            a.give(*x, |f| {
                let g = scaled(f, g, *gamma, &shape, &[1])?;
                f.mul(g, inverse)
            })?;
        }
        Normalisation::Instance { x, gamma, beta, epsilon } => {
            standard(a, *x, &spatial, [*gamma, *beta], &[1], *epsilon, y)?;
        }
        Normalisation::Layer { x, axes, gamma, beta, epsilon } => {
            standard(a, *x, axes, [*gamma, *beta], axes, *epsilon, y)?;
        }
        // y = x·r with r = 1/√(Σx² + ε): dx = r·(g − y·Σ g·y).
        Normalisation::L2 { x, epsilon } => {
            let axes: Vec<usize> = (rank - 3..rank).collect();
            let g = a.full(y)?;
            a.give(*x, |f| {
                let sum = f.reduce(Reduce::SumSquare, *x, &axes, true)?;
                let inverse = f.rsqrt(sum, *epsilon)?;
                let weighted = f.mul(g, y)?;
                let along = f.reduce(Reduce::Sum, weighted, &axes, true)?;
                let part = f.mul(y, along)?;
                let rest = f.sub(g, part)?;
                f.mul(rest, inverse)
            })?;
        }
        Normalisation::LocalResponse { .. } => {
            return Err(not_differentiable(a, "local_response_norm", y, "its derivative is not implemented"));
        }
    }
    Ok(())
}

fn not_differentiable(a: &Adjoints<'_>, op: &'static str, y: ValueId, why: &'static str) -> GradError {
    GradError::NotDifferentiable { op, path: a.f.function().value(y).path.clone(), why }
}

/// With u = (x − mean)·r, h = γ·g and means over `axes`: dx = r·(h − mean(h) − u·mean(h·u)).
fn standard(
    a: &mut Adjoints<'_>,
    x: ValueId,
    axes: &[usize],
    scales: [Option<ValueId>; 2],
    scaled_axes: &[usize],
    epsilon: f64,
    y: ValueId,
) -> Result<(), BuildError> {
    let shape = a.f.shape(x);
    let g = a.full(y)?;
    let mean = a.f.reduce(Reduce::Mean, x, axes, true)?;
    let centred = a.f.sub(x, mean)?;
    let square = a.f.square(centred)?;
    let variance = a.f.reduce(Reduce::Mean, square, axes, true)?;
    let inverse = a.f.rsqrt(variance, epsilon)?;
    let unit = a.f.mul(centred, inverse)?;
    affine(a, unit, scales, g, scaled_axes)?;
    a.give(x, |f| {
        let h = scaled(f, g, scales[0], &shape, scaled_axes)?;
        let level = f.reduce(Reduce::Mean, h, axes, true)?;
        let weighted = f.mul(h, unit)?;
        let along = f.reduce(Reduce::Mean, weighted, axes, true)?;
        let part = f.mul(unit, along)?;
        let rest = f.sub(h, level)?;
        let rest = f.sub(rest, part)?;
        f.mul(rest, inverse)
    })
}

/// Gives to γ and β of γ·unit + β.
fn affine(
    a: &mut Adjoints<'_>,
    unit: ValueId,
    [gamma, beta]: [Option<ValueId>; 2],
    g: ValueId,
    axes: &[usize],
) -> Result<(), BuildError> {
    let rank = a.f.shape(unit).len();
    let others: Vec<usize> = (0..rank).filter(|i| !axes.contains(i)).collect();
    if let Some(gamma) = gamma {
        a.give(gamma, |f| {
            let weighted = f.mul(g, unit)?;
            let sum = f.reduce(Reduce::Sum, weighted, &others, false)?;
            Ok(f.cast(sum, f.ty(gamma).dtype))
        })?;
    }
    if let Some(beta) = beta {
        a.give(beta, |f| {
            let sum = f.reduce(Reduce::Sum, g, &others, false)?;
            Ok(f.cast(sum, f.ty(beta).dtype))
        })?;
    }
    Ok(())
}

/// γ·g
fn scaled(
    f: &mut Builder,
    g: ValueId,
    gamma: Option<ValueId>,
    shape: &[usize],
    axes: &[usize],
) -> Result<ValueId, BuildError> {
    let Some(gamma) = gamma else { return Ok(g) };
    let gamma = over(f, gamma, shape, axes)?;
    let gamma = f.cast(gamma, f.ty(g).dtype);
    f.mul(g, gamma)
}

/// A value with dimensions `axes` of a shape, as it broadcasts to the shape.
fn over(f: &mut Builder, v: ValueId, shape: &[usize], axes: &[usize]) -> Result<ValueId, BuildError> {
    let own: Vec<usize> = (0..shape.len()).map(|i| if axes.contains(&i) { shape[i] } else { 1 }).collect();
    f.reshape(v, &own)
}

pub(super) fn channelwise(a: &mut Adjoints<'_>, c: &Channelwise, y: ValueId) -> Result<(), BuildError> {
    let (g, shape) = (a.full(y)?, a.f.shape(c.x));
    let alpha = over(a.f, c.alpha, &shape, &[1])?;
    let alpha = a.f.cast(alpha, a.f.ty(c.x).dtype);
    let others: Vec<usize> = (0..shape.len()).filter(|&i| i != 1).collect();
    let total = |f: &mut Builder, v: ValueId, like: ValueId| {
        let sum = f.reduce(Reduce::Sum, v, &others, false)?;
        Ok::<_, BuildError>(f.cast(sum, f.ty(like).dtype))
    };
    if let Some(beta) = c.beta {
        let wide = over(a.f, beta, &shape, &[1])?;
        let wide = a.f.cast(wide, a.f.ty(c.x).dtype);
        let inner = a.f.mul(c.x, wide)?;
        let slope = a.f.sigmoid(inner)?;
        let weighted = a.f.mul(slope, alpha)?;
        let weighted = a.f.mul(weighted, g)?;
        a.give(c.x, |f| f.mul(weighted, wide))?;
        a.give(beta, |f| {
            let each = f.mul(weighted, c.x)?;
            total(f, each, beta)
        })?;
        a.give(c.alpha, |f| {
            let soft = f.unary(Unary::Softplus, inner)?;
            let each = f.mul(soft, g)?;
            total(f, each, c.alpha)
        })
    } else {
        let zero = a.f.scalar(a.f.ty(c.x).dtype, 0.0);
        let positive = a.f.compare(Compare::Greater, c.x, zero)?;
        a.give(c.x, |f| {
            let scaled = f.mul(g, alpha)?;
            f.select(positive, g, scaled)
        })?;
        a.give(c.alpha, |f| {
            let each = f.mul(g, c.x)?;
            let each = f.select(positive, zero, each)?;
            total(f, each, c.alpha)
        })
    }
}
