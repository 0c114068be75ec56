//! Activations with a number a channel.

use crate::ValueId;

/// Which activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelActivation {
    /// `prelu`: x where x > 0, else α·x
    Prelu,
    /// `softplus_parametric`: α·ln(1 + e^(β·x))
    Softplus,
}

/// An activation of x `[N, C, D..]`, rank 3 to 5, whose α and β `[C]` differ by channel; they may have another float type than
/// x. MIL wants them constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Channelwise {
    /// Which.
    pub kind: ChannelActivation,
    /// The operand.
    pub x: ValueId,
    /// α
    pub alpha: ValueId,
    /// β, of `softplus_parametric`.
    pub beta: Option<ValueId>,
}

impl Channelwise {
    /// The name in MIL.
    pub(super) const fn name(&self) -> &'static str {
        match self.kind {
            ChannelActivation::Prelu => "prelu",
            ChannelActivation::Softplus => "softplus_parametric",
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        f(&mut self.x);
        f(&mut self.alpha);
        if let Some(beta) = &mut self.beta {
            f(beta);
        }
    }

    /// The operands that MIL wants constant, by name.
    pub(crate) fn constants(&self) -> Vec<(ValueId, &'static str)> {
        std::iter::once((self.alpha, "alpha")).chain(self.beta.map(|b| (b, "beta"))).collect()
    }
}
