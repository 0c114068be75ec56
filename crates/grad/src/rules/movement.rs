//! The derivatives of ops that move elements: what a result's element is, its adjoint goes back to.

use arcane_mil::{
    BuildError, Builder, Index, Interpolation, Join, JoinKind, Op, Operation, Pad, PadMode, Position, Range,
    Rearrange, Rearrangement, Sample, ScatterMode, Slice, Span, ValueId,
};
use arcane_tensor::Tensor;

use super::zeros_like;
use crate::GradError;
use crate::adjoint::Adjoints;

type Built = Result<ValueId, BuildError>;

/// The adjoint with dimension `axis` of `length` elements, where the i-th of its own is one of element `from[i]`; none where
/// that is `None`.
fn put_back(f: &mut Builder, g: ValueId, axis: usize, length: usize, from: &[Option<usize>]) -> Built {
    let mut shape = f.shape(g);
    shape[axis] = length;
    let dtype = f.ty(g).dtype;
    let kept: Vec<(usize, usize)> = from.iter().enumerate().filter_map(|(i, s)| s.map(|s| (i, s))).collect();
    let vector = |f: &mut Builder, name: &str, values: Vec<i32>| {
        let tensor = Tensor::new(&[values.len()], values).expect("a vector has its length");
        f.constant(name, tensor)
    };
    let mut g = g;
    if kept.len() < from.len() {
        let taken = vector(f, "kept", kept.iter().map(|k| k.0 as i32).collect());
        g = f.gather(g, taken, axis)?;
    }
    let indices = vector(f, "sources", kept.iter().map(|k| k.1 as i32).collect());
    let zeros = f.fill(dtype, &shape, 0.0);
    f.scatter_add(zeros, indices, g, axis)
}

/// The adjoint of an x of `shape`, from that of the elements that spans take of it.
fn unslice(f: &mut Builder, g: ValueId, shape: &[usize], spans: &[Span]) -> Built {
    let counts: Vec<usize> = spans.iter().map(|s| s.count).collect();
    let mut g = f.reshape(g, &counts)?;
    if spans.iter().all(|s| s.step == 1 && s.count > 0) && f.ty(g).dtype.is_float() {
        let after = |(s, &length): (&Span, &usize)| [s.first, length - s.first - s.count];
        let pad: Vec<usize> = spans.iter().zip(shape).flat_map(after).collect();
        return f.push_one(Op::Pad(Pad::zeros(g, &pad)));
    }
    for (axis, (span, &length)) in spans.iter().zip(shape).enumerate() {
        let from = |i: usize| Some((span.first as i64 + i as i64 * span.step) as usize);
        let from: Vec<Option<usize>> = (0..span.count).map(from).collect();
        g = put_back(f, g, axis, length, &from)?;
    }
    Ok(g)
}

pub(super) fn slice(a: &mut Adjoints<'_>, slice: &Slice, y: ValueId) -> Result<(), BuildError> {
    match slice {
        Slice::ByIndex { x, .. } | Slice::BySize { x, .. } => {
            let g = a.full(y)?;
            let shape = a.f.shape(*x);
            match (slice.spans(&shape), slice) {
                (Some(spans), _) => a.give(*x, |f| unslice(f, g, &shape, &spans)),
                (None, Slice::BySize { begin, size, .. }) => a.give(*x, |f| {
                    let x = zeros_like(f, *x);
                    f.push_one(Op::Slice(Slice::Update { x, update: g, range: run_time(begin, size) }))
                }),
                (None, _) => unreachable!("the verifier has seen a known range"),
            }
        }
        Slice::Update { x, update, range } => {
            let g = a.full(y)?;
            a.give(*x, |f| {
                let update = zeros_like(f, *update);
                f.push_one(Op::Slice(Slice::Update { x: g, update, range: range.clone() }))
            })?;
            a.give(*update, |f| taken(f, g, *update, range))
        }
    }
}

/// The range of `size` elements from run-time positions on.
fn run_time(begin: &Position, size: &[i64]) -> Range {
    let none = vec![0; size.len()];
    Range { begin: begin.clone(), end: begin.clone(), ..Range::new(&none, &none) }
}

