//! Conversion of consecutive elements between memory and registers.

use arcane_tensor::DType;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Converts `n` consecutive elements to fp32.
///
/// # Safety
/// `from` must hold n elements of the type (fp16, fp32 or bool), `to` n floats, apart from each other.
#[inline]
pub(crate) unsafe fn widen(dtype: DType, from: *const u8, to: *mut f32, n: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match dtype {
            DType::F16 => widen_f16(from.cast(), to, n),
            DType::F32 => std::ptr::copy_nonoverlapping(from.cast::<f32>(), to, n),
            _ => {
                for i in 0..n {
                    *to.add(i) = f32::from(*from.add(i));
                }
            }
        }
    }
}

/// Converts `n` floats to consecutive elements of a type.
///
/// # Safety
/// `from` must hold n floats, `to` n elements of the type (fp16, fp32 or bool), apart from each other.
#[inline]
pub(crate) unsafe fn narrow(dtype: DType, from: *const f32, to: *mut u8, n: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match dtype {
            DType::F16 => narrow_f16(from, to.cast(), n),
            DType::F32 => std::ptr::copy_nonoverlapping(from, to.cast::<f32>(), n),
            _ => {
                for i in 0..n {
                    *to.add(i) = u8::from(*from.add(i) != 0.0);
                }
            }
        }
    }
}

unsafe fn widen_f16(from: *const f16, to: *mut f32, n: usize) {
    // SAFETY: as the caller promises; the instructions are there.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("f16c") {
            return f16c::widen(from, to, n);
        }
        std::slice::from_raw_parts(from, n).convert_to_f32_slice(std::slice::from_raw_parts_mut(to, n));
    }
}

unsafe fn narrow_f16(from: *const f32, to: *mut f16, n: usize) {
    // SAFETY: as the caller promises; the instructions are there.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("f16c") {
            return f16c::narrow(from, to, n);
        }
        std::slice::from_raw_parts_mut(to, n).convert_from_f32_slice(std::slice::from_raw_parts(from, n));
    }
}

/// The conversions of `half`, inlined into their loops: it calls a function for eight elements.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };

    use half::f16;

    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn widen(from: *const f16, to: *mut f32, n: usize) {
        let whole = n / 8 * 8;
        // SAFETY: the caller's pointers hold n elements, the buffers of the rest eight.
        unsafe {
            for i in (0..whole).step_by(8) {
                _mm256_storeu_ps(to.add(i), _mm256_cvtph_ps(_mm_loadu_si128(from.add(i).cast())));
            }
            if whole < n {
                let (mut half, mut wide) = ([f16::ZERO; 8], [0f32; 8]);
                std::ptr::copy_nonoverlapping(from.add(whole), half.as_mut_ptr(), n - whole);
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(half.as_ptr().cast())));
                std::ptr::copy_nonoverlapping(wide.as_ptr(), to.add(whole), n - whole);
            }
        }
    }

    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn narrow(from: *const f32, to: *mut f16, n: usize) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        let whole = n / 8 * 8;
        // SAFETY: as for `widen`.
        unsafe {
            for i in (0..whole).step_by(8) {
                let half = _mm256_cvtps_ph::<NEAREST>(_mm256_loadu_ps(from.add(i)));
                _mm_storeu_si128(to.add(i).cast(), half);
            }
            if whole < n {
                let (mut half, mut wide) = ([f16::ZERO; 8], [0f32; 8]);
                std::ptr::copy_nonoverlapping(from.add(whole), wide.as_mut_ptr(), n - whole);
                let rounded = _mm256_cvtps_ph::<NEAREST>(_mm256_loadu_ps(wide.as_ptr()));
                _mm_storeu_si128(half.as_mut_ptr().cast(), rounded);
                std::ptr::copy_nonoverlapping(half.as_ptr(), to.add(whole), n - whole);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arcane_tensor::DType;
    use half::f16;

    use super::{narrow, widen};

    #[test]
    fn conversions_are_those_of_the_format_at_every_length() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0f32; halves.len()];
        // SAFETY: the vectors hold as many elements.
        unsafe { widen(DType::F16, halves.as_ptr().cast(), wide.as_mut_ptr(), halves.len()) };
        for (half, &got) in halves.iter().zip(&wide) {
            assert!(got == half.to_f32() || got.is_nan() && half.is_nan(), "{half}: {got}");
        }
        let floats: Vec<f32> = (0..4000u32).map(|i| f32::from_bits(i.wrapping_mul(1_073_801))).collect();
        for n in (0..40).chain([floats.len()]) {
            let mut back = vec![f16::ONE; n + 1];
            // SAFETY: as above.
            unsafe { narrow(DType::F16, floats.as_ptr(), back.as_mut_ptr().cast(), n) };
            for (&x, &got) in floats.iter().zip(&back[..n]) {
                let want = f16::from_f32(x);
                assert!(got == want || got.is_nan() && want.is_nan(), "{x}: {got}, not {want}");
            }
            assert_eq!(back[n], f16::ONE);
        }
    }
}
