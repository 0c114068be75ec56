//! Operands of products in the order in which micro-kernels read them; fp16 elements are widened on the way.

use arcane_tensor::DType;

use super::microkernel::{Kernel, Left, Right};
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
/// Columns that are turned at once: a vector of the commonest width.
const TURN: usize = 8;
/// Most rows of a packed left block.
pub(crate) const LEFT_ROWS: usize = 48;

/// Floats of storage for a packed left block of [`LEFT_ROWS`] rows and `depth` contracted elements, on any processor.
pub(crate) const fn left_len(depth: usize) -> usize {
    // Six rows of a panel take eight places.
    LEFT_ROWS * depth / 6 * 8 + 16
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
    let end = cols.end;
    for n0 in cols.step_by(width) {
        let count = width.min(end - n0);
        // SAFETY: as the caller promises.
        unsafe {
            let panel = to.add(n0 * k);
            if count < width {
                std::slice::from_raw_parts_mut(panel, k * width).fill(0.0);
            }
            let y = y.from(0, n0);
            if y.col == 1 || count == 1 {
                copy_panel(y, k, count, panel, width);
            } else {
                turn_panel(y, k, count, panel, width);
            }
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

/// A panel whose columns are neighbours in memory.
unsafe fn copy_panel(y: Matrix, k: usize, count: usize, to: *mut f32, width: usize) {
    // SAFETY: the caller's matrix has k rows of `count` columns, the panel k rows of `width`.
    unsafe {
        if y.dtype != DType::F32 {
            for row in 0..k {
                y.widen(row, 0, false, to.add(row * width), count);
            }
            return;
        }
        let from = y.start.cast::<f32>();
        match count {
            16 => copy_rows::<16>(from, y.row, k, to, width),
            32 => copy_rows::<32>(from, y.row, k, to, width),
            64 => copy_rows::<64>(from, y.row, k, to, width),
            _ => {
                for row in 0..k {
                    std::ptr::copy_nonoverlapping(from.add(row * y.row), to.add(row * width), count);
                }
            }
        }
    }
}

/// Copies rows of a length that the compiler knows.
unsafe fn copy_rows<const N: usize>(
    from: *const f32,
    stride: usize,
    rows: usize,
    to: *mut f32,
    width: usize,
) {
    for row in 0..rows {
        // SAFETY: as for `copy_panel`.
        unsafe {
            to.add(row * width)
                .cast::<[f32; N]>()
                .write_unaligned(from.add(row * stride).cast::<[f32; N]>().read_unaligned())
        };
    }
}

/// A panel whose columns are apart: a few columns at a time are widened, if they have to be, and turned.
unsafe fn turn_panel(y: Matrix, k: usize, count: usize, to: *mut f32, width: usize) {
    let mut wide = [0f32; TURN * RUN];
    for k0 in (0..k).step_by(RUN) {
        let rows = RUN.min(k - k0);
        for c0 in (0..count).step_by(TURN) {
            let cols = TURN.min(count - c0);
            // SAFETY: as for `copy_panel`; `wide` holds a run of each column.
            unsafe {
                let (from, stride) = if y.dtype == DType::F32 && (y.row == 1 || rows == 1) {
                    (y.from(k0, c0).start.cast::<f32>(), y.col)
                } else {
                    for c in 0..cols {
                        y.widen(k0, c0 + c, true, wide.as_mut_ptr().add(c * RUN), rows);
                    }
                    (wide.as_ptr(), RUN)
                };
                turn(from, stride, rows, cols, to.add(k0 * width + c0), width);
            }
        }
    }
}

/// `to[r·width + c] = from[c·stride + r]` for `rows × cols` elements, cols ≤ 8.
unsafe fn turn(from: *const f32, stride: usize, rows: usize, cols: usize, to: *mut f32, width: usize) {
    let mut done = 0;
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if cols == TURN && std::arch::is_x86_feature_detected!("avx") {
            done = rows / TURN * TURN;
            for r in (0..done).step_by(TURN) {
                turn_avx(from.add(r), stride, to.add(r * width), width);
            }
        }
        for r in done..rows {
            for c in 0..cols {
                *to.add(r * width + c) = *from.add(c * stride + r);
            }
        }
    }
}

/// [`turn`] for 8 × 8 elements in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn turn_avx(from: *const f32, stride: usize, to: *mut f32, width: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // SAFETY: as the caller promises.
    unsafe {
        let mut rows = [_mm256_setzero_ps(); 8];
        for (c, row) in rows.iter_mut().enumerate() {
            *row = _mm256_loadu_ps(from.add(c * stride));
        }
        for half in 0..2 {
            // Four rows at a time: pairs of them, then all four, in both halves of the vectors.
            let [a, b, c, d] = [rows[4 * half], rows[4 * half + 1], rows[4 * half + 2], rows[4 * half + 3]];
            let (low, high) = (
                [_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d)],
                [_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d)],
            );
            rows[4 * half] = _mm256_shuffle_ps::<0x44>(low[0], low[1]);
            rows[4 * half + 1] = _mm256_shuffle_ps::<0xee>(low[0], low[1]);
            rows[4 * half + 2] = _mm256_shuffle_ps::<0x44>(high[0], high[1]);
            rows[4 * half + 3] = _mm256_shuffle_ps::<0xee>(high[0], high[1]);
        }
        for i in 0..4 {
            let (first, second) = (rows[i], rows[i + 4]);
            _mm256_storeu_ps(to.add(i * width), _mm256_permute2f128_ps::<0x20>(first, second));
            _mm256_storeu_ps(to.add((i + 4) * width), _mm256_permute2f128_ps::<0x31>(first, second));
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
        Left { start: to, panel: k * step, row_step: 1, step }
    }
}

/// Left panels of `height` rows, each contracted element in `STEP` places.
unsafe fn pack_panels<const STEP: usize>(x: Matrix, rows: usize, k: usize, height: usize, to: *mut f32) {
    let mut wide = [0f32; LEFT_ROWS + 8];
    for kk in 0..k {
        // SAFETY: as for `pack_left`; `wide` holds a block's rows and one panel's spare places.
        unsafe {
            x.widen(0, kk, true, wide.as_mut_ptr(), rows);
            // Places past the panel's height are never read; copying them makes whole vectors of it.
            for (panel, r0) in (0..rows).step_by(height).enumerate() {
                let to = to.add((panel * k + kk) * STEP).cast::<[f32; STEP]>();
                to.write(wide.as_ptr().add(r0).cast::<[f32; STEP]>().read_unaligned());
            }
        }
    }
}
