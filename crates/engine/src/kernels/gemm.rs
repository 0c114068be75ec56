//! Matrix products on the `gemm` crate, in fp32, cut into tiles by shape; k is never cut.
//!
//! fp16 operands are widened, products accumulate in fp32, and the result is rounded to fp16 once.

use arcane_tensor::DType;

use super::{Access, Context, for_each_task, narrow, widen};

/// Multiply-adds that are worth a task.
const TASK: usize = 1 << 20;
/// Most tiles of one matrix.
const MAX_TILES: usize = 8;
/// Elements that a conversion task takes.
const CONVERSION: usize = 64 * 1024;

/// `out = x · y`, batch by batch.
#[derive(Clone, Debug)]
pub(crate) struct Gemm {
    /// `[batch.., m, k]`, any strides.
    pub x: Access,
    /// `[batch.., k, n]`, any strides.
    pub y: Access,
    /// `[batch.., m, n]`, the last dimension dense.
    pub out: Access,
    /// Where fp16 operands and results are held in fp32: for x, y and out.
    pub wide: [Option<Access>; 3],
}

/// One fp32 product of matrices in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Contracted length.
    pub k: usize,
    /// Left: first element, row stride, column stride.
    pub x: (*const f32, usize, usize),
    /// Right.
    pub y: (*const f32, usize, usize),
    /// Result; its columns are dense.
    pub out: (*mut f32, usize),
    /// Whether the product is added to what is there.
    pub add: bool,
    /// A factor of the product.
    pub factor: f32,
}

