//! Products of matrices: how they are cut into tasks, and where operands are packed.
//!
//! The right operand is packed once, a chunk of columns at a time, and shared by all tasks; the left one is read where it is,
//! or packed block by block by the task that needs it. A product is cut by its shape alone, and k is never split between
//! tasks.

use super::fused::{BLOCK, Fused};
use super::microkernel::{Kernel, MAX_DEPTH, MAX_WIDTH, Right, block_depth, multiply};
use super::pack::{LEFT_ROWS, Matrix, left_len, pack_left, pack_right, right_len};
use super::{Bytes, Context, for_each_task};

/// Multiply-adds that are worth a task.
const TASK: usize = 1 << 20;
/// Most tasks that a product is cut into for the sake of having many.
const MAX_TASKS: usize = 32;
/// Elements that a task packs.
const PACKING: usize = 64 * 1024;
/// Floats of a right operand that are packed at once, unless one panel of it is longer.
const CHUNK: usize = 1 << 20;
/// Floats of a right operand that one thread packs for itself.
const OWN_CHUNK: usize = 64 * 1024;
/// Contracted elements below which a product of matrices in memory is not cut along k.
const LONG: usize = 2048;

/// Where a product goes.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// To memory: first element and row stride; added to what is there, or put.
    Memory {
        /// First element; columns are dense.
        start: *mut f32,
        /// Distance between rows.
        stride: usize,
        /// Whether the product is added to what is there.
        add: bool,
    },
    /// To a chain over a domain of which it is rows `first_row..`, a tile at a time.
    Chain {
        /// The chain.
        chain: &'a Fused,
        /// The domain's row that the product begins with.
        first_row: usize,
    },
}

/// One product, `[m, k] · [k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Contracted length.
    pub k: usize,
    /// Left, `[m, k]`.
    pub x: Matrix,
    /// Right, `[k, n]`.
    pub y: Matrix,
    /// Where it goes.
    pub target: Target<'a>,
    /// Contracted elements of a block: those of the whole product where this is a part of one.
    block: usize,
}

// SAFETY: the pointers are to memory that tasks use disjointly.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// Which part of the right operand is packed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    depth: usize,
    cols: usize,
}

/// The part that fits `limit` floats: all of k unless that is long and the product may be cut along it.
fn chunk(k: usize, n: usize, limit: usize, cut_depth: bool) -> Chunk {
    let wide = n.max(1).next_multiple_of(MAX_WIDTH);
    let depth = if cut_depth && k > LONG {
        let block = block_depth(k);
        ((limit / wide).clamp(LONG, k) / block * block).max(block)
    } else {
        k
    };
    let cols = (limit / depth.max(1) / MAX_WIDTH * MAX_WIDTH).clamp(MAX_WIDTH, wide);
    Chunk { depth, cols }
}

/// Floats of the storage that [`Product::run`] packs the right operand into.
pub(crate) fn packed_len(k: usize, n: usize, cut_depth: bool) -> usize {
    let chunk = chunk(k, n, CHUNK, cut_depth);
    right_len(chunk.depth, chunk.cols)
}

/// How the result is cut into tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    rows: usize,
    cols: usize,
}

/// Tasks of a product: blocks of rows, and pieces of columns where rows are few.
fn cut(m: usize, n: usize, k: usize, most_cols: usize) -> Cut {
    let wanted = (m * n).saturating_mul(k).div_ceil(TASK).clamp(1, MAX_TASKS);
    let blocks = m.div_ceil(LEFT_ROWS);
    let rows = blocks.div_ceil(wanted) * LEFT_ROWS;
    let pieces = (wanted / m.div_ceil(rows)).clamp(1, n.div_ceil(MAX_WIDTH));
    let cols = n.div_ceil(pieces).next_multiple_of(MAX_WIDTH).min(most_cols);
    Cut { rows, cols }
}

impl<'a> Product<'a> {
    /// The product of `x`, `[m, k]`, and `y`, `[k, n]`.
    pub(crate) fn new([m, n, k]: [usize; 3], x: Matrix, y: Matrix, target: Target<'a>) -> Self {
        Self { m, n, k, x, y, target, block: block_depth(k) }
    }

