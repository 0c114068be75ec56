//! Ops that only move elements, as tables of offsets.

use arcane_mil::{Op, Pad, PadMode, Position, Range, Rearrange, Rearrangement, Slice, Span, ValueId};
use arcane_tensor::Tensor;

use super::expand::LONGEST;
use super::lower::Lowering;
use super::view::View;
use super::work::Work;
use crate::EngineError;
use crate::kernels::moves::NOWHERE;

/// Where the elements of a result come from, see [`crate::kernels::moves::Move`].
type Tables = Vec<Vec<i64>>;

/// The window that spans take, where steps are positive and the first element of each axis exists.
pub(super) fn spanned(view: &View, spans: &[Span]) -> Option<View> {
    let mut window = view.clone();
    for (axis, span) in spans.iter().enumerate() {
        if span.step < 1 || span.count == 0 {
            return None;
        }
        window = window.every(axis, span.first, span.step as usize, span.count);
    }
    Some(window)
}

/// Whether an op is a window on its operand.
pub(super) fn is_window(slice: &Slice, shape: &[usize]) -> bool {
    let forwards = |spans: Vec<Span>| spans.iter().all(|s| s.step > 0 && s.count > 0);
    !matches!(slice, Slice::Update { .. }) && slice.spans(shape).is_some_and(forwards)
}

