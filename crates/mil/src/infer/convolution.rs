//! The types of convolutions.

use super::{TypeError, float};
use crate::op::window::extent;
use crate::{Convolution, TensorType};

/// The result of `conv`.
pub(super) fn convolution(
    c: &Convolution,
    x: &TensorType,
    weight: &TensorType,
    bias: Option<&TensorType>,
) -> Result<TensorType, TypeError> {
    float(x, "x")?;
    let rank = x.shape.len();
    ensure!((3..=5).contains(&rank), "x is {x}, rank 3 to 5 was expected");
    let spatial = rank - 2;
    ensure!(
        weight.dtype == x.dtype && weight.shape.len() == rank,
        "weight is {weight}, {} of rank {rank} was expected for x {x}",
        x.dtype
    );
    window(spatial, &c.strides, &c.pad, &c.dilations)?;
    let (channels, out) = (x.shape[1], weight.shape[0]);
    ensure!(
        c.groups > 0 && channels % c.groups == 0 && out % c.groups == 0,
        "{} groups do not divide the {channels} channels of x and the {out} of the result",
        c.groups
    );
    ensure!(
        weight.shape[1] == channels / c.groups,
        "weight is {weight}, {} channels in dimension 1 were expected for x {x} in {} groups",
        channels / c.groups,
        c.groups
    );
    if let Some(bias) = bias {
        ensure!(
            *bias == TensorType::new(x.dtype, &[out]),
            "bias is {bias}, tensor<{}, [{out}]> was expected",
            x.dtype
        );
    }
    let mut shape = vec![x.shape[0], out];
    for i in 0..spatial {
        let (length, size) = (x.shape[i + 2], weight.shape[i + 2]);
        ensure!(size > 0, "weight is {weight}, a kernel of at least one element was expected");
        let [before, after] = c.padding(i, length, size);
        let padded = length.saturating_add(before).saturating_add(after);
        let extent = extent(size, c.dilations[i]);
        ensure!(
            padded >= extent,
            "the window reaches over {extent} elements of spatial dimension {i}, x {x} has {padded} with its padding"
        );
        shape.push((padded - extent) / c.strides[i] + 1);
    }
    Ok(TensorType::new(x.dtype, &shape))
}

/// The parameters of a window over `spatial` dimensions.
pub(super) fn window(
    spatial: usize,
    strides: &[usize],
    pad: &[usize],
    dilations: &[usize],
) -> Result<(), TypeError> {
    for (name, values) in [("strides", strides), ("dilations", dilations)] {
        ensure!(
            values.len() == spatial && values.iter().all(|&v| v > 0),
            "{name} are {values:?}, {spatial} numbers above 0 were expected"
        );
    }
    ensure!(pad.len() == 2 * spatial, "pad is {pad:?}, {} numbers were expected", 2 * spatial);
    Ok(())
}