// SAFETY: the pointers are to memory that tasks use disjointly.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// Computes it on this thread.
    ///
    /// # Safety
    /// The matrices must lie inside live memory, the result apart from the operands.
    #[inline]
    pub(crate) unsafe fn run(self) {
        // SAFETY: as the caller promises.
        unsafe {
            gemm::gemm(
                self.m,
                self.n,
                self.k,
                self.out.0,
                1,
                self.out.1 as isize,
                self.add,
                self.x.0,
                self.x.2 as isize,
                self.x.1 as isize,
                self.y.0,
                self.y.2 as isize,
                self.y.1 as isize,
                1.0,
                self.factor,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// Computes it in tiles on the pool's threads.
    ///
    /// # Safety
    /// As for [`Product::run`].
    pub(crate) unsafe fn run_tiled(self) {
        let (rows, cols) = tiles(self.m, self.n, self.k);
        for_each_task(rows * cols, &|t| {
            // SAFETY: as the caller promises; tiles are disjoint.
            unsafe { self.tile(t / cols, rows, t % cols, cols).run() }
        });
    }

    /// Tile (i, j) of a cut into `rows × cols` tiles.
    unsafe fn tile(self, i: usize, rows: usize, j: usize, cols: usize) -> Self {
        let (m0, m1) = piece(self.m, i, rows);
        let (n0, n1) = piece(self.n, j, cols);
        // SAFETY: the tile is inside the matrices.
        unsafe {
            Self {
                m: m1 - m0,
                n: n1 - n0,
                x: (self.x.0.add(m0 * self.x.1), self.x.1, self.x.2),
                y: (self.y.0.add(n0 * self.y.2), self.y.1, self.y.2),
                out: (self.out.0.add(m0 * self.out.1 + n0), self.out.1),
                ..self
            }
        }
    }
}

/// The bounds of piece i of `count` about equal pieces of `len`, cut at multiples of 16 where there is room.
fn piece(len: usize, i: usize, count: usize) -> (usize, usize) {
    let at = |i: usize| if i == count { len } else { (len * i / count).next_multiple_of(16).min(len) };
    (at(i), at(i + 1))
}

/// Into how many tiles along m and n a product is cut. Each tile packs its own operands, so tiles are few, and the longer
/// side is cut.
fn tiles(m: usize, n: usize, k: usize) -> (usize, usize) {
    let wanted = (m * n).saturating_mul(k).div_ceil(TASK).clamp(1, MAX_TILES);
    let cut = |len: usize, most: usize| (len / 48).clamp(1, most);
    if m >= n {
        let rows = cut(m, wanted);
        (rows, cut(n, wanted / rows))
    } else {
        let cols = cut(n, wanted);
        (cut(m, wanted / cols), cols)
    }
}

/// How many elements from the first the farthest one of a view is, plus one.
pub(crate) fn extent(access: &Access) -> usize {
    if access.shape.contains(&0) {
        return 0;
    }
    1 + access.shape.iter().zip(&access.strides).map(|(&d, &s)| (d - 1) * s).sum::<usize>()
}

/// Widens the elements under an fp16 view to fp32, stride for stride, in parallel.
pub(crate) fn widen_view(context: &Context<'_>, from: &Access, to: &Access) {
    let n = extent(from);
    let (from, to) = (Bytes(context.pointer(from)), Bytes(context.pointer(to)));
    for_each_task(n.div_ceil(CONVERSION), &|t| {
        let (start, end) = (t * CONVERSION, ((t + 1) * CONVERSION).min(n));
        // SAFETY: the planner gave the wide copy as many floats as the view has elements under it.
        unsafe { widen(DType::F16, from.get().add(start * 2), to.get().add(start * 4).cast(), end - start) }
    });
}

/// Rounds dense fp32 elements to dense fp16 ones, in parallel.
pub(crate) fn narrow_view(context: &Context<'_>, from: &Access, to: &Access) {
    let n = to.len();
    let (from, to) = (Bytes(context.pointer(from)), Bytes(context.pointer(to)));
    for_each_task(n.div_ceil(CONVERSION), &|t| {
        let (start, end) = (t * CONVERSION, ((t + 1) * CONVERSION).min(n));
        // SAFETY: both hold n elements.
        unsafe {
            let from = from.get().add(start * 4).cast_const().cast();
            narrow(DType::F16, from, to.get().add(start * 2), end - start);
        }
    });
}

/// A pointer that tasks share; each uses its own part.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(pub *mut u8);

// SAFETY: tasks use disjoint parts.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// The pointer.
    pub(crate) fn get(self) -> *mut u8 {
        self.0
    }
}

impl Gemm {
    /// Runs it over all batches.
    pub(crate) fn run(&self, context: &Context<'_>) {
        for (access, wide) in [(&self.x, &self.wide[0]), (&self.y, &self.wide[1])] {
            if let Some(wide) = wide {
                widen_view(context, access, wide);
            }
        }
        self.products(context);
        if let Some(wide) = &self.wide[2] {
            narrow_view(context, wide, &self.out);
        }
    }

    fn products(&self, context: &Context<'_>) {
        let rank = self.out.shape.len();
        let (batch, last) = self.out.shape.split_at(rank - 2);
        let (m, n, k) = (last[0], last[1], self.x.shape[rank - 1]);
        let of = |access: &Access, wide: &Option<Access>| {
            let pointer = context.pointer(wide.as_ref().unwrap_or(access)).cast::<f32>();
            Bytes(pointer.cast())
        };
        let (x, y) = (of(&self.x, &self.wide[0]), of(&self.y, &self.wide[1]));
        let out = of(&self.out, &self.wide[2]);
        let out_strides = self.wide[2].as_ref().map_or(&self.out.strides, |w| &w.strides);
        let product = |b: usize| {
            let (mut rest, mut at) = (b, [0usize; 3]);
            for i in (0..batch.len()).rev() {
                let index = rest % batch[i];
                rest /= batch[i];
                at[0] += index * self.x.strides[i];
                at[1] += index * self.y.strides[i];
                at[2] += index * out_strides[i];
            }
            // SAFETY: the planner lays all three views inside their memories.
            unsafe {
                Product {
                    m,
                    n,
                    k,
                    x: (
                        x.get().cast::<f32>().add(at[0]).cast_const(),
                        self.x.strides[rank - 2],
                        self.x.strides[rank - 1],
                    ),
                    y: (
                        y.get().cast::<f32>().add(at[1]).cast_const(),
                        self.y.strides[rank - 2],
                        self.y.strides[rank - 1],
                    ),
                    out: (out.get().cast::<f32>().add(at[2]), out_strides[rank - 2]),
                    add: false,
                    factor: 1.0,
                }
            }
        };
        let batches: usize = batch.iter().product();
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 {
            // SAFETY: the result is dense.
            unsafe { std::slice::from_raw_parts_mut(out.get().cast::<f32>(), batches * m * n).fill(0.0) };
            return;
        }
        if batches == 1 {
            // SAFETY: the planner keeps the result apart from the operands.
            return unsafe { product(0).run_tiled() };
        }
        let per_task = TASK.div_ceil((m * n * k).max(1)).min(batches);
        for_each_task(batches.div_ceil(per_task), &|t| {
            for b in t * per_task..((t + 1) * per_task).min(batches) {
                // SAFETY: as above; batches write disjoint results.
                unsafe { product(b).run() };
            }
        });
    }
}
