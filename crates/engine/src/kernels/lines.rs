//! Ops along one axis: each line of elements by itself.

use arcane_tensor::DType;
use half::f16;

use super::index::AxisCut;
use super::{Access, Bytes, Context, for_each_task};

/// Elements that are worth a task.
const TASK: usize = 16 * 1024;
const MAX_TASKS: usize = 64;

/// What is done with a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Line {
    /// The index of the first NaN, or of the first largest or smallest element.
    Extreme {
        /// Whether of the largest.
        largest: bool,
    },
    /// The first `picks` elements in their order and their indices; NaN last, equal ones as they are.
    Order {
        /// Whether the smallest comes first.
        ascending: bool,
    },
    /// Sums up to each element.
    Sums {
        /// Whether the element itself is left out.
        exclusive: bool,
        /// Whether it starts from the end.
        reverse: bool,
    },
    /// x/(k + factor · Σx²)^β over `size` elements around each.
    LocalResponse {
        /// How many, half of them before.
        size: usize,
        /// α/size
        factor: f64,
        /// β
        beta: f64,
        /// k
        k: f64,
    },
}

/// An op along an axis of x `[outer, length, inner]`. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub what: Line,
    pub x: Access,
    /// How the axis cuts x; `picks` are the elements of a line of the results.
    pub cut: AxisCut,
    /// Where the elements go, `[outer, picks, inner]`.
    pub values: Option<Access>,
    /// Where the indices go.
    pub indices: Option<Access>,
}

/// An element of a line and its index.
type Entry = (f64, u32);

/// Reads an element: all types that are read here fit an f64.
unsafe fn load(dtype: DType, from: *const u8, i: usize) -> f64 {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::I8 | DType::I4 => f64::from(*from.cast::<i8>().add(i)),
            DType::U8 | DType::Bool | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => {
                f64::from(*from.add(i))
            }
            DType::I16 => f64::from(*from.cast::<i16>().add(i)),
            DType::U16 => f64::from(*from.cast::<u16>().add(i)),
            DType::U32 => f64::from(*from.cast::<u32>().add(i)),
            DType::F16 => (*from.cast::<f16>().add(i)).to_f64(),
            DType::F32 => f64::from(*from.cast::<f32>().add(i)),
            DType::I32 | DType::I64 | DType::U64 | DType::F64 | DType::Bf16 => {
                f64::from(*from.cast::<i32>().add(i))
            }
        }
    }
}

/// Writes an element; integers wrap.
///
/// # Safety
/// `to` must hold more than i elements of the type.
pub(super) unsafe fn store(dtype: DType, to: *mut u8, i: usize, value: f64) {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::Bool => *to.add(i) = u8::from(value != 0.0),
            DType::I8 | DType::U8 | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                *to.add(i) = value as i64 as u8;
            }
            DType::I16 | DType::U16 => *to.cast::<u16>().add(i) = value as i64 as u16,
            DType::F16 => *to.cast::<f16>().add(i) = f16::from_f32(value as f32),
            DType::F32 => *to.cast::<f32>().add(i) = value as f32,
            DType::I32 | DType::U32 | DType::I64 | DType::U64 | DType::F64 | DType::Bf16 => {
                *to.cast::<u32>().add(i) = value as i64 as u32;
            }
        }
    }
}

impl Lines {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        self.cut.length * size_of::<Entry>()
    }

    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let x = Bytes(context.pointer(&self.x));
        let target = |access: &Option<Access>| access.as_ref().map(|a| (a.dtype, Bytes(context.pointer(a))));
        let (values, indices) = (target(&self.values), target(&self.indices));
        let AxisCut { outer, length, inner, picks, .. } = self.cut;
        let lines = outer * inner;
        let tasks = (lines * length).div_ceil(TASK).clamp(1, MAX_TASKS).min(lines.max(1));
        for_each_task(tasks, &|t| {
            let scratch = context.scratch();
            // SAFETY: `scratch_bytes` counts the entries, any bits are numbers, and scratch is aligned to 64 bytes.
            let entries =
                unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast::<Entry>(), length) };
            for line in lines * t / tasks..lines * (t + 1) / tasks {
                let (o, i) = (line / inner, line % inner);
                for (k, entry) in entries.iter_mut().enumerate() {
                    let at = (o * length + k) * inner + i;
                    // SAFETY: positions are inside x.
                    *entry = (unsafe { load(self.x.dtype, x.get(), at) }, k as u32);
                }
                self.line(entries);
                for (k, &(value, index)) in entries[..picks].iter().enumerate() {
                    let at = (o * picks + k) * inner + i;
                    // SAFETY: positions are inside the results; tasks write disjoint lines.
                    unsafe {
                        if let Some((dtype, to)) = values {
                            store(dtype, to.get(), at, value);
                        }
                        if let Some((dtype, to)) = indices {
                            store(dtype, to.get(), at, f64::from(index));
                        }
                    }
                }
            }
        });
    }

    /// Puts the results of a line in its place.
    fn line(&self, entries: &mut [Entry]) {
        let n = entries.len();
        match self.what {
            Line::Extreme { largest } => {
                let mut best = 0;
                for i in 1..n {
                    let (x, top) = (entries[i].0, entries[best].0);
                    let beats = x.is_nan() || if largest { x > top } else { x < top };
                    if beats && !top.is_nan() {
                        best = i;
                    }
                }
                entries[0] = entries[best];
            }
            Line::Order { ascending } => entries.sort_unstable_by(|a, b| {
                let numbers = if ascending { a.0.partial_cmp(&b.0) } else { b.0.partial_cmp(&a.0) };
                numbers.unwrap_or_else(|| a.0.is_nan().cmp(&b.0.is_nan())).then(a.1.cmp(&b.1))
            }),
            Line::Sums { exclusive, reverse } => {
                let mut total = 0.0;
                for k in 0..n {
                    let entry = &mut entries[if reverse { n - 1 - k } else { k }];
                    let before = total;
                    total += entry.0;
                    entry.0 = if exclusive { before } else { total };
                }
            }
            Line::LocalResponse { size, factor, beta, k } => local_response(entries, size, factor, beta, k),
        }
    }
}

/// A window over the squares moves along; what no difference undoes, NaN and infinities, is summed for each element anew.
fn local_response(entries: &mut [Entry], size: usize, factor: f64, beta: f64, k: f64) {
    let n = entries.len();
    let finite = entries.iter().all(|e| e.0.is_finite());
    let (mut total, mut window) = (0.0, 0..0);
    for i in 0..n {
        let (first, end) = (i.saturating_sub(size / 2), i.saturating_add(size - size / 2).min(n));
        if finite {
            while window.end < end {
                total += entries[window.end].0 * entries[window.end].0;
                window.end += 1;
            }
            while window.start < first {
                total -= entries[window.start].0 * entries[window.start].0;
                window.start += 1;
            }
        } else {
            total = entries[first..end].iter().map(|e| e.0 * e.0).sum();
        }
        // The elements are wanted until the end; the place of the index is free for the sum.
        entries[i].1 = (total as f32).to_bits();
    }
    for (x, sum) in entries {
        *x /= (k + factor * f64::from(f32::from_bits(*sum))).powf(beta);
    }
}
