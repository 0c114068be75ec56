//! Products in registers: the micro-kernels of the `gemm-f32` crate, chosen by what the processor has.
//!
//! A micro-kernel multiplies a panel of the right operand, a few vectors wide, with a few rows of the left one. Each
//! element of the result is one running sum over k in ascending order, whatever its place in the panel, so how a product
//! is cut into panels, tiles and tasks changes no bit.

use gemm_common::microkernel::MicroKernelFn;

/// Most contracted elements that one sum in registers runs over.
pub(crate) const MAX_DEPTH: usize = 320;

/// Widest panel of any instruction set: what storage for packed operands is rounded up to.
pub(crate) const MAX_WIDTH: usize = 64;

/// The micro-kernels of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    /// Floats of a vector.
    lanes: usize,
    /// Columns of a panel.
    pub width: usize,
    /// Rows of the result that are computed at once.
    pub height: usize,
    /// The micro-kernel for v vectors and r rows at `(v − 1)·height + r − 1`.
    table: &'static [MicroKernelFn<f32>],
}

impl Kernel {
    /// The best of this processor.
    pub(crate) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use gemm_f32::microkernel::{avx512f, fma};
            if std::arch::is_x86_feature_detected!("avx512f") {
                const TABLE: &[MicroKernelFn<f32>] = avx512f::f32::UKR.as_flattened();
                let (width, height) = (16 * avx512f::f32::MR_DIV_N, avx512f::f32::NR);
                return Self { lanes: 16, width, height, table: TABLE };
            }
            if std::arch::is_x86_feature_detected!("fma") {
                const TABLE: &[MicroKernelFn<f32>] = fma::f32::UKR.as_flattened();
                let (width, height) = (8 * fma::f32::MR_DIV_N, fma::f32::NR);
                return Self { lanes: 8, width, height, table: TABLE };
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use gemm_f32::microkernel::neon;
            if std::arch::is_aarch64_feature_detected!("neon") {
                const TABLE: &[MicroKernelFn<f32>] = neon::f32::UKR.as_flattened();
                let (width, height) = (4 * neon::f32::MR_DIV_N, neon::f32::NR);
                return Self { lanes: 4, width, height, table: TABLE };
            }
        }
        Self::scalar()
    }

    /// The one that every processor can run.
    fn scalar() -> Self {
        use gemm_f32::microkernel::scalar;
        const TABLE: &[MicroKernelFn<f32>] = scalar::f32::UKR.as_flattened();
        Self { lanes: 1, width: scalar::f32::MR_DIV_N, height: scalar::f32::NR, table: TABLE }
    }

    /// Distance between the contracted elements of a packed left panel: its rows, rounded up to whole small vectors.
    pub(crate) fn left_step(&self) -> usize {
        self.height.next_multiple_of(4)
    }
}

/// How many contracted elements one block takes: all of a short k, else about equal blocks.
pub(crate) fn block_depth(k: usize) -> usize {
    k.div_ceil(k.div_ceil(MAX_DEPTH).max(1)).next_multiple_of(8).clamp(1, MAX_DEPTH)
}

/// The left operand as micro-kernels read it: floats at `row/height·panel + row%height·row_step + k·step`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    /// Its first element.
    pub start: *const f32,
    /// Distance between panels of the kernel's height.
    pub panel: usize,
    /// Distance between rows of a panel.
    pub row_step: usize,
    /// Distance between neighbours along k.
    pub step: usize,
}

/// The right operand, packed: panels of the kernel's width, each with `depth` rows.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    /// Its first element.
    pub start: *const f32,
    /// Contracted elements that were packed.
    pub depth: usize,
}

