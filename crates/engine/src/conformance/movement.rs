//! Ops that move elements: slices, pads, rearrangements, indices of several dimensions, sampled images.

use arcane_mil::{
    BoxMode, Builder, Coordinates, Dimensions, Factors, Grid, Index, Interpolation, Join, JoinKind, Make, Op,
    Outside, Pad, PadMode, Position, Range, Rearrange, Rearrangement, Sample, ScatterMode, Slice, ValueId,
};
use arcane_tensor::DType;

use super::{Allowed, Build, EXACT, SPREAD, Table, rounding};

fn one(f: &mut Builder, op: Op) -> Build {
    Ok(vec![f.push_one(op)?])
}

fn known(values: &[i64]) -> Position {
    Position::Known(values.to_vec())
}

pub(super) fn slices(t: &mut Table, dtype: DType) {
    let ranges: [([i64; 3], [i64; 3], [i64; 3]); 5] = [
        ([0, 1, 2], [2, 3, 4], [1, 1, 1]),
        ([0, 0, 1], [2, 3, 4], [1, 2, 2]),
        ([1, 2, 3], [-3, 0, 0], [-1, -1, -2]),
        ([-1, 0, -3], [2, 3, 4], [1, 1, 1]),
        ([0, 1, 0], [2, 1, 4], [1, 1, 1]),
    ];
    for (begin, end, stride) in ranges {
        let range = Range { stride: stride.to_vec(), ..Range::new(&begin, &end) };
        t.add(&format!("slice_by_index {begin:?}"), EXACT, &[(dtype, &[2, 3, 4], SPREAD)], |f, v| {
            let range = range.clone();
            one(f, Op::Slice(Slice::ByIndex { x: v[0], range }))
        });
    }
    t.add("slice_by_index, dropping", EXACT, &[(dtype, &[2, 3, 4], SPREAD)], |f, v| {
        let range = Range { squeeze_mask: vec![false, true, false], ..Range::new(&[0, -1, 1], &[2, 0, 3]) };
        let slice = f.push_one(Op::Slice(Slice::ByIndex { x: v[0], range }))?;
        let doubled = f.scale(slice, 2.0)?;
        Ok(vec![slice, doubled])
    });
    let begin = (DType::I32, &[3][..], (0.0, 2.0));
    t.add("slice_by_size", EXACT, &[(dtype, &[3, 4, 5], SPREAD), begin], |f, v| {
        let size = vec![2, 3, 4];
        let fixed = f.push_one(Op::Slice(Slice::BySize {
            x: v[0],
            begin: known(&[1, 0, -4]),
            size: vec![2, -1, 3],
        }))?;
        let x = f.transpose(v[0], &[0, 1, 2])?;
        let moved = f.push_one(Op::Slice(Slice::BySize { x, begin: Position::Value(v[1]), size }))?;
        Ok(vec![fixed, moved])
    });
    let parameters = [(dtype, &[3, 4, 5][..], SPREAD), (dtype, &[2, 3, 4][..], SPREAD), begin];
    t.add("slice_update", EXACT, &parameters, |f, v| {
        let known = Range { stride: vec![1, 1, -1], ..Range::new(&[1, 0, 4], &[3, 3, 0]) };
        let (x, update) = (v[0], v[1]);
        let fixed = f.push_one(Op::Slice(Slice::Update { x, update, range: known }))?;
        let (begin, end) = (Position::Value(v[2]), Position::Value(v[2]));
        let range = Range { begin, end, ..Range::new(&[0; 3], &[0; 3]) };
        let moved = f.push_one(Op::Slice(Slice::Update { x, update, range }))?;
        Ok(vec![fixed, moved])
    });
}

pub(super) fn pads(t: &mut Table, dtype: DType) {
    for mode in [PadMode::Constant(-1.5), PadMode::Reflect, PadMode::Replicate] {
        let pad = vec![1, 2, 0, 3];
        t.add(&format!("pad {}", mode.name()), EXACT, &[(dtype, &[2, 3, 4], SPREAD)], |f, v| {
            let x = f.transpose(v[0], &[0, 2, 1])?;
            let pad = if matches!(mode, PadMode::Reflect) { vec![1, 2, 0, 2] } else { pad };
            one(f, Op::Pad(Pad { x, pad, mode }))
        });
    }
}

