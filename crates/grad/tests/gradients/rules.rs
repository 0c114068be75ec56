//! Each op's rule. The table is a `match` over all ops: an op without an entry does not compile.

use arcane_mil::{
    Binary, Compare, Constexpr, Convolution, Distribution, Index, Logical, Op, PadType, Pool, PoolKind,
    Random, Reduce, Sample, ScatterMode, Slice, TransposedConvolution, Unary,
};
use arcane_tensor::{DType, Tensor};

use crate::check::{Check, scrambled};
use crate::functions::{
    along_axis, binary as powers_and_remainders, channelwise, einsum, normalisation, pieces,
    reductions as products_and_norms, smooth,
};
use crate::movement::{
    dimensions, gather_nd, joins, made, pad, rearrangements, resized, reverse_sequence, scatter_nd,
    slice_by_index, slice_by_size, slice_update,
};

macro_rules! cases {
    ($($op:pat => [$($case:ident),*],)*) => {
        /// The names of an op's cases.
        fn cases(op: &Op) -> &'static [&'static str] {
            match op { $($op => &[$(stringify!($case)),*],)* }
        }

        mod gradient_of {
            use super::*;
            $($(#[test]
            fn $case() {
                super::$case(&Check { is_tested: |op| matches!(op, $op) });
            })*)*
        }
    };
}

cases! {
    Op::Const(_) => [constant],
    Op::Fill { .. } => [fill],
    Op::Random(_) => [random],
    Op::Unary { kind: Unary::Abs, .. } => [abs],
    Op::Unary { kind: Unary::Identity, .. } => [identity],
    Op::Unary { kind: Unary::Sign, .. } => [sign],
    Op::Unary { kind: Unary::Square, .. } => [square],
    Op::Unary { kind: Unary::Sqrt, .. } => [sqrt],
    Op::Unary { kind: Unary::Rsqrt { .. }, .. } => [rsqrt],
    Op::Unary { kind: Unary::Exp, .. } => [exp],
    Op::Unary { kind: Unary::Log { .. }, .. } => [log],
    Op::Unary { kind: Unary::Sigmoid, .. } => [sigmoid],
    Op::Unary { kind: Unary::Silu, .. } => [silu],
    Op::Unary {
        kind: Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Clip { .. }
            | Unary::Threshold { .. }
            | Unary::Relu
            | Unary::Relu6
            | Unary::LeakyRelu { .. }
            | Unary::ClampedRelu { .. }
            | Unary::ThresholdedRelu { .. }
            | Unary::Elu { .. }
            | Unary::SigmoidHard { .. },
        ..
    } => [pieces],
    // Has no derivative to ask for.
    Op::Unary { kind: Unary::Not, .. } => [],
    Op::Unary { .. } => [smooth],
    Op::Cast { .. } => [cast],
    Op::Binary { kind: Binary::Add, .. } => [add],
    Op::Binary { kind: Binary::Sub, .. } => [sub],
    Op::Binary { kind: Binary::Mul, .. } => [mul, mul_by_itself],
    Op::Binary { kind: Binary::RealDiv, .. } => [real_div],
    Op::Binary { kind: Binary::Maximum, .. } => [maximum],
    Op::Binary { kind: Binary::Minimum, .. } => [minimum],
    Op::Binary { .. } => [powers_and_remainders],
    Op::Compare { .. } => [compare],
    Op::Logical { .. } => [logical],
    Op::Select { .. } => [select],
    Op::Reduce { kind: Reduce::Sum, .. } => [reduce_sum],
    Op::Reduce { kind: Reduce::Mean, .. } => [reduce_mean],
    Op::Reduce { kind: Reduce::Max, .. } => [reduce_max],
    Op::Reduce { kind: Reduce::Min, .. } => [reduce_min],
    Op::Reduce { kind: Reduce::SumSquare, .. } => [reduce_sum_square],
    Op::Reduce { kind: Reduce::LogSumExp, .. } => [reduce_log_sum_exp],
    Op::Reduce { .. } => [products_and_norms],
    Op::Softmax { .. } => [softmax],
    Op::Einsum(_) => [einsum],
    Op::Normalisation(_) => [normalisation],
    Op::Channelwise(_) => [channelwise],
    Op::AlongAxis(_) => [along_axis],
    Op::Matmul { .. } => [matmul, matmul_by_itself],
    Op::Linear { .. } => [linear],
    Op::Convolution(_) => [conv, strided_conv],
    Op::TransposedConvolution(_) => [conv_transpose],
    Op::Pool(_) => [pools],
    Op::Constexpr(_) => [compressed],
    // Refused: see `structure`.
    Op::Quantization(_) | Op::Recurrent(_) | Op::State(_) => [],
    Op::ScaledDotProductAttention { .. } => [attention, masked_attention, grouped_query_attention],
    Op::Gather { .. } => [gather],
    Op::GatherAlongAxis { .. } => [gather_along_axis],
    Op::Scatter { mode: ScatterMode::Add, .. } => [scatter_add],
    Op::ScatterAlongAxis { mode: ScatterMode::Add, .. } => [scatter_along_axis_add],
    // Refused: see `structure`.
    Op::Scatter { .. } | Op::ScatterAlongAxis { .. } => [],
    Op::Slice(Slice::ByIndex { .. }) => [slice_by_index],
    Op::Slice(Slice::BySize { .. }) => [slice_by_size],
    Op::Slice(Slice::Update { .. }) => [slice_update],
    Op::Pad(_) => [pad],
    Op::Dimensions(_) => [dimensions],
    Op::Rearrange(_) => [rearrangements],
    Op::Join(_) => [joins],
    Op::Make(_) => [made],
    Op::Index(Index::GatherNd { batch_dims: 0, .. }) => [gather_nd],
    Op::Index(Index::ScatterNd { mode: ScatterMode::Add, .. }) => [scatter_nd],
    Op::Index(Index::ReverseSequence { .. }) => [reverse_sequence],
    Op::Index(Index::ScatterNd { .. } | Index::GatherNd { .. } | Index::GatherBatched { .. }) => [],
    Op::Sample(Sample::Resize { .. } | Sample::ResizeBilinear { .. } | Sample::UpsampleBilinear { .. }) => [resized],
    Op::Sample(Sample::CropResize { .. } | Sample::Affine { .. } | Sample::Resample { .. }) => [],
    Op::Reshape { .. } => [reshape],
    Op::Transpose { .. } => [transpose],
    Op::Concat { .. } => [concat],
    Op::Split { .. } => [split],
    Op::Tile { .. } => [tile],
}

