//! The element types of Rust that a tensor can hold, and its storage.

use half::{bf16, f16};

use crate::{DType, dtype::sticky, round_to};

/// A Rust type that is the element of a tensor.
pub trait Element: Copy + PartialEq + Send + Sync + std::fmt::Debug + bytemuck::NoUninit + 'static {
    /// Its dtype.
    const DTYPE: DType;
    /// Zero (or false).
    const ZERO: Self;
    /// The element nearest to `x`, rounded as by [`crate::round_to`].
    fn from_f64(x: f64) -> Self;
    /// The value as `f64`; exact for all types but 64-bit integers above 2^53.
    fn to_f64(self) -> f64;
    /// Wraps a vector.
    fn wrap(data: Vec<Self>) -> Data;
    /// The slice inside, if the storage has this type.
    fn slice(data: &Data) -> Option<&[Self]>;
    /// The mutable slice inside, if the storage has this type.
    fn slice_mut(data: &mut Data) -> Option<&mut [Self]>;
    /// The vector inside, if the storage has this type.
    fn unwrap(data: Data) -> Option<Vec<Self>>;
}

macro_rules! elements {
    ($($variant:ident $ty:ty, $zero:expr, $from:expr, $to:expr;)*) => {
        /// The elements of a tensor.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "one variant a dtype, but for those of less than a byte")]
        pub enum Data {
            $($variant(Vec<$ty>),)*
            /// Elements of a type of less than a byte, each in a byte of its own and in its type's range.
            SubByte(DType, Vec<i8>),
        }

        impl Data {
            /// The type of the elements.
            pub fn dtype(&self) -> DType {
                match self { $(Self::$variant(_) => DType::$variant,)* Self::SubByte(dtype, _) => *dtype }
            }
            /// How many elements there are.
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len(),)* Self::SubByte(_, v) => v.len() }
            }
            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
            /// `n` zeros of a type.
            pub fn zeros(dtype: DType, n: usize) -> Self {
                match dtype {
                    $(DType::$variant => Self::$variant(vec![$zero; n]),)*
                    DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                        Self::SubByte(dtype, vec![0; n])
                    }
                }
            }
            /// Each value rounded to the type.
            pub fn from_f64s(dtype: DType, values: &[f64]) -> Self {
                match dtype {
                    $(DType::$variant => {
                        Self::$variant(values.iter().map(|&x| <$ty as Element>::from_f64(x)).collect())
                    })*
                    DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                        Self::SubByte(dtype, values.iter().map(|&x| round_to(dtype, x) as i8).collect())
                    }
                }
            }
            /// The bytes in memory order.
            pub fn bytes(&self) -> &[u8] {
                match self { $(Self::$variant(v) => bytemuck::cast_slice(v),)* Self::SubByte(_, v) => bytemuck::cast_slice(v) }
            }
            /// One element as `f64`.
            pub fn get(&self, i: usize) -> f64 {
                match self { $(Self::$variant(v) => v[i].to_f64(),)* Self::SubByte(_, v) => f64::from(v[i]) }
            }
        }

        $(impl Element for $ty {
            const DTYPE: DType = DType::$variant;
            const ZERO: Self = $zero;
            fn from_f64(x: f64) -> Self { ($from)(x) }
            fn to_f64(self) -> f64 { ($to)(self) }
            fn wrap(data: Vec<Self>) -> Data { Data::$variant(data) }
            fn slice(data: &Data) -> Option<&[Self]> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn slice_mut(data: &mut Data) -> Option<&mut [Self]> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn unwrap(data: Data) -> Option<Vec<Self>> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
        })*
    };
}

elements! {
    Bool bool, false, |x: f64| x != 0.0, |x: bool| f64::from(u8::from(x));
    F16 f16, f16::ZERO, |x: f64| f16::from_f64(sticky(x)), |x: f16| x.to_f64();
    Bf16 bf16, bf16::ZERO, |x: f64| bf16::from_f64(sticky(x)), |x: bf16| x.to_f64();
    F32 f32, 0.0, |x: f64| x as f32, f64::from;
    F64 f64, 0.0, |x: f64| x, |x: f64| x;
    I8 i8, 0, |x: f64| x as i8, f64::from;
    I16 i16, 0, |x: f64| x as i16, f64::from;
    I32 i32, 0, |x: f64| x as i32, f64::from;
    I64 i64, 0, |x: f64| x as i64, |x: i64| x as f64;
    U8 u8, 0, |x: f64| x as u8, f64::from;
    U16 u16, 0, |x: f64| x as u16, f64::from;
    U32 u32, 0, |x: f64| x as u32, f64::from;
    U64 u64, 0, |x: f64| x as u64, |x: u64| x as f64;
}