/// The elements of g that an update has replaced.
fn taken(f: &mut Builder, g: ValueId, update: ValueId, range: &Range) -> Built {
    let shape = f.shape(update);
    let known = range.begin.known().is_some() && range.end.known().is_some();
    if known {
        let slice = f.push_one(Op::Slice(Slice::ByIndex { x: g, range: range.clone() }))?;
        return f.reshape(slice, &shape);
    }
    let mut kept = shape.iter();
    let size = range.squeeze_mask.iter();
    let size: Vec<i64> = size.map(|&s| if s { 1 } else { kept.next().map_or(1, |&d| d as i64) }).collect();
    let slice = f.push_one(Op::Slice(Slice::BySize { x: g, begin: range.begin.clone(), size }))?;
    f.reshape(slice, &shape)
}

pub(super) fn pad(a: &mut Adjoints<'_>, pad: &Pad, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let shape = a.f.shape(pad.x);
    let sides = pad.sides(shape.len());
    a.give(pad.x, |f| {
        if let PadMode::Constant(_) = pad.mode {
            let begin: Vec<i64> = sides.iter().map(|s| s[0] as i64).collect();
            let end: Vec<i64> = begin.iter().zip(&shape).map(|(&b, &d)| b + d as i64).collect();
            return f.push_one(Op::Slice(Slice::ByIndex { x: g, range: Range::new(&begin, &end) }));
        }
        let mut g = g;
        for (axis, (&[before, after], &length)) in sides.iter().zip(&shape).enumerate() {
            if before + after == 0 {
                continue;
            }
            let last = length as i64 - 1;
            let source = |i: i64| match pad.mode {
                PadMode::Replicate => i.clamp(0, last),
                _ if i < 0 => -i,
                _ if i > last => 2 * last - i,
                _ => i,
            };
            let from =
                (0..(before + length + after) as i64).map(|i| Some(source(i - before as i64) as usize));
            g = put_back(f, g, axis, length, &from.collect::<Vec<_>>())?;
        }
        Ok(g)
    })
}

pub(super) fn rearrange(a: &mut Adjoints<'_>, op: &Rearrange, y: ValueId) -> Result<(), BuildError> {
    use Rearrangement as R;
    let g = a.full(y)?;
    let (shape, result) = (a.f.shape(op.x), a.f.shape(y));
    let as_kind = |f: &mut Builder, kind: R| f.push_one(Op::Rearrange(Rearrange { x: g, kind }));
    a.give(op.x, |f| match &op.kind {
        R::Reverse { .. } | R::BandPart { .. } => as_kind(f, op.kind.clone()),
        R::DepthToSpace { block } => as_kind(f, R::SpaceToDepth { block: *block }),
        R::SpaceToDepth { block } => as_kind(f, R::DepthToSpace { block: *block }),
        R::PixelShuffle { factor } => as_kind(f, R::PixelUnshuffle { factor: *factor }),
        R::PixelUnshuffle { factor } => as_kind(f, R::PixelShuffle { factor: *factor }),
        R::SpaceToBatch { block, paddings } => {
            as_kind(f, R::BatchToSpace { block: *block, crops: *paddings })
        }
        R::BatchToSpace { block, crops } => as_kind(f, R::SpaceToBatch { block: *block, paddings: *crops }),
        R::Crop { height, width } => {
            f.push_one(Op::Pad(Pad::zeros(g, &[height[0], height[1], width[0], width[1]])))
        }
        R::SlidingWindows { axis, size, stride } => {
            let from = (0..result[*axis] * size).map(|i| Some(i / size * stride + i % size));
            let mut flat = shape.clone();
            flat[*axis] = result[*axis] * size;
            let g = f.reshape(g, &flat)?;
            put_back(f, g, *axis, shape[*axis], &from.collect::<Vec<_>>())
        }
        R::Upsample { .. } | R::Resize { .. } => {
            let mut g = g;
            for axis in shape.len() - 2..shape.len() {
                let from = (0..result[axis]).map(|i| Some(i * shape[axis] / result[axis]));
                g = put_back(f, g, axis, shape[axis], &from.collect::<Vec<_>>())?;
            }
            Ok(g)
        }
    })
}

pub(super) fn join(a: &mut Adjoints<'_>, op: &Join, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let shape = a.f.shape(op.values[0]);
    let n = op.values.len();
    // As the expansion of the op: the operands are one dimension behind `cut` dimensions.
    let cut = if op.kind == JoinKind::Stack { op.axis } else { op.axis + 1 };
    let product = |dims: &[usize]| dims.iter().product();
    let g = a.f.reshape(g, &[product(&shape[..cut]), n, product(&shape[cut..])])?;
    let pieces = a.f.split(g, 1, &vec![1; n])?;
    for (&v, piece) in op.values.iter().zip(pieces) {
        a.give(v, |f| f.reshape(piece, &shape))?;
    }
    Ok(())
}

