//! The derivative of each op, as a table: a rule reads the adjoint of an op's result and gives to the adjoints of its operands.
//!
//! `g` is the adjoint of a result. The spelling of each rule is part of what engines recognise: attention's, softmax's and the
//! norms' are written in one way only.

mod elementwise;
mod movement;
mod normalisation;

use arcane_mil::{
    AlongAxis, BuildError, Builder, Compare, Einsum, Op, Operation, Reduce, ScatterMode, Unary, ValueId,
};
use arcane_tensor::DType;

use crate::GradError;
use crate::adjoint::Adjoints;
use crate::broadcast::{materialise, unreduce};
use crate::spatial;

/// Gives to the adjoints of an operation's operands. Some result of it has an adjoint.
pub(crate) fn differentiate(a: &mut Adjoints<'_>, operation: &Operation) -> Result<(), GradError> {
    let y = operation.results[0];
    match &operation.op {
        // Operands of ops on compressed weights are constants, too.
        Op::Const(_)
        | Op::Constexpr(_)
        | Op::Fill { .. }
        | Op::Make(_)
        | Op::Random(_)
        | Op::Compare { .. }
        | Op::Logical { .. } => Ok(()),
        Op::Unary { kind, x } => elementwise::unary(a, *kind, *x, y),
        Op::Cast { x, .. } => cast(a, *x, y),
        Op::Binary { kind, x, y: right } => elementwise::binary(a, *kind, *x, *right, y),
        Op::Select { cond, a: yes, b: no } => select(a, *cond, *yes, *no, y),
        Op::Reduce { kind, x, axes, keep_dims } => reduce(a, *kind, *x, axes, *keep_dims, y),
        Op::Softmax { x, axis } => {
            let g = a.of(y);
            a.give(*x, |f| softmax(f, y, g, *axis))
        }
        Op::Matmul { x, y: right, transpose_x, transpose_y } => {
            matmul(a, *x, *right, *transpose_x, *transpose_y, y)
        }
        Op::Linear { x, weight, bias } => linear(a, *x, *weight, *bias, y),
        Op::Convolution(c) => spatial::convolution(a, c, y),
        Op::TransposedConvolution(c) => spatial::transposed(a, c, y),
        Op::Pool(p) => spatial::pool(a, p, y),
        Op::Quantization(_) | Op::Recurrent(_) | Op::State(_) => {
            return Err(GradError::NotDifferentiable {
                op: operation.op.name(),
                path: a.f.function().value(y).path.clone(),
                why: match operation.op {
                    Op::Quantization(_) => "integers of eight bits have no derivative",
                    Op::State(_) => "what a call leaves for the next has no derivative within it",
                    _ => "there is no rule for recurrences; the steps written out with products have one",
                },
            });
        }
        Op::Einsum(e) => einsum(a, e, y),
        Op::Normalisation(n) => return normalisation::normalisation(a, n, y),
        Op::Channelwise(c) => normalisation::channelwise(a, c, y),
        Op::AlongAxis(op) => along_axis(a, op, operation),
        Op::ScaledDotProductAttention { query, key, value, attn_mask } => {
            attention(a, [*query, *key, *value], *attn_mask, y)
        }
        Op::Gather { x, indices, axis } => gather(a, *x, *indices, *axis, y),
        Op::GatherAlongAxis { x, indices, axis } => {
            let g = a.full(y)?;
            a.give(*x, |f| {
                let zeros = zeros_like(f, *x);
                f.scatter_along_axis_add(zeros, *indices, g, *axis)
            })
        }
        Op::Slice(s) => movement::slice(a, s, y),
        Op::Pad(p) => movement::pad(a, p, y),
        Op::Rearrange(r) => movement::rearrange(a, r, y),
        Op::Join(j) => movement::join(a, j, y),
        Op::Index(i) => return movement::index(a, i, operation),
        Op::Sample(s) => return movement::sample(a, s, operation),
        Op::Dimensions(d) => {
            let g = a.full(y)?;
            a.give(d.x(), |f| f.reshape(g, &f.shape(d.x())))
        }
        Op::Scatter { mode, .. } | Op::ScatterAlongAxis { mode, .. } if *mode != ScatterMode::Add => {
            return Err(GradError::NotDifferentiable {
                op: operation.op.name(),
                path: a.f.function().value(y).path.clone(),
                why: "which of several updates of one element stays is not known before run time; mode `add` was expected",
            });
        }
        Op::Scatter { data, indices, updates, axis, mode: _ } => {
            let g = a.of(y);
            a.give(*data, |_| Ok(g))?;
            a.give(*updates, |f| {
                let g = materialise(f, g, &f.shape(y))?;
                f.gather(g, *indices, *axis)
            })
        }
        Op::ScatterAlongAxis { data, indices, updates, axis, mode: _ } => {
            let g = a.of(y);
            a.give(*data, |_| Ok(g))?;
            a.give(*updates, |f| {
                let g = materialise(f, g, &f.shape(y))?;
                f.gather_along_axis(g, *indices, *axis)
            })
        }
        Op::Reshape { x, .. } => {
            let g = a.full(y)?;
            a.give(*x, |f| f.reshape(g, &f.shape(*x)))
        }
        Op::Transpose { x, perm } => {
            let g = a.full(y)?;
            let inverse: Vec<usize> =
                (0..perm.len()).map(|i| perm.iter().position(|&p| p == i).expect("a permutation")).collect();
            a.give(*x, |f| f.transpose(g, &inverse))
        }
        Op::Concat { values, axis } => concat(a, values, *axis, y),
        Op::Split { x, axis, .. } => split(a, *x, *axis, &operation.results),
        Op::Tile { x, reps } => tile(a, *x, reps, y),
    }
    .map_err(GradError::from)
}

