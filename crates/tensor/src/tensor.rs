//! The tensor itself.

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
        };
        Self::from_data(shape, data)
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
