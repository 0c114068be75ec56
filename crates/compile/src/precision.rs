//! The types that a program computes in.
//!
//! Programs are built and differentiated in fp32. [`mixed`] then gives each value the type that a table names for the class of
//! the op that makes it, and puts a cast wherever a value is wanted in another type.

use std::collections::HashMap;
use std::sync::Arc;

use arcane_mil::{
    AlongAxis, Function, Index, Op, Operation, Parameter, PoolKind, Reduce, Rewriter, Role, ScatterMode,
    TensorType, Unary, ValueId, remove_dead_code,
};
use arcane_tensor::{DType, Tensor};

/// The largest finite fp16 number.
const FP16_MAX: f64 = 65504.0;

/// Which table the program is typed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// The program as it is.
    #[default]
    Fp32,
    /// [`FP16_TABLE`].
    Fp16,
    /// [`ENGINE_TABLE`].
    Engine,
}

impl Precision {
    /// The name on a command line: `fp32`, `fp16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 | Self::Engine => "fp16",
        }
    }

    fn table(self) -> Option<&'static [(OpClass, Compute); 9]> {
        match self {
            Self::Fp32 => None,
            Self::Fp16 => Some(&FP16_TABLE),
            Self::Engine => Some(&ENGINE_TABLE),
        }
    }

    /// The lowest rank of a `param` that becomes fp16.
    const fn param_rank(self) -> usize {
        if matches!(self, Self::Engine) { 1 } else { 2 }
    }
}

/// Ops that are typed by one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpClass {
    /// `matmul`, `linear`, `scaled_dot_product_attention`.
    Product,
    /// `square`, `sqrt`, `rsqrt`, `inverse`, `exp`, `exp2`, `log`, `tan`, `sinh`, `cosh`.
    Power,
    /// Every `reduce_*` but that of exponentials, normalisations, `cumsum`.
    Reduction,
    /// `softmax` and `reduce_log_sum_exp`.
    Exponential,
    /// `scatter` and `scatter_along_axis` that add, `gather_along_axis`.
    Scatter,
    /// Every other element-wise op.
    ElementWise,
    /// `reshape`, `transpose`, `split`, `concat`, `tile`, `gather`; `scatter` and `scatter_along_axis` that replace.
    Movement,
    /// `const`, `fill`.
    Constant,
    /// `cast`.
    Cast,
}

/// In which type the ops of a class read and write floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compute {
    /// fp16.
    Half,
    /// fp32.
    Full,
    /// fp32 if any operand that is not a constant is fp32, else fp16.
    Widest,
    /// Whatever the op that uses the value wants, each use for itself.
    AsUsed,
    /// To a float type: what the program declares, but fp16 from `bool`.
    Declared,
}

/// The types of mixed fp16 programs.
///
/// Parameters: a `param` of rank 2 or more is fp16, and so is a `state`, with the output that overwrites it; all others (norm
/// gains, biases, masters, moments, accumulators, scalars, batches) stay as declared, and so do all other outputs. Data movement over constants alone counts as a constant. Finite
/// constants beyond ±65504 become ±65504 in fp16.
pub const FP16_TABLE: [(OpClass, Compute); 9] = [
    // Where the time goes. Engines read fp16, sum in fp32 and round once.
    (OpClass::Product, Compute::Half),
    // The square of 256 and e to the 12th are beyond fp16; a root of a mean square decides over a whole row.
    (OpClass::Power, Compute::Full),
    // A sum of n fp16 numbers needs log2 n more bits, a softmax the exponential's range.
    (OpClass::Reduction, Compute::Full),
    (OpClass::Exponential, Compute::Full),
    // Repeated indices sum; a loss is picked out of the logits and subtracted from a log-sum-exp.
    (OpClass::Scatter, Compute::Full),
    // Activations between products stay fp16, what has been widened for a reason stays wide.
    (OpClass::ElementWise, Compute::Widest),
    // Moves bits; a concat takes the wider of its operands.
    (OpClass::Movement, Compute::Widest),
    // A mask or a table costs nothing to have in both types.
    (OpClass::Constant, Compute::AsUsed),
    // An explicit wish of the program; 0 and 1 are exact in fp16, counts are not.
    (OpClass::Cast, Compute::Declared),
];

/// The types of programs for an engine that computes in fp16 alone: what is fp32 here runs on the host.
///
/// As [`FP16_TABLE`], but norms and their gradients stay fp16, and vectors with them: `scale_norms` has brought them into
/// range, and an engine sums wide and rounds once. Exponentials are fp32 where no pass that knows them has rewritten them.
pub const ENGINE_TABLE: [(OpClass, Compute); 9] = [
    (OpClass::Product, Compute::Half),
    (OpClass::Power, Compute::Widest),
    (OpClass::Reduction, Compute::Widest),
    (OpClass::Exponential, Compute::Full),
    (OpClass::Scatter, Compute::Full),
    (OpClass::ElementWise, Compute::Widest),
    (OpClass::Movement, Compute::Widest),
    (OpClass::Constant, Compute::AsUsed),
    (OpClass::Cast, Compute::Declared),
];

