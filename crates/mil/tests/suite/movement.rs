//! Ops that move elements or make arrays, by hand; their text; and shapes that depend on values.

use std::collections::BTreeMap;

use arcane_mil::{
    BoxMode, Builder, Coordinates, Dimensions, Factors, Grid, Index, Interpolation, Join, JoinKind, Make,
    NoWeights, Op, Opset, Outside, Pad, PadMode, Position, Range, Rearrange, Rearrangement, Role, Sample,
    ScatterMode, Slice, TensorType, ValueId, check, evaluate, print, read, read_for,
};
use arcane_tensor::{DType, Tensor};

use super::golden::prints;
use super::reading::{comes_back, text};
use super::{attempt, f32s, fails, gives, i32s, iota};

fn sliced(range: Range) -> impl FnOnce(&mut Builder, &[ValueId]) -> Result<ValueId, arcane_mil::BuildError> {
    move |f, v| f.push_one(Op::Slice(Slice::ByIndex { x: v[0], range }))
}

#[test]
fn slices_are_those_of_numpy() {
    let backwards = Range { stride: vec![-2], ..Range::new(&[5], &[0]) };
    gives(&[iota(&[6])], sliced(backwards), &f32s(&[3], &[5.0, 3.0, 1.0]));
    gives(&[iota(&[6])], sliced(Range::new(&[-3], &[100])), &f32s(&[3], &[3.0, 4.0, 5.0]));
    let row = Range {
        squeeze_mask: vec![true, false],
        end_mask: vec![false, true],
        ..Range::new(&[1, 0], &[0, 0])
    };
    gives(&[iota(&[2, 3])], sliced(row), &f32s(&[3], &[3.0, 4.0, 5.0]));
    let to_the_end = |f: &mut Builder, v: &[ValueId]| {
        let begin = Position::Known(vec![-3]);
        f.push_one(Op::Slice(Slice::BySize { x: v[0], begin, size: vec![-1] }))
    };
    gives(&[iota(&[4])], to_the_end, &f32s(&[3], &[1.0, 2.0, 3.0]));
    let from = |f: &mut Builder, v: &[ValueId]| {
        let begin = Position::Value(v[1]);
        f.push_one(Op::Slice(Slice::BySize { x: v[0], begin, size: vec![2] }))
    };
    gives(&[iota(&[4]), i32s(&[1], &[-2.0])], from, &f32s(&[2], &[2.0, 3.0]));
    let message = "slice_by_size at `slice_by_size`: index 4 is outside an axis of length 4";
    fails(&[iota(&[4]), i32s(&[1], &[3.0])], from, message);
}

#[test]
fn an_update_replaces_a_range() {
    let update = |range: Range| {
        move |f: &mut Builder, v: &[ValueId]| {
            f.push_one(Op::Slice(Slice::Update { x: v[0], update: v[1], range }))
        }
    };
    let two = f32s(&[2], &[10.0, 20.0]);
    let backwards = Range { stride: vec![-2], ..Range::new(&[3], &[0]) };
    gives(&[iota(&[4]), two.clone()], update(backwards), &f32s(&[4], &[0.0, 20.0, 2.0, 10.0]));
    let at_run_time = |f: &mut Builder, v: &[ValueId]| {
        let range =
            Range { begin: Position::Value(v[2]), end: Position::Value(v[2]), ..Range::new(&[0], &[0]) };
        f.push_one(Op::Slice(Slice::Update { x: v[0], update: v[1], range }))
    };
    gives(&[iota(&[4]), two, i32s(&[1], &[-3.0])], at_run_time, &f32s(&[4], &[0.0, 10.0, 20.0, 3.0]));
}

