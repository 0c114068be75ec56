//! The arguments of quantisation at run time.

use super::{Argument, Named, int, since, text};
use crate::print::Unspellable;
use crate::{Opset, Quantization};

pub(super) fn quantization(q: &Quantization, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    since(Opset::Ios17, opset)?;
    let (scale, zero_point) = q.scale();
    let mut found = vec![("input", Argument::Value(q.x())), ("scale", Argument::Value(scale))];
    found.extend(zero_point.map(|z| ("zero_point", Argument::Value(z))));
    found.extend(q.axis().map(|axis| ("axis", int(axis))));
    if let Quantization::Quantize { dtype, .. } = q {
        found.push(("output_dtype", text(dtype.name())));
    }
    Ok(found)
}
