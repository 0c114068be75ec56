//! Scaled dot-product attention and its gradients, in blocks of query rows: the scores of a block stay in cache, and a
//! causal mask skips the keys that no row of the block sees.

use arcane_tensor::DType;

use super::gemm::batch_offset;
use super::math::{exp, extreme, maximum, round_f16, sum};
use super::microkernel::{Kernel, Right, block_depth, multiply};
use super::pack::{Matrix, packed_right, right_len};
use super::{Access, Bytes, Context, for_each_task, narrow, widen};

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

/// One batch's matrix.
fn matrix(context: &Context<'_>, access: &Access, b: usize) -> Matrix {
    let rank = access.shape.len();
    let start = context.pointer(access).wrapping_add(batch_offset(access, b) * access.dtype.size());
    Matrix { start, dtype: access.dtype, row: access.strides[rank - 2], col: access.strides[rank - 1] }
}

/// `rows × cols` of a matrix as a left operand: where it is if it is fp32, else widened into scratch.
///
/// # Safety
/// The rows must lie in the matrix.
unsafe fn widened(x: Matrix, rows: usize, cols: usize, pool: &mut Pool<'_>) -> Matrix {
    if x.dtype == DType::F32 {
        return x;
    }
    let to = pool.take(rows * cols);
    for (r, to) in to.chunks_exact_mut(cols).enumerate() {
        // SAFETY: as the caller promises.
        unsafe { x.widen(r, 0, false, to.as_mut_ptr(), cols) };
    }
    Matrix::floats(to.as_ptr(), cols, 1)
}

/// A right operand of `k × n`, packed into scratch.
///
/// # Safety
/// The elements must lie in the matrix.
unsafe fn packed(kernel: &Kernel, y: Matrix, k: usize, n: usize, pool: &mut Pool<'_>) -> Right {
    // SAFETY: as the caller promises.
    unsafe { packed_right(kernel, y, k, n, pool.take(right_len(k, n)).as_mut_ptr()) }
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
        let queries = if self.query.dtype == DType::F32 { 0 } else { n.l * n.e };
        4 * (ROWS * (n.s + n.f) + queries + right_len(n.e, n.s) + right_len(n.s, n.f) + 128)
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
        let kernel = Kernel::best();
        let causal = matches!(self.mask, Mask::Causal);
        let rows_seen = (blocks.end * ROWS).min(n.l);
        let all_seen = if causal { rows_seen.min(n.s) } else { n.s };
        // SAFETY: as the caller promises.
        unsafe {
            let q = widened(matrix(context, &self.query, b), rows_seen, n.e, &mut pool);
            let keys = matrix(context, &self.key, b).transposed();
            let keys = packed(&kernel, keys, n.e, all_seen, &mut pool);
            let values = packed(&kernel, matrix(context, &self.value, b), all_seen, n.f, &mut pool);
            let out = context.pointer(&self.out).add(batch_offset(&self.out, b) * size);
            for block in blocks {
                let (i0, i1) = (block * ROWS, ((block + 1) * ROWS).min(n.l));
                let rows = i1 - i0;
                let seen = if causal { i1.min(n.s) } else { n.s };
                let scores = &mut scores[..rows * seen];
                let q = q.from(i0, 0).in_place(&kernel);
                multiply(
                    &kernel,
                    q,
                    keys,
                    [rows, seen, n.e],
                    block_depth(n.e),
                    (scores.as_mut_ptr(), seen),
                    false,
                );
                let scale = (self.scale, false);
                probabilities(context, scores, seen, i0, &self.mask, b, scale, f32::NEG_INFINITY);
                let to = out.add(i0 * row_stride * size);
                let target = if half { (result.as_mut_ptr(), n.f) } else { (to.cast(), row_stride) };
                let p = Matrix::floats(scores.as_ptr(), seen, 1).in_place(&kernel);
                multiply(&kernel, p, values, [rows, n.f, seen], block_depth(seen), target, false);
                for r in 0..if half { rows } else { 0 } {
                    let to = to.add(r * row_stride * size);
                    narrow(self.out.dtype, result[r * n.f..].as_ptr(), to, n.f);
                }
            }
        }
    }
}

impl AttentionGradient {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let n = lengths(&self.query, &self.value);
        let packed = right_len(n.e, n.s)
            + right_len(n.f, n.s)
            + right_len(n.s, n.e)
            + right_len(n.l, n.e)
            + right_len(n.l, n.f);
        let half = self.query.dtype != DType::F32;
        let wide = if half { n.l * (2 * n.e + n.f) + n.s * (n.e + n.f) } else { 0 };
        4 * (2 * ROWS * n.s + packed + wide + 256)
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
        let kernel = Kernel::best();
        // SAFETY: as the caller promises.
        unsafe {
            let [q, k, v, d_out] =
                [&self.query, &self.key, &self.value, &self.d_out].map(|access| matrix(context, access, b));
            // Each operand is packed once, in the direction in which the products of all blocks contract it.
            let keys_over_e = packed(&kernel, k.transposed(), n.e, n.s, &mut pool);
            let values_over_f = packed(&kernel, v.transposed(), n.f, n.s, &mut pool);
            let keys_over_s = packed(&kernel, k, n.s, n.e, &mut pool);
            let queries_over_l = packed(&kernel, q, n.l, n.e, &mut pool);
            let d_out_over_l = packed(&kernel, d_out, n.l, n.f, &mut pool);
            let q = widened(q, n.l, n.e, &mut pool);
            let d_out = widened(d_out, n.l, n.f, &mut pool);
            let targets: [Target; 3] =
                std::array::from_fn(|i| Target::new(context, &self.d[i], b, &mut pool));
            for i0 in (0..n.l).step_by(ROWS) {
                let rows = ROWS.min(n.l - i0);
                let seen = if matches!(self.mask, Mask::Causal) { (i0 + rows).min(n.s) } else { n.s };
                let (p, dp) = (&mut p[..rows * seen], &mut dp[..rows * seen]);
                let product = |x: Matrix, y: Right, shape: [usize; 3], out, add| {
                    multiply(&kernel, x.in_place(&kernel), y, shape, block_depth(shape[2]), out, add);
                };
                product(q.from(i0, 0), keys_over_e, [rows, seen, n.e], (p.as_mut_ptr(), seen), false);
                round_all(half, p);
                let scale = (self.scale, self.round_scaled);
                probabilities(context, p, seen, i0, &self.mask, b, scale, self.masked);
                let d_rows = d_out.from(i0, 0);
                product(d_rows, values_over_f, [rows, seen, n.f], (dp.as_mut_ptr(), seen), false);
                round_all(half, dp);
                self.score_gradients(p, dp, seen, half);
                let (p, ds) = (Matrix::floats(p.as_ptr(), seen, 1), Matrix::floats(dp.as_ptr(), seen, 1));
                let block = |y: Right| Right { start: y.start.add(i0 * kernel.width), ..y };
                product(p.transposed(), block(d_out_over_l), [seen, n.f, rows], targets[2].out, true);
                product(ds.transposed(), block(queries_over_l), [seen, n.e, rows], targets[1].out, true);
                let dq = (targets[0].out.0.add(i0 * targets[0].out.1), targets[0].out.1);
                product(ds, keys_over_s, [rows, n.e, seen], dq, false);
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
