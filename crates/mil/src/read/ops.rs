//! The ops by name: their parameters, the types these may have, and their defaults (coremltools 9.0, opsets ios15 to ios18).

mod along_axis;
mod convolution;
mod elementwise;
mod normalisation;
mod random;

use arcane_tensor::DType;

use super::Fault;
use super::arguments::{Arguments, Class, Found, from_front};
use super::lexer::shown;
use super::syntax::MAX_RANK;
use crate::{Binary, ChannelActivation, Compare, Einsum, Logical, Op, Opset, Reduce, ScatterMode, ValueId};

const BINARY: [Binary; 9] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::RealDiv,
    Binary::FloorDiv,
    Binary::Mod,
    Binary::Pow,
    Binary::Maximum,
    Binary::Minimum,
];
const COMPARE: [Compare; 6] = [
    Compare::Equal,
    Compare::NotEqual,
    Compare::Less,
    Compare::LessEqual,
    Compare::Greater,
    Compare::GreaterEqual,
];
const LOGICAL: [Logical; 3] = [Logical::And, Logical::Or, Logical::Xor];
const REDUCE: [Reduce; 10] = [
    Reduce::Sum,
    Reduce::Mean,
    Reduce::Max,
    Reduce::Min,
    Reduce::Prod,
    Reduce::SumSquare,
    Reduce::L1Norm,
    Reduce::L2Norm,
    Reduce::LogSum,
    Reduce::LogSumExp,
];
const SCATTER: [ScatterMode; 2] = [ScatterMode::Add, ScatterMode::Update];
const CAST: [DType; 8] =
    [DType::F16, DType::F32, DType::I32, DType::Bool, DType::I8, DType::U8, DType::I16, DType::U16];

/// The ops of MIL that have no counterpart here, for a message that knows them.
const OTHERS: &str = " add_n affine avg_pool band_part batch_to_space classify cond conv_quantized conv_transpose \
    constexpr_affine_dequantize constexpr_blockwise_shift_scale constexpr_cast constexpr_lut_to_dense \
    constexpr_lut_to_sparse constexpr_sparse_blockwise_shift_scale constexpr_sparse_to_dense crop \
    crop_resize depth_to_space dequantize expand_dims fill_like flatten2d gather_nd gru l2_pool list_gather \
    list_length list_read list_scatter list_write lstm make_list max_pool non_maximum_suppression non_zero \
    one_hot pad pixel_shuffle pixel_unshuffle quantize random_categorical \
    range_1d read_state resample reshape_like resize resize_bilinear resize_nearest_neighbor \
    reverse reverse_sequence rnn scatter_nd shape slice_by_index slice_by_size slice_update sliding_windows \
    space_to_batch space_to_depth squeeze stack tensor_buffer_to_tensor tensor_to_tensor_buffer \
    upsample_bilinear upsample_nearest_neighbor while_loop write_state ";

type Built = Result<Op, Fault>;

