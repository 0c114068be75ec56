//! Windows that slide over spatial dimensions: convolutions of few channels, the unfolding of others, and pools.

use arcane_mil::PoolKind;
use arcane_tensor::DType;

use super::{Access, Bytes, Context, for_each_task, narrow, starts, widen};

/// Elements that are worth a task.
const TASK: usize = 32 * 1024;

/// One spatial dimension: position p of the result and element k of the kernel meet at `p·stride + k·dilation + offset` of x,
/// in which neighbours are `spacing` apart. Either the stride or the spacing is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    /// Elements of x.
    pub length: usize,
    /// Positions of the result.
    pub positions: usize,
    /// Elements of the kernel.
    pub size: usize,
    /// How far a position is from the next.
    pub stride: usize,
    /// How far an element of the kernel is from the next.
    pub dilation: isize,
    /// Where the first position meets the first element.
    pub offset: isize,
    /// How far neighbours in x are apart.
    pub spacing: usize,
}

/// Positions that meet consecutive elements of x: `position + j·step` meets `element + j·stride` for j below the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    position: usize,
    step: usize,
    element: usize,
    stride: usize,
    count: usize,
}

impl Axis {
    /// A dimension of length 1 with a kernel of one element.
    pub(crate) const UNIT: Self =
        Self { length: 1, positions: 1, size: 1, stride: 1, dilation: 1, offset: 0, spacing: 1 };

    /// The element of x that a position and an element of the kernel meet at, if there is one.
    fn place(&self, position: usize, tap: usize) -> Option<usize> {
        let at = (position * self.stride) as isize + tap as isize * self.dilation + self.offset;
        let at = usize::try_from(at).ok().filter(|at| at.is_multiple_of(self.spacing))?;
        Some(at / self.spacing).filter(|&q| q < self.length)
    }

    /// All positions that an element of the kernel meets elements of x at.
    fn run(&self, tap: usize) -> Run {
        let start = tap as isize * self.dilation + self.offset;
        let before = start.min(0).unsigned_abs();
        let (position, element) = if self.spacing == 1 {
            let position = before.div_ceil(self.stride);
            (position, ((position * self.stride) as isize + start) as usize)
        } else {
            let first = start.max(0).unsigned_abs().next_multiple_of(self.spacing);
            ((first as isize - start) as usize, first / self.spacing)
        };
        let positions = self.positions.saturating_sub(position).div_ceil(self.spacing);
        let elements = self.length.saturating_sub(element).div_ceil(self.stride);
        Run { position, step: self.spacing, element, stride: self.stride, count: positions.min(elements) }
    }

    /// The elements of an undilated kernel that meet elements `from..to` at a position.
    fn taps(&self, position: usize, from: isize, to: isize) -> std::ops::Range<usize> {
        let start = (position * self.stride) as isize + self.offset;
        let bound = |at: isize| (at - start).clamp(0, self.size as isize) as usize;
        let (first, last) = (bound(from), bound(to));
        first..last.max(first)
    }
}

/// The spatial dimensions, those that are missing in front as [`Axis::UNIT`].
pub(crate) type Axes = [Axis; 3];

/// Elements of x.
fn plane(axes: &Axes) -> usize {
    axes.iter().map(|a| a.length).product()
}

/// Elements of the kernel.
pub(crate) fn taps(axes: &Axes) -> usize {
    axes.iter().map(|a| a.size).product()
}

/// Positions of the result.
pub(crate) fn positions(axes: &Axes) -> usize {
    axes.iter().map(|a| a.positions).product()
}

/// Operands: x, `rows` planes of its spatial dimensions, and the result `[rows, taps, to − from]`: what each element of the
/// kernel meets at the positions `from..to`, and zeros.
#[derive(Clone, Debug)]
pub(crate) struct Unfold {
    /// The spatial dimensions.
    pub axes: Axes,
    /// Planes of x: batch and channels.
    pub rows: usize,
    /// The first position.
    pub from: usize,
    /// Behind the last one.
    pub to: usize,
}

