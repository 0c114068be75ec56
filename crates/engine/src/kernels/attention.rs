//! Scaled dot-product attention and its gradients, in blocks of query rows: the scores of a block stay in cache, and a
//! causal mask skips the keys that no row of the block sees.

use arcane_tensor::DType;

use super::gemm::{Bytes, Product};
use super::math::{exp, extreme, maximum, round_f16, sum};
use super::{Access, Context, for_each_task, narrow, widen};

/// Query rows of a block.
const ROWS: usize = 64;

/// Which keys a query sees.
#[derive(Clone, Debug)]
pub(crate) enum Mask {
    /// All.
    None,
    /// Those at its own position and before.
    Causal,
    /// Those where a `bool` tensor is true; a float tensor is added to the scores. Broadcast to `[batch.., L, S]`.
    Tensor(Access),
}

/// softmax(scale·Q·Kᵀ + mask)·V.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    /// `[batch.., L, E]`
    pub query: Access,
    /// `[batch.., S, E]`
    pub key: Access,
    /// `[batch.., S, F]`
    pub value: Access,
    /// `[batch.., L, F]`, its last dimension dense.
    pub out: Access,
    /// Which keys count.
    pub mask: Mask,
    /// The factor of the scores.
    pub scale: f32,
}

/// Gradients of attention with respect to query, key and value.
#[derive(Clone, Debug)]
pub(crate) struct AttentionGradient {
    /// As in [`Attention`].
    pub query: Access,
    /// As in [`Attention`].
    pub key: Access,
    /// As in [`Attention`].
    pub value: Access,
    /// `[batch.., L, F]`
    pub d_out: Access,
    /// Like query, key and value; last dimensions dense.
    pub d: [Access; 3],
    /// Which keys count.
    pub mask: Mask,
    /// Replaces masked scores.
    pub masked: f32,
    /// The factor of the scores.
    pub scale: f32,
    /// Whether scaled scores are rounded to fp16.
    pub round_scaled: bool,
    /// The factor of the scores' gradients.
    pub d_scale: f32,
}

/// A matrix of one batch: first element, row stride, column stride.
type Matrix = (*const f32, usize, usize);

/// The lengths of one attention.
#[derive(Clone, Copy)]
struct Lengths {
    batches: usize,
    l: usize,
    s: usize,
    e: usize,
    f: usize,
}

fn lengths(query: &Access, value: &Access) -> Lengths {
    let rank = query.shape.len();
    Lengths {
        batches: query.shape[..rank - 2].iter().product(),
        l: query.shape[rank - 2],
        e: query.shape[rank - 1],
        s: value.shape[rank - 2],
        f: value.shape[rank - 1],
    }
}

/// The offset of batch b's first element.
fn batch_offset(access: &Access, b: usize) -> usize {
    let outer = access.shape.len() - 2;
    let (mut rest, mut offset) = (b, 0);
    for i in (0..outer).rev() {
        offset += rest % access.shape[i] * access.strides[i];
        rest /= access.shape[i];
    }
    offset
}

/// Scratch handed out piece by piece.
struct Pool<'a>(&'a mut [f32]);

impl<'a> Pool<'a> {
    fn take(&mut self, n: usize) -> &'a mut [f32] {
        let all = std::mem::take(&mut self.0);
        let (piece, rest) = all.split_at_mut(n.next_multiple_of(16).min(all.len()));
        self.0 = rest;
        &mut piece[..n]
    }
}

