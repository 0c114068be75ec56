//! Model architectures as MIL functions, and their checkpoints.
//!
//! A [`LlamaConfig`] comes from a Hugging Face `config.json` or from a [`preset`]. [`parameters`] lists the weights that it
//! calls for, [`loss`] builds the function, [`initialize`] draws random weights and [`load`] reads those of a checkpoint.

mod config;
mod unsupported;

mod preset;

mod llama;

mod init;

mod checkpoint;

pub use checkpoint::{LoadError, load, read_config, save};
pub use config::{ConfigError, LlamaConfig};
pub use init::{initialize, initialize_parameter};
pub use llama::{
    Init, ParameterMap, ParameterSpec, StepShape, declare_parameters, hidden_states, loss, parameters, step,
};
pub use preset::{preset, preset_names};
