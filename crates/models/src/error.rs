//! Why a model cannot be loaded.

use std::path::PathBuf;

use arcane_tensor::{DType, FileError};

use crate::ConfigError;

/// Names that an error lists before it only counts.
const LISTED: usize = 8;

/// Why a model cannot be loaded. Every message starts with the path of the file at fault.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read or breaks its format.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not the configuration of a model.
    #[error("{}: {what}", path.display())]
    NotConfig {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        what: String,
    },
    /// The file is no model.
    #[error("{}: {what}", path.display())]
    NotModel {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        what: String,
    },
    /// The index of weights in several files is wrong, or does not agree with the files.
    #[error("{}: {what}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The tensors are not those that the configuration calls for.
    #[error("{}: {}", path.display(), describe_names(missing, unexpected))]
    Names {
        /// The file.
        path: PathBuf,
        /// Tensors that should be there, in the model's order.
        missing: Vec<String>,
        /// Tensors that should not be there, sorted.
        unexpected: Vec<String>,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("{}: tensor `{name}` has shape {found:?}, {expected:?} was expected", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
    },
    /// A tensor's elements are not floating-point numbers that can be read as weights.
    #[error("{}: tensor `{name}` holds {found}, fp32, fp16 or bf16 was expected", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        found: DType,
    },
}

fn describe_names(missing: &[String], unexpected: &[String]) -> String {
    let list = |names: &[String]| {
        let shown: Vec<String> = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect();
        let more = names.len() - shown.len();
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        shown.join(", ") + &and_more
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("tensors are missing: {}", list(missing)));
    }
    if !unexpected.is_empty() {
        parts.push(format!("tensors do not belong to this model: {}", list(unexpected)));
    }
    parts.join("; ")
}