#[test]
fn an_op_knows_its_cases() {
    let fill = Op::Fill { shape: vec![], dtype: DType::F32, value: 0.0 };
    assert_eq!(cases(&fill), ["fill"]);
}

fn constant(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        let k = c.f.constant("k", Tensor::new(&[3], vec![1.0, -2.0, 3.0]).unwrap());
        c.f.mul(x, k)
    });
}

fn fill(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        let k = c.f.fill(DType::F64, &[2, 1], 1.5);
        c.f.mul(x, k)
    });
}

fn random(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        let distribution = Distribution::Normal { mean: 1.0, deviation: 0.5 };
        let random = Random { distribution, seed: 7, shape: vec![2, 3], dtype: DType::F64 };
        let noise = c.f.push_one(Op::Random(random))?;
        c.f.mul(x, noise)
    });
}

fn unary(check: &Check, kind: Unary) {
    check.that(|c| {
        let x = c.positive(&[2, 3]);
        c.f.unary(kind, x)
    });
}

fn signed_unary(check: &Check, kind: Unary) {
    unary(check, kind);
    check.that(|c| {
        let x = c.float(&[3, 4]);
        c.f.unary(kind, x)
    });
}

fn abs(check: &Check) {
    signed_unary(check, Unary::Abs);
}

fn identity(check: &Check) {
    signed_unary(check, Unary::Identity);
}

fn sign(check: &Check) {
    signed_unary(check, Unary::Sign);
    check.that(|c| {
        let x = c.float(&[3, 4]);
        let sign = c.f.unary(Unary::Sign, x)?;
        c.f.mul(sign, x)
    });
}

fn square(check: &Check) {
    signed_unary(check, Unary::Square);
}

fn sqrt(check: &Check) {
    unary(check, Unary::Sqrt);
}

fn rsqrt(check: &Check) {
    unary(check, Unary::Rsqrt { epsilon: 0.125 });
}

fn exp(check: &Check) {
    signed_unary(check, Unary::Exp);
}

fn log(check: &Check) {
    unary(check, Unary::Log { epsilon: 0.125 });
}

fn sigmoid(check: &Check) {
    signed_unary(check, Unary::Sigmoid);
}

fn silu(check: &Check) {
    signed_unary(check, Unary::Silu);
}

