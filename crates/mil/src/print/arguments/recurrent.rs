//! The arguments of recurrent networks.

use arcane_tensor::DType;

use super::{Argument, Named, flag, float, since, text};
use crate::print::Unspellable;
use crate::{Cell, Opset, Recurrent};

/// `dtype` is that of x.
pub(super) fn recurrent(
    r: &Recurrent,
    dtype: DType,
    opset: Opset,
) -> Result<Vec<Named<'static>>, Unspellable> {
    let mut found = vec![
        ("activation", text(r.activation.name())),
        ("direction", text(r.way.name())),
        ("initial_h", Argument::Value(r.initial_h)),
        ("output_sequence", flag(r.output_sequence)),
        ("x", Argument::Value(r.x)),
    ];
    found.extend(r.constants().into_iter().map(|(name, v)| (name, Argument::Value(v))));
    match &r.cell {
        Cell::Rnn => {}
        Cell::Gru { recurrent_activation, reset_after, input_bias } => {
            found.push(("recurrent_activation", text(recurrent_activation.name())));
            if opset >= Opset::Ios18 {
                found.push(("reset_after", flag(*reset_after)));
            } else if *reset_after || input_bias.is_some() {
                since(Opset::Ios18, opset)?;
            }
        }
        Cell::Lstm(l) => {
            found.extend([
                ("cell_activation", text(l.cell_activation.name())),
                ("initial_c", Argument::Value(l.initial_c)),
                ("recurrent_activation", text(l.recurrent_activation.name())),
            ]);
            found.extend(l.clip.map(|clip| ("clip", float(dtype, clip))));
        }
    }
    Ok(found)
}