#[test]
fn pads_put_numbers_or_mirrors_around() {
    let pad = |mode, pad: [usize; 2]| {
        move |f: &mut Builder, v: &[ValueId]| f.push_one(Op::Pad(Pad { x: v[0], pad: pad.to_vec(), mode }))
    };
    let x = f32s(&[3], &[1.0, 2.0, 3.0]);
    gives(
        std::slice::from_ref(&x),
        pad(PadMode::Constant(7.0), [1, 2]),
        &f32s(&[6], &[7.0, 1.0, 2.0, 3.0, 7.0, 7.0]),
    );
    gives(
        std::slice::from_ref(&x),
        pad(PadMode::Reflect, [2, 1]),
        &f32s(&[6], &[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]),
    );
    gives(
        std::slice::from_ref(&x),
        pad(PadMode::Replicate, [2, 1]),
        &f32s(&[6], &[1.0, 1.0, 1.0, 2.0, 3.0, 3.0]),
    );
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[3]), Role::Batch);
    let error = f.push(Op::Pad(Pad { x, pad: vec![3, 0], mode: PadMode::Reflect })).unwrap_err();
    let what = "pad has 3 and 0 for dimension 0 of x tensor<fp32, [3]>, at most 2 were expected";
    assert_eq!(error.source.to_string(), what);
}

fn rearranged(
    kind: Rearrangement,
) -> impl FnOnce(&mut Builder, &[ValueId]) -> Result<ValueId, arcane_mil::BuildError> {
    move |f, v| f.push_one(Op::Rearrange(Rearrange { x: v[0], kind }))
}

#[test]
fn blocks_and_channels_change_places() {
    use Rearrangement as R;
    // Eight channels of one pixel: two of a block of 2 by 2.
    let x = iota(&[1, 8, 1, 1]);
    let depth = [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0];
    gives(std::slice::from_ref(&x), rearranged(R::DepthToSpace { block: 2 }), &f32s(&[1, 2, 2, 2], &depth));
    let pixels: Vec<f64> = (0..8).map(f64::from).collect();
    gives(&[x], rearranged(R::PixelShuffle { factor: 2 }), &f32s(&[1, 2, 2, 2], &pixels));
    for (there, back, shape) in [
        (R::SpaceToDepth { block: 2 }, R::DepthToSpace { block: 2 }, [2, 3, 4, 2]),
        (R::PixelUnshuffle { factor: 2 }, R::PixelShuffle { factor: 2 }, [2, 3, 4, 2]),
        (
            R::SpaceToBatch { block: [3, 2], paddings: [[1, 0], [2, 1]] },
            R::BatchToSpace { block: [3, 2], crops: [[1, 0], [2, 1]] },
            [2, 3, 5, 3],
        ),
    ] {
        let there_and_back = |f: &mut Builder, v: &[ValueId]| {
            let x = f.push_one(Op::Rearrange(Rearrange { x: v[0], kind: there }))?;
            f.push_one(Op::Rearrange(Rearrange { x, kind: back }))
        };
        gives(&[iota(&shape)], there_and_back, &iota(&shape));
    }
    // Batch elements are numbered (row in the block, column).
    let batch = R::SpaceToBatch { block: [2, 2], paddings: [[0, 0], [0, 0]] };
    gives(&[iota(&[1, 1, 2, 2])], rearranged(batch), &iota(&[4, 1, 1, 1]));
}

#[test]
fn rows_columns_and_windows() {
    use Rearrangement as R;
    let crop = R::Crop { height: [1, 0], width: [0, 1] };
    gives(&[iota(&[1, 2, 2])], rearranged(crop), &f32s(&[1, 1, 1], &[2.0]));
    let band = R::BandPart { lower: 0, upper: 1 };
    gives(&[iota(&[2, 3])], rearranged(band), &f32s(&[2, 3], &[0.0, 1.0, 0.0, 0.0, 4.0, 5.0]));
    let windows = R::SlidingWindows { axis: 0, size: 2, stride: 2 };
    gives(&[iota(&[5])], rearranged(windows), &f32s(&[2, 2], &[0.0, 1.0, 2.0, 3.0]));
    gives(&[iota(&[3])], rearranged(R::Reverse { axes: vec![0] }), &f32s(&[3], &[2.0, 1.0, 0.0]));
    let larger = R::Upsample { factors: Factors::Real([1.0, 2.5]) };
    gives(&[iota(&[1, 1, 2])], rearranged(larger), &f32s(&[1, 1, 5], &[0.0, 0.0, 0.0, 1.0, 1.0]));
}

