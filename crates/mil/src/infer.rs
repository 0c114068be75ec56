//! Shape and type rules: what an op gives for operands of given types, or why it may not be written so.

use arcane_tensor::{DType, element_count};

use crate::op::rearrange::Factors;
use crate::op::unary::Takes;
use crate::{Op, StateOp, TensorType, Unary, ValueId};

/// Why an op is ill-typed. The message names the operands' types and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

macro_rules! ensure {
    ($cond:expr, $($arg:tt)*) => { if !$cond { return Err(TypeError(format!($($arg)*))); } };
}

mod along_axis;
mod channelwise;
mod constexpr;
mod convolution;
mod dimensions;
mod einsum;
mod index;
mod join;
mod make;
mod normalisation;
mod pad;
mod pool;
mod quantize;
mod rearrange;
mod recurrent;
mod sample;
mod slice;

/// The shape that two operands broadcast to, as in numpy; `None` if they do not.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (m, n) if m == n => Some(m),
            (1, n) => Some(n),
            (m, 1) => Some(m),
            _ => None,
        })
        .collect()
}

/// The types of an op's results. `types` gives the types of values that are already defined.
///
/// # Errors
/// [`TypeError`] if the op may not be written so.
pub fn infer<'a>(op: &Op, types: impl Fn(ValueId) -> &'a TensorType) -> Result<Vec<TensorType>, TypeError> {
    let one = |dtype, shape: &[usize]| Ok(vec![TensorType::new(dtype, shape)]);
    match op {
        Op::Const(tensor) => one(tensor.dtype(), tensor.shape()),
        Op::Unary { kind, x } => {
            let x = types(*x);
            unary(*kind, x)?;
            one(x.dtype, &x.shape)
        }
        Op::Cast { x, dtype } => one(*dtype, &types(*x).shape),
        Op::Binary { x, y, .. } => {
            let (x, y) = (types(*x), types(*y));
            ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
            let shape = same_dtype_broadcast(x, y)?;
            one(x.dtype, &shape)
        }
        Op::Compare { x, y, .. } => {
            let (x, y) = (types(*x), types(*y));
            ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
            let shape = same_dtype_broadcast(x, y)?;
            one(DType::Bool, &shape)
        }
        Op::Logical { x, y, .. } => {
            let (x, y) = (types(*x), types(*y));
            ensure!(x.dtype == DType::Bool, "x is {x}, bool was expected");
            let shape = same_dtype_broadcast(x, y)?;
            one(DType::Bool, &shape)
        }
        Op::Select { cond, a, b } => {
            let (cond, a, b) = (types(*cond), types(*a), types(*b));
            ensure!(cond.dtype == DType::Bool, "cond is {cond}, bool was expected");
            let ab = same_dtype_broadcast(a, b)?;
            let shape = broadcast(&cond.shape, &ab)
                .ok_or_else(|| TypeError(format!("cond {cond} does not broadcast with {ab:?}")))?;
            one(a.dtype, &shape)
        }
        Op::Reduce { kind: _, x, axes, keep_dims } => {
            let x = types(*x);
            reduce(x, axes, *keep_dims).map(|shape| vec![TensorType::new(x.dtype, &shape)])
        }
        Op::Softmax { x, axis } => {
            let x = types(*x);
            float(x, "x")?;
            axis_in(*axis, x)?;
            one(x.dtype, &x.shape)
        }
        Op::Matmul { x, y, transpose_x, transpose_y } => {
            matmul(types(*x), types(*y), *transpose_x, *transpose_y).map(|t| vec![t])
        }
        Op::Linear { x, weight, bias } => {
            linear(types(*x), types(*weight), bias.map(&types)).map(|t| vec![t])
        }
        Op::Convolution(c) => {
            convolution::convolution(c, types(c.x), types(c.weight), c.bias.map(&types)).map(|t| vec![t])
        }
        Op::TransposedConvolution(c) => {
            convolution::transposed(c, types(c.x), types(c.weight), c.bias.map(&types)).map(|t| vec![t])
        }
        Op::Pool(p) => pool::pool(p, types(p.x)).map(|t| vec![t]),
        Op::Quantization(q) => quantize::quantization(q, types).map(|t| vec![t]),
        Op::Constexpr(c) => constexpr::constexpr(c, types),
        Op::Recurrent(r) => recurrent::recurrent(r, types),
        Op::State(StateOp::Read { state }) => Ok(vec![types(*state).clone()]),
        Op::State(StateOp::Write { state, data }) => {
            let (state, data) = (types(*state), types(*data));
            ensure!(data == state, "data is {data}, {state} was expected as of the state");
            Ok(vec![state.clone()])
        }
        Op::Einsum(e) => einsum::einsum(e, e.values.map(&types)).map(|t| vec![t]),
        Op::Normalisation(n) => normalisation::normalisation(n, types).map(|t| vec![t]),
        Op::Channelwise(c) => channelwise::channelwise(c, types).map(|t| vec![t]),
        Op::AlongAxis(a) => along_axis::along_axis(a, types(a.place().0)),
        Op::ScaledDotProductAttention { query, key, value, attn_mask } => {
            attention(types(*query), types(*key), types(*value), attn_mask.map(&types)).map(|t| vec![t])
        }
        Op::Gather { x, indices, axis } => {
            let (x, indices) = (types(*x), types(*indices));
            axis_in(*axis, x)?;
            index(indices)?;
            let shape = [&x.shape[..*axis], &indices.shape, &x.shape[axis + 1..]].concat();
            ensure!(shape.len() <= 5, "the result {shape:?} has more than 5 dimensions");
            one(x.dtype, &shape)
        }
        Op::GatherAlongAxis { x, indices, axis } => {
            let (x, indices) = (types(*x), types(*indices));
            along_axis(x, indices, *axis)?;
            one(x.dtype, &indices.shape)
        }
        Op::Scatter { data, indices, updates, axis, .. } => {
            let (data, indices, updates) = (types(*data), types(*indices), types(*updates));
            ensure!(data.dtype != DType::Bool, "data is {data}, a numeric type was expected");
            axis_in(*axis, data)?;
            index(indices)?;
            ensure!(indices.shape.len() == 1, "indices are {indices}, rank 1 was expected");
            let mut wanted = data.shape.clone();
            wanted[*axis] = indices.shape[0];
            ensure!(
                updates.dtype == data.dtype && updates.shape == wanted,
                "updates are {updates}, {} was expected",
                TensorType::new(data.dtype, &wanted)
            );
            one(data.dtype, &data.shape)
        }
        Op::ScatterAlongAxis { data, indices, updates, axis, .. } => {
            let (data, indices, updates) = (types(*data), types(*indices), types(*updates));
            ensure!(data.dtype != DType::Bool, "data is {data}, a numeric type was expected");
            along_axis(data, indices, *axis)?;
            ensure!(
                updates.dtype == data.dtype && updates.shape == indices.shape,
                "updates are {updates}, {} was expected",
                TensorType::new(data.dtype, &indices.shape)
            );
            one(data.dtype, &data.shape)
        }
        Op::Reshape { x, shape } => {
            let x = types(*x);
            ensure!(
                element_count(shape) == Some(x.len()),
                "x {x} has {} elements, shape {shape:?} has not",
                x.len()
            );
            one(x.dtype, shape)
        }
        Op::Transpose { x, perm } => {
            let x = types(*x);
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            ensure!(
                sorted.iter().copied().eq(0..x.shape.len()),
                "perm {perm:?} is no permutation of the {} dimensions of {x}",
                x.shape.len()
            );
            let shape: Vec<usize> = perm.iter().map(|&p| x.shape[p]).collect();
            one(x.dtype, &shape)
        }
        Op::Concat { values, axis } => concat(values, *axis, types).map(|t| vec![t]),
        Op::Split { x, axis, sizes } => {
            let x = types(*x);
            axis_in(*axis, x)?;
            ensure!(!sizes.is_empty() && !sizes.contains(&0), "split sizes {sizes:?} must be positive");
            ensure!(
                sizes.iter().try_fold(0usize, |sum, &s| sum.checked_add(s)) == Some(x.shape[*axis]),
                "split sizes {sizes:?} do not sum to dimension {axis} of {x}"
            );
            let piece = |&size: &usize| {
                let mut shape = x.shape.clone();
                shape[*axis] = size;
                TensorType::new(x.dtype, &shape)
            };
            Ok(sizes.iter().map(piece).collect())
        }
        Op::Slice(s) => slice::slice(s, types).map(|t| vec![t]),
        Op::Pad(p) => pad::pad(p, types(p.x)).map(|t| vec![t]),
        Op::Dimensions(d) => dimensions::dimensions(d, types).map(|t| vec![t]),
        Op::Rearrange(r) => rearrange::rearrange(r, types(r.x)).map(|t| vec![t]),
        Op::Join(j) => join::join(j, types).map(|t| vec![t]),
        Op::Make(m) => make::make(m, types).map(|t| vec![t]),
        Op::Index(i) => index::indexed(i, types).map(|t| vec![t]),
        Op::Sample(s) => sample::sample(s, types).map(|t| vec![t]),
        Op::Tile { x, reps } => {
            let x = types(*x);
            ensure!(reps.len() == x.shape.len() && !reps.contains(&0), "reps {reps:?} do not fit {x}");
            let shape: Vec<usize> = x.shape.iter().zip(reps).map(|(d, r)| d.saturating_mul(*r)).collect();
            one(x.dtype, &shape)
        }
        Op::Fill { shape, dtype, .. } => one(*dtype, shape),
        Op::Random(r) => {
            ensure!(r.dtype.is_float(), "the numbers are {}, a float type was expected", r.dtype);
            one(r.dtype, &r.shape)
        }
    }
}