/// The op that a statement spells.
pub(super) fn op(a: &mut Arguments<'_, '_>) -> Built {
    use Class::{Bool, Float, Mask, Numeric, Plain, Wide, WideNumeric};
    let name = a.op();
    if let Some(op) = elementwise::unary(a)? {
        return Ok(op);
    }
    if let Some(kind) = BINARY.into_iter().find(|kind| kind.name() == name) {
        return Ok(Op::Binary { kind, x: a.operand("x", Numeric)?, y: a.operand("y", Numeric)? });
    }
    if let Some(kind) = COMPARE.into_iter().find(|kind| kind.name() == name) {
        return Ok(Op::Compare { kind, x: a.operand("x", Numeric)?, y: a.operand("y", Numeric)? });
    }
    if let Some(kind) = LOGICAL.into_iter().find(|kind| kind.name() == name) {
        return Ok(Op::Logical { kind, x: a.operand("x", Bool)?, y: a.operand("y", Bool)? });
    }
    if let Some(kind) = REDUCE.into_iter().find(|kind| kind.name() == name) {
        return reduce(a, kind);
    }
    match name {
        "cast" => cast(a),
        "select" => {
            let cond = a.operand("cond", Bool)?;
            Ok(Op::Select { cond, a: a.operand("a", Plain)?, b: a.operand("b", Plain)? })
        }
        "softmax" => {
            let x = a.operand("x", Float)?;
            Ok(Op::Softmax { x, axis: a.axis("axis", x, Some(-1))? })
        }
        "matmul" => matmul(a),
        "linear" => linear(a),
        "conv" => convolution::convolution(a),
        "einsum" => einsum(a),
        "prelu" => elementwise::channelwise(a, ChannelActivation::Prelu),
        "softplus_parametric" => elementwise::channelwise(a, ChannelActivation::Softplus),
        "batch_norm" | "instance_norm" | "layer_norm" | "l2_norm" | "local_response_norm" => {
            normalisation::normalisation(a)
        }
        "reduce_argmax" => along_axis::extreme(a, true),
        "reduce_argmin" => along_axis::extreme(a, false),
        "argsort" => along_axis::argsort(a),
        "random_uniform" | "random_normal" | "random_bernoulli" => random::random(a),
        "topk" => along_axis::topk(a),
        "cumsum" => along_axis::cumsum(a),
        "scaled_dot_product_attention" => {
            since(a, Opset::Ios18)?;
            let query = a.operand("query", Float)?;
            let (key, value) = (a.operand("key", Float)?, a.operand("value", Float)?);
            let mask = a.maybe_operand("attn_mask", Mask)?;
            let dtype = a.ty(query).dtype;
            let attn_mask = mask.map(|m| if a.ty(m).dtype.is_float() { a.converted(m, dtype) } else { m });
            Ok(Op::ScaledDotProductAttention { query, key, value, attn_mask })
        }
        "gather" => {
            let (x, indices, axis) = indexed(a, "x", WideNumeric)?;
            if a.opset() >= Opset::Ios16
                && let Some(Found { value: n @ (1.. | ..=-1), at }) = a.int("batch_dims")?
            {
                return Err(a.refuse("batch_dims", &n.to_string(), at, "0"));
            }
            Ok(Op::Gather { x, indices, axis })
        }
        "gather_along_axis" => {
            let (x, indices, axis) = indexed(a, "x", WideNumeric)?;
            Ok(Op::GatherAlongAxis { x, indices, axis })
        }
        "scatter" => {
            let (data, indices, axis) = indexed(a, "data", Numeric)?;
            let updates = a.operand("updates", Numeric)?;
            Ok(Op::Scatter { data, indices, updates, axis, mode: scatter_mode(a)? })
        }
        "scatter_along_axis" => {
            let (data, indices, axis) = indexed(a, "data", Numeric)?;
            let updates = a.operand("updates", Numeric)?;
            Ok(Op::ScatterAlongAxis { data, indices, updates, axis, mode: scatter_mode(a)? })
        }
        "reshape" => reshape(a),
        "transpose" => {
            let x = a.operand("x", Wide)?;
            let Found { value, at } = a.required_ints("perm", MAX_RANK)?;
            let axes = value.into_iter().map(|p| from_front(p, a.ty(x), "perm", at));
            Ok(Op::Transpose { x, perm: axes.collect::<Result<_, _>>()? })
        }
        "concat" => {
            let values = a.operands("values", Wide)?;
            let Some(&first) = values.first() else {
                return Err(a.fault("values is empty", "one operand or more"));
            };
            let axis = a.axis("axis", first, None)?;
            if let Some(Found { value: true, at }) = a.flag("interleave")? {
                return Err(a.refuse("interleave", "true", at, "false"));
            }
            Ok(Op::Concat { values, axis })
        }
        "split" => split(a),
        "tile" => {
            let x = a.operand("x", Plain)?;
            let Found { value, at } = a.required_ints("reps", MAX_RANK)?;
            Ok(Op::Tile { x, reps: sizes(&value, 1, "reps", at)? })
        }
        "fill" => {
            let Found { value: shape, at } = a.required_ints("shape", MAX_RANK)?;
            let (dtype, value) = a.number("value")?.map_or((DType::F32, 0.0), |found| found.value);
            Ok(Op::Fill { shape: sizes(&shape, 0, "shape", at)?, dtype, value })
        }
        _ if OTHERS.contains(&format!(" {name} ")) => {
            Err(Fault::new(a.at(), format!("op `{name}` is not supported yet"), "one that this version has"))
        }
        _ => Err(Fault::new(a.at(), format!("unknown op {}", shown(name)), "an op of MIL")),
    }
}

