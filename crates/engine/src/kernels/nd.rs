//! Gather and scatter by coordinates of several dimensions, and reversed sequences.

use arcane_mil::ScatterMode;

use super::index::{combine, index_at, wrapped};
use super::{Access, Bytes, Context, for_each_task};

/// Slices of x at coordinates. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct GatherNd {
    /// `[batch, dims.., inner]`
    pub x: Access,
    /// `[batch, picks, dims.len()]`
    pub indices: Access,
    /// `[batch, picks, inner]`
    pub out: Access,
    /// The dimensions that coordinates are of.
    pub dims: Vec<usize>,
    /// Elements of a slice.
    pub inner: usize,
    /// How many batch elements there are.
    pub batch: usize,
    /// Slices of each.
    pub picks: usize,
}

/// Slices of a copy of `data` combined with updates at coordinates. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct ScatterNd {
    /// `[picks, dims.len()]`
    pub indices: Access,
    /// `[picks, inner]`
    pub updates: Access,
    /// `[dims.., inner]`, a copy of the data.
    pub out: Access,
    /// The dimensions that coordinates are of.
    pub dims: Vec<usize>,
    /// Elements of a slice.
    pub inner: usize,
    /// How.
    pub mode: ScatterMode,
}

/// The first elements along an axis in reverse order, as many as lengths say. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct ReverseSequence {
    /// What is reversed.
    pub x: Access,
    /// One a batch element.
    pub lengths: Access,
    /// Like x.
    pub out: Access,
    /// The sequence axis.
    pub seq_axis: usize,
    /// The batch axis.
    pub batch_axis: usize,
}

/// The number of the slice at coordinates; a coordinate outside is reported.
///
/// # Safety
/// `indices` must hold `dims.len()` elements from number `first` on.
unsafe fn slice_at(
    context: &Context<'_>,
    indices: &Access,
    pointer: *const u8,
    first: usize,
    dims: &[usize],
) -> Option<usize> {
    let mut place = 0;
    for (k, &length) in dims.iter().enumerate() {
        // SAFETY: as the caller promises.
        let index = unsafe { index_at(indices.dtype, pointer, first + k) };
        let Some(i) = wrapped(index, length) else {
            context.fault.report(context.instruction, index);
            return None;
        };
        place = place * length + i;
    }
    Some(place)
}

impl GatherNd {
    /// Runs it. A bad index is reported and gives zeros.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let slice = self.inner * self.x.dtype.size();
        let (x, out) = (Bytes(context.pointer(&self.x)), Bytes(context.pointer(&self.out)));
        let indices = Bytes(context.pointer(&self.indices));
        let slices: usize = self.dims.iter().product();
        let picks = self.picks;
        for_each_task(self.batch, &|b| {
            for pick in b * picks..(b + 1) * picks {
                // SAFETY: coordinates are checked; every pick writes a slice of its own.
                unsafe {
                    let to = out.get().add(pick * slice);
                    let first = pick * self.dims.len();
                    match slice_at(context, &self.indices, indices.get(), first, &self.dims) {
                        Some(k) => {
                            let from = x.get().add((b * slices + k) * slice);
                            std::ptr::copy_nonoverlapping(from, to, slice);
                        }
                        None => std::ptr::write_bytes(to, 0, slice),
                    }
                }
            }
        });
    }
}

impl ScatterNd {
    /// Runs it in order, so that of repeated coordinates the last one stays.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let slice = self.inner * self.out.dtype.size();
        let (indices, updates) = (context.pointer(&self.indices), context.pointer(&self.updates));
        let out = context.pointer(&self.out);
        let picks = self.updates.len() / self.inner.max(1);
        for pick in 0..picks {
            // SAFETY: coordinates are checked; updates and result are apart.
            unsafe {
                let first = pick * self.dims.len();
                let Some(k) = slice_at(context, &self.indices, indices, first, &self.dims) else { continue };
                let (from, to) = (updates.add(pick * slice), out.add(k * slice));
                combine(self.out.dtype, self.mode, from, to, self.inner);
            }
        }
    }
}

impl ReverseSequence {
    /// Runs it. A length outside the axis is reported, and nothing is reversed then.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let shape = &self.x.shape;
        let last = self.seq_axis.max(self.batch_axis);
        let (outer, inner) = shape.split_at(last + 1);
        let run = inner.iter().product::<usize>() * self.x.dtype.size();
        let (x, out) = (Bytes(context.pointer(&self.x)), Bytes(context.pointer(&self.out)));
        let lengths = Bytes(context.pointer(&self.lengths));
        let step: usize = outer[self.seq_axis + 1..].iter().product();
        for_each_task(outer[0], &|first| {
            let rows: usize = outer[1..].iter().product();
            for row in first * rows..(first + 1) * rows {
                let at = |axis: usize| row / outer[axis + 1..].iter().product::<usize>() % outer[axis];
                // SAFETY: there is a length for each batch element; rows are inside both arrays.
                unsafe {
                    let length = index_at(self.lengths.dtype, lengths.get(), at(self.batch_axis));
                    let place = at(self.seq_axis);
                    let reversed = usize::try_from(length).ok().filter(|&l| l <= outer[self.seq_axis]);
                    if reversed.is_none() {
                        context.fault.report(context.instruction, length);
                    }
                    let source = match reversed {
                        Some(n) if place < n => row - place * step + (n - 1 - place) * step,
                        _ => row,
                    };
                    std::ptr::copy_nonoverlapping(x.get().add(source * run), out.get().add(row * run), run);
                }
            }
        });
    }
}