fn unary(kind: Unary, x: &TensorType) -> Result<(), TypeError> {
    match kind.takes() {
        Takes::Any => {}
        Takes::Bool => ensure!(x.dtype == DType::Bool, "x is {x}, bool was expected"),
        Takes::Numeric => ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected"),
        Takes::Float => float(x, "x")?,
    }
    Ok(())
}

fn float(x: &TensorType, name: &str) -> Result<(), TypeError> {
    ensure!(x.dtype.is_float(), "{name} is {x}, a float type was expected");
    Ok(())
}

fn axis_in(axis: usize, x: &TensorType) -> Result<(), TypeError> {
    ensure!(axis < x.shape.len(), "axis {axis} is outside the {} dimensions of {x}", x.shape.len());
    Ok(())
}

fn index(indices: &TensorType) -> Result<(), TypeError> {
    ensure!(indices.dtype.is_int(), "indices are {indices}, an integer type was expected");
    Ok(())
}

fn same_dtype_broadcast(x: &TensorType, y: &TensorType) -> Result<Vec<usize>, TypeError> {
    ensure!(x.dtype == y.dtype, "the operands are {x} and {y}, one dtype was expected");
    broadcast(&x.shape, &y.shape).ok_or_else(|| TypeError(format!("{x} and {y} do not broadcast")))
}