pub(super) fn index(a: &mut Adjoints<'_>, op: &Index, operation: &Operation) -> Result<(), GradError> {
    let y = operation.results[0];
    match op {
        Index::ReverseSequence { x, lengths, seq_axis, batch_axis } => {
            let g = a.full(y)?;
            let (lengths, seq_axis, batch_axis) = (*lengths, *seq_axis, *batch_axis);
            let reversed = Index::ReverseSequence { x: g, lengths, seq_axis, batch_axis };
            Ok(a.give(*x, |f| f.push_one(Op::Index(reversed)))?)
        }
        Index::GatherNd { x, indices, batch_dims: 0 } => {
            let g = a.full(y)?;
            Ok(a.give(*x, |f| {
                let (data, indices) = (zeros_like(f, *x), *indices);
                let mode = ScatterMode::Add;
                f.push_one(Op::Index(Index::ScatterNd { data, indices, updates: g, mode }))
            })?)
        }
        Index::ScatterNd { data, indices, updates, mode: ScatterMode::Add } => {
            let g = a.full(y)?;
            a.give(*data, |_| Ok(g))?;
            let (x, indices) = (g, *indices);
            Ok(a.give(*updates, |f| f.push_one(Op::Index(Index::GatherNd { x, indices, batch_dims: 0 })))?)
        }
        Index::GatherNd { .. } | Index::GatherBatched { .. } => {
            Err(refused(a, operation, "there is no op that puts elements back into a batch"))
        }
        Index::ScatterNd { .. } => Err(refused(
            a,
            operation,
            "which of several updates of one element counts is not known before run time; mode `add` was expected",
        )),
    }
}

/// Images sampled along each axis: each pixel's adjoint goes to the pixels that it is between, by its shares.
pub(super) fn sample(a: &mut Adjoints<'_>, op: &Sample, operation: &Operation) -> Result<(), GradError> {
    let y = operation.results[0];
    let Some((interpolation, grid)) = op.grid() else {
        return Err(refused(a, operation, "the pixels around run-time points are not known before run time"));
    };
    let mut g = a.full(y)?;
    let (shape, result) = (a.f.shape(op.x()), a.f.shape(y));
    if shape.contains(&0) || result.contains(&0) {
        return Ok(a.give(op.x(), |f| Ok(zeros_like(f, op.x())))?);
    }
    if !a.needs(op.x()) {
        return Ok(());
    }
    for axis in 0..shape.len() {
        let (n, m) = (shape[axis], result[axis]);
        if n == m && grid != arcane_mil::Grid::OffsetCorners {
            continue;
        }
        let points: Vec<f64> = (0..m).map(|i| grid.point(i, n, m)).collect();
        let f = &mut *a.f;
        if interpolation == Interpolation::Nearest {
            let from: Vec<_> = points.iter().map(|p| Some(p.round_ties_even() as usize)).collect();
            g = put_back(f, g, axis, n, &from)?;
            continue;
        }
        let mut along = vec![1; shape.len()];
        along[axis] = m;
        let part = |f: &mut Builder, share: fn(f64) -> f64, pixel: fn(f64) -> f64| {
            let shares: Vec<f64> = points.iter().map(|&p| share(p)).collect();
            let shares = Tensor::from_f64s(f.ty(g).dtype, &along, &shares).expect("one share a point");
            let shares = f.constant("shares", shares);
            let weighted = f.mul(g, shares)?;
            let from: Vec<_> = points.iter().map(|&p| Some((pixel(p) as usize).min(n - 1))).collect();
            put_back(f, weighted, axis, n, &from)
        };
        let low = part(f, |p| 1.0 - p.fract(), f64::floor)?;
        let high = part(f, f64::fract, f64::ceil)?;
        g = f.add(low, high)?;
    }
    Ok(a.give(op.x(), |_| Ok(g))?)
}

fn refused(a: &Adjoints<'_>, operation: &Operation, why: &'static str) -> GradError {
    let path = a.f.function().value(operation.results[0]).path.clone();
    GradError::NotDifferentiable { op: operation.op.name(), path, why }
}
