use arcane_mil::TensorType;
use arcane_tensor::DType;

use super::{SurfaceError, SurfaceLayout, symbol_order};

fn layout(dtype: DType, shape: &[usize]) -> SurfaceLayout {
    SurfaceLayout::of(&TensorType::new(dtype, shape)).unwrap()
}

/// Strides that the driver reported, and bytes that it wanted.
#[test]
fn rows_are_padded_to_64_bytes() {
    let small = layout(DType::F16, &[1, 4, 1, 4]);
    assert_eq!((small.row_stride, small.plane_stride, small.batch_stride), (64, 64, 256));
    for (width, bytes) in [(1, 49_152), (16, 49_152), (32, 49_152), (256, 393_216)] {
        assert_eq!(layout(DType::F16, &[1, 768, 1, width]).strided_bytes(), bytes);
    }
    assert!(layout(DType::F16, &[1, 768, 1, 32]).is_dense());
    assert!(!layout(DType::F16, &[1, 768, 1, 33]).is_dense());
    assert!(layout(DType::F32, &[2, 3, 5, 16]).is_dense());
}

#[test]
fn allocations_are_whole_pages() {
    assert_eq!(layout(DType::F16, &[1]).bytes, 16_384);
    assert_eq!(layout(DType::F16, &[256, 32]).bytes, 16_384);
    assert_eq!(layout(DType::F16, &[257, 32]).bytes, 32_768);
}

#[test]
fn any_rank_becomes_batches_of_channels_of_planes() {
    assert_eq!(layout(DType::F16, &[]).shape, [1, 1, 1, 1]);
    assert_eq!(layout(DType::F16, &[7]).shape, [1, 1, 1, 7]);
    assert_eq!(layout(DType::F16, &[5, 7]).shape, [1, 1, 5, 7]);
    assert_eq!(layout(DType::F16, &[3, 5, 7]).shape, [1, 3, 5, 7]);
    assert_eq!(layout(DType::F16, &[2, 3, 5, 7]).shape, [2, 3, 5, 7]);
    assert_eq!(layout(DType::F16, &[11, 2, 3, 5, 7]).shape, [22, 3, 5, 7]);
}

/// Every element has a place of its own, in row-major order, inside the allocation.
#[test]
fn elements_do_not_overlap() {
    let l = layout(DType::F16, &[2, 3, 4, 33]);
    let mut last = None;
    for b in 0..2 {
        for c in 0..3 {
            for h in 0..4 {
                for w in 0..33 {
                    let at = l.offset(b, c, h, w);
                    assert!(last.is_none_or(|l| at >= l + 2) && at + 2 <= l.bytes);
                    last = Some(at);
                }
            }
        }
    }
    assert_eq!(l.offset(1, 2, 3, 4), 3 * 4 * 128 + 2 * 4 * 128 + 3 * 128 + 8);
}

#[test]
fn what_memory_cannot_hold_is_an_error() {
    let of = |shape: &[usize]| SurfaceLayout::of(&TensorType::new(DType::F16, shape));
    assert!(matches!(of(&[1; 6]), Err(SurfaceError::Rank { .. })));
    assert!(matches!(of(&[4, 0]), Err(SurfaceError::Empty { .. })));
    assert!(matches!(of(&[usize::MAX]), Err(SurfaceError::Size { .. })));
    assert!(matches!(of(&[1 << 40, 1 << 40, 1]), Err(SurfaceError::Size { .. })));
    let padded = [1 << 58, 1, 1, 1];
    assert!(matches!(of(&padded), Err(SurfaceError::Size { .. })), "fits dense, not in rows of 64 bytes");
}

#[test]
fn symbols_are_sorted_by_name() {
    assert_eq!(symbol_order(&["x", "gate", "up", "down"]), [3, 1, 2, 0]);
    assert_eq!(symbol_order(&["a10", "a2", "B", "a_"]), [2, 0, 1, 3]);
    assert!(symbol_order(&[]).is_empty());
}
