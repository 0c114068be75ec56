//! The types of convolutions.

use super::{TypeError, float};
use crate::op::window::PadType;
use crate::op::window::extent;
use crate::{Convolution, TensorType, TransposedConvolution};

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
    window(spatial, &c.strides, &c.pad, &c.dilations, "dilations")?;
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

/// The result of `conv_transpose`.
pub(super) fn transposed(
    c: &TransposedConvolution,
    x: &TensorType,
    weight: &TensorType,
    bias: Option<&TensorType>,
) -> Result<TensorType, TypeError> {
    float(x, "x")?;
    let rank = x.shape.len();
    ensure!((3..=5).contains(&rank), "x is {x}, rank 3 to 5 was expected");
    ensure!(
        weight.dtype == x.dtype && weight.shape.len() == rank && weight.shape[0] == x.shape[1],
        "weight is {weight}, {} of rank {rank} with dimension 0 of {} was expected for x {x}",
        x.dtype,
        x.shape[1]
    );
    window(rank - 2, &c.strides, &c.pad, &c.dilations, "dilations")?;
    ensure!(
        c.groups > 0 && x.shape[1].is_multiple_of(c.groups),
        "{} groups do not divide the {} channels of x",
        c.groups,
        x.shape[1]
    );
    ensure!(c.pad_type != PadType::SameLower, "pad_type is same_lower, valid, same or custom was expected");
    let out = weight.shape[1].saturating_mul(c.groups);
    if let Some(bias) = bias {
        let expected = TensorType::new(x.dtype, &[out]);
        ensure!(*bias == expected, "bias is {bias}, {expected} was expected");
    }
    if let Some(shape) = &c.output_shape {
        ensure!(
            shape.len() == rank && shape[..2] == [x.shape[0], out],
            "output_shape is {shape:?}, rank {rank} beginning with {}, {out} was expected",
            x.shape[0]
        );
    }
    let mut shape = vec![x.shape[0], out];
    for i in 0..rank - 2 {
        let (length, size) = (x.shape[i + 2], weight.shape[i + 2]);
        ensure!(size > 0, "weight is {weight}, a kernel of at least one element was expected");
        match c.cut(i, length, size) {
            Some((kept, _)) if kept > 0 || length == 0 => shape.push(kept),
            _ => {
                return Err(TypeError(format!(
                    "nothing is left of spatial dimension {i} with pad {:?}, x is {x} and weight {weight}",
                    c.pad
                )));
            }
        }
    }
    Ok(TensorType::new(x.dtype, &shape))
}

/// The parameters of a window over `spatial` dimensions. `others` are more numbers above 0, by their name.
pub(super) fn window(
    spatial: usize,
    strides: &[usize],
    pad: &[usize],
    others: &[usize],
    name: &str,
) -> Result<(), TypeError> {
    // MIL's numbers are int32; sums and products of two of them are exact.
    const MOST: usize = i32::MAX as usize;
    for (name, values) in [("strides", strides), (name, others)] {
        ensure!(
            values.len() == spatial && values.iter().all(|v| (1..=MOST).contains(v)),
            "{name} are {values:?}, {spatial} numbers above 0 were expected"
        );
    }
    ensure!(
        pad.len() == 2 * spatial && pad.iter().all(|&p| p <= MOST),
        "pad is {pad:?}, {} numbers were expected",
        2 * spatial
    );
    Ok(())
}
