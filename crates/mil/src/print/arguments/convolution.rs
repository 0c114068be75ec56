//! The arguments of convolutions.

use super::{Argument, Named, int, ints, text};
use crate::print::Unspellable;
use crate::{Convolution, Opset, PadType, TransposedConvolution};

pub(super) fn convolution(c: &Convolution, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    padding_exists(c.pad_type, opset)?;
    let bias = c.bias.map(|b| ("bias", Argument::Value(b)));
    let all = bias.into_iter().chain([
        ("dilations", ints("dilations", &c.dilations)?),
        ("groups", int(c.groups)),
        ("pad", ints("pad", &c.pad)?),
        ("pad_type", text(c.pad_type.name())),
        ("strides", ints("strides", &c.strides)?),
        ("weight", Argument::Value(c.weight)),
        ("x", Argument::Value(c.x)),
    ]);
    Ok(all.collect())
}

pub(super) fn transposed(c: &TransposedConvolution) -> Result<Vec<Named<'static>>, Unspellable> {
    let mut found = vec![
        ("dilations", ints("dilations", &c.dilations)?),
        ("groups", int(c.groups)),
        ("pad", ints("pad", &c.pad)?),
        ("pad_type", text(c.pad_type.name())),
        ("strides", ints("strides", &c.strides)?),
        ("weight", Argument::Value(c.weight)),
        ("x", Argument::Value(c.x)),
    ];
    found.extend(c.bias.map(|b| ("bias", Argument::Value(b))));
    if let Some(shape) = &c.output_shape {
        found.push(("output_shape", ints("output_shape", shape)?));
    }
    Ok(found)
}

/// Padding that an opset lacks is not spelled.
pub(super) fn padding_exists(pad_type: PadType, opset: Opset) -> Result<(), Unspellable> {
    if pad_type == PadType::SameLower && opset < Opset::Ios16 {
        return Err(Unspellable::Opset { since: Opset::Ios16, opset });
    }
    Ok(())
}
