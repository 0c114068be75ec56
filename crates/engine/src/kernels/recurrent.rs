//! Recurrent networks: a sequence of each batch and direction at a time, in fp32.

use arcane_mil::Activation;

use super::{Access, Bytes, Context, for_each_task, narrow, starts};

/// Which recurrence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Recurrent {
    /// h = act(sum)
    Rnn,
    /// See [`arcane_mil::Cell::Gru`].
    Gru {
        /// The activation of the gates.
        gate: Activation,
        /// Whether the reset gate is applied after the product.
        reset_after: bool,
    },
    /// See [`arcane_mil::Cell::Lstm`].
    Lstm {
        /// The activation of the gates.
        gate: Activation,
        /// The activation of what is new.
        cell: Activation,
        /// The bound of the cell state.
        clip: Option<f32>,
    },
}

/// Where the weights of a direction stand among the operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// `[G·H, I]`
    pub ih: usize,
    /// `[G·H, H]`
    pub hh: usize,
    /// `[G·H]`
    pub bias: Option<usize>,
    /// `[G·H]`, added to the products with x alone.
    pub input_bias: Option<usize>,
    /// `[3·H]`
    pub peephole: Option<usize>,
}

/// Operands, all but the results in fp32: x `[s, b, I]`, the initial hidden state `[b, D·H]`, the initial cell state of `lstm`,
/// the weights; then the hidden states, the last hidden state, and the last cell state of `lstm`.
#[derive(Clone, Debug)]
pub(crate) struct Recurrence {
    /// Which recurrence.
    pub kind: Recurrent,
    /// The activation of the hidden state.
    pub activation: Activation,
    /// The weights of each direction.
    pub weights: Vec<Weights>,
    /// Whether one direction goes from the last step on.
    pub reverse: bool,
    /// Whether all hidden states are wanted.
    pub output_sequence: bool,
    /// `[s, b, I, H]`
    pub sizes: [usize; 4],
}

impl Recurrence {
    fn gates(&self) -> usize {
        match self.kind {
            Recurrent::Rnn => 1,
            Recurrent::Gru { .. } => 3,
            Recurrent::Lstm { .. } => 4,
        }
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        // Hidden and cell state, the reset hidden state, and the sums of the gates with x and with h.
        4 * self.sizes[3] * (3 + 2 * self.gates())
    }

    pub(super) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        let pointers = starts(context, operands);
        let [_, batch, _, _] = self.sizes;
        for_each_task(batch * self.weights.len(), &|t| {
            let sequence = Sequence {
                layer: self,
                pointers: &pointers,
                operands,
                direction: t % self.weights.len(),
                row: t / self.weights.len(),
            };
            // SAFETY: the planner lays the operands inside their memories; tasks write different elements.
            unsafe { sequence.run(context.scratch()) };
        });
    }
}

/// One row of the batch in one direction.
struct Sequence<'a> {
    layer: &'a Recurrence,
    pointers: &'a [Bytes],
    operands: &'a [Access],
    direction: usize,
    row: usize,
}