/// Refuses an op in a function of an older opset.
fn since(a: &Arguments<'_, '_>, opset: Opset) -> Result<(), Fault> {
    if a.opset() >= opset {
        return Ok(());
    }
    Err(a.fault(format!("the function is {}", a.opset().name()), format!("{} or later", opset.name())))
}

fn flag(a: &mut Arguments<'_, '_>, name: &'static str) -> Result<bool, Fault> {
    Ok(a.flag(name)?.is_some_and(|found| found.value))
}

fn reduce(a: &mut Arguments<'_, '_>, kind: Reduce) -> Built {
    let x = a.operand("x", Class::Numeric)?;
    let axes = axes(a, x)?;
    Ok(Op::Reduce { kind, x, axes, keep_dims: flag(a, "keep_dims")? })
}

/// `axes` of x, sorted; by default all.
fn axes(a: &mut Arguments<'_, '_>, x: ValueId) -> Result<Vec<usize>, Fault> {
    let Some(Found { value, at }) = a.ints("axes", MAX_RANK)? else {
        return Ok((0..a.ty(x).shape.len()).collect());
    };
    let axes = value.iter().map(|&axis| from_front(axis, a.ty(x), "axes", at));
    let mut axes: Vec<usize> = axes.collect::<Result<_, _>>()?;
    axes.sort_unstable();
    if let Some([axis, _]) = axes.array_windows().find(|[a, b]| a == b) {
        return Err(Fault::new(at, format!("axes has axis {axis} twice"), "each once"));
    }
    Ok(axes)
}

/// A contraction of two operands.
fn einsum(a: &mut Arguments<'_, '_>) -> Built {
    let values = a.operands("values", Class::Numeric)?;
    let Found { value: equation, .. } = a.required_text("equation")?;
    let Ok(values) = <[ValueId; 2]>::try_from(values.as_slice()) else {
        return Err(a.fault(format!("values has {} operands", values.len()), "two"));
    };
    Ok(Op::Einsum(Einsum { values, equation }))
}

fn cast(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let Found { value: name, at } = a.required_text("dtype")?;
    let Some(dtype) = CAST.into_iter().find(|d| d.name() == name) else {
        return Err(Fault::new(
            at,
            format!("dtype is {}", shown(&name)),
            "a type such as fp16, int32 or bool",
        ));
    };
    Class::Wide.admit(dtype, a.opset(), "dtype", at)?;
    Ok(Op::Cast { x, dtype })
}

/// From ios17 one operand may be a constant of another type than the other. A vector is a matrix of one row (x) or column
/// (y), which the result then lacks; transposing it does nothing.
fn matmul(a: &mut Arguments<'_, '_>) -> Built {
    let (mut x, mut y) = (a.operand("x", Class::Numeric)?, a.operand("y", Class::Numeric)?);
    if a.opset() >= Opset::Ios17 {
        if a.is_constant(y) {
            y = a.converted(y, a.ty(x).dtype);
        } else if a.is_constant(x) {
            x = a.converted(x, a.ty(y).dtype);
        }
    }
    let (transpose_x, transpose_y) = (flag(a, "transpose_x")?, flag(a, "transpose_y")?);
    let row = as_matrix(a, &mut x, |k| [1, k])?;
    let column = as_matrix(a, &mut y, |k| [k, 1])?;
    let product = Op::Matmul { x, y, transpose_x: transpose_x && !row, transpose_y: transpose_y && !column };
    if !row && !column {
        return Ok(product);
    }
    let x = a.intermediate(product)?;
    let mut shape = a.ty(x).shape.clone();
    let rank = shape.len();
    if row {
        shape.remove(rank - 2);
    }
    if column {
        shape.pop();
    }
    Ok(Op::Reshape { x, shape })
}

/// Reshapes a vector, and says whether it was one.
fn as_matrix(
    a: &mut Arguments<'_, '_>,
    v: &mut ValueId,
    shape: impl Fn(usize) -> [usize; 2],
) -> Result<bool, Fault> {
    let &[length] = a.ty(*v).shape.as_slice() else { return Ok(false) };
    *v = a.intermediate(Op::Reshape { x: *v, shape: shape(length).to_vec() })?;
    Ok(true)
}

