//! How weights are stored in files: plain floats, or blocks of small integers that share a scale.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::{DType, element_count};

/// A form in which floating-point numbers are stored. The quantised ones are those of ggml: a block of 32 numbers along
/// the innermost dimension, little-endian.
///
/// | encoding | block | a number is |
/// |---|---|---|
/// | `Q4_0` | scale d fp16, then 16 bytes: the low halves are numbers 0 to 15, the high ones 16 to 31 | d·(q − 8) |
/// | `Q4_1` | scale d and least value m fp16, then 16 bytes as in `Q4_0` | d·q + m |
/// | `Q8_0` | scale d fp16, then 32 signed bytes | d·q |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the encodings' own names")]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
}

/// Why numbers cannot be stored in an encoding.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A number would become infinite, or has no place in a block.
    #[error("element {index} is {value:e}, which {encoding} cannot hold")]
    Range {
        /// Its row-major index.
        index: usize,
        /// The number.
        value: f32,
        /// The encoding.
        encoding: Encoding,
    },
    /// This encoding is only read.
    #[error("{0} is only read; expected fp32, fp16, bf16 or Q8_0")]
    ReadOnly(Encoding),
    /// The numbers do not fill whole blocks.
    #[error("{count} elements do not fill blocks of {block}, which {encoding} has")]
    Partial {
        /// How many numbers there are.
        count: usize,
        /// How many a block takes.
        block: usize,
        /// The encoding.
        encoding: Encoding,
    },
}

/// Numbers in a block of a quantised encoding.
const BLOCK: usize = 32;

impl Encoding {
    /// The encoding of plain elements of a type; none for types that are not stored weights.
    pub const fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::Bf16 => Some(Self::Bf16),
            _ => None,
        }
    }

    /// The type of the elements, none for a quantised encoding.
    pub const fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::Bf16),
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => None,
        }
    }

    /// Elements of a block; the innermost dimension has to be a multiple.
    pub const fn block_len(self) -> usize {
        if self.dtype().is_some() { 1 } else { BLOCK }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q4_1 => 4 + BLOCK / 2,
            Self::Q8_0 => 2 + BLOCK,
        }
    }

    /// Bytes that a tensor takes; none if blocks do not divide its innermost dimension or the product overflows.
    pub fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let innermost = shape.last().copied().unwrap_or(1);
        if !innermost.is_multiple_of(self.block_len()) {
            return None;
        }
        (element_count(shape)? / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The numbers of whole blocks; what is left over after the last is ignored. Products and sums are fp32 operations,
    /// each rounded.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Self::F16 => {
                let halves: Vec<f16> = bytes.chunks_exact(2).map(half_at).collect();
                let mut values = vec![0.0; halves.len()];
                halves.convert_to_f32_slice(&mut values);
                values
            }
            Self::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Self::Q4_0 => self.decode_blocks(bytes, |block, out| {
                let d = half_at(block).to_f32();
                nibbles(&block[2..], out, |q| d * (f32::from(q) - 8.0));
            }),
            Self::Q4_1 => self.decode_blocks(bytes, |block, out| {
                let (d, m) = (half_at(block).to_f32(), half_at(&block[2..]).to_f32());
                nibbles(&block[4..], out, |q| d * f32::from(q) + m);
            }),
            Self::Q8_0 => self.decode_blocks(bytes, |block, out| {
                let d = half_at(block).to_f32();
                for (x, &q) in out.iter_mut().zip(&block[2..]) {
                    *x = d * f32::from(q.cast_signed());
                }
            }),
        }
    }

    fn decode_blocks(self, bytes: &[u8], decode: impl Fn(&[u8], &mut [f32])) -> Vec<f32> {
        let blocks = bytes.chunks_exact(self.block_bytes());
        let mut values = vec![0.0; blocks.len() * BLOCK];
        for (block, out) in blocks.zip(values.chunks_exact_mut(BLOCK)) {
            decode(block, out);
        }
        values
    }

    /// Stores numbers, each rounded to the nearest that the encoding has: ties to even for plain types, away from zero in a
    /// block of `Q8_0`, whose scale is the largest magnitude divided by 127.
    ///
    /// # Errors
    /// [`EncodeError`], rather than infinities in place of numbers.
    pub fn encode(self, values: &[f32]) -> Result<Vec<u8>, EncodeError> {
        if !values.len().is_multiple_of(self.block_len()) {
            let (count, block) = (values.len(), self.block_len());
            return Err(EncodeError::Partial { count, block, encoding: self });
        }
        let range = |index: usize| EncodeError::Range { index, value: values[index], encoding: self };
        match self {
            Self::F32 => Ok(bytemuck::cast_slice(values).to_vec()),
            Self::F16 => encode_halves(values, |x| {
                let stored = f16::from_f32(x);
                (stored.to_le_bytes(), stored.is_finite())
            })
            .map_err(range),
            Self::Bf16 => encode_halves(values, |x| {
                let stored = bf16::from_f32(x);
                (stored.to_le_bytes(), stored.is_finite())
            })
            .map_err(range),
            Self::Q8_0 => {
                let mut bytes = Vec::with_capacity(values.len() / BLOCK * self.block_bytes());
                for (i, block) in values.chunks_exact(BLOCK).enumerate() {
                    encode_q8_0(block, &mut bytes).map_err(|at| range(i * BLOCK + at))?;
                }
                Ok(bytes)
            }
            Self::Q4_0 | Self::Q4_1 => Err(EncodeError::ReadOnly(self)),
        }
    }

    /// The name: that of the type, or ggml's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "fp32",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q8_0 => "Q8_0",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fp16 number in the first two bytes.