impl Unfold {
    pub(super) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        let [x, out] = operands else { unreachable!("unfold has two operands") };
        let (from, to) = (Bytes(context.pointer(x)), Bytes(context.pointer(out)));
        let (taps, count) = (taps(&self.axes), self.to - self.from);
        let n = self.rows * taps;
        let per_task = (TASK / count.max(1)).max(1);
        for_each_task(n.div_ceil(per_task), &|t| {
            for r in t * per_task..((t + 1) * per_task).min(n) {
                // SAFETY: the planner lays the operands inside their memories; tasks write different rows.
                unsafe {
                    match x.dtype.size() {
                        2 => self.row::<u16>(from.get().cast(), to.get().cast(), r, taps, count),
                        _ => self.row::<u32>(from.get().cast(), to.get().cast(), r, taps, count),
                    }
                }
            }
        });
    }

    /// One row of the result.
    unsafe fn row<T: Copy + Default>(&self, x: *const T, out: *mut T, r: usize, taps: usize, count: usize) {
        let [a, b, c] = &self.axes;
        let tap = r % taps;
        let (ka, kb, kc) = (tap / (b.size * c.size), tap / c.size % b.size, tap % c.size);
        let run = c.run(kc);
        // SAFETY: the plane and the row lie in the operands.
        let (x, out) = unsafe {
            (x.add(r / taps * plane(&self.axes)), std::slice::from_raw_parts_mut(out.add(r * count), count))
        };
        let mut at = self.from;
        while at < self.to {
            let (line, first) = (at / c.positions, at % c.positions);
            let length = (c.positions - first).min(self.to - at);
            let to = &mut out[at - self.from..][..length];
            to.fill(T::default());
            at += length;
            let (Some(pa), Some(pb)) = (a.place(line / b.positions, ka), b.place(line % b.positions, kb))
            else {
                continue;
            };
            let skip = first.saturating_sub(run.position).div_ceil(run.step);
            let end = (first + length).saturating_sub(run.position).div_ceil(run.step).min(run.count);
            if skip >= end {
                continue;
            }
            // SAFETY: the run stays inside the line of x.
            unsafe {
                let from = x.add((pa * b.length + pb) * c.length + run.element + skip * run.stride);
                let to = &mut to[run.position + skip * run.step - first..];
                if run.step == 1 && run.stride == 1 {
                    std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), end - skip);
                } else {
                    for j in 0..end - skip {
                        to[j * run.step] = *from.add(j * run.stride);
                    }
                }
            }
        }
    }
}

/// A convolution, line by line. Operands: x `[batch, groups · channels, ..]`, the weight, the bias where there is one, and the
/// result `[batch, groups · outputs, ..]`.
#[derive(Clone, Debug)]
pub(crate) struct Direct {
    /// The spatial dimensions.
    pub axes: Axes,
    /// The batch.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// Channels of a group.
    pub channels: usize,
    /// Outputs of a group.
    pub outputs: usize,
    /// Whether the weight is `[groups · channels, outputs, ..]`, not `[groups · outputs, channels, ..]`.
    pub transposed: bool,
    /// Whether there is a bias.
    pub has_bias: bool,
}

impl Direct {
    pub(super) fn scratch_bytes(&self) -> usize {
        let [.., c] = &self.axes;
        4 * (c.positions + c.length + self.channels * taps(&self.axes))
    }

