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

    use super::{exp, extreme, maximum, round_f16, round_f16_away, sum};

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
    fn sums_and_extremes_agree_with_plain_loops() {
        let values: Vec<f32> = (0..10_007).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        assert_eq!(sum(&values, |x| x), values.iter().map(|&x| f64::from(x)).sum::<f64>());
        assert_eq!(extreme(&values, f32::NEG_INFINITY, maximum), 50.0);
        assert!(extreme(&[1.0, f32::NAN, 2.0], f32::NEG_INFINITY, maximum).is_nan());
    }
}
