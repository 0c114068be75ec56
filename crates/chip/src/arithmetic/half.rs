//! fp16 bits and what they stand for.

/// Bits of the mantissa.
const MANTISSA: u32 = 10;
const SIGN: u16 = 0x8000;
const INFINITY: u16 = 0x7c00;

/// The number that the multipliers take fp16 bits for: the all-ones exponent is one like any other, so that infinity is 65536
/// and a NaN a number up to 131008. (M6 microarchitecture study.)
pub fn decoded(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff);
    let magnitude = match exponent_field(bits) {
        0 => fraction * 2f64.powi(-24),
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    };
    if bits & SIGN == 0 { magnitude } else { -magnitude }
}

/// The number that element-wise ops take fp16 bits for: a NaN is +∞. (M6 microarchitecture study: NaN + 1 = +∞; ane-guide.)
pub fn value(bits: u16) -> f64 {
    match bits & !SIGN {
        INFINITY if bits & SIGN != 0 => f64::NEG_INFINITY,
        INFINITY.. => f64::INFINITY,
        _ => decoded(bits),
    }
}

/// The nearest fp16 number, of two that are as near the one away from zero; infinite from 65520 on. A NaN, which is what
/// indeterminate forms give here, is +0. (M6 microarchitecture study; ane-guide.)
pub fn rounded(x: f64) -> u16 {
    if x.is_nan() {
        return 0;
    }
    let sign = if x.is_sign_negative() { SIGN } else { 0 };
    let magnitude = x.abs();
    if magnitude >= 65520.0 {
        return sign | INFINITY;
    }
    // The distance of numbers at this magnitude; it is constant below the smallest normal number.
    let exponent = if magnitude < 2f64.powi(-14) { -14 } else { exponent_of(magnitude) };
    let steps = (magnitude / 2f64.powi(exponent - 10)).round();
    // Steps of 2048 are the first number of the next exponent, which is the next bit pattern.
    let field = (exponent + 14) as u16;
    sign | ((field << MANTISSA) + steps as u16)
}

/// Whether bits are those of an infinity.
pub fn is_infinite(bits: u16) -> bool {
    bits & !SIGN == INFINITY
}

/// The exponent by which multipliers judge a product: subnormals and zero count as −14.
pub(super) fn exponent(bits: u16) -> i32 {
    exponent_field(bits).max(1) - 15
}

/// ⌊log₂ x⌋ of a normal, positive number.
pub(super) fn exponent_of(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

fn exponent_field(bits: u16) -> i32 {
    i32::from((bits & INFINITY) >> MANTISSA)
}
