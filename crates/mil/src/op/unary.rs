//! Element-wise ops of one operand.

/// Element-wise ops of one operand; the result has the operand's type. Their numbers (ε, α, β) are parameters, not operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// |x|
    Abs,
    /// x
    Identity,
    /// −1, 0 or 1
    Sign,
    /// x²
    Square,
    /// √x
    Sqrt,
    /// 1 / √(x + ε)
    Rsqrt {
        /// ε, in the type of x.
        epsilon: f64,
    },
    /// 1 / (x + ε)
    Inverse {
        /// ε, in the type of x.
        epsilon: f64,
    },
    /// eˣ
    Exp,
    /// 2ˣ; of an integer truncated and wrapped
    Exp2,
    /// ln(x + ε)
    Log {
        /// ε, in the type of x.
        epsilon: f64,
    },
    /// The error function: 2/√π · ∫₀ˣ e^(−t²) dt
    Erf,
    /// The largest integer ≤ x
    Floor,
    /// The smallest integer ≥ x
    Ceil,
    /// The nearest integer, ties to even
    Round,
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// tan x
    Tan,
    /// arcsin x
    Asin,
    /// arccos x
    Acos,
    /// arctan x
    Atan,
    /// artanh x
    Atanh,
    /// sinh x
    Sinh,
    /// cosh x
    Cosh,
    /// tanh x
    Tanh,
    /// min(max(x, α), β); NaN stays
    Clip {
        /// α
        alpha: f64,
        /// β
        beta: f64,
    },
    /// max(x, α); NaN stays
    Threshold {
        /// α
        alpha: f64,
    },
    /// Not x, of `bool`
    Not,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x / (1 + e⁻ˣ)
    Silu,
    /// max(x, 0); NaN stays
    Relu,
    /// min(max(x, 0), 6); NaN stays
    Relu6,
    /// x where x ≥ 0, else α·x
    LeakyRelu {
        /// α
        alpha: f64,
    },
    /// min(β, x where x ≥ 0, else α·x); NaN stays
    ClampedRelu {
        /// α
        alpha: f64,
        /// β
        beta: f64,
    },
    /// x where x ≥ α, else 0
    ThresholdedRelu {
        /// α
        alpha: f64,
    },
    /// x where x > 0, else α·(eˣ − 1)
    Elu {
        /// α
        alpha: f64,
    },
    /// x·Φ(x) with the normal distribution Φ, or an approximation
    Gelu(Gelu),
    /// min(max(α·x + β, 0), 1); NaN stays
    SigmoidHard {
        /// α
        alpha: f64,
        /// β
        beta: f64,
    },
    /// α·tanh(β·x)
    ScaledTanh {
        /// α
        alpha: f64,
        /// β
        beta: f64,
    },
    /// ln(1 + eˣ)
    Softplus,
    /// x / (1 + |x|)
    Softsign,
    /// α·x + β
    LinearActivation {
        /// α
        alpha: f64,
        /// β
        beta: f64,
    },
}

/// How `gelu` is computed (Hendrycks and Gimpel 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// x/2 · (1 + erf(x/√2))
    Exact,
    /// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
    Tanh,
    /// x · sigmoid(1.702·x)
    Sigmoid,
}

/// The element types that an element-wise op takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Any,
    Bool,
    Numeric,
    Float,
}

impl Gelu {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Tanh, Self::Sigmoid];

    /// The name of the mode in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "EXACT",
            Self::Tanh => "TANH_APPROXIMATION",
            Self::Sigmoid => "SIGMOID_APPROXIMATION",
        }
    }
}

impl Unary {
    /// The kinds without numbers, but for `gelu`.
    pub(crate) const PLAIN: [Self; 28] = [
        Self::Abs,
        Self::Identity,
        Self::Sign,
        Self::Square,
        Self::Sqrt,
        Self::Exp,
        Self::Exp2,
        Self::Erf,
        Self::Floor,
        Self::Ceil,
        Self::Round,
        Self::Sin,
        Self::Cos,
        Self::Tan,
        Self::Asin,
        Self::Acos,
        Self::Atan,
        Self::Atanh,
        Self::Sinh,
        Self::Cosh,
        Self::Tanh,
        Self::Not,
        Self::Sigmoid,
        Self::Silu,
        Self::Relu,
        Self::Relu6,
        Self::Softplus,
        Self::Softsign,
    ];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abs => "abs",
            Self::Identity => "identity",
            Self::Sign => "sign",
            Self::Square => "square",
            Self::Sqrt => "sqrt",
            Self::Rsqrt { .. } => "rsqrt",
            Self::Inverse { .. } => "inverse",
            Self::Exp => "exp",
            Self::Exp2 => "exp2",
            Self::Log { .. } => "log",
            Self::Erf => "erf",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Round => "round",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Tan => "tan",
            Self::Asin => "asin",
            Self::Acos => "acos",
            Self::Atan => "atan",
            Self::Atanh => "atanh",
            Self::Sinh => "sinh",
            Self::Cosh => "cosh",
            Self::Tanh => "tanh",
            Self::Clip { .. } => "clip",
            Self::Threshold { .. } => "threshold",
            Self::Not => "logical_not",
            Self::Sigmoid => "sigmoid",
            Self::Silu => "silu",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::ClampedRelu { .. } => "clamped_relu",
            Self::ThresholdedRelu { .. } => "thresholded_relu",
            Self::Elu { .. } => "elu",
            Self::Gelu(_) => "gelu",
            Self::SigmoidHard { .. } => "sigmoid_hard",
            Self::ScaledTanh { .. } => "scaled_tanh",
            Self::Softplus => "softplus",
            Self::Softsign => "softsign",
            Self::LinearActivation { .. } => "linear_activation",
        }
    }

    /// Its numbers by their names in MIL.
    pub fn numbers(self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Rsqrt { epsilon } | Self::Inverse { epsilon } | Self::Log { epsilon } => {
                vec![("epsilon", epsilon)]
            }
            Self::Threshold { alpha }
            | Self::LeakyRelu { alpha }
            | Self::ThresholdedRelu { alpha }
            | Self::Elu { alpha } => vec![("alpha", alpha)],
            Self::Clip { alpha, beta }
            | Self::ClampedRelu { alpha, beta }
            | Self::SigmoidHard { alpha, beta }
            | Self::ScaledTanh { alpha, beta }
            | Self::LinearActivation { alpha, beta } => vec![("alpha", alpha), ("beta", beta)],
            _ => Vec::new(),
        }
    }

    /// Whether α and β have the type of x in every opset.
    pub(crate) const fn has_bounds_of_its_type(self) -> bool {
        matches!(self, Self::Clip { .. } | Self::Threshold { .. })
    }

    /// What it takes.
    pub(crate) const fn takes(self) -> Takes {
        match self {
            Self::Identity => Takes::Any,
            Self::Not => Takes::Bool,
            Self::Abs | Self::Sign | Self::Square | Self::Exp2 | Self::Threshold { .. } => Takes::Numeric,
            _ => Takes::Float,
        }
    }
}
