//! Convolutions and pools: every kind of padding, groups, dilations, few channels and many, one to three dimensions.

use arcane_mil::{Convolution, Op, PadType, Pool, PoolKind, TransposedConvolution, Unary};
use arcane_tensor::DType;

use super::{Allowed, SPREAD, Table, rounding};

/// Sums of many products.
fn sums(dtype: DType) -> Allowed {
    match dtype {
        DType::F16 => rounding(dtype),
        _ => Allowed { absolute: 1e-5, relative: 1e-5 },
    }
}

/// Shapes of x and the weight, groups, and the window: strides, padding and dilations.
type Slide<'a> = (&'a [usize], &'a [usize], usize, &'a [usize], PadType, &'a [usize], &'a [usize]);

pub(super) fn convolutions(t: &mut Table, dtype: DType) {
    use PadType::{Custom, Same, SameLower, Valid};
    let cases: [Slide<'_>; 12] = [
        (&[2, 3, 20], &[5, 3, 4], 1, &[1], Valid, &[0, 0], &[1]),
        (&[1, 4, 33], &[6, 2, 3], 2, &[2], Custom, &[2, 0], &[3]),
        (&[2, 8, 12, 9], &[16, 8, 3, 3], 1, &[1, 1], Same, &[0; 4], &[1, 1]),
        (&[1, 3, 17, 18], &[7, 3, 5, 2], 1, &[2, 3], SameLower, &[0; 4], &[1, 2]),
        (&[1, 6, 9, 40], &[12, 2, 3, 3], 3, &[2, 2], Custom, &[1, 0, 3, 2], &[2, 1]),
        // One channel a group, with one output and with several.
        (&[2, 5, 11, 37], &[5, 1, 3, 3], 5, &[1, 1], Same, &[0; 4], &[1, 1]),
        (&[1, 4, 10, 10], &[12, 1, 2, 4], 4, &[2, 1], Custom, &[0, 1, 1, 2], &[1, 2]),
        // Each position on its own, in groups and with steps.
        (&[2, 8, 3, 5], &[8, 4, 1, 1], 2, &[1, 1], Valid, &[0; 4], &[1, 1]),
        (&[2, 8, 5, 6], &[4, 8, 1, 1], 1, &[2, 2], Valid, &[0; 4], &[1, 1]),
        (&[1, 3, 5, 6, 7], &[4, 3, 2, 3, 2], 1, &[1, 2, 1], Custom, &[1, 1, 0, 1, 2, 0], &[2, 1, 1]),
        (&[1, 2, 4, 5, 6], &[2, 1, 3, 1, 2], 2, &[1, 1, 2], Same, &[0; 6], &[1, 1, 1]),
        // More windows than are unfolded at once.
        (&[1, 64, 2180], &[1, 64, 2048], 1, &[1], Valid, &[0, 0], &[1]),
    ];
    for (x, weight, groups, strides, pad_type, pad, dilations) in cases {
        let bias = [weight[0]];
        let parameters = [(dtype, x, SPREAD), (dtype, weight, SPREAD), (dtype, &bias[..], SPREAD)];
        t.add("conv", sums(dtype), &parameters, |f, v| {
            let conv = |bias| Convolution {
                x: v[0],
                weight: v[1],
                bias,
                strides: strides.to_vec(),
                pad_type,
                pad: pad.to_vec(),
                dilations: dilations.to_vec(),
                groups,
            };
            let with_bias = f.push_one(Op::Convolution(conv(Some(v[2]))))?;
            let plain = f.push_one(Op::Convolution(conv(None)))?;
            Ok(vec![f.unary(Unary::Abs, with_bias)?, plain])
        });
    }
    t.add(
        "conv of a window",
        sums(dtype),
        &[(dtype, &[1, 5, 6, 4], SPREAD), (dtype, &[3, 4, 2, 2], SPREAD)],
        |f, v| {
            let x = f.transpose(v[0], &[0, 3, 1, 2])?;
            let weight = f.transpose(v[1], &[0, 1, 3, 2])?;
            let conv = Convolution::pointwise(x, weight, None, 4);
            Ok(vec![f.push_one(Op::Convolution(conv))?])
        },
    );
}

