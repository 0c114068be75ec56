//! The arguments of ops on compressed weights.

use arcane_tensor::Tensor;

use super::{Argument, Immediate, Named, int, since, text};
use crate::print::Unspellable;
use crate::{Constexpr, Opset, ValueId};

pub(super) fn constexpr(op: &Constexpr, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    since(Opset::Ios16, opset)?;
    let value = |name, v: ValueId| (name, Argument::Value(v));
    Ok(match op {
        Constexpr::AffineDequantize { data, zero_point, scale, axis } => vec![
            ("axis", int(*axis)),
            value("quantized_data", *data),
            value("scale", *scale),
            value("zero_point", *zero_point),
        ],
        Constexpr::Cast { source } => vec![("output_dtype", text("fp32")), value("source_val", *source)],
        Constexpr::PackedLutToDense { indices, lut, shape } => {
            vec![value("indices", *indices), value("lut", *lut), ("shape", unsigned(shape)?)]
        }
        Constexpr::PackedSparseToDense { data, mask, shape } => {
            vec![value("mask", *mask), value("nonzero_data", *data), ("shape", unsigned(shape)?)]
        }
        later => {
            since(Opset::Ios18, opset)?;
            from_ios18(later)
        }
    })
}

fn from_ios18(op: &Constexpr) -> Vec<Named<'static>> {
    let value = |name, v: ValueId| (name, Argument::Value(v));
    let axis = |axis: Option<usize>| axis.map(|axis| ("vector_axis", int(axis)));
    match op {
        Constexpr::LutToDense { indices, lut, vector_axis } => {
            let operands = [value("indices", *indices), value("lut", *lut)];
            operands.into_iter().chain(axis(*vector_axis)).collect()
        }
        Constexpr::SparseToDense { data, mask } => vec![value("mask", *mask), value("nonzero_data", *data)],
        Constexpr::LutToSparse { mask, indices, lut, vector_axis } => {
            let operands =
                [value("indices_mask", *mask), value("indices_nonzero_data", *indices), value("lut", *lut)];
            operands.into_iter().chain(axis(*vector_axis)).collect()
        }
        Constexpr::BlockwiseShiftScale { data, scale, offset } => {
            let offset = offset.map(|v| value("offset", v));
            [value("data", *data), value("scale", *scale)].into_iter().chain(offset).collect()
        }
        Constexpr::SparseBlockwiseShiftScale { mask, data, scale, offset } => {
            let offset = offset.map(|v| value("offset", v));
            let operands = [value("data_mask", *mask), value("nonzero_data", *data), value("scale", *scale)];
            operands.into_iter().chain(offset).collect()
        }
        Constexpr::AffineDequantize { .. }
        | Constexpr::Cast { .. }
        | Constexpr::PackedLutToDense { .. }
        | Constexpr::PackedSparseToDense { .. } => unreachable!("these exist before ios18"),
    }
}

fn unsigned(shape: &[usize]) -> Result<Argument<'static>, Unspellable> {
    let number =
        |&value| u32::try_from(value).map_err(|_| Unspellable::TooLarge { parameter: "shape", value });
    let data = shape.iter().map(number).collect::<Result<Vec<u32>, _>>()?;
    let tensor = Tensor::new(&[shape.len()], data).expect("a vector has its length");
    Ok(Argument::Const(Immediate::Tensor(tensor)))
}