/// From ios17 weight and bias may have other types than x.
fn linear(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Numeric)?;
    let mut weight = a.constant_operand("weight", Class::Numeric)?;
    let mut bias = a.maybe_constant_operand("bias", Class::Numeric)?;
    if a.opset() >= Opset::Ios17 {
        let dtype = a.ty(x).dtype;
        weight = a.converted(weight, dtype);
        bias = bias.map(|b| a.converted(b, dtype));
    }
    Ok(Op::Linear { x, weight, bias })
}

/// What ops that index along an axis share: what they index, the indices and the axis.
fn indexed(
    a: &mut Arguments<'_, '_>,
    x: &'static str,
    class: Class,
) -> Result<(ValueId, ValueId, usize), Fault> {
    let x = a.operand(x, class)?;
    let indices = a.operand("indices", Class::Index)?;
    if a.opset() >= Opset::Ios17 {
        a.flag("validate_indices")?;
    }
    Ok((x, indices, a.axis("axis", x, Some(0))?))
}

fn scatter_mode(a: &mut Arguments<'_, '_>) -> Result<ScatterMode, Fault> {
    let Some(Found { value: mode, at }) = a.text("mode")? else { return Ok(ScatterMode::Add) };
    if let Some(known) = SCATTER.into_iter().find(|m| m.name() == mode) {
        return Ok(known);
    }
    if ["sub", "mul", "div", "max", "min"].contains(&mode.as_str()) {
        return Err(a.refuse("mode", &format!("{mode:?}"), at, "\"add\" or \"update\""));
    }
    Err(Fault::new(at, format!("mode is {}", shown(&mode)), "a mode such as add or update"))
}

/// The shape of a reshape: one −1 takes what is left, a 0 keeps a dimension: of the same place where the ranks are equal,
/// else (from ios17) counted from the right. A tensor without elements has its dimensions of 0 spelled as they are.
fn reshape(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let Found { value: wanted, at } = a.required_ints("shape", MAX_RANK)?;
    let (from, count) = (a.ty(x).shape.clone(), a.ty(x).len());
    let literal = count == 0 && !wanted.contains(&-1);
    if !literal && wanted.contains(&0) && wanted.len() != from.len() && a.opset() < Opset::Ios17 {
        return Err(Fault::new(at, "shape has a 0 and another rank than x", "ios17 or a dimension"));
    }
    let mut shape = Vec::new();
    let mut free = None;
    for (i, &dim) in wanted.iter().enumerate() {
        shape.push(match dim {
            0 if !literal => {
                let kept = (i + from.len()).checked_sub(wanted.len());
                kept.map_or(1, |k| from[k])
            }
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            _ => sizes(&[dim], 0, "shape", at)?[0],
        });
    }
    if let Some(i) = free {
        let others = arcane_tensor::element_count(&shape).unwrap_or(0);
        if others == 0 || count % others != 0 {
            let what = format!("shape {wanted:?} does not divide the {count} elements of x");
            return Err(Fault::new(at, what, "a shape that does"));
        }
        shape[i] = count / others;
    }
    Ok(Op::Reshape { x, shape })
}

fn split(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Plain)?;
    let axis = a.axis("axis", x, None)?;
    let (length, n) = (a.ty(x).shape[axis], a.n_results());
    let lengths = a.ints("split_sizes", n)?;
    let number = a.int("num_splits")?;
    if let Some(Found { value, at }) = number
        && usize::try_from(value) != Ok(n)
    {
        return Err(Fault::new(at, format!("num_splits is {value}"), format!("{n}, the number of results")));
    }
    let sizes = match (lengths, number.is_some()) {
        (Some(Found { value, at }), _) => sizes(&value, 1, "split_sizes", at)?,
        (None, true) if n > 0 && length % n == 0 => vec![length / n; n],
        (None, true) => {
            return Err(a.fault(format!("{n} parts of dimension {axis}, {length} long, are not equal"), ""));
        }
        (None, false) => {
            return Err(a.fault("neither num_splits nor split_sizes is given", "one of them"));
        }
    };
    Ok(Op::Split { x, axis, sizes })
}

/// Numbers as sizes of at least `least`.
fn sizes(values: &[i64], least: i64, name: &str, at: usize) -> Result<Vec<usize>, Fault> {
    let size = |&v: &i64| match usize::try_from(v) {
        Ok(size) if v >= least => Ok(size),
        _ => Err(Fault::new(at, format!("{name} has {v}"), format!("{least} or more"))),
    };
    values.iter().map(size).collect()
}