    pub(super) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        let (out, rest) = operands.split_last().expect("a convolution has operands");
        let pointers = starts(context, rest);
        let to = Bytes(context.pointer(out));
        let [a, b, c] = self.axes;
        let lines = a.positions * b.positions;
        let n = self.batch * self.groups * self.outputs;
        let work = c.positions * taps(&self.axes) * self.channels;
        let per_task = (TASK / work.max(1)).clamp(1, lines.max(1));
        let pieces = lines.div_ceil(per_task);
        for_each_task(n * pieces, &|t| {
            let (o, first) = (t / pieces, t % pieces * per_task);
            let scratch = context.scratch();
            let (filter, scratch) = scratch.split_at_mut(self.channels * taps(&self.axes));
            // SAFETY: the planner lays the operands inside their memories; tasks write different lines.
            unsafe {
                let bias = self.filter(filter, &pointers, rest, o % (self.groups * self.outputs));
                for line in first..(first + per_task).min(lines) {
                    let (sums, scratch) = scratch.split_at_mut(c.positions);
                    sums.fill(bias);
                    self.line(sums, scratch, filter, (pointers[0].get(), rest[0].dtype), o, line);
                    let start = (o * lines + line) * c.positions;
                    let size = out.dtype.size();
                    narrow(out.dtype, sums.as_ptr(), to.get().add(start * size), c.positions);
                }
            }
        });
    }

    /// Loads the weights of one output and gives its bias.
    unsafe fn filter(&self, filter: &mut [f32], pointers: &[Bytes], operands: &[Access], o: usize) -> f32 {
        let taps = taps(&self.axes);
        let (group, output) = (o / self.outputs, o % self.outputs);
        let dtype = operands[1].dtype;
        // SAFETY: the weight has these elements.
        unsafe {
            for channel in 0..self.channels {
                let row = if self.transposed {
                    (group * self.channels + channel) * self.outputs + output
                } else {
                    o * self.channels + channel
                };
                let from = pointers[1].get().add(row * taps * dtype.size());
                widen(dtype, from, filter[channel * taps..].as_mut_ptr(), taps);
            }
            let mut bias = 0.0;
            if self.has_bias {
                let dtype = operands[2].dtype;
                widen(dtype, pointers[2].get().add(o * dtype.size()), &raw mut bias, 1);
            }
            bias
        }
    }

    /// Adds what all channels give to one line of the result.
    unsafe fn line(
        &self,
        sums: &mut [f32],
        scratch: &mut [f32],
        filter: &[f32],
        (x, dtype): (*const u8, DType),
        o: usize,
        line: usize,
    ) {
        let [a, b, c] = &self.axes;
        let (batch, group) = (o / (self.groups * self.outputs), o / self.outputs % self.groups);
        for (channel, filter) in filter.chunks_exact(taps(&self.axes)).enumerate() {
            let row = (batch * self.groups + group) * self.channels + channel;
            for (k, filter) in filter.chunks_exact(c.size).enumerate() {
                let place =
                    (a.place(line / b.positions, k / b.size), b.place(line % b.positions, k % b.size));
                let (Some(pa), Some(pb)) = place else { continue };
                let start = row * plane(&self.axes) + (pa * b.length + pb) * c.length;
                // SAFETY: the line lies in x, the scratch holds one.
                unsafe { widen(dtype, x.add(start * dtype.size()), scratch.as_mut_ptr(), c.length) };
                for (tap, &w) in filter.iter().enumerate() {
                    add_run(sums, &scratch[..c.length], c.run(tap), w);
                }
            }
        }
    }
}

/// Adds `w` times the elements of a run.
fn add_run(sums: &mut [f32], x: &[f32], run: Run, w: f32) {
    if run.count == 0 {
        return;
    }
    let (sums, x) = (&mut sums[run.position..], &x[run.element..]);
    if run.step == 1 && run.stride == 1 {
        for (s, x) in sums[..run.count].iter_mut().zip(&x[..run.count]) {
            *s += w * x;
        }
    } else {
        for j in 0..run.count {
            sums[j * run.step] += w * x[j * run.stride];
        }
    }
}

/// A pool. Operands: x, `rows` planes, and the result.
#[derive(Clone, Debug)]
pub(crate) struct Pooling {
    /// The spatial dimensions.
    pub axes: Axes,
    /// How many elements after x each dimension is padded by.
    pub after: [usize; 3],
    /// Planes: batch and channels.
    pub rows: usize,
    /// What is made of a window.
    pub kind: PoolKind,
}

impl Pooling {
    pub(super) fn scratch_bytes(&self) -> usize {
        let [.., c] = &self.axes;
        4 * (c.positions + c.length)
    }

