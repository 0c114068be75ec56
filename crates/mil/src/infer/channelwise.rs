//! The types of activations with a number a channel.

use super::normalisation::scale;
use super::{TypeError, float};
use crate::{ChannelActivation, Channelwise, TensorType, ValueId};

/// The result: the type of x.
pub(super) fn channelwise<'a>(
    c: &Channelwise,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let x = types(c.x);
    float(x, "x")?;
    ensure!((3..=5).contains(&x.shape.len()), "x is {x}, rank 3 to 5 was expected");
    scale(Some(types(c.alpha)), "alpha", &x.shape[1..2])?;
    scale(c.beta.map(&types), "beta", &x.shape[1..2])?;
    let takes_beta = c.kind == ChannelActivation::Softplus;
    ensure!(c.beta.is_some() == takes_beta, "there is {} beta", if takes_beta { "no" } else { "a" });
    Ok(x.clone())
}
