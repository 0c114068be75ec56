//! Recurrent networks.

use crate::ValueId;

/// Which recurrence. h is the hidden state, x the input of a step, σ the recurrent activation.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// `rnn`: h = act(Wᵢ·x + Wₕ·h + b).
    Rnn,
    /// `gru`, whose matrices have the rows of the gates r, o, z in this order: r, z = σ(Wᵢ·x + Wₕ·h + b);
    /// o = act(Wᵢ·x + b + Wₕ·(r·h)), or act(Wᵢ·x + bᵢ + r·(Wₕ·h + b)) if the reset comes after the product;
    /// h = (1 − z)·o + z·h. The input bias bᵢ is added to the products with x of all gates.
    Gru {
        /// σ.
        recurrent_activation: Activation,
        /// Whether the reset gate is applied after the product.
        reset_after: bool,
        /// bᵢ, `[3H]`.
        input_bias: Option<ValueId>,
    },
    /// `lstm`, whose matrices have the rows of the gates i, f, o, z in this order: i, f = σ(Wᵢ·x + Wₕ·h + b + p·c);
    /// z = act′(Wᵢ·x + Wₕ·h + b); c = f·c + i·z, clipped to ±clip; o = σ(Wᵢ·x + Wₕ·h + b + p·c) of the new c; h = o·act(c).
    Lstm(Box<Lstm>),
}

/// What only `lstm` has.
#[derive(Clone, Debug, PartialEq)]
pub struct Lstm {
    /// The cell state before the first step, as `initial_h`.
    pub initial_c: ValueId,
    /// p of the gates i, f, o, `[3H]`.
    pub peephole: Option<ValueId>,
    /// The weights of the way back, where there are two directions.
    pub back: Option<Back>,
    /// σ.
    pub recurrent_activation: Activation,
    /// act′
    pub cell_activation: Activation,
    /// The bound of the cell state.
    pub clip: Option<f64>,
}

/// The weights of an `lstm`'s way back.
#[derive(Clone, Debug, PartialEq)]
pub struct Back {
    /// `[4H, I]`
    pub weight_ih: ValueId,
    /// `[4H, H]`
    pub weight_hh: ValueId,
    /// `[4H]`
    pub bias: Option<ValueId>,
    /// `[3H]`
    pub peephole: Option<ValueId>,
}

/// Which way the steps are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the first step on.
    Forward,
    /// From the last step on; the results are in the order of processing.
    Reverse,
    /// Both, `lstm` only; the results of either stand side by side, those of the way back in the order of time.
    Bidirectional,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Reverse, Self::Bidirectional];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Bidirectional => "bidirectional",
        }
    }
}

/// The functions that recurrences know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// tanh x
    Tanh,
    /// tanh x, too: the scales have no parameter
    ScaledTanh,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// min(max(0.2·x + 0.5, 0), 1)
    HardSigmoid,
    /// The same by its other name
    SigmoidHard,
    /// max(x, 0)
    Relu,
    /// x
    Linear,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Tanh,
        Self::ScaledTanh,
        Self::Sigmoid,
        Self::HardSigmoid,
        Self::SigmoidHard,
        Self::Relu,
        Self::Linear,
    ];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::ScaledTanh => "scaled_tanh",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid => "hard_sigmoid",
            Self::SigmoidHard => "sigmoid_hard",
            Self::Relu => "relu",
            Self::Linear => "linear",
        }
    }
}

/// `rnn`, `gru` or `lstm` over x `[s, b, I]`. With H hidden elements and D directions the results are the hidden states of all
/// steps `[s, b, D·H]` (or the last, `[1, b, D·H]`), the last hidden state `[b, D·H]`, and of `lstm` the last cell state. MIL
/// wants weights and biases constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Which recurrence.
    pub cell: Cell,
    /// The inputs of the steps.
    pub x: ValueId,
    /// The hidden state before the first step, `[b, D·H]`.
    pub initial_h: ValueId,
    /// `[G·H, I]` for G gates.
    pub weight_ih: ValueId,
    /// `[G·H, H]`
    pub weight_hh: ValueId,
    /// `[G·H]`
    pub bias: Option<ValueId>,
    /// Which way.
    pub way: Way,
    /// Whether the hidden states of all steps are wanted.
    pub output_sequence: bool,
    /// The activation of the hidden state, of `gru` that of o.
    pub activation: Activation,
}

impl Recurrent {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self.cell {
            Cell::Rnn => "rnn",
            Cell::Gru { .. } => "gru",
            Cell::Lstm(_) => "lstm",
        }
    }

    /// How many gates there are.
    pub const fn gates(&self) -> usize {
        match self.cell {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm(_) => 4,
        }
    }

    /// How many directions there are.
    pub const fn directions(&self) -> usize {
        if matches!(self.way, Way::Bidirectional) { 2 } else { 1 }
    }

    /// The operands that MIL wants constant, with their names.
    pub fn constants(&self) -> Vec<(&'static str, ValueId)> {
        let mut found = vec![("weight_ih", self.weight_ih), ("weight_hh", self.weight_hh)];
        found.extend(self.bias.map(|v| ("bias", v)));
        match &self.cell {
            Cell::Rnn => {}
            Cell::Gru { input_bias, .. } => found.extend(input_bias.map(|v| ("input_bias", v))),
            Cell::Lstm(l) => {
                found.extend(l.peephole.map(|v| ("peephole", v)));
                if let Some(back) = &l.back {
                    found.extend([("weight_ih_back", back.weight_ih), ("weight_hh_back", back.weight_hh)]);
                    found.extend(back.bias.map(|v| ("bias_back", v)));
                    found.extend(back.peephole.map(|v| ("peephole_back", v)));
                }
            }
        }
        found
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        for v in [&mut self.x, &mut self.initial_h, &mut self.weight_ih, &mut self.weight_hh] {
            f(v);
        }
        self.bias.iter_mut().for_each(&mut *f);
        match &mut self.cell {
            Cell::Rnn => {}
            Cell::Gru { input_bias, .. } => input_bias.iter_mut().for_each(f),
            Cell::Lstm(l) => {
                f(&mut l.initial_c);
                l.peephole.iter_mut().for_each(&mut *f);
                if let Some(back) = &mut l.back {
                    f(&mut back.weight_ih);
                    f(&mut back.weight_hh);
                    back.bias.iter_mut().chain(&mut back.peephole).for_each(f);
                }
            }
        }
    }
}
