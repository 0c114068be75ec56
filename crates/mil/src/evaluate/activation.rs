//! Element-wise functions of floats, by their definitions.

use arcane_tensor::{DType, round_to};

use super::elementwise::{larger, smaller};
use crate::{Gelu, Unary};

/// A float under an op of one operand of a type.
pub(super) fn float(kind: Unary, dtype: DType, x: f64) -> f64 {
    match kind {
        Unary::Identity => x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign if x == 0.0 => 0.0,
        Unary::Sign => f64::NAN,
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt { epsilon } => 1.0 / (x + round_to(dtype, epsilon)).sqrt(),
        Unary::Inverse { epsilon } => 1.0 / (x + round_to(dtype, epsilon)),
        Unary::Exp => x.exp(),
        Unary::Exp2 => x.exp2(),
        Unary::Log { epsilon } => (x + round_to(dtype, epsilon)).ln(),
        Unary::Erf => erf(x),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Atanh => x.atanh(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Tanh => x.tanh(),
        Unary::Clip { alpha, beta } => smaller(larger(x, alpha), beta),
        Unary::Threshold { alpha } => larger(x, alpha),
        Unary::Not => f64::from(u8::from(x == 0.0)),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Relu => larger(x, 0.0),
        Unary::Relu6 => smaller(larger(x, 0.0), 6.0),
        Unary::LeakyRelu { alpha } => leaky(x, alpha),
        Unary::ClampedRelu { alpha, beta } => smaller(leaky(x, alpha), beta),
        Unary::ThresholdedRelu { alpha } => {
            if x >= alpha {
                x
            } else {
                0.0
            }
        }
        Unary::Elu { alpha } => {
            if x > 0.0 {
                x
            } else {
                alpha * x.exp_m1()
            }
        }
        Unary::Gelu(Gelu::Exact) => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Unary::Gelu(Gelu::Tanh) => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Unary::Gelu(Gelu::Sigmoid) => x / (1.0 + (-1.702 * x).exp()),
        Unary::SigmoidHard { alpha, beta } => smaller(larger(alpha * x + beta, 0.0), 1.0),
        Unary::ScaledTanh { alpha, beta } => alpha * (beta * x).tanh(),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::LinearActivation { alpha, beta } => alpha * x + beta,
    }
}

fn leaky(x: f64, alpha: f64) -> f64 {
    if x >= 0.0 { x } else { alpha * x }
}

/// ln(1 + eˣ) without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    larger(x, 0.0) + (-x.abs()).exp().ln_1p()
}

/// The error function.
pub(super) fn erf(x: f64) -> f64 {
    if x.abs() < 2.0 { erf_series(x) } else { (1.0 - erfc_fraction(x.abs())).copysign(x) }
}

/// 1 − erf(x), exact where it is small.
fn erfc(x: f64) -> f64 {
    if x < 2.0 { 1.0 - erf(x) } else { erfc_fraction(x) }
}

/// 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)), whose terms are all of one sign (Abramowitz and Stegun 7.1.6).
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// e^(−x²)/√π · 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + …)))) for x ≥ 2 (Abramowitz and Stegun 7.1.14).
fn erfc_fraction(x: f64) -> f64 {
    if x.is_infinite() {
        return 0.0;
    }
    let fraction = (1..120).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / std::f64::consts::PI.sqrt() / fraction
}

#[cfg(test)]
mod tests {
    use super::{erf, erfc};

    #[test]
    fn the_error_function_has_its_tabled_values() {
        // Abramowitz and Stegun, table 7.1; the last two from the asymptotic expansion.
        let table = [
            (0.0, 0.0),
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (1.9, 0.992_790_429_235_257_5),
            (2.0, 0.995_322_265_018_952_7),
            (2.5, 0.999_593_047_982_555),
        ];
        for (x, want) in table {
            assert!((erf(x) - want).abs() < 1e-14, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + want).abs() < 1e-14);
        }
        assert!((erfc(5.0) / 1.537_459_794_428_034_8e-12 - 1.0).abs() < 1e-12, "{}", erfc(5.0));
        assert!(erf(f64::NAN).is_nan());
        assert_eq!((erf(f64::INFINITY), erf(f64::NEG_INFINITY)), (1.0, -1.0));
    }
}
