//! The ops. Semantics follow coremltools' definitions (opset ios18) unless said otherwise.
//!
//! Families of element-wise ops that share one type rule are one variant with a kind; every other op is a variant of its
//! own, or one of a family with a module of its own. Axes are stored counted from the front.

pub(crate) mod along_axis;
pub(crate) mod channelwise;
pub(crate) mod constexpr;
pub(crate) mod convolution;
pub(crate) mod dimensions;
pub(crate) mod einsum;
pub(crate) mod index;
pub(crate) mod join;
pub(crate) mod make;
pub(crate) mod normalisation;
pub(crate) mod pad;
pub(crate) mod pool;
pub(crate) mod quantize;
pub(crate) mod random;
pub(crate) mod rearrange;
pub(crate) mod recurrent;
pub(crate) mod sample;
pub(crate) mod slice;
pub(crate) mod state;
pub(crate) mod transposed;
pub(crate) mod unary;
pub(crate) mod window;

use std::sync::Arc;

use arcane_tensor::{DType, Tensor};

use self::along_axis::AlongAxis;
use self::channelwise::Channelwise;
use self::constexpr::Constexpr;
use self::convolution::Convolution;
use self::dimensions::Dimensions;
use self::einsum::Einsum;
use self::index::Index;
use self::join::Join;
use self::make::Make;
use self::normalisation::Normalisation;
use self::pad::Pad;
use self::pool::Pool;
use self::quantize::Quantization;
use self::random::Random;
use self::rearrange::Rearrange;
use self::recurrent::Recurrent;
use self::sample::Sample;
use self::slice::Slice;
use self::state::StateOp;
use self::transposed::TransposedConvolution;
use self::unary::Unary;
use crate::ValueId;

/// Element-wise ops of two operands of one type, broadcast as numpy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x · y
    Mul,
    /// x / y; integers truncate toward zero, and x / 0 is 0 for them
    RealDiv,
    /// ⌊x / y⌋: of a float x / y where y is 0, NaN where x is infinite; of an integer 0 where y is 0
    FloorDiv,
    /// x − y·⌊x / y⌋, with the sign of y; by 0 NaN, of integers 0
    Mod,
    /// xʸ; of integers truncated and wrapped, and 0 where x is 0 and y negative
    Pow,
    /// The larger; NaN if either is
    Maximum,
    /// The smaller; NaN if either is
    Minimum,
}

/// Comparisons: `bool` results, false for NaN except `NotEqual`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Element-wise logic on `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Logical {
    And,
    Or,
    Xor,
}

/// Reductions over axes. Results of integers are truncated and wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// Σ x
    Sum,
    /// Σ x / n
    Mean,
    /// The largest; NaN if any is
    Max,
    /// The smallest; NaN if any is
    Min,
    /// Π x
    Prod,
    /// Σ x²
    SumSquare,
    /// Σ |x|
    L1Norm,
    /// √Σ x²
    L2Norm,
    /// ln Σ x
    LogSum,
    /// ln Σ eˣ with the maximum taken out; all −∞ gives −∞
    LogSumExp,
}

/// How scatter ops combine an update with what is there. Repeated indices accumulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScatterMode {
    /// data + update
    Add,
    /// The update; the last one where indices repeat
    Update,
    /// data − update
    Sub,
    /// data · update
    Mul,
    /// data / update; integers truncate toward zero
    Div,
    /// The larger; NaN if either is
    Max,
    /// The smaller; NaN if either is
    Min,
}