impl Lowering<'_> {
    /// Adds a copy through tables, whose rows are the dimensions of `to`. Nothing is done where there are no elements.
    pub(super) fn table(&mut self, i: usize, from: View, to: View, offsets: Tables, fill: f64) {
        if to.len() == 0 {
            return;
        }
        let value = Tensor::from_f64s(to.dtype, &[], &[fill]).expect("one element has rank 0");
        let mut bytes = [0; 8];
        bytes[..value.bytes().len()].copy_from_slice(value.bytes());
        debug_assert!(stays_inside(&from, &offsets));
        let (reads, writes) = (vec![from.slot], vec![to.slot]);
        self.node(Work::Move { from, to, offsets, fill: bytes }, i, reads, writes, Vec::new());
    }

    /// A copy of a view to another of its shape, whatever the type and the order.
    pub(super) fn strided_copy(&mut self, i: usize, from: View, to: View) -> Result<(), EngineError> {
        self.short(i, &to.shape)?;
        let offsets = from.shape.iter().zip(&from.strides);
        let offsets = offsets.map(|(&d, &s)| (0..d).map(|k| (k * s) as i64).collect()).collect();
        self.table(i, from, to, offsets, 0.0);
        Ok(())
    }

    /// Refuses dimensions whose tables would take more memory than what they move.
    pub(super) fn short(&self, i: usize, shape: &[usize]) -> Result<(), EngineError> {
        if shape.iter().all(|&d| d <= LONGEST) {
            return Ok(());
        }
        Err(self.unsupported(i, format!("dimensions of more than {LONGEST} elements are not supported here")))
    }

    pub(super) fn slice(&mut self, i: usize, slice: &Slice, result: ValueId) -> Result<(), EngineError> {
        match slice {
            Slice::ByIndex { x, .. } => {
                let from = self.view(*x);
                let spans = slice.spans(&from.shape).expect("the verifier has seen a known range");
                let to = self.visible(i, result);
                let counts: Vec<usize> = spans.iter().map(|s| s.count).collect();
                let to = to.reshape(&counts).expect("a fresh result is dense");
                self.table(i, from.clone(), to, along(&from, &spans), 0.0);
                Ok(())
            }
            Slice::BySize { x, begin, .. } => {
                let rank = self.function.ty(*x).shape.len();
                let to = self.visible(i, result);
                let begin = match begin {
                    Position::Known(known) => Ok(known.clone()),
                    Position::Value(v) => Err(*v),
                };
                let Err(begin) = begin else { return Ok(()) };
                let (whole, begin) = (self.dense(i, *x)?, self.dense(i, begin)?);
                let (reads, writes) = (vec![whole.slot, begin.slot], vec![to.slot]);
                let (known, steps) = (vec![None; rank], vec![1; rank]);
                if to.len() > 0 {
                    let work = Work::Region { whole, part: to, begin, known, steps, put: false };
                    self.node(work, i, reads, writes, Vec::new());
                }
                Ok(())
            }
            Slice::Update { x, update, range } => self.update(i, slice, [*x, *update, result], range),
        }
    }

    /// A copy of x, and then the update in its place.
    fn update(
        &mut self,
        i: usize,
        slice: &Slice,
        [x, update, result]: [ValueId; 3],
        range: &Range,
    ) -> Result<(), EngineError> {
        let whole = self.visible(i, result);
        let from = self.view(x);
        if from.len() > 0 {
            self.copy(i, from, whole.clone())?;
        }
        let shape = whole.shape.clone();
        let spans = slice.spans(&shape);
        let kept = self.function.ty(update).shape.clone();
        let mut counts = kept.iter();
        let counts: Vec<usize> = range
            .squeeze_mask
            .iter()
            .map(
                |&squeezed| {
                    if squeezed { 1 } else { *counts.next().expect("the update has the range's rank") }
                },
            )
            .collect();
        if counts.contains(&0) || shape.contains(&0) {
            return Ok(());
        }
        let part = self.reshaped(i, update, &counts)?;
        let (reads, writes) = (vec![part.slot, whole.slot], vec![whole.slot]);
        if let Some(spans) = spans {
            // Written forwards: where the range goes backwards, the update is read backwards.
            let forwards = |s: &Span| match s.step {
                step @ 1.. => (Span { step, ..*s }, Span { first: 0, step: 1, count: s.count }),
                step => {
                    let first = (s.first as i64 + (s.count as i64 - 1) * step) as usize;
                    (
                        Span { first, step: -step, count: s.count },
                        Span { first: s.count - 1, step: -1, count: s.count },
                    )
                }
            };
            let (to, from): (Vec<Span>, Vec<Span>) = spans.iter().map(forwards).unzip();
            let to = spanned(&whole, &to).expect("spans go forwards");
            let offsets = along(&part, &from);
            let work = Work::Move { from: part, to, offsets, fill: [0; 8] };
            self.node(work, i, reads, writes, Vec::new());
            return Ok(());
        }
        let rank = shape.len();
        let steps = (0..rank).map(|k| if range.squeeze_mask[k] { 1 } else { range.stride[k] }).collect();
        let given = |k: usize| match &range.begin {
            _ if range.begin_mask[k] => Some(range.first(k, shape[k], 0)),
            Position::Known(known) => Some(range.first(k, shape[k], known[k])),
            Position::Value(_) => None,
        };
        let known: Vec<Option<i64>> = (0..rank).map(given).collect();
        let begin = match (&range.begin, &range.end) {
            (Position::Value(v), _) | (_, Position::Value(v)) => self.dense(i, *v)?,
            _ => unreachable!("known ranges have spans"),
        };
        let reads = [reads, vec![begin.slot]].concat();
        self.node(Work::Region { whole, part, begin, known, steps, put: true }, i, reads, writes, Vec::new());
        Ok(())
    }

    pub(super) fn pad(&mut self, i: usize, pad: &Pad, result: ValueId) {
        let from = self.view(pad.x);
        let to = self.visible(i, result);
        let sides = pad.sides(from.shape.len());
        let table = |axis: usize| {
            let (length, stride) = (from.shape[axis] as i64, from.strides[axis] as i64);
            let source = |k: i64| match pad.mode {
                _ if (0..length).contains(&k) => k * stride,
                PadMode::Constant(_) => NOWHERE,
                PadMode::Reflect if k < 0 => -k * stride,
                PadMode::Reflect => (2 * (length - 1) - k) * stride,
                PadMode::Replicate => k.clamp(0, length - 1) * stride,
            };
            let before = sides[axis][0] as i64;
            (0..to.shape[axis] as i64).map(|k| source(k - before)).collect()
        };
        let offsets = if to.len() == 0 { Vec::new() } else { (0..from.shape.len()).map(table).collect() };
        let fill = if let PadMode::Constant(value) = pad.mode { value } else { 0.0 };
        self.table(i, from, to, offsets, fill);
    }

    /// Rearrangements whose elements come from the sum of an offset for each coordinate.
    pub(super) fn rearrange(&mut self, i: usize, op: &Rearrange, result: ValueId) -> Result<(), EngineError> {
        if let Rearrangement::BandPart { .. } = op.kind {
            return Err(self.unsupported(i, "a mask of this size is not supported here"));
        }
        let from = self.view(op.x);
        let to = self.visible(i, result);
        if to.len() > 0 {
            let offsets = rearranged(&op.kind, &from, &to.shape);
            self.table(i, from, to, offsets, 0.0);
        }
        Ok(())
    }

    /// Whether the engine moves an op's elements through windows on its operand.
    pub(super) fn spans_of(&self, op: &Op) -> Option<(ValueId, Vec<Span>)> {
        let Op::Slice(slice) = op else { return None };
        let (Slice::ByIndex { x, .. } | Slice::BySize { x, .. } | Slice::Update { x, .. }) = slice;
        Some((*x, slice.spans(&self.function.ty(*x).shape)?))
    }
}

/// The offsets of spans in a view.
fn along(view: &View, spans: &[Span]) -> Tables {
    let table = |(s, &stride): (&Span, &usize)| {
        (0..s.count as i64).map(|k| (s.first as i64 + k * s.step) * stride as i64).collect()
    };
    spans.iter().zip(&view.strides).map(table).collect()
}