    /// Floats of scratch that a thread needs for a task of [`Product::run`], beside what the chain needs.
    pub(crate) fn scratch_len(chain: Option<&Fused>, n: usize) -> usize {
        let tile = if chain.is_some() { LEFT_ROWS * n.min(BLOCK).next_multiple_of(16) } else { 0 };
        left_len(MAX_DEPTH) + tile + chain.map_or(0, Fused::tile_scratch_len)
    }

    /// Floats of scratch that a thread needs for [`Product::run_alone`], beside those of [`Product::scratch_len`].
    pub(crate) fn alone_len(k: usize, n: usize) -> usize {
        right_len(k, chunk(k, n, OWN_CHUNK, false).cols)
    }

    /// Computes it on the pool's threads, with `packed` as storage of [`packed_len`] floats.
    ///
    /// # Safety
    /// The matrices must lie inside live memory, the result apart from the operands.
    pub(crate) unsafe fn run(self, context: &Context<'_>, packed: *mut f32) {
        let kernel = Kernel::best();
        let in_memory = matches!(self.target, Target::Memory { .. });
        let chunk = chunk(self.k, self.n, CHUNK, in_memory);
        let most_cols = if in_memory { usize::MAX } else { BLOCK };
        let packed = Bytes(packed.cast());
        for n0 in (0..self.n).step_by(chunk.cols) {
            let n = chunk.cols.min(self.n - n0);
            for k0 in (0..self.k.max(1)).step_by(chunk.depth.max(1)) {
                let k = chunk.depth.min(self.k - k0);
                // SAFETY: as the caller promises; the parts lie in the matrices.
                let part = unsafe { self.part(k0, k, n0, n) };
                let panels = n.div_ceil(kernel.width);
                let per_task = (PACKING / (k * kernel.width).max(1)).max(1);
                for_each_task(panels.div_ceil(per_task), &|t| {
                    let cols = t * per_task * kernel.width..((t + 1) * per_task * kernel.width).min(n);
                    // SAFETY: as above; tasks pack different panels.
                    unsafe { pack_right(&kernel, part.y, k, cols, packed.get().cast()) };
                });
                let cut = cut(self.m, n, k, most_cols);
                let pieces = n.div_ceil(cut.cols);
                for_each_task(self.m.div_ceil(cut.rows) * pieces, &|t| {
                    let (m0, c0) = (t / pieces * cut.rows, t % pieces * cut.cols);
                    let rows = m0..(m0 + cut.rows).min(self.m);
                    let cols = c0..(c0 + cut.cols).min(n);
                    let right = Right { start: packed.get().cast_const().cast(), depth: k };
                    // SAFETY: as above; tasks compute different tiles.
                    unsafe { part.tiles(context, &kernel, right, rows, n0, cols, context.scratch()) };
                });
            }
        }
    }

    /// Computes it on this thread, with the thread's scratch.
    ///
    /// # Safety
    /// As for [`Product::run`].
    pub(crate) unsafe fn run_alone(self, context: &Context<'_>) {
        let kernel = Kernel::best();
        let chunk = chunk(self.k, self.n, OWN_CHUNK, false);
        let (own, scratch) = context.scratch().split_at_mut(Self::alone_len(self.k, self.n));
        let most_cols = if matches!(self.target, Target::Memory { .. }) { usize::MAX } else { BLOCK };
        for n0 in (0..self.n).step_by(chunk.cols) {
            let n = chunk.cols.min(self.n - n0);
            // SAFETY: as the caller promises; the part lies in the matrices and its panels in the scratch.
            unsafe {
                let part = self.part(0, self.k, n0, n);
                pack_right(&kernel, part.y, self.k, 0..n, own.as_mut_ptr());
                for c0 in (0..n).step_by(most_cols.min(n)) {
                    let cols = c0..n.min(c0.saturating_add(most_cols));
                    let right = Right { start: own.as_ptr(), depth: self.k };
                    part.tiles(context, &kernel, right, 0..self.m, n0, cols, scratch);
                }
            }
        }
    }

    /// The product of `k` contracted elements from `k0` on; the right operand's columns from `n0` on.
    unsafe fn part(self, k0: usize, k: usize, n0: usize, n: usize) -> Self {
        let target = match self.target {
            Target::Memory { start, stride, add } => Target::Memory { start, stride, add: add || k0 > 0 },
            chain @ Target::Chain { .. } => chain,
        };
        if k == 0 {
            return Self { n, k, target, ..self };
        }
        // SAFETY: the part lies in the matrices.
        unsafe { Self { n, k, x: self.x.from(0, k0), y: self.y.from(k0, n0), target, ..self } }
    }

