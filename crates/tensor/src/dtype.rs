//! Element types and rounding to them.

use half::{bf16, f16};

/// The type of one element. Names are those of MIL's text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the variants are the types' own names")]
pub enum DType {
    Bool,
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    U1,
    U2,
    U3,
    U4,
    U6,
    I4,
}

impl DType {
    /// The types of less than a byte. Only compressed weights have them; in memory each element takes a byte.
    pub const SUB_BYTE: [Self; 6] = [Self::U1, Self::U2, Self::U3, Self::U4, Self::U6, Self::I4];

    /// Bytes that one element takes in memory.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool
            | Self::I8
            | Self::U8
            | Self::U1
            | Self::U2
            | Self::U3
            | Self::U4
            | Self::U6
            | Self::I4 => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The name in MIL text: `fp16`, `int32`, `bool`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
            Self::F32 => "fp32",
            Self::F64 => "fp64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::U1 => "uint1",
            Self::U2 => "uint2",
            Self::U3 => "uint3",
            Self::U4 => "uint4",
            Self::U6 => "uint6",
            Self::I4 => "int4",
        }
    }

    /// Bits that one element takes in a weight file.
    pub const fn bits(self) -> usize {
        match self {
            Self::U1 => 1,
            Self::U2 => 2,
            Self::U3 => 3,
            Self::U4 | Self::I4 => 4,
            Self::U6 => 6,
            _ => 8 * self.size(),
        }
    }

    /// Whether an element has less than eight bits (`bool` has eight).
    pub const fn is_sub_byte(self) -> bool {
        self.bits() < 8
    }

    /// The smallest and the largest value of a type of less than a byte.
    pub(crate) const fn sub_byte_range(self) -> [i8; 2] {
        match self {
            Self::I4 => [-8, 7],
            _ => [0, (1 << self.bits()) - 1],
        }
    }

    /// Whether this is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// Whether this is a signed or unsigned integer type (`bool` is not).
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, Self::Bool)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of `dtype` nearest to `x` (ties to even for floats; integers truncate toward zero and saturate; `bool` is
/// `x != 0`), as an `f64`.
pub fn round_to(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::Bool => f64::from(u8::from(x != 0.0)),
        DType::F16 => f16::from_f64(sticky(x)).to_f64(),
        DType::Bf16 => bf16::from_f64(sticky(x)).to_f64(),
        DType::F32 => f64::from(x as f32),
        DType::F64 => x,
        DType::I8 => f64::from(x as i8),
        DType::I16 => f64::from(x as i16),
        DType::I32 => f64::from(x as i32),
        DType::I64 => (x as i64) as f64,
        DType::U8 => f64::from(x as u8),
        DType::U16 => f64::from(x as u16),
        DType::U32 => f64::from(x as u32),
        DType::U64 => (x as u64) as f64,
        DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
            let [low, high] = dtype.sub_byte_range();
            f64::from((x as i8).clamp(low, high))
        }
    }
}

/// `x` with the low half of its mantissa folded into one bit, which 16-bit floats lie far above.
///
/// Conversions of `f64` to them often go by way of `f32` or ignore the low half, and then see a tie where there is none.
pub(crate) fn sticky(x: f64) -> f64 {
    let low_half = x.to_bits() & 0xffff_ffff;
    if x.is_finite() && low_half != 0 { f64::from_bits((x.to_bits() ^ low_half) | 1 << 32) } else { x }
}

#[cfg(test)]
mod tests {
    use super::{DType, round_to};

    #[test]
    fn sixteen_bit_floats_are_rounded_once() {
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(round_to(DType::F16, tie), 1.0);
        for beyond in [2f64.powi(-36), 2f64.powi(-52)] {
            assert_eq!(round_to(DType::F16, tie + beyond), 1.0 + 2f64.powi(-10));
            assert_eq!(round_to(DType::F16, -tie - beyond), -1.0 - 2f64.powi(-10));
        }
        assert_eq!(round_to(DType::F16, 3.0 + 2f64.powi(-10) - 2f64.powi(-51)), 3.0);
        assert_eq!(round_to(DType::F16, 3.0 + 3.0 * 2f64.powi(-10) - 2f64.powi(-51)), 3.0 + 2f64.powi(-9));
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(round_to(DType::Bf16, tie), 1.0);
        assert_eq!(round_to(DType::Bf16, tie + 2f64.powi(-52)), 1.0 + 2f64.powi(-7));
        assert_eq!(round_to(DType::F16, 2f64.powi(-25)), 0.0);
        assert_eq!(round_to(DType::F16, 2f64.powi(-25) * (1.0 + f64::EPSILON)), 2f64.powi(-24));
        assert_eq!(round_to(DType::F16, 65519.999), 65504.0);
        assert_eq!(round_to(DType::F16, 65520.0), f64::INFINITY);
        assert!(round_to(DType::F16, f64::NAN).is_nan());
    }
}
