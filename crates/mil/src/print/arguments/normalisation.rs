//! The arguments of normalisations and of activations by channel.

use arcane_tensor::DType;

use super::{Argument, Named, ints, real, scalar};
use crate::print::Unspellable;
use crate::{Channelwise, Normalisation, Opset, ValueId};

/// `dtype` is that of x.
pub(super) fn normalisation(
    n: &Normalisation,
    dtype: DType,
    opset: Opset,
) -> Result<Vec<Named<'static>>, Unspellable> {
    let mut found = operands(n.x(), n.constants());
    found.extend(n.numbers().into_iter().map(|(name, value)| (name, real(dtype, value, opset))));
    match n {
        Normalisation::Layer { axes, .. } => found.push(("axes", ints("axes", axes)?)),
        Normalisation::LocalResponse { size, .. } => {
            let size = i32::try_from(*size)
                .map_err(|_| Unspellable::TooLarge { parameter: "size", value: *size })?;
            found.push(("size", scalar(size)));
        }
        Normalisation::Batch { .. } | Normalisation::Instance { .. } | Normalisation::L2 { .. } => {}
    }
    Ok(found)
}

pub(super) fn channelwise(c: &Channelwise) -> Vec<Named<'static>> {
    operands(c.x, c.constants())
}

fn operands(x: ValueId, constants: Vec<(ValueId, &'static str)>) -> Vec<Named<'static>> {
    let constants = constants.into_iter().map(|(v, name)| (name, Argument::Value(v)));
    constants.chain([("x", Argument::Value(x))]).collect()
}
