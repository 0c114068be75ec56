//! Weights that lie in files until they are asked for.

use std::borrow::Cow;
use std::ops::Range;

use arcane_tensor::{EncodeError, Encoding, MappedFile, Tensor};

use crate::rope_order::{half_split, interleaved};
use crate::{LlamaConfig, ModelType, ParameterSpec};

/// All parameters of a model, in the order of [`crate::parameters`], each checked to be in one of the files with the shape
/// that the model calls for.
pub(crate) struct Weights {
    pub(crate) files: Vec<MappedFile>,
    pub(crate) specs: Vec<ParameterSpec>,
    pub(crate) stored: Vec<Stored>,
}

/// Where a parameter is.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Index of the file.
    pub(crate) file: usize,
    /// Its bytes there.
    pub(crate) range: Range<usize>,
    pub(crate) encoding: Encoding,
    /// For projections to queries and keys whose rows are interleaved: how many heads there are.
    pub(crate) interleaved_heads: Option<usize>,
}

impl Weights {
    pub(crate) fn parameters(&self) -> impl ExactSizeIterator<Item = Parameter<'_>> {
        self.specs.iter().zip(&self.stored).map(|(spec, stored)| Parameter {
            spec,
            stored,
            bytes: &self.files[stored.file].bytes()[stored.range.clone()],
        })
    }
}

/// A parameter of a model that has been opened; its elements are read when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    spec: &'a ParameterSpec,
    stored: &'a Stored,
    bytes: &'a [u8],
}

impl<'a> Parameter<'a> {
    /// Its name, as Hugging Face has it.
    pub fn name(&self) -> &'a str {
        &self.spec.name
    }

    /// Its shape; matrices are `[out, in]`.
    pub fn shape(&self) -> &'a [usize] {
        &self.spec.shape
    }

    /// How its elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.stored.encoding
    }

    /// The elements as fp32, which holds those of every encoding but the quantised ones exactly; these are computed in fp32.
    pub fn to_f32(&self) -> Tensor {
        let values = self.encoding().decode(&self.half_split());
        Tensor::new(self.shape(), values)
            .expect("the file was checked to hold as many elements as the shape takes")
    }

    /// The elements' bytes in an encoding, rows of heads in Hugging Face's order.
    pub(crate) fn bytes_as(&self, encoding: Encoding) -> Result<Cow<'a, [u8]>, EncodeError> {
        recode(self.half_split(), self.encoding(), encoding)
    }

    /// As [`Parameter::bytes_as`], but the rows of queries and keys are interleaved where llama2.c and llama.cpp have them so.
    pub(crate) fn interleaved_bytes_as(
        &self,
        config: &LlamaConfig,
        encoding: Encoding,
    ) -> Result<Cow<'a, [u8]>, EncodeError> {
        let bytes = match (self.stored.interleaved_heads, interleaved_heads(config, self.name())) {
            (None, Some(heads)) => Cow::Owned(interleaved(self.bytes, heads, self.shape()[0])),
            _ => Cow::Borrowed(self.bytes),
        };
        recode(bytes, self.encoding(), encoding)
    }

    /// The stored bytes, rows of heads in Hugging Face's order.
    fn half_split(&self) -> Cow<'a, [u8]> {
        match self.stored.interleaved_heads {
            Some(heads) => Cow::Owned(half_split(self.bytes, heads, self.shape()[0])),
            None => Cow::Borrowed(self.bytes),
        }
    }
}

fn recode(bytes: Cow<'_, [u8]>, from: Encoding, to: Encoding) -> Result<Cow<'_, [u8]>, EncodeError> {
    if from == to { Ok(bytes) } else { to.encode(&from.decode(&bytes)).map(Cow::Owned) }
}

/// How many heads the rows of a parameter belong to that llama2.c and llama.cpp keep interleaved: Llama's projections to queries
/// and keys. llama.cpp rotates the halves of Qwen3's heads, as Hugging Face does.
pub(crate) fn interleaved_heads(config: &LlamaConfig, name: &str) -> Option<usize> {
    if config.model_type != ModelType::Llama {
        None
    } else if name.ends_with(".self_attn.q_proj.weight") {
        Some(config.num_attention_heads)
    } else if name.ends_with(".self_attn.k_proj.weight") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}
