//! The arguments of convolutions.

use super::{Argument, Named, int, ints, text};
use crate::Convolution;
use crate::print::Unspellable;

pub(super) fn convolution(c: &Convolution) -> Result<Vec<Named<'static>>, Unspellable> {
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
