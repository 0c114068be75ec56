//! Cross entropy over a linear head, a chunk of rows at a time: the logits of all rows are never held at once.

use arcane_tensor::DType;

use super::index::wrapped;
use super::math::{exp, extreme, maximum, round_f16, sum};
use super::pack::Matrix;
use super::product::{Product, Target, packed_len};
use super::{Access, Bytes, Context, for_each_task, narrow};

/// Logits held at once.
const LOGITS: usize = 8 << 20;
/// Elements that a conversion task takes.
const CONVERSION: usize = 64 * 1024;

/// What a linear head, its log-sum-exp and its picked logits give; and the gradients of hidden and head.
#[derive(Clone, Debug)]
pub(crate) struct CrossEntropy {
    /// `[N, D]`, dense, fp16 or fp32.
    pub hidden: Access,
    /// `[V, D]`, dense, of the same type.
    pub head: Access,
    /// `[N, 1]` int32, dense.
    pub targets: Access,
    /// log Σ exp of each row, fp32, if wanted.
    pub log_sum: Option<Access>,
    /// The target's logit of each row, fp32, if wanted.
    pub picked: Option<Access>,
    /// Gradients, if wanted.
    pub gradient: Option<Gradient>,
    /// fp32, `[chunk, V]`.
    pub logits: Access,
    /// Where right operands of products are packed: [`shared_len`] floats.
    pub packed: Access,
}

/// Gradients: with `dl = softmax(logits)·factor` plus `update` at the target, `d_hidden = dl·head` and `d_head = dlᵀ·hidden`.
#[derive(Clone, Debug)]
pub(crate) struct Gradient {
    /// `[N, 1]` fp32, dense.
    pub factor: Access,
    /// `[N, 1]` fp32, dense.
    pub update: Access,
    /// Like hidden, if wanted.
    pub d_hidden: Option<Access>,
    /// Like head, if wanted.
    pub d_head: Option<Access>,
    /// Where those are fp16, their fp32 sums: a chunk of `d_hidden`, all of `d_head`.
    pub wide: [Option<Access>; 2],
}

/// Rows of a chunk.
pub(crate) fn chunk_rows(rows: usize, vocabulary: usize) -> usize {
    let most = (LOGITS / vocabulary.max(1)).max(16);
    let chunks = rows.div_ceil(most).max(1);
    rows.div_ceil(chunks).next_multiple_of(16).min(rows.max(1))
}

/// Floats of storage for the packed right operands of the products of hidden `[N, D]` and head `[V, D]`.
pub(crate) fn shared_len(n: usize, d: usize, v: usize) -> usize {
    let chunk = chunk_rows(n, v);
    packed_len(d, v, true).max(packed_len(v, d, true)).max(packed_len(chunk, d, true))
}

/// Per-row inputs and outputs of the softmax pass.
#[derive(Clone, Copy)]
struct Rows {
    targets: Bytes,
    log_sum: Option<Bytes>,
    picked: Option<Bytes>,
    gradient: Option<(Bytes, Bytes)>,
    half: bool,
}

impl CrossEntropy {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes() -> usize {
        4 * Product::scratch_len(None, 0)
    }

