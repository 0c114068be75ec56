//! Windows at positions that are known at run time.

use super::index::index_at;
use super::{Access, Bytes, Context, MAX_RANK, for_each_task};

/// A window on a dense array: taken out of it, or put into it.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    /// The whole array.
    pub whole: Access,
    /// The window: as many dimensions as the array, strided.
    pub part: Access,
    /// The first position along each dimension, as integers; negative ones count from the end.
    pub begin: Access,
    /// For each dimension a position that replaces the given one.
    pub known: Vec<Option<i64>>,
    /// The distance between the positions along each dimension.
    pub steps: Vec<i64>,
    /// Whether the window replaces what is in the array.
    pub put: bool,
}

impl Region {
    /// Runs it. A position outside the array is reported, and nothing is moved then.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let begin = context.pointer(&self.begin);
        let rank = self.steps.len();
        let mut first = [0; MAX_RANK];
        for (axis, &step) in self.steps.iter().enumerate() {
            let length = self.whole.shape[axis] as i64;
            // SAFETY: there is one position a dimension.
            let given = unsafe { index_at(self.begin.dtype, begin, axis) };
            let given = self.known[axis].unwrap_or(given);
            let start = if given < 0 { given + length } else { given };
            let last = start + (self.part.shape[axis] as i64 - 1) * step;
            if !(0..length).contains(&start) || !(0..length).contains(&last) {
                context.fault.report(context.instruction, given);
                return;
            }
            first[axis] = start;
        }
        let (whole, part) = (Bytes(context.pointer(&self.whole)), Bytes(context.pointer(&self.part)));
        let size = self.part.dtype.size();
        let inner = self.part.shape[rank - 1];
        let rows: usize = self.part.shape[..rank - 1].iter().product();
        let joined = self.steps[rank - 1] == 1 && self.part.strides[rank - 1] == 1;
        let (run, runs) = if joined { (inner, 1) } else { (1, inner) };
        for_each_task(rows, &|row| {
            let (mut rest, mut of_whole, mut of_part) = (row, 0, 0);
            for axis in (0..rank - 1).rev() {
                let i = rest % self.part.shape[axis];
                rest /= self.part.shape[axis];
                of_whole += (first[axis] + i as i64 * self.steps[axis]) as usize * self.whole.strides[axis];
                of_part += i * self.part.strides[axis];
            }
            for i in 0..runs {
                let along = first[rank - 1] + i as i64 * self.steps[rank - 1];
                // SAFETY: the first and last positions were checked; rows do not overlap.
                unsafe {
                    let whole = whole.get().add((of_whole + along as usize) * size);
                    let part = part.get().add((of_part + i * self.part.strides[rank - 1]) * size);
                    let (from, to) = if self.put { (part, whole) } else { (whole, part) };
                    std::ptr::copy_nonoverlapping(from, to, run * size);
                }
            }
        });
    }
}
