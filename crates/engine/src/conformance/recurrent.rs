//! Recurrent networks: every cell, way and activation.

use arcane_mil::{Activation, Back, Cell, Lstm, Op, Recurrent, Way};
use arcane_tensor::DType;

use super::{Allowed, Table, rounding};

pub(super) fn recurrences(t: &mut Table, dtype: DType) {
    const SMALL: (f64, f64) = (-0.6, 0.6);
    let allowed = match dtype {
        DType::F16 => rounding(dtype),
        _ => Allowed { absolute: 1e-5, relative: 1e-5 },
    };
    let (steps, batch, inputs, hidden) = (5, 3, 11, 9);
    for (gates, name) in
        [(1, "rnn"), (3, "gru"), (3, "gru, reset after"), (4, "lstm"), (4, "lstm, two directions")]
    {
        let two = name.ends_with("directions");
        let wide = if two { 2 * hidden } else { hidden };
        let rows = gates * hidden;
        let shapes: [&[usize]; 8] = [
            &[steps, batch, inputs],
            &[batch, wide],
            &[rows, inputs],
            &[rows, hidden],
            &[rows],
            &[batch, wide],
            &[3 * hidden],
            &[rows, inputs],
        ];
        let parameters = shapes.map(|shape| (dtype, shape, SMALL));
        let ways: &[Way] = if two { &[Way::Bidirectional] } else { &[Way::Forward, Way::Reverse] };
        for (k, activation) in Activation::ALL.into_iter().enumerate() {
            let way = ways[k % ways.len()];
            t.add(&format!("{name} {activation:?} {way:?}"), allowed, &parameters, |f, v| {
                let gate = if k % 2 == 0 { Activation::Sigmoid } else { Activation::HardSigmoid };
                let cell = match gates {
                    1 => Cell::Rnn,
                    3 => Cell::Gru {
                        recurrent_activation: gate,
                        reset_after: name.ends_with("after"),
                        input_bias: (k % 3 > 0).then_some(v[4]),
                    },
                    _ => Cell::Lstm(Box::new(Lstm {
                        initial_c: v[5],
                        peephole: (k % 3 > 0).then_some(v[6]),
                        back: two.then_some(Back {
                            weight_ih: v[7],
                            weight_hh: v[3],
                            bias: (k % 2 > 0).then_some(v[4]),
                            peephole: Some(v[6]),
                        }),
                        recurrent_activation: gate,
                        cell_activation: activation,
                        clip: (k % 2 > 0).then_some(0.25),
                    })),
                };
                f.push(Op::Recurrent(Recurrent {
                    cell,
                    x: v[0],
                    initial_h: v[1],
                    weight_ih: v[2],
                    weight_hh: v[3],
                    bias: (k % 4 > 0).then_some(v[4]),
                    way,
                    output_sequence: k % 5 > 0,
                    activation,
                }))
            });
        }
    }
}