/// One op with its operands and parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A constant.
    Const(Arc<Tensor>),
    /// Element-wise, one operand.
    Unary {
        /// Which.
        kind: Unary,
        /// The operand.
        x: ValueId,
    },
    /// Conversion to another dtype: floats round to nearest even, float to int truncates and wraps, int to int wraps, to `bool` is x ≠ 0.
    Cast {
        /// The operand.
        x: ValueId,
        /// The result's dtype.
        dtype: DType,
    },
    /// Element-wise, two operands.
    Binary {
        /// Which.
        kind: Binary,
        /// Left.
        x: ValueId,
        /// Right.
        y: ValueId,
    },
    /// Comparison.
    Compare {
        /// Which.
        kind: Compare,
        /// Left.
        x: ValueId,
        /// Right.
        y: ValueId,
    },
    /// Logic.
    Logical {
        /// Which.
        kind: Logical,
        /// Left.
        x: ValueId,
        /// Right.
        y: ValueId,
    },
    /// `cond ? a : b`, the three broadcast.
    Select {
        /// `bool`.
        cond: ValueId,
        /// Taken where true.
        a: ValueId,
        /// Taken where false.
        b: ValueId,
    },
    /// Reduction.
    Reduce {
        /// Which.
        kind: Reduce,
        /// The operand.
        x: ValueId,
        /// Sorted, distinct axes.
        axes: Vec<usize>,
        /// Whether reduced axes stay with length 1.
        keep_dims: bool,
    },
    /// eˣ / Σ eˣ along an axis, the maximum subtracted first.
    Softmax {
        /// The operand.
        x: ValueId,
        /// The axis.
        axis: usize,
    },
    /// Matrix product of the last two dimensions (ranks ≥ 2), batch dimensions broadcast.
    Matmul {
        /// Left.
        x: ValueId,
        /// Right.
        y: ValueId,
        /// Whether the last two dimensions of x are swapped first.
        transpose_x: bool,
        /// Whether the last two dimensions of y are swapped first.
        transpose_y: bool,
    },
    /// `x · weightᵀ + bias`: x `[.., I]`, weight `[O, I]`, bias `[O]`. MIL wants weight and bias constant.
    Linear {
        /// The operand.
        x: ValueId,
        /// The weight.
        weight: ValueId,
        /// The bias.
        bias: Option<ValueId>,
    },
    /// See [`Convolution`].
    Convolution(Convolution),
    /// See [`TransposedConvolution`].
    TransposedConvolution(TransposedConvolution),
    /// See [`Pool`].
    Pool(Pool),
    /// See [`Quantization`].
    Quantization(Quantization),
    /// See [`Constexpr`].
    Constexpr(Constexpr),
    /// See [`Recurrent`].
    Recurrent(Recurrent),
    /// See [`StateOp`].
    State(StateOp),
    /// See [`Einsum`].
    Einsum(Einsum),
    /// See [`Normalisation`].
    Normalisation(Normalisation),
    /// See [`Channelwise`].
    Channelwise(Channelwise),
    /// See [`AlongAxis`].
    AlongAxis(AlongAxis),
    /// See [`Random`].
    Random(Random),
    /// softmax(Q·Kᵀ/√E + mask)·V with query `[B, .., L, E]`, key `[B, .., S, E]`, value `[B, .., S, F]`, equal batch
    /// dimensions; a `bool` mask keeps where true, a float mask is added.
    ScaledDotProductAttention {
        /// Query.
        query: ValueId,
        /// Key.
        key: ValueId,
        /// Value.
        value: ValueId,
        /// Mask that broadcasts to `[B, .., L, S]`.
        attn_mask: Option<ValueId>,
    },
    /// Slices of x along an axis by `int32` indices: `x.shape[..axis] ++ indices.shape ++ x.shape[axis+1..]`.
    Gather {
        /// The operand.
        x: ValueId,
        /// Indices in `0..x.shape[axis]`.
        indices: ValueId,
        /// The axis.
        axis: usize,
    },
    /// `x[.., indices[..i..], ..]` along an axis; x and indices have one rank, the result has the indices' shape.
    GatherAlongAxis {
        /// The operand.
        x: ValueId,
        /// Indices in `0..x.shape[axis]`.
        indices: ValueId,
        /// The axis.
        axis: usize,
    },
    /// A copy of `data` with slices `updates` combined in at `indices` (rank 1) along an axis; the updates' shape is the
    /// data's with the axis replaced by the number of indices.
    Scatter {
        /// What is copied.
        data: ValueId,
        /// Indices in `0..data.shape[axis]`.
        indices: ValueId,
        /// What is combined in.
        updates: ValueId,
        /// The axis.
        axis: usize,
        /// How.
        mode: ScatterMode,
    },
    /// As `Scatter`, element by element: `data[.., indices[..i..], ..]` combined with `updates[..i..]`; indices and updates
    /// have one shape of the data's rank.
    ScatterAlongAxis {
        /// What is copied.
        data: ValueId,
        /// Indices in `0..data.shape[axis]`.
        indices: ValueId,
        /// What is combined in.
        updates: ValueId,
        /// The axis.
        axis: usize,
        /// How.
        mode: ScatterMode,
    },
    /// The same elements in row-major order under another shape.
    Reshape {
        /// The operand.
        x: ValueId,
        /// The new shape, of as many elements.
        shape: Vec<usize>,
    },
    /// Permuted dimensions: result dimension i is x's dimension `perm[i]`.
    Transpose {
        /// The operand.
        x: ValueId,
        /// A permutation.
        perm: Vec<usize>,
    },
    /// Operands one after another along an axis.
    Concat {
        /// At least one operand.
        values: Vec<ValueId>,
        /// The axis.
        axis: usize,
    },
    /// Consecutive pieces along an axis, one result each.
    Split {
        /// The operand.
        x: ValueId,
        /// The axis.
        axis: usize,
        /// Lengths that sum to the axis's.
        sizes: Vec<usize>,
    },
    /// See [`Slice`].
    Slice(Slice),
    /// See [`Pad`].
    Pad(Pad),
    /// See [`Dimensions`].
    Dimensions(Dimensions),
    /// See [`Rearrange`].
    Rearrange(Rearrange),
    /// See [`Join`].
    Join(Join),
    /// See [`Make`].
    Make(Make),
    /// See [`Index`].
    Index(Index),
    /// See [`Sample`].
    Sample(Sample),
    /// The whole repeated `reps[i]` times along dimension i.
    Tile {
        /// The operand.
        x: ValueId,
        /// One factor a dimension.
        reps: Vec<usize>,
    },
    /// A tensor of one value.
    Fill {
        /// Its shape.
        shape: Vec<usize>,
        /// Its dtype.
        dtype: DType,
        /// The value, of that dtype.
        value: f64,
    },
}

