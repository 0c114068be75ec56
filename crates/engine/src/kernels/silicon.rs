//! Products in the Neural Engine's arithmetic ([`arcane_chip::arithmetic::Accumulator`]).
//!
//! Each product of two fp16 numbers is rounded to a multiple of 2⁻¹⁶ or dropped, and the sum is fixed-point, so that the order of
//! terms matters only where a partial sum could reach 2¹⁵. The norms of a row and a column bound every partial sum of their
//! terms, by Cauchy and Schwarz; where the bound is below 2¹⁵ the sum is an int32 over lanes, and elsewhere the scalar model
//! computes the element term by term.

use arcane_chip::arithmetic::Accumulator;

use super::gemm::{Shape, batch_offset};
use super::{Access, Bytes, Context, for_each_task};

/// Columns of a panel of the right operand.
const PANEL: usize = 32;
/// Rows that a task takes, and columns.
const ROWS: usize = 64;
const COLS: usize = 32 * PANEL;
/// Rows that are computed at once.
const HEIGHT: usize = 4;
/// Floats of left rows that stay in the second-level cache.
const LEFT: usize = 128 * 1024;
/// 2¹⁶: from numbers to units of the accumulator.
const UNITS: f32 = 65536.0;
/// The smallest normal fp16 number; by its exponent smaller ones are judged.
const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;

/// `bias + x · y`, batch by batch; all are fp16.
#[derive(Clone, Debug)]
pub(crate) struct Silicon {
    /// `[batch.., m, k]`, any strides.
    pub x: Access,
    /// `[batch.., k, n]`, any strides.
    pub y: Access,
    /// `[batch.., m, n]`, any strides.
    pub bias: Option<Access>,
    /// `[batch.., m, n]`, any strides.
    pub out: Access,
    /// Where the right operand is packed: [`packed_len`] floats.
    pub packed: Access,
}

/// Floats of the packed right operand, with the squared norms of its columns behind it.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k.saturating_add(1).saturating_mul(n.next_multiple_of(PANEL))
}

/// A matrix of fp16 bits in memory.
#[derive(Clone, Copy)]
struct Halves {
    start: Bytes,
    row: usize,
    col: usize,
}

impl Halves {
    fn of(context: &Context<'_>, access: &Access, batch: usize) -> Self {
        let rank = access.shape.len();
        let start = context.pointer(access).wrapping_add(2 * batch_offset(access, batch));
        Self { start: Bytes(start), row: access.strides[rank - 2], col: access.strides[rank - 1] }
    }

    /// # Safety
    /// The element must lie in the matrix.
    #[inline(always)]
    unsafe fn at(self, row: usize, col: usize) -> *mut u16 {
        // SAFETY: as the caller promises.
        unsafe { self.start.get().cast::<u16>().add(row * self.row + col * self.col) }
    }
}

/// The number that the multipliers take fp16 bits for: an infinity is 65536.
#[inline(always)]
fn number(bits: u16) -> f32 {
    // fp16 bits behind fp32's exponent are the number times 2^-112, whatever the exponent.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

/// The smallest magnitude of the other factor whose product with x is not dropped: exponents have to sum to −16 or more.
#[inline(always)]
fn threshold(x: f32) -> f32 {
    let power = x.abs().max(SMALLEST_NORMAL).to_bits() & 0x7f80_0000;
    1.0 / (f32::from_bits(power) * UNITS)
}

impl Silicon {
    fn rows_per_task(k: usize) -> usize {
        (LEFT / k.max(1)).clamp(HEIGHT, ROWS) / HEIGHT * HEIGHT
    }

    /// Bytes of scratch that a thread needs: its left rows, their thresholds, their norms.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let k = Shape::new(&self.x.shape, &self.y.shape).k();
        4 * Self::rows_per_task(k) * (2 * k + 1)
    }

    /// Runs it over all batches.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let shape = Shape::new(&self.x.shape, &self.y.shape);
        let (m, n, k) = (shape.m(), shape.n(), shape.k());
        let packed = Bytes(context.pointer(&self.packed));
        let panels = n.div_ceil(PANEL);
        let rows = Self::rows_per_task(k);
        let cols = n.div_ceil(COLS);
        for batch in 0..shape.batches() {
            let product = Product {
                x: Halves::of(context, &self.x, batch),
                y: Halves::of(context, &self.y, batch),
                bias: self.bias.as_ref().map(|b| Halves::of(context, b, batch)),
                out: Halves::of(context, &self.out, batch),
                packed,
                shape: [m, n, k],
            };
            for_each_task(panels, &|panel| {
                // SAFETY: the planner lays the operands inside their memories; each panel is one task's.
                unsafe { product.pack(panel) };
            });
            for_each_task(m.div_ceil(rows) * cols, &|task| {
                let first = task / cols * rows;
                let panels = task % cols * (COLS / PANEL)..((task % cols + 1) * (COLS / PANEL)).min(panels);
                // SAFETY: as above; tasks write disjoint parts of the result.
                unsafe { product.rows(first..(first + rows).min(m), panels, context.scratch()) };
            });
        }
    }
}

