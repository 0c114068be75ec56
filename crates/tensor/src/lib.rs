//! Arrays on the host: dtype, shape, rounding, comparison, safetensors, npy and npz.
//!
//! A [`Tensor`] owns its elements in row-major order. Nothing here knows about programs or engines.

mod dtype;
mod element;
mod tensor;

pub use dtype::{DType, round_to};
pub use element::{Data, Element};
pub use tensor::{Tensor, TensorError, element_count};
