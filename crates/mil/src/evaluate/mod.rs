//! The reference evaluator: obviously right, slow, and the yardstick for every engine and pass.
//!
//! Values are held as `f64`. Each op is computed in `f64` (integer ops exactly, wrapping in their type) and each element of
//! a result is rounded once to its declared type, ties to even. Nothing here is shared with the kernels of an engine.
//!
//! Edge cases:
//! - `maximum`, `minimum`, `reduce_max` and `reduce_min` give NaN if an operand is NaN;
//! - `softmax` of a row that is −∞ throughout is NaN, and so is a row of `scaled_dot_product_attention` in which the mask
//!   hides every position; `reduce_log_sum_exp` of such a row is −∞;
//! - integer results truncate toward zero; `real_div`, `floor_div` and `mod` of an integer by zero give 0;
//! - a `cast` to an integer truncates toward zero and wraps; beyond 64 bits it saturates first, NaN becomes 0;
//! - orders put NaN last, extremes and their indices are those of the first NaN;
//! - a negative index counts from the end of its axis; an index outside it is an error.

mod activation;
mod along_axis;
mod constexpr;
mod convolution;
mod elementwise;
mod index;
mod layout;
mod make;
mod movement;
mod normalisation;
mod pool;
mod product;
mod quantize;
mod rearrange;
mod recurrent;
mod reduction;
mod sample;
mod slice;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arcane_tensor::{DType, Tensor, round_to};

use crate::op::slice::Position;
use crate::{
    Function, Index, Op, Operation, Sample, Slice, StateOp, Strictness, TensorType, ValueId, VerifyError,
    verify,
};

/// Why a function cannot be evaluated on the given inputs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// The function breaks an invariant.
    #[error(transparent)]
    Function(#[from] VerifyError),
    /// A parameter has no input.
    #[error("there is no input for parameter `{name}`, {expected} was expected")]
    Missing {
        /// The parameter.
        name: String,
        /// Its type.
        expected: TensorType,
    },
    /// An input belongs to no parameter.
    #[error("input `{name}`, {found}, is no parameter of the function")]
    Extra {
        /// The input.
        name: String,
        /// Its type.
        found: TensorType,
    },
    /// An input has another type than its parameter.
    #[error("input `{name}` is {found}, {expected} was expected")]
    Type {
        /// The parameter.
        name: String,
        /// Its type.
        expected: TensorType,
        /// The input's type.
        found: TensorType,
    },
    /// An input holds a 64-bit integer that `f64` does not.
    #[error("input `{name}` holds an integer beyond 2^53, which the reference evaluator cannot hold exactly")]
    Inexact {
        /// The parameter.
        name: String,
    },
    /// An op has no result for the values that reach it.
    #[error("{op} at `{path}`: {source}")]
    Op {
        /// The op's name.
        op: &'static str,
        /// The path of its first result.
        path: String,
        /// What is wrong.
        source: ValueError,
    },
}

/// Why an op has no result for the values of its operands.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// An index is outside its axis.
    #[error("index {index} is outside an axis of length {length}")]
    Index {
        /// The index.
        index: i64,
        /// The axis's length.
        length: usize,
    },
    /// A reduction without a neutral element has nothing to reduce.
    #[error("there is nothing to reduce over")]
    Empty,
    /// Sparse data do not have a value for each 1 of their mask.
    #[error("the mask has {ones} ones and there are {values} nonzero values")]
    Mask {
        /// Ones of the mask.
        ones: usize,
        /// Values.
        values: usize,
    },
    /// A 64-bit integer that `f64` does not hold.
    #[error("an integer beyond 2^53, which the reference evaluator cannot hold exactly")]
    Inexact,
}

/// A value of the function: its type and its elements, all of them values of that type.
struct Value {
    ty: TensorType,
    data: Vec<f64>,
}