impl Binary {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::RealDiv => "real_div",
            Self::FloorDiv => "floor_div",
            Self::Mod => "mod",
            Self::Pow => "pow",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
        }
    }
}

impl Compare {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotEqual => "not_equal",
            Self::Less => "less",
            Self::LessEqual => "less_equal",
            Self::Greater => "greater",
            Self::GreaterEqual => "greater_equal",
        }
    }
}

impl Logical {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::And => "logical_and",
            Self::Or => "logical_or",
            Self::Xor => "logical_xor",
        }
    }
}

impl Reduce {
    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "reduce_sum",
            Self::Mean => "reduce_mean",
            Self::Max => "reduce_max",
            Self::Min => "reduce_min",
            Self::Prod => "reduce_prod",
            Self::SumSquare => "reduce_sum_square",
            Self::L1Norm => "reduce_l1_norm",
            Self::L2Norm => "reduce_l2_norm",
            Self::LogSum => "reduce_log_sum",
            Self::LogSumExp => "reduce_log_sum_exp",
        }
    }
}

impl ScatterMode {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Add, Self::Update, Self::Sub, Self::Mul, Self::Div, Self::Max, Self::Min];

    /// The name in MIL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Max => "max",
            Self::Min => "min",
        }
    }
}

impl Op {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Const(_) => "const",
            Self::Unary { kind, .. } => kind.name(),
            Self::Cast { .. } => "cast",
            Self::Binary { kind, .. } => kind.name(),
            Self::Compare { kind, .. } => kind.name(),
            Self::Logical { kind, .. } => kind.name(),
            Self::Select { .. } => "select",
            Self::Reduce { kind, .. } => kind.name(),
            Self::Softmax { .. } => "softmax",
            Self::Matmul { .. } => "matmul",
            Self::Linear { .. } => "linear",
            Self::Convolution(_) => "conv",
            Self::TransposedConvolution(_) => "conv_transpose",
            Self::Pool(p) => p.name(),
            Self::Quantization(q) => q.name(),
            Self::Constexpr(c) => c.name(),
            Self::Recurrent(r) => r.name(),
            Self::State(s) => s.name(),
            Self::Einsum(_) => "einsum",
            Self::Normalisation(n) => n.name(),
            Self::Channelwise(c) => c.name(),
            Self::AlongAxis(a) => a.name(),
            Self::Random(r) => r.name(),
            Self::ScaledDotProductAttention { .. } => "scaled_dot_product_attention",
            Self::Gather { .. } => "gather",
            Self::GatherAlongAxis { .. } => "gather_along_axis",
            Self::Scatter { .. } => "scatter",
            Self::ScatterAlongAxis { .. } => "scatter_along_axis",
            Self::Reshape { .. } => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Concat { .. } => "concat",
            Self::Split { .. } => "split",
            Self::Slice(s) => s.name(),
            Self::Pad(_) => "pad",
            Self::Dimensions(d) => d.name(),
            Self::Rearrange(r) => r.kind.name(),
            Self::Join(j) => j.name(),
            Self::Make(m) => m.name(),
            Self::Index(i) => i.name(),
            Self::Sample(s) => s.name(),
            Self::Tile { .. } => "tile",
            Self::Fill { .. } => "fill",
        }
    }

    /// The operands in order.
    pub fn operands(&self) -> Vec<ValueId> {
        let mut found = Vec::new();
        let mut copy = self.clone();
        copy.for_each_operand(|v| found.push(*v));
        found
    }

    /// Whether the results depend on the operands' types alone.
    pub(crate) const fn reads_only_types(&self) -> bool {
        matches!(self, Self::Make(Make::Shape { .. } | Make::FillLike { .. }))
    }

    /// The op with all its operands the same: equal for two ops that differ in their operands alone.
    #[must_use]
    pub fn without_operands(&self) -> Self {
        self.map_operands(|_| ValueId(0))
    }

    /// The same op with each operand replaced by `map` of it.
    #[must_use]
    pub fn map_operands(&self, mut map: impl FnMut(ValueId) -> ValueId) -> Self {
        let mut copy = self.clone();
        copy.for_each_operand(|v| *v = map(*v));
        copy
    }

    fn for_each_operand(&mut self, mut f: impl FnMut(&mut ValueId)) {
        match self {
            Self::Const(_) | Self::Fill { .. } | Self::Random(_) => {}
            Self::Unary { x, .. }
            | Self::Cast { x, .. }
            | Self::Reduce { x, .. }
            | Self::Softmax { x, .. }
            | Self::Reshape { x, .. }
            | Self::Transpose { x, .. }
            | Self::Split { x, .. }
            | Self::Pad(Pad { x, .. })
            | Self::Rearrange(Rearrange { x, .. })
            | Self::Tile { x, .. } => f(x),
            Self::Binary { x, y, .. }
            | Self::Compare { x, y, .. }
            | Self::Logical { x, y, .. }
            | Self::Matmul { x, y, .. } => {
                f(x);
                f(y);
            }
            Self::Select { cond, a, b } => {
                f(cond);
                f(a);
                f(b);
            }
            Self::Linear { x, weight, bias } => {
                f(x);
                f(weight);
                if let Some(bias) = bias {
                    f(bias);
                }
            }
            Self::Convolution(c) => c.for_each_operand(&mut f),
            Self::TransposedConvolution(c) => c.for_each_operand(&mut f),
            Self::Pool(p) => f(&mut p.x),
            Self::Quantization(q) => q.for_each_operand(&mut f),
            Self::Constexpr(c) => c.for_each_operand(&mut f),
            Self::Recurrent(r) => r.for_each_operand(&mut f),
            Self::State(s) => s.for_each_operand(&mut f),
            Self::Einsum(e) => e.for_each_operand(&mut f),
            Self::Normalisation(n) => n.for_each_operand(&mut f),
            Self::Channelwise(c) => c.for_each_operand(&mut f),
            Self::AlongAxis(a) => a.for_each_operand(&mut f),
            Self::ScaledDotProductAttention { query, key, value, attn_mask } => {
                f(query);
                f(key);
                f(value);
                if let Some(mask) = attn_mask {
                    f(mask);
                }
            }
            Self::Gather { x, indices, .. } | Self::GatherAlongAxis { x, indices, .. } => {
                f(x);
                f(indices);
            }
            Self::Scatter { data, indices, updates, .. }
            | Self::ScatterAlongAxis { data, indices, updates, .. } => {
                f(data);
                f(indices);
                f(updates);
            }
            Self::Slice(s) => s.for_each_operand(&mut f),
            Self::Dimensions(d) => d.for_each_operand(&mut f),
            Self::Make(m) => m.for_each_operand(&mut f),
            Self::Index(i) => i.for_each_operand(&mut f),
            Self::Sample(s) => s.for_each_operand(&mut f),
            Self::Concat { values, .. } | Self::Join(Join { values, .. }) => values.iter_mut().for_each(f),
        }
    }
}