fn cast(check: &Check) {
    // Multiples of 1/8 and of the differences' step are exact in fp32, and so is what is linear in them.
    check.that(|c| {
        let x = c.input(Tensor::new(&[2, 3], vec![0.125, -1.0, 2.0, 0.5, -0.25, 1.5]).unwrap());
        let narrow = c.f.cast(x, DType::F32);
        c.f.scale(narrow, 3.0)
    });
}

const BROADCASTS: [(&[usize], &[usize]); 10] = [
    (&[2, 3], &[2, 3]),
    (&[2, 3], &[3]),
    (&[3], &[2, 3]),
    (&[2, 3], &[]),
    (&[1, 3], &[3]),
    (&[3, 1], &[1, 4]),
    (&[2, 1, 3], &[4, 1]),
    (&[4, 2, 3], &[1, 1, 3]),
    (&[2, 1, 1, 3], &[2, 1]),
    (&[], &[]),
];

fn binary(check: &Check, kind: Binary) {
    for (left, right) in BROADCASTS {
        check.that(|c| {
            let (x, y) = (c.float(left), c.positive(right));
            c.f.binary(kind, x, y)
        });
    }
}

fn add(check: &Check) {
    binary(check, Binary::Add);
}

fn sub(check: &Check) {
    binary(check, Binary::Sub);
}

fn mul(check: &Check) {
    binary(check, Binary::Mul);
}

fn mul_by_itself(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        c.f.mul(x, x)
    });
}

fn real_div(check: &Check) {
    binary(check, Binary::RealDiv);
}

fn maximum(check: &Check) {
    binary(check, Binary::Maximum);
}

fn minimum(check: &Check) {
    binary(check, Binary::Minimum);
}

fn compare(check: &Check) {
    check.that(|c| {
        let (x, y) = (c.float(&[2, 3]), c.float(&[2, 3]));
        let less = c.f.compare(Compare::Less, x, y)?;
        let square = c.f.square(x)?;
        c.f.select(less, square, y)
    });
}

fn logical(check: &Check) {
    check.that(|c| {
        let (x, y) = (c.float(&[2, 3]), c.float(&[2, 3]));
        let zero = c.f.scalar(DType::F64, 0.0);
        let (a, b) = (c.f.compare(Compare::Less, x, zero)?, c.f.compare(Compare::Less, y, zero)?);
        let either = c.f.push_one(Op::Logical { kind: Logical::Or, x: a, y: b })?;
        c.f.select(either, x, y)
    });
}

fn select(check: &Check) {
    for (cond, yes, no) in [
        (&[2, 3][..], &[2, 3][..], &[2, 3][..]),
        (&[2, 1], &[3], &[4, 1, 1]),
        (&[3], &[2, 3], &[]),
        (&[4, 2, 3], &[], &[3]),
        (&[], &[2, 1], &[3]),
    ] {
        check.that(|c| {
            let bits = (0..cond.iter().product()).map(|i| scrambled(i).is_multiple_of(2)).collect::<Vec<_>>();
            let cond = c.data(Tensor::new(cond, bits).unwrap());
            let (yes, no) = (c.float(yes), c.float(no));
            c.f.select(cond, yes, no)
        });
    }
}

fn reduce(check: &Check, kind: Reduce) {
    for axes in [&[][..], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
        for keep_dims in [false, true] {
            check.that(|c| {
                let x = c.float(&[2, 3, 4]);
                c.f.reduce(kind, x, axes, keep_dims)
            });
        }
    }
}

fn reduce_sum(check: &Check) {
    reduce(check, Reduce::Sum);
}

fn reduce_mean(check: &Check) {
    reduce(check, Reduce::Mean);
}

fn reduce_max(check: &Check) {
    reduce(check, Reduce::Max);
}

fn reduce_min(check: &Check) {
    reduce(check, Reduce::Min);
}

fn reduce_sum_square(check: &Check) {
    reduce(check, Reduce::SumSquare);
}

fn reduce_log_sum_exp(check: &Check) {
    reduce(check, Reduce::LogSumExp);
}

fn softmax(check: &Check) {
    for axis in 0..3 {
        check.that(|c| {
            let x = c.float(&[2, 3, 4]);
            let p = c.f.softmax(x, axis)?;
            c.f.square(p)
        });
        check.that(|c| {
            let x = c.float(&[2, 3, 4]);
            c.f.softmax(x, axis)
        });
    }
}

