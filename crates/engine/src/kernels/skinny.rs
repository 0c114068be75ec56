//! Products with few rows, as in decoding: the right operand is read once, where it is, at the speed of memory.

use arcane_tensor::DType;

use super::product::{Product, Target};
use super::{Context, widen};

/// Most rows of the result.
const MAX_ROWS: usize = 4;
/// Elements of the right operand that a task reads.
const PIECE: usize = 64 * 1024;
/// Most columns of a task: a tile that a chain follows.
const MAX_COLS: usize = 1024;
/// Floats of a vector.
const LANES: usize = 8;

/// Whether a product of m rows is computed here: few rows, and a right operand, with strides `row` and `col`, that is dense
/// along one of its axes.
pub(crate) fn fits(m: usize, k: usize, row: usize, col: usize) -> bool {
    m <= MAX_ROWS && k > 0 && (row == 1 || col == 1)
}

/// Columns of a task.
pub(crate) fn cols_per_task(k: usize) -> usize {
    (PIECE / k.max(1)).next_multiple_of(16).clamp(64, MAX_COLS)
}

/// Floats of scratch that a task needs, beside the chain's: the left operand, a tile, and a row of the right operand.
pub(crate) fn scratch_len(m: usize, k: usize) -> usize {
    if m <= MAX_ROWS { m * k.next_multiple_of(LANES) + (m + 1) * MAX_COLS } else { 0 }
}

/// Computes columns `cols`.
///
/// # Safety
/// As for [`Product::run`]; tasks take disjoint columns.
pub(crate) unsafe fn run_cols(product: &Product<'_>, context: &Context<'_>, cols: std::ops::Range<usize>) {
    let (m, k, n) = (product.m, product.k, cols.len());
    let (x, rest) = context.scratch().split_at_mut(m * k.next_multiple_of(LANES));
    let (row, rest) = rest.split_at_mut(MAX_COLS);
    let (tile, registers) = rest.split_at_mut(m * MAX_COLS);
    // SAFETY: as the caller promises.
    unsafe {
        for (r, to) in x.chunks_exact_mut(k.next_multiple_of(LANES)).enumerate() {
            product.x.widen(r, 0, false, to.as_mut_ptr(), k);
            to[k..].fill(0.0);
        }
        let piece = Piece { y: product.y.from(0, cols.start), x, k, n };
        if product.y.row == 1 {
            match m {
                1 => piece.dots::<1, 4>(tile),
                2 => piece.dots::<2, 4>(tile),
                3 => piece.dots::<3, 2>(tile),
                _ => piece.dots::<4, 2>(tile),
            }
        } else {
            piece.sums(m, tile, row);
        }
        match product.target {
            Target::Memory { start, stride, add } => {
                for (r, values) in tile.chunks_exact(n).take(m).enumerate() {
                    let to = std::slice::from_raw_parts_mut(start.add(r * stride + cols.start), n);
                    for (to, &value) in to.iter_mut().zip(values) {
                        *to = if add { *to + value } else { value };
                    }
                }
            }
            Target::Chain { chain, first_row } => {
                chain.run_tile(context, tile, first_row..first_row + m, cols, registers);
            }
        }
    }
}

/// A few columns of the right operand, and the rows of the left one, each padded with zeros to whole vectors.
struct Piece<'a> {
    y: super::pack::Matrix,
    x: &'a [f32],
    k: usize,
    n: usize,
}

impl Piece<'_> {
    /// Columns that are dense: for each the dot products with the M rows of x, in `U` vectors of partial sums.
    unsafe fn dots<const M: usize, const U: usize>(&self, tile: &mut [f32]) {
        // SAFETY: the caller's matrix holds the columns; features are detected before they are used.
        unsafe {
            if self.y.dtype == DType::F32 {
                let load = |p: *const u8| p.cast::<[f32; LANES]>().read_unaligned();
                return pulp::Arch::new().dispatch(|| self.dots_of::<M, U>(tile, load));
            }
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
                return self.dots_f16c::<M, U>(tile);
            }
            let load = |p: *const u8| {
                let mut wide = [0f32; LANES];
                widen(DType::F16, p, wide.as_mut_ptr(), LANES);
                wide
            };
            self.dots_of::<M, U>(tile, load);
        }
    }

    /// [`Piece::dots`] of fp16 columns with the processor's conversion.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dots_f16c<const M: usize, const U: usize>(&self, tile: &mut [f32]) {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
        let load = |p: *const u8| {
            let mut wide = [0f32; LANES];
            // SAFETY: `dots_of` loads whole vectors.
            unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))) };
            wide
        };
        // SAFETY: as the caller promises.
        unsafe { self.dots_of::<M, U>(tile, load) };
    }

    #[inline(always)]
    unsafe fn dots_of<const M: usize, const U: usize>(
        &self,
        tile: &mut [f32],
        load: impl Fn(*const u8) -> [f32; LANES],
    ) {
        let size = self.y.dtype.size();
        let padded = self.k.next_multiple_of(LANES);
        let whole = self.k / (U * LANES) * (U * LANES);
        for j in 0..self.n {
            // SAFETY: the column has k elements, and x M rows of as many, padded.
            unsafe {
                let column = self.y.from(0, j).start;
                let mut sums = [[[0f32; LANES]; U]; M];
                let mut step = |k: usize, u: usize, y: [f32; LANES]| {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = self.x.as_ptr().add(r * padded + k).cast::<[f32; LANES]>().read_unaligned();
                        for lane in 0..LANES {
                            sums[u][lane] += x[lane] * y[lane];
                        }
                    }
                };
                for k in (0..whole).step_by(U * LANES) {
                    for u in 0..U {
                        step(k + u * LANES, u, load(column.add((k + u * LANES) * size)));
                    }
                }
                for (u, k) in (whole..self.k).step_by(LANES).enumerate() {
                    let mut rest = [0f32; LANES];
                    widen(self.y.dtype, column.add(k * size), rest.as_mut_ptr(), LANES.min(self.k - k));
                    step(k, u, rest);
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    tile[r * self.n + j] = total(sums);
                }
            }
        }
    }

    /// Rows that are dense: adds row after row, times the element of x.
    unsafe fn sums(&self, m: usize, tile: &mut [f32], row: &mut [f32]) {
        let padded = self.k.next_multiple_of(LANES);
        tile[..m * self.n].fill(0.0);
        pulp::Arch::new().dispatch(|| {
            for k in 0..self.k {
                // SAFETY: as for `dots_of`.
                let values = unsafe {
                    let from = self.y.from(k, 0).start;
                    if self.y.dtype == DType::F32 {
                        std::slice::from_raw_parts(from.cast::<f32>(), self.n)
                    } else {
                        widen(self.y.dtype, from, row.as_mut_ptr(), self.n);
                        &row[..self.n]
                    }
                };
                for (r, to) in tile.chunks_exact_mut(self.n).take(m).enumerate() {
                    let x = self.x[r * padded + k];
                    for (to, &y) in to.iter_mut().zip(values) {
                        *to += x * y;
                    }
                }
            }
        });
    }
}

/// The sum of all partial sums, by halves.
#[inline(always)]
fn total<const U: usize>(sums: [[f32; LANES]; U]) -> f32 {
    let mut lanes = [0f32; LANES];
    for vector in sums {
        for (lane, x) in lanes.iter_mut().zip(vector) {
            *lane += x;
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}
