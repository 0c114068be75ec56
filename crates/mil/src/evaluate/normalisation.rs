//! Normalisations and activations by channel.

use super::Value;
use super::activation::softplus;
use super::layout::{broadcast_offsets, offsets, strides};
use crate::{ChannelActivation, Channelwise, Normalisation, ValueId};

pub(super) fn normalisation<'a>(n: &Normalisation, get: impl Fn(ValueId) -> &'a Value) -> Vec<f64> {
    let x = get(n.x());
    let rank = x.ty.shape.len();
    match n {
        Normalisation::Batch { mean, variance, gamma, beta, epsilon, .. } => {
            let (mean, variance) = (over(x, get(*mean), &[1]), over(x, get(*variance), &[1]));
            let unit =
                mean.iter().zip(variance).zip(&x.data).map(|((m, v), x)| (x - m) / (v + epsilon).sqrt());
            affine(x, unit.collect(), gamma.map(&get), beta.map(&get), &[1])
        }
        Normalisation::Instance { gamma, beta, epsilon, .. } => {
            let axes: Vec<usize> = (2..rank).collect();
            affine(x, standard(x, &axes, *epsilon), gamma.map(&get), beta.map(&get), &[1])
        }
        Normalisation::Layer { axes, gamma, beta, epsilon, .. } => {
            affine(x, standard(x, axes, *epsilon), gamma.map(&get), beta.map(&get), axes)
        }
        Normalisation::L2 { epsilon, .. } => {
            let axes: Vec<usize> = (rank - 3..rank).collect();
            by_group(x, &axes, |group| {
                let square: f64 = group.iter().map(|x| x * x).sum();
                group.iter().map(|x| x / (square + epsilon).sqrt()).collect()
            })
        }
        Normalisation::LocalResponse { size, alpha, beta, k, .. } => by_group(x, &[1], |channels| {
            let around = |i: usize| {
                let first = i.saturating_sub(size / 2);
                let end = (i + size - size / 2).min(channels.len());
                channels[first..end].iter().map(|x| x * x).sum::<f64>()
            };
            let one = |(i, x): (usize, &f64)| x / (k + alpha / *size as f64 * around(i)).powf(*beta);
            channels.iter().enumerate().map(one).collect()
        }),
    }
}

pub(super) fn channelwise<'a>(c: &Channelwise, get: impl Fn(ValueId) -> &'a Value) -> Vec<f64> {
    let x = get(c.x);
    let alpha = over(x, get(c.alpha), &[1]);
    let pairs = x.data.iter().zip(alpha);
    match (c.kind, c.beta) {
        (ChannelActivation::Softplus, Some(beta)) => {
            let beta = over(x, get(beta), &[1]);
            pairs.zip(beta).map(|((x, alpha), beta)| alpha * softplus(beta * x)).collect()
        }
        _ => pairs.map(|(&x, alpha)| if x > 0.0 { x } else { alpha * x }).collect(),
    }
}

/// For each element of x the element of `v` whose dimensions are x's `axes`.
fn over(x: &Value, v: &Value, axes: &[usize]) -> Vec<f64> {
    let shape: Vec<usize> =
        (0..x.ty.shape.len()).map(|i| if axes.contains(&i) { x.ty.shape[i] } else { 1 }).collect();
    broadcast_offsets(&shape, &x.ty.shape).into_iter().map(|o| v.data[o]).collect()
}

fn affine(
    x: &Value,
    unit: Vec<f64>,
    gamma: Option<&Value>,
    beta: Option<&Value>,
    axes: &[usize],
) -> Vec<f64> {
    let gamma = gamma.map_or_else(|| vec![1.0; unit.len()], |g| over(x, g, axes));
    let beta = beta.map_or_else(|| vec![0.0; unit.len()], |b| over(x, b, axes));
    unit.into_iter().zip(gamma).zip(beta).map(|((u, g), b)| g * u + b).collect()
}

/// (x − mean)/√(variance + ε) over axes.
fn standard(x: &Value, axes: &[usize], epsilon: f64) -> Vec<f64> {
    by_group(x, axes, |group| {
        let n = group.len() as f64;
        let mean = group.iter().sum::<f64>() / n;
        let variance = group.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        group.iter().map(|x| (x - mean) / (variance + epsilon).sqrt()).collect()
    })
}

/// Each group of the elements that differ in `axes` only, replaced.
fn by_group(x: &Value, axes: &[usize], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let all = strides(&x.ty.shape);
    let along = |chosen: bool| {
        let axes = (0..all.len()).filter(|i| axes.contains(i) == chosen);
        let (lengths, steps): (Vec<usize>, Vec<usize>) = axes.map(|i| (x.ty.shape[i], all[i])).unzip();
        offsets(&lengths, &steps)
    };
    let group = along(true);
    let mut result = vec![0.0; x.data.len()];
    for start in along(false) {
        let elements: Vec<f64> = group.iter().map(|o| x.data[start + o]).collect();
        for (o, value) in group.iter().zip(f(&elements)) {
            result[start + o] = value;
        }
    }
    result
}
