//! Recurrences against steps written out by hand.

use arcane_mil::{Activation, Back, Cell, Lstm, Op, Recurrent, ValueId, Way, evaluate};
use arcane_tensor::{DType, Tensor};

use super::golden::prints_family;
use super::reading::text;
use super::refusals::refuses_text;
use super::{bound, f32s, function, tensor};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A recurrence with one hidden element over operands x, h, `weight_ih`, `weight_hh`, bias.
fn recurrent(cell: Cell, v: &[ValueId]) -> Recurrent {
    Recurrent {
        cell,
        x: v[0],
        initial_h: v[1],
        weight_ih: v[2],
        weight_hh: v[3],
        bias: Some(v[4]),
        way: Way::Forward,
        output_sequence: true,
        activation: Activation::Tanh,
    }
}

/// The results of an op of `inputs`.
fn results(inputs: &[Tensor], op: impl Fn(&[ValueId]) -> Recurrent) -> Vec<Vec<f64>> {
    let f = function(inputs, |f, v| f.push(Op::Recurrent(op(v))));
    evaluate(&f, &bound(inputs)).unwrap().into_values().map(|t| t.to_f64s()).collect()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?}, expected {expected:?}");
    }
}

const X: [f64; 3] = [0.5, -1.0, 2.0];

/// Three steps of two batches of one input; the second batch has the negative inputs.
fn steps() -> Tensor {
    f32s(&[3, 2, 1], &[0.5, -0.5, -1.0, 1.0, 2.0, -2.0])
}

fn weights(gates: usize, hidden: usize) -> [Tensor; 3] {
    let n = gates * hidden;
    let ih: Vec<f64> = (0..n).map(|i| 0.3 - 0.1 * i as f64).collect();
    let hh: Vec<f64> = (0..n * hidden).map(|i| 0.2 * i as f64 - 0.25).collect();
    let bias: Vec<f64> = (0..n).map(|i| 0.05 * i as f64).collect();
    [f32s(&[n, 1], &ih), f32s(&[n, hidden], &hh), f32s(&[n], &bias)]
}

fn operands(gates: usize) -> Vec<Tensor> {
    let [ih, hh, bias] = weights(gates, 1);
    vec![steps(), f32s(&[2, 1], &[0.25, -0.25]), ih, hh, bias]
}

#[test]
fn rnn_takes_steps_in_either_order() {
    let run = |sign: f64, back: bool| {
        let mut h = 0.25 * sign;
        let order: Vec<f64> = if back { X.into_iter().rev().collect() } else { X.to_vec() };
        let step = |x: &f64| {
            h = (0.3 * x * sign - 0.25 * h).tanh();
            h
        };
        order.iter().map(step).collect::<Vec<f64>>()
    };
    for (way, back) in [(Way::Forward, false), (Way::Reverse, true)] {
        let found = results(&operands(1), |v| Recurrent { way, ..recurrent(Cell::Rnn, v) });
        let (a, b) = (run(1.0, back), run(-1.0, back));
        close(&found[0], &[a[0], b[0], a[1], b[1], a[2], b[2]]);
        close(&found[1], &[a[2], b[2]]);
        let last =
            results(&operands(1), |v| Recurrent { way, output_sequence: false, ..recurrent(Cell::Rnn, v) });
        close(&last[0], &[a[2], b[2]]);
    }
}

#[test]
fn gru_resets_before_or_after_the_product() {
    for reset_after in [false, true] {
        let mut inputs = operands(3);
        inputs.push(f32s(&[3], &[0.1, 0.2, 0.3]));
        let gru =
            |input_bias| Cell::Gru { recurrent_activation: Activation::Sigmoid, reset_after, input_bias };
        let found = results(&inputs, |v| recurrent(gru(Some(v[5])), v));
        let mut h = 0.25;
        let mut expected = Vec::new();
        for x in X {
            let r = sigmoid(0.3 * x - 0.25 * h + 0.1);
            let z = sigmoid(0.1 * x + 0.15 * h + 0.1 + 0.3);
            let rest = if reset_after { r * (-0.05 * h + 0.05) } else { -0.05 * r * h + 0.05 };
            let o = (0.2 * x + 0.2 + rest).tanh();
            h = (1.0 - z) * o + z * h;
            expected.push(h);
        }
        let first: Vec<f64> = found[0].iter().step_by(2).copied().collect();
        close(&first, &expected);
        close(&found[1][..1], &expected[2..]);
    }
}

/// Hidden and cell states of the first batch. The parameters are those of `weights(4, 1)`.
fn lstm(h: f64, c: f64, order: &[f64], peephole: [f64; 3], clip: f64) -> (Vec<f64>, f64) {
    let (mut h, mut c) = (h, c);
    let mut all = Vec::new();
    for x in order {
        let sum = |k: f64| (0.3 - 0.1 * k) * x + (0.2 * k - 0.25) * h + 0.05 * k;
        let (i, f) = (sigmoid(sum(0.0) + peephole[0] * c), sigmoid(sum(1.0) + peephole[1] * c));
        c = (f * c + i * sum(3.0).tanh()).clamp(-clip, clip);
        h = sigmoid(sum(2.0) + peephole[2] * c) * c.max(0.0);
        all.push(h);
    }
    (all, c)
}

