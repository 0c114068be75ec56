//! Transposed convolutions and pools, by hand.

use arcane_mil::{Builder, Op, PadType, Pool, PoolKind, TransposedConvolution, ValueId};

use super::golden::prints_family;
use super::reading::text;
use super::refusals::refuses_text;
use super::{INF, NAN, f32s, gives, iota};

fn transposed(v: &[ValueId], spatial: usize) -> TransposedConvolution {
    TransposedConvolution {
        x: v[0],
        weight: v[1],
        bias: v.get(2).copied(),
        strides: vec![1; spatial],
        pad_type: PadType::Valid,
        pad: vec![0; 2 * spatial],
        dilations: vec![1; spatial],
        groups: 1,
        output_shape: None,
    }
}

#[test]
fn conv_transpose_adds_the_kernel_at_each_element() {
    let x = f32s(&[1, 1, 3], &[1.0, 2.0, 3.0]);
    let w = f32s(&[1, 1, 2], &[1.0, 10.0]);
    let bias = f32s(&[1], &[0.5]);
    let push = |edit: fn(&mut TransposedConvolution)| {
        move |f: &mut Builder, v: &[ValueId]| {
            let mut c = transposed(v, 1);
            edit(&mut c);
            f.push_one(Op::TransposedConvolution(c))
        }
    };
    let row = |values: &[f64]| f32s(&[1, 1, values.len()], values);
    let two = [x.clone(), w.clone()];
    gives(&two, push(|_| ()), &row(&[1.0, 12.0, 23.0, 30.0]));
    gives(&two, push(|c| c.strides = vec![2]), &row(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]));
    gives(&two, push(|c| c.dilations = vec![2]), &row(&[1.0, 2.0, 13.0, 20.0, 30.0]));
    let custom = |c: &mut TransposedConvolution| (c.pad_type, c.pad) = (PadType::Custom, vec![1, 0]);
    gives(&two, push(custom), &row(&[12.0, 23.0, 30.0]));
    // Same keeps 3 · 1 positions of 4, the odd one is cut at the end; of stride 3 there are more than the full result has.
    gives(&two, push(|c| c.pad_type = PadType::Same), &row(&[1.0, 12.0, 23.0]));
    let three = [x, w, bias];
    let beyond = |c: &mut TransposedConvolution| (c.pad_type, c.strides) = (PadType::Same, vec![3]);
    gives(&three, push(beyond), &row(&[1.5, 10.5, 0.5, 2.5, 20.5, 0.5, 3.5, 30.5, 0.5]));
    gives(&two, push(|c| c.output_shape = Some(vec![1, 1, 2])), &row(&[12.0, 23.0]));
}

#[test]
fn conv_transpose_keeps_groups_apart() {
    let x = f32s(&[1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let w = f32s(&[2, 2, 1, 1], &[1.0, 10.0, 100.0, 1000.0]);
    let push = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::TransposedConvolution(TransposedConvolution { groups: 2, ..transposed(v, 2) }))
    };
    let expected = f32s(&[1, 4, 1, 2], &[1.0, 2.0, 10.0, 20.0, 300.0, 400.0, 3000.0, 4000.0]);
    gives(&[x, w], push, &expected);
}

fn pool(x: ValueId, kind: PoolKind, size: usize, stride: usize) -> Pool {
    Pool {
        kind,
        x,
        kernel_sizes: vec![size],
        strides: vec![stride],
        pad_type: PadType::Valid,
        pad: vec![0, 0],
        ceil_mode: false,
    }
}