fn reduce(x: &TensorType, axes: &[usize], keep_dims: bool) -> Result<Vec<usize>, TypeError> {
    ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
    ensure!(axes.is_sorted_by(|a, b| a < b), "axes {axes:?} are not sorted and distinct");
    ensure!(axes.iter().all(|&a| a < x.shape.len()), "axes {axes:?} are outside the dimensions of {x}");
    let keep = |(i, &d): (usize, &usize)| match (axes.contains(&i), keep_dims) {
        (false, _) => Some(d),
        (true, true) => Some(1),
        (true, false) => None,
    };
    Ok(x.shape.iter().enumerate().filter_map(keep).collect())
}

fn matmul(x: &TensorType, y: &TensorType, tx: bool, ty: bool) -> Result<TensorType, TypeError> {
    ensure!(
        x.dtype == y.dtype && x.dtype != DType::Bool,
        "the operands are {x} and {y}, one numeric dtype was expected"
    );
    ensure!(
        x.shape.len() >= 2 && y.shape.len() >= 2,
        "the operands are {x} and {y}, rank 2 or more was expected"
    );
    let split = |t: &TensorType, transposed: bool| {
        let (batch, last) = t.shape.split_at(t.shape.len() - 2);
        let (rows, cols) = if transposed { (last[1], last[0]) } else { (last[0], last[1]) };
        (batch.to_vec(), rows, cols)
    };
    let ((bx, m, kx), (by, ky, n)) = (split(x, tx), split(y, ty));
    ensure!(
        kx == ky,
        "x {x}{} and y {y}{} do not agree in the contracted dimension ({kx} and {ky})",
        if tx { " transposed" } else { "" },
        if ty { " transposed" } else { "" }
    );
    let mut shape = broadcast(&bx, &by)
        .ok_or_else(|| TypeError(format!("the batch dimensions of {x} and {y} do not broadcast")))?;
    shape.extend([m, n]);
    Ok(TensorType::new(x.dtype, &shape))
}