pub(super) fn transposed(t: &mut Table, dtype: DType) {
    use PadType::{Custom, Same, Valid};
    let cases: [(Slide<'_>, Option<&[usize]>); 8] = [
        ((&[2, 3, 9], &[3, 4, 3], 1, &[2], Valid, &[0, 0], &[1]), None),
        ((&[1, 4, 8], &[4, 2, 4], 2, &[3], Custom, &[2, 1], &[2]), None),
        ((&[2, 6, 5, 7], &[6, 5, 3, 2], 1, &[2, 2], Same, &[0; 4], &[1, 1]), None),
        // The stride is wider than the kernel: positions of the bias alone.
        ((&[1, 4, 3, 4], &[4, 3, 1, 2], 1, &[3, 3], Same, &[0; 4], &[1, 1]), None),
        ((&[1, 4, 6, 6], &[4, 1, 2, 2], 4, &[2, 2], Valid, &[0; 4], &[1, 1]), None),
        ((&[1, 2, 4, 4], &[2, 1, 3, 3], 2, &[1, 2], Custom, &[1, 1, 0, 2], &[1, 2]), None),
        ((&[1, 3, 4, 5], &[3, 4, 3, 3], 1, &[2, 1], Valid, &[0; 4], &[1, 1]), Some(&[1, 4, 7, 11])),
        ((&[1, 3, 2, 3, 4], &[3, 2, 2, 1, 3], 1, &[2, 1, 2], Custom, &[0, 1, 0, 0, 1, 1], &[1, 1, 1]), None),
    ];
    for ((x, weight, groups, strides, pad_type, pad, dilations), shape) in cases {
        let bias = [weight[1] * groups];
        let parameters = [(dtype, x, SPREAD), (dtype, weight, SPREAD), (dtype, &bias[..], SPREAD)];
        t.add("conv_transpose", sums(dtype), &parameters, |f, v| {
            let conv = |bias| TransposedConvolution {
                x: v[0],
                weight: v[1],
                bias,
                strides: strides.to_vec(),
                pad_type,
                pad: pad.to_vec(),
                dilations: dilations.to_vec(),
                groups,
                output_shape: shape.map(<[usize]>::to_vec),
            };
            let with_bias = f.push_one(Op::TransposedConvolution(conv(Some(v[2]))))?;
            Ok(vec![with_bias, f.push_one(Op::TransposedConvolution(conv(None)))?])
        });
    }
}

/// The shape of x, and the window: its size, strides, padding, and whether a last one may reach beyond it.
type Window<'a> = (&'a [usize], &'a [usize], &'a [usize], PadType, &'a [usize], bool);

pub(super) fn pools(t: &mut Table, dtype: DType) {
    use PadType::{Custom, Same, SameLower, Valid};
    let kinds = [
        PoolKind::Max,
        PoolKind::Average { exclude_padding: false },
        PoolKind::Average { exclude_padding: true },
        PoolKind::L2,
    ];
    let cases: [Window<'_>; 9] = [
        (&[2, 3, 20], &[3], &[2], Valid, &[0, 0], false),
        (&[1, 2, 11], &[4], &[3], Custom, &[2, 1], false),
        (&[1, 2, 10], &[3], &[2], Valid, &[0, 0], true),
        (&[1, 2, 9, 40], &[3, 3], &[2, 2], Same, &[0; 4], false),
        (&[2, 2, 8, 7], &[2, 3], &[1, 2], SameLower, &[0; 4], false),
        (&[1, 1, 9, 9], &[4, 3], &[3, 2], Custom, &[1, 1, 1, 1], true),
        (&[1, 1, 5, 5], &[2, 2], &[2, 2], SameLower, &[0; 4], true),
        // The whole of each plane.
        (&[2, 4, 7, 6], &[7, 6], &[1, 1], Valid, &[0; 4], false),
        (&[1, 2, 4, 5, 6], &[2, 3, 2], &[1, 2, 2], Custom, &[1, 0, 1, 1, 0, 1], false),
    ];
    for kind in kinds {
        for (x, kernel_sizes, strides, pad_type, pad, ceil_mode) in cases {
            if kind == PoolKind::L2 && x.len() == 5 {
                continue;
            }
            t.add(&format!("{kind:?}"), sums(dtype), &[(dtype, x, SPREAD)], |f, v| {
                let (kernel_sizes, strides, pad) = (kernel_sizes.to_vec(), strides.to_vec(), pad.to_vec());
                Ok(vec![f.push_one(Op::Pool(Pool {
                    kind,
                    x: v[0],
                    kernel_sizes,
                    strides,
                    pad_type,
                    pad,
                    ceil_mode,
                }))?])
            });
        }
    }
}
