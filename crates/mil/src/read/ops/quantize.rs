//! Quantisation at run time as it is written.

use arcane_tensor::DType;

use super::{Built, since};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{Op, Opset, Quantization, ValueId};

/// `quantize` and `dequantize`.
pub(super) fn quantization(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios17)?;
    let quantizes = a.op() == "quantize";
    let x = a.operand("input", if quantizes { Class::Float } else { Class::Byte })?;
    let scale = a.constant_operand("scale", Class::Float)?;
    let zero_point = a.maybe_constant_operand("zero_point", Class::Byte)?;
    let axis = match a.int("axis")? {
        Some(Found { at, .. }) if a.ty(scale).shape.is_empty() => {
            return Err(Fault::new(at, "axis is given and scale is one number", "no axis"));
        }
        Some(Found { value, at }) => Some(crate::read::arguments::from_front(value, a.ty(x), "axis", at)?),
        None if a.ty(scale).shape.is_empty() => None,
        None => return Err(a.fault("scale is a vector and there is no axis", "an axis")),
    };
    if !quantizes {
        return Ok(Op::Quantization(Quantization::Dequantize { x, scale, zero_point, axis }));
    }
    not_zero(a, scale)?;
    let Found { value, at } = a.required_text("output_dtype")?;
    let dtype = match value.as_str() {
        "int8" => DType::I8,
        "uint8" => DType::U8,
        _ => return Err(Fault::new(at, format!("output_dtype is {}", shown(&value)), "int8 or uint8")),
    };
    Ok(Op::Quantization(Quantization::Quantize { x, scale, zero_point, axis, dtype }))
}

fn not_zero(a: &Arguments<'_, '_>, scale: ValueId) -> Result<(), Fault> {
    let zero = a.tensor(scale).is_some_and(|t| !t.is_empty() && t.to_f64s().iter().all(|&s| s == 0.0));
    if zero { Err(a.fault("scale is 0", "another number")) } else { Ok(()) }
}