/// One batch.
#[derive(Clone, Copy)]
struct Product {
    x: Halves,
    y: Halves,
    bias: Option<Halves>,
    out: Halves,
    packed: Bytes,
    shape: [usize; 3],
}

impl Product {
    /// The panel's columns, element k of all of them side by side.
    fn panel(&self, panel: usize) -> *mut f32 {
        self.packed.get().cast::<f32>().wrapping_add(panel * PANEL * self.shape[2])
    }

    /// The squared norms of the panel's columns.
    fn norms(&self, panel: usize) -> *mut f32 {
        let [_, n, k] = self.shape;
        self.packed.get().cast::<f32>().wrapping_add(n.next_multiple_of(PANEL) * k + panel * PANEL)
    }

    unsafe fn pack(&self, panel: usize) {
        let [_, n, k] = self.shape;
        let count = PANEL.min(n - panel * PANEL);
        let mut norms = [0f32; PANEL];
        let mut bits = [0u16; PANEL];
        for kk in 0..k {
            for (c, b) in bits[..count].iter_mut().enumerate() {
                // SAFETY: the caller's operand has k rows of n columns.
                *b = unsafe { *self.y.at(kk, panel * PANEL + c) };
            }
            let numbers = bits.map(number);
            for (norm, x) in norms.iter_mut().zip(numbers) {
                *norm += x * x;
            }
            // SAFETY: the storage holds k elements of each column, and a norm.
            unsafe { self.panel(panel).add(kk * PANEL).cast::<[f32; PANEL]>().write_unaligned(numbers) };
        }
        // SAFETY: as above.
        unsafe { self.norms(panel).cast::<[f32; PANEL]>().write_unaligned(norms) };
    }

    unsafe fn rows(&self, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>, scratch: &mut [f32]) {
        let [_, n, k] = self.shape;
        let height = rows.len().next_multiple_of(HEIGHT);
        let (left, rest) = scratch.split_at_mut(height * k);
        let (thresholds, rest) = rest.split_at_mut(height * k);
        let norms = &mut rest[..height];
        for r in 0..height {
            // Rows past the last one repeat it, and are not stored.
            let row = (rows.start + r).min(rows.end - 1);
            norms[r] = 0.0;
            for kk in 0..k {
                // SAFETY: the caller's operand has these rows of k columns.
                let x = number(unsafe { *self.x.at(row, kk) });
                norms[r] += x * x;
                left[r * k + kk] = x * UNITS;
                thresholds[r * k + kk] = threshold(x);
            }
        }
        for panel in panels {
            for r in (0..rows.len()).step_by(HEIGHT) {
                let operands = Operands {
                    left: left[r * k..].as_ptr(),
                    thresholds: thresholds[r * k..].as_ptr(),
                    right: self.panel(panel),
                    k,
                };
                // SAFETY: the left rows and the panel hold k elements.
                let sums = unsafe { operands.sums() };
                for (i, sums) in sums.iter().enumerate().take(rows.len() - r) {
                    for (c, &sum) in sums.iter().enumerate().take(n - panel * PANEL) {
                        let col = panel * PANEL + c;
                        // SAFETY: the element is in the result; the norms are those of the panel.
                        unsafe {
                            let norm = norms[r + i] * *self.norms(panel).add(c);
                            *self.out.at(rows.start + r + i, col) =
                                self.element(rows.start + r + i, col, sum, norm);
                        }
                    }
                }
            }
        }
    }

    /// The result of an element whose products sum to `sum` units, if no partial sum can overflow; `norm` is the product of the
    /// squared norms of its row and column.
    unsafe fn element(&self, row: usize, col: usize, sum: i32, norm: f32) -> u16 {
        let k = self.shape[2];
        // SAFETY: the bias is broadcast to the result.
        let bias = self.bias.map_or(0, |b| unsafe { *b.at(row, col) });
        let start = f64::from(number(bias));
        // Norms are sums in fp32, and each rounding adds half a unit.
        let bound =
            f64::from(norm).sqrt() * (1.0 + 1e-6 * k as f64) + start.abs() + k as f64 / 131_072.0 + 1.0;
        if bound < 32768.0 {
            let first = if start == 0.0 { 0 } else { (start * f64::from(UNITS)).round() as i64 };
            let units = i64::from(sum) + first;
            return rounded_units(units);
        }
        let mut exact = Accumulator::new(bias);
        for kk in 0..k {
            // SAFETY: the element's row and column are in the operands.
            unsafe { exact.add(*self.x.at(row, kk), *self.y.at(kk, col)) };
        }
        exact.result()
    }
}