    /// Computes rows of a part's columns `cols`, which are the result's from `n0` on.
    #[allow(clippy::too_many_arguments, reason = "a tile and its place")]
    unsafe fn tiles(
        &self,
        context: &Context<'_>,
        kernel: &Kernel,
        right: Right,
        rows: std::ops::Range<usize>,
        n0: usize,
        cols: std::ops::Range<usize>,
        scratch: &mut [f32],
    ) {
        let n = cols.len();
        // SAFETY: columns begin at whole panels.
        let right = Right { start: unsafe { right.start.add(cols.start * right.depth) }, ..right };
        let (left, rest) = scratch.split_at_mut(left_len(MAX_DEPTH));
        let end = rows.end;
        for m0 in rows.step_by(LEFT_ROWS) {
            let m = LEFT_ROWS.min(end - m0);
            // SAFETY: as the caller promises; the scratch holds a packed block, a tile and the chain's registers.
            unsafe {
                match self.target {
                    Target::Memory { start, stride, add } => {
                        let out = (start.add(m0 * stride + n0 + cols.start), stride);
                        self.tile(kernel, right, m0, [m, n], out, add, left);
                    }
                    Target::Chain { chain, first_row } => {
                        let (tile, registers) = rest.split_at_mut(LEFT_ROWS * n);
                        self.tile(kernel, right, m0, [m, n], (tile.as_mut_ptr(), n), false, left);
                        let rows = first_row + m0..first_row + m0 + m;
                        let cols = n0 + cols.start..n0 + cols.end;
                        chain.run_tile(context, tile, rows, cols, registers);
                    }
                }
            }
        }
    }

    /// Computes one tile of at most [`LEFT_ROWS`] rows.
    #[allow(clippy::too_many_arguments, reason = "a tile and its place")]
    unsafe fn tile(
        &self,
        kernel: &Kernel,
        right: Right,
        m0: usize,
        [m, n]: [usize; 2],
        out: (*mut f32, usize),
        add: bool,
        left: &mut [f32],
    ) {
        // SAFETY: as for `tiles`.
        unsafe {
            if self.k == 0 {
                for r in 0..if add { 0 } else { m } {
                    std::slice::from_raw_parts_mut(out.0.add(r * out.1), n).fill(0.0);
                }
                return;
            }
            let x = self.x.from(m0, 0);
            if x.is_left_in_place(self.k) {
                let left = x.in_place(kernel);
                return multiply(kernel, left, right, [m, n, self.k], self.block, out, add);
            }
            for k0 in (0..self.k).step_by(self.block) {
                let k = self.block.min(self.k - k0);
                let left = pack_left(kernel, x.from(0, k0), m, k, left.as_mut_ptr());
                let right = Right { start: right.start.add(k0 * kernel.width), ..right };
                multiply(kernel, left, right, [m, n, k], self.block, out, add || k0 > 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, LONG, MAX_WIDTH, chunk, cut};
    use crate::kernels::microkernel::block_depth;

    #[test]
    fn chunks_fit_their_storage_and_keep_blocks_whole() {
        for k in [0, 1, 288, 2048, 2049, 32_000, 49_152] {
            for n in [0, 1, 64, 288, 1000, 32_000] {
                for cut_depth in [false, true] {
                    let chunk = chunk(k, n, CHUNK, cut_depth);
                    assert!(chunk.depth * chunk.cols <= CHUNK.max(chunk.depth * MAX_WIDTH), "{k} × {n}");
                    let in_blocks = cut_depth && k > LONG && chunk.depth.is_multiple_of(block_depth(k));
                    let whole = chunk.depth == k || in_blocks;
                    assert!(whole, "{k} × {n}: {chunk:?}");
                }
            }
        }
    }

    #[test]
    fn few_rows_are_cut_along_columns_and_small_products_not_at_all() {
        let tasks = |m: usize, n: usize, k: usize| {
            let cut = cut(m, n, k, usize::MAX);
            (m.div_ceil(cut.rows), n.div_ceil(cut.cols))
        };
        assert_eq!(tasks(1024, 288, 288), (22, 1));
        assert_eq!(tasks(96, 4096, 512), (2, 16));
        assert_eq!(tasks(100, 100, 20), (1, 1));
    }
}
