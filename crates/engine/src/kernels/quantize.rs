//! Quantisation at run time.

use arcane_tensor::DType;

use super::{Access, Context, for_each_task, narrow, starts, widen};

/// Elements that are worth a task.
const TASK: usize = 16 * 1024;

/// Operands: x, the scale, the zero point where there is one, and the result. Parameters are one number or one for each of
/// `length` slices of `inner` elements.
#[derive(Clone, Debug)]
pub(crate) struct Quantize {
    /// Whether floats become integers, not the other way.
    pub quantizes: bool,
    /// Elements.
    pub count: usize,
    /// Numbers of the scale.
    pub length: usize,
    /// Elements after the axis.
    pub inner: usize,
    /// Whether there is a zero point.
    pub has_zero: bool,
}

/// Reads an element of eight bits.
unsafe fn byte(dtype: DType, from: *const u8, i: usize) -> f64 {
    // SAFETY: the caller's pointer holds more than i elements.
    let bits = unsafe { *from.add(i) };
    if dtype == DType::I8 { f64::from(bits as i8) } else { f64::from(bits) }
}

/// Reads a float.
unsafe fn float(dtype: DType, from: *const u8, i: usize) -> f64 {
    let mut value = 0f32;
    // SAFETY: the caller's pointer holds more than i elements.
    unsafe { widen(dtype, from.add(i * dtype.size()), &raw mut value, 1) };
    f64::from(value)
}

impl Quantize {
    pub(super) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        let pointers = starts(context, operands);
        let (x, scale, out) = (&operands[0], &operands[1], &operands[operands.len() - 1]);
        let to = pointers[operands.len() - 1];
        for_each_task(self.count.div_ceil(TASK), &|t| {
            for i in t * TASK..((t + 1) * TASK).min(self.count) {
                let k = i / self.inner % self.length;
                // SAFETY: the planner lays the operands inside their memories; tasks write different elements.
                unsafe {
                    let scale = float(scale.dtype, pointers[1].get(), k);
                    let zero =
                        if self.has_zero { byte(operands[2].dtype, pointers[2].get(), k) } else { 0.0 };
                    if self.quantizes {
                        let x = float(x.dtype, pointers[0].get(), i);
                        let value = (x / scale).round_ties_even() + zero;
                        // Conversions of floats saturate.
                        let bits = if out.dtype == DType::I8 { value as i8 as u8 } else { value as u8 };
                        to.get().add(i).write(bits);
                    } else {
                        // The product of fp16 and nine bits is exact in fp32, so nothing is rounded twice.
                        let value = (scale * (byte(x.dtype, pointers[0].get(), i) - zero)) as f32;
                        let place = to.get().add(i * out.dtype.size());
                        narrow(out.dtype, &raw const value, place, 1);
                    }
                }
            }
        });
    }
}