/// One batch's matrix as floats: where it is if it is fp32, else widened into scratch.
///
/// # Safety
/// The access must lie inside its memory.
unsafe fn matrix(context: &Context<'_>, access: &Access, b: usize, pool: &mut Pool<'_>) -> Matrix {
    let rank = access.shape.len();
    let (rows, cols) = (access.shape[rank - 2], access.shape[rank - 1]);
    let (row_stride, col_stride) = (access.strides[rank - 2], access.strides[rank - 1]);
    let size = access.dtype.size();
    // SAFETY: as the caller promises.
    unsafe {
        let first = context.pointer(access).add(batch_offset(access, b) * size);
        if access.dtype == DType::F32 {
            return (first.cast::<f32>().cast_const(), row_stride, col_stride);
        }
        let to = pool.take(rows * cols);
        for r in 0..rows {
            if col_stride == 1 {
                widen(access.dtype, first.add(r * row_stride * size), to[r * cols..].as_mut_ptr(), cols);
            } else {
                for c in 0..cols {
                    let from = first.add((r * row_stride + c * col_stride) * size);
                    widen(access.dtype, from, &raw mut to[r * cols + c], 1);
                }
            }
        }
        (to.as_ptr(), cols, 1)
    }
}

/// Masks and scales a block of scores and makes each row a softmax. `seen` keys are in the block.
#[allow(clippy::too_many_arguments, reason = "a block and its place")]
fn probabilities(
    context: &Context<'_>,
    scores: &mut [f32],
    seen: usize,
    first_row: usize,
    mask: &Mask,
    b: usize,
    (scale, round_scaled): (f32, bool),
    masked: f32,
) {
    pulp::Arch::new().dispatch(|| {
        for (r, row) in scores.chunks_exact_mut(seen).enumerate() {
            for x in row.iter_mut() {
                *x *= scale;
                if round_scaled {
                    *x = round_f16(*x);
                }
            }
            let counted = match mask {
                Mask::None => seen,
                Mask::Causal => (first_row + r + 1).min(seen),
                Mask::Tensor(access) => {
                    apply_mask(context, access, b, first_row + r, row, masked);
                    seen
                }
            };
            let (live, dead) = row.split_at_mut(counted);
            dead.fill(0.0);
            let top = extreme(live, f32::NEG_INFINITY, maximum);
            for x in live.iter_mut() {
                *x = exp(*x - top);
            }
            let total = sum(live, |x| x) as f32;
            for x in live.iter_mut() {
                *x /= total;
            }
        }
    });
}

#[inline(always)]
fn apply_mask(context: &Context<'_>, mask: &Access, b: usize, row: usize, scores: &mut [f32], masked: f32) {
    let rank = mask.shape.len();
    let offset = batch_offset(mask, b) + row * mask.strides[rank - 2];
    let step = mask.strides[rank - 1];
    let size = mask.dtype.size();
    let first = context.pointer(mask);
    for (j, x) in scores.iter_mut().enumerate() {
        let mut m = 0f32;
        // SAFETY: the planner gave the mask the shape of the scores.
        unsafe { widen(mask.dtype, first.add((offset + j * step) * size), &raw mut m, 1) };
        if mask.dtype == DType::Bool {
            *x = if m == 0.0 { masked } else { *x };
        } else {
            *x += m;
        }
    }
}

