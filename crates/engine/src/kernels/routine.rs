//! Kernels of single ops whose operands are plain lists of dense arrays.

use super::quantize::Quantize;
use super::recurrent::Recurrence;
use super::spatial::{Direct, Pooling, Unfold};
use super::{Access, Context};

/// What is computed; which operand is which stands with each kernel. The results are the last operands.
#[derive(Clone, Debug)]
pub(crate) enum Routine {
    /// Windows of a convolution side by side, for a product.
    Unfold(Unfold),
    /// A convolution of few channels.
    Direct(Direct),
    /// A pool.
    Pooling(Pooling),
    /// Quantisation and its inverse.
    Quantize(Quantize),
    /// A recurrent network.
    Recurrence(Box<Recurrence>),
}

impl Routine {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match self {
            Self::Unfold(_) | Self::Quantize(_) => 0,
            Self::Direct(k) => k.scratch_bytes(),
            Self::Pooling(k) => k.scratch_bytes(),
            Self::Recurrence(k) => k.scratch_bytes(),
        }
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unfold(_) => "unfold",
            Self::Direct(_) => "direct_convolution",
            Self::Pooling(_) => "pool",
            Self::Quantize(_) => "quantize",
            Self::Recurrence(_) => "recurrence",
        }
    }

    /// Runs it, inside the pool.
    pub(crate) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        match self {
            Self::Unfold(k) => k.run(context, operands),
            Self::Direct(k) => k.run(context, operands),
            Self::Pooling(k) => k.run(context, operands),
            Self::Quantize(k) => k.run(context, operands),
            Self::Recurrence(k) => k.run(context, operands),
        }
    }
}
