//! Gather and scatter.

use arcane_mil::ScatterMode;
use arcane_tensor::DType;

use super::{Access, Bytes, Context, for_each_task};

/// Bytes that are worth a task.
const TASK: usize = 64 * 1024;
const MAX_TASKS: usize = 64;

/// How an axis cuts an array, and what indices pick along it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AxisCut {
    /// Elements before the axis.
    pub outer: usize,
    /// The axis's length.
    pub length: usize,
    /// Elements after the axis.
    pub inner: usize,
    /// Picks along the axis.
    pub picks: usize,
    /// Whether each element has an index of its own.
    pub along: bool,
}

impl AxisCut {
    /// The cut of a shape at an axis.
    pub(crate) fn new(shape: &[usize], axis: usize, picks: usize, along: bool) -> Self {
        let product = |dims: &[usize]| dims.iter().product();
        Self {
            outer: product(&shape[..axis]),
            length: shape[axis],
            inner: product(&shape[axis + 1..]),
            picks,
            along,
        }
    }
}

/// Elements or slices of x picked by indices along an axis. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    /// `[outer, length, inner]`
    pub x: Access,
    /// `[indices]`, or `[outer, picks, inner]` where along an axis.
    pub indices: Access,
    /// `[outer, picks, inner]`
    pub out: Access,
    /// How the axis cuts x.
    pub cut: AxisCut,
}

/// Elements or slices of a copy of `data` combined with updates at indices. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct Scatter {
    /// `[outer, length, inner]`; the same memory as `out` where that is allowed.
    pub data: Access,
    /// As in [`Gather`].
    pub indices: Access,
    /// `[outer, picks, inner]`
    pub updates: Access,
    /// Like data.
    pub out: Access,
    /// How the axis cuts data.
    pub cut: AxisCut,
    /// How.
    pub mode: ScatterMode,
}

/// Reads an index of any integer type.
pub(super) unsafe fn index_at(dtype: DType, from: *const u8, i: usize) -> i64 {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::I8 => i64::from(*from.cast::<i8>().add(i)),
            DType::U8 | DType::Bool => i64::from(*from.add(i)),
            DType::I16 => i64::from(*from.cast::<i16>().add(i)),
            DType::U16 => i64::from(*from.cast::<u16>().add(i)),
            DType::U32 => i64::from(*from.cast::<u32>().add(i)),
            DType::I64 | DType::U64 => *from.cast::<i64>().add(i),
            DType::I32 | DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => {
                i64::from(*from.cast::<i32>().add(i))
            }
            DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                i64::from(*from.cast::<i8>().add(i))
            }
        }
    }
}

/// An index as a position on an axis; a negative one counts from the end.
pub(super) fn wrapped(index: i64, length: usize) -> Option<usize> {
    let place = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(place).ok().filter(|&k| k < length)
}

impl Gather {
    /// Runs it. A bad index is reported and gives zeros.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let size = self.x.dtype.size();
        let (x, out) = (Bytes(context.pointer(&self.x)), Bytes(context.pointer(&self.out)));
        let indices = Bytes(context.pointer(&self.indices));
        let slice = if self.cut.along { size } else { self.cut.inner * size };
        let total = if self.cut.along {
            self.cut.outer * self.cut.picks * self.cut.inner
        } else {
            self.cut.outer * self.cut.picks
        };
        let tasks = (total * slice).div_ceil(TASK).clamp(1, MAX_TASKS);
        for_each_task(tasks, &|t| {
            for i in total * t / tasks..total * (t + 1) / tasks {
                // SAFETY: positions are inside the views, indices are checked; tasks write disjoint slices.
                unsafe {
                    let (outer, inner, at) = if self.cut.along {
                        (i / (self.cut.picks * self.cut.inner), i % self.cut.inner, i)
                    } else {
                        (i / self.cut.picks, 0, i % self.cut.picks)
                    };
                    let to = out.get().add(i * slice);
                    let index = index_at(self.indices.dtype, indices.get(), at);
                    let Some(k) = wrapped(index, self.cut.length) else {
                        context.fault.report(context.instruction, index);
                        std::ptr::write_bytes(to, 0, slice);
                        continue;
                    };
                    let from = x.get().add(((outer * self.cut.length + k) * self.cut.inner + inner) * size);
                    std::ptr::copy_nonoverlapping(from, to, slice);
                }
            }
        });
    }
}