impl Attention {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let n = lengths(&self.query, &self.value);
        4 * (ROWS * n.s + (n.l * n.e) + n.s * (n.e + n.f) + ROWS * n.f + 128)
    }

    /// Runs it: a task for each batch, or for each block of queries where batches are few.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let n = lengths(&self.query, &self.value);
        let blocks = n.l.div_ceil(ROWS);
        let (parts, per_part) = if n.batches >= 8 { (1, blocks) } else { (blocks, 1) };
        for_each_task(n.batches * parts, &|t| {
            let (b, part) = (t / parts, t % parts);
            // SAFETY: the planner lays the views inside their memories; tasks write disjoint rows.
            unsafe { self.batch(context, n, b, part * per_part..(part + 1) * per_part) };
        });
    }

    unsafe fn batch(&self, context: &Context<'_>, n: Lengths, b: usize, blocks: std::ops::Range<usize>) {
        let mut pool = Pool(context.scratch());
        let scores = pool.take(ROWS * n.s);
        let result = pool.take(ROWS * n.f);
        let (rank, size) = (self.out.shape.len(), self.out.dtype.size());
        let row_stride = self.out.strides[rank - 2];
        let half = self.out.dtype != DType::F32;
        // SAFETY: as the caller promises.
        unsafe {
            let q = matrix(context, &self.query, b, &mut pool);
            let k = matrix(context, &self.key, b, &mut pool);
            let v = matrix(context, &self.value, b, &mut pool);
            let out = context.pointer(&self.out).add(batch_offset(&self.out, b) * size);
            for block in blocks {
                let (i0, i1) = (block * ROWS, ((block + 1) * ROWS).min(n.l));
                let rows = i1 - i0;
                let seen = if matches!(self.mask, Mask::Causal) { i1.min(n.s) } else { n.s };
                let scores = &mut scores[..rows * seen];
                block_scores(q, k, i0, rows, seen, n.e, scores);
                probabilities(
                    context,
                    scores,
                    seen,
                    i0,
                    &self.mask,
                    b,
                    (self.scale, false),
                    f32::NEG_INFINITY,
                );
                let to = out.add(i0 * row_stride * size);
                let (target, stride) =
                    if half { (result.as_mut_ptr(), n.f) } else { (to.cast(), row_stride) };
                Product {
                    m: rows,
                    n: n.f,
                    k: seen,
                    x: (scores.as_ptr(), seen, 1),
                    y: v,
                    out: (target, stride),
                    add: false,
                    factor: 1.0,
                }
                .run();
                if half {
                    for r in 0..rows {
                        narrow(
                            self.out.dtype,
                            result[r * n.f..].as_ptr(),
                            to.add(r * row_stride * size),
                            n.f,
                        );
                    }
                }
            }
        }
    }
}

/// Unscaled scores of a block of queries against the first `seen` keys.
unsafe fn block_scores(
    q: Matrix,
    k: Matrix,
    i0: usize,
    rows: usize,
    seen: usize,
    e: usize,
    scores: &mut [f32],
) {
    // SAFETY: the caller's matrices hold these rows.
    unsafe {
        Product {
            m: rows,
            n: seen,
            k: e,
            x: (q.0.add(i0 * q.1), q.1, q.2),
            y: (k.0, k.2, k.1),
            out: (scores.as_mut_ptr(), seen),
            add: false,
            factor: 1.0,
        }
        .run();
    }
}