impl Sequence<'_> {
    /// `count` floats of an operand.
    unsafe fn floats(&self, operand: usize, start: usize, count: usize) -> &[f32] {
        // SAFETY: as the caller promises; the operand is fp32.
        unsafe { std::slice::from_raw_parts(self.pointers[operand].get().cast::<f32>().add(start), count) }
    }

    /// A row of a matrix or a number of a vector; zeros where it is missing.
    unsafe fn number(&self, operand: Option<usize>, k: usize) -> f32 {
        // SAFETY: as the caller promises.
        operand.map_or(0.0, |operand| unsafe { self.floats(operand, k, 1)[0] })
    }

    unsafe fn run(&self, scratch: &mut [f32]) {
        let [steps, batch, inputs, hidden] = self.layer.sizes;
        let is_lstm = matches!(self.layer.kind, Recurrent::Lstm { .. });
        let wide = self.layer.weights.len() * hidden;
        let place = self.row * wide + self.direction * hidden;
        let (h, rest) = scratch.split_at_mut(hidden);
        let (c, rest) = rest.split_at_mut(hidden);
        let (kept, sums) = rest.split_at_mut(hidden);
        let results = self.operands.len() - if is_lstm { 3 } else { 2 };
        // SAFETY: as the caller promises.
        unsafe {
            h.copy_from_slice(self.floats(1, place, hidden));
            if is_lstm {
                c.copy_from_slice(self.floats(2, place, hidden));
            }
            let back = self.layer.reverse || self.direction == 1;
            for step in 0..steps {
                let time = if back { steps - 1 - step } else { step };
                let x = self.floats(0, (time * batch + self.row) * inputs, inputs);
                self.advance(x, h, c, kept, sums);
                if self.layer.output_sequence {
                    let line = if self.direction == 1 { time } else { step };
                    self.store(results, line * batch * wide + place, h);
                }
            }
            if !self.layer.output_sequence {
                self.store(results, place, h);
            }
            self.store(results + 1, place, h);
            if is_lstm {
                self.store(results + 2, place, c);
            }
        }
    }

    unsafe fn store(&self, operand: usize, start: usize, values: &[f32]) {
        let dtype = self.operands[operand].dtype;
        // SAFETY: as the caller promises.
        unsafe {
            let to = self.pointers[operand].get().add(start * dtype.size());
            narrow(dtype, values.as_ptr(), to, values.len());
        }
    }

    /// One step.
    unsafe fn advance(&self, x: &[f32], h: &mut [f32], c: &mut [f32], kept: &mut [f32], sums: &mut [f32]) {
        let (n, layer) = (h.len(), self.layer);
        let w = layer.weights[self.direction];
        let (of_x, of_h) = sums.split_at_mut(layer.gates() * n);
        // SAFETY: the weights have these elements.
        unsafe {
            for (k, (with_x, with_h)) in of_x.iter_mut().zip(&mut *of_h).enumerate() {
                *with_x = dot(self.floats(w.ih, k * x.len(), x.len()), x) + self.number(w.input_bias, k);
                *with_h = dot(self.floats(w.hh, k * n, n), h) + self.number(w.bias, k);
            }
            let sum = |k: usize| of_x[k] + of_h[k];
            match layer.kind {
                Recurrent::Rnn => (0..n).for_each(|j| h[j] = activate(layer.activation, sum(j))),
                Recurrent::Gru { gate, reset_after } => {
                    let reset = |j: usize| activate(gate, sum(j));
                    (0..n).for_each(|j| kept[j] = reset(j) * h[j]);
                    let hh = |j: usize| {
                        if reset_after {
                            reset(j) * of_h[n + j]
                        } else {
                            dot(self.floats(w.hh, (n + j) * n, n), kept) + self.number(w.bias, n + j)
                        }
                    };
                    for j in 0..n {
                        let update = activate(gate, sum(2 * n + j));
                        let new = activate(layer.activation, of_x[n + j] + hh(j));
                        h[j] = (1.0 - update) * new + update * h[j];
                    }
                }
                Recurrent::Lstm { gate, cell, clip } => {
                    let peep = |k: usize, c: f32| self.number(w.peephole, k) * c;
                    for j in 0..n {
                        let input = activate(gate, sum(j) + peep(j, c[j]));
                        let forget = activate(gate, sum(n + j) + peep(n + j, c[j]));
                        let new = activate(cell, sum(3 * n + j));
                        c[j] = forget * c[j] + input * new;
                        if let Some(clip) = clip {
                            c[j] = c[j].min(clip).max(-clip);
                        }
                        let output = activate(gate, sum(2 * n + j) + peep(2 * n + j, c[j]));
                        h[j] = output * activate(layer.activation, c[j]);
                    }
                }
            }
        }
    }
}

/// Σ a·b, in eight sums.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a_whole, b_whole) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_whole.remainder().iter().zip(b_whole.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_whole.zip(b_whole) {
        for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Tanh | Activation::ScaledTanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::HardSigmoid | Activation::SigmoidHard => (0.2 * x + 0.5).clamp(0.0, 1.0),
        Activation::Relu => x.max(0.0),
        Activation::Linear => x,
    }
}
