//! Cases of ops that move elements.

use arcane_mil::{
    Dimensions, Factors, Grid, Index, Interpolation, Join, JoinKind, Make, Op, Pad, PadMode, Position, Range,
    Rearrange, Rearrangement, Sample, ScatterMode, Slice,
};
use arcane_tensor::DType;

use crate::check::Check;

fn ranges() -> Vec<Range> {
    vec![
        Range::new(&[0, 1], &[3, 3]),
        Range { stride: vec![2, -1], ..Range::new(&[0, 3], &[4, 0]) },
        Range { squeeze_mask: vec![true, false], ..Range::new(&[-1, 1], &[0, 4]) },
    ]
}

pub(crate) fn slice_by_index(check: &Check) {
    for range in ranges() {
        check.that(|c| {
            let (x, range) = (c.float(&[4, 4]), range.clone());
            c.f.push_one(Op::Slice(Slice::ByIndex { x, range }))
        });
    }
}

pub(crate) fn slice_by_size(check: &Check) {
    check.that(|c| {
        let (x, begin) = (c.float(&[4, 3]), Position::Known(vec![1, -2]));
        c.f.push_one(Op::Slice(Slice::BySize { x, begin, size: vec![2, -1] }))
    });
    check.that(|c| {
        let (x, begin) = (c.float(&[4, 3]), c.indices(&[2], &[2, 0]));
        c.f.push_one(Op::Slice(Slice::BySize { x, begin: Position::Value(begin), size: vec![2, 2] }))
    });
}

pub(crate) fn slice_update(check: &Check) {
    for (range, shape) in ranges().into_iter().zip([&[3, 2][..], &[2, 3], &[3]]) {
        check.that(|c| {
            let (x, update, range) = (c.float(&[4, 4]), c.float(shape), range.clone());
            c.f.push_one(Op::Slice(Slice::Update { x, update, range }))
        });
    }
    check.that(|c| {
        let (x, update) = (c.float(&[4, 4]), c.float(&[2, 3]));
        let (begin, end) = (c.indices(&[2], &[1, 0]), c.indices(&[2], &[3, 3]));
        let range = Range {
            begin: Position::Value(begin),
            end: Position::Value(end),
            ..Range::new(&[0; 2], &[0; 2])
        };
        c.f.push_one(Op::Slice(Slice::Update { x, update, range }))
    });
}

pub(crate) fn pad(check: &Check) {
    for mode in [PadMode::Constant(0.5), PadMode::Reflect, PadMode::Replicate] {
        check.that(|c| {
            let x = c.float(&[2, 3, 4]);
            c.f.push_one(Op::Pad(Pad { x, pad: vec![1, 0, 2, 3], mode }))
        });
    }
}

pub(crate) fn dimensions(check: &Check) {
    let x = |c: &mut crate::check::Case| c.float(&[2, 1, 3]);
    check.that(|c| {
        let x = x(c);
        c.f.push_one(Op::Dimensions(Dimensions::Expand { x, axes: vec![0, 4] }))
    });
    check.that(|c| {
        let x = x(c);
        c.f.push_one(Op::Dimensions(Dimensions::Squeeze { x, axes: None }))
    });
    check.that(|c| {
        let x = x(c);
        c.f.push_one(Op::Dimensions(Dimensions::Like { x, refs: vec![x], ranges: vec![(0, None)] }))
    });
}

pub(crate) fn rearrangements(check: &Check) {
    use Rearrangement as R;
    let pairs = [[1, 0], [0, 2]];
    let kinds: [(&[usize], R); 12] = [
        (&[2, 3], R::Reverse { axes: vec![1] }),
        (&[5, 2], R::SlidingWindows { axis: 0, size: 3, stride: 1 }),
        (&[1, 8, 1, 2], R::DepthToSpace { block: 2 }),
        (&[1, 2, 2, 4], R::SpaceToDepth { block: 2 }),
        (&[1, 8, 1, 2], R::PixelShuffle { factor: 2 }),
        (&[1, 2, 2, 4], R::PixelUnshuffle { factor: 2 }),
        (&[1, 2, 3, 4], R::SpaceToBatch { block: [2, 3], paddings: pairs }),
        (&[6, 1, 2, 2], R::BatchToSpace { block: [2, 3], crops: pairs }),
        (&[1, 2, 4, 3], R::Crop { height: [1, 1], width: [0, 1] }),
        (&[3, 4], R::BandPart { lower: 1, upper: 0 }),
        (&[1, 2, 3], R::Upsample { factors: Factors::Real([1.5, 2.0]) }),
        (&[1, 4, 3], R::Resize { height: 3, width: 5 }),
    ];
    for (shape, kind) in kinds {
        check.that(|c| {
            let (x, kind) = (c.float(shape), kind.clone());
            c.f.push_one(Op::Rearrange(Rearrange { x, kind }))
        });
    }
}

pub(crate) fn joins(check: &Check) {
    for (axis, kind) in [(0, JoinKind::Stack), (2, JoinKind::Stack), (1, JoinKind::Interleave)] {
        check.that(|c| {
            let values = vec![c.float(&[2, 3]), c.float(&[2, 3])];
            c.f.push_one(Op::Join(Join { values, axis, kind }))
        });
    }
}

pub(crate) fn made(check: &Check) {
    check.that(|c| {
        let like = c.float(&[2, 3]);
        let twos = c.f.push_one(Op::Make(Make::FillLike { like, dtype: DType::F64, value: 2.0 }))?;
        c.f.mul(like, twos)
    });
}

pub(crate) fn gather_nd(check: &Check) {
    check.that(|c| {
        let (x, indices) = (c.float(&[3, 2, 2]), c.indices(&[3, 2], &[2, 0, -1, 1, 2, 0]));
        c.f.push_one(Op::Index(Index::GatherNd { x, indices, batch_dims: 0 }))
    });
}

pub(crate) fn scatter_nd(check: &Check) {
    check.that(|c| {
        let (data, updates) = (c.float(&[3, 2, 2]), c.float(&[3, 2]));
        let indices = c.indices(&[3, 2], &[2, 0, -1, 1, 2, 0]);
        c.f.push_one(Op::Index(Index::ScatterNd { data, indices, updates, mode: ScatterMode::Add }))
    });
}

pub(crate) fn reverse_sequence(check: &Check) {
    check.that(|c| {
        let (x, lengths) = (c.float(&[2, 4]), c.indices(&[2], &[3, 0]));
        c.f.push_one(Op::Index(Index::ReverseSequence { x, lengths, seq_axis: 1, batch_axis: 0 }))
    });
}

pub(crate) fn resized(check: &Check) {
    for grid in Grid::MODES {
        check.that(|c| {
            let x = c.float(&[1, 2, 3]);
            c.f.push_one(Op::Sample(Sample::ResizeBilinear { x, sizes: [3, 2], grid }))
        });
    }
    check.that(|c| {
        let x = c.float(&[2, 3]);
        let (interpolation, grid) = (Interpolation::Nearest, Grid::Default);
        c.f.push_one(Op::Sample(Sample::Resize { x, sizes: vec![4], interpolation, grid }))
    });
    check.that(|c| {
        let (x, factors) = (c.float(&[1, 2, 3]), Factors::Whole([2, 2]));
        let (align_corners, half_pixel_centers) = (false, true);
        c.f.push_one(Op::Sample(Sample::UpsampleBilinear { x, factors, align_corners, half_pixel_centers }))
    });
}
