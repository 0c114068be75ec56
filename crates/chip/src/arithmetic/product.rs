//! Sums of products.

use super::half::{decoded, exponent, rounded};

/// The accumulator's unit, as a power of two.
const FRACTION_BITS: i32 = 16;

/// Products whose operands' exponents sum to this or less are dropped.
const DROPPED_EXPONENT: i32 = -17;

/// Which infinity an accumulator is stuck at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// −∞
    Below,
    /// +∞
    Above,
}

/// One output of a convolution or matrix product: a fixed-point sum of 15 integer and 16 fractional bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accumulator {
    /// The sum in units of 2⁻¹⁶.
    sum: i64,
    overflow: Option<Overflow>,
}

impl Accumulator {
    /// Starts from a bias, which is rounded as a product is.
    pub fn new(bias: u16) -> Self {
        let mut start = Self::default();
        start.add_units(units(decoded(bias)));
        start
    }

    /// Adds the product of two fp16 numbers, rounded half away from zero to a multiple of 2⁻¹⁶, or nothing if the exponents of
    /// the two sum to −17 or less. From ±2¹⁵ on the sum is infinite and stays so.
    pub fn add(&mut self, x: u16, weight: u16) {
        if exponent(x) + exponent(weight) > DROPPED_EXPONENT {
            // 22 bits of mantissa: exact.
            self.add_units(units(decoded(x) * decoded(weight)));
        }
    }

    fn add_units(&mut self, units: i64) {
        if self.overflow.is_some() {
            return;
        }
        self.sum += units;
        let limit = 1 << (15 + FRACTION_BITS);
        if self.sum >= limit {
            self.overflow = Some(Overflow::Above);
        } else if self.sum <= -limit {
            self.overflow = Some(Overflow::Below);
        }
    }

    /// The sum, rounded half away from zero to fp16.
    pub fn result(self) -> u16 {
        rounded(match self.overflow {
            None => self.sum as f64 * 2f64.powi(-FRACTION_BITS),
            Some(Overflow::Above) => f64::INFINITY,
            Some(Overflow::Below) => f64::NEG_INFINITY,
        })
    }

    /// Whether it overflowed, and to which side.
    pub fn overflow(self) -> Option<Overflow> {
        self.overflow
    }
}

/// A number in units of the accumulator, half away from zero.
fn units(x: f64) -> i64 {
    (x * 2f64.powi(FRACTION_BITS)).round() as i64
}

/// The product of int8 numbers: their sum in int32, infinite from ±2³¹ on, times a scale.
pub fn int8_product(terms: impl IntoIterator<Item = (i8, i8)>, scale: f64) -> u16 {
    let mut sum = 0i64;
    for (x, weight) in terms {
        sum += i64::from(x) * i64::from(weight);
        if i32::try_from(sum).is_err() {
            return rounded(sum.signum() as f64 * f64::INFINITY);
        }
    }
    rounded(sum as f64 * scale)
}
