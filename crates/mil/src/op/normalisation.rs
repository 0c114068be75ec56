//! Normalisations.

use crate::ValueId;

/// A normalisation of x; the result has x's type. γ and β scale and shift, by default by 1 and 0. They, the mean and the
/// variance may have another float type than x, and ε is a number by itself. MIL wants all but x constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Normalisation {
    /// `batch_norm`: γ·(x − mean)/√(variance + ε) + β for x `[N, C, D..]` of rank 3 to 5, each of the others `[C]`.
    Batch {
        /// The operand.
        x: ValueId,
        /// The mean of each channel.
        mean: ValueId,
        /// The variance of each channel.
        variance: ValueId,
        /// γ
        gamma: Option<ValueId>,
        /// β
        beta: Option<ValueId>,
        /// ε
        epsilon: f64,
    },
    /// `instance_norm`: γ·(x − mean)/√(variance + ε) + β with the mean and the population variance of the spatial dimensions of
    /// x `[N, C, D..]`, rank 3 or 4; γ and β are `[C]`.
    Instance {
        /// The operand.
        x: ValueId,
        /// γ
        gamma: Option<ValueId>,
        /// β
        beta: Option<ValueId>,
        /// ε
        epsilon: f64,
    },
    /// `layer_norm`: as instance norm over any axes; γ and β have the dimensions of these axes.
    Layer {
        /// The operand.
        x: ValueId,
        /// Sorted, distinct axes.
        axes: Vec<usize>,
        /// γ
        gamma: Option<ValueId>,
        /// β
        beta: Option<ValueId>,
        /// ε
        epsilon: f64,
    },
    /// `l2_norm`: x/√(Σx² + ε), the sum over the last three dimensions.
    L2 {
        /// The operand, of rank 3 or more.
        x: ValueId,
        /// ε
        epsilon: f64,
    },
    /// `local_response_norm`: x/(k + α/size · Σx²)^β, the sum over `size` channels (dimension 1) around each, ⌊size/2⌋ of them
    /// before it; channels that there are not count as zeros.
    LocalResponse {
        /// The operand, of rank 3 or more.
        x: ValueId,
        /// How many channels.
        size: usize,
        /// α
        alpha: f64,
        /// β
        beta: f64,
        /// k
        k: f64,
    },
}

impl Normalisation {
    /// The name in MIL.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Batch { .. } => "batch_norm",
            Self::Instance { .. } => "instance_norm",
            Self::Layer { .. } => "layer_norm",
            Self::L2 { .. } => "l2_norm",
            Self::LocalResponse { .. } => "local_response_norm",
        }
    }

    /// The operand that is normalised.
    pub fn x(&self) -> ValueId {
        match self {
            Self::Batch { x, .. }
            | Self::Instance { x, .. }
            | Self::Layer { x, .. }
            | Self::L2 { x, .. }
            | Self::LocalResponse { x, .. } => *x,
        }
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        match self {
            Self::L2 { x, .. } | Self::LocalResponse { x, .. } => f(x),
            Self::Instance { x, gamma, beta, .. } | Self::Layer { x, gamma, beta, .. } => {
                f(x);
                gamma.iter_mut().chain(beta).for_each(f);
            }
            Self::Batch { x, mean, variance, gamma, beta, .. } => {
                f(x);
                f(mean);
                f(variance);
                gamma.iter_mut().chain(beta).for_each(f);
            }
        }
    }

    /// The operands that MIL wants constant, by name.
    pub(crate) fn constants(&self) -> Vec<(ValueId, &'static str)> {
        match self {
            Self::L2 { .. } | Self::LocalResponse { .. } => Vec::new(),
            Self::Instance { gamma, beta, .. } | Self::Layer { gamma, beta, .. } => {
                gamma.map(|v| (v, "gamma")).into_iter().chain(beta.map(|v| (v, "beta"))).collect()
            }
            Self::Batch { mean, variance, gamma, beta, .. } => [(*mean, "mean"), (*variance, "variance")]
                .into_iter()
                .chain(gamma.map(|v| (v, "gamma")))
                .chain(beta.map(|v| (v, "beta")))
                .collect(),
        }
    }

    /// Its numbers by their names in MIL.
    pub(crate) fn numbers(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Batch { epsilon, .. }
            | Self::Instance { epsilon, .. }
            | Self::Layer { epsilon, .. }
            | Self::L2 { epsilon, .. } => vec![("epsilon", *epsilon)],
            Self::LocalResponse { alpha, beta, k, .. } => vec![("alpha", *alpha), ("beta", *beta), ("k", *k)],
        }
    }
}
