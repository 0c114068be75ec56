//! Model architectures as MIL functions, and their checkpoints.
//!
//! A [`LlamaConfig`] comes from a Hugging Face `config.json`, from a [`preset`], or from the model's file. [`parameters`]
//! lists the weights that it calls for, [`loss`] builds the function, [`initialize`] draws random weights. [`Source`] opens
//! a model wherever it comes from; [`write_hugging_face`], [`write_llama2c`] and [`write_gguf`] write one.

mod config;
mod unsupported;

mod preset;

mod llama;

mod init;

mod error;
mod rope_order;
mod source;
mod stored;

mod checkpoint;
mod gguf;
mod llama2c;

mod export;
mod gguf_tokenizer;
mod tokenizer_json;

pub use checkpoint::{load, read_config, save};
pub use config::{ConfigError, LlamaConfig, ModelType};
pub use error::LoadError;
pub use export::{ExportError, write_gguf, write_hugging_face, write_llama2c};
pub use init::{initialize, initialize_parameter};
pub use llama::{
    Init, ParameterMap, ParameterSpec, StepShape, declare_parameters, hidden_states, inference, loss,
    parameters, step,
};
pub use llama2c::Llama2cVersion;
pub use preset::{preset, preset_names};
pub use source::{Source, SourceFormat};
pub use stored::Parameter;
pub use tokenizer_json::{Around, Token, TokenKind, sentence_piece_json};
