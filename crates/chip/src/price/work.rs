//! What an op computes and moves.

use std::collections::HashMap;

use arcane_mil::{Function, Op, TensorType, ValueId};

use super::model::Load;
use crate::constraint::{definition, is_constant};

/// The work of one op.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Operations of its products.
    pub(super) flops: f64,
    /// Rows that a product computes at once, at least one.
    positions: f64,
    /// Whether one operand of the product is a constant.
    has_constant: bool,
    /// Bytes of the largest operand of a product that is none of those.
    operand_bytes: usize,
    /// The operands of a product that come from memory.
    weights: Vec<Weight>,
    /// What is read and written otherwise.
    moved: Vec<Moved>,
}

/// A constant or parameter that a product reads.
#[derive(Clone, Copy, Debug)]
struct Weight {
    value: ValueId,
    bytes: usize,
    constant: bool,
}

/// An array that is read or written.
#[derive(Clone, Copy, Debug)]
struct Moved {
    bytes: usize,
    when: When,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Read,
    Written,
}

/// When an array is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Always: the op does little else, or the array is an output.
    Always,
    /// If it does not stay on the engine; the op reads it while it computes.
    Spilled,
}

impl Work {
    /// The work of an op of a function, by its index.
    pub(super) fn of(function: &Function, index: usize) -> Self {
        let operation = &function.operations()[index];
        let op = &operation.op;
        let ty = |v: ValueId| function.ty(v);
        let mut work = Self { positions: 1.0, ..Self::default() };
        let product = match op {
            Op::Const(_) => return work,
            Op::Matmul { x, transpose_x, .. } => {
                let shape = &ty(*x).shape;
                let inner = shape[shape.len() - if *transpose_x { 2 } else { 1 }];
                let result = ty(operation.results[0]);
                work.flops = 2.0 * result.len() as f64 * inner as f64;
                // The positions are those of the run-time operand, which may stand on the right.
                let from_back = if is_constant(function, *x) { 1 } else { 2 };
                work.positions = result.shape[result.shape.len() - from_back] as f64;
                true
            }
            Op::Linear { x, weight, .. } => {
                let inner = ty(*weight).shape[1];
                let result = ty(operation.results[0]);
                work.flops = 2.0 * result.len() as f64 * inner as f64;
                work.positions = ty(*x).len() as f64 / inner.max(1) as f64;
                true
            }
            Op::Convolution(c) => {
                let result = ty(operation.results[0]);
                let taps: usize = ty(c.weight).shape[1..].iter().product();
                work.flops = 2.0 * result.len() as f64 * taps as f64;
                work.positions = result.len() as f64 / result.shape[1].max(1) as f64;
                true
            }
            Op::TransposedConvolution(c) => {
                let (x, weight) = (ty(c.x), ty(c.weight));
                let taps: usize = weight.shape[1..].iter().product();
                work.flops = 2.0 * x.len() as f64 * taps as f64;
                work.positions = x.len() as f64 / x.shape[1].max(1) as f64;
                true
            }
            Op::Einsum(e) => {
                let inner = ty(e.values[0]).shape.last().copied().unwrap_or(1);
                let result = ty(operation.results[0]);
                work.flops = 2.0 * result.len() as f64 * inner as f64;
                work.positions = result.shape[result.shape.len() - 3] as f64;
                true
            }
            Op::ScaledDotProductAttention { query, key, value, .. } => {
                work.attention(ty(*query), ty(*key), ty(*value));
                true
            }
            Op::Pool(_)
            | Op::Quantization(_)
            | Op::Constexpr(_)
            | Op::Recurrent(_)
            | Op::State(_)
            | Op::Unary { .. }
            | Op::Cast { .. }
            | Op::Binary { .. }
            | Op::Compare { .. }
            | Op::Logical { .. }
            | Op::Select { .. }
            | Op::Reduce { .. }
            | Op::Softmax { .. }
            | Op::Normalisation(_)
            | Op::Channelwise(_)
            | Op::AlongAxis(_)
            | Op::Random(_)
            | Op::Gather { .. }
            | Op::GatherAlongAxis { .. }
            | Op::Scatter { .. }
            | Op::ScatterAlongAxis { .. }
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
            | Op::Sample(_)
            | Op::Tile { .. }
            | Op::Fill { .. } => false,
        };
        work.positions = work.positions.max(1.0);
        let operands = op.operands();
        work.has_constant = product && operands.iter().any(|&v| is_constant(function, v));
        for v in operands {
            work.operand(function, v, product);
        }
        for &r in &operation.results {
            let output = function.outputs().iter().any(|o| o.value == r);
            let when = if product && !output { When::Spilled } else { When::Always };
            work.moved.push(Moved { bytes: ty(r).bytes(), when, direction: Direction::Written });
        }
        work
    }