fn cast(a: &mut Adjoints<'_>, x: ValueId, y: ValueId) -> Result<(), BuildError> {
    let g = a.of(y);
    a.give(x, |f| Ok(f.cast(g, f.ty(x).dtype)))
}

fn select(
    a: &mut Adjoints<'_>,
    cond: ValueId,
    yes: ValueId,
    no: ValueId,
    result: ValueId,
) -> Result<(), BuildError> {
    let (g, shape) = (a.of(result), a.f.shape(result));
    let zero = a.f.scalar(a.f.ty(g).dtype, 0.0);
    a.give_reduced(yes, &shape, |f| f.select(cond, g, zero))?;
    a.give_reduced(no, &shape, |f| f.select(cond, zero, g))
}

fn reduce(
    a: &mut Adjoints<'_>,
    kind: Reduce,
    x: ValueId,
    axes: &[usize],
    keep_dims: bool,
    y: ValueId,
) -> Result<(), BuildError> {
    let (g, x_shape) = (a.of(y), a.f.shape(x));
    let rank = x_shape.len();
    a.give(x, |f| match kind {
        Reduce::Sum => unreduce(f, g, rank, axes, keep_dims),
        Reduce::Mean => {
            let n: usize = axes.iter().map(|&i| x_shape[i]).product();
            let share = f.scale(g, 1.0 / n as f64)?;
            unreduce(f, share, rank, axes, keep_dims)
        }
        Reduce::Max | Reduce::Min => {
            let (g, y) = (unreduce(f, g, rank, axes, keep_dims)?, unreduce(f, y, rank, axes, keep_dims)?);
            let ties = f.compare(Compare::Equal, x, y)?;
            let ones = f.cast(ties, f.ty(x).dtype);
            let count = f.reduce(Reduce::Sum, ones, axes, true)?;
            let share = f.real_div(g, count)?;
            let zero = f.scalar(f.ty(x).dtype, 0.0);
            f.select(ties, share, zero)
        }
        Reduce::Prod => {
            let (g, y) = (unreduce(f, g, rank, axes, keep_dims)?, unreduce(f, y, rank, axes, keep_dims)?);
            let others = f.real_div(y, x)?;
            f.mul(others, g)
        }
        Reduce::L1Norm => {
            let (g, sign) = (unreduce(f, g, rank, axes, keep_dims)?, f.unary(Unary::Sign, x)?);
            f.mul(sign, g)
        }
        Reduce::L2Norm => {
            let (g, y) = (unreduce(f, g, rank, axes, keep_dims)?, unreduce(f, y, rank, axes, keep_dims)?);
            let direction = f.real_div(x, y)?;
            f.mul(direction, g)
        }
        // The sum is e to the result.
        Reduce::LogSum => {
            let negative = f.neg(y)?;
            let inverse = f.unary(Unary::Exp, negative)?;
            let share = f.mul(g, inverse)?;
            unreduce(f, share, rank, axes, keep_dims)
        }
        Reduce::SumSquare => {
            let (g, slope) = (unreduce(f, g, rank, axes, keep_dims)?, f.scale(x, 2.0)?);
            f.mul(slope, g)
        }
        Reduce::LogSumExp => {
            let g = unreduce(f, g, rank, axes, keep_dims)?;
            let p = if let [axis] = *axes {
                f.softmax(x, axis)?
            } else {
                let y = unreduce(f, y, rank, axes, keep_dims)?;
                let shifted = f.sub(x, y)?;
                f.unary(Unary::Exp, shifted)?
            };
            f.mul(p, g)
        }
    })
}

