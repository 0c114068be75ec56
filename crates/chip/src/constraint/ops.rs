//! Checks of single ops.

use arcane_mil::{Convolution, Op, TensorType, Unary, ValueId};
use arcane_tensor::{DType, round_to};

use super::Finding;
use super::program::axis_length;
use super::site::Site;
use crate::surface::folded;

/// The engine's own element types, and fp32 where it only stores and converts.
pub(super) fn element_type(site: &Site<'_>) -> Option<Finding> {
    let cast = matches!(site.operation.op, Op::Cast { .. });
    let allowed = |dtype| match dtype {
        // Another constraint has fp32.
        DType::F16 | DType::F32 | DType::Bool => true,
        DType::I8 => cast,
        DType::Bf16
        | DType::F64
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::U1
        | DType::U2
        | DType::U3
        | DType::U4
        | DType::U6
        | DType::I4 => false,
    };
    let ty = site.activations().find(|ty| !allowed(ty.dtype))?;
    Some(Finding::new("fp16, and bool inside a program", ty))
}

pub(super) fn fp32(site: &Site<'_>) -> Option<Finding> {
    if matches!(site.operation.op, Op::Cast { .. }) {
        return None;
    }
    let ty = site.activations().find(|ty| ty.dtype == DType::F32)?;
    Some(Finding::new("fp16", ty))
}

pub(super) fn axes(site: &Site<'_>) -> Option<Finding> {
    site.activations().find_map(|ty| axis_length(site.chip, ty))
}

pub(super) fn matmul_rank(site: &Site<'_>) -> Option<Finding> {
    let limit = *site.chip.limits.max_matmul_rank;
    let ty = site.activations().find(|ty| ty.shape.len() > limit)?;
    Some(Finding::new(format!("rank {limit}"), ty))
}

/// The contracted length of a product of the type's last two dimensions.
fn inner(ty: &TensorType, transposed: bool) -> usize {
    ty.shape[ty.shape.len() - if transposed { 2 } else { 1 }]
}

fn matmul_inner(site: &Site<'_>) -> Option<usize> {
    let Op::Matmul { x, transpose_x, .. } = &site.operation.op else { return None };
    Some(inner(site.ty(*x), *transpose_x))
}

pub(super) fn inner_length(site: &Site<'_>) -> Option<Finding> {
    let (limit, found) = (*site.chip.limits.max_inner, matmul_inner(site)?);
    (found > limit).then(|| Finding::new(limit, found))
}

pub(super) fn inner_multiple(site: &Site<'_>) -> Option<Finding> {
    let (multiple, found) = (*site.chip.limits.inner_multiple, matmul_inner(site)?);
    (!found.is_multiple_of(multiple)).then(|| Finding::new(format!("a multiple of {multiple}"), found))
}

/// The weight and the bias of an op that wants them constant, and its groups.
fn constant_weight(site: &Site<'_>) -> Option<(ValueId, Option<ValueId>, usize)> {
    match &site.operation.op {
        Op::Linear { weight, bias, .. } => Some((*weight, *bias, 1)),
        Op::Convolution(c) => Some((c.weight, c.bias, c.groups)),
        _ => None,
    }
}

pub(super) fn runtime_weight(site: &Site<'_>) -> Option<Finding> {
    let (weight, bias, _) = constant_weight(site)?;
    let mut operands = std::iter::once(("weight", weight)).chain(bias.map(|b| ("bias", b)));
    let (name, _) = operands.find(|(_, v)| !site.is_constant(*v))?;
    Some(Finding::new("constants", format!("a run-time {name}")))
}

pub(super) fn output_channels(site: &Site<'_>) -> Option<Finding> {
    let (weight, ..) = constant_weight(site)?;
    let (limit, found) = (*site.chip.limits.max_output_channels, site.ty(weight).shape[0]);
    (found > limit).then(|| Finding::new(limit, found))
}

pub(super) fn input_channels(site: &Site<'_>) -> Option<Finding> {
    let (weight, _, groups) = constant_weight(site)?;
    let (limit, found) = (*site.chip.limits.max_input_channels, groups * site.ty(weight).shape[1]);
    (found > limit).then(|| Finding::new(limit, found))
}