/// A sum of less than 2¹⁵ in units of 2⁻¹⁶ as fp16, half away from zero.
#[inline(always)]
fn rounded_units(units: i64) -> u16 {
    let magnitude = units.unsigned_abs() as u32;
    let sign = if units < 0 { 0x8000 } else { 0 };
    if magnitude == 0 {
        return 0;
    }
    // Eleven bits stay; a carry out of them is the next exponent, which is the next bit pattern.
    let bits = 32 - magnitude.leading_zeros();
    if bits <= 2 {
        // Subnormal: steps of 2^-24.
        return sign | (magnitude << 8) as u16;
    }
    let mantissa = if bits > 11 {
        let drop = bits - 11;
        (magnitude + (1 << (drop - 1))) >> drop
    } else {
        magnitude << (11 - bits)
    };
    // 2^-16 has the exponent field -1, and its leading bit is counted in.
    sign | (((bits - 3) << 10) + mantissa) as u16
}

/// Left rows, and a panel.
struct Operands {
    left: *const f32,
    thresholds: *const f32,
    right: *const f32,
    k: usize,
}

impl Operands {
    /// The sums in units, which have wrapped around where they overflowed.
    ///
    /// # Safety
    /// The left rows and the panel must hold k elements.
    unsafe fn sums(&self) -> [[i32; PANEL]; HEIGHT] {
        // SAFETY: as the caller promises; the instructions are there.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            {
                if std::arch::is_x86_feature_detected!("avx512f") {
                    return self.sums_avx512();
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    return self.sums_avx2();
                }
            }
            let mut sums = [[0; PANEL]; HEIGHT];
            pulp::Arch::new().dispatch(|| self.add_sums(&mut sums));
            sums
        }
    }

    /// Eight lanes. A half with the product's sign is added to the product in one instruction, which is exact where it
    /// matters: the product has 22 bits.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sums_avx2(&self) -> [[i32; PANEL]; HEIGHT] {
        use std::arch::x86_64::{
            _CMP_GE_OQ, _mm256_add_epi32, _mm256_and_ps, _mm256_andnot_ps, _mm256_cmp_ps,
            _mm256_cvttps_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_or_ps,
            _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_ps,
        };
        const LANES: usize = 8;
        const WIDE: usize = 2 * LANES;
        let (half, smallest) = (_mm256_set1_ps(0.5), _mm256_set1_ps(SMALLEST_NORMAL));
        let sign = _mm256_set1_ps(-0.0);
        let mut stored = [[0; PANEL]; HEIGHT];
        for first in (0..PANEL).step_by(WIDE) {
            let mut sums = [[_mm256_setzero_si256(); 2]; HEIGHT];
            for kk in 0..self.k {
                // SAFETY: as for `sums`.
                let right = unsafe {
                    let row = self.right.add(kk * PANEL + first);
                    [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(LANES))]
                };
                let nudges = [0, 1].map(|c| _mm256_or_ps(_mm256_and_ps(right[c], sign), half));
                let sizes = [0, 1].map(|c| _mm256_max_ps(_mm256_andnot_ps(sign, right[c]), smallest));
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as for `sums`.
                    let (x, limit) = unsafe {
                        let at = r * self.k + kk;
                        (_mm256_set1_ps(*self.left.add(at)), _mm256_set1_ps(*self.thresholds.add(at)))
                    };
                    let negative = _mm256_and_ps(x, sign);
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let nudged = _mm256_fmadd_ps(x, right[c], _mm256_xor_ps(nudges[c], negative));
                        let kept = _mm256_cmp_ps::<_CMP_GE_OQ>(sizes[c], limit);
                        let units = _mm256_cvttps_epi32(_mm256_and_ps(nudged, kept));
                        *sum = _mm256_add_epi32(*sum, units);
                    }
                }
            }
            for (stored, sums) in stored.iter_mut().zip(sums) {
                for (c, sum) in sums.into_iter().enumerate() {
                    // SAFETY: a row of the result holds four vectors.
                    unsafe { _mm256_storeu_si256(stored.as_mut_ptr().add(first + LANES * c).cast(), sum) };
                }
            }
        }
        stored
    }

    #[inline(always)]
    unsafe fn add_sums(&self, sums: &mut [[i32; PANEL]; HEIGHT]) {
        for kk in 0..self.k {
            // SAFETY: as for `sums`.
            let right = unsafe { self.right.add(kk * PANEL).cast::<[f32; PANEL]>().read_unaligned() };
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as for `sums`.
                let (x, limit) =
                    unsafe { (*self.left.add(r * self.k + kk), *self.thresholds.add(r * self.k + kk)) };
                for (sum, y) in sums.iter_mut().zip(right) {
                    let product = x * y;
                    let kept = if y.abs().max(SMALLEST_NORMAL) >= limit { product } else { 0.0 };
                    *sum = sum.wrapping_add((kept + 0.5f32.copysign(kept)) as i32);
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn sums_avx512(&self) -> [[i32; PANEL]; HEIGHT] {
        use std::arch::x86_64::{
            _CMP_GE_OQ, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
            _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_cvttps_epi32, _mm512_max_ps,
            _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_si512,
            _mm512_ternarylogic_epi32, _mm512_xor_si512,
        };
        let (half, smallest) = (_mm512_castps_si512(_mm512_set1_ps(0.5)), _mm512_set1_ps(SMALLEST_NORMAL));
        let (sign, magnitude) = (_mm512_set1_epi32(i32::MIN), _mm512_set1_epi32(i32::MAX));
        let mut sums = [[_mm512_setzero_si512(); 2]; HEIGHT];
        for kk in 0..self.k {
            // SAFETY: as for `sums`.
            let right = unsafe {
                let row = self.right.add(kk * PANEL);
                [_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(16))]
            };
            let bits = [_mm512_castps_si512(right[0]), _mm512_castps_si512(right[1])];
            // half | (y & sign)
            let nudges = bits.map(|y| _mm512_ternarylogic_epi32::<0xf8>(half, y, sign));
            let sizes =
                bits.map(|y| _mm512_max_ps(_mm512_castsi512_ps(_mm512_and_si512(y, magnitude)), smallest));
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as for `sums`.
                let (x, limit) = unsafe {
                    let at = r * self.k + kk;
                    (_mm512_set1_ps(*self.left.add(at)), _mm512_set1_ps(*self.thresholds.add(at)))
                };
                let negative = _mm512_and_si512(_mm512_castps_si512(x), sign);
                for (c, sum) in sums.iter_mut().enumerate() {
                    // Adding half, with the product's sign, and cutting the fraction off rounds half away from zero.
                    let nudge = _mm512_castsi512_ps(_mm512_xor_si512(nudges[c], negative));
                    let nudged = _mm512_fmadd_ps(x, right[c], nudge);
                    let kept = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(sizes[c], limit);
                    *sum = _mm512_add_epi32(*sum, _mm512_maskz_cvttps_epi32(kept, nudged));
                }
            }
        }
        let mut stored = [[0; PANEL]; HEIGHT];
        for (stored, sums) in stored.iter_mut().zip(sums) {
            for (c, sum) in sums.into_iter().enumerate() {
                // SAFETY: a row of the result holds two vectors.
                unsafe { _mm512_storeu_si512(stored.as_mut_ptr().add(16 * c).cast(), sum) };
            }
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use arcane_chip::arithmetic::{decoded, rounded};

    use super::{number, rounded_units, threshold};

    #[test]
    fn numbers_are_those_that_the_model_decodes() {
        for bits in 0..=u16::MAX {
            assert_eq!(f64::from(number(bits)), decoded(bits), "{bits:x}");
        }
    }

    #[test]
    fn sums_round_as_the_model_does() {
        let mut units = 0i64;
        while units < 1 << 31 {
            for signed in [units, -units] {
                let expected = rounded(signed as f64 / 65536.0);
                assert_eq!(rounded_units(signed), if signed == 0 { 0 } else { expected }, "{signed}");
            }
            units += 1 + units / 1009;
        }
        for shift in 11..31 {
            let tie = (1i64 << shift) + (1 << (shift - 11));
            for near in [tie - 1, tie, tie + 1] {
                assert_eq!(rounded_units(near), rounded(near as f64 / 65536.0), "{near}");
            }
        }
    }

    #[test]
    fn thresholds_keep_exponents_that_sum_to_minus_16() {
        assert_eq!(threshold(1.5), 2f32.powi(-16));
        assert_eq!(threshold(-0.3), 2f32.powi(-14));
        assert_eq!(threshold(0.0), threshold(2f32.powi(-20)), "a subnormal number counts as 2^-14");
        assert_eq!(threshold(2f32.powi(-14)), 2f32.powi(-2));
    }
}
