//! Convolutions, element by element from their definition.

use super::Value;
use super::layout::{positions, strides};
use crate::{Convolution, TensorType, TransposedConvolution};

/// Σ over the channels of the group and the kernel's positions of x · weight, plus the bias.
pub(super) fn convolution(
    c: &Convolution,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    ty: &TensorType,
) -> Vec<f64> {
    let (space, kernel) = (&x.ty.shape[2..], &weight.ty.shape[2..]);
    let (x_strides, w_strides) = (strides(&x.ty.shape), strides(&weight.ty.shape));
    let group_channels = weight.ty.shape[1];
    let group_outputs = weight.ty.shape[0] / c.groups;
    let taps = positions(kernel);
    let element = |at: &[usize]| {
        let (n, o) = (at[0], at[1]);
        let first_channel = o / group_outputs * group_channels;
        let mut sum = bias.map_or(0.0, |b| b.data[o]);
        for tap in &taps {
            let place = |i: usize| {
                let [before, _] = c.padding(i, space[i], kernel[i]);
                let padded = at[i + 2] * c.strides[i] + tap[i] * c.dilations[i];
                padded.checked_sub(before).filter(|&p| p < space[i])
            };
            let Some(place) = (0..space.len()).map(place).collect::<Option<Vec<usize>>>() else { continue };
            let in_space: usize = place.iter().zip(&x_strides[2..]).map(|(p, s)| p * s).sum();
            let in_kernel: usize = tap.iter().zip(&w_strides[2..]).map(|(p, s)| p * s).sum();
            for channel in 0..group_channels {
                let of_x = n * x_strides[0] + (first_channel + channel) * x_strides[1] + in_space;
                let of_weight = o * w_strides[0] + channel * w_strides[1] + in_kernel;
                sum += x.data[of_x] * weight.data[of_weight];
            }
        }
        sum
    };
    positions(&ty.shape).iter().map(|at| element(at)).collect()
}

/// Each element of x times the kernel, added where it goes; plus the bias.
pub(super) fn transposed(
    c: &TransposedConvolution,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    ty: &TensorType,
) -> Vec<f64> {
    let (space, kernel, result) = (&x.ty.shape[2..], &weight.ty.shape[2..], &ty.shape[2..]);
    let y_strides = strides(&ty.shape);
    let group_outputs = weight.ty.shape[1];
    let group_channels = x.ty.shape[1] / c.groups;
    let taps = positions(kernel);
    let size: usize = kernel.iter().product();
    let plane: usize = result.iter().product();
    let mut y: Vec<f64> =
        (0..ty.len()).map(|i| bias.map_or(0.0, |b| b.data[i / plane % ty.shape[1]])).collect();
    for (at, value) in positions(&x.ty.shape).iter().zip(&x.data) {
        let (n, channel) = (at[0], at[1]);
        for (t, tap) in taps.iter().enumerate() {
            let place = |i: usize| {
                let (_, before) = c.cut(i, space[i], kernel[i]).expect("the types were inferred");
                let full = at[i + 2] * c.strides[i] + tap[i] * c.dilations[i];
                full.checked_sub(before).filter(|&p| p < result[i])
            };
            let Some(place) = (0..space.len()).map(place).collect::<Option<Vec<usize>>>() else { continue };
            let in_plane: usize = place.iter().zip(&y_strides[2..]).map(|(p, s)| p * s).sum();
            for o in 0..group_outputs {
                let output = channel / group_channels * group_outputs + o;
                let w = weight.data[(channel * group_outputs + o) * size + t];
                y[n * y_strides[0] + output * y_strides[1] + in_plane] += value * w;
            }
        }
    }
    y
}