impl OpClass {
    /// The class of an op.
    pub const fn of(op: &Op) -> Self {
        match op {
            Op::Matmul { .. }
            | Op::Linear { .. }
            | Op::Convolution(_)
            | Op::TransposedConvolution(_)
            | Op::Einsum(_)
            | Op::Recurrent(_)
            | Op::ScaledDotProductAttention { .. } => Self::Product,
            Op::Unary { kind, .. } => match kind {
                Unary::Square
                | Unary::Sqrt
                | Unary::Rsqrt { .. }
                | Unary::Inverse { .. }
                | Unary::Exp
                | Unary::Exp2
                | Unary::Log { .. }
                | Unary::Tan
                | Unary::Sinh
                | Unary::Cosh => Self::Power,
                _ => Self::ElementWise,
            },
            Op::Reduce { kind, .. } => match kind {
                Reduce::LogSumExp => Self::Exponential,
                _ => Self::Reduction,
            },
            Op::Softmax { .. } => Self::Exponential,
            Op::Normalisation(_) | Op::AlongAxis(AlongAxis::CumSum { .. }) => Self::Reduction,
            Op::Channelwise(_) | Op::Random(_) => Self::ElementWise,
            Op::Pool(p) => match p.kind {
                PoolKind::Max => Self::Movement,
                PoolKind::Average { .. } => Self::Reduction,
                PoolKind::L2 => Self::Power,
            },
            Op::Scatter { mode, .. }
            | Op::ScatterAlongAxis { mode, .. }
            | Op::Index(Index::ScatterNd { mode, .. }) => match mode {
                ScatterMode::Add
                | ScatterMode::Sub
                | ScatterMode::Mul
                | ScatterMode::Div
                | ScatterMode::Max
                | ScatterMode::Min => Self::Scatter,
                ScatterMode::Update => Self::Movement,
            },
            Op::GatherAlongAxis { .. } | Op::Sample(_) => Self::Scatter,
            Op::Binary { .. } | Op::Compare { .. } | Op::Logical { .. } | Op::Select { .. } => {
                Self::ElementWise
            }
            Op::State(_)
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Split { .. }
            | Op::Concat { .. }
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Dimensions(_)
            | Op::Rearrange(_)
            | Op::Join(_)
            | Op::Index(
                Index::GatherNd { .. } | Index::GatherBatched { .. } | Index::ReverseSequence { .. },
            )
            | Op::Tile { .. }
            | Op::AlongAxis(_)
            | Op::Gather { .. } => Self::Movement,
            Op::Const(_) | Op::Fill { .. } => Self::Constant,
            // Their results have the types that they declare.
            Op::Cast { .. } | Op::Make(_) | Op::Quantization(_) | Op::Constexpr(_) => Self::Cast,
        }
    }

    /// The rule of the class in a table.
    fn compute(self, table: &[(OpClass, Compute)]) -> Compute {
        table.iter().find(|(class, _)| *class == self).expect("every class has a row").1
    }
}

/// The program with the types of a precision. Names, roles, aliases and the types of outputs stay; of parameters, those that
/// the precision's table names change. Values that are neither fp32 nor fp16 are left alone.
#[must_use]
pub fn mixed(f: &Function, precision: Precision) -> Function {
    let Some(table) = precision.table() else { return f.clone() };
    let mut mixer = Mixer {
        old: f,
        table,
        param_rank: precision.param_rank(),
        rewriter: Rewriter::new(f),
        constant: vec![false; f.values().len()],
        typed: HashMap::new(),
    };
    for (i, p) in f.parameters().iter().enumerate() {
        let overwritten = f.aliases().iter().any(|a| a.parameter == i);
        mixer.parameter(p, overwritten);
    }
    for operation in f.operations() {
        mixer.operation(operation);
    }
    for (i, o) in f.outputs().iter().enumerate() {
        if is_mixed(f, o.value) {
            let overwrites = f.aliases().iter().find(|a| a.output == i);
            let overwritten = overwrites.map(|a| mixer.rewriter.get(f.parameters()[a.parameter].value));
            let declared = overwritten.map_or(f.ty(o.value), |v| mixer.rewriter.builder.ty(v)).dtype;
            let declared = mixer.want(o.value, declared);
            mixer.rewriter.set(o.value, declared);
        }
    }
    // Constants were made in both types.
    remove_dead_code(&mixer.rewriter.finish())
}

/// Whether the table applies to a value.
fn is_mixed(f: &Function, v: ValueId) -> bool {
    matches!(f.ty(v).dtype, DType::F16 | DType::F32)
}

struct Mixer<'a> {
    old: &'a Function,
    table: &'static [(OpClass, Compute); 9],
    /// The lowest rank of a `param` that becomes fp16.
    param_rank: usize,
    rewriter: Rewriter<'a>,
    /// Whether an old value is a constant: it then exists in both types.
    constant: Vec<bool>,
    /// New values that stand for an old one in a type that its definition does not have.
    typed: HashMap<(ValueId, DType), ValueId>,
}