/// The adjoint of softmax's operand, from its result `p` and the result's adjoint.
fn softmax(f: &mut Builder, p: ValueId, g: ValueId, axis: usize) -> Result<ValueId, BuildError> {
    let weighted = f.mul(p, g)?;
    let mean = f.reduce(Reduce::Sum, weighted, &[axis], true)?;
    let centred = f.sub(g, mean)?;
    f.mul(p, centred)
}

fn matmul(
    a: &mut Adjoints<'_>,
    x: ValueId,
    y: ValueId,
    tx: bool,
    ty: bool,
    result: ValueId,
) -> Result<(), BuildError> {
    let g = a.full(result)?;
    let shape = a.f.shape(result);
    let batch = &shape[..shape.len() - 2];
    // Only batch dimensions broadcast; the last two are the operand's own.
    let broadcast = |f: &Builder, v: ValueId| {
        let own = f.shape(v);
        [batch, &own[own.len() - 2..]].concat()
    };
    let (x_shape, y_shape) = (broadcast(a.f, x), broadcast(a.f, y));
    a.give_reduced(x, &x_shape, |f| if tx { f.matmul(y, g, ty, true) } else { f.matmul(g, y, false, !ty) })?;
    a.give_reduced(y, &y_shape, |f| if ty { f.matmul(g, x, true, tx) } else { f.matmul(x, g, !tx, false) })
}

fn linear(
    a: &mut Adjoints<'_>,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    y: ValueId,
) -> Result<(), BuildError> {
    let (x_shape, y_shape) = (a.f.shape(x), a.f.shape(y));
    if let Some(bias) = bias {
        let g = a.of(y);
        a.give_reduced(bias, &y_shape, |_| Ok(g))?;
    }
    if !a.needs(x) && !a.needs(weight) {
        return Ok(());
    }
    let rows: usize = x_shape[..x_shape.len() - 1].iter().product();
    let flat = |shape: &[usize]| [rows, shape[shape.len() - 1]];
    let g = a.full(y)?;
    let g = a.f.reshape(g, &flat(&y_shape))?;
    a.give(x, |f| {
        let dx = f.matmul(g, weight, false, false)?;
        f.reshape(dx, &x_shape)
    })?;
    a.give(weight, |f| {
        let x = f.reshape(x, &flat(&x_shape))?;
        f.matmul(g, x, true, false)
    })
}

/// The gradients of `nchw,nwhu->nchu` are products of the matrices of each n and h.
fn einsum(a: &mut Adjoints<'_>, e: &Einsum, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let shape = a.f.shape(y);
    let rank = shape.len();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 3, rank - 2);
    let g = a.f.transpose(g, &perm)?;
    for (operand, other) in [(0, 1), (1, 0)] {
        let (v, other) = (e.values[operand], e.values[other]);
        // The operand's shape with the n and h of the result, which it may have been stretched to.
        let mut full = shape.clone();
        full[rank - 3] = a.f.shape(v)[rank - 3];
        full[rank - 1] = a.f.shape(v)[rank - 1];
        a.give_reduced(v, &full, |f| {
            let other = f.transpose(other, &perm)?;
            let d = if operand == 0 {
                f.matmul(g, other, false, true)?
            } else {
                f.matmul(other, g, true, false)?
            };
            f.transpose(d, &perm)
        })?;
    }
    Ok(())
}

fn along_axis(a: &mut Adjoints<'_>, op: &AlongAxis, operation: &Operation) -> Result<(), BuildError> {
    let y = operation.results[0];
    match *op {
        AlongAxis::Extreme { .. } | AlongAxis::Argsort { .. } => Ok(()),
        AlongAxis::TopK { x, axis, indices: Some(_), .. } => {
            let g = a.full(y)?;
            a.give(x, |f| {
                let zeros = zeros_like(f, x);
                f.scatter_along_axis_add(zeros, operation.results[1], g, axis)
            })
        }
        // Without indices they are found again.
        AlongAxis::TopK { x, k, axis, ascending, sort, indices: None } => {
            let g = a.full(y)?;
            a.give(x, |f| {
                let indices = Some(DType::I32);
                let again = AlongAxis::TopK { x, k, axis, ascending, sort, indices };
                let found = f.push(Op::AlongAxis(again))?;
                let zeros = zeros_like(f, x);
                f.scatter_along_axis_add(zeros, found[1], g, axis)
            })
        }
        AlongAxis::CumSum { x, axis, exclusive, reverse } => {
            let g = a.full(y)?;
            a.give(x, |f| {
                f.push_one(Op::AlongAxis(AlongAxis::CumSum { x: g, axis, exclusive, reverse: !reverse }))
            })
        }
    }
}

