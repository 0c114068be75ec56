//! Operands of products in the order in which micro-kernels read them; fp16 elements are widened on the way.

use std::mem::MaybeUninit;

use arcane_tensor::DType;

use super::microkernel::{Kernel, Left, Right, prefetch};
use super::widen;

/// A matrix in memory. Strides are in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// First byte.
    pub start: *const u8,
    /// fp16 or fp32.
    pub dtype: DType,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

// SAFETY: a matrix is only read, from memory that outlives the call.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

/// Floats of a left operand that may be strided along k and still be read in place: it stays in the second-level cache.
const NEAR: usize = 32 * 1024;
/// Contracted elements that are turned at once.
const RUN: usize = 256;
/// Columns of a row that are widened at once.
const ROW: usize = 512;
/// Columns that are turned at once: a vector of the commonest width.
const TURN: usize = 8;
/// Floats between packed left panels: without them, panels that are written side by side would fall on the same lines of
/// the first-level cache.
const PANEL_GAP: usize = 16;
/// How many contracted elements ahead a strided left operand is fetched.
const AHEAD: usize = 16;
/// Most rows of a packed left block.
pub(crate) const LEFT_ROWS: usize = 48;

/// Floats of storage for a packed left block of [`LEFT_ROWS`] rows and `depth` contracted elements, on any processor.
pub(crate) const fn left_len(depth: usize) -> usize {
    // Six rows of a panel take eight places; panels of four rows are most.
    LEFT_ROWS * depth / 6 * 8 + LEFT_ROWS / 4 * PANEL_GAP
}

impl Matrix {
    /// Floats in memory.
    pub(crate) fn floats(start: *const f32, row: usize, col: usize) -> Self {
        Self { start: start.cast(), dtype: DType::F32, row, col }
    }

    /// The matrix from an element on.
    ///
    /// # Safety
    /// The element must lie in the matrix.
    pub(crate) unsafe fn from(self, row: usize, col: usize) -> Self {
        let offset = (row * self.row + col * self.col) * self.dtype.size();
        // SAFETY: as the caller promises.
        Self { start: unsafe { self.start.add(offset) }, ..self }
    }

    /// Rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self { row: self.col, col: self.row, ..self }
    }

    /// Whether micro-kernels may read it as a left operand with k columns where it is.
    pub(crate) fn is_left_in_place(&self, k: usize) -> bool {
        self.dtype == DType::F32 && (self.col <= 1 || k * self.col <= NEAR)
    }

    /// The matrix as a left operand where it is.
    pub(crate) fn in_place(self, kernel: &Kernel) -> Left {
        debug_assert_eq!(self.dtype, DType::F32);
        let panel = kernel.height * self.row;
        Left { start: self.start.cast(), panel, row_step: self.row, step: self.col }
    }

    /// Widens `n` elements from `(row, col)` on, along columns or along rows.
    ///
    /// # Safety
    /// The elements must lie in the matrix; `to` holds n floats.
    pub(crate) unsafe fn widen(self, row: usize, col: usize, along_rows: bool, to: *mut f32, n: usize) {
        let step = if along_rows { self.row } else { self.col };
        let size = self.dtype.size();
        // SAFETY: as the caller promises.
        unsafe {
            let from = self.from(row, col).start;
            if step == 1 || n == 1 {
                return widen(self.dtype, from, to, n);
            }
            for i in 0..n {
                widen(self.dtype, from.add(i * step * size), to.add(i), 1);
            }
        }
    }
}

/// Floats of storage for a packed right operand of `k × n`, on any processor.
pub(crate) fn right_len(k: usize, n: usize) -> usize {
    k.saturating_mul(n.next_multiple_of(super::microkernel::MAX_WIDTH))
}

