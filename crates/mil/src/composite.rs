//! The one spelling of each composite that MIL has no op for. `docs/numerics.md` lists them with their rounding points.

#![allow(
    clippy::missing_errors_doc,
    reason = "every composite gives the BuildError of its first ill-typed op"
)]

use crate::{BuildError, Builder, Reduce, ValueId};

/// Constants of `AdamW` (Loshchilov & Hutter 2019) that are fixed when the program is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Builder {
    /// RMS norm over the last axis (Zhang & Sennrich 2019): `x / √(mean(x²) + eps) · gain`. x `[.., D]`, gain `[D]`.
    pub fn rms_norm(&mut self, x: ValueId, gain: ValueId, eps: f64) -> Result<ValueId, BuildError> {
        let last = self.ty(x).shape.len().saturating_sub(1);
        let square = self.square(x)?;
        let mean = self.reduce(Reduce::Mean, square, &[last], true)?;
        let r = self.rsqrt(mean, eps)?;
        let normed = self.mul(x, r)?;
        self.mul(normed, gain)
    }

    /// Rotary embedding in the half-split form (Su et al. 2021; the layout of Hugging Face weights): x `[.., E]`, cos and
    /// sin `[.., E/2]` broadcast against the halves a, b of x; gives `[a·cos − b·sin, b·cos + a·sin]`.
    pub fn rope(&mut self, x: ValueId, cos: ValueId, sin: ValueId) -> Result<ValueId, BuildError> {
        let shape = self.shape(x);
        let last = shape.len().saturating_sub(1);
        let half = shape.last().map_or(0, |e| e / 2);
        let halves = self.split(x, last, &[half, half])?;
        let (a, b) = (halves[0], halves[1]);
        let (a_cos, b_sin) = (self.mul(a, cos)?, self.mul(b, sin)?);
        let (b_cos, a_sin) = (self.mul(b, cos)?, self.mul(a, sin)?);
        let (low, high) = (self.sub(a_cos, b_sin)?, self.add(b_cos, a_sin)?);
        self.concat(&[low, high], last)
    }

    /// Cross entropy in nats as a weighted sum: hidden `[N, D]`, head `[V, D]`, targets `[N, 1]` int32, weights `[N, 1]`;
    /// gives Σ weight·(log Σ exp(logits) − logit of the target), a scalar, where logits = hidden·headᵀ.
    pub fn cross_entropy(
        &mut self,
        hidden: ValueId,
        head: ValueId,
        targets: ValueId,
        weights: ValueId,
    ) -> Result<ValueId, BuildError> {
        let logits = self.linear(hidden, head, None)?;
        let log_sum = self.reduce(Reduce::LogSumExp, logits, &[1], true)?;
        let picked = self.gather_along_axis(logits, targets, 1)?;
        let nats = self.sub(log_sum, picked)?;
        let weighted = self.mul(nats, weights)?;
        self.reduce_all(Reduce::Sum, weighted)
    }

    /// One `AdamW` update of a tensor: returns the new weight and moments.
    /// `m' = β₁m + (1−β₁)g`, `v' = β₂v + (1−β₂)g²`, `w' = decay·w − step·m' / (√v'·root_correction + ε)`, where the scalars
    /// are `decay = 1 − lr·wd` (`None`: no decay), `step = lr / (1 − β₁ᵗ)` and `root_correction = 1 / √(1 − β₂ᵗ)`.
    #[allow(clippy::too_many_arguments, reason = "the formula has these terms")]
    pub fn adamw(
        &mut self,
        constants: AdamW,
        [w, m, v]: [ValueId; 3],
        g: ValueId,
        decay: Option<ValueId>,
        step: ValueId,
        root_correction: ValueId,
    ) -> Result<[ValueId; 3], BuildError> {
        let kept_m = self.scale(m, constants.beta1)?;
        let new_m = self.scale(g, 1.0 - constants.beta1)?;
        let m = self.add(kept_m, new_m)?;
        let kept_v = self.scale(v, constants.beta2)?;
        let square = self.square(g)?;
        let new_v = self.scale(square, 1.0 - constants.beta2)?;
        let v = self.add(kept_v, new_v)?;
        let root = self.sqrt(v)?;
        let corrected = self.mul(root, root_correction)?;
        let eps = self.scalar(self.ty(w).dtype, constants.eps);
        let denominator = self.add(corrected, eps)?;
        let direction = self.real_div(m, denominator)?;
        let change = self.mul(direction, step)?;
        let decayed = match decay {
            Some(decay) => self.mul(w, decay)?,
            None => w,
        };
        Ok([self.sub(decayed, change)?, m, v])
    }
}