#[test]
fn dimensions_come_and_go() {
    let shape_of = |op: fn(ValueId) -> Dimensions, shape: &[usize]| {
        attempt(&[iota(shape)], |f, v| f.push_one(Op::Dimensions(op(v[0])))).unwrap().shape().to_vec()
    };
    assert_eq!(shape_of(|x| Dimensions::Expand { x, axes: vec![0, 2] }, &[2]), [1, 2, 1]);
    assert_eq!(shape_of(|x| Dimensions::Flatten { x, axis: 2 }, &[2, 3, 2]), [6, 2]);
    assert_eq!(shape_of(|x| Dimensions::Flatten { x, axis: 0 }, &[5]), [1, 5]);
    assert_eq!(shape_of(|x| Dimensions::Squeeze { x, axes: None }, &[1, 2, 1]), [2]);
    assert_eq!(shape_of(|x| Dimensions::Squeeze { x, axes: Some(vec![0, 1]) }, &[1, 2, 1]), [2, 1]);
    let like = |x| Dimensions::Like { x, refs: vec![x, x], ranges: vec![(0, Some(1)), (-1, None)] };
    assert_eq!(shape_of(like, &[2, 1, 3]), [2, 3]);
}

#[test]
fn joins_take_an_element_of_each_in_turn() {
    let join = |axis, kind| {
        move |f: &mut Builder, v: &[ValueId]| f.push_one(Op::Join(Join { values: v.to_vec(), axis, kind }))
    };
    let two = [f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[3.0, 4.0])];
    gives(&two, join(0, JoinKind::Interleave), &f32s(&[4], &[1.0, 3.0, 2.0, 4.0]));
    gives(&two, join(0, JoinKind::Stack), &f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
    gives(&two, join(1, JoinKind::Stack), &f32s(&[2, 2], &[1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn arrays_are_made() {
    let hot = |f: &mut Builder, v: &[ValueId]| {
        let (indices, dtype) = (v[0], DType::F32);
        f.push_one(Op::Make(Make::OneHot { indices, size: 3, axis: 1, dtype, on: 2.0, off: -1.0 }))
    };
    let found = f32s(&[3, 3], &[-1.0, 2.0, -1.0, -1.0, -1.0, 2.0, -1.0, -1.0, -1.0]);
    gives(&[i32s(&[3], &[1.0, 2.0, 3.0])], hot, &found);
    let range = |f: &mut Builder, _: &[ValueId]| {
        f.push_one(Op::Make(Make::Range { dtype: DType::F32, start: 5.0, end: 0.0, step: -2.0 }))
    };
    gives(&[], range, &f32s(&[3], &[5.0, 3.0, 1.0]));
}

#[test]
fn indices_have_several_dimensions_and_count_from_the_end() {
    let batched = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Index(Index::GatherBatched { x: v[0], indices: v[1], axis: 1, batch_dims: 1 }))
    };
    let picks = i32s(&[2, 2], &[0.0, -1.0, 1.0, 1.0]);
    gives(&[iota(&[2, 3]), picks], batched, &f32s(&[2, 2], &[0.0, 2.0, 4.0, 4.0]));
    let nd = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Index(Index::GatherNd { x: v[0], indices: v[1], batch_dims: 0 }))
    };
    gives(&[iota(&[2, 3]), i32s(&[2, 2], &[1.0, 0.0, -2.0, 2.0])], nd, &f32s(&[2], &[3.0, 2.0]));
    let scatter = |mode| {
        move |f: &mut Builder, v: &[ValueId]| {
            let (data, indices, updates) = (v[0], v[1], v[2]);
            f.push_one(Op::Index(Index::ScatterNd { data, indices, updates, mode }))
        }
    };
    let twice = i32s(&[2, 1], &[1.0, -1.0]);
    for (mode, found) in [
        (ScatterMode::Add, 7.0),
        (ScatterMode::Update, 4.0),
        (ScatterMode::Sub, -5.0),
        (ScatterMode::Mul, 8.0),
        (ScatterMode::Div, 0.125),
        (ScatterMode::Max, 4.0),
        (ScatterMode::Min, 1.0),
    ] {
        let inputs = [f32s(&[2], &[9.0, 1.0]), twice.clone(), f32s(&[2], &[2.0, 4.0])];
        gives(&inputs, scatter(mode), &f32s(&[2], &[9.0, found]));
    }
    let reverse = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Index(Index::ReverseSequence { x: v[0], lengths: v[1], seq_axis: 1, batch_axis: 0 }))
    };
    let lengths = i32s(&[2], &[2.0, 0.0]);
    gives(&[iota(&[2, 3]), lengths], reverse, &f32s(&[2, 3], &[1.0, 0.0, 2.0, 3.0, 4.0, 5.0]));
}

