//! MIL: typed ops, builder, shape and type rules, verifier, text, and the reference evaluator.
//!
//! A [`Program`] holds functions; a [`Function`] is a list of [`Operation`]s in single static assignment. Programs are
//! made with a [`Builder`] or read from text by [`read()`], checked by [`verify`], printed by [`print()`] and
//! evaluated, slowly and obviously, by [`evaluate()`].

mod attribute;
mod blob;
mod builder;
mod composite;
mod evaluate;
mod function;
mod infer;
mod op;
mod package;
mod print;
mod read;
mod regions;
mod rewrite;
mod verify;

pub use attribute::Attribute;
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
pub use op::constexpr::Constexpr;
pub use op::convolution::Convolution;
pub use op::dimensions::Dimensions;
pub use op::einsum::Einsum;
pub use op::index::Index;
pub use op::join::{Join, JoinKind};
pub use op::make::Make;
pub use op::normalisation::Normalisation;
pub use op::pad::{Pad, PadMode};
pub use op::pool::{Pool, PoolKind};
pub use op::quantize::Quantization;
pub use op::random::{Distribution, Random};
pub use op::rearrange::{Factors, Rearrange, Rearrangement};
pub use op::recurrent::{Activation, Back, Cell, Lstm, Recurrent, Way};
pub use op::sample::{BoxMode, Coordinates, Grid, Interpolation, Outside, Sample};
pub use op::slice::{Position, Range, Slice, Span};
pub use op::state::StateOp;
pub use op::transposed::TransposedConvolution;
pub use op::unary::{Gelu, Unary};
pub use op::window::PadType;
pub use op::{Binary, Compare, Logical, Op, Reduce, ScatterMode};
pub use package::{EmittedPackage, Package, PackageError, print_package, write_package};
pub use print::{Emitted, PrintError, Unspellable, identifiers, print};
pub use read::{BlobFolder, NoWeights, ReadError, WeightSource, check, read, read_for};
pub use regions::{HeadGradient, Recognised, Region, ScoreMask, number_of, regions};
pub use rewrite::{Rewriter, remove_dead_code, with_constants};
pub use verify::{Strictness, VerifyError, verify};