/// The offsets of a rearrangement: for each dimension of the result and each coordinate along it.
fn rearranged(kind: &Rearrangement, from: &View, shape: &[usize]) -> Tables {
    use Rearrangement as R;
    let (old, strides) = (&from.shape, &from.strides);
    let along = |axis: usize, of: &dyn Fn(usize) -> usize| -> Vec<i64> {
        (0..shape[axis]).map(|i| of(i) as i64).collect()
    };
    let same = |axis: usize| along(axis, &|i| i * strides[axis]);
    let plain = || (0..shape.len()).map(same).collect::<Tables>();
    // Images: the offset of a channel (or a batch element) for the place in a block, and of the block.
    let last = shape.len().saturating_sub(2);
    let place = |axis: usize, block: usize, step: usize| {
        along(axis, &|i| i / block * strides[axis] + i % block * step)
    };
    match kind {
        R::Reverse { axes } => (0..shape.len())
            .map(|axis| {
                if axes.contains(&axis) {
                    along(axis, &|i| (old[axis] - 1 - i) * strides[axis])
                } else {
                    same(axis)
                }
            })
            .collect(),
        R::SlidingWindows { axis, stride, .. } => {
            let source = |k: usize| if k > *axis { k - 1 } else { k };
            let step = |k: usize| if k == *axis { strides[k] * stride } else { strides[source(k)] };
            (0..shape.len()).map(|k| along(k, &|i| i * step(k))).collect()
        }
        R::DepthToSpace { block } => {
            let column = shape[1] * strides[1];
            vec![same(0), same(1), place(2, *block, block * column), place(3, *block, column)]
        }
        R::PixelShuffle { factor } => {
            let channels = along(1, &|c| c * factor * factor * strides[1]);
            vec![same(0), channels, place(2, *factor, factor * strides[1]), place(3, *factor, strides[1])]
        }
        R::SpaceToDepth { block } => {
            let channels = along(1, &|c| {
                let (place, channel) = (c / old[1], c % old[1]);
                channel * strides[1] + place / block * strides[2] + place % block * strides[3]
            });
            vec![
                same(0),
                channels,
                along(2, &|h| h * block * strides[2]),
                along(3, &|w| w * block * strides[3]),
            ]
        }
        R::PixelUnshuffle { factor } => {
            let channels = along(1, &|c| {
                let (channel, place) = (c / (factor * factor), c % (factor * factor));
                channel * strides[1] + place / factor * strides[2] + place % factor * strides[3]
            });
            vec![
                same(0),
                channels,
                along(2, &|h| h * factor * strides[2]),
                along(3, &|w| w * factor * strides[3]),
            ]
        }
        R::SpaceToBatch { block, .. } => {
            let batch = along(0, &|n| {
                let (place, image) = (n / old[0], n % old[0]);
                image * strides[0] + place / block[1] * strides[2] + place % block[1] * strides[3]
            });
            let rows = along(2, &|h| h * block[0] * strides[2]);
            vec![batch, same(1), rows, along(3, &|w| w * block[1] * strides[3])]
        }
        R::BatchToSpace { block, crops } => {
            let column = shape[0] * strides[0];
            let row = block[1] * column;
            let cut = |axis: usize, step: usize| {
                let (block, before) = (block[axis - 2], crops[axis - 2][0]);
                along(axis, &|i| (i + before) / block * strides[axis] + (i + before) % block * step)
            };
            vec![same(0), same(1), cut(2, row), cut(3, column)]
        }
        R::Crop { height, width } => {
            let mut tables = plain();
            tables[last] = along(last, &|i| (i + height[0]) * strides[last]);
            tables[last + 1] = along(last + 1, &|i| (i + width[0]) * strides[last + 1]);
            tables
        }
        R::Upsample { .. } | R::Resize { .. } => {
            let mut tables = plain();
            for axis in [last, last + 1] {
                tables[axis] = along(axis, &|i| i * old[axis] / shape[axis] * strides[axis]);
            }
            tables
        }
        // Rewritten, or refused before.
        R::BandPart { .. } => Tables::new(),
    }
}

/// Whether tables stay inside the storage that a view reaches over.
fn stays_inside(view: &View, offsets: &Tables) -> bool {
    let reach: usize = view.shape.iter().zip(&view.strides).map(|(&d, &s)| d.saturating_sub(1) * s).sum();
    let bounds = |table: &Vec<i64>| {
        let known = table.iter().filter(|&&o| o != NOWHERE);
        (known.clone().min().copied().unwrap_or(0), known.max().copied().unwrap_or(0))
    };
    let (low, high) = offsets.iter().map(bounds).fold((0, 0), |(l, h), (a, b)| (l + a, h + b));
    low >= 0 && high <= reach as i64
}
