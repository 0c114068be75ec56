//! Lowering for the Neural Engine's arithmetic.

use std::borrow::Cow;

use arcane_chip::arithmetic::{Activation, Tables, activation, unary, value};
use arcane_mil::{Binary, BuildError, Builder, Function, Op, Rewriter, Unary, ValueId};
use arcane_tensor::DType;

use super::lower::Lowering;
use super::view::View;
use super::work::Work;
use crate::EngineError;
use crate::kernels::Lookup;
use crate::kernels::fused::Step;
use crate::kernels::gemm::Shape;
use crate::kernels::silicon::packed_len;

/// What a table is of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Unary(Unary),
    Reciprocal,
}

/// The tables that a function needs.
#[derive(Default)]
pub(super) struct Lookups {
    entries: Vec<Entry>,
    pub(super) tables: Vec<Lookup>,
}

impl Lookups {
    /// A table for each fp16 function of one number that is modelled, and one of reciprocals if there are divisions.
    pub(super) fn of(function: &Function, tables: Tables) -> Self {
        let mut lookups = Self::default();
        for operation in function.operations() {
            let Some(entry) = entry(function, &operation.op) else { continue };
            if lookups.entries.contains(&entry) {
                continue;
            }
            let of = |bits: u16| match entry {
                Entry::Unary(kind) => unary(tables, kind, bits),
                Entry::Reciprocal if tables == Tables::Unknown => None,
                Entry::Reciprocal => Some(activation(Activation::Inverse { epsilon: 0.0 }, bits)),
            };
            let table: Option<Lookup> =
                (0..=u16::MAX).map(|bits| of(bits).map(|y| value(y) as f32)).collect();
            if let Some(table) = table {
                lookups.entries.push(entry);
                lookups.tables.push(table);
            }
        }
        lookups
    }

    /// The step of an op that looks up.
    pub(super) fn step(&self, function: &Function, op: &Op) -> Option<Step> {
        let entry = entry(function, op)?;
        let i = self.entries.iter().position(|e| *e == entry)?;
        Some(match entry {
            Entry::Unary(_) => Step::Lookup(i),
            Entry::Reciprocal => Step::Quotient(i),
        })
    }
}

fn entry(function: &Function, op: &Op) -> Option<Entry> {
    match op {
        Op::Unary { kind, x } if *kind != Unary::Identity && is_fp16(function, *x) => {
            Some(Entry::Unary(*kind))
        }
        Op::Binary { kind: Binary::RealDiv, x, .. } if is_fp16(function, *x) => Some(Entry::Reciprocal),
        _ => None,
    }
}

fn is_fp16(function: &Function, v: ValueId) -> bool {
    function.ty(v).dtype == DType::F16
}

/// The function with fp16 attention as products and a softmax, in which the engine rounds.
///
/// # Panics
/// If the ops are ill-typed: a bug here.
pub(super) fn decomposed(function: &Function) -> Cow<'_, Function> {
    let is_attention =
        |op: &Op| matches!(op, Op::ScaledDotProductAttention { query, .. } if is_fp16(function, *query));
    if !function.operations().iter().any(|o| is_attention(&o.op)) {
        return Cow::Borrowed(function);
    }
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    for operation in function.operations() {
        if !is_attention(&operation.op) {
            rewriter.copy(operation);
            continue;
        }
        let op = operation.op.map_operands(|v| rewriter.get(v));
        let path = function.value(operation.results[0]).path.clone();
        let built = rewriter.builder.scope(&path, |f| attention(f, &op));
        let new = built.unwrap_or_else(|e| panic!("attention is made of ill-typed ops: {e}"));
        rewriter.builder.set_path(new, path);
        rewriter.set(operation.results[0], new);
    }
    Cow::Owned(rewriter.finish())
}

fn attention(f: &mut Builder, op: &Op) -> Result<ValueId, BuildError> {
    let Op::ScaledDotProductAttention { query, key, value, attn_mask } = op else {
        unreachable!("{} is no attention", op.name())
    };
    let width = f.shape(*query).last().copied().unwrap_or(1);
    let scores = f.matmul(*query, *key, false, true)?;
    let mut scores = f.scale(scores, 1.0 / (width as f64).sqrt())?;
    if let Some(mask) = *attn_mask {
        scores = if f.ty(mask).dtype == DType::Bool {
            let hidden = f.scalar(DType::F16, -65504.0);
            f.select(mask, scores, hidden)?
        } else {
            f.add(scores, mask)?
        };
    }
    let last = f.shape(scores).len() - 1;
    let weights = f.softmax(scores, last)?;
    f.matmul(weights, *value, false, false)
}

impl Lowering<'_> {
    /// Lowers a product of fp16 numbers. `bias` is broadcast to the result, which has this shape.
    pub(super) fn silicon_product(
        &mut self,
        i: usize,
        [x, y]: [View; 2],
        bias: Option<View>,
        shape: &[usize],
    ) -> Result<(), EngineError> {
        let result = self.function.operations()[i].results[0];
        let Some(home) = self.known_view(result) else { return Ok(()) };
        let flat = [&x.shape[..x.shape.len() - 1], &shape[shape.len() - 1..]].concat();
        let stretched = |v: View| v.broadcast(shape).reshape(&flat);
        let bias = match bias {
            None => None,
            Some(bias) => Some(
                stretched(bias)
                    .ok_or_else(|| self.unsupported(i, "the bias does not lie along the result"))?,
            ),
        };
        let dims = Shape::new(&x.shape, &y.shape);
        let packed = self.temporary(DType::F32, &[packed_len(dims.k(), dims.n())]);
        let direct = home.reshape(&flat);
        let out = direct.clone().unwrap_or_else(|| self.temporary(DType::F16, &flat));
        let reads = [x.slot, y.slot].into_iter().chain(bias.as_ref().map(|b| b.slot)).collect();
        let (writes, temporaries) = (vec![out.slot], vec![packed.slot]);
        let written = out.clone();
        self.node(Work::Silicon { x, y, bias, out, packed }, i, reads, writes, temporaries);
        if direct.is_none() {
            let from = written.reshape(shape).expect("a fresh view is dense");
            self.copy(i, from, home)?;
        }
        Ok(())
    }
}