#[test]
fn pools_take_each_window_by_itself() {
    const MEAN: PoolKind = PoolKind::Average { exclude_padding: false };
    const OF_THOSE: PoolKind = PoolKind::Average { exclude_padding: true };
    let x = f32s(&[1, 1, 5], &[3.0, 1.0, 4.0, 1.0, 5.0]);
    let push = |kind, size, stride, edit: fn(&mut Pool)| {
        move |f: &mut Builder, v: &[ValueId]| {
            let mut p = pool(v[0], kind, size, stride);
            edit(&mut p);
            f.push_one(Op::Pool(p))
        }
    };
    let row = |values: &[f64]| f32s(&[1, 1, values.len()], values);
    let one = [x];
    let padded = |p: &mut Pool| (p.pad_type, p.pad) = (PadType::Custom, vec![1, 1]);
    gives(&one, push(PoolKind::Max, 2, 2, |_| ()), &row(&[3.0, 4.0]));
    gives(&one, push(PoolKind::Max, 2, 2, |p| p.ceil_mode = true), &row(&[3.0, 4.0, 5.0]));
    gives(&one, push(MEAN, 2, 2, |_| ()), &row(&[2.0, 2.5]));
    // A last window that only ceil_mode has counts what there is.
    gives(&one, push(MEAN, 2, 2, |p| p.ceil_mode = true), &row(&[2.0, 2.5, 5.0]));
    gives(&one, push(MEAN, 2, 3, padded), &row(&[1.5, 2.5]));
    gives(&one, push(OF_THOSE, 2, 3, padded), &row(&[3.0, 2.5]));
    gives(&one, push(PoolKind::L2, 2, 2, padded), &row(&[3.0, 17f64.sqrt(), 26f64.sqrt()]));
    gives(&one, push(PoolKind::Max, 2, 4, |p| p.pad_type = PadType::Same), &row(&[3.0, 5.0]));
    // Negative elements beside padding, and NaN.
    let signs = [f32s(&[1, 1, 3], &[-2.0, NAN, -INF])];
    gives(&signs, push(PoolKind::Max, 2, 2, padded), &row(&[-2.0, NAN]));
    let image = [iota(&[1, 2, 2, 3])];
    let sums = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Pool(Pool {
            kernel_sizes: vec![2, 2],
            strides: vec![1, 1],
            pad: vec![0; 4],
            ..pool(v[0], MEAN, 1, 1)
        }))
    };
    gives(&image, sums, &f32s(&[1, 2, 1, 2], &[2.0, 3.0, 8.0, 9.0]));
}

#[test]
fn windows_in_text_are_checked() {
    let pool = |arguments: &str| {
        text(
            "tensor<fp16, [1, 2, 5]> x",
            &format!("tensor<fp16, [1, 2, 4]> y = max_pool(x = x, {arguments});"),
            "y",
        )
    };
    let sizes = "kernel_sizes = tensor<int32, [1]>([2])";
    refuses_text(
        &pool(sizes),
        "4:29: max_pool: the parameter `pad_type` is missing, expected a value for it",
    );
    refuses_text(
        &pool("kernel_sizes = tensor<int32, [1]>([6]), pad_type = string(\"valid\")"),
        "4:29: max_pool: the window reaches over 6 elements of spatial dimension 0, \
         x tensor<fp16, [1, 2, 5]> has 5 with its padding",
    );
    refuses_text(
        &pool(&format!("{sizes}, pad_type = string(\"same\"), ceil_mode = bool(true)")),
        "4:29: max_pool: pad_type is same, another was expected with ceil_mode",
    );
    refuses_text(
        &pool(&format!(
            "{sizes}, pad_type = string(\"custom\"), pad = tensor<int32, [2]>([0, 1]), ceil_mode = bool(true)"
        )),
        "4:29: max_pool: pad is [0, 1], equal numbers before and after a dimension were expected with ceil_mode",
    );
    let old = pool(&format!("{sizes}, pad_type = string(\"same_lower\")")).replace("ios18", "ios15");
    refuses_text(&old, "4:96: pad_type is same_lower, which exists from ios16, expected same");
}

#[test]
fn their_text_is_canonical() {
    prints_family("spatial", |f, x| {
        let image = f.reshape(x, &[1, 2, 2, 2])?;
        let weight = f.constant("weight", iota(&[2, 1, 2, 2]).cast(arcane_tensor::DType::F16));
        let mut c = TransposedConvolution { groups: 2, ..transposed(&[image, weight], 2) };
        let plain = f.push_one(Op::TransposedConvolution(c.clone()))?;
        c.output_shape = Some(vec![1, 2, 2, 2]);
        (c.pad_type, c.pad) = (PadType::Custom, vec![1, 0, 0, 1]);
        let cut = f.push_one(Op::TransposedConvolution(c))?;
        let mut outputs = vec![plain, cut];
        for kind in [PoolKind::Max, PoolKind::Average { exclude_padding: true }, PoolKind::L2] {
            let p = Pool {
                kernel_sizes: vec![2, 1],
                strides: vec![1, 2],
                pad: vec![1, 1, 0, 0],
                pad_type: PadType::Custom,
                ceil_mode: kind == PoolKind::L2,
                ..pool(image, kind, 1, 1)
            };
            outputs.push(f.push_one(Op::Pool(p))?);
        }
        Ok(outputs)
    });
}