pub(super) fn rearrangements(t: &mut Table, dtype: DType) {
    use Rearrangement as R;
    let pairs = [[1, 1], [0, 2]];
    let kinds: [(&[usize], R); 16] = [
        (&[2, 3, 4], R::Reverse { axes: vec![0, 2] }),
        (&[2, 7, 3], R::SlidingWindows { axis: 1, size: 3, stride: 2 }),
        (&[2, 12, 3, 5], R::DepthToSpace { block: 2 }),
        (&[2, 3, 4, 6], R::SpaceToDepth { block: 2 }),
        (&[2, 18, 3, 2], R::PixelShuffle { factor: 3 }),
        (&[2, 2, 6, 3], R::PixelUnshuffle { factor: 3 }),
        (&[2, 3, 4, 6], R::SpaceToBatch { block: [2, 3], paddings: [[0, 0], [0, 0]] }),
        (&[2, 3, 4, 4], R::SpaceToBatch { block: [2, 3], paddings: pairs }),
        (&[12, 3, 2, 2], R::BatchToSpace { block: [2, 3], crops: [[0, 0], [0, 0]] }),
        (&[12, 3, 3, 2], R::BatchToSpace { block: [2, 3], crops: pairs }),
        (&[2, 3, 5, 6], R::Crop { height: [1, 2], width: [0, 3] }),
        (&[2, 4, 5], R::BandPart { lower: 1, upper: 2 }),
        (&[4, 3], R::BandPart { lower: -1, upper: 0 }),
        (&[1, 2, 3, 4], R::Upsample { factors: Factors::Whole([2, 3]) }),
        (&[2, 3, 4], R::Upsample { factors: Factors::Real([1.5, 0.6]) }),
        (&[2, 3, 4], R::Resize { height: 5, width: 3 }),
    ];
    for (shape, kind) in kinds {
        t.add(kind.name(), EXACT, &[(dtype, shape, SPREAD)], |f, v| {
            one(f, Op::Rearrange(Rearrange { x: v[0], kind }))
        });
    }
}

pub(super) fn dimensions(t: &mut Table, dtype: DType) {
    t.add("dimensions", EXACT, &[(dtype, &[2, 1, 3, 4], SPREAD)], |f, v| {
        let x = v[0];
        let expanded = f.push_one(Op::Dimensions(Dimensions::Expand { x, axes: vec![0] }))?;
        let squeezed = f.push_one(Op::Dimensions(Dimensions::Squeeze { x, axes: None }))?;
        let flat = f.push_one(Op::Dimensions(Dimensions::Flatten { x: squeezed, axis: 2 }))?;
        let ranges = vec![(0, Some(2)), (-1, None)];
        let like = Dimensions::Like { x: flat, refs: vec![squeezed, x], ranges };
        Ok(vec![expanded, squeezed, flat, f.push_one(Op::Dimensions(like))?])
    });
    let two = [(dtype, &[2, 3, 2][..], SPREAD), (dtype, &[2, 3, 2][..], SPREAD)];
    for (axis, kind) in
        [(0, JoinKind::Stack), (3, JoinKind::Stack), (1, JoinKind::Interleave), (2, JoinKind::Interleave)]
    {
        t.add(&format!("{kind:?} {axis}"), EXACT, &two, |f, v| {
            one(f, Op::Join(Join { values: v.to_vec(), axis, kind }))
        });
    }
    t.add("make", EXACT, &[(dtype, &[2, 3], SPREAD)], |f, v| {
        let shape = f.push_one(Op::Make(Make::Shape { x: v[0] }))?;
        let like = f.push_one(Op::Make(Make::FillLike { like: v[0], dtype, value: 2.0 }))?;
        let range = f.push_one(Op::Make(Make::Range { dtype, start: 1.0, end: 4.0, step: 0.5 }))?;
        Ok(vec![shape, f.mul(like, v[0])?, range])
    });
}

pub(super) fn indices(t: &mut Table, dtype: DType) {
    let int = DType::I32;
    t.add(
        "gather of negative indices",
        EXACT,
        &[(dtype, &[5, 3], SPREAD), (int, &[4], (-5.0, 5.0))],
        |f, v| Ok(vec![f.gather(v[0], v[1], 0)?]),
    );
    for (shape, of, axis, batch_dims) in
        [(&[2, 5, 3][..], &[2, 4][..], 1, 1), (&[2, 3, 5], &[2, 2, 2], 2, 1), (&[2, 3, 4], &[2, 3, 5], 2, 2)]
    {
        let range = (0.0, shape[axis] as f64);
        t.add("gather, batched", EXACT, &[(dtype, shape, SPREAD), (int, of, range)], |f, v| {
            one(f, Op::Index(Index::GatherBatched { x: v[0], indices: v[1], axis, batch_dims }))
        });
    }
    for (of, batch_dims) in [(&[3, 2][..], 0), (&[2, 4, 1], 1), (&[2, 3, 5, 1], 2)] {
        t.add("gather_nd", EXACT, &[(dtype, &[2, 3, 4], SPREAD), (int, of, (0.0, 2.0))], |f, v| {
            one(f, Op::Index(Index::GatherNd { x: v[0], indices: v[1], batch_dims }))
        });
    }
    for mode in ScatterMode::ALL {
        let allowed = if mode == ScatterMode::Update { EXACT } else { rounding(dtype) };
        let parameters = [
            (dtype, &[4, 3, 2][..], SPREAD),
            (int, &[5, 2][..], (-2.0, 3.0)),
            (dtype, &[5, 2][..], (0.5, 2.0)),
        ];
        t.add(&format!("scatter_nd {}", mode.name()), allowed, &parameters, |f, v| {
            let [data, indices, updates] = [v[0], v[1], v[2]];
            one(f, Op::Index(Index::ScatterNd { data, indices, updates, mode }))
        });
        let parameters =
            [(dtype, &[4, 3][..], SPREAD), (int, &[5][..], (-4.0, 4.0)), (dtype, &[5, 3][..], (0.5, 2.0))];
        t.add(&format!("scatter {}", mode.name()), allowed, &parameters, |f, v| {
            let [data, indices, updates] = [v[0], v[1], v[2]];
            one(f, Op::Scatter { data, indices, updates, axis: 0, mode })
        });
    }
    for (seq_axis, batch_axis) in [(0, 1), (2, 0), (1, 2)] {
        let shape = [3, 4, 5];
        let batch = [shape[batch_axis]];
        let range = (0.0, shape[seq_axis] as f64 + 1.0);
        t.add("reverse_sequence", EXACT, &[(dtype, &shape, SPREAD), (int, &batch, range)], |f, v| {
            one(f, Op::Index(Index::ReverseSequence { x: v[0], lengths: v[1], seq_axis, batch_axis }))
        });
    }
}