impl Mixer<'_> {
    fn parameter(&mut self, p: &Parameter, overwritten: bool) {
        let mut ty: TensorType = self.old.ty(p.value).clone();
        let is_half = match p.role {
            Role::Param | Role::Constant => ty.shape.len() >= self.param_rank && !overwritten,
            Role::State => true,
            Role::Master | Role::Moment | Role::Accumulator | Role::Batch | Role::Scalar => false,
        };
        if is_half && ty.dtype == DType::F32 {
            ty.dtype = DType::F16;
        }
        let new = self.rewriter.builder.parameter(&p.name, ty, p.role);
        self.rewriter.set(p.value, new);
    }

    fn operation(&mut self, operation: &Operation) {
        let operands = operation.op.operands();
        let floats: Vec<ValueId> = operands.into_iter().filter(|&v| is_mixed(self.old, v)).collect();
        let makes_float = is_mixed(self.old, operation.results[0]);
        if floats.is_empty() && !makes_float {
            return self.rewriter.copy(operation);
        }
        let compute = OpClass::of(&operation.op).compute(self.table);
        let all_constant = floats.iter().all(|v| self.constant[v.index()]);
        let moves_constants = OpClass::of(&operation.op) == OpClass::Movement && all_constant;
        let dtype = match compute {
            Compute::Full => DType::F32,
            Compute::AsUsed => return self.constant(operation),
            Compute::Widest if moves_constants => return self.constant(operation),
            Compute::Widest if floats.iter().any(|&v| self.is_full(v)) => DType::F32,
            Compute::Half | Compute::Widest => DType::F16,
            Compute::Declared => return self.cast(operation),
        };
        let old = self.old;
        let op = operation
            .op
            .map_operands(|v| if is_mixed(old, v) { self.want(v, dtype) } else { self.rewriter.get(v) });
        self.rewriter.replace(operation, op);
    }

    /// Whether an old value that is not a constant has become fp32.
    fn is_full(&self, v: ValueId) -> bool {
        !self.constant[v.index()] && self.rewriter.builder.ty(self.rewriter.get(v)).dtype == DType::F32
    }

    /// A constant, or data movement over constants alone, in both types.
    fn constant(&mut self, operation: &Operation) {
        let old = self.old;
        for dtype in [DType::F32, DType::F16] {
            let op = match &operation.op {
                Op::Const(t) => Op::Const(constant_in(t, dtype)),
                Op::Fill { shape, value, .. } => {
                    Op::Fill { shape: shape.clone(), dtype, value: number_in(*value, dtype) }
                }
                movement => movement.map_operands(|v| {
                    if is_mixed(old, v) { self.want(v, dtype) } else { self.rewriter.get(v) }
                }),
            };
            self.rewriter.replace(operation, op);
            for &r in &operation.results {
                self.typed.insert((r, dtype), self.rewriter.get(r));
                self.constant[r.index()] = true;
            }
        }
    }

    fn cast(&mut self, operation: &Operation) {
        let Op::Cast { x, dtype: declared } = operation.op else {
            // Another op whose parameters name its type.
            let old = self.old;
            let own = |v| if is_mixed(old, v) { self.want(v, old.ty(v).dtype) } else { self.rewriter.get(v) };
            let op = operation.op.map_operands(own);
            return self.rewriter.replace(operation, op);
        };
        let from = self.old.ty(x).dtype;
        let dtype = if from == DType::Bool && declared == DType::F32 { DType::F16 } else { declared };
        let x = if self.constant[x.index()] { self.want(x, from) } else { self.rewriter.get(x) };
        self.rewriter.replace(operation, Op::Cast { x, dtype });
    }

    /// The new value that stands for an old one in a type, cast once for all its uses.
    fn want(&mut self, v: ValueId, dtype: DType) -> ValueId {
        if let Some(&new) = self.typed.get(&(v, dtype)) {
            return new;
        }
        let new = self.rewriter.get(v);
        if self.rewriter.builder.ty(new).dtype == dtype {
            return new;
        }
        let path = format!("{}.{dtype}", self.old.value(v).path);
        let cast = self.rewriter.builder.push_at(&path, Op::Cast { x: new, dtype });
        let cast = cast.expect("cast takes any type")[0];
        self.typed.insert((v, dtype), cast);
        cast
    }
}

/// A constant in a type.
fn constant_in(t: &Arc<Tensor>, dtype: DType) -> Arc<Tensor> {
    if t.dtype() == dtype {
        return Arc::clone(t);
    }
    let values: Vec<f64> = t.to_f64s().into_iter().map(|x| number_in(x, dtype)).collect();
    Arc::new(Tensor::from_f64s(dtype, t.shape(), &values).expect("as many elements as before"))
}

/// A number, brought into the finite range of fp16 if it is finite and to be fp16.
fn number_in(x: f64, dtype: DType) -> f64 {
    if dtype == DType::F16 && x.is_finite() { x.clamp(-FP16_MAX, FP16_MAX) } else { x }
}