    pub(super) fn run(&self, context: &Context<'_>, operands: &[Access]) {
        let [x, out] = operands else { unreachable!("a pool has two operands") };
        let (from, to) = (Bytes(context.pointer(x)), Bytes(context.pointer(out)));
        let [a, b, c] = &self.axes;
        let lines = a.positions * b.positions;
        let n = self.rows * lines;
        let work = c.positions * a.size.min(a.length) * b.size.min(b.length) * c.size.min(c.length);
        let per_task = (TASK / work.max(1)).max(1);
        for_each_task(n.div_ceil(per_task), &|t| {
            let (line, scratch) = context.scratch().split_at_mut(c.positions);
            for r in t * per_task..((t + 1) * per_task).min(n) {
                // SAFETY: the planner lays the operands inside their memories; tasks write different lines.
                unsafe {
                    let plane = from.get().add(r / lines * plane(&self.axes) * x.dtype.size());
                    self.line(line, scratch, (plane, x.dtype), r % lines);
                    let to = to.get().add(r * c.positions * out.dtype.size());
                    narrow(out.dtype, line.as_ptr(), to, c.positions);
                }
            }
        });
    }

    /// One line of the result.
    unsafe fn line(&self, line: &mut [f32], scratch: &mut [f32], (x, dtype): (*const u8, DType), at: usize) {
        let [a, b, c] = &self.axes;
        let (pa, pb) = (at / b.positions, at % b.positions);
        let inside = |axis: &Axis, p: usize| axis.taps(p, 0, axis.length as isize);
        line.fill(if self.kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 });
        for ka in inside(a, pa) {
            for kb in inside(b, pb) {
                let place = (a.place(pa, ka), b.place(pb, kb));
                let (Some(qa), Some(qb)) = place else { unreachable!("these elements meet x") };
                let start = (qa * b.length + qb) * c.length;
                // SAFETY: the line lies in the plane, the scratch holds one.
                unsafe { widen(dtype, x.add(start * dtype.size()), scratch.as_mut_ptr(), c.length) };
                for (p, sum) in line.iter_mut().enumerate() {
                    let taps = inside(c, p);
                    let first = ((p * c.stride + taps.start) as isize + c.offset) as usize;
                    let x = scratch[..c.length].iter().skip(first).take(taps.len());
                    *sum = match self.kind {
                        PoolKind::Max => x.fold(*sum, |m, &v| if m.is_nan() || v <= m { m } else { v }),
                        PoolKind::Average { .. } => x.fold(*sum, |s, v| s + v),
                        PoolKind::L2 => x.fold(*sum, |s, v| s + v * v),
                    };
                }
            }
        }
        match self.kind {
            PoolKind::Max => {}
            PoolKind::L2 => line.iter_mut().for_each(|s| *s = s.sqrt()),
            PoolKind::Average { exclude_padding } => {
                let count = |i: usize, p: usize| {
                    let axis = &self.axes[i];
                    let (before, after) = (axis.offset, self.after[i] as isize);
                    let taps = if exclude_padding {
                        inside(axis, p)
                    } else {
                        axis.taps(p, before.min(0), axis.length as isize + after)
                    };
                    taps.len() as f32
                };
                let outer = count(0, pa) * count(1, pb);
                for (p, sum) in line.iter_mut().enumerate() {
                    *sum /= outer * count(2, p);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn runs_are_the_places_of_all_positions() {
        for (stride, spacing) in [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3)] {
            for (dilation, offset) in [(1, 0), (2, -3), (-1, 2), (-2, 5), (1, 40), (1, -40)] {
                let axis = Axis { length: 7, positions: 9, size: 4, stride, dilation, offset, spacing };
                for tap in 0..axis.size {
                    let run = axis.run(tap);
                    let all =
                        (0..run.count).map(|j| (run.position + j * run.step, run.element + j * run.stride));
                    let expected = (0..9).filter_map(|p| Some((p, axis.place(p, tap)?)));
                    assert!(all.eq(expected), "{axis:?} {tap}");
                }
            }
        }
    }
}
