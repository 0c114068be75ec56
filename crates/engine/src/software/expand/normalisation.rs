//! Normalisations and activations by channel as element-wise ops and reductions.

use arcane_mil::{BuildError, Builder, Channelwise, Compare, Normalisation, Reduce, Unary, ValueId};
use arcane_tensor::DType;

use super::Expanded;

/// All but `local_response_norm`, which has a kernel.
pub(super) fn normalisation(f: &mut Builder, n: &Normalisation) -> Expanded {
    let ty = f.ty(n.x()).clone();
    let x = f.cast(n.x(), DType::F32);
    let rank = ty.shape.len();
    let last = |count: usize| (rank - count..rank).collect::<Vec<_>>();
    let result = match n {
        Normalisation::Batch { mean, variance, gamma, beta, epsilon, .. } => {
            let mean = over(f, *mean, &ty.shape, &[1])?;
            let variance = over(f, *variance, &ty.shape, &[1])?;
            let centred = f.sub(x, mean)?;
            let inverse = f.rsqrt(variance, *epsilon)?;
            let unit = f.mul(centred, inverse)?;
            affine(f, unit, [*gamma, *beta], &[1])?
        }
        Normalisation::Instance { gamma, beta, epsilon, .. } => {
            let unit = standard(f, x, &last(rank - 2), *epsilon)?;
            affine(f, unit, [*gamma, *beta], &[1])?
        }
        Normalisation::Layer { axes, gamma, beta, epsilon, .. } => {
            let unit = standard(f, x, axes, *epsilon)?;
            affine(f, unit, [*gamma, *beta], axes)?
        }
        Normalisation::L2 { epsilon, .. } => {
            let sum = f.reduce(Reduce::SumSquare, x, &last(3), true)?;
            let inverse = f.rsqrt(sum, *epsilon)?;
            f.mul(x, inverse)?
        }
        Normalisation::LocalResponse { .. } => return Ok(None),
    };
    Ok(Some(vec![f.cast(result, ty.dtype)]))
}

/// `prelu` and `softplus_parametric`.
pub(super) fn channelwise(f: &mut Builder, c: &Channelwise) -> Expanded {
    let ty = f.ty(c.x).clone();
    let x = f.cast(c.x, DType::F32);
    let alpha = over(f, c.alpha, &ty.shape, &[1])?;
    let result = if let Some(beta) = c.beta {
        let beta = over(f, beta, &ty.shape, &[1])?;
        let scaled = f.mul(x, beta)?;
        let soft = f.unary(Unary::Softplus, scaled)?;
        f.mul(soft, alpha)?
    } else {
        let zero = f.scalar(DType::F32, 0.0);
        let positive = f.compare(Compare::Greater, x, zero)?;
        let scaled = f.mul(x, alpha)?;
        f.select(positive, x, scaled)?
    };
    Ok(Some(vec![f.cast(result, ty.dtype)]))
}

/// (x − mean)/√(variance + ε) over axes.
fn standard(f: &mut Builder, x: ValueId, axes: &[usize], epsilon: f64) -> Result<ValueId, BuildError> {
    let mean = f.reduce(Reduce::Mean, x, axes, true)?;
    let centred = f.sub(x, mean)?;
    let square = f.square(centred)?;
    let variance = f.reduce(Reduce::Mean, square, axes, true)?;
    let inverse = f.rsqrt(variance, epsilon)?;
    f.mul(centred, inverse)
}

/// γ·x + β
fn affine(
    f: &mut Builder,
    x: ValueId,
    [gamma, beta]: [Option<ValueId>; 2],
    axes: &[usize],
) -> Result<ValueId, BuildError> {
    let shape = f.shape(x);
    let mut result = x;
    if let Some(gamma) = gamma {
        let gamma = over(f, gamma, &shape, axes)?;
        result = f.mul(result, gamma)?;
    }
    if let Some(beta) = beta {
        let beta = over(f, beta, &shape, axes)?;
        result = f.add(result, beta)?;
    }
    Ok(result)
}

/// A value with dimensions `axes` of a shape in fp32, as it broadcasts to the shape.
fn over(f: &mut Builder, v: ValueId, shape: &[usize], axes: &[usize]) -> Result<ValueId, BuildError> {
    let v = f.cast(v, DType::F32);
    let own: Vec<usize> = (0..shape.len()).map(|i| if axes.contains(&i) { shape[i] } else { 1 }).collect();
    f.reshape(v, &own)
}