#[test]
fn lstm_peeps_and_clips() {
    let mut inputs = operands(4);
    inputs.extend([f32s(&[2, 1], &[0.75, -0.75]), f32s(&[3], &[0.1, -0.2, 0.3])]);
    for clip in [None, Some(0.2)] {
        let found = results(&inputs, |v| Recurrent {
            activation: Activation::Relu,
            ..recurrent(
                Cell::Lstm(Box::new(Lstm {
                    initial_c: v[5],
                    peephole: Some(v[6]),
                    back: None,
                    recurrent_activation: Activation::Sigmoid,
                    cell_activation: Activation::Tanh,
                    clip,
                })),
                v,
            )
        });
        let (h, c) = lstm(0.25, 0.75, &X, [0.1, -0.2, 0.3], clip.unwrap_or(9.0));
        let first: Vec<f64> = found[0].iter().step_by(2).copied().collect();
        close(&first, &h);
        close(&[found[1][0], found[2][0]], &[h[2], c]);
    }
}

#[test]
fn two_directions_stand_side_by_side_in_the_order_of_time() {
    let [ih, hh, bias] = weights(4, 1);
    let x = f32s(&[3, 1, 1], &X);
    let inputs = vec![x, f32s(&[1, 2], &[0.25, -0.5]), ih, hh, bias, f32s(&[1, 2], &[0.75, 0.5])];
    for output_sequence in [true, false] {
        let found = results(&inputs, |v| Recurrent {
            way: Way::Bidirectional,
            activation: Activation::Relu,
            output_sequence,
            ..recurrent(
                Cell::Lstm(Box::new(Lstm {
                    initial_c: v[5],
                    peephole: None,
                    back: Some(Back { weight_ih: v[2], weight_hh: v[3], bias: Some(v[4]), peephole: None }),
                    recurrent_activation: Activation::Sigmoid,
                    cell_activation: Activation::Tanh,
                    clip: None,
                })),
                v,
            )
        });
        let (ahead, c) = lstm(0.25, 0.75, &X, [0.0; 3], 9.0);
        let (back, d) = lstm(-0.5, 0.5, &[X[2], X[1], X[0]], [0.0; 3], 9.0);
        let all = [ahead[0], back[2], ahead[1], back[1], ahead[2], back[0]];
        let last = [ahead[2], back[2]];
        close(&found[0], if output_sequence { &all } else { &last });
        close(&found[1], &last);
        close(&found[2], &[c, d]);
    }
}

#[test]
fn recurrences_in_text_are_checked() {
    let rnn = |arguments: &str| {
        let parameters = "tensor<fp32, [3, 1, 2]> x, tensor<fp32, [1, 1]> h, tensor<fp32, [1, 2]> w";
        let body = format!(
            "tensor<fp32, [1, 1, 1]> y, tensor<fp32, [1, 1]> z = rnn(x = x, initial_h = h, \
             weight_hh = tensor<fp32, [1, 1]>([[1]]), {arguments});"
        );
        text(parameters, &body, "y")
    };
    let weight = "weight_ih = tensor<fp32, [1, 2]>([[1, 2]])";
    refuses_text(&rnn("weight_ih = w"), "4:132: weight_ih is a run-time value, expected a constant");
    refuses_text(
        &rnn(&format!("{weight}, direction = string(\"bidirectional\")")),
        "4:53: rnn: direction is bidirectional, forward or reverse was expected",
    );
    refuses_text(
        &rnn(&format!("{weight}, activation = string(\"gelu\")")),
        "4:177: activation is `gelu`, expected one of tanh, scaled_tanh, sigmoid, hard_sigmoid, sigmoid_hard, relu, linear",
    );
    refuses_text(
        &rnn("weight_ih = tensor<fp32, [2, 2]>([[1, 2], [3, 4]])"),
        "4:53: rnn: weight_ih is tensor<fp32, [2, 2]>, tensor<fp32, [1, 2]> was expected",
    );
    let half = rnn(weight).replace("fp32", "fp16").replace("ios18", "ios16");
    refuses_text(&half, "4:61: x is fp16, expected fp32");
}

#[test]
fn their_text_is_canonical() {
    prints_family("recurrent", |f, x| {
        let x = f.reshape(x, &[2, 2, 2])?;
        let mut constant = |name: &str, shape: &[usize]| {
            let n: usize = shape.iter().product();
            f.constant(name, tensor(DType::F16, shape, &vec![0.5; n]))
        };
        let (h, wide) = (constant("h", &[2, 1]), constant("wide", &[2, 2]));
        let mut set = |gates: usize| {
            [constant("ih", &[gates, 2]), constant("hh", &[gates, 1]), constant("bias", &[gates])]
        };
        let [one, three, four] = [set(1), set(3), set(4)];
        let peephole = constant("peephole", &[3]);
        let mut outputs = f.push(Op::Recurrent(recurrent(Cell::Rnn, &[x, h, one[0], one[1], one[2]])))?;
        let gru = Cell::Gru {
            recurrent_activation: Activation::HardSigmoid,
            reset_after: true,
            input_bias: Some(three[2]),
        };
        let gru = Recurrent { way: Way::Reverse, ..recurrent(gru, &[x, h, three[0], three[1], three[2]]) };
        outputs.extend(f.push(Op::Recurrent(gru))?);
        let lstm = Cell::Lstm(Box::new(Lstm {
            initial_c: wide,
            peephole: Some(peephole),
            back: Some(Back { weight_ih: four[0], weight_hh: four[1], bias: None, peephole: None }),
            recurrent_activation: Activation::Sigmoid,
            cell_activation: Activation::Linear,
            clip: Some(2.0),
        }));
        let lstm = recurrent(lstm, &[x, wide, four[0], four[1], four[2]]);
        outputs.extend(f.push(Op::Recurrent(Recurrent { way: Way::Bidirectional, ..lstm }))?);
        Ok(outputs)
    });
}