fn matmul(check: &Check) {
    let batches: [(&[usize], &[usize]); 6] =
        [(&[], &[]), (&[2], &[2]), (&[2], &[]), (&[], &[2]), (&[2, 1], &[3]), (&[3, 1, 2], &[1, 2, 1])];
    for (left, right) in batches {
        for (tx, ty) in [(false, false), (false, true), (true, false), (true, true)] {
            check.that(|c| {
                let x = c.float(&[left, if tx { &[3, 2] } else { &[2, 3] }].concat());
                let y = c.float(&[right, if ty { &[4, 3] } else { &[3, 4] }].concat());
                c.f.matmul(x, y, tx, ty)
            });
        }
    }
}

fn matmul_by_itself(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        c.f.matmul(x, x, false, true)
    });
}

fn linear(check: &Check) {
    for shape in [&[4][..], &[3, 4], &[2, 3, 4]] {
        check.that(|c| {
            let (x, weight, bias) = (c.float(shape), c.float(&[5, 4]), c.float(&[5]));
            c.f.linear(x, weight, Some(bias))
        });
        check.that(|c| {
            let (x, weight) = (c.float(shape), c.float(&[5, 4]));
            c.f.linear(x, weight, None)
        });
    }
}

fn conv(check: &Check) {
    for shape in [&[2, 4, 3][..], &[1, 4, 1, 3], &[2, 4, 2, 3]] {
        let ones = vec![1; shape.len() - 2];
        let weight_shape = [&[5, 4], &ones[..]].concat();
        check.that(|c| {
            let (x, weight, bias) = (c.float(shape), c.float(&weight_shape), c.float(&[5]));
            c.f.push_one(Op::Convolution(Convolution::pointwise(x, weight, Some(bias), shape.len())))
        });
    }
}

/// Shapes of x and of a weight with groups, and a window over the spatial dimensions.
type Slide<'a> = (&'a [usize], &'a [usize], usize, &'a [usize], PadType, &'a [usize], &'a [usize]);

fn strided_conv(check: &Check) {
    let cases: [Slide<'_>; 7] = [
        (&[2, 2, 7], &[3, 2, 3], 1, &[2], PadType::Valid, &[0, 0], &[1]),
        (&[1, 2, 6], &[2, 2, 2], 1, &[3], PadType::Custom, &[1, 2], &[2]),
        (&[2, 4, 3, 4], &[4, 2, 2, 3], 2, &[1, 2], PadType::Same, &[0; 4], &[1, 1]),
        (&[2, 3, 4, 3], &[6, 1, 2, 2], 3, &[2, 1], PadType::SameLower, &[0; 4], &[1, 2]),
        (&[1, 2, 3, 2, 3], &[2, 1, 2, 1, 2], 2, &[1, 1, 2], PadType::Custom, &[0, 1, 1, 0, 1, 1], &[1, 1, 1]),
        // Positions that see padding alone, and elements that no position sees.
        (&[1, 1, 3], &[1, 1, 1], 1, &[5], PadType::Custom, &[2, 0], &[1]),
        (&[1, 1, 8], &[2, 1, 2], 1, &[5], PadType::Valid, &[0, 0], &[1]),
    ];
    for (x, weight, groups, strides, pad_type, pad, dilations) in cases {
        check.that(|c| {
            let outputs = weight[0];
            let (x, weight, bias) = (c.float(x), c.float(weight), Some(c.float(&[outputs])));
            let (strides, pad, dilations) = (strides.to_vec(), pad.to_vec(), dilations.to_vec());
            let conv = Convolution { x, weight, bias, strides, pad_type, pad, dilations, groups };
            c.f.push_one(Op::Convolution(conv))
        });
    }
}