/// Packs columns `cols` of a right operand with k rows, whole panels from the first column on: `cols.start` must be a multiple
/// of the kernel's width. Panels are padded with zeros.
///
/// # Safety
/// The columns must lie in the matrix; `to` must hold the panels of columns `0..cols.end`.
pub(crate) unsafe fn pack_right(
    kernel: &Kernel,
    y: Matrix,
    k: usize,
    cols: std::ops::Range<usize>,
    to: *mut f32,
) {
    let width = kernel.width;
    // SAFETY: as the caller promises.
    unsafe {
        let (y, to, n) = (y.from(0, cols.start), to.add(cols.start * k), cols.len());
        if y.col == 1 || n == 1 {
            return match width {
                16 => copy_panels::<16>(y, k, n, to),
                64 => copy_panels::<64>(y, k, n, to),
                2 => copy_panels::<2>(y, k, n, to),
                other => unreachable!("no kernel has panels of {other} columns"),
            };
        }
        for n0 in (0..n).step_by(width) {
            let (count, panel) = (width.min(n - n0), to.add(n0 * k));
            if count < width {
                std::slice::from_raw_parts_mut(panel, k * width).fill(0.0);
            }
            turn_panel(y.from(0, n0), k, count, panel, width);
        }
    }
}

/// A right operand, packed into storage of [`right_len`] floats.
///
/// # Safety
/// As for [`pack_right`].
pub(crate) unsafe fn packed_right(kernel: &Kernel, y: Matrix, k: usize, n: usize, to: *mut f32) -> Right {
    // SAFETY: as the caller promises.
    unsafe { pack_right(kernel, y, k, 0..n, to) };
    Right { start: to, depth: k }
}

/// Panels of columns that are neighbours in memory: row after row, so that memory is read as it lies.
unsafe fn copy_panels<const WIDTH: usize>(y: Matrix, k: usize, n: usize, to: *mut f32) {
    let mut wide = MaybeUninit::<[f32; ROW]>::uninit();
    for n0 in (0..n).step_by(ROW) {
        let count = ROW.min(n - n0);
        for row in 0..k {
            // SAFETY: the caller's matrix has k rows of n columns, each panel k rows of WIDTH; `wide` holds a piece of a row.
            unsafe {
                let from = if y.dtype == DType::F32 {
                    y.from(row, n0).start.cast::<f32>()
                } else {
                    y.widen(row, n0, false, wide.as_mut_ptr().cast(), count);
                    wide.as_ptr().cast()
                };
                for c in (0..count).step_by(WIDTH) {
                    let to = to.add((n0 + c) * k + row * WIDTH).cast::<[f32; WIDTH]>();
                    if count - c >= WIDTH {
                        to.write_unaligned(from.add(c).cast::<[f32; WIDTH]>().read_unaligned());
                    } else {
                        let mut padded = [0f32; WIDTH];
                        std::ptr::copy_nonoverlapping(from.add(c), padded.as_mut_ptr(), count - c);
                        to.write_unaligned(padded);
                    }
                }
            }
        }
    }
}

/// A panel whose columns are apart: a few columns at a time are widened, if they have to be, and turned.
unsafe fn turn_panel(y: Matrix, k: usize, count: usize, to: *mut f32, width: usize) {
    let mut wide = MaybeUninit::<[f32; TURN * RUN]>::uninit();
    let wide = wide.as_mut_ptr().cast::<f32>();
    for k0 in (0..k).step_by(RUN) {
        let rows = RUN.min(k - k0);
        for c0 in (0..count).step_by(TURN) {
            let cols = TURN.min(count - c0);
            // SAFETY: as for `copy_panels`; `wide` holds a run of each column.
            unsafe {
                let (from, stride) = if y.dtype == DType::F32 && (y.row == 1 || rows == 1) {
                    (y.from(k0, c0).start.cast::<f32>(), y.col)
                } else {
                    for c in 0..cols {
                        y.widen(k0, c0 + c, true, wide.add(c * RUN), rows);
                    }
                    (wide.cast_const(), RUN)
                };
                turn(from, stride, rows, cols, to.add(k0 * width + c0), width);
            }
        }
    }
}

/// `to[r·width + c] = from[c·stride + r]` for `rows × cols` elements, cols ≤ 8.
unsafe fn turn(from: *const f32, stride: usize, rows: usize, cols: usize, to: *mut f32, width: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        let done = if cols == TURN && std::arch::is_x86_feature_detected!("avx") {
            let done = rows / TURN * TURN;
            turn_avx(from, stride, done, to, width);
            done
        } else {
            0
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        for r in done..rows {
            for c in 0..cols {
                *to.add(r * width + c) = *from.add(c * stride + r);
            }
        }
    }
}