#[test]
fn images_are_sampled() {
    let wider = |grid| {
        move |f: &mut Builder, v: &[ValueId]| {
            f.push_one(Op::Sample(Sample::ResizeBilinear { x: v[0], sizes: [1, 4], grid }))
        }
    };
    let x = f32s(&[1, 1, 2], &[0.0, 4.0]);
    gives(std::slice::from_ref(&x), wider(Grid::UnalignCorners), &f32s(&[1, 1, 4], &[0.0, 1.0, 3.0, 4.0]));
    gives(&[x], wider(Grid::Default), &f32s(&[1, 1, 4], &[0.0, 2.0, 4.0, 4.0]));
    let cropped = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Sample(Sample::CropResize {
            x: v[0],
            boxes: v[1],
            box_indices: None,
            sizes: [2, 2],
            normalized: false,
            scale: 1.0,
            mode: BoxMode::CornersHeightFirst,
            grid: Grid::AlignCorners,
            outside: -1.0,
        }))
    };
    let inputs = [iota(&[1, 1, 4, 4]), f32s(&[1, 4], &[2.0, 2.0, 4.0, 3.0])];
    gives(&inputs, cropped, &f32s(&[1, 1, 2, 2], &[10.0, 11.0, -1.0, -1.0]));
    let moved = |f: &mut Builder, v: &[ValueId]| {
        f.push_one(Op::Sample(Sample::Affine { x: v[0], matrix: v[1], sizes: [1, 3] }))
    };
    // The result's row is the image's first; its columns are moved by a pixel and a half.
    let matrix = f32s(&[1, 6], &[1.0, 0.0, 1.5, 0.0, 1.0, 0.0]);
    gives(&[iota(&[1, 1, 2, 3]), matrix], moved, &f32s(&[1, 1, 1, 3], &[1.5, 1.0, 0.0]));
    let points = f32s(&[1, 1, 4, 2], &[0.5, 0.0, -1.0, 0.0, 3.0, 1.0, 1.0, 2.0]);
    let resampled = |outside| {
        move |f: &mut Builder, v: &[ValueId]| {
            f.push_one(Op::Sample(Sample::Resample {
                x: v[0],
                coordinates: v[1],
                interpolation: Interpolation::Linear,
                outside,
                unit: Coordinates::Unnormalized,
                align_corners: true,
            }))
        }
    };
    let image = iota(&[1, 1, 2, 2]);
    for (outside, found) in [
        (Outside::Constant(9.0), [0.5, 9.0, 9.0, 9.0]),
        (Outside::Border, [0.5, 0.0, 3.0, 3.0]),
        (Outside::Reflection, [0.5, 1.0, 3.0, 1.0]),
        (Outside::Symmetric, [0.5, 0.0, 2.0, 3.0]),
    ] {
        gives(&[image.clone(), points.clone()], resampled(outside), &f32s(&[1, 1, 1, 4], &found));
    }
}

#[test]
fn moving_ops_have_a_text() {
    let mut f = Builder::new("main", Opset::Ios18);
    moving_ops(&mut f);
    prints("movement", vec![f.finish()]);
}

