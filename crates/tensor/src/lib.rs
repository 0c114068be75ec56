//! Arrays on the host: dtype, shape, rounding, comparison, safetensors, npy and npz.
//!
//! A [`Tensor`] owns its elements in row-major order. Nothing here knows about programs or engines.

#[cfg(target_endian = "big")]
compile_error!("elements are stored as their little-endian bytes; big-endian machines are not supported");

mod dtype;
mod element;
mod tensor;

mod compare;
mod file;
mod npy;
mod npz;
mod safetensors;

pub use compare::{Difference, Mismatch, Tolerance, difference};
pub use dtype::{DType, round_to};
pub use element::{Data, Element};
pub use file::{FileError, write_atomically};
pub use npy::{NpyError, NpyHeader, npy_bytes, npy_header, read_npy};
pub use npz::{NpzError, read_npz, write_npz};
pub use safetensors::{SafetensorsFile, write_safetensors};
pub use tensor::{Tensor, TensorError, element_count};
