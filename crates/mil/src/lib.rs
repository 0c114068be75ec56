//! MIL: typed ops, builder, shape and type rules, verifier, text, and the reference evaluator.
//!
//! A [`Program`] holds functions; a [`Function`] is a list of [`Operation`]s in single static assignment. Programs are
//! made with a [`Builder`] or read from text by [`read()`], checked by [`verify`], printed by [`print()`] and
//! evaluated, slowly and obviously, by [`evaluate()`].

mod blob;
mod builder;
mod composite;
mod evaluate;
mod function;
mod infer;
mod op;
mod print;
mod read;
mod regions;
mod rewrite;
mod verify;

pub use blob::{BlobError, BlobFile, BlobWriter, blob_code};
pub use builder::{BuildError, Builder};
pub use composite::AdamW;
pub use evaluate::{EvaluateError, ValueError, evaluate, evaluate_values};
pub use function::{
    Alias, Function, Operation, Opset, Output, Parameter, Program, Role, TensorType, ValueId, ValueInfo,
};
pub use infer::{TypeError, broadcast, infer};
pub use op::along_axis::AlongAxis;
pub use op::channelwise::{ChannelActivation, Channelwise};
pub use op::convolution::Convolution;
pub use op::einsum::Einsum;
pub use op::normalisation::Normalisation;
pub use op::random::{Distribution, Random};
pub use op::unary::{Gelu, Unary};
pub use op::window::PadType;
pub use op::{Binary, Compare, Logical, Op, Reduce, ScatterMode};
pub use print::{Emitted, PrintError, Unspellable, identifiers, print};
pub use read::{BlobFolder, NoWeights, ReadError, WeightSource, check, read};
pub use regions::{HeadGradient, Recognised, Region, ScoreMask, number_of, regions};
pub use rewrite::{Rewriter, remove_dead_code, with_constants};
pub use verify::{Strictness, VerifyError, verify};
