//! The arguments of ops along one axis.

use arcane_tensor::DType;

use super::{Argument, Named, flag, int, scalar, text};
use crate::print::Unspellable;
use crate::{AlongAxis, Opset};

pub(super) fn along_axis(op: &AlongAxis, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    let (x, axis) = op.place();
    let mut found = vec![("axis", int(axis)), ("x", Argument::Value(x))];
    let since = |since: Opset, wanted: bool| {
        if wanted && opset < since { Err(Unspellable::Opset { since, opset }) } else { Ok(()) }
    };
    match op {
        AlongAxis::Extreme { keep_dims, dtype, .. } => {
            since(Opset::Ios17, *dtype != DType::I32)?;
            found.push(("keep_dims", flag(*keep_dims)));
            if opset >= Opset::Ios17 {
                found.push(("output_dtype", text(dtype.name())));
            }
        }
        AlongAxis::Argsort { ascending, .. } => found.push(("ascending", flag(*ascending))),
        AlongAxis::TopK { k, ascending, sort, indices, .. } => {
            since(Opset::Ios16, !sort || indices.is_none())?;
            since(Opset::Ios17, indices.is_some_and(|dtype| dtype != DType::I32))?;
            let k = i32::try_from(*k).map_err(|_| Unspellable::TooLarge { parameter: "k", value: *k })?;
            found.extend([("ascending", flag(*ascending)), ("k", scalar(k))]);
            if opset >= Opset::Ios16 {
                found.extend([("return_indices", flag(indices.is_some())), ("sort", flag(*sort))]);
            }
            if opset >= Opset::Ios17 {
                found.push(("output_indices_dtype", text(indices.unwrap_or(DType::I32).name())));
            }
        }
        AlongAxis::CumSum { exclusive, reverse, .. } => {
            found.extend([("exclusive", flag(*exclusive)), ("reverse", flag(*reverse))]);
        }
    }
    Ok(found)
}
