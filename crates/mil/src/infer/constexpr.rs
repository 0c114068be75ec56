//! The types of compressed weights.

use arcane_tensor::{DType, element_count};

use super::{TypeError, axis_in, float};
use crate::op::constexpr::{MAX_RANK, index_bits};
use crate::{Constexpr, TensorType, ValueId};

/// The results of an op of the family.
pub(super) fn constexpr<'a>(
    op: &Constexpr,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Constexpr::AffineDequantize { data, zero_point, scale, axis } => {
            affine(types(*data), types(*zero_point), types(*scale), *axis).map(|t| vec![t])
        }
        Constexpr::Cast { source } => {
            let source = types(*source);
            ensure!(source.dtype == DType::F16, "source_val is {source}, fp16 was expected");
            Ok(vec![TensorType::new(DType::F32, &source.shape)])
        }
        Constexpr::BlockwiseShiftScale { data, scale, offset } => {
            let data = types(*data);
            blockwise(data.dtype, &data.shape, "data", types(*scale), offset.map(&types))?;
            Ok(vec![TensorType::new(types(*scale).dtype, &data.shape)])
        }
        Constexpr::LutToDense { indices, lut, vector_axis } => {
            let (indices, lut) = (types(*indices), types(*lut));
            let shape = looked_up(indices.dtype, &indices.shape, lut, *vector_axis)?;
            Ok(vec![TensorType::new(lut.dtype, &shape)])
        }
        Constexpr::PackedLutToDense { indices, lut, shape } => {
            let (indices, lut) = (types(*indices), types(*lut));
            plain(lut, "lut")?;
            let bits = match lut.shape.as_slice() {
                &[length] => index_bits(length),
                _ => None,
            };
            let Some(bits) = bits else {
                return Err(TypeError(format!("lut is {lut}, 2, 4, 16, 64 or 256 numbers were expected")));
            };
            packed(indices, "indices", bits.bits(), shape)?;
            Ok(vec![TensorType::new(lut.dtype, shape)])
        }
        Constexpr::SparseToDense { data, mask } => {
            let (data, mask) = (types(*data), types(*mask));
            ensure!(
                matches!(data.dtype, DType::I4 | DType::U4) || plain(data, "nonzero_data").is_ok(),
                "nonzero_data is {data}, int4, uint4, int8, uint8, fp16 or fp32 was expected"
            );
            sparse(data, mask)?;
            Ok(vec![TensorType::new(data.dtype, &mask.shape)])
        }
        Constexpr::PackedSparseToDense { data, mask, shape } => {
            let (data, mask) = (types(*data), types(*mask));
            plain(data, "nonzero_data")?;
            ensure!(data.shape.len() == 1, "nonzero_data is {data}, one dimension was expected");
            packed(mask, "mask", 1, shape)?;
            Ok(vec![TensorType::new(data.dtype, shape)])
        }
        Constexpr::LutToSparse { mask, indices, lut, vector_axis } => {
            let (mask, indices, lut) = (types(*mask), types(*indices), types(*lut));
            sparse(indices, mask)?;
            let shape = looked_up(indices.dtype, &mask.shape, lut, *vector_axis)?;
            let count = indices.shape[0].saturating_mul(lut.shape[lut.shape.len() - 1]);
            Ok(vec![TensorType::new(DType::U1, &shape), TensorType::new(lut.dtype, &[count])])
        }
        Constexpr::SparseBlockwiseShiftScale { mask, data, scale, offset } => {
            let (mask, data, scale) = (types(*mask), types(*data), types(*scale));
            sparse(data, mask)?;
            blockwise(data.dtype, &mask.shape, "data_mask", scale, offset.map(&types))?;
            Ok(vec![mask.clone(), TensorType::new(scale.dtype, &data.shape)])
        }
    }
}

fn affine(
    data: &TensorType,
    zero_point: &TensorType,
    scale: &TensorType,
    axis: usize,
) -> Result<TensorType, TypeError> {
    let bytes = [DType::I8, DType::U8];
    ensure!(bytes.contains(&data.dtype), "quantized_data is {data}, int8 or uint8 was expected");
    ensure!(
        bytes.contains(&zero_point.dtype) || zero_point.dtype == DType::F32,
        "zero_point is {zero_point}, int8, uint8 or fp32 was expected"
    );
    small_float(scale, "scale")?;
    axis_in(axis, data)?;
    for (name, ty) in [("scale", scale), ("zero_point", zero_point)] {
        ensure!(
            ty.shape.is_empty() || ty.shape == [data.shape[axis]],
            "{name} is {ty}, one number or {} were expected for dimension {axis} of {data}",
            data.shape[axis]
        );
    }
    Ok(TensorType::new(scale.dtype, &data.shape))
}

