//! Matrix products and attention.

use super::layout::{broadcast_offsets, strides};
use super::reduction::softmax_row;
use super::{Value, wrap};
use crate::TensorType;

/// A matrix inside a value: its first element and the steps from row to row and column to column.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    value: &'a Value,
    start: usize,
    row: usize,
    col: usize,
}

impl Matrix<'_> {
    fn at(&self, row: usize, col: usize) -> f64 {
        self.value.data[self.start + row * self.row + col * self.col]
    }
}

/// Σ over i of x(row, i)·y(i, col): floats in `f64`, integers exactly and then wrapped. `i128` holds 2^23 products of values
/// below 2^52, and wrapping its sum as well leaves the low bits right for any number of them.
fn dot(x: Matrix, row: usize, y: Matrix, col: usize, inner: usize) -> f64 {
    let dtype = x.value.ty.dtype;
    let pairs = (0..inner).map(|i| (x.at(row, i), y.at(i, col)));
    if dtype.is_int() {
        wrap(dtype, pairs.fold(0i128, |sum, (x, y)| sum.wrapping_add(x as i128 * y as i128)))
    } else {
        pairs.map(|(x, y)| x * y).sum()
    }
}

pub(super) fn matmul(
    x: &Value,
    y: &Value,
    transpose_x: bool,
    transpose_y: bool,
    ty: &TensorType,
) -> Vec<f64> {
    let (batch, last) = ty.shape.split_at(ty.shape.len() - 2);
    let (rows, cols) = (last[0], last[1]);
    let x_shape = &x.ty.shape[x.ty.shape.len() - 2..];
    let inner = if transpose_x { x_shape[0] } else { x_shape[1] };
    let mut result = Vec::with_capacity(ty.len());
    for (x, y) in matrices(x, transpose_x, batch).into_iter().zip(matrices(y, transpose_y, batch)) {
        for row in 0..rows {
            result.extend((0..cols).map(|col| dot(x, row, y, col, inner)));
        }
    }
    result
}

/// Σ over w of x[n, c, h, w]·y[n, w, h, u], n being all dimensions before the last three.
pub(super) fn einsum([x, y]: [&Value; 2], ty: &TensorType) -> Vec<f64> {
    let rank = ty.shape.len();
    let inner = x.ty.shape[rank - 1];
    let (x_strides, y_strides) = (strides(&x.ty.shape), strides(&y.ty.shape));
    let step = |v: &Value, strides: &[usize], i: usize| if v.ty.shape[i] == 1 { 0 } else { strides[i] };
    let element = |at: usize| {
        let (mut rest, mut left, mut right) = (at, 0, 0);
        for i in (0..rank).rev() {
            let coordinate = rest % ty.shape[i];
            rest /= ty.shape[i];
            // The last dimension is u, and the one before h is c.
            if i != rank - 1 {
                left += coordinate * step(x, &x_strides, i);
            }
            if i != rank - 3 {
                right += coordinate * step(y, &y_strides, i);
            }
        }
        let x = Matrix { value: x, start: left, row: 0, col: 1 };
        let y = Matrix { value: y, start: right, row: y_strides[rank - 3], col: 0 };
        dot(x, 0, y, 0, inner)
    };
    (0..ty.len()).map(element).collect()
}

/// The matrix of the last two dimensions for each coordinate of the result's batch dimensions.
fn matrices<'a>(value: &'a Value, transposed: bool, batch: &[usize]) -> Vec<Matrix<'a>> {
    let (own_batch, last) = value.ty.shape.split_at(value.ty.shape.len() - 2);
    let (row, col) = if transposed { (1, last[1]) } else { (last[1], 1) };
    let size = last[0] * last[1];
    let starts = broadcast_offsets(own_batch, batch);
    starts.into_iter().map(|o| Matrix { value, start: o * size, row, col }).collect()
}

pub(super) fn linear(x: &Value, weight: &Value, bias: Option<&Value>) -> Vec<f64> {
    let (outputs, inner) = (weight.ty.shape[0], weight.ty.shape[1]);
    let rows: usize = x.ty.shape[..x.ty.shape.len() - 1].iter().product();
    let left = Matrix { value: x, start: 0, row: inner, col: 1 };
    let right = Matrix { value: weight, start: 0, row: 1, col: inner };
    let dtype = x.ty.dtype;
    let element = |row: usize, out: usize| {
        let product = dot(left, row, right, out, inner);
        match bias.map(|b| b.data[out]) {
            None => product,
            Some(bias) if dtype.is_int() => wrap(dtype, product as i128 + bias as i128),
            Some(bias) => product + bias,
        }
    };
    (0..rows).flat_map(|row| (0..outputs).map(move |out| (row, out))).map(|(r, o)| element(r, o)).collect()
}

/// All of attention in `f64`, rounded by the caller once.
pub(super) fn attention(query: &Value, key: &Value, value: &Value, mask: Option<&Value>) -> Vec<f64> {
    let rank = query.ty.shape.len();
    let batch = &query.ty.shape[..rank - 2];
    let (rows, width) = (query.ty.shape[rank - 2], query.ty.shape[rank - 1]);
    let (length, out) = (key.ty.shape[rank - 2], value.ty.shape[rank - 1]);
    let score_shape = [batch, &[rows, length]].concat();
    let masks = mask.map(|m| (m, broadcast_offsets(&m.ty.shape, &score_shape)));
    let score_strides = strides(&score_shape);
    let scale = 1.0 / (width as f64).sqrt();

    let queries = matrices(query, false, batch);
    let keys = matrices(key, true, batch);
    let values = matrices(value, false, batch);
    let mut result = Vec::new();
    for (b, ((q, k), v)) in queries.into_iter().zip(keys).zip(values).enumerate() {
        for row in 0..rows {
            let first = (b * rows + row) * score_strides[rank - 2];
            let mut scores: Vec<f64> = (0..length).map(|col| dot(q, row, k, col, width) * scale).collect();
            if let Some((mask, at)) = &masks {
                for (score, &o) in scores.iter_mut().zip(&at[first..]) {
                    *score = masked(*score, mask, o);
                }
            }
            softmax_row(&mut scores);
            result.extend(
                (0..out).map(|col| scores.iter().enumerate().map(|(s, p)| p * v.at(s, col)).sum::<f64>()),
            );
        }
    }
    result
}

fn masked(score: f64, mask: &Value, at: usize) -> f64 {
    if mask.ty.dtype.is_float() {
        score + mask.data[at]
    } else if mask.data[at] != 0.0 {
        score
    } else {
        f64::NEG_INFINITY
    }
}