fn half_at(bytes: &[u8]) -> f16 {
    f16::from_le_bytes([bytes[0], bytes[1]])
}

fn nibbles(packed: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(packed) {
        (*low, *high) = (value(byte & 15), value(byte >> 4));
    }
}

/// Two bytes a number, and whether they are finite; on failure the index of the number that does not fit.
fn encode_halves(values: &[f32], round: impl Fn(f32) -> ([u8; 2], bool)) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for (i, &x) in values.iter().enumerate() {
        let (stored, finite) = round(x);
        if x.is_finite() && !finite {
            return Err(i);
        }
        bytes.extend(stored);
    }
    Ok(bytes)
}

/// One block; on failure the index of the number that does not fit.
fn encode_q8_0(block: &[f32], bytes: &mut Vec<u8>) -> Result<(), usize> {
    let (mut at, mut largest) = (0, 0.0f32);
    for (i, x) in block.iter().enumerate() {
        if !x.is_finite() {
            return Err(i);
        }
        if x.abs() > largest {
            (at, largest) = (i, x.abs());
        }
    }
    let d = largest / 127.0;
    let stored = f16::from_f32(d);
    if !stored.is_finite() {
        return Err(at);
    }
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    bytes.extend(stored.to_le_bytes());
    bytes.extend(block.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(head: &[f32], body: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = head.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn blocks_are_read_as_their_formulas_say() {
        let packed: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let q = |i: usize| if i < 16 { i as f32 } else { (31 - i) as f32 };
        let want = |f: fn(f32) -> f32| (0..32).map(|i| f(q(i))).collect::<Vec<f32>>();
        assert_eq!(Encoding::Q4_0.decode(&block(&[0.5], &packed)), want(|q| 0.5 * (q - 8.0)));
        assert_eq!(Encoding::Q4_1.decode(&block(&[0.25, -3.0], &packed)), want(|q| 0.25 * q - 3.0));
        let signed: Vec<u8> = (0..32).map(|i| (i - 16i8).cast_unsigned()).collect();
        let want: Vec<f32> = (0..32).map(|i| 2.0 * (i as f32 - 16.0)).collect();
        assert_eq!(Encoding::Q8_0.decode(&block(&[2.0], &signed)), want);
    }

    #[test]
    fn q8_0_rounds_halves_away_from_zero() {
        let mut values = vec![0.0; 32];
        values[..5].copy_from_slice(&[127.0, -0.5, 0.5, 1.5, -126.5]);
        let bytes = Encoding::Q8_0.encode(&values).unwrap();
        assert_eq!(bytes, block(&[1.0], &[&[127, 255, 1, 2, 129][..], &[0; 27]].concat()));
        assert_eq!(Encoding::Q8_0.encode(&[0.0; 32]).unwrap(), vec![0; 34]);
    }

    #[test]
    fn plain_types_round_once_and_come_back() {
        let tie = 1.0 + 2f32.powi(-11);
        assert_eq!(
            Encoding::F16.decode(&Encoding::F16.encode(&[tie, -2.5, 0.1]).unwrap()),
            [1.0, -2.5, f16::from_f32(0.1).to_f32()]
        );
        let tie = 1.0 + 2f32.powi(-8);
        assert_eq!(Encoding::Bf16.decode(&Encoding::Bf16.encode(&[tie, -2.5]).unwrap()), [1.0, -2.5]);
        let odd = [f32::MIN_POSITIVE / 2.0, -0.0, f32::INFINITY];
        assert_eq!(Encoding::F32.decode(&Encoding::F32.encode(&odd).unwrap()), odd);
        assert_eq!(Encoding::F16.decode(&Encoding::F16.encode(&[f32::INFINITY]).unwrap()), [f32::INFINITY]);
    }

    #[test]
    fn numbers_that_an_encoding_cannot_hold_are_named() {
        let error = Encoding::F16.encode(&[1.0, 65_520.0]).unwrap_err();
        assert_eq!(error.to_string(), "element 1 is 6.552e4, which fp16 cannot hold");
        assert!(Encoding::Bf16.encode(&[f32::MAX]).is_err());
        let mut values = vec![0.0; 64];
        values[40] = f32::NAN;
        assert!(matches!(Encoding::Q8_0.encode(&values), Err(EncodeError::Range { index: 40, .. })));
        values[40] = -1e7;
        assert!(matches!(Encoding::Q8_0.encode(&values), Err(EncodeError::Range { index: 40, .. })));
        assert!(matches!(Encoding::Q8_0.encode(&values[..33]), Err(EncodeError::Partial { .. })));
        assert!(matches!(Encoding::Q4_0.encode(&values), Err(EncodeError::ReadOnly(_))));
    }

    #[test]
    fn lengths_count_whole_blocks() {
        assert_eq!(Encoding::Q4_1.byte_len(&[3, 64]), Some(120));
        assert_eq!(Encoding::Q8_0.byte_len(&[64, 3]), None);
        assert_eq!(Encoding::F16.byte_len(&[]), Some(2));
        assert_eq!(Encoding::F32.byte_len(&[usize::MAX / 2, 1]), None);
    }
}
