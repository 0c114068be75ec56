//! Softmax, products, attention and ops that move elements, by hand.

use arcane_mil::{Builder, Convolution, Op, PadType, ScatterMode, ValueId};
use arcane_tensor::{DType, Tensor};

use super::{INF, NAN, assert_same, attempt, bools, bound, f32s, fails, function, gives, i32s, iota, tensor};

#[test]
fn softmax_subtracts_the_maximum_along_its_axis() {
    let third = 1.0 / 3.0;
    gives(&[f32s(&[3], &[1e4; 3])], |f, x| f.softmax(x[0], 0), &f32s(&[3], &[third; 3]));
    gives(&[f32s(&[2], &[0.0, -INF])], |f, x| f.softmax(x[0], 0), &f32s(&[2], &[1.0, 0.0]));
    gives(&[f32s(&[2], &[-INF, -INF])], |f, x| f.softmax(x[0], 0), &f32s(&[2], &[NAN, NAN]));
    let ln3 = 3f64.ln();
    let x = tensor(DType::F16, &[2, 2], &[0.0, 5.0, 0.0, 5.0]);
    gives(&[x], |f, x| f.softmax(x[0], 0), &tensor(DType::F16, &[2, 2], &[0.5; 4]));
    let x = f32s(&[1, 2, 2], &[0.0, 1.0, ln3, 1.0]);
    gives(&[x], |f, x| f.softmax(x[0], 1), &f32s(&[1, 2, 2], &[0.25, 0.5, 0.75, 0.5]));
}

#[test]
fn matmul_transposes_and_broadcasts_batches() {
    let (x, y) = (iota(&[2, 3]), iota(&[3, 2]));
    gives(
        &[x.clone(), y.clone()],
        |f, v| f.matmul(v[0], v[1], false, false),
        &f32s(&[2, 2], &[10.0, 13.0, 28.0, 40.0]),
    );
    gives(
        &[x.clone(), x.clone()],
        |f, v| f.matmul(v[0], v[1], false, true),
        &f32s(&[2, 2], &[5.0, 14.0, 14.0, 50.0]),
    );
    gives(
        &[x.clone(), x],
        |f, v| f.matmul(v[0], v[1], true, false),
        &f32s(&[3, 3], &[9.0, 12.0, 15.0, 12.0, 17.0, 22.0, 15.0, 22.0, 29.0]),
    );
    gives(
        &[iota(&[1, 2]), iota(&[2, 1])],
        |f, v| f.matmul(v[0], v[1], true, true),
        &f32s(&[2, 2], &[0.0, 0.0, 0.0, 1.0]),
    );
    let batched = iota(&[2, 1, 1, 2]);
    let stacked = f32s(&[2, 2, 1], &[1.0, 10.0, 100.0, 1000.0]);
    gives(
        &[batched, stacked],
        |f, v| f.matmul(v[0], v[1], false, false),
        &f32s(&[2, 2, 1, 1], &[10.0, 1000.0, 32.0, 3200.0]),
    );
    gives(
        &[iota(&[2, 0]), iota(&[0, 1])],
        |f, v| f.matmul(v[0], v[1], false, false),
        &f32s(&[2, 1], &[0.0; 2]),
    );
}

#[test]
fn products_are_rounded_once() {
    let x = tensor(DType::F16, &[1, 3], &[2048.0, 1.0, 1.0]);
    let ones = tensor(DType::F16, &[3, 1], &[1.0; 3]);
    gives(&[x, ones], |f, v| f.matmul(v[0], v[1], false, false), &tensor(DType::F16, &[1, 1], &[2050.0]));
    // 1 + 2⁻¹¹ + 2⁻²⁶ is above a tie, which rounding to fp32 on the way would land on.
    let x = tensor(DType::F16, &[1, 3], &[1.0, 2f64.powi(-11), 2f64.powi(-12)]);
    let y = tensor(DType::F16, &[3, 1], &[1.0, 1.0, 2f64.powi(-14)]);
    let expected = tensor(DType::F16, &[1, 1], &[1.0 + 2f64.powi(-10)]);
    gives(&[x, y], |f, v| f.matmul(v[0], v[1], false, false), &expected);
}

#[test]
fn integer_products_wrap() {
    let x = i32s(&[1, 2], &[65536.0, 3.0]);
    let y = i32s(&[2, 1], &[65536.0, 5.0]);
    gives(&[x.clone(), y], |f, v| f.matmul(v[0], v[1], false, false), &i32s(&[1, 1], &[15.0]));
    let (w, b) = (i32s(&[1, 2], &[0.0, 1.0]), i32s(&[1], &[f64::from(i32::MAX)]));
    gives(&[x, w, b], |f, v| f.linear(v[0], v[1], Some(v[2])), &i32s(&[1, 1], &[f64::from(i32::MIN) + 2.0]));
}