impl AttentionGradient {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let n = lengths(&self.query, &self.value);
        4 * (2 * ROWS * n.s + 2 * (n.l * (n.e + n.f) + n.s * (n.e + n.f)) + 256)
    }

    /// Runs it: a task for each batch.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let n = lengths(&self.query, &self.value);
        for_each_task(n.batches, &|b| {
            // SAFETY: the planner lays the views inside their memories; tasks write disjoint batches.
            unsafe { self.batch(context, n, b) };
        });
    }

    unsafe fn batch(&self, context: &Context<'_>, n: Lengths, b: usize) {
        let mut pool = Pool(context.scratch());
        let p = pool.take(ROWS * n.s);
        let dp = pool.take(ROWS * n.s);
        let half = self.d[0].dtype != DType::F32;
        // SAFETY: as the caller promises.
        unsafe {
            let q = matrix(context, &self.query, b, &mut pool);
            let k = matrix(context, &self.key, b, &mut pool);
            let v = matrix(context, &self.value, b, &mut pool);
            let d_out = matrix(context, &self.d_out, b, &mut pool);
            let targets: [Target; 3] =
                std::array::from_fn(|i| Target::new(context, &self.d[i], b, &mut pool));
            for i0 in (0..n.l).step_by(ROWS) {
                let rows = ROWS.min(n.l - i0);
                let seen = if matches!(self.mask, Mask::Causal) { (i0 + rows).min(n.s) } else { n.s };
                let (p, dp) = (&mut p[..rows * seen], &mut dp[..rows * seen]);
                block_scores(q, k, i0, rows, seen, n.e, p);
                round_all(half, p);
                probabilities(
                    context,
                    p,
                    seen,
                    i0,
                    &self.mask,
                    b,
                    (self.scale, self.round_scaled),
                    self.masked,
                );
                let d_rows = (d_out.0.add(i0 * d_out.1), d_out.1, d_out.2);
                let v_t = (v.0, v.2, v.1);
                let product =
                    |m, n, k, x, y, out, add| Product { m, n, k, x, y, out, add, factor: 1.0 }.run();
                product(rows, seen, n.f, d_rows, v_t, (dp.as_mut_ptr(), seen), false);
                round_all(half, dp);
                self.score_gradients(p, dp, seen, half);
                let (p, ds) = ((p.as_ptr(), 1, seen), dp.as_ptr());
                product(seen, n.f, rows, p, d_rows, targets[2].out, true);
                let q_rows = (q.0.add(i0 * q.1), q.1, q.2);
                product(seen, n.e, rows, (ds, 1, seen), q_rows, targets[1].out, true);
                let dq = (targets[0].out.0.add(i0 * targets[0].out.1), targets[0].out.1);
                product(rows, n.e, seen, (ds, seen, 1), k, dq, false);
            }
            for target in targets {
                target.finish();
            }
        }
    }

    /// Turns probabilities and their gradients into the scores' gradients, in `dp`; rounds both for the products.
    fn score_gradients(&self, p: &mut [f32], dp: &mut [f32], seen: usize, half: bool) {
        pulp::Arch::new().dispatch(|| {
            for (p, dp) in p.chunks_exact_mut(seen).zip(dp.chunks_exact_mut(seen)) {
                let mut total = 0f64;
                for (p, d) in p.chunks(16).zip(dp.chunks(16)) {
                    let mut part = 0f32;
                    for (p, d) in p.iter().zip(d) {
                        part += p * d;
                    }
                    total += f64::from(part);
                }
                let total = total as f32;
                for (p, d) in p.iter().zip(dp.iter_mut()) {
                    *d = p * (*d - total) * self.d_scale;
                }
            }
        });
        round_all(half, p);
        round_all(half, dp);
    }
}

fn round_all(half: bool, values: &mut [f32]) {
    if half {
        pulp::Arch::new().dispatch(|| {
            for x in values.iter_mut() {
                *x = round_f16(*x);
            }
        });
    }
}

/// One batch of a gradient, zeroed: in place if it is fp32, else in scratch until it is finished.
struct Target {
    /// First element and row stride, in floats.
    out: (*mut f32, usize),
    rows: usize,
    cols: usize,
    /// Where it goes in the end: first byte and row stride in elements.
    rounded: Option<(Bytes, usize, DType)>,
}

impl Target {
    unsafe fn new(context: &Context<'_>, access: &Access, b: usize, pool: &mut Pool<'_>) -> Self {
        let rank = access.shape.len();
        let (rows, cols) = (access.shape[rank - 2], access.shape[rank - 1]);
        let stride = access.strides[rank - 2];
        // SAFETY: the planner lays the access inside its memory.
        unsafe {
            let first = context.pointer(access).add(batch_offset(access, b) * access.dtype.size());
            if access.dtype != DType::F32 {
                let wide = pool.take(rows * cols);
                wide.fill(0.0);
                let rounded = Some((Bytes(first), stride, access.dtype));
                return Self { out: (wide.as_mut_ptr(), cols), rows, cols, rounded };
            }
            let first = first.cast::<f32>();
            for r in 0..rows {
                std::slice::from_raw_parts_mut(first.add(r * stride), cols).fill(0.0);
            }
            Self { out: (first, stride), rows, cols, rounded: None }
        }
    }

    unsafe fn finish(self) {
        let Some((first, stride, dtype)) = self.rounded else { return };
        for r in 0..self.rows {
            // SAFETY: as for `new`.
            unsafe {
                let to = first.get().add(r * stride * dtype.size());
                narrow(dtype, self.out.0.add(r * self.out.1), to, self.cols);
            }
        }
    }
}