fn conv_transpose(check: &Check) {
    let cases: [(Slide<'_>, Option<&[usize]>); 6] = [
        ((&[2, 2, 3], &[2, 3, 3], 1, &[2], PadType::Valid, &[0, 0], &[1]), None),
        ((&[1, 2, 4], &[2, 2, 2], 1, &[3], PadType::Custom, &[1, 2], &[2]), None),
        ((&[2, 4, 2, 3], &[4, 2, 2, 3], 2, &[2, 2], PadType::Same, &[0; 4], &[1, 1]), None),
        ((&[1, 3, 3, 2], &[3, 1, 1, 2], 3, &[3, 2], PadType::Same, &[0; 4], &[1, 1]), None),
        ((&[1, 2, 3, 3], &[2, 1, 3, 2], 2, &[2, 1], PadType::Valid, &[0; 4], &[1, 2]), Some(&[1, 2, 5, 9])),
        ((&[1, 2, 2, 1, 2], &[2, 2, 1, 2, 2], 1, &[1, 2, 1], PadType::Valid, &[0; 6], &[1, 1, 1]), None),
    ];
    for ((x, weight, groups, strides, pad_type, pad, dilations), shape) in cases {
        check.that(|c| {
            let outputs = weight[1] * groups;
            let (x, weight, bias) = (c.float(x), c.float(weight), Some(c.float(&[outputs])));
            let (strides, pad, dilations) = (strides.to_vec(), pad.to_vec(), dilations.to_vec());
            let output_shape = shape.map(<[usize]>::to_vec);
            c.f.push_one(Op::TransposedConvolution(TransposedConvolution {
                x,
                weight,
                bias,
                strides,
                pad_type,
                pad,
                dilations,
                groups,
                output_shape,
            }))
        });
    }
}

fn pools(check: &Check) {
    let kinds = [
        PoolKind::Max,
        PoolKind::Average { exclude_padding: false },
        PoolKind::Average { exclude_padding: true },
        PoolKind::L2,
    ];
    for kind in kinds {
        type Window<'a> = (&'a [usize], &'a [usize], &'a [usize], PadType, &'a [usize], bool);
        let cases: [Window<'_>; 5] = [
            (&[2, 2, 7], &[3], &[2], PadType::Valid, &[0, 0], false),
            (&[1, 2, 6], &[3], &[2], PadType::Valid, &[0, 0], true),
            (&[1, 2, 3, 4], &[2, 3], &[1, 2], PadType::Same, &[0; 4], false),
            (&[2, 1, 4, 3], &[2, 2], &[2, 1], PadType::Custom, &[1, 0, 0, 1], false),
            (&[1, 1, 5, 4], &[3, 2], &[3, 3], PadType::Custom, &[1, 1, 1, 1], true),
        ];
        for (x, kernel_sizes, strides, pad_type, pad, ceil_mode) in cases {
            check.that(|c| {
                let x = c.float(x);
                let (kernel_sizes, strides, pad) = (kernel_sizes.to_vec(), strides.to_vec(), pad.to_vec());
                c.f.push_one(Op::Pool(Pool { kind, x, kernel_sizes, strides, pad_type, pad, ceil_mode }))
            });
        }
    }
}

fn compressed(check: &Check) {
    check.that(|c| {
        let x = c.float(&[2, 3]);
        let source = c.f.constant("source", Tensor::from_f64s(DType::F16, &[3], &[1.0, -2.0, 3.0]).unwrap());
        let weight = c.f.push_one(Op::Constexpr(Constexpr::Cast { source }))?;
        let weight = c.f.cast(weight, DType::F64);
        c.f.mul(x, weight)
    });
}

fn attention(check: &Check) {
    for batch in [&[2][..], &[2, 3], &[1, 2, 1]] {
        check.that(|c| {
            let q = c.float(&[batch, &[3, 4]].concat());
            let k = c.float(&[batch, &[5, 4]].concat());
            let v = c.float(&[batch, &[5, 2]].concat());
            c.f.attention(q, k, v, None)
        });
    }
}

fn masked_attention(check: &Check) {
    for mask_shape in [&[3, 5][..], &[3, 1, 5], &[5], &[1, 3, 3, 5], &[2, 1, 3, 1], &[2, 3, 3, 5]] {
        check.that(|c| {
            let (q, k, v) = (c.float(&[2, 3, 3, 4]), c.float(&[2, 3, 5, 4]), c.float(&[2, 3, 5, 2]));
            let mask = c.float(mask_shape);
            c.f.attention(q, k, v, Some(mask))
        });
    }
    for mask_shape in [&[3, 5][..], &[5], &[2, 1, 3, 5]] {
        check.that(|c| {
            let (q, k, v) = (c.float(&[2, 3, 3, 4]), c.float(&[2, 3, 5, 4]), c.float(&[2, 3, 5, 2]));
            let bits: Vec<bool> =
                (0..mask_shape.iter().product()).map(|i| i % 5 == 0 || i % 3 != 0).collect();
            let mask = c.data(Tensor::new(mask_shape, bits).unwrap());
            c.f.attention(q, k, v, Some(mask))
        });
    }
}

fn grouped_query_attention(check: &Check) {
    check.that(|c| {
        let (q, k, v) = (c.float(&[2, 4, 3, 2]), c.float(&[2, 2, 3, 2]), c.float(&[2, 2, 3, 2]));
        let mut repeat = |x| {
            let x = c.f.reshape(x, &[2, 2, 1, 3, 2])?;
            let x = c.f.tile(x, &[1, 1, 2, 1, 1])?;
            c.f.reshape(x, &[2, 4, 3, 2])
        };
        let (k, v) = (repeat(k)?, repeat(v)?);
        c.f.attention(q, k, v, None)
    });
}

fn gather(check: &Check) {
    for (axis, length) in [(0, 4), (1, 3), (2, 2)] {
        for shape in [&[][..], &[5], &[2, 3]] {
            check.that(|c| {
                let x = c.float(&[4, 3, 2]);
                let n = shape.iter().product();
                let values: Vec<i32> = (0..n).map(|i| (scrambled(i) % length) as i32).collect();
                let indices = c.indices(shape, &values);
                c.f.gather(x, indices, axis)
            });
        }
    }
}

fn gather_along_axis(check: &Check) {
    for (axis, length, shape) in [(0, 4, [6, 3]), (1, 3, [4, 1]), (1, 3, [2, 5]), (0, 4, [2, 2])] {
        check.that(|c| {
            let x = c.float(&[4, 3]);
            let values: Vec<i32> =
                (0..shape.iter().product()).map(|i| (scrambled(i) % length) as i32).collect();
            let indices = c.indices(&shape, &values);
            c.f.gather_along_axis(x, indices, axis)
        });
    }
}

fn scatter_add(check: &Check) {
    for (axis, updates) in [(0, [5, 3]), (1, [4, 5])] {
        check.that(|c| {
            let (data, updates) = (c.float(&[4, 3]), c.float(&updates));
            let indices = c.indices(&[5], &[2, 0, 2, 1, 2]);
            let y = c.f.scatter_add(data, indices, updates, axis)?;
            c.f.square(y)
        });
        check.that(|c| {
            let (data, updates) = (c.float(&[4, 3]), c.float(&updates));
            let indices = c.indices(&[5], &[2, 0, 2, 1, 2]);
            c.f.scatter_add(data, indices, updates, axis)
        });
    }
}

fn scatter_along_axis_add(check: &Check) {
    for (axis, length, shape) in [(0, 4, [6, 3]), (1, 3, [4, 1]), (1, 3, [2, 5])] {
        check.that(|c| {
            let (data, updates) = (c.float(&[4, 3]), c.float(&shape));
            let values: Vec<i32> =
                (0..shape.iter().product()).map(|i| (scrambled(i) % length) as i32).collect();
            let indices = c.indices(&shape, &values);
            let y = c.f.scatter_along_axis_add(data, indices, updates, axis)?;
            c.f.square(y)
        });
    }
}

fn reshape(check: &Check) {
    for shape in [&[6, 4][..], &[24], &[4, 1, 3, 2]] {
        check.that(|c| {
            let x = c.float(&[2, 3, 4]);
            c.f.reshape(x, shape)
        });
    }
}

fn transpose(check: &Check) {
    for perm in [[2, 0, 1], [1, 2, 0], [0, 2, 1]] {
        check.that(|c| {
            let x = c.float(&[2, 3, 4]);
            c.f.transpose(x, &perm)
        });
    }
    check.that(|c| {
        let x = c.float(&[2, 1, 3, 4, 2]);
        c.f.transpose(x, &[3, 4, 0, 2, 1])
    });
}

fn concat(check: &Check) {
    check.that(|c| {
        let (x, y) = (c.float(&[2, 3, 2]), c.float(&[2, 1, 2]));
        let k = c.f.fill(DType::F64, &[2, 2, 2], 1.0);
        c.f.concat(&[x, k, y, x], 1)
    });
}

fn split(check: &Check) {
    check.that(|c| {
        let x = c.float(&[3, 9]);
        let pieces = c.f.split(x, 1, &[3, 2, 1, 3])?;
        let product = c.f.mul(pieces[0], pieces[3])?;
        c.f.mul(product, pieces[2])
    });
}

fn tile(check: &Check) {
    for reps in [[2, 1, 3], [1, 3, 1], [2, 3, 2], [1, 1, 1]] {
        check.that(|c| {
            let x = c.float(&[2, 1, 3]);
            c.f.tile(x, &reps)
        });
    }
    check.that(|c| {
        let x = c.float(&[1, 2, 1, 2, 3]);
        c.f.tile(x, &[2, 2, 1, 3, 2])
    });
}