    /// Runs it, chunk by chunk.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (n, d, v) = (self.hidden.shape[0], self.hidden.shape[1], self.head.shape[0]);
        let floats = |a: &Access| context.pointer(a).cast::<f32>();
        let bytes = |a: &Access| Bytes(context.pointer(a));
        let dense = |a: &Access| Matrix { start: context.pointer(a), dtype: a.dtype, row: d, col: 1 };
        let (hidden, head) = (dense(&self.hidden), dense(&self.head));
        let rows = Rows {
            targets: bytes(&self.targets),
            log_sum: self.log_sum.as_ref().map(bytes),
            picked: self.picked.as_ref().map(bytes),
            gradient: self.gradient.as_ref().map(|g| (bytes(&g.factor), bytes(&g.update))),
            half: self.hidden.dtype == DType::F16,
        };
        let (logits, packed) = (floats(&self.logits), floats(&self.packed));
        let gradient = self.gradient.as_ref();
        let chunk = chunk_rows(n, v);
        for start in (0..n).step_by(chunk) {
            let count = chunk.min(n - start);
            // SAFETY: the planner lays all views inside their memories and apart; the logits hold a chunk.
            unsafe {
                let product = |shape: [usize; 3], x, y, to, add| {
                    let target = Target::Memory { start: to, stride: shape[1], add };
                    Product::new(shape, x, y, target).run(context, packed);
                };
                let h = hidden.from(start, 0);
                product([count, v, d], h, head.transposed(), logits, false);
                self.softmax_rows(context, rows, Bytes(logits.cast()), start, count);
                let dl = Matrix::floats(logits, v, 1);
                if let Some((to, wide)) = gradient.and_then(|g| Some((g.d_hidden.as_ref()?, &g.wide[0]))) {
                    let sums = wide.as_ref().map_or_else(|| floats(to).add(start * d), floats);
                    product([count, d, v], dl, head, sums, false);
                    if wide.is_some() {
                        round_to(sums, context.pointer(to).add(start * d * to.dtype.size()), count * d);
                    }
                }
                if let Some((to, wide)) = gradient.and_then(|g| Some((g.d_head.as_ref()?, &g.wide[1]))) {
                    let sums = floats(wide.as_ref().unwrap_or(to));
                    product([v, d, count], dl.transposed(), h, sums, start > 0);
                    if wide.is_some() && start + count == n {
                        round_to(sums, context.pointer(to), v * d);
                    }
                }
            }
        }
    }

    /// Log-sum-exp, picked logit and logit gradients of a chunk's rows, in place.
    fn softmax_rows(&self, context: &Context<'_>, rows: Rows, logits: Bytes, start: usize, count: usize) {
        let v = self.head.shape[0];
        for_each_task(count.div_ceil(8), &|t| {
            pulp::Arch::new().dispatch(|| {
                for r in t * 8..((t + 1) * 8).min(count) {
                    // SAFETY: the logits hold a chunk of rows, the per-row arrays all rows; tasks take disjoint rows.
                    unsafe {
                        let row = std::slice::from_raw_parts_mut(logits.get().cast::<f32>().add(r * v), v);
                        row_pass(context, rows, row, start + r);
                    }
                }
            });
        });
    }
}

#[inline(always)]
unsafe fn row_pass(context: &Context<'_>, rows: Rows, row: &mut [f32], i: usize) {
    if rows.half {
        for x in row.iter_mut() {
            *x = round_f16(*x);
        }
    }
    // SAFETY: as the caller promises.
    unsafe {
        let target = *rows.targets.get().cast::<i32>().add(i);
        let target = wrapped(i64::from(target), row.len()).unwrap_or_else(|| {
            context.fault.report(context.instruction, i64::from(target));
            0
        });
        if let Some(picked) = rows.picked {
            *picked.get().cast::<f32>().add(i) = row[target];
        }
        let top = extreme(row, f32::NEG_INFINITY, maximum);
        let top = if top.is_infinite() { 0.0 } else { top };
        let total = if rows.gradient.is_some() {
            for x in row.iter_mut() {
                *x = exp(*x - top);
            }
            sum(row, |x| x) as f32
        } else {
            sum(row, |x| exp(x - top)) as f32
        };
        if let Some(log_sum) = rows.log_sum {
            *log_sum.get().cast::<f32>().add(i) = total.ln() + top;
        }
        if let Some((factor, update)) = rows.gradient {
            let factor = *factor.get().cast::<f32>().add(i);
            for x in row.iter_mut() {
                *x = *x / total * factor;
            }
            row[target] += *update.get().cast::<f32>().add(i);
            if rows.half {
                for x in row.iter_mut() {
                    *x = round_f16(*x);
                }
            }
        }
    }
}

/// Rounds n floats to fp16, in parallel.
///
/// # Safety
/// Both must hold n elements.
unsafe fn round_to(from: *const f32, to: *mut u8, n: usize) {
    let (from, to) = (Bytes(from.cast_mut().cast()), Bytes(to));
    for_each_task(n.div_ceil(CONVERSION), &|t| {
        let (start, end) = (t * CONVERSION, ((t + 1) * CONVERSION).min(n));
        // SAFETY: as the caller promises.
        unsafe {
            let from = from.get().add(start * 4).cast_const().cast();
            narrow(DType::F16, from, to.get().add(start * 2), end - start);
        }
    });
}
