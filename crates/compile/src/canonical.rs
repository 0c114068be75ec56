//! Canonical bytes of ops and functions: equal things have equal bytes, on every machine.
//!
//! Numbers are 64-bit little-endian, texts and lists are preceded by their length, floats are their bits.

use arcane_mil::{Function, Op, TensorType, Unary};

/// Takes bytes.
pub(crate) trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The 64-bit FNV-1a hash (Fowler, Noll, Vo) of the bytes put in.
pub(crate) struct Fnv(u64);

impl Fnv {
    /// The hash of no bytes.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// The hash so far.
    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

impl Sink for Fnv {
    fn put(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Puts a number.
pub(crate) fn number(sink: &mut impl Sink, n: usize) {
    sink.put(&(n as u64).to_le_bytes());
}

/// Puts a text.
pub(crate) fn text(sink: &mut impl Sink, s: &str) {
    number(sink, s.len());
    sink.put(s.as_bytes());
}

/// Puts a type.
pub(crate) fn ty(sink: &mut impl Sink, ty: &TensorType) {
    text(sink, ty.dtype.name());
    numbers(sink, &ty.shape);
}

fn numbers(sink: &mut impl Sink, list: &[usize]) {
    number(sink, list.len());
    for &n in list {
        number(sink, n);
    }
}

fn float(sink: &mut impl Sink, x: f64) {
    sink.put(&x.to_bits().to_le_bytes());
}

/// Puts an op: its name, its operands, its parameters.
pub(crate) fn op(sink: &mut impl Sink, op: &Op) {
    text(sink, op.name());
    let operands: Vec<usize> = op.operands().iter().map(|v| v.index()).collect();
    numbers(sink, &operands);
    parameters(sink, op);
}

/// Puts what an op has beside its name and operands. The number of operands tells which optional ones there are.
pub(crate) fn parameters(sink: &mut impl Sink, op: &Op) {
    match op {
        Op::Const(t) => {
            ty(sink, &TensorType::new(t.dtype(), t.shape()));
            sink.put(t.bytes());
        }
        Op::Unary { kind: Unary::Gelu(mode), .. } => text(sink, mode.name()),
        Op::Unary { kind, .. } => kind.numbers().iter().for_each(|(_, x)| float(sink, *x)),
        Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Logical { .. }
        | Op::Select { .. }
        | Op::Linear { .. }
        | Op::ScaledDotProductAttention { .. } => {}
        Op::Cast { dtype, .. } => text(sink, dtype.name()),
        Op::Reduce { axes, keep_dims, .. } => {
            numbers(sink, axes);
            number(sink, usize::from(*keep_dims));
        }
        Op::Softmax { axis, .. }
        | Op::Gather { axis, .. }
        | Op::GatherAlongAxis { axis, .. }
        | Op::Concat { axis, .. } => number(sink, *axis),
        Op::Matmul { transpose_x, transpose_y, .. } => {
            numbers(sink, &[usize::from(*transpose_x), usize::from(*transpose_y)]);
        }
        Op::Scatter { axis, mode, .. } | Op::ScatterAlongAxis { axis, mode, .. } => {
            number(sink, *axis);
            text(sink, mode.name());
        }
        Op::Reshape { shape, .. } => numbers(sink, shape),
        Op::Transpose { perm, .. } => numbers(sink, perm),
        Op::Split { axis, sizes, .. } => {
            number(sink, *axis);
            numbers(sink, sizes);
        }
        // A family's parameters are its `Debug` text.
        Op::Convolution(_)
        | Op::TransposedConvolution(_)
        | Op::Einsum(_)
        | Op::Pool(_)
        | Op::Normalisation(_)
        | Op::Channelwise(_)
        | Op::AlongAxis(_)
        | Op::Random(_)
        | Op::Quantization(_)
        | Op::Constexpr(_)
        | Op::Recurrent(_)
        | Op::State(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Dimensions(_)
        | Op::Rearrange(_)
        | Op::Join(_)
        | Op::Make(_)
        | Op::Index(_)
        | Op::Sample(_) => text(sink, &format!("{:?}", op.without_operands())),
        Op::Tile { reps, .. } => numbers(sink, reps),
        Op::Fill { shape, dtype, value } => {
            ty(sink, &TensorType::new(*dtype, shape));
            float(sink, *value);
        }
    }
}

/// Puts a function whole: interface, paths, types, ops and constants.
pub(crate) fn function(sink: &mut impl Sink, f: &Function) {
    text(sink, f.name());
    text(sink, f.opset().name());
    number(sink, f.values().len());
    for info in f.values() {
        text(sink, &info.path);
        ty(sink, &info.ty);
    }
    number(sink, f.parameters().len());
    for p in f.parameters() {
        text(sink, &p.name);
        number(sink, p.value.index());
        text(sink, &format!("{:?}", p.role));
    }
    number(sink, f.operations().len());
    for operation in f.operations() {
        op(sink, &operation.op);
        let results: Vec<usize> = operation.results.iter().map(|r| r.index()).collect();
        numbers(sink, &results);
    }
    number(sink, f.outputs().len());
    for o in f.outputs() {
        text(sink, &o.name);
        number(sink, o.value.index());
    }
    number(sink, f.aliases().len());
    for a in f.aliases() {
        numbers(sink, &[a.output, a.parameter]);
    }
}

/// Puts what a function computes: types, ops and aliases, but neither names nor paths.
pub(crate) fn structure(sink: &mut impl Sink, f: &Function) {
    number(sink, f.parameters().len());
    f.parameters().iter().for_each(|p| ty(sink, f.ty(p.value)));
    for operation in f.operations() {
        match &operation.op {
            // The bytes of a large table would fill the key.
            Op::Const(t) => {
                let mut hash = Fnv::new();
                hash.put(t.bytes());
                text(sink, "const");
                ty(sink, &TensorType::new(t.dtype(), t.shape()));
                number(sink, hash.value() as usize);
            }
            other => op(sink, other),
        }
        number(sink, operation.results.len());
        operation.results.iter().for_each(|r| ty(sink, f.ty(*r)));
    }
    numbers(sink, &f.outputs().iter().map(|o| o.value.index()).collect::<Vec<_>>());
    for a in f.aliases() {
        numbers(sink, &[a.output, a.parameter]);
    }
}
