//! Scalar functions written so that loops over them vectorise, with the same bits on every instruction set: they use
//! additions, multiplications and comparisons only, never a fused multiply-add.

use arcane_chip::arithmetic::{rounded, value};

/// `x` rounded to the nearest fp16 value, ties to even; beyond 65520 an infinity.
#[inline(always)]
pub(crate) fn round_f16(x: f32) -> f32 {
    let magnitude = x.abs();
    // Adding and subtracting 2^(e+13) rounds to the 10 fraction bits of exponent e; below 2^-14 fp16 is evenly spaced.
    let exponent = (magnitude.to_bits() & 0x7f80_0000).max(0x3880_0000);
    let magic = f32::from_bits(exponent.wrapping_add(13 << 23));
    let rounded = (magnitude + magic) - magic;
    let bounded = if magnitude >= 65520.0 { f32::INFINITY } else { rounded };
    let result = if magnitude.is_nan() { x } else { bounded };
    result.copysign(x)
}

/// `x` rounded to the nearest fp16 value, ties away from zero; beyond 65520 an infinity, and 0 for a NaN, which is what the
/// Neural Engine gives for indeterminate forms.
#[inline(always)]
pub(crate) fn round_f16_away(x: f32) -> f32 {
    const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;
    const SUBNORMAL_STEPS: f32 = 16_777_216.0;
    let magnitude = x.abs();
    // Half of the last of ten fraction bits is added to the bits of the float, and what is behind them cut off.
    let normal = f32::from_bits(magnitude.to_bits().wrapping_add(0x1000) & !0x1fff);
    let subnormal = (magnitude * SUBNORMAL_STEPS + 0.5).floor() / SUBNORMAL_STEPS;
    let rounded = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    let bounded = if magnitude >= 65520.0 { f32::INFINITY } else { rounded };
    if magnitude.is_nan() { 0.0 } else { bounded.copysign(x) }
}

/// The same of a wide number; it is rounded once.
pub(crate) fn round_f16_away_wide(x: f64) -> f32 {
    value(rounded(x)) as f32
}

/// eˣ to about one unit in the last place: x = n·ln 2 + r, a polynomial for eʳ, and two exact scalings by powers of two.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer.
    const LN2_HIGH: f32 = 0.693_359_4; // 10 bits, so that n · LN2_HIGH is exact.
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -104.0 { -104.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
    // Minimax on |r| ≤ ln 2 / 2 (Cephes, expf).
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = (p * r * r + r) + 1.0;
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    let result = value * power(half) * power(n.wrapping_sub(half));
    if x.is_nan() { x } else { result }
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x: an odd polynomial (Cephes, tanhf) below 0.625, 1 − 2/(e²ˣ + 1) beyond.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p * square + 2.063_908_8e-2;
    p = p * square - 5.373_971e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near = p * square * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0)).copysign(x);
    if magnitude > 0.625 { far } else { near }
}

/// 1 − erf(x) for x ≥ 0, exact where it is small: e^(−x²)/x times a polynomial in 1/x² from 1 on (Cephes, erfcf).
#[inline(always)]
fn erfc_of_positive(x: f32, erf_near: f32) -> f32 {
    let inverse = 1.0 / x;
    let y = inverse * inverse;
    let mut p = 2.326_82e-2_f32;
    p = p * y - 1.387_039_4e-1;
    p = p * y + 3.687_424_7e-1;
    p = p * y - 5.824_733e-1;
    p = p * y + 6.210_005e-1;
    p = p * y - 4.944_515_3e-1;
    p = p * y + 3.404_88e-1;
    p = p * y - 2.741_127e-1;
    p = p * y + 5.638_259_4e-1;
    let mut r = -1.047_766_4e1_f32;
    r = r * y + 1.297_72e1;
    r = r * y - 7.495_519;
    r = r * y + 2.921_019;
    r = r * y - 1.015_265_3;
    r = r * y + 4.218_463_4e-1;
    r = r * y - 2.820_767_4e-1;
    r = r * y + 5.641_895e-1;
    let p = if x < 2.0 { p } else { r };
    let far = exp(-x * x) * inverse * p;
    let far = if x > 10.0 { 0.0 } else { far };
    if x < 1.0 { 1.0 - erf_near } else { far }
}

/// erf x for |x| ≤ 1, an odd polynomial (Cephes, erff).
#[inline(always)]
fn erf_near(x: f32) -> f32 {
    let square = x * x;
    let mut p = 7.853_861e-5_f32;
    p = p * square - 8.010_194e-4;
    p = p * square + 5.188_327_6e-3;
    p = p * square - 2.685_381_2e-2;
    p = p * square + 1.128_358_5e-1;
    p = p * square - 3.761_262_6e-1;
    p = p * square + std::f32::consts::FRAC_2_SQRT_PI;
    p * x
}