#[test]
fn shapes_are_followed_as_exporters_write_them() {
    let body = r"
tensor<int32, [3]> s = shape(x = x);
int32 n = gather(x = s, indices = int32(0), axis = int32(0));
tensor<int32, [2]> all = concat(values = (n, int32(-1)), axis = int32(0));
tensor<fp16, [2, 12]> y = reshape(x = x, shape = all);";
    let text = text("tensor<fp16, [2, 3, 4]> x", body, "y");
    let program = read(&text, &NoWeights).unwrap();
    assert_eq!(check(&text, &NoWeights).unwrap(), program);
    assert_eq!(program.functions[0].ty(program.functions[0].outputs()[0].value).shape, [2, 12]);
}

#[test]
fn open_dimensions_are_known_where_inputs_are() {
    let body = r"
tensor<fp32, [?]> r = range_1d(start = a, end = fp32(4), step = fp32(1));
tensor<int32, [?, 1]> z = non_zero(x = r);
tensor<fp32, [?]> y = mul(x = r, y = fp32(2));";
    let open = text("fp32 a", body, "y, z");
    let message = "5:40: start is a run-time value, which decides a shape, \
        expected a constant, or inputs to run the function on";
    assert_eq!(read(&open, &NoWeights).unwrap_err().to_string(), message);
    assert_eq!(check(&open, &NoWeights).unwrap().functions[0].outputs().len(), 0);
    let inputs = BTreeMap::from([("a".to_string(), Tensor::scalar(1.5f32))]);
    let program = read_for(&open, &NoWeights, &inputs).unwrap();
    let found = evaluate(&program.functions[0], &inputs).unwrap();
    assert_eq!(found["y"], Tensor::new(&[3], vec![3.0f32, 5.0, 7.0]).unwrap());
    assert_eq!(found["z"], Tensor::new(&[3, 1], vec![0, 1, 2]).unwrap());
    // What follows an open dimension is still spelled right.
    let wrong = text("fp32 a", &body.replace("y = fp32(2)", "y = nope"), "y");
    assert!(check(&wrong, &NoWeights).unwrap_err().to_string().contains("`nope` is not defined"));
}

#[test]
fn older_opsets_have_other_parameters() {
    let body = r"program(1.0)
{
func main<ios15>(tensor<fp32, [1, 2, 4, 4]> x, tensor<fp32, [3, 1, 5, 1, 1]> roi, tensor<int32, [2]> i) {
tensor<fp32, [3, 1, 2, 1, 2]> a = crop_resize(x = x, roi = roi, target_width = tensor<int32, []>(2));
tensor<fp32, [1, 2, 8, 4]> b = upsample_bilinear(x = x, scale_factor_height = tensor<int32, []>(2));
tensor<fp32, [1, 2, 4, 4]> c = gather_nd(x = b, indices = tensor<int32, [1, 1]>([[0]]));
tensor<fp32, [2, 8, 4]> d = squeeze(x = b);
} -> (a, d);
}
";
    let c = "tensor<fp32, [1, 2, 4, 4]> c = gather_nd";
    let text = body.replace(c, "tensor<fp32, [1, 2, 8, 4]> c = gather_nd");
    let emitted = print(&read(&text, &NoWeights).unwrap()).unwrap();
    assert!(!emitted.text.contains("pad_value") && !emitted.text.contains("half_pixel_centers"));
    comes_back(&emitted);
    let wrong = read(body, &NoWeights).unwrap_err().to_string();
    assert!(wrong.contains("`c` is declared as tensor<fp32, [1, 2, 4, 4]>"), "{wrong}");
    let newer = body.replace("squeeze(x = b)", "reshape_like(x = b)");
    let wrong = read(&newer.replace(c, "tensor<fp32, [1, 2, 8, 4]> c = gather_nd"), &NoWeights).unwrap_err();
    assert!(wrong.to_string().contains("the function is ios15, expected ios16 or later"), "{wrong}");
}

