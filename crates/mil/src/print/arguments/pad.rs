//! The arguments of `pad`.

use arcane_tensor::DType;

use super::{Argument, Named, float, ints, text};
use crate::print::Unspellable;
use crate::{Pad, PadMode};

pub(super) fn pad(pad: &Pad, dtype: DType) -> Result<Vec<Named<'static>>, Unspellable> {
    let value = match pad.mode {
        PadMode::Constant(value) => value,
        PadMode::Reflect | PadMode::Replicate => 0.0,
    };
    Ok(vec![
        ("constant_val", float(dtype, value)),
        ("mode", text(pad.mode.name())),
        ("pad", ints("pad", &pad.pad)?),
        ("x", Argument::Value(pad.x)),
    ])
}
