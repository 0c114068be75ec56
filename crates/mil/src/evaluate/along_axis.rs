//! Ops along one axis.

use std::cmp::Ordering;

use super::{Value, wrap};
use crate::AlongAxis;

pub(super) fn along_axis(op: &AlongAxis, x: &Value) -> Vec<Vec<f64>> {
    let axis = op.place().1;
    let length = x.ty.shape[axis];
    let inner: usize = x.ty.shape[axis + 1..].iter().product();
    let outer: usize = x.ty.shape[..axis].iter().product();
    // The results of each line of elements along the axis.
    let results = |line: &[f64]| -> Vec<Vec<f64>> {
        match op {
            AlongAxis::Extreme { largest, .. } => vec![vec![extreme(line, *largest) as f64]],
            AlongAxis::Argsort { ascending, .. } => {
                vec![order(line, *ascending).into_iter().map(|i| i as f64).collect()]
            }
            AlongAxis::TopK { k, ascending, indices, .. } => {
                let first: Vec<usize> = order(line, *ascending).into_iter().take(*k).collect();
                let values = first.iter().map(|&i| line[i]).collect();
                let found = indices.map(|_| first.iter().map(|&i| i as f64).collect());
                std::iter::once(values).chain(found).collect()
            }
            AlongAxis::CumSum { exclusive, reverse, .. } => vec![sums(x, line, *exclusive, *reverse)],
        }
    };
    let line = |o: usize, i: usize| -> Vec<f64> {
        (0..length).map(|k| x.data[(o * length + k) * inner + i]).collect()
    };
    let lines: Vec<Vec<Vec<f64>>> =
        (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| results(&line(o, i))).collect();
    let n_results = if matches!(op, AlongAxis::TopK { indices: Some(_), .. }) { 2 } else { 1 };
    let collected = |r: usize| {
        let picks = lines.first().map_or(0, |line| line[r].len());
        let at = |o: usize, k: usize, i: usize| lines[o * inner + i][r][k];
        (0..outer)
            .flat_map(|o| (0..picks).flat_map(move |k| (0..inner).map(move |i| (o, k, i))))
            .map(|(o, k, i)| at(o, k, i))
            .collect()
    };
    (0..n_results).map(collected).collect()
}

/// The index of the first NaN, or else of the first extreme element.
fn extreme(line: &[f64], largest: bool) -> usize {
    let mut best = 0;
    for (i, x) in line.iter().enumerate() {
        if line[best].is_nan() {
            break;
        }
        if x.is_nan() || if largest { *x > line[best] } else { *x < line[best] } {
            best = i;
        }
    }
    best
}

/// The indices in the order of their elements, NaN last, equal ones as they are.
fn order(line: &[f64], ascending: bool) -> Vec<usize> {
    let mut found: Vec<usize> = (0..line.len()).collect();
    found.sort_by(|&i, &j| match (line[i].is_nan(), line[j].is_nan()) {
        (false, false) => {
            let upwards = line[i].partial_cmp(&line[j]).expect("neither is NaN");
            if ascending { upwards } else { upwards.reverse() }
        }
        (a, b) => {
            if a == b {
                Ordering::Equal
            } else {
                a.cmp(&b)
            }
        }
    });
    found
}

fn sums(x: &Value, line: &[f64], exclusive: bool, reverse: bool) -> Vec<f64> {
    let add =
        |a: f64, b: f64| if x.ty.dtype.is_int() { wrap(x.ty.dtype, a as i128 + b as i128) } else { a + b };
    let mut total = 0.0;
    let mut found = vec![0.0; line.len()];
    let ascending = 0..line.len();
    let order: Vec<usize> = if reverse { ascending.rev().collect() } else { ascending.collect() };
    for i in order {
        let before = total;
        total = add(total, line[i]);
        found[i] = if exclusive { before } else { total };
    }
    found
}
