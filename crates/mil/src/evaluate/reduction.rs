//! Ops that combine elements along axes.

use arcane_tensor::{DType, round_to};

use super::elementwise::{larger, smaller};
use super::layout::{offsets, strides};
use super::{Value, ValueError, wrap};
use crate::Reduce;

pub(super) fn reduce(kind: Reduce, x: &Value, axes: &[usize]) -> Result<Vec<f64>, ValueError> {
    let group = along(x, |i| axes.contains(&i));
    let one = |start: usize| {
        let elements: Vec<f64> = group.iter().map(|o| x.data[start + o]).collect();
        if x.ty.dtype.is_int() { integer(kind, &elements, x) } else { float(kind, &elements) }
    };
    along(x, |i| !axes.contains(&i)).into_iter().map(one).collect()
}

/// Offsets of the coordinates of some axes, the others zero.
fn along(x: &Value, chosen: impl Fn(usize) -> bool) -> Vec<usize> {
    let all = strides(&x.ty.shape);
    let axes = (0..all.len()).filter(|&i| chosen(i));
    let (lengths, steps): (Vec<usize>, Vec<usize>) = axes.map(|i| (x.ty.shape[i], all[i])).unzip();
    offsets(&lengths, &steps)
}

fn float(kind: Reduce, elements: &[f64]) -> Result<f64, ValueError> {
    let extreme = |f: fn(f64, f64) -> f64| elements.iter().copied().reduce(f).ok_or(ValueError::Empty);
    Ok(match kind {
        Reduce::Sum => elements.iter().sum(),
        Reduce::Mean => elements.iter().sum::<f64>() / elements.len() as f64,
        Reduce::Max => extreme(larger)?,
        Reduce::Min => extreme(smaller)?,
        Reduce::Prod => elements.iter().product(),
        Reduce::SumSquare => elements.iter().map(|x| x * x).sum(),
        Reduce::L1Norm => elements.iter().map(|x| x.abs()).sum(),
        Reduce::L2Norm => elements.iter().map(|x| x * x).sum::<f64>().sqrt(),
        Reduce::LogSum => elements.iter().sum::<f64>().ln(),
        Reduce::LogSumExp => log_sum_exp(elements),
    })
}

fn integer(kind: Reduce, elements: &[f64], x: &Value) -> Result<f64, ValueError> {
    let truncated = |x: f64| round_to(DType::I64, x) as i128;
    let floats = elements;
    let mut elements = elements.iter().map(|&x| x as i128);
    let count = elements.len() as i128;
    let exact = match kind {
        Reduce::Sum => elements.sum(),
        Reduce::Mean => elements.sum::<i128>().checked_div(count).ok_or(ValueError::Empty)?,
        Reduce::Max => elements.max().ok_or(ValueError::Empty)?,
        Reduce::Min => elements.min().ok_or(ValueError::Empty)?,
        Reduce::SumSquare => {
            elements.try_fold(0i128, |sum, x| sum.checked_add(x * x)).ok_or(ValueError::Inexact)?
        }
        Reduce::Prod => elements.fold(1i128, i128::wrapping_mul),
        Reduce::L1Norm => elements.map(i128::abs).sum(),
        Reduce::L2Norm | Reduce::LogSum | Reduce::LogSumExp => truncated(float(kind, floats)?),
    };
    Ok(wrap(x.ty.dtype, exact))
}

fn log_sum_exp(elements: &[f64]) -> f64 {
    let max = elements.iter().copied().fold(f64::NEG_INFINITY, larger);
    if max.is_infinite() || max.is_nan() {
        return max;
    }
    max + elements.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

pub(super) fn softmax(x: &Value, axis: usize) -> Vec<f64> {
    let mut result = vec![0.0; x.data.len()];
    let group = along(x, |i| i == axis);
    for start in along(x, |i| i != axis) {
        let mut row: Vec<f64> = group.iter().map(|o| x.data[start + o]).collect();
        softmax_row(&mut row);
        for (o, value) in group.iter().zip(row) {
            result[start + o] = value;
        }
    }
    result
}

/// Softmax in place; NaN throughout if the largest element is infinite or NaN.
pub(super) fn softmax_row(row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, larger);
    for x in &mut *row {
        *x = (*x - max).exp();
    }
    let sum: f64 = row.iter().sum();
    for x in row {
        *x /= sum;
    }
}
