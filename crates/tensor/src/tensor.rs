//! The tensor itself.

use std::borrow::Cow;

use crate::{DType, Data, Element};

/// What can be wrong with the parts of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The number of elements does not fit the shape.
    #[error("shape {shape:?} takes {expected} elements, {found} were given")]
    Length {
        /// The shape.
        shape: Vec<usize>,
        /// Elements that the shape takes.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// The product of the dimensions overflows.
    #[error("shape {0:?} has more elements than can be addressed")]
    TooLarge(Vec<usize>),
    /// The bytes are not elements of the type (wrong length, or a `bool` byte that is neither 0 nor 1).
    #[error("the bytes are not {dtype} elements: {what}")]
    Bytes {
        /// The type wanted.
        dtype: DType,
        /// What is wrong.
        what: String,
    },
}

/// The number of elements of a shape; `None` where the product overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// A dense array in row-major order. Rank 0 (an empty shape) is a scalar.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape` from its elements in row-major order.
    pub fn new<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Self, TensorError> {
        Self::from_data(shape, T::wrap(data))
    }

    /// A tensor from typed storage.
    pub fn from_data(shape: &[usize], data: Data) -> Result<Self, TensorError> {
        let expected = element_count(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if expected != data.len() {
            return Err(TensorError::Length { shape: shape.to_vec(), expected, found: data.len() });
        }
        Ok(Self { shape: shape.to_vec(), data })
    }

    /// A tensor from `f64` values, each rounded to `dtype`.
    pub fn from_f64s(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Self, TensorError> {
        Self::from_data(shape, Data::from_f64s(dtype, values))
    }

    /// A tensor from little-endian bytes.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        fn pod<T: Element + bytemuck::AnyBitPattern>(bytes: &[u8]) -> Data {
            T::wrap(bytemuck::allocation::pod_collect_to_vec(bytes))
        }
        let n = element_count(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        if n.checked_mul(dtype.size()) != Some(bytes.len()) {
            let what = format!("{} bytes for {n} elements of {} bytes", bytes.len(), dtype.size());
            return Err(TensorError::Bytes { dtype, what });
        }
        let data = match dtype {
            DType::Bool => {
                if let Some(bad) = bytes.iter().find(|&&b| b > 1) {
                    return Err(TensorError::Bytes { dtype, what: format!("byte {bad} is neither 0 nor 1") });
                }
                Data::Bool(bytes.iter().map(|&b| b != 0).collect())
            }
            DType::F16 => pod::<half::f16>(bytes),
            DType::Bf16 => pod::<half::bf16>(bytes),
            DType::F32 => pod::<f32>(bytes),
            DType::F64 => pod::<f64>(bytes),
            DType::I8 => pod::<i8>(bytes),
            DType::I16 => pod::<i16>(bytes),
            DType::I32 => pod::<i32>(bytes),
            DType::I64 => pod::<i64>(bytes),
            DType::U8 => pod::<u8>(bytes),
            DType::U16 => pod::<u16>(bytes),
            DType::U32 => pod::<u32>(bytes),
            DType::U64 => pod::<u64>(bytes),
            DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                let [low, high] = dtype.sub_byte_range();
                let values: Vec<i8> = bytemuck::allocation::pod_collect_to_vec(bytes);
                if let Some(bad) = values.iter().find(|&v| !(low..=high).contains(v)) {
                    return Err(TensorError::Bytes { dtype, what: format!("{bad} is not {low} to {high}") });
                }
                Data::SubByte(dtype, values)
            }
        };
        Self::from_data(shape, data)
    }

    /// A tensor from elements packed without gaps, the first in the lowest bits of the first byte, as weight files have them.
    /// Types of whole bytes are their bytes.
    ///
    /// # Errors
    /// [`TensorError::Bytes`] if there are not ⌈elements · bits / 8⌉ bytes; as [`Tensor::from_bytes`].
    pub fn from_packed(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        if !dtype.is_sub_byte() {
            return Self::from_bytes(dtype, shape, bytes);
        }
        let n = element_count(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        let bits = dtype.bits();
        if n.checked_mul(bits).map(|b| b.div_ceil(8)) != Some(bytes.len()) {
            let what = format!("{} bytes for {n} elements of {bits} bits", bytes.len());
            return Err(TensorError::Bytes { dtype, what });
        }
        let element = |i: usize| {
            let (byte, shift) = (i * bits / 8, i * bits % 8);
            let next = bytes.get(byte + 1).copied().unwrap_or(0);
            let value = (u16::from_le_bytes([bytes[byte], next]) >> shift) & ((1 << bits) - 1);
            // The sign of int4 is its highest bit.
            if dtype == DType::I4 { ((value << 4) as u8 as i8) >> 4 } else { value as i8 }
        };
        Self::from_data(shape, Data::SubByte(dtype, (0..n).map(element).collect()))
    }

    /// The elements packed as [`Tensor::from_packed`] takes them; the bits after the last are 0.
    pub fn packed(&self) -> Cow<'_, [u8]> {
        let Data::SubByte(dtype, values) = &self.data else { return Cow::Borrowed(self.bytes()) };
        let bits = dtype.bits();
        let mut bytes = vec![0; (values.len() * bits).div_ceil(8)];
        for (i, &v) in values.iter().enumerate() {
            let (byte, shift) = (i * bits / 8, i * bits % 8);
            let value = u16::from(v as u8) & ((1 << bits) - 1);
            let [low, high] = (value << shift).to_le_bytes();
            bytes[byte] |= low;
            if high != 0 {
                bytes[byte + 1] |= high;
            }
        }
        Cow::Owned(bytes)
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Vec::new(), data: T::wrap(vec![value]) }
    }

    /// Zeros (or false).
    ///
    /// # Panics
    /// If the shape has more elements than can be addressed.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let n = element_count(shape).expect("the shape can be addressed");
        Self { shape: shape.to_vec(), data: Data::zeros(dtype, n) }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The typed storage.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, if they have this type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::slice(&self.data)
    }

    /// The elements, mutable, if they have this type.
    pub fn as_slice_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        T::slice_mut(&mut self.data)
    }

    /// The elements as a vector, if they have this type.
    pub fn into_vec<T: Element>(self) -> Option<Vec<T>> {
        T::unwrap(self.data)
    }

    /// The elements' bytes in memory order.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// Element `i` in row-major order.
    pub fn get(&self, i: usize) -> f64 {
        self.data.get(i)
    }

    /// All elements as `f64`.
    pub fn to_f64s(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.data.get(i)).collect()
    }

    /// The same values in another type (see [`crate::round_to`]); 64-bit integers above 2^53 lose their low bits.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Self {
        if dtype == self.dtype() {
            return self.clone();
        }
        Self { shape: self.shape.clone(), data: Data::from_f64s(dtype, &self.to_f64s()) }
    }

    /// The same elements under another shape of as many elements.
    pub fn reshape(self, shape: &[usize]) -> Result<Self, TensorError> {
        Self::from_data(shape, self.data)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head: Vec<f64> = (0..self.len().min(8)).map(|i| self.get(i)).collect();
        let more = if self.len() > 8 { ", ..." } else { "" };
        write!(f, "tensor<{}, {:?}>({head:?}{more})", self.dtype(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::Tensor;
    use crate::DType;

    #[test]
    fn elements_of_less_than_a_byte_are_packed_from_the_lowest_bit() {
        let vectors: [(DType, &[f64], &[u8]); 6] = [
            (DType::I4, &[-8.0, 7.0, 1.0], &[0x78, 0x01]),
            (DType::U1, &[0.0, 1.0, 0.0, 1.0, 0.0], &[0x0a]),
            (DType::U2, &[0.0, 1.0, 2.0, 3.0, 0.0], &[0xe4, 0x00]),
            (DType::U3, &[0.0, 1.0, 2.0, 3.0, 4.0], &[0x88, 0x46]),
            (DType::U4, &[0.0, 1.0, 2.0, 3.0, 4.0], &[0x10, 0x32, 0x04]),
            (DType::U6, &[0.0, 1.0, 2.0, 3.0, 4.0], &[0x40, 0x20, 0x0c, 0x04]),
        ];
        for (dtype, values, packed) in vectors {
            let tensor = Tensor::from_f64s(dtype, &[values.len()], values).unwrap();
            assert_eq!(*tensor.packed(), *packed, "{dtype}");
            assert_eq!(Tensor::from_packed(dtype, &[values.len()], packed).unwrap(), tensor);
            assert!(Tensor::from_packed(dtype, &[values.len() + 8], packed).is_err());
            assert!(Tensor::from_bytes(dtype, &[1], &[200]).is_err());
        }
        let ends = Tensor::from_f64s(DType::I4, &[2], &[-100.0, 100.0]).unwrap();
        assert_eq!(ends.to_f64s(), [-8.0, 7.0]);
        let all: Vec<f64> = (0..64).map(f64::from).collect();
        let six = Tensor::from_f64s(DType::U6, &[8, 8], &all).unwrap();
        assert_eq!(Tensor::from_packed(DType::U6, &[8, 8], &six.packed()).unwrap(), six);
    }
}
