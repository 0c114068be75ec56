//! The ops by name: their parameters, the types these may have, and their defaults (coremltools 9.0, opsets ios15 to ios18).

mod along_axis;
mod constexpr;
mod convolution;
mod dimensions;
mod elementwise;
mod index;
mod make;
mod normalisation;
mod pad;
mod pool;
mod quantize;
mod random;
mod rearrange;
mod recurrent;
mod sample;
mod slice;
mod state;

use arcane_tensor::DType;

use super::Fault;
use super::arguments::{Arguments, Class, Found, from_front};
use super::lexer::shown;
use super::syntax::MAX_RANK;
use crate::{
    Binary, ChannelActivation, Compare, Einsum, Logical, Make, Op, Opset, Rearrangement, Reduce, ValueId,
};

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
const CAST: [DType; 8] =
    [DType::F16, DType::F32, DType::I32, DType::Bool, DType::I8, DType::U8, DType::I16, DType::U16];

/// The ops of MIL that have no counterpart here, for a message that knows them.
const OTHERS: &str = " add_n classify cond conv_quantized list_gather list_length list_read list_scatter list_write \
    make_list non_maximum_suppression random_categorical tensor_buffer_to_tensor tensor_to_tensor_buffer while_loop ";

type Built = Result<Op, Fault>;

/// The op that a statement spells.
pub(super) fn op(a: &mut Arguments<'_, '_>) -> Built {
    use Class::{Bool, Float, Mask, Numeric, Plain};
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
        "conv_transpose" => convolution::transposed(a),
        "max_pool" | "avg_pool" | "l2_pool" => pool::pool(a),
        "quantize" | "dequantize" => quantize::quantization(a),
        "rnn" | "gru" | "lstm" => recurrent::recurrent(a),
        "read_state" | "write_state" => state::state(a),
        "constexpr_affine_dequantize"
        | "constexpr_blockwise_shift_scale"
        | "constexpr_cast"
        | "constexpr_lut_to_dense"
        | "constexpr_lut_to_sparse"
        | "constexpr_sparse_blockwise_shift_scale"
        | "constexpr_sparse_to_dense" => constexpr::constexpr(a),
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
        "slice_by_index" => slice::by_index(a),
        "slice_by_size" => slice::by_size(a),
        "slice_update" => slice::update(a),
        "pad" => pad::pad(a),
        _ => moved(a),
    }
}

/// The ops that move elements, and those that make arrays.
fn moved(a: &mut Arguments<'_, '_>) -> Built {
    use Rearrangement::{DepthToSpace, PixelShuffle, SpaceToDepth};
    match a.op() {
        "gather" => index::gather(a),
        "gather_along_axis" => index::gather_along_axis(a),
        "gather_nd" => index::gather_nd(a),
        "scatter" => index::scatter(a, false),
        "scatter_along_axis" => index::scatter(a, true),
        "scatter_nd" => index::scatter_nd(a),
        "reverse_sequence" => index::reverse_sequence(a),
        "expand_dims" => dimensions::expand(a),
        "squeeze" => dimensions::squeeze(a),
        "flatten2d" => dimensions::flatten(a),
        "reshape_like" => dimensions::like(a),
        "concat" => make::concat(a),
        "stack" => make::stack(a),
        "shape" => Ok(Op::Make(Make::Shape { x: a.operand("x", Class::Wide)? })),
        "fill" => make::fill(a),
        "fill_like" => make::fill_like(a),
        "range_1d" => make::range(a),
        "one_hot" => make::one_hot(a),
        "non_zero" => make::non_zero(a),
        "reverse" => rearrange::reverse(a),
        "sliding_windows" => rearrange::sliding_windows(a),
        "depth_to_space" => rearrange::blocks(a, "block_size", |block| DepthToSpace { block }),
        "space_to_depth" => rearrange::blocks(a, "block_size", |block| SpaceToDepth { block }),
        "pixel_shuffle" => rearrange::blocks(a, "upscale_factor", |factor| PixelShuffle { factor }),
        "pixel_unshuffle" => rearrange::pixel_unshuffle(a),
        "space_to_batch" => rearrange::space_to_batch(a),
        "batch_to_space" => rearrange::batch_to_space(a),
        "crop" => rearrange::crop(a),
        "band_part" => rearrange::band_part(a),
        "upsample_nearest_neighbor" => rearrange::upsample(a),
        "resize_nearest_neighbor" => rearrange::resize(a),
        "resize" => sample::resize(a),
        "resize_bilinear" => sample::resize_bilinear(a),
        "upsample_bilinear" => sample::upsample_bilinear(a),
        "crop_resize" => sample::crop_resize(a),
        "resample" => sample::resample(a),
        "affine" => sample::affine(a),
        "reshape" => reshape(a),
        "transpose" => transpose(a),
        "split" => split(a),
        "tile" => tile(a),
        name if OTHERS.contains(&format!(" {name} ")) => {
            Err(Fault::new(a.at(), format!("op `{name}` is not supported yet"), "one that this version has"))
        }
        name => Err(Fault::new(a.at(), format!("unknown op {}", shown(name)), "an op of MIL")),
    }
}

fn transpose(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let Found { value, at } = a.required_ints("perm", MAX_RANK)?;
    let axes = value.into_iter().map(|p| from_front(p, a.ty(x), "perm", at));
    Ok(Op::Transpose { x, perm: axes.collect::<Result<_, _>>()? })
}

fn tile(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Plain)?;
    let Found { value, at } = a.known_ints("reps", Class::Int, MAX_RANK)?;
    Ok(Op::Tile { x, reps: sizes(&value, 1, "reps", at)? })
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

/// The shape of a reshape: one −1 takes what is left, a 0 keeps a dimension: of the same place where the ranks are equal,
/// else (from ios17) counted from the right. A tensor without elements has its dimensions of 0 spelled as they are.
fn reshape(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Wide)?;
    let Found { value: wanted, at } = a.known_ints("shape", Class::Position, MAX_RANK)?;
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