fn linear(x: &TensorType, weight: &TensorType, bias: Option<&TensorType>) -> Result<TensorType, TypeError> {
    ensure!(x.dtype != DType::Bool, "x is {x}, a numeric type was expected");
    ensure!(!x.shape.is_empty(), "x is {x}, rank 1 or more was expected");
    let inner = x.shape[x.shape.len() - 1];
    ensure!(
        weight.dtype == x.dtype && weight.shape.len() == 2 && weight.shape[1] == inner,
        "weight is {weight}, tensor<{}, [O, {inner}]> was expected for x {x}",
        x.dtype
    );
    let out = weight.shape[0];
    if let Some(bias) = bias {
        ensure!(
            *bias == TensorType::new(x.dtype, &[out]),
            "bias is {bias}, tensor<{}, [{out}]> was expected",
            x.dtype
        );
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("rank was checked") = out;
    Ok(TensorType::new(x.dtype, &shape))
}

fn attention(
    query: &TensorType,
    key: &TensorType,
    value: &TensorType,
    mask: Option<&TensorType>,
) -> Result<TensorType, TypeError> {
    float(query, "query")?;
    let rank = query.shape.len();
    ensure!(rank >= 3, "query is {query}, rank 3 or more was expected");
    ensure!(
        key.dtype == query.dtype && value.dtype == query.dtype,
        "query, key and value are {query}, {key} and {value}, one dtype was expected"
    );
    let batch = &query.shape[..rank - 2];
    ensure!(
        key.shape.len() == rank
            && value.shape.len() == rank
            && key.shape[..rank - 2] == *batch
            && value.shape[..rank - 2] == *batch,
        "query, key and value are {query}, {key} and {value}, equal batch dimensions were expected"
    );
    let (l, e, s) = (query.shape[rank - 2], query.shape[rank - 1], key.shape[rank - 2]);
    ensure!(key.shape[rank - 1] == e, "key {key} has not the width of query {query}");
    ensure!(value.shape[rank - 2] == s, "value {value} has not the length of key {key}");
    if let Some(mask) = mask {
        let scores = [batch, &[l, s]].concat();
        ensure!(
            mask.dtype == DType::Bool || mask.dtype == query.dtype,
            "attn_mask is {mask}, bool or {} was expected",
            query.dtype
        );
        ensure!(
            broadcast(&mask.shape, &scores).as_deref() == Some(&scores),
            "attn_mask {mask} does not broadcast to {scores:?}"
        );
    }
    Ok(TensorType::new(query.dtype, &[batch, &[l, value.shape[rank - 1]]].concat()))
}

fn along_axis(x: &TensorType, indices: &TensorType, axis: usize) -> Result<(), TypeError> {
    axis_in(axis, x)?;
    index(indices)?;
    ensure!(indices.shape.len() == x.shape.len(), "indices are {indices}, the rank of {x} was expected");
    let fits = |i: usize| i == axis || indices.shape[i] <= x.shape[i];
    ensure!((0..x.shape.len()).all(fits), "indices {indices} reach beyond {x}");
    Ok(())
}

fn concat<'a>(
    values: &[ValueId],
    axis: usize,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let Some((&first, rest)) = values.split_first() else {
        return Err(TypeError("values is empty, one operand or more was expected".into()));
    };
    let first = types(first);
    axis_in(axis, first)?;
    let mut result = first.clone();
    for &v in rest {
        let other = types(v);
        let agree = other.dtype == first.dtype
            && other.shape.len() == first.shape.len()
            && (0..first.shape.len()).all(|i| i == axis || other.shape[i] == first.shape[i]);
        ensure!(agree, "{first} and {other} cannot be joined along axis {axis}");
        result.shape[axis] = result.shape[axis].saturating_add(other.shape[axis]);
    }
    Ok(result)
}