/// `out = left · right`, or `out += left · right`, for `[m, n, k]`, `block` contracted elements at a time. `out` is row-major with dense
/// columns.
///
/// # Safety
/// The operands must hold m × k and k × n elements, panels of the right one padded; `out` m rows of n at the stride, apart
/// from the operands.
pub(crate) unsafe fn multiply(
    kernel: &Kernel,
    left: Left,
    right: Right,
    [m, n, k]: [usize; 3],
    block: usize,
    out: (*mut f32, usize),
    add: bool,
) {
    for k0 in (0..k).step_by(block) {
        let count = block.min(k - k0);
        for n0 in (0..n).step_by(kernel.width) {
            let cols = kernel.width.min(n - n0);
            let row_of_kernels = (cols.div_ceil(kernel.lanes) - 1) * kernel.height;
            for m0 in (0..m).step_by(kernel.height) {
                let rows = kernel.height.min(m - m0);
                // SAFETY: as the caller promises; the processor has the instructions of the table.
                unsafe {
                    for r in 0..rows {
                        prefetch(out.0.add((m0 + r) * out.1 + n0).cast(), 4 * cols);
                    }
                    if n0 == 0 && left.row_step != 1 && m0 + 2 * kernel.height <= m {
                        let next = left.start.add((m0 / kernel.height + 1) * left.panel + k0 * left.step);
                        for r in 0..kernel.height {
                            prefetch(next.add(r * left.row_step).cast(), 4 * count * left.step);
                        }
                    }
                    let panel = right.start.add(n0 * right.depth + k0 * kernel.width);
                    (kernel.table[row_of_kernels + rows - 1])(
                        cols,
                        rows,
                        count,
                        out.0.add(m0 * out.1 + n0),
                        panel,
                        left.start.add(m0 / kernel.height * left.panel + k0 * left.step),
                        out.1 as isize,
                        1,
                        kernel.width as isize,
                        left.step as isize,
                        left.row_step as isize,
                        1.0,
                        1.0,
                        u8::from(add || k0 > 0),
                        false,
                        false,
                        false,
                        panel,
                    );
                }
            }
        }
    }
}

/// Asks for bytes that are needed soon; the hardware does not see rows that are far apart coming.
pub(crate) fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Left, Right, block_depth, multiply};

    /// Products of small integers are exact, whatever fuses: every kernel has to give the same.
    fn check(kernel: &Kernel, [m, n, k]: [usize; 3]) {
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
        let y = |kk: usize, j: usize| ((kk * 5 + j * 3) % 13) as f32 - 6.0;
        let width = kernel.width;
        let mut packed = vec![0f32; n.next_multiple_of(width) * k];
        for j in 0..n {
            for kk in 0..k {
                packed[j / width * width * k + kk * width + j % width] = y(kk, j);
            }
        }
        let mut out = vec![1f32; m * n];
        let left = Left { start: x.as_ptr(), panel: kernel.height * k, row_step: k, step: 1 };
        let right = Right { start: packed.as_ptr(), depth: k };
        // SAFETY: the vectors hold the matrices.
        unsafe { multiply(kernel, left, right, [m, n, k], block_depth(k), (out.as_mut_ptr(), n), true) };
        for i in 0..m {
            for j in 0..n {
                let want = 1.0 + (0..k).map(|kk| x[i * k + kk] * y(kk, j)).sum::<f32>();
                assert_eq!(out[i * n + j], want, "{m} × {n} × {k} at {i}, {j}");
            }
        }
    }

    #[test]
    fn every_edge_of_panels_and_blocks_is_computed() {
        for kernel in [Kernel::scalar(), Kernel::best()] {
            for m in 1..=kernel.height + 1 {
                for n in 1..=kernel.width + 1 {
                    check(&kernel, [m, n, 5]);
                }
            }
            check(&kernel, [7, 70, 700]);
        }
    }

    #[test]
    fn blocks_cover_k_in_equal_steps() {
        for k in 1..5000 {
            let depth = block_depth(k);
            assert!(depth <= super::MAX_DEPTH && k.div_ceil(depth) <= k.div_ceil(super::MAX_DEPTH) + 1);
        }
        assert_eq!([1, 288, 512, 1024, 32000].map(block_depth), [8, 288, 256, 256, 320]);
    }
}