pub(super) fn samples(t: &mut Table, dtype: DType) {
    let allowed = rounding(dtype);
    for grid in Grid::MODES {
        for sizes in [[5, 3], [1, 9], [3, 4]] {
            t.add(
                &format!("resize_bilinear {}", grid.name()),
                allowed,
                &[(dtype, &[2, 3, 4], SPREAD)],
                |f, v| one(f, Op::Sample(Sample::ResizeBilinear { x: v[0], sizes, grid })),
            );
        }
        t.add(&format!("resize {}", grid.name()), EXACT, &[(dtype, &[2, 3, 4], SPREAD)], |f, v| {
            let (sizes, interpolation) = (vec![4, 7, 2], Interpolation::Nearest);
            one(f, Op::Sample(Sample::Resize { x: v[0], sizes, interpolation, grid }))
        });
        boxes(t, dtype, grid);
    }
    for (align_corners, half_pixel_centers) in [(true, false), (false, true), (false, false)] {
        t.add("upsample_bilinear", allowed, &[(dtype, &[1, 2, 3, 4], SPREAD)], |f, v| {
            let factors = Factors::Real([2.0, 1.5]);
            one(
                f,
                Op::Sample(Sample::UpsampleBilinear { x: v[0], factors, align_corners, half_pixel_centers }),
            )
        });
    }
    for rows in [1, 2] {
        let parameters = [(dtype, &[2, 3, 4, 5][..], SPREAD), (dtype, &[rows, 6][..], (-1.0, 1.0))];
        t.add("affine", Allowed { absolute: 5e-3, ..allowed }, &parameters, |f, v| {
            one(f, Op::Sample(Sample::Affine { x: v[0], matrix: v[1], sizes: [3, 6] }))
        });
    }
    for outside in [Outside::Constant(0.5), Outside::Border, Outside::Reflection, Outside::Symmetric] {
        for (unit, align_corners, range) in [
            (Coordinates::Unnormalized, true, (-6.0, 9.0)),
            (Coordinates::MinusOneToOne, false, (-2.0, 2.0)),
            (Coordinates::ZeroToOne, true, (-1.0, 2.0)),
        ] {
            for interpolation in [Interpolation::Linear, Interpolation::Nearest] {
                let parameters = [(dtype, &[2, 3, 4, 5][..], SPREAD), (DType::F32, &[2, 3, 2, 2][..], range)];
                t.add(&format!("resample {}", outside.name()), allowed, &parameters, |f, v| {
                    let (x, coordinates) = (v[0], v[1]);
                    one(
                        f,
                        Op::Sample(Sample::Resample {
                            x,
                            coordinates,
                            interpolation,
                            outside,
                            unit,
                            align_corners,
                        }),
                    )
                });
            }
        }
    }
}

fn boxes(t: &mut Table, dtype: DType, grid: Grid) {
    for mode in BoxMode::ALL {
        let shapes: [(&[usize], Option<&[usize]>); 3] =
            [(&[3, 4], Some(&[3])), (&[2, 1, 4, 1, 1], None), (&[2, 1, 5, 1, 1], None)];
        for (shape, of) in shapes {
            let mut parameters = vec![(dtype, &[2, 3, 6, 7][..], SPREAD), (DType::F32, shape, (0.0, 1.9))];
            parameters.extend(of.map(|of| (DType::I32, of, (0.0, 2.0))));
            t.add(
                &format!("crop_resize {} {}", grid.name(), mode.name()),
                rounding(dtype),
                &parameters,
                |f, v: &[ValueId]| {
                    one(
                        f,
                        Op::Sample(Sample::CropResize {
                            x: v[0],
                            boxes: v[1],
                            box_indices: v.get(2).copied(),
                            sizes: [3, 2],
                            normalized: shape.len() == 2,
                            scale: 1.5,
                            mode,
                            grid,
                            outside: -3.0,
                        }),
                    )
                },
            );
        }
    }
}
