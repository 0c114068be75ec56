//! Which ops are modelled.

use std::collections::BTreeSet;

use arcane_mil::{Function, Index, Op, Reduce, ScatterMode};
use arcane_tensor::DType;

use super::{Tables, binary, unary};

/// The names of a function's ops that take or give fp16 and have no model, sorted.
pub fn unmodelled(tables: Tables, function: &Function) -> BTreeSet<&'static str> {
    let is_fp16 = |v| function.ty(v).dtype == DType::F16;
    let operations = function.operations().iter();
    let computed = operations.filter(|o| o.results.iter().copied().chain(o.op.operands()).any(is_fp16));
    computed.map(|o| &o.op).filter(|op| !is_modelled(tables, function, op)).map(Op::name).collect()
}

fn is_modelled(tables: Tables, function: &Function, op: &Op) -> bool {
    match op {
        Op::Unary { kind, .. } => unary(tables, *kind, 0).is_some(),
        Op::Binary { kind, .. } => binary(tables, *kind, 0, 0).is_some(),
        Op::Convolution(c) => c.groups == 1 && c.is_pointwise(&function.ty(c.weight).shape),
        Op::Reduce { kind, .. } => {
            matches!(kind, Reduce::Sum | Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::SumSquare)
        }
        Op::Scatter { mode, .. }
        | Op::ScatterAlongAxis { mode, .. }
        | Op::Index(Index::ScatterNd { mode, .. }) => *mode == ScatterMode::Update,
        Op::Softmax { .. }
        | Op::ScaledDotProductAttention { .. }
        | Op::TransposedConvolution(_)
        | Op::Pool(_)
        | Op::Quantization(_)
        | Op::Recurrent(_)
        | Op::Sample(_)
        | Op::Einsum(_)
        | Op::Normalisation(_)
        | Op::Channelwise(_)
        | Op::AlongAxis(_)
        | Op::Random(_) => false,
        Op::Matmul { .. }
        | Op::Linear { .. }
        | Op::Constexpr(_)
        | Op::State(_)
        | Op::Const(_)
        | Op::Cast { .. }
        | Op::Compare { .. }
        | Op::Logical { .. }
        | Op::Select { .. }
        | Op::Gather { .. }
        | Op::GatherAlongAxis { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Split { .. }
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Dimensions(_)
        | Op::Rearrange(_)
        | Op::Join(_)
        | Op::Make(_)
        | Op::Index(_)
        | Op::Tile { .. }
        | Op::Fill { .. } => true,
    }
}