/// Evaluates a function: `inputs` by parameter name, the result by output name.
///
/// # Errors
/// [`EvaluateError`] if the inputs do not fit the parameters or an op has no result for them.
pub fn evaluate(
    function: &Function,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, EvaluateError> {
    let values = run(function, inputs)?;
    let outputs = function.outputs().iter();
    Ok(outputs.map(|o| (o.name.clone(), tensor(&values[o.value.index()]))).collect())
}

/// Evaluates a function and gives every value, indexed as [`Function::values`].
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_values(
    function: &Function,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<Vec<Tensor>, EvaluateError> {
    Ok(run(function, inputs)?.iter().map(tensor).collect())
}

/// The results of one op of a function, whose operands are given except where it reads their types alone; `None` if it has no
/// result for them.
pub(crate) fn evaluate_op(
    function: &Function,
    op: &Op,
    results: &[ValueId],
    operands: &HashMap<ValueId, Arc<Tensor>>,
) -> Option<Vec<Tensor>> {
    let mut values: Vec<Option<Value>> = Vec::new();
    for v in op.operands() {
        if values.len() <= v.index() {
            values.resize_with(v.index() + 1, || None);
        }
        let data = operands.get(&v).map_or(Vec::new(), |tensor| tensor.to_f64s());
        values[v.index()] = Some(Value { ty: function.ty(v).clone(), data });
    }
    let operation = Operation { op: op.clone(), results: results.to_vec() };
    let computed = apply(function, &operation, &values).ok()?;
    Some(computed.iter().map(tensor).collect())
}

fn run(function: &Function, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Value>, EvaluateError> {
    verify(function, Strictness::Open)?;
    let mut values: Vec<Option<Value>> = function.values().iter().map(|_| None).collect();
    bind(function, inputs, &mut values)?;
    for operation in function.operations() {
        let results = apply(function, operation, &values).map_err(|source| EvaluateError::Op {
            op: operation.op.name(),
            path: operation.results.first().map_or(String::new(), |&r| function.value(r).path.clone()),
            source,
        })?;
        for (&id, value) in operation.results.iter().zip(results) {
            values[id.index()] = Some(value);
        }
    }
    Ok(values.into_iter().map(|v| v.expect("the verifier saw every value defined")).collect())
}

fn bind(
    function: &Function,
    inputs: &BTreeMap<String, Tensor>,
    values: &mut [Option<Value>],
) -> Result<(), EvaluateError> {
    for p in function.parameters() {
        let expected = function.ty(p.value);
        let Some(input) = inputs.get(&p.name) else {
            return Err(EvaluateError::Missing { name: p.name.clone(), expected: expected.clone() });
        };
        let found = TensorType::new(input.dtype(), input.shape());
        if found != *expected {
            return Err(EvaluateError::Type { name: p.name.clone(), expected: expected.clone(), found });
        }
        let value = Value { ty: found, data: input.to_f64s() };
        if !is_exact(&value) {
            return Err(EvaluateError::Inexact { name: p.name.clone() });
        }
        values[p.value.index()] = Some(value);
    }
    match inputs.iter().find(|(name, _)| function.parameter(name).is_none()) {
        Some((name, input)) => Err(EvaluateError::Extra {
            name: name.clone(),
            found: TensorType::new(input.dtype(), input.shape()),
        }),
        None => Ok(()),
    }
}

fn tensor(value: &Value) -> Tensor {
    Tensor::from_f64s(value.ty.dtype, &value.ty.shape, &value.data).expect("a value has its shape's elements")
}

/// Computes an op and rounds its results to their declared types.
fn apply(
    function: &Function,
    operation: &Operation,
    values: &[Option<Value>],
) -> Result<Vec<Value>, ValueError> {
    let get = |v: ValueId| values[v.index()].as_ref().expect("operands are defined before their use");
    let types: Vec<&TensorType> = operation.results.iter().map(|&r| function.ty(r)).collect();
    let computed = compute(&operation.op, get, types[0])?;
    let mut results = Vec::with_capacity(types.len());
    for (ty, data) in types.into_iter().zip(computed) {
        assert_eq!(data.len(), ty.len(), "{} gives as many elements as its type has", operation.op.name());
        let data = data.into_iter().map(|x| round_to(ty.dtype, x)).collect();
        let value = Value { ty: ty.clone(), data };
        if !is_exact(&value) {
            return Err(ValueError::Inexact);
        }
        results.push(value);
    }
    Ok(results)
}

/// The elements of each result before rounding. `ty` is the first result's type.
fn compute<'a>(
    op: &Op,
    get: impl Fn(ValueId) -> &'a Value,
    ty: &TensorType,
) -> Result<Vec<Vec<f64>>, ValueError> {
    let one = match op {
        Op::Const(tensor) => tensor.to_f64s(),
        Op::Fill { value, .. } => vec![*value; ty.len()],
        Op::Random(r) => (0..ty.len()).map(|i| r.element(i)).collect(),
        Op::Unary { kind, x } => elementwise::unary(*kind, get(*x)),
        Op::Cast { x, dtype } => elementwise::cast(get(*x), *dtype),
        Op::Reshape { x, .. } => get(*x).data.clone(),
        Op::Dimensions(d) => get(d.x()).data.clone(),
        Op::Binary { kind, x, y } => elementwise::binary(*kind, get(*x), get(*y), ty),
        Op::Compare { kind, x, y } => elementwise::compare(*kind, get(*x), get(*y), ty),
        Op::Logical { kind, x, y } => elementwise::logical(*kind, get(*x), get(*y), ty),
        Op::Select { cond, a, b } => elementwise::select(get(*cond), get(*a), get(*b), ty),
        Op::Reduce { kind, x, axes, keep_dims: _ } => reduction::reduce(*kind, get(*x), axes)?,
        Op::Softmax { x, axis } => reduction::softmax(get(*x), *axis),
        Op::Matmul { x, y, transpose_x, transpose_y } => {
            product::matmul(get(*x), get(*y), *transpose_x, *transpose_y, ty)
        }
        Op::Linear { x, weight, bias } => product::linear(get(*x), get(*weight), bias.map(get)),
        Op::Convolution(c) => convolution::convolution(c, get(c.x), get(c.weight), c.bias.map(get), ty),
        Op::TransposedConvolution(c) => {
            convolution::transposed(c, get(c.x), get(c.weight), c.bias.map(get), ty)
        }
        Op::Pool(p) => pool::pool(p, get(p.x), ty),
        Op::Quantization(q) => {
            let (scale, zero_point) = q.scale();
            quantize::quantization(q, get(q.x()), get(scale), zero_point.map(get))
        }
        Op::Constexpr(c) => return constexpr::constexpr(c, get),
        Op::Recurrent(r) => return Ok(recurrent::recurrent(r, get)),
        Op::State(StateOp::Read { state }) => get(*state).data.clone(),
        Op::State(StateOp::Write { data, .. }) => get(*data).data.clone(),
        Op::Einsum(e) => product::einsum(e.values.map(get), ty),
        Op::Normalisation(n) => normalisation::normalisation(n, get),
        Op::Channelwise(c) => normalisation::channelwise(c, get),
        Op::AlongAxis(a) => return Ok(along_axis::along_axis(a, get(a.place().0))),
        Op::ScaledDotProductAttention { query, key, value, attn_mask } => {
            product::attention(get(*query), get(*key), get(*value), attn_mask.map(get))
        }
        Op::Gather { x, indices, axis } => movement::gather(get(*x), get(*indices), *axis, ty)?,
        Op::GatherAlongAxis { x, indices, axis } => {
            movement::gather_along_axis(get(*x), get(*indices), *axis)?
        }
        Op::Scatter { data, indices, updates, axis, mode } => {
            movement::scatter(get(*data), get(*indices), get(*updates), *axis, *mode)?
        }
        Op::ScatterAlongAxis { data, indices, updates, axis, mode } => {
            movement::scatter_along_axis(get(*data), get(*indices), get(*updates), *axis, *mode)?
        }
        Op::Slice(s) => return slice(s, get, ty).map(|data| vec![data]),
        Op::Pad(p) => slice::pad(p, get(p.x), ty),
        Op::Rearrange(r) => rearrange::rearrange(r, get(r.x), ty),
        Op::Join(j) => rearrange::join(j, &j.values.iter().map(|&v| get(v)).collect::<Vec<_>>(), ty),
        Op::Make(m) => make::make(m, op.operands().first().map(|&v| get(v)), ty),
        Op::Index(i) => indexed(i, get, ty)?,
        Op::Sample(s) => sampled(s, get, ty)?,
        Op::Transpose { x, perm } => movement::transpose(get(*x), perm),
        Op::Concat { values, axis } => {
            let values: Vec<&Value> = values.iter().map(|&v| get(v)).collect();
            movement::concat(&values, *axis)
        }
        Op::Split { x, axis, sizes } => return Ok(movement::split(get(*x), *axis, sizes)),
        Op::Tile { x, reps } => movement::tile(get(*x), reps),
    };
    Ok(vec![one])
}

fn indexed<'a>(
    op: &Index,
    get: impl Fn(ValueId) -> &'a Value,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    match op {
        Index::GatherBatched { x, indices, axis, batch_dims } => {
            index::gather_batched(get(*x), get(*indices), *axis, *batch_dims, ty)
        }
        Index::GatherNd { x, indices, batch_dims } => {
            index::gather_nd(get(*x), get(*indices), *batch_dims, ty)
        }
        Index::ScatterNd { data, indices, updates, mode } => {
            index::scatter_nd(get(*data), get(*indices), get(*updates), *mode)
        }
        Index::ReverseSequence { x, lengths, seq_axis, batch_axis } => {
            index::reverse_sequence(get(*x), get(*lengths), *seq_axis, *batch_axis)
        }
    }
}