#[test]
fn parameters_of_moving_ops_are_checked() {
    let refuses = |statement: &str, message: &str| {
        let text = text("tensor<fp16, [2, 3]> x, tensor<int32, [2]> i", statement, "y");
        let error = read(&text, &NoWeights).expect_err(statement).to_string();
        assert!(error.contains(message), "{error}\n{message}");
    };
    refuses(
        "tensor<fp16, [2, 3]> y = slice_by_index(x = x, begin = tensor<int32, [1]>([0]), end = i);",
        "begin has 1 numbers, expected 2",
    );
    refuses(
        "tensor<fp16, [4, 3]> y = pad(x = x, pad = tensor<int32, [4]>([1, 1, 0, 0]), mode = string(\"wrap\"));",
        "mode is `wrap`, expected constant, reflect or replicate",
    );
    refuses("tensor<fp16, [2, 1, 3]> y = expand_dims(x = x, axes = tensor<int32, [1]>([3]));", "axes has 3");
    refuses(
        "tensor<fp16, [2, 3]> y = gather(x = x, indices = tensor<int32, [2]>([0, -1]), validate_indices = bool(true));",
        "indices has -1, and validate_indices is true, expected 0 to 1",
    );
    refuses(
        "tensor<fp16, [2, 3]> y = scatter(data = x, indices = i, updates = x, mode = string(\"xor\"));",
        "mode is `xor`, expected update, add, sub, mul, div, max or min",
    );
}

/// Every op that moves elements or makes arrays.
fn moving_ops(f: &mut Builder) {
    use Rearrangement as R;
    let mut parameter =
        |name: &str, dtype, shape: &[usize]| f.parameter(name, TensorType::new(dtype, shape), Role::Batch);
    let x = parameter("a0_x", DType::F16, &[2, 4]);
    let image = parameter("a1_image", DType::F16, &[4, 4, 2, 4]);
    let i = parameter("a2_i", DType::I32, &[2]);
    let points = parameter("a3_points", DType::F32, &[4, 1, 3, 2]);
    let boxes = parameter("a4_boxes", DType::F32, &[1, 4]);
    let mut push = |op: Op| f.push_one(op).unwrap();
    let range = Range { stride: vec![-1, 2], end_mask: vec![true, false], ..Range::new(&[-1, 0], &[0, 9]) };
    push(Op::Slice(Slice::ByIndex { x, range }));
    push(Op::Slice(Slice::BySize { x, begin: Position::Known(vec![1, 0]), size: vec![-1, 2] }));
    push(Op::Slice(Slice::BySize { x, begin: Position::Value(i), size: vec![1, 2] }));
    let update = push(Op::Slice(Slice::BySize { x, begin: Position::Known(vec![0, 0]), size: vec![1, 4] }));
    let range = Range { begin: Position::Value(i), end: Position::Value(i), ..Range::new(&[0; 2], &[0; 2]) };
    push(Op::Slice(Slice::Update { x, update, range }));
    for mode in [PadMode::Constant(0.5), PadMode::Reflect, PadMode::Replicate] {
        push(Op::Pad(Pad { x, pad: vec![1, 2], mode }));
    }
    push(Op::Dimensions(Dimensions::Expand { x, axes: vec![1] }));
    push(Op::Dimensions(Dimensions::Squeeze { x: update, axes: Some(vec![0]) }));
    push(Op::Dimensions(Dimensions::Squeeze { x: update, axes: None }));
    push(Op::Dimensions(Dimensions::Flatten { x: image, axis: 2 }));
    let ranges = vec![(0, Some(1)), (-1, None)];
    push(Op::Dimensions(Dimensions::Like { x, refs: vec![x, x], ranges }));
    for kind in [
        R::Reverse { axes: vec![0, 3] },
        R::SlidingWindows { axis: 0, size: 2, stride: 1 },
        R::DepthToSpace { block: 2 },
        R::SpaceToDepth { block: 2 },
        R::PixelShuffle { factor: 2 },
        R::PixelUnshuffle { factor: 2 },
        R::SpaceToBatch { block: [2, 1], paddings: [[1, 1], [0, 3]] },
        R::BatchToSpace { block: [2, 2], crops: [[1, 0], [0, 2]] },
        R::Crop { height: [1, 0], width: [0, 2] },
        R::BandPart { lower: 1, upper: -1 },
        R::Upsample { factors: Factors::Whole([2, 3]) },
        R::Upsample { factors: Factors::Real([1.5, 1.0]) },
        R::Resize { height: 3, width: 5 },
    ] {
        let x = if let R::SlidingWindows { .. } = kind { x } else { image };
        push(Op::Rearrange(Rearrange { x, kind }));
    }
    push(Op::Join(Join { values: vec![x, x], axis: 2, kind: JoinKind::Stack }));
    push(Op::Join(Join { values: vec![x, x], axis: 1, kind: JoinKind::Interleave }));
    push(Op::Make(Make::Shape { x }));
    push(Op::Make(Make::FillLike { like: x, dtype: DType::I32, value: 3.0 }));
    push(Op::Make(Make::Range { dtype: DType::F16, start: 0.0, end: 1.0, step: 0.25 }));
    push(Op::Make(Make::OneHot { indices: i, size: 3, axis: 0, dtype: DType::Bool, on: 1.0, off: 0.0 }));
    let indices = push(Op::Reshape { x: i, shape: vec![2, 1] });
    push(Op::Index(Index::GatherBatched { x, indices, axis: 1, batch_dims: 1 }));
    push(Op::Index(Index::GatherNd { x, indices, batch_dims: 0 }));
    for mode in ScatterMode::ALL {
        push(Op::Index(Index::ScatterNd { data: x, indices, updates: x, mode }));
    }
    push(Op::Index(Index::ReverseSequence { x, lengths: i, seq_axis: 1, batch_axis: 0 }));
    sampling_ops(f, x, image, [points, boxes]);
}

