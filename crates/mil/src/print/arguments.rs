//! The arguments of each op in MIL's names.

mod along_axis;
mod constexpr;
mod convolution;
mod movement;
mod normalisation;
mod pad;
mod pool;
mod quantize;
mod recurrent;
mod sample;
mod slice;

use std::borrow::Cow;

use arcane_tensor::{DType, Tensor, round_to};

use super::Unspellable;
use crate::{Op, Opset, StateOp, TensorType, Unary, ValueId};

/// What stands behind `name =`.
pub(super) enum Argument<'a> {
    Value(ValueId),
    Values(&'a [ValueId]),
    /// A parameter, which becomes a named constant.
    Const(Immediate),
    /// A parameter of several numbers, each a named constant.
    Consts(Vec<Immediate>),
}

pub(super) enum Immediate {
    Tensor(Tensor),
    Text(Cow<'static, str>),
}

use Argument::{Value, Values};

type Named<'a> = (&'static str, Argument<'a>);

/// The arguments in alphabetical order. `types` gives the types of values.
pub(super) fn arguments<'a, 't>(
    op: &'a Op,
    types: impl Fn(ValueId) -> &'t TensorType,
    opset: Opset,
) -> Result<Vec<Named<'a>>, Unspellable> {
    let mut found = match op {
        Op::Const(_) => Vec::new(),
        Op::Unary { kind: Unary::Gelu(mode), x } => vec![("mode", text(mode.name())), ("x", Value(*x))],
        Op::Unary { kind, x } => {
            let dtype = types(*x).dtype;
            let number = |(name, value)| match name {
                "epsilon" => (name, float(dtype, value)),
                _ if kind.has_bounds_of_its_type() => (name, float(dtype, value)),
                _ => (name, real(dtype, value, opset)),
            };
            kind.numbers().into_iter().map(number).chain([("x", Value(*x))]).collect()
        }
        Op::Cast { x, dtype } => vec![("dtype", text(dtype.name())), ("x", Value(*x))],
        Op::Binary { x, y, .. } | Op::Compare { x, y, .. } | Op::Logical { x, y, .. } => {
            vec![("x", Value(*x)), ("y", Value(*y))]
        }
        Op::Select { cond, a, b } => vec![("a", Value(*a)), ("b", Value(*b)), ("cond", Value(*cond))],
        Op::Reduce { kind: _, x, axes, keep_dims } => {
            vec![("axes", ints("axes", axes)?), ("keep_dims", flag(*keep_dims)), ("x", Value(*x))]
        }
        Op::Softmax { x, axis } => vec![("axis", int(*axis)), ("x", Value(*x))],
        Op::Matmul { x, y, transpose_x, transpose_y } => vec![
            ("transpose_x", flag(*transpose_x)),
            ("transpose_y", flag(*transpose_y)),
            ("x", Value(*x)),
            ("y", Value(*y)),
        ],
        Op::Linear { x, weight, bias } => {
            let bias = bias.map(|b| ("bias", Value(b)));
            bias.into_iter().chain([("weight", Value(*weight)), ("x", Value(*x))]).collect()
        }
        Op::Convolution(c) => convolution::convolution(c, opset)?,
        Op::TransposedConvolution(c) => convolution::transposed(c)?,
        Op::Pool(p) => pool::pool(p, opset)?,
        Op::Quantization(q) => quantize::quantization(q, opset)?,
        Op::Constexpr(c) => constexpr::constexpr(c, opset)?,
        Op::Recurrent(r) => recurrent::recurrent(r, types(r.x).dtype, opset)?,
        Op::State(StateOp::Read { state }) => {
            since(Opset::Ios18, opset)?;
            vec![("input", Value(*state))]
        }
        Op::State(StateOp::Write { state, data }) => {
            since(Opset::Ios18, opset)?;
            vec![("data", Value(*data)), ("input", Value(*state))]
        }
        Op::Einsum(e) => vec![("equation", text(e.equation.clone())), ("values", Values(&e.values))],
        Op::Normalisation(n) => normalisation::normalisation(n, types(n.x()).dtype, opset)?,
        Op::Channelwise(c) => normalisation::channelwise(c),
        Op::AlongAxis(a) => along_axis::along_axis(a, opset)?,
        Op::ScaledDotProductAttention { query, key, value, attn_mask } => {
            since(Opset::Ios18, opset)?;
            let mask = attn_mask.map(|m| ("attn_mask", Value(m)));
            mask.into_iter()
                .chain([("key", Value(*key)), ("query", Value(*query)), ("value", Value(*value))])
                .collect()
        }
        Op::Gather { x, indices, axis } | Op::GatherAlongAxis { x, indices, axis } => {
            let mut found = indexed(*axis, *indices, opset);
            if matches!(op, Op::Gather { .. }) && opset >= Opset::Ios16 {
                found.push(("batch_dims", int(0)));
            }
            found.push(("x", Value(*x)));
            found
        }
        Op::Scatter { data, indices, updates, axis, mode }
        | Op::ScatterAlongAxis { data, indices, updates, axis, mode } => {
            let mut found = indexed(*axis, *indices, opset);
            found.extend([("data", Value(*data)), ("mode", text(mode.name())), ("updates", Value(*updates))]);
            found
        }
        Op::Reshape { x, shape } => vec![("shape", ints("shape", shape)?), ("x", Value(*x))],
        Op::Transpose { x, perm } => vec![("perm", ints("perm", perm)?), ("x", Value(*x))],
        Op::Concat { values, axis } => {
            vec![("axis", int(*axis)), ("interleave", flag(false)), ("values", Values(values))]
        }
        Op::Split { x, axis, sizes } => {
            vec![("axis", int(*axis)), ("split_sizes", ints("split_sizes", sizes)?), ("x", Value(*x))]
        }
        Op::Slice(s) => slice::slice(s, opset)?,
        Op::Pad(p) => pad::pad(p, types(p.x).dtype)?,
        Op::Dimensions(d) => movement::dimensions(d, opset)?,
        Op::Rearrange(r) => movement::rearrange(r, opset)?,
        Op::Join(j) => movement::join(j),
        Op::Make(m) => movement::make(m, opset)?,
        Op::Index(i) => movement::index(i, opset)?,
        Op::Sample(s) => sample::sample(s, types(s.x()).dtype, opset)?,
        Op::Tile { x, reps } => vec![("reps", ints("reps", reps)?), ("x", Value(*x))],
        Op::Random(r) => {
            let numbers = r.numbers().into_iter().map(|(name, value)| (name, float(r.dtype, value)));
            numbers.chain([("seed", scalar(r.seed)), ("shape", ints("shape", &r.shape)?)]).collect()
        }
        Op::Fill { shape, dtype, value } => {
            vec![("shape", ints("shape", shape)?), ("value", float(*dtype, *value))]
        }
    };
    found.sort_by_key(|(name, _)| *name);
    Ok(found)
}

