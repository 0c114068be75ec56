//! Arrays on the host: dtype, shape, rounding, comparison, safetensors, GGUF, npy and npz.
//!
//! A [`Tensor`] owns its elements in row-major order. Nothing here knows about programs or engines.

#[cfg(target_endian = "big")]
compile_error!("elements are stored as their little-endian bytes; big-endian machines are not supported");

mod dtype;
mod element;
mod tensor;

mod compare;
mod encoding;
mod file;
mod gguf;
mod map;
mod npy;
mod npz;
mod safetensors;

pub use compare::{Difference, Mismatch, Tolerance, difference};
pub use dtype::{DType, round_to};
pub use element::{Data, Element};
pub use encoding::{EncodeError, Encoding};
pub use file::{FileError, read_limited, write_atomically, write_folder_atomically};
pub use gguf::{GgufEntry, GgufFile, GgufTensor, GgufValue, write_gguf};
pub use map::MappedFile;
pub use npy::{NpyError, NpyHeader, npy_bytes, npy_header, read_npy};
pub use npz::{NpzError, read_npz, write_npz};
pub use safetensors::{SafetensorsEntry, SafetensorsFile, stream_safetensors, write_safetensors};
pub use tensor::{Tensor, TensorError, element_count};
