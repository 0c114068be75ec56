//! Recurrent networks, step by step from their definitions.

use super::Value;
use crate::ValueId;
use crate::op::recurrent::{Activation, Cell, Lstm, Recurrent, Way};

/// The elements of each result.
pub(super) fn recurrent<'a>(r: &Recurrent, get: impl Fn(ValueId) -> &'a Value) -> Vec<Vec<f64>> {
    let (x, initial_h) = (get(r.x), get(r.initial_h));
    let &[steps, batch, _] = x.ty.shape.as_slice() else { unreachable!("x has rank 3") };
    let hidden = get(r.weight_hh).ty.shape[1];
    let wide = initial_h.ty.shape[1];
    let mut sequence = vec![0.0; steps * batch * wide];
    let (mut last_h, mut last_c) = (vec![0.0; batch * wide], vec![0.0; batch * wide]);
    for direction in 0..r.directions() {
        let back = direction == 1 || r.way == Way::Reverse;
        let weights = weights(r, direction, &get);
        for b in 0..batch {
            let place = b * wide + direction * hidden;
            let mut h = initial_h.data[place..place + hidden].to_vec();
            let mut c = match &r.cell {
                Cell::Lstm(l) => get(l.initial_c).data[place..place + hidden].to_vec(),
                Cell::Rnn | Cell::Gru { .. } => Vec::new(),
            };
            for step in 0..steps {
                let time = if back { steps - 1 - step } else { step };
                let inputs = x.ty.shape[2];
                let input = &x.data[(time * batch + b) * inputs..][..inputs];
                (h, c) = advance(r, &weights, input, &h, &c);
                // One direction is in the order of processing, of two each is in the order of time.
                let row = if direction == 1 { time } else { step };
                sequence[row * batch * wide + place..][..hidden].copy_from_slice(&h);
            }
            last_h[place..place + hidden].copy_from_slice(&h);
            last_c[place..place + c.len()].copy_from_slice(&c);
        }
    }
    let sequence = if r.output_sequence { sequence } else { last_h.clone() };
    let mut results = vec![sequence, last_h];
    if matches!(r.cell, Cell::Lstm(_)) {
        results.push(last_c);
    }
    results
}

/// The constants of one direction.
struct Weights<'a> {
    ih: &'a Value,
    hh: &'a Value,
    bias: Option<&'a Value>,
    input_bias: Option<&'a Value>,
    peephole: Option<&'a Value>,
}

fn weights<'a>(r: &Recurrent, direction: usize, get: impl Fn(ValueId) -> &'a Value) -> Weights<'a> {
    let (input_bias, peephole) = match &r.cell {
        Cell::Rnn => (None, None),
        Cell::Gru { input_bias, .. } => (*input_bias, None),
        Cell::Lstm(l) => (None, l.peephole),
    };
    if let (1, Cell::Lstm(l)) = (direction, &r.cell) {
        let back = l.back.as_ref().expect("two directions have two sets of weights");
        return Weights {
            ih: get(back.weight_ih),
            hh: get(back.weight_hh),
            bias: back.bias.map(&get),
            input_bias: None,
            peephole: back.peephole.map(&get),
        };
    }
    Weights {
        ih: get(r.weight_ih),
        hh: get(r.weight_hh),
        bias: r.bias.map(&get),
        input_bias: input_bias.map(&get),
        peephole: peephole.map(&get),
    }
}

/// A row of a matrix times a vector.
fn row(matrix: &Value, k: usize, v: &[f64]) -> f64 {
    matrix.data[k * v.len()..][..v.len()].iter().zip(v).map(|(a, b)| a * b).sum()
}

/// One step: the new hidden and cell states.
fn advance(r: &Recurrent, w: &Weights<'_>, x: &[f64], h: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = h.len();
    let at = |v: Option<&Value>, k: usize| v.map_or(0.0, |v| v.data[k]);
    let sum = |gate: usize, j: usize| {
        let k = gate * n + j;
        row(w.ih, k, x) + row(w.hh, k, h) + at(w.bias, k) + at(w.input_bias, k)
    };
    match &r.cell {
        Cell::Rnn => ((0..n).map(|j| activate(r.activation, sum(0, j))).collect(), Vec::new()),
        Cell::Gru { recurrent_activation, reset_after, .. } => {
            let gate = |g: usize| -> Vec<f64> {
                (0..n).map(|j| activate(*recurrent_activation, sum(g, j))).collect()
            };
            let (reset, update) = (gate(0), gate(2));
            let kept: Vec<f64> = reset.iter().zip(h).map(|(r, h)| r * h).collect();
            let new = |j: usize| {
                let k = n + j;
                let input = row(w.ih, k, x) + at(w.input_bias, k);
                let rest = if *reset_after {
                    reset[j] * (row(w.hh, k, h) + at(w.bias, k))
                } else {
                    row(w.hh, k, &kept) + at(w.bias, k)
                };
                activate(r.activation, input + rest)
            };
            ((0..n).map(|j| (1.0 - update[j]) * new(j) + update[j] * h[j]).collect(), Vec::new())
        }
        Cell::Lstm(l) => lstm(r, l, |k| at(w.peephole, k), sum, c),
    }
}

fn lstm(
    r: &Recurrent,
    l: &Lstm,
    peephole: impl Fn(usize) -> f64,
    sum: impl Fn(usize, usize) -> f64,
    c: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let n = c.len();
    let gate =
        |g: usize, j: usize, c: f64| activate(l.recurrent_activation, sum(g, j) + peephole(g * n + j) * c);
    let cell = |j: usize| {
        let new = activate(l.cell_activation, sum(3, j));
        let c = gate(1, j, c[j]) * c[j] + gate(0, j, c[j]) * new;
        l.clip.map_or(c, |bound| c.min(bound).max(-bound))
    };
    let c: Vec<f64> = (0..n).map(cell).collect();
    let h = (0..n).map(|j| gate(2, j, c[j]) * activate(r.activation, c[j])).collect();
    (h, c)
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Tanh | Activation::ScaledTanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::HardSigmoid | Activation::SigmoidHard => (0.2 * x + 0.5).clamp(0.0, 1.0),
        Activation::Relu => x.max(0.0),
        Activation::Linear => x,
    }
}
