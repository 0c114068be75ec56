//! Copies in another order.

use super::{Access, Bytes, Context, for_each_task};

/// Bytes that are worth a task.
const TASK: usize = 64 * 1024;
const MAX_TASKS: usize = 64;

/// The offset of an element that is no copy.
pub(crate) const NOWHERE: i64 = i64::MIN;

/// A copy through tables: the element of the result at coordinates i, j, .. is the source's element at the sum of
/// `offsets[0][i]`, `offsets[1][j]`, ..; it is `fill` where one of them is [`NOWHERE`].
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// What is copied; its shape and strides say nothing here.
    pub from: Access,
    /// Where to, strided.
    pub to: Access,
    /// For each dimension of the result and each coordinate along it an offset into the source, in elements.
    pub offsets: Vec<Vec<i64>>,
    /// The bytes of what stands where nothing is copied to, from the first.
    pub fill: [u8; 8],
}

impl Move {
    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (from, to) = (Bytes(context.pointer(&self.from)), Bytes(context.pointer(&self.to)));
        // SAFETY: the planner has checked the tables against the source, and the result is apart from it.
        unsafe {
            match self.to.dtype.size() {
                1 => self.copy::<u8>(from, to, self.fill[0]),
                2 => self.copy::<u16>(from, to, u16::from_ne_bytes([self.fill[0], self.fill[1]])),
                4 => {
                    let [a, b, c, d, ..] = self.fill;
                    self.copy::<u32>(from, to, u32::from_ne_bytes([a, b, c, d]));
                }
                _ => self.copy::<u64>(from, to, u64::from_ne_bytes(self.fill)),
            }
        }
    }

    /// Copies elements of a size, in tasks of whole rows.
    unsafe fn copy<T: Copy + Sync>(&self, from: Bytes, to: Bytes, fill: T) {
        let Some((last, outer)) = self.offsets.split_last() else {
            // SAFETY: both have one element.
            unsafe { *to.get().cast::<T>() = *from.get().cast::<T>() };
            return;
        };
        let rows: usize = outer.iter().map(Vec::len).product();
        let consecutive = !last.is_empty()
            && self.to.strides[outer.len()] == 1
            && last[0] != NOWHERE
            && last.iter().zip(last[0]..).all(|(&o, i)| o == i);
        let tasks = (rows * last.len() * size_of::<T>()).div_ceil(TASK).clamp(1, MAX_TASKS);
        for_each_task(tasks, &|t| {
            for row in rows * t / tasks..rows * (t + 1) / tasks {
                let (mut rest, mut source, mut target) = (row, Some(0), 0);
                for (table, &stride) in outer.iter().zip(&self.to.strides).rev() {
                    let i = rest % table.len();
                    rest /= table.len();
                    target += i * stride;
                    source = source.filter(|_| table[i] != NOWHERE).map(|s: i64| s + table[i]);
                }
                // SAFETY: the tables stay inside the source, coordinates inside the result; rows do not overlap.
                unsafe {
                    let from = from.get().cast::<T>().cast_const();
                    let to = to.get().cast::<T>().add(target);
                    match source {
                        Some(source) if consecutive => {
                            let from = from.offset((source + last[0]) as isize);
                            std::ptr::copy_nonoverlapping(from, to, last.len());
                        }
                        source => self.row(source.map(|s| from.offset(s as isize)), to, fill),
                    }
                }
            }
        });
    }

    /// One row, element by element.
    #[inline]
    unsafe fn row<T: Copy>(&self, from: Option<*const T>, to: *mut T, fill: T) {
        let table = &self.offsets[self.offsets.len() - 1];
        let stride = self.to.strides[self.offsets.len() - 1];
        for (j, &offset) in table.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe {
                *to.add(j * stride) = match from {
                    Some(from) if offset != NOWHERE => *from.offset(offset as isize),
                    _ => fill,
                };
            }
        }
    }
}