#[test]
fn linear_multiplies_by_the_transposed_weight() {
    let (x, w) = (iota(&[2, 1, 2]), f32s(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    gives(
        &[x.clone(), w.clone()],
        |f, v| f.linear(v[0], v[1], None),
        &f32s(&[2, 1, 3], &[0.0, 1.0, 1.0, 2.0, 3.0, 5.0]),
    );
    let bias = f32s(&[3], &[10.0, 20.0, 30.0]);
    gives(
        &[x, w.clone(), bias],
        |f, v| f.linear(v[0], v[1], Some(v[2])),
        &f32s(&[2, 1, 3], &[10.0, 21.0, 31.0, 12.0, 23.0, 35.0]),
    );
    gives(&[iota(&[2]), w], |f, v| f.linear(v[0], v[1], None), &f32s(&[3], &[0.0, 1.0, 1.0]));
}

#[test]
fn conv_slides_a_window_over_each_group() {
    let x = iota(&[1, 2, 2, 3]);
    let w = f32s(&[2, 1, 1, 2], &[1.0, 10.0, 1.0, 100.0]);
    let conv = |v: &[ValueId]| Convolution { groups: 2, ..Convolution::pointwise(v[0], v[1], None, 4) };
    let all = f32s(&[1, 2, 2, 2], &[10.0, 21.0, 43.0, 54.0, 706.0, 807.0, 1009.0, 1110.0]);
    gives(&[x.clone(), w.clone()], |f, v| f.push_one(Op::Convolution(conv(v))), &all);
    // Of three positions with one zero before them and stride 2: (0, x0) and (x1, x2).
    let strided = |v: &[ValueId]| Convolution {
        pad_type: PadType::Custom,
        pad: vec![0, 0, 1, 0],
        strides: vec![1, 2],
        bias: Some(v[2]),
        ..conv(v)
    };
    let found = f32s(&[1, 2, 2, 2], &[0.5, 21.5, 30.5, 54.5, 601.0, 808.0, 901.0, 1111.0]);
    let bias = f32s(&[2], &[0.5, 1.0]);
    gives(&[x.clone(), w.clone(), bias], |f, v| f.push_one(Op::Convolution(strided(v))), &found);
    // `same` puts the odd zero at the end, `same_lower` at the start; a dilated pair takes every other element.
    let ends = |pad_type, dilation| {
        move |f: &mut Builder, v: &[ValueId]| {
            f.push_one(Op::Convolution(Convolution { pad_type, dilations: vec![1, dilation], ..conv(v) }))
        }
    };
    let row = iota(&[1, 2, 1, 3]);
    let rows = |values: [f64; 6]| f32s(&[1, 2, 1, 3], &values);
    let inputs = [row, w];
    gives(&inputs, ends(PadType::Same, 1), &rows([10.0, 21.0, 2.0, 403.0, 504.0, 5.0]));
    gives(&inputs, ends(PadType::SameLower, 1), &rows([0.0, 10.0, 21.0, 300.0, 403.0, 504.0]));
    gives(&inputs, ends(PadType::Same, 2), &rows([10.0, 20.0, 1.0, 400.0, 503.0, 4.0]));
}

#[test]
fn fp16_conv_rounds_once_behind_the_bias() {
    // 2048 + 1 is a tie in fp16, to even; with the bias it is 2050.
    let x = tensor(DType::F16, &[1, 2, 1], &[2048.0, 1.0]);
    let w = tensor(DType::F16, &[1, 2, 1], &[1.0, 1.0]);
    let bias = tensor(DType::F16, &[1], &[0.5]);
    let conv = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Convolution(Convolution::pointwise(v[0], v[1], v.get(2).copied(), 3)))
    };
    gives(&[x.clone(), w.clone()], conv, &tensor(DType::F16, &[1, 1, 1], &[2048.0]));
    gives(&[x, w, bias], conv, &tensor(DType::F16, &[1, 1, 1], &[2050.0]));
}