fn sampled<'a>(
    op: &Sample,
    get: impl Fn(ValueId) -> &'a Value,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let x = get(op.x());
    match op {
        Sample::CropResize { boxes, box_indices, .. } => {
            sample::crop_resize(op, x, get(*boxes), box_indices.map(get), ty)
        }
        Sample::Affine { matrix, .. } => Ok(sample::affine(x, get(*matrix), ty)),
        Sample::Resample { coordinates, .. } => Ok(sample::resample(op, x, get(*coordinates), ty)),
        Sample::Resize { .. } | Sample::ResizeBilinear { .. } | Sample::UpsampleBilinear { .. } => {
            let (interpolation, grid) = op.grid().expect("each axis is sampled on its own");
            Ok(sample::resized(x, interpolation, grid, ty))
        }
    }
}

fn slice<'a>(
    op: &Slice,
    get: impl Fn(ValueId) -> &'a Value,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let (x, update, begin) = match op {
        Slice::ByIndex { x, range } => (x, None, &range.begin),
        Slice::BySize { x, begin, .. } => (x, None, begin),
        Slice::Update { x, update, range } => (x, Some(get(*update)), &range.begin),
    };
    let begin = match begin {
        Position::Known(_) => None,
        Position::Value(v) => Some(get(*v)),
    };
    slice::slice(op, get(*x), update, begin, ty)
}

/// An integer in two's complement of its type's width.
fn wrap(dtype: DType, x: i128) -> f64 {
    match dtype {
        DType::I8 => f64::from(x as i8),
        DType::I16 => f64::from(x as i16),
        DType::I32 => f64::from(x as i32),
        DType::I64 => x as i64 as f64,
        DType::U8 => f64::from(x as u8),
        DType::U16 => f64::from(x as u16),
        DType::U32 => f64::from(x as u32),
        DType::U64 => x as u64 as f64,
        DType::Bool | DType::F16 | DType::Bf16 | DType::F32 | DType::F64 => {
            unreachable!("{dtype} is no integer type")
        }
        DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
            unreachable!("the verifier keeps {dtype} out of arithmetic")
        }
    }
}

fn is_exact(value: &Value) -> bool {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    !matches!(value.ty.dtype, DType::I64 | DType::U64) || value.data.iter().all(|x| x.abs() < LIMIT)
}