/// What holds of scales and offsets of blocks of data of a type and shape.
fn blockwise(
    dtype: DType,
    shape: &[usize],
    name: &str,
    scale: &TensorType,
    offset: Option<&TensorType>,
) -> Result<(), TypeError> {
    let four_or_eight = [DType::I4, DType::U4, DType::I8, DType::U8];
    let known = |d: DType| four_or_eight.contains(&d) || matches!(d, DType::F16 | DType::F32);
    ensure!(known(dtype), "the data are {dtype}, int4, uint4, int8, uint8, fp16 or fp32 were expected");
    small_float(scale, "scale")?;
    ensure!(!shape.is_empty(), "{name} has rank 0, rank 1 or more was expected");
    blocks(shape, name, &scale.shape, "scale")?;
    if let Some(offset) = offset {
        ensure!(
            offset.shape == scale.shape,
            "offset is {offset}, the shape {:?} of scale was expected",
            scale.shape
        );
        ensure!(
            offset.dtype == dtype || matches!(offset.dtype, DType::F16 | DType::F32),
            "offset is {offset}, {dtype}, fp16 or fp32 was expected"
        );
    }
    Ok(())
}

/// Whether a small shape cuts a shape into blocks.
fn blocks(shape: &[usize], name: &str, small: &[usize], small_name: &str) -> Result<(), TypeError> {
    let divides = |(&d, &s): (&usize, &usize)| s > 0 && d % s == 0;
    ensure!(
        small.len() == shape.len() && shape.iter().zip(small).all(divides),
        "{small_name} {small:?} does not divide the dimensions {shape:?} of {name}"
    );
    Ok(())
}

/// The shape that indices of a type and shape have once they are replaced by entries of a table.
fn looked_up(
    dtype: DType,
    shape: &[usize],
    lut: &TensorType,
    vector_axis: Option<usize>,
) -> Result<Vec<usize>, TypeError> {
    use DType::{U1, U2, U3, U4, U6, U8};
    ensure!(
        [U1, U2, U3, U4, U6, U8].contains(&dtype),
        "the indices are {dtype}, uint1, uint2, uint3, uint4, uint6 or uint8 were expected"
    );
    plain(lut, "lut")?;
    ensure!(!shape.is_empty(), "the indices have rank 0, rank 1 or more was expected");
    ensure!(
        lut.shape.len() == shape.len() + 2 && lut.shape[shape.len()] == 1 << dtype.bits(),
        "lut is {lut}, {} dimensions were expected, the last but one of {}, for indices {dtype} {shape:?}",
        shape.len() + 2,
        1 << dtype.bits()
    );
    blocks(shape, "the indices", &lut.shape[..shape.len()], "lut")?;
    let length = lut.shape[shape.len() + 1];
    ensure!(length > 0, "lut is {lut}, entries of one number or more were expected");
    let mut result = shape.to_vec();
    match vector_axis {
        Some(axis) => {
            ensure!(
                axis < shape.len(),
                "vector_axis {axis} is outside the dimensions of the indices {shape:?}"
            );
            result[axis] = result[axis].saturating_mul(length);
        }
        None => {
            ensure!(length == 1, "lut is {lut}, a vector_axis was expected for entries of {length} numbers");
        }
    }
    Ok(result)
}

/// Sparse data and their mask.
fn sparse(data: &TensorType, mask: &TensorType) -> Result<(), TypeError> {
    ensure!(mask.dtype == DType::U1, "the mask is {mask}, uint1 was expected");
    ensure!(data.shape.len() == 1, "the nonzero data are {data}, one dimension was expected");
    ensure!(
        data.shape[0] <= mask.len(),
        "the nonzero data {data} are more than the elements of the mask {mask}"
    );
    Ok(())
}

/// Elements of `bits` bits for a shape, packed into bytes.
fn packed(bytes: &TensorType, name: &str, bits: usize, shape: &[usize]) -> Result<(), TypeError> {
    ensure!(shape.len() <= MAX_RANK, "shape {shape:?} has more than {MAX_RANK} dimensions");
    let wanted = element_count(shape).and_then(|n| n.checked_mul(bits)).map(|n| n.div_ceil(8));
    let Some(wanted) = wanted else {
        return Err(TypeError(format!("shape {shape:?} has more elements than can be addressed")));
    };
    ensure!(
        *bytes == TensorType::new(DType::U8, &[wanted]),
        "{name} is {bytes}, tensor<uint8, [{wanted}]> was expected for {bits} bits an element of {shape:?}"
    );
    Ok(())
}

/// What tables hold.
fn plain(ty: &TensorType, name: &str) -> Result<(), TypeError> {
    let known = matches!(ty.dtype, DType::I8 | DType::U8 | DType::F16 | DType::F32);
    ensure!(known, "{name} is {ty}, int8, uint8, fp16 or fp32 was expected");
    Ok(())
}

fn small_float(ty: &TensorType, name: &str) -> Result<(), TypeError> {
    float(ty, name)?;
    ensure!(matches!(ty.dtype, DType::F16 | DType::F32), "{name} is {ty}, fp16 or fp32 was expected");
    Ok(())
}