/// The error function.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let near = erf_near(x);
    let far = (1.0 - erfc_of_positive(magnitude, near.abs())).copysign(x);
    let result = if magnitude < 1.0 { near } else { far };
    if x.is_nan() { x } else { result }
}

/// x/2 · (1 + erf(x/√2)), relative to its own size where x is negative.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    let t = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let tail = 0.5 * erfc_of_positive(t, erf_near(t));
    let result = if x > 0.0 { x * (1.0 - tail) } else { x * tail };
    if x.is_nan() { x } else { result }
}

/// The larger; NaN if either is.
#[inline(always)]
pub(crate) fn maximum(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// The smaller; NaN if either is.
#[inline(always)]
pub(crate) fn minimum(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// −1, 0 or 1 with x's sign; NaN for NaN.
#[inline(always)]
pub(crate) fn sign(x: f32) -> f32 {
    if x == 0.0 || x.is_nan() { x } else { 1f32.copysign(x) }
}

const LANES: usize = 16;
const BLOCK: usize = 4096;

/// Σ map(x), in 16 lanes of fp32 over blocks of 4096 elements, the blocks in f64.
#[inline(always)]
pub(crate) fn sum(values: &[f32], map: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0f64;
    for block in values.chunks(BLOCK) {
        let mut lanes = [0f32; LANES];
        let mut chunks = block.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += map(x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane += map(x);
        }
        total += f64::from(fold(lanes, |a, b| a + b));
    }
    total
}

/// The fold of an associative, commutative `combine` over the values, starting from `start`.
#[inline(always)]
pub(crate) fn extreme(values: &[f32], start: f32, combine: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let mut lanes = [start; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = combine(*lane, x);
    }
    fold(lanes, combine)
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use arcane_chip::arithmetic::{rounded, value};
    use half::f16;

    use super::{erf, exp, extreme, gelu, maximum, round_f16, round_f16_away, sum, tanh};

    #[test]
    fn rounding_away_is_that_of_the_scalar_model() {
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            let want = value(rounded(f64::from(x))) as f32;
            assert_eq!(round_f16_away(x), want, "{x:e}");
            match bits.checked_add(991) {
                Some(next) => bits = next,
                None => break,
            }
        }
        for half in 0..0x7bffu16 {
            let (a, b) = (f16::from_bits(half).to_f32(), f16::from_bits(half + 1).to_f32());
            assert_eq!(round_f16_away(a + (b - a) / 2.0), b, "the tie after {a}");
        }
    }

    #[test]
    fn rounding_to_fp16_is_that_of_the_format() {
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            let want = f16::from_f32(x).to_f32();
            let got = round_f16(x);
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{x:e}: {got:e}, not {want:e}"
            );
            match bits.checked_add(997) {
                Some(next) => bits = next,
                None => break,
            }
        }
    }

    #[test]
    fn exp_is_within_two_units() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        let mut x = -103.9f32;
        while x < 88.7 {
            let want = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * want.max(f64::from(f32::MIN_POSITIVE));
            assert!((f64::from(exp(x)) - want).abs() <= 2.0 * unit, "exp({x}) = {}, not {want}", exp(x));
            x += 0.000_97;
        }
    }

    #[test]
    fn tanh_and_erf_are_within_four_units() {
        let close = |name: &str, x: f32, got: f32, want: f64| {
            let unit = f64::from(f32::EPSILON) * want.abs().max(f64::from(f32::MIN_POSITIVE));
            assert!((f64::from(got) - want).abs() <= 4.0 * unit, "{name}({x}) = {got}, not {want}");
        };
        let mut x = -12.0f32;
        while x < 12.0 {
            close("tanh", x, tanh(x), f64::from(x).tanh());
            x += 0.000_97;
        }
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [
            (0.1f32, 0.112_462_917_694_915),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (1.5, 0.966_105_146_475_310_7),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (9.0, 1.0),
        ] {
            close("erf", x, erf(x), want);
            close("erf", -x, erf(-x), -want);
        }
        // x·Φ(x) with Φ(−5) of 2.866515718791939e-7.
        assert!((gelu(-5.0) / -1.433_257_9e-6 - 1.0).abs() < 1e-5, "{}", gelu(-5.0));
        for f in [tanh, erf] {
            assert_eq!((f(0.0), f(f32::INFINITY), f(f32::NEG_INFINITY)), (0.0, 1.0, -1.0));
            assert!(f(f32::NAN).is_nan());
        }
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_extremes_agree_with_plain_loops() {
        let values: Vec<f32> = (0..10_007).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        assert_eq!(sum(&values, |x| x), values.iter().map(|&x| f64::from(x)).sum::<f64>());
        assert_eq!(extreme(&values, f32::NEG_INFINITY, maximum), 50.0);
        assert!(extreme(&[1.0, f32::NAN, 2.0], f32::NEG_INFINITY, maximum).is_nan());
    }
}