    /// The two products of attention, and its probabilities, which are written, normalised and read.
    fn attention(&mut self, query: &TensorType, key: &TensorType, value: &TensorType) {
        let rank = query.shape.len();
        let rows: usize = query.shape[..rank - 1].iter().product();
        let keys = key.shape[rank - 2];
        let widths = query.shape[rank - 1] + value.shape[rank - 1];
        self.flops = 2.0 * rows as f64 * keys as f64 * widths as f64;
        self.positions = query.shape[rank - 2] as f64;
        let scores = rows.saturating_mul(keys).saturating_mul(query.dtype.size());
        for direction in [Direction::Written, Direction::Read, Direction::Written, Direction::Read] {
            self.moved.push(Moved { bytes: scores, when: When::Always, direction });
        }
    }

    /// A product with a constant streams the constant past its other operand; one of run-time values streams those that are
    /// in memory anyway.
    fn operand(&mut self, function: &Function, v: ValueId, product: bool) {
        let bytes = function.ty(v).bytes();
        let constant = is_constant(function, v);
        let in_memory = definition(function, v).is_none();
        if product && (constant || in_memory && !self.has_constant) {
            self.weights.push(Weight { value: v, bytes, constant });
        } else {
            let when = if product && !in_memory { When::Spilled } else { When::Always };
            self.moved.push(Moved { bytes, when, direction: Direction::Read });
            if product {
                self.operand_bytes = self.operand_bytes.max(bytes);
            }
        }
    }

    /// Leaves out the constants that an earlier op of the program has brought onto the engine, where those of up to
    /// `resident` bytes stay; marks those that this op brings.
    pub(super) fn leave_out(&mut self, on_engine: &mut OnEngine, resident: usize) {
        self.weights.retain(|w| {
            let v = on_engine.representative(w.value);
            let stays = w.constant && w.bytes <= resident;
            !std::mem::replace(&mut on_engine.stays[v.index()], stays)
        });
    }

    /// The numbers that the model takes, where arrays of up to `resident` bytes stay on the engine.
    pub(super) fn load(&self, resident: usize) -> Load {
        let (read, written) = self.moved(resident);
        Load {
            flops: self.flops,
            positions: self.positions,
            has_constant: self.has_constant,
            weight_bytes: self.weight_bytes(),
            operand_bytes: self.operand_bytes as f64,
            read,
            written,
        }
    }

    fn weight_bytes(&self) -> f64 {
        self.weights.iter().map(|w| w.bytes as f64).sum()
    }

    /// Bytes that are read, and written, where arrays of up to `resident` bytes stay on the engine.
    fn moved(&self, resident: usize) -> (f64, f64) {
        let of = |direction| {
            let counts =
                |m: &&Moved| m.direction == direction && (m.when != When::Spilled || m.bytes > resident);
            self.moved.iter().filter(counts).map(|m| m.bytes as f64).sum()
        };
        (of(Direction::Read), of(Direction::Written))
    }
}

/// Which constants are on the engine at a point of a program. Equal constants are one.
pub(super) struct OnEngine {
    stays: Vec<bool>,
    representatives: HashMap<ValueId, ValueId>,
}

impl OnEngine {
    /// Nothing is. Constants of more than `resident` bytes never stay and are not compared.
    pub(super) fn new(function: &Function, resident: usize) -> Self {
        let mut first: HashMap<(&TensorType, &[u8]), ValueId> = HashMap::new();
        let mut representatives = HashMap::new();
        for operation in function.operations() {
            let Op::Const(tensor) = &operation.op else { continue };
            let v = operation.results[0];
            if tensor.bytes().len() <= resident {
                representatives.insert(v, *first.entry((function.ty(v), tensor.bytes())).or_insert(v));
            }
        }
        Self { stays: vec![false; function.values().len()], representatives }
    }

    fn representative(&self, v: ValueId) -> ValueId {
        self.representatives.get(&v).copied().unwrap_or(v)
    }
}