/// [`turn`] of eight columns, 8 × 8 elements at a time in registers; `rows` is a multiple of 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn turn_avx(from: *const f32, stride: usize, rows: usize, to: *mut f32, width: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    for r in (0..rows).step_by(TURN) {
        let mut lines = [_mm256_setzero_ps(); TURN];
        for (c, line) in lines.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *line = unsafe { _mm256_loadu_ps(from.add(c * stride + r)) };
        }
        for four in lines.chunks_exact_mut(4) {
            // Pairs, then all four, in both halves of the vectors.
            let low = [_mm256_unpacklo_ps(four[0], four[1]), _mm256_unpacklo_ps(four[2], four[3])];
            let high = [_mm256_unpackhi_ps(four[0], four[1]), _mm256_unpackhi_ps(four[2], four[3])];
            four[0] = _mm256_shuffle_ps::<0x44>(low[0], low[1]);
            four[1] = _mm256_shuffle_ps::<0xee>(low[0], low[1]);
            four[2] = _mm256_shuffle_ps::<0x44>(high[0], high[1]);
            four[3] = _mm256_shuffle_ps::<0xee>(high[0], high[1]);
        }
        for i in 0..4 {
            let (first, second) = (lines[i], lines[i + 4]);
            // SAFETY: as the caller promises.
            unsafe {
                let to = to.add((r + i) * width);
                _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(first, second));
                _mm256_storeu_ps(to.add(4 * width), _mm256_permute2f128_ps::<0x31>(first, second));
            }
        }
    }
}

/// A block of a left operand, at most [`LEFT_ROWS`] rows with k columns, in storage of [`left_len`] floats.
///
/// # Safety
/// The block must lie in the matrix; `to` must hold the packed block.
pub(crate) unsafe fn pack_left(kernel: &Kernel, x: Matrix, rows: usize, k: usize, to: *mut f32) -> Left {
    // SAFETY: as the caller promises.
    unsafe {
        if x.col <= 1 {
            for r in 0..rows {
                x.widen(r, 0, false, to.add(r * k), k);
            }
            return Matrix::floats(to, k, 1).in_place(kernel);
        }
        let step = kernel.left_step();
        match step {
            4 => pack_panels::<4>(x, rows, k, kernel.height, to),
            8 => pack_panels::<8>(x, rows, k, kernel.height, to),
            other => unreachable!("no kernel has panels of {other} rows"),
        }
        Left { start: to, panel: k * step + PANEL_GAP, row_step: 1, step }
    }
}

/// Left panels of `height` rows, each contracted element in `STEP` places.
unsafe fn pack_panels<const STEP: usize>(x: Matrix, rows: usize, k: usize, height: usize, to: *mut f32) {
    let mut wide = [0f32; LEFT_ROWS + 8];
    let is_direct = x.dtype == DType::F32 && x.row == 1;
    for kk in 0..k {
        // SAFETY: as for `pack_left`; `wide` holds a block's rows and one panel's spare places.
        unsafe {
            if kk + AHEAD < k {
                prefetch(x.from(0, kk + AHEAD).start, rows * x.dtype.size());
            }
            let from = if is_direct {
                x.from(0, kk).start.cast::<f32>()
            } else {
                x.widen(0, kk, true, wide.as_mut_ptr(), rows);
                wide.as_ptr()
            };
            for (panel, r0) in (0..rows).step_by(height).enumerate() {
                let (from, to) = (from.add(r0), to.add(panel * (k * STEP + PANEL_GAP) + kk * STEP));
                // Places past the panel's height are never read; copying them makes whole vectors of it.
                if !is_direct || r0 + STEP <= rows {
                    to.cast::<[f32; STEP]>().write_unaligned(from.cast::<[f32; STEP]>().read_unaligned());
                } else {
                    std::ptr::copy_nonoverlapping(from, to, height.min(rows - r0));
                }
            }
        }
    }
}