/// Every op that samples an image.
fn sampling_ops(f: &mut Builder, x: ValueId, image: ValueId, [points, boxes]: [ValueId; 2]) {
    let mut push = |op: Op| f.push_one(op).unwrap();
    for (interpolation, grid) in
        [(Interpolation::Linear, Grid::Default), (Interpolation::Nearest, Grid::AlignCorners)]
    {
        push(Op::Sample(Sample::Resize { x, sizes: vec![7], interpolation, grid }));
    }
    push(Op::Sample(Sample::ResizeBilinear { x: image, sizes: [3, 5], grid: Grid::OffsetCorners }));
    for align_corners in [true, false] {
        let (factors, half_pixel_centers) = (Factors::Whole([2, 1]), false);
        push(Op::Sample(Sample::UpsampleBilinear { x: image, factors, align_corners, half_pixel_centers }));
    }
    let (mode, grid) = (BoxMode::CenterSizeWidthFirst, Grid::UnalignCorners);
    let crop = Sample::CropResize {
        x: image,
        boxes,
        box_indices: None,
        sizes: [2, 3],
        normalized: true,
        scale: 0.5,
        mode,
        grid,
        outside: 1.0,
    };
    push(Op::Sample(crop));
    let matrix = push(Op::Make(Make::FillLike { like: x, dtype: DType::F16, value: 0.5 }));
    let range = Range::new(&[0, 0], &[1, 3]);
    let half = push(Op::Slice(Slice::ByIndex { x: matrix, range }));
    let matrix = push(Op::Concat { values: vec![half, half], axis: 1 });
    push(Op::Sample(Sample::Affine { x: image, matrix, sizes: [2, 3] }));
    for outside in [Outside::Constant(2.0), Outside::Border, Outside::Reflection, Outside::Symmetric] {
        let (interpolation, unit) = (Interpolation::Nearest, Coordinates::MinusOneToOne);
        let (x, coordinates, align_corners) = (image, points, false);
        push(Op::Sample(Sample::Resample { x, coordinates, interpolation, outside, unit, align_corners }));
    }
    let last = push(Op::Sample(Sample::ResizeBilinear { x: image, sizes: [1, 1], grid: Grid::Default }));
    f.output("y", last);
}