/// Refuses what a function of an older opset has not.
fn since(since: Opset, opset: Opset) -> Result<(), Unspellable> {
    if opset < since { Err(Unspellable::Opset { since, opset }) } else { Ok(()) }
}

/// What ops that index along an axis share.
fn indexed(axis: usize, indices: ValueId, opset: Opset) -> Vec<Named<'static>> {
    let validate = (opset >= Opset::Ios17).then(|| ("validate_indices", flag(false)));
    [("axis", int(axis)), ("indices", Value(indices))].into_iter().chain(validate).collect()
}

impl Immediate {
    fn scalar<T: arcane_tensor::Element>(value: T) -> Self {
        Self::Tensor(Tensor::scalar(value))
    }
}

fn scalar<T: arcane_tensor::Element>(value: T) -> Argument<'static> {
    Argument::Const(Immediate::scalar(value))
}

/// An axis: the verifier has kept it below the largest rank.
fn int(axis: usize) -> Argument<'static> {
    scalar(axis as i32)
}

fn flag(value: bool) -> Argument<'static> {
    scalar(value)
}

fn text(value: impl Into<Cow<'static, str>>) -> Argument<'static> {
    Argument::Const(Immediate::Text(value.into()))
}

fn float(dtype: DType, value: f64) -> Argument<'static> {
    let tensor = Tensor::from_f64s(dtype, &[], &[value]).expect("one element has rank 0");
    Argument::Const(Immediate::Tensor(tensor))
}

fn flags(values: &[bool]) -> Argument<'static> {
    let tensor = Tensor::new(&[values.len()], values.to_vec()).expect("a vector has its length");
    Argument::Const(Immediate::Tensor(tensor))
}

/// Numbers that may be negative: those beyond `int32` mean what its extremes do.
fn signed(values: &[i64]) -> Argument<'static> {
    let int = |&v: &i64| v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    let data: Vec<i32> = values.iter().map(int).collect();
    let tensor = Tensor::new(&[values.len()], data).expect("a vector has its length");
    Argument::Const(Immediate::Tensor(tensor))
}

fn matrix(parameter: &'static str, rows: &[[usize; 2]; 2]) -> Result<Argument<'static>, Unspellable> {
    let int = |&value: &usize| i32::try_from(value).map_err(|_| Unspellable::TooLarge { parameter, value });
    let data = rows.iter().flatten().map(int).collect::<Result<Vec<i32>, _>>()?;
    Ok(Argument::Const(Immediate::Tensor(Tensor::new(&[2, 2], data).expect("two rows of two"))))
}

/// A number beside x: of x's type, or from ios17 fp32 if that says it better.
fn real(dtype: DType, value: f64, opset: Opset) -> Argument<'static> {
    let exact = round_to(dtype, value) == value || opset < Opset::Ios17 || !dtype.is_float();
    float(if exact { dtype } else { DType::F32 }, value)
}

fn ints(parameter: &'static str, values: &[usize]) -> Result<Argument<'static>, Unspellable> {
    let int = |&value| i32::try_from(value).map_err(|_| Unspellable::TooLarge { parameter, value });
    let data = values.iter().map(int).collect::<Result<Vec<i32>, _>>()?;
    let tensor = Tensor::new(&[values.len()], data).expect("a vector has its length");
    Ok(Argument::Const(Immediate::Tensor(tensor)))
}
