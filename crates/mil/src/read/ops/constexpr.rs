//! Compressed weights as they are written: before ios18 with all parameters as attributes, later with arguments. Either is
//! read in any function that has the op.

use std::sync::Arc;

use arcane_tensor::Tensor;

use super::{Built, since, sizes};
use crate::op::constexpr::MAX_RANK;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Found, from_front};
use crate::read::lexer::shown;
use crate::{Constexpr, Op, Opset, ValueId};

/// The ops of the family.
pub(super) fn constexpr(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios16)?;
    let op = match a.op() {
        "constexpr_affine_dequantize" => {
            let data = a.compressed("quantized_data")?;
            let (zero_point, scale) = (a.compressed("zero_point")?, a.compressed("scale")?);
            let Some(Found { value, at }) = a.int("axis")? else {
                return Err(a.fault("the parameter `axis` is missing", "a value for it"));
            };
            let axis = from_front(value, a.ty(data), "axis", at)?;
            Constexpr::AffineDequantize { data, zero_point, scale, axis }
        }
        "constexpr_cast" => {
            let source = a.compressed("source_val")?;
            let Found { value, at } = a.required_text("output_dtype")?;
            if value != "fp32" {
                return Err(Fault::new(at, format!("output_dtype is {}", shown(&value)), "fp32"));
            }
            Constexpr::Cast { source }
        }
        "constexpr_lut_to_dense" => {
            let (indices, lut) = (a.compressed("indices")?, a.compressed("lut")?);
            match packed_shape(a)? {
                Some(shape) => Constexpr::PackedLutToDense { indices, lut, shape },
                None => Constexpr::LutToDense { indices, lut, vector_axis: vector_axis(a, indices)? },
            }
        }
        "constexpr_sparse_to_dense" => {
            let (data, mask) = (a.compressed("nonzero_data")?, a.compressed("mask")?);
            if let Some(shape) = packed_shape(a)? {
                packed_mask(a, mask, data, shape.iter().product())?;
                Constexpr::PackedSparseToDense { data, mask, shape }
            } else {
                ones(a, mask, data)?;
                Constexpr::SparseToDense { data, mask }
            }
        }
        "constexpr_blockwise_shift_scale" => {
            since(a, Opset::Ios18)?;
            let (data, scale) = (a.compressed("data")?, a.compressed("scale")?);
            Constexpr::BlockwiseShiftScale { data, scale, offset: a.maybe_compressed("offset")? }
        }
        "constexpr_lut_to_sparse" => {
            since(a, Opset::Ios18)?;
            let (mask, indices) = (a.compressed("indices_mask")?, a.compressed("indices_nonzero_data")?);
            let lut = a.compressed("lut")?;
            ones(a, mask, indices)?;
            Constexpr::LutToSparse { mask, indices, lut, vector_axis: vector_axis(a, mask)? }
        }
        _ => {
            since(a, Opset::Ios18)?;
            let (mask, data) = (a.compressed("data_mask")?, a.compressed("nonzero_data")?);
            ones(a, mask, data)?;
            let (scale, offset) = (a.compressed("scale")?, a.maybe_compressed("offset")?);
            Constexpr::SparseBlockwiseShiftScale { mask, data, scale, offset }
        }
    };
    Ok(Op::Constexpr(op))
}

/// The `shape` of the definitions before ios18, which later functions may still write.
fn packed_shape(a: &mut Arguments<'_, '_>) -> Result<Option<Vec<usize>>, Fault> {
    match a.ints("shape", MAX_RANK)? {
        Some(Found { value, at }) => sizes(&value, 0, "shape", at).map(Some),
        None if a.opset() < Opset::Ios18 => {
            Err(a.fault("the parameter `shape` is missing", "a value for it"))
        }
        None => Ok(None),
    }
}

fn vector_axis(a: &mut Arguments<'_, '_>, indices: ValueId) -> Result<Option<usize>, Fault> {
    let Some(Found { value, at }) = a.int("vector_axis")? else { return Ok(None) };
    from_front(value, a.ty(indices), "vector_axis", at).map(Some)
}

/// Checks that a mask has a 1 for each value, where the text has the mask.
fn ones(a: &Arguments<'_, '_>, mask: ValueId, data: ValueId) -> Result<(), Fault> {
    let Some(mask) = a.tensor(mask) else { return Ok(()) };
    let ones = mask.bytes().iter().filter(|&&bit| bit != 0).count();
    agree(a, ones, data)
}

/// As `ones`, of a mask packed into bytes; the bits after those of the elements have to be 0.
fn packed_mask(a: &Arguments<'_, '_>, mask: ValueId, data: ValueId, elements: usize) -> Result<(), Fault> {
    let Some(mask): Option<Arc<Tensor>> = a.tensor(mask) else { return Ok(()) };
    if let Some(&last) = mask.bytes().last()
        && mask.len() == elements.div_ceil(8)
        && !elements.is_multiple_of(8)
        && last >> (elements % 8) != 0
    {
        return Err(a.fault("the mask has ones beyond its last element", "zeros there"));
    }
    let ones = mask.bytes().iter().map(|byte| byte.count_ones() as usize).sum();
    agree(a, ones, data)
}

fn agree(a: &Arguments<'_, '_>, ones: usize, data: ValueId) -> Result<(), Fault> {
    let values = a.ty(data).len();
    if ones == values {
        return Ok(());
    }
    Err(a.fault(format!("the mask has {ones} ones"), format!("{values}, one for each nonzero value")))
}