/// How many rows of run-time values a constant is multiplied with.
pub(super) fn positions(site: &Site<'_>) -> Option<Finding> {
    let rows = match &site.operation.op {
        Op::Linear { x, .. } => {
            let shape = &site.ty(*x).shape;
            shape[..shape.len() - 1].iter().product::<usize>()
        }
        Op::Convolution(_) => {
            let shape = &site.ty(site.operation.results[0]).shape;
            shape[0].saturating_mul(shape[2..].iter().product())
        }
        Op::Matmul { x, y, transpose_x, .. } if site.is_constant(*y) => {
            let shape = &site.ty(*x).shape;
            let batch: usize = shape[..shape.len() - 2].iter().product();
            batch.saturating_mul(inner(site.ty(*x), !transpose_x))
        }
        Op::Matmul { x, y, transpose_y, .. } if site.is_constant(*x) => {
            let shape = &site.ty(*y).shape;
            let batch: usize = shape[..shape.len() - 2].iter().product();
            batch.saturating_mul(inner(site.ty(*y), *transpose_y))
        }
        _ => return None,
    };
    let limit = *site.chip.limits.min_positions;
    (rows < limit).then(|| Finding::new(format!("{limit} positions or more"), rows))
}

fn convolution<'a>(site: &'a Site<'_>) -> Option<&'a Convolution> {
    match &site.operation.op {
        Op::Convolution(c) => Some(c),
        _ => None,
    }
}

pub(super) fn bias(site: &Site<'_>) -> Option<Finding> {
    let bias = convolution(site)?.bias?;
    Some(Finding::new("no bias", site.ty(bias)))
}

pub(super) fn kernel_size(site: &Site<'_>) -> Option<Finding> {
    let kernel = &site.ty(convolution(site)?.weight).shape[2..];
    let limits = &site.chip.limits;
    let named = [("width", *limits.max_kernel_width), ("height", *limits.max_kernel_height)];
    let ((name, limit), &size) =
        named.into_iter().zip(kernel.iter().rev()).find(|((_, limit), size)| *size > limit)?;
    Some(Finding::new(format!("{name} {limit}"), size))
}

pub(super) fn dilation(site: &Site<'_>) -> Option<Finding> {
    let limit = *site.chip.limits.max_dilation;
    let found = convolution(site)?.dilations.iter().find(|d| **d > limit)?;
    Some(Finding::new(limit, found))
}

pub(super) fn padding(site: &Site<'_>) -> Option<Finding> {
    let c = convolution(site)?;
    let (x, kernel) = (&site.ty(c.x).shape[2..], &site.ty(c.weight).shape[2..]);
    let limit = *site.chip.limits.max_padding;
    let sides = (0..x.len()).flat_map(|d| c.padding(d, x[d], kernel[d]));
    let found = sides.into_iter().find(|side| *side > limit)?;
    Some(Finding::new(limit, found))
}

pub(super) fn mask(site: &Site<'_>) -> Option<Finding> {
    let Op::ScaledDotProductAttention { attn_mask: Some(mask), .. } = &site.operation.op else {
        return None;
    };
    Some(Finding::new("no attn_mask", site.ty(*mask)))
}

pub(super) fn attention_size(site: &Site<'_>) -> Option<Finding> {
    let Op::ScaledDotProductAttention { query, key, .. } = &site.operation.op else { return None };
    let (query, key) = (&site.ty(*query).shape, &site.ty(*key).shape);
    let (queries, keys) = (query[query.len() - 2], key[key.len() - 2]);
    let (longest, shorter) =
        (*site.chip.limits.max_attention_length, *site.chip.limits.max_attention_shorter);
    if query.len() > 3 && query[0] > 1 {
        return Some(Finding::new("batch 1", query[0]));
    }
    if queries.max(keys) > longest {
        return Some(Finding::new(format!("length {longest}"), queries.max(keys)));
    }
    (queries.min(keys) > shorter)
        .then(|| Finding::new(format!("{shorter} queries or keys"), queries.min(keys)))
}

pub(super) fn softmax_axis(site: &Site<'_>) -> Option<Finding> {
    let Op::Softmax { x, axis } = &site.operation.op else { return None };
    let length = site.ty(*x).shape[*axis];
    (!length.is_power_of_two()).then(|| Finding::new("a power of two", length))
}

pub(super) fn tile(site: &Site<'_>) -> Option<Finding> {
    let Op::Tile { reps, .. } = &site.operation.op else { return None };
    Some(Finding::new("no tile", format!("reps {reps:?}")))
}

/// Whether an op splits along the last axis.
fn is_width_split(op: &Op, rank: usize) -> bool {
    matches!(op, Op::Split { axis, sizes, .. } if *axis + 1 == rank && sizes.len() > 1)
}

pub(super) fn width_slice(site: &Site<'_>) -> Option<Finding> {
    let Op::Split { x, sizes, .. } = &site.operation.op else { return None };
    let ty = site.ty(*x);
    is_width_split(&site.operation.op, ty.shape.len())
        .then(|| Finding::new("slices of the last axis that start at 0", format!("{sizes:?} of {ty}")))
}

/// How many ops between the slices of a vector and their concatenation are looked through: a rotary embedding has two.
const ROTARY_OPS: usize = 2;