/// The probabilities are computed again, as the op's definition says. A row that the mask hides as a whole has equal
/// probabilities here, where the op has none (NaN).
fn attention(
    a: &mut Adjoints<'_>,
    [q, k, v]: [ValueId; 3],
    mask: Option<ValueId>,
    y: ValueId,
) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let width = *a.f.shape(q).last().expect("attention has rank 3 or more");
    let scale = 1.0 / (width as f64).sqrt();
    let p = probabilities(a.f, q, k, mask, scale)?;
    a.give(v, |f| f.matmul(p, g, true, false))?;
    if ![q, k].into_iter().chain(mask).any(|operand| a.needs(operand)) {
        return Ok(());
    }
    let dp = a.f.matmul(g, v, false, true)?;
    let shape = a.f.shape(p);
    let ds = softmax(a.f, p, dp, shape.len() - 1)?;
    if let Some(mask) = mask {
        a.give_reduced(mask, &shape, |_| Ok(ds))?;
    }
    if !a.needs(q) && !a.needs(k) {
        return Ok(());
    }
    let ds = a.f.scale(ds, scale)?;
    a.give(q, |f| f.matmul(ds, k, false, false))?;
    a.give(k, |f| f.matmul(ds, q, true, false))
}

/// softmax(q·kᵀ·scale + mask)
fn probabilities(
    f: &mut Builder,
    q: ValueId,
    k: ValueId,
    mask: Option<ValueId>,
    scale: f64,
) -> Result<ValueId, BuildError> {
    let products = f.matmul(q, k, false, true)?;
    let mut scores = f.scale(products, scale)?;
    if let Some(mask) = mask {
        scores = if f.ty(mask).dtype == DType::Bool {
            let dtype = f.ty(scores).dtype;
            let hidden = f.scalar(dtype, lowest_score(dtype));
            f.select(mask, scores, hidden)?
        } else {
            f.add(scores, mask)?
        };
    }
    let last = f.shape(scores).len() - 1;
    f.softmax(scores, last)
}

/// What stands for a hidden score: finite, so that differences of scores are, and low enough to have no weight.
fn lowest_score(dtype: DType) -> f64 {
    if dtype == DType::F16 { -65504.0 } else { -3.0e38 }
}

fn gather(
    a: &mut Adjoints<'_>,
    x: ValueId,
    indices: ValueId,
    axis: usize,
    y: ValueId,
) -> Result<(), BuildError> {
    let g = a.full(y)?;
    a.give(x, |f| {
        let count = f.ty(indices).len();
        let mut shape = f.shape(x);
        shape[axis] = count;
        let zeros = zeros_like(f, x);
        let indices = f.reshape(indices, &[count])?;
        let g = f.reshape(g, &shape)?;
        f.scatter_add(zeros, indices, g, axis)
    })
}

fn concat(a: &mut Adjoints<'_>, values: &[ValueId], axis: usize, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let sizes: Vec<usize> = values.iter().map(|&v| a.f.shape(v)[axis]).collect();
    let pieces = a.f.split(g, axis, &sizes)?;
    values.iter().zip(pieces).try_for_each(|(&v, piece)| a.give(v, |_| Ok(piece)))
}

fn split(a: &mut Adjoints<'_>, x: ValueId, axis: usize, results: &[ValueId]) -> Result<(), BuildError> {
    let mut pieces = Vec::with_capacity(results.len());
    for &r in results {
        let has_adjoint = a.found[r.index()].is_some();
        pieces.push(if has_adjoint { a.full(r)? } else { zeros_like(a.f, r) });
    }
    a.give(x, |f| f.concat(&pieces, axis))
}

fn tile(a: &mut Adjoints<'_>, x: ValueId, reps: &[usize], y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    a.give(x, |f| untile(f, g, &f.shape(x), reps))
}

/// The sum over all copies of an x of shape `dims`. Two repeated dimensions at a time come apart into copies and elements,
/// whatever lies between them is one dimension: five at most.
fn untile(f: &mut Builder, g: ValueId, dims: &[usize], reps: &[usize]) -> Result<ValueId, BuildError> {
    let mut left = reps.to_vec();
    let mut sum = g;
    while left.iter().any(|&r| r > 1) {
        let (mut shape, mut axes) = (vec![1], Vec::new());
        for (&d, r) in dims.iter().zip(&mut left) {
            if *r > 1 && axes.len() < 2 {
                axes.push(shape.len());
                shape.extend([*r, 1]);
                *r = 1;
            }
            *shape.last_mut().expect("never empty") *= d * *r;
        }
        let copies = f.reshape(sum, &shape)?;
        sum = f.reduce(Reduce::Sum, copies, &axes, false)?;
    }
    f.reshape(sum, dims)
}

fn zeros_like(f: &mut Builder, v: ValueId) -> ValueId {
    let ty = f.ty(v).clone();
    f.fill(ty.dtype, &ty.shape, 0.0)
}