impl Scatter {
    /// Runs it: tasks own disjoint columns, so that repeated indices meet in one task, in order.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let size = self.data.dtype.size();
        let (data, out) = (Bytes(context.pointer(&self.data)), Bytes(context.pointer(&self.out)));
        if data.get() != out.get() {
            let bytes = self.data.len() * size;
            for_each_task(bytes.div_ceil(1 << 20), &|t| {
                let (start, end) = (t << 20, ((t + 1) << 20).min(bytes));
                // SAFETY: both hold that many bytes and are apart.
                unsafe {
                    std::ptr::copy_nonoverlapping(data.get().add(start), out.get().add(start), end - start);
                };
            });
        }
        let (indices, updates) =
            (Bytes(context.pointer(&self.indices)), Bytes(context.pointer(&self.updates)));
        // Along an axis with one inner element, the outer positions are the disjoint parts.
        let by_outer = self.cut.outer > 1;
        let parts = if by_outer { self.cut.outer } else { self.cut.inner };
        let tasks = (self.updates.len() * size).div_ceil(TASK).clamp(1, MAX_TASKS).min(parts.max(1));
        for_each_task(tasks, &|t| {
            let (from, to) = (parts * t / tasks, parts * (t + 1) / tasks);
            let (outers, inners) =
                if by_outer { (from..to, 0..self.cut.inner) } else { (0..self.cut.outer, from..to) };
            for outer in outers {
                for pick in 0..self.cut.picks {
                    // SAFETY: positions are inside the views, indices are checked; tasks own disjoint elements.
                    unsafe {
                        self.row(
                            context,
                            outer,
                            pick,
                            inners.clone(),
                            indices.get(),
                            updates.get(),
                            out.get(),
                        );
                    }
                }
            }
        });
    }

    /// Combines one pick's elements.
    #[allow(clippy::too_many_arguments, reason = "positions and three memories")]
    unsafe fn row(
        &self,
        context: &Context<'_>,
        outer: usize,
        pick: usize,
        inners: std::ops::Range<usize>,
        indices: *const u8,
        updates: *const u8,
        out: *mut u8,
    ) {
        let size = self.data.dtype.size();
        let place = |index: i64| {
            let k = wrapped(index, self.cut.length);
            if k.is_none() {
                context.fault.report(context.instruction, index);
            }
            k
        };
        // SAFETY: as the caller promises.
        unsafe {
            if !self.cut.along {
                let Some(k) = place(index_at(self.indices.dtype, indices, pick)) else { return };
                let from =
                    updates.add(((outer * self.cut.picks + pick) * self.cut.inner + inners.start) * size);
                let to = out.add(((outer * self.cut.length + k) * self.cut.inner + inners.start) * size);
                return combine(self.data.dtype, self.mode, from, to, inners.len());
            }
            for inner in inners {
                let at = (outer * self.cut.picks + pick) * self.cut.inner + inner;
                let Some(k) = place(index_at(self.indices.dtype, indices, at)) else { return };
                let to = out.add(((outer * self.cut.length + k) * self.cut.inner + inner) * size);
                combine(self.data.dtype, self.mode, updates.add(at * size), to, 1);
            }
        }
    }
}

/// Combines n consecutive updates into what is there.
pub(super) unsafe fn combine(dtype: DType, mode: ScatterMode, from: *const u8, to: *mut u8, n: usize) {
    // SAFETY: the caller's pointers hold n elements.
    unsafe {
        match (mode, dtype) {
            (ScatterMode::Update, _) => std::ptr::copy_nonoverlapping(from, to, n * dtype.size()),
            (mode, DType::I32) => {
                let (from, to) = (from.cast::<i32>(), to.cast::<i32>());
                for i in 0..n {
                    let (data, update) = (*to.add(i), *from.add(i));
                    *to.add(i) = combined_integers(mode, data, update);
                }
            }
            (mode, DType::F32) => {
                let (from, to) = (from.cast::<f32>(), to.cast::<f32>());
                for i in 0..n {
                    let (data, update) = (*to.add(i), *from.add(i));
                    *to.add(i) = combined(mode, data, update);
                }
            }
            (_, other) => unreachable!("{other} updates are converted to fp32 first"),
        }
    }
}

fn combined(mode: ScatterMode, data: f32, update: f32) -> f32 {
    let nan = data.is_nan() || update.is_nan();
    match mode {
        ScatterMode::Add => data + update,
        ScatterMode::Update => update,
        ScatterMode::Sub => data - update,
        ScatterMode::Mul => data * update,
        ScatterMode::Div => data / update,
        ScatterMode::Max | ScatterMode::Min if nan => f32::NAN,
        ScatterMode::Max => data.max(update),
        ScatterMode::Min => data.min(update),
    }
}

/// As [`combined`], wrapping; a quotient by zero is zero.
fn combined_integers(mode: ScatterMode, data: i32, update: i32) -> i32 {
    match mode {
        ScatterMode::Add => data.wrapping_add(update),
        ScatterMode::Update => update,
        ScatterMode::Sub => data.wrapping_sub(update),
        ScatterMode::Mul => data.wrapping_mul(update),
        ScatterMode::Div if update == 0 => 0,
        ScatterMode::Div => data.wrapping_div(update),
        ScatterMode::Max => data.max(update),
        ScatterMode::Min => data.min(update),
    }
}