pub(super) fn width_rotation(site: &Site<'_>) -> Option<Finding> {
    let Op::Concat { values, axis } = &site.operation.op else { return None };
    let ty = site.ty(site.operation.results[0]);
    let rank = ty.shape.len();
    let rotates = axis + 1 == rank && values.iter().any(|&v| comes_from_split(site, v, rank, ROTARY_OPS));
    rotates.then(|| Finding::new("no concatenation of slices of the last axis", ty))
}

fn comes_from_split(site: &Site<'_>, v: ValueId, rank: usize, ops: usize) -> bool {
    match site.op_of(v) {
        Some(op @ Op::Split { .. }) => is_width_split(op, rank),
        Some(Op::Unary { x, .. }) if ops > 0 => comes_from_split(site, *x, rank, ops - 1),
        Some(Op::Binary { x, y, .. }) if ops > 0 => {
            comes_from_split(site, *x, rank, ops - 1) || comes_from_split(site, *y, rank, ops - 1)
        }
        _ => false,
    }
}

pub(super) fn fan_in(site: &Site<'_>) -> Option<Finding> {
    let Op::Concat { values, .. } = &site.operation.op else { return None };
    let limit = *site.chip.limits.max_fan_in;
    (values.len() > limit).then(|| Finding::new(format!("{limit} operands"), values.len()))
}

pub(super) fn batch_broadcast(site: &Site<'_>) -> Option<Finding> {
    let Op::Binary { x, y, .. } = &site.operation.op else { return None };
    let (x, y) = (site.ty(*x), site.ty(*y));
    let batches = |ty: &TensorType| folded(&ty.shape).map_or(1, |axes| axes[3]);
    let differ = x.len() > 1 && y.len() > 1 && batches(x) != batches(y);
    differ.then(|| Finding::new("operands of one batch size", format!("{x} and {y}")))
}

fn is_reduction(op: Option<&Op>) -> bool {
    matches!(op, Some(Op::Reduce { .. }))
}

pub(super) fn square_of_reduction(site: &Site<'_>) -> Option<Finding> {
    let Op::Unary { kind: Unary::Square, x } = &site.operation.op else { return None };
    is_reduction(site.op_of(*x)).then(|| Finding::new("no square of a reduction", site.ty(*x)))
}

pub(super) fn nonlinear_of_square(site: &Site<'_>) -> Option<Finding> {
    let Op::Unary { x, .. } = &site.operation.op else { return None };
    let Some(Op::Unary { kind: Unary::Square, .. }) = site.op_of(*x) else { return None };
    let width = site.ty(*x).shape.last().copied().unwrap_or(1);
    let limit = *site.chip.limits.max_square_remainder;
    (width % 128 > limit).then(|| Finding::new(format!("width modulo 128 at most {limit}"), width))
}

pub(super) fn zero_times_reduction(site: &Site<'_>) -> Option<Finding> {
    let Op::Binary { x, y, .. } = &site.operation.op else { return None };
    let crash = |zero, reduced| site.uniform(zero) == Some(0.0) && is_reduction(site.op_of(reduced));
    (crash(*x, *y) || crash(*y, *x)).then(|| Finding::new("a factor that is not 0", 0))
}

pub(super) fn root_of_reduction(site: &Site<'_>) -> Option<Finding> {
    let Op::Unary { x, .. } = &site.operation.op else { return None };
    is_reduction(site.op_of(*x)).then(|| Finding::new("no root of a reduction", site.ty(*x)))
}

pub(super) fn epsilon(site: &Site<'_>) -> Option<Finding> {
    let Op::Unary { kind: Unary::Rsqrt { epsilon } | Unary::Log { epsilon } | Unary::Inverse { epsilon }, x } =
        &site.operation.op
    else {
        return None;
    };
    let limit = *site.chip.limits.min_epsilon;
    let vanishes = site.ty(*x).dtype == DType::F16 && *epsilon != 0.0 && epsilon.abs() < limit;
    vanishes.then(|| Finding::new(format!("epsilon {limit:e} or 0"), format!("{epsilon:e}")))
}

pub(super) fn finite(site: &Site<'_>) -> Option<Finding> {
    let (place, value) = match &site.operation.op {
        Op::Const(tensor) if tensor.dtype() == DType::F16 => {
            // All exponent bits are set, which stand in the second byte.
            let i = tensor.bytes().chunks_exact(2).position(|bytes| bytes[1] & 0x7c == 0x7c)?;
            (format!(" at {i}"), tensor.get(i))
        }
        Op::Fill { dtype: DType::F16, value, .. } => (String::new(), round_to(DType::F16, *value)),
        _ => return None,
    };
    (!value.is_finite()).then(|| Finding::new("finite numbers", format!("{value}{place}")))
}
