//! Images resized axis by axis: two gathers and what lies between them.

use arcane_mil::{Builder, Coordinates, Grid, Interpolation, Op, Outside, Sample, TensorType, ValueId};
use arcane_tensor::{DType, Tensor};

use super::Expanded;

/// Sampling along each axis on its own; points that are known at run time have a kernel.
pub(super) fn sample(f: &mut Builder, op: &Sample, ty: &TensorType) -> Expanded {
    if let Sample::Affine { x, matrix, sizes } = op {
        return affine(f, *x, *matrix, *sizes);
    }
    let Some((interpolation, grid)) = op.grid() else { return Ok(None) };
    let mut x = op.x();
    let linear = interpolation == Interpolation::Linear;
    if linear {
        x = f.cast(x, DType::F32);
    }
    for axis in 0..ty.shape.len() {
        let (n, m) = (f.shape(x)[axis], ty.shape[axis]);
        if n == m && grid != Grid::OffsetCorners || n == 0 || m == 0 {
            continue;
        }
        let points: Vec<f64> = (0..m).map(|i| grid.point(i, n, m)).collect();
        if !linear {
            x = pick(f, x, axis, points.iter().map(|p| p.round_ties_even() as usize))?;
            continue;
        }
        let last = n - 1;
        let low = pick(f, x, axis, points.iter().map(|p| (p.floor() as usize).min(last)))?;
        let high = pick(f, x, axis, points.iter().map(|p| (p.ceil() as usize).min(last)))?;
        let mut shape = vec![1; ty.shape.len()];
        shape[axis] = m;
        let mut share = |name: &str, of: fn(f64) -> f64| {
            let values: Vec<f64> = points.iter().map(|&p| of(p)).collect();
            f.constant(name, Tensor::from_f64s(DType::F32, &shape, &values).expect("one share a point"))
        };
        let (of_low, of_high) = (share("low", |p| 1.0 - p.fract()), share("high", f64::fract));
        let (low, high) = (f.mul(low, of_low)?, f.mul(high, of_high)?);
        x = f.add(low, high)?;
    }
    if f.shape(x) != ty.shape {
        return Ok(Some(vec![f.fill(ty.dtype, &ty.shape, 0.0)]));
    }
    x = f.cast(x, ty.dtype);
    Ok(Some(vec![if x == op.x() { f.identity(x) } else { x }]))
}

/// The points are a product of the matrix with the places of the result's pixels.
fn affine(f: &mut Builder, x: ValueId, matrix: ValueId, [height, width]: [usize; 2]) -> Expanded {
    let (n, rows, pixels) = (f.shape(x)[0], f.shape(matrix)[0], height * width);
    let column = |i: usize| Grid::normalized(i % width, width);
    let row = |i: usize| Grid::normalized(i / width, height);
    let places: Vec<f64> =
        (0..pixels).map(column).chain((0..pixels).map(row)).chain((0..pixels).map(|_| 1.0)).collect();
    let places = Tensor::from_f64s(DType::F32, &[3, pixels], &places).expect("three numbers a pixel");
    let places = f.constant("places", places);
    let matrix = f.cast(matrix, DType::F32);
    let matrix = f.reshape(matrix, &[rows, 2, 3])?;
    let points = f.matmul(matrix, places, false, false)?;
    let mut points = f.transpose(points, &[0, 2, 1])?;
    if rows != n {
        points = f.tile(points, &[n, 1, 1])?;
    }
    let sample = Sample::Resample {
        x,
        coordinates: f.reshape(points, &[n, height, width, 2])?,
        interpolation: Interpolation::Linear,
        outside: Outside::Constant(0.0),
        unit: Coordinates::MinusOneToOne,
        align_corners: true,
    };
    Ok(Some(vec![f.push_one(Op::Sample(sample))?]))
}

fn pick(
    f: &mut Builder,
    x: ValueId,
    axis: usize,
    from: impl Iterator<Item = usize>,
) -> Result<ValueId, arcane_mil::BuildError> {
    let indices: Vec<i32> = from.map(|i| i as i32).collect();
    let indices = Tensor::new(&[indices.len()], indices).expect("a vector has its length");
    let indices = f.constant("pixels", indices);
    f.gather(x, indices, axis)
}
