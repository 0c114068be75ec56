//! Cross entropy over a linear head, a chunk of rows at a time: the logits of all rows are never held at once.

use arcane_tensor::DType;

use super::gemm::{Bytes, Product, narrow_view, widen_view};
use super::math::{exp, extreme, maximum, round_f16, sum};
use super::{Access, Context, for_each_task};

/// Logits held at once.
const LOGITS: usize = 8 << 20;

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
    /// fp32 copies of hidden and head, where those are fp16.
    pub wide: Option<[Access; 2]>,
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
    /// fp32 forms of `d_hidden` and `d_head`, where those are fp16.
    pub wide: [Option<Access>; 2],
}

/// Rows of a chunk.
pub(crate) fn chunk_rows(rows: usize, vocabulary: usize) -> usize {
    let most = (LOGITS / vocabulary.max(1)).max(16);
    let chunks = rows.div_ceil(most).max(1);
    rows.div_ceil(chunks).next_multiple_of(16).min(rows.max(1))
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
    /// Runs it, chunk by chunk.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (n, d, v) = (self.hidden.shape[0], self.hidden.shape[1], self.head.shape[0]);
        let (mut hidden, mut head) = (&self.hidden, &self.head);
        if let Some([wide_hidden, wide_head]) = &self.wide {
            widen_view(context, hidden, wide_hidden);
            widen_view(context, head, wide_head);
            (hidden, head) = (wide_hidden, wide_head);
        }
        let floats = |a: &Access| context.pointer(a).cast::<f32>();
        let bytes = |a: &Access| Bytes(context.pointer(a));
        let rows = Rows {
            targets: bytes(&self.targets),
            log_sum: self.log_sum.as_ref().map(bytes),
            picked: self.picked.as_ref().map(bytes),
            gradient: self.gradient.as_ref().map(|g| (bytes(&g.factor), bytes(&g.update))),
            half: self.hidden.dtype == DType::F16,
        };
        let logits = floats(&self.logits);
        let target = |wanted: &Option<Access>, wide: &Option<Access>| {
            wanted.as_ref().map(|access| floats(wide.as_ref().unwrap_or(access)))
        };
        let d_hidden = self.gradient.as_ref().and_then(|g| target(&g.d_hidden, &g.wide[0]));
        let d_head = self.gradient.as_ref().and_then(|g| target(&g.d_head, &g.wide[1]));
        let chunk = chunk_rows(n, v);
        for start in (0..n).step_by(chunk) {
            let count = chunk.min(n - start);
            // SAFETY: the planner lays all views inside their memories and apart; the logits hold a chunk.
            unsafe {
                let h = (floats(hidden).add(start * d).cast_const(), d, 1);
                let e = floats(head).cast_const();
                let product =
                    |m, n, k, x, y, out, add| Product { m, n, k, x, y, out, add, factor: 1.0 }.run_tiled();
                product(count, v, d, h, (e, 1, d), (logits, v), false);
                self.softmax_rows(context, rows, Bytes(logits.cast()), start, count);
                let dl = logits.cast_const();
                if let Some(to) = d_hidden {
                    product(count, d, v, (dl, v, 1), (e, d, 1), (to.add(start * d), d), false);
                }
                if let Some(to) = d_head {
                    product(v, d, count, (dl, 1, v), h, (to, d), start > 0);
                }
            }
        }
        if let Some(g) = &self.gradient {
            for (wide, to) in g.wide.iter().zip([&g.d_hidden, &g.d_head]) {
                if let (Some(wide), Some(to)) = (wide, to) {
                    narrow_view(context, wide, to);
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
        let target = usize::try_from(target).ok().filter(|&t| t < row.len()).unwrap_or_else(|| {
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