/// Two queries of width 4 over two keys; scores are 0 and ln 3 for either query.
fn attention_inputs() -> [Tensor; 3] {
    let ln3 = 3f64.ln();
    let query = f32s(&[1, 2, 4], &[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
    let key = f32s(&[1, 2, 4], &[0.0, 9.0, 9.0, 9.0, ln3, 9.0, 9.0, 9.0]);
    [query, key, f32s(&[1, 2, 1], &[8.0, 16.0])]
}

#[test]
fn attention_weights_values_by_the_softmax_of_scores() {
    gives(&attention_inputs(), |f, v| f.attention(v[0], v[1], v[2], None), &f32s(&[1, 2, 1], &[14.0, 14.0]));
}

#[test]
fn attention_masks_hide_or_add() {
    let with = |mask: Tensor, expected: &[f64]| {
        let inputs = [attention_inputs().to_vec(), vec![mask]].concat();
        let found = attempt(&inputs, |f, v| f.attention(v[0], v[1], v[2], Some(v[3]))).unwrap();
        assert_same(&found, &f32s(&[1, 2, 1], expected));
    };
    with(bools(&[2, 2], &[1.0, 0.0, 1.0, 1.0]), &[8.0, 14.0]);
    with(bools(&[1, 1, 2], &[0.0, 1.0]), &[16.0, 16.0]);
    with(f32s(&[2, 2], &[0.0, -INF, 0.0, 0.0]), &[8.0, 14.0]);
    with(f32s(&[2, 1], &[5.0, -7.0]), &[14.0, 14.0]);
    with(bools(&[2, 2], &[0.0, 0.0, 1.0, 1.0]), &[NAN, 14.0]);
}

#[test]
fn attention_batches_are_separate() {
    let query = f32s(&[2, 1, 1], &[0.0, 0.0]);
    let key = f32s(&[2, 2, 1], &[0.0; 4]);
    let value = f32s(&[2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]);
    let mask = bools(&[2, 1, 2], &[1.0, 1.0, 0.0, 1.0]);
    gives(
        &[query, key, value, mask],
        |f, v| f.attention(v[0], v[1], v[2], Some(v[3])),
        &f32s(&[2, 1, 2], &[2.0, 3.0, 30.0, 40.0]),
    );
}

#[test]
fn gather_takes_slices() {
    let x = iota(&[2, 3, 2]);
    let indices = i32s(&[2], &[2.0, 0.0]);
    gives(
        &[x.clone(), indices],
        |f, v| f.gather(v[0], v[1], 1),
        &f32s(&[2, 2, 2], &[4.0, 5.0, 0.0, 1.0, 10.0, 11.0, 6.0, 7.0]),
    );
    gives(
        &[x.clone(), i32s(&[], &[1.0])],
        |f, v| f.gather(v[0], v[1], 0),
        &f32s(&[3, 2], &[6.0, 7.0, 8.0, 9.0, 10.0, 11.0]),
    );
    let grid = tensor(DType::U16, &[2, 1], &[1.0, 0.0]);
    gives(&[iota(&[2]), grid], |f, v| f.gather(v[0], v[1], 0), &f32s(&[2, 1], &[1.0, 0.0]));
    for (index, shown) in [(3.0, "3"), (-4.0, "-4")] {
        fails(
            &[x.clone(), i32s(&[1], &[index])],
            |f, v| f.scope("embed", |f| f.gather(v[0], v[1], 1)),
            &format!("gather at `embed.gather`: index {shown} is outside an axis of length 3"),
        );
    }
}

#[test]
fn gather_along_axis_takes_elements() {
    let x = iota(&[2, 3]);
    gives(
        &[x.clone(), i32s(&[2, 1], &[2.0, 0.0])],
        |f, v| f.gather_along_axis(v[0], v[1], 1),
        &f32s(&[2, 1], &[2.0, 3.0]),
    );
    let rows = i32s(&[3, 2], &[0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    gives(
        &[x.clone(), rows],
        |f, v| f.gather_along_axis(v[0], v[1], 0),
        &f32s(&[3, 2], &[0.0, 4.0, 3.0, 1.0, 3.0, 4.0]),
    );
    fails(
        &[x, i32s(&[2, 1], &[0.0, 3.0])],
        |f, v| f.gather_along_axis(v[0], v[1], 1),
        "gather_along_axis at `gather_along_axis`: index 3 is outside an axis of length 3",
    );
}

#[test]
fn scatter_combines_slices() {
    let data = f32s(&[3, 2], &[1.0; 6]);
    let indices = i32s(&[3], &[2.0, 0.0, 2.0]);
    let updates = f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let scattered = |mode, expected: &[f64]| {
        gives(
            &[data.clone(), indices.clone(), updates.clone()],
            |f, v| f.push_one(Op::Scatter { data: v[0], indices: v[1], updates: v[2], axis: 0, mode }),
            &f32s(&[3, 2], expected),
        );
    };
    scattered(ScatterMode::Add, &[4.0, 5.0, 1.0, 1.0, 7.0, 9.0]);
    scattered(ScatterMode::Update, &[3.0, 4.0, 1.0, 1.0, 5.0, 6.0]);
    let inner = [f32s(&[2, 2], &[0.0; 4]), i32s(&[1], &[1.0]), f32s(&[2, 1], &[5.0, 6.0])];
    gives(&inner, |f, v| f.scatter_add(v[0], v[1], v[2], 1), &f32s(&[2, 2], &[0.0, 5.0, 0.0, 6.0]));
    fails(
        &[data, i32s(&[3], &[0.0, 3.0, 0.0]), updates],
        |f, v| f.scatter_add(v[0], v[1], v[2], 0),
        "scatter at `scatter`: index 3 is outside an axis of length 3",
    );
}

#[test]
fn repeated_updates_are_rounded_once() {
    let data = tensor(DType::F16, &[1], &[2048.0]);
    let inputs = [data, i32s(&[2], &[0.0, 0.0]), tensor(DType::F16, &[2], &[1.0, 1.0])];
    gives(&inputs, |f, v| f.scatter_add(v[0], v[1], v[2], 0), &tensor(DType::F16, &[1], &[2050.0]));
    let inputs = [i32s(&[1], &[f64::from(i32::MAX)]), i32s(&[2], &[0.0; 2]), i32s(&[2], &[1.0, 1.0])];
    gives(&inputs, |f, v| f.scatter_add(v[0], v[1], v[2], 0), &i32s(&[1], &[f64::from(i32::MIN) + 1.0]));
}

#[test]
fn scatter_along_axis_combines_elements() {
    let data = f32s(&[2, 3], &[1.0; 6]);
    let indices = i32s(&[2, 2], &[2.0, 2.0, 0.0, 1.0]);
    let updates = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let scattered = |mode, expected: &[f64]| {
        gives(
            &[data.clone(), indices.clone(), updates.clone()],
            |f, v| {
                f.push_one(Op::ScatterAlongAxis { data: v[0], indices: v[1], updates: v[2], axis: 1, mode })
            },
            &f32s(&[2, 3], expected),
        );
    };
    scattered(ScatterMode::Add, &[1.0, 1.0, 4.0, 4.0, 5.0, 1.0]);
    scattered(ScatterMode::Update, &[1.0, 1.0, 2.0, 3.0, 4.0, 1.0]);
    fails(
        &[data, i32s(&[2, 2], &[0.0, -4.0, 0.0, 0.0]), updates],
        |f, v| f.scatter_along_axis_add(v[0], v[1], v[2], 1),
        "scatter_along_axis at `scatter_along_axis`: index -4 is outside an axis of length 3",
    );
}

#[test]
fn reshape_and_transpose() {
    gives(&[iota(&[2, 3])], |f, v| f.reshape(v[0], &[3, 1, 2]), &iota(&[3, 1, 2]));
    gives(
        &[iota(&[2, 3])],
        |f, v| f.transpose(v[0], &[1, 0]),
        &f32s(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
    );
    // Result [c, a, b] is x [a, b, c].
    gives(
        &[iota(&[2, 2, 3])],
        |f, v| f.transpose(v[0], &[2, 0, 1]),
        &f32s(&[3, 2, 2], &[0.0, 3.0, 6.0, 9.0, 1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0]),
    );
}

#[test]
fn concat_and_split_are_inverse() {
    let (a, b) = (iota(&[2, 1]), f32s(&[2, 2], &[10.0, 11.0, 12.0, 13.0]));
    let joined = f32s(&[2, 3], &[0.0, 10.0, 11.0, 1.0, 12.0, 13.0]);
    gives(&[a.clone(), b.clone()], |f, v| f.concat(v, 1), &joined);
    let cut = function(std::slice::from_ref(&joined), |f, v| f.split(v[0], 1, &[1, 2]));
    let pieces = arcane_mil::evaluate(&cut, &bound(&[joined])).unwrap();
    assert_same(&pieces["y0"], &a);
    assert_same(&pieces["y1"], &b);
    gives(&[iota(&[1, 2]), iota(&[1, 2])], |f, v| f.concat(v, 0), &f32s(&[2, 2], &[0.0, 1.0, 0.0, 1.0]));
}

#[test]
fn tile_repeats_the_whole() {
    gives(
        &[iota(&[1, 2])],
        |f, v| f.tile(v[0], &[2, 2]),
        &f32s(&[2, 4], &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]),
    );
    gives(&[iota(&[2, 1])], |f, v| f.tile(v[0], &[1, 2]), &f32s(&[2, 2], &[0.0, 0.0, 1.0, 1.0]));
    gives(&[iota(&[2, 1])], |f, v| f.tile(v[0], &[2, 1]), &f32s(&[4, 1], &[0.0, 1.0, 0.0, 1.0]));
}
