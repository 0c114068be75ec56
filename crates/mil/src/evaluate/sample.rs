//! Sampled images, pixel by pixel.

use super::layout::{positions, strides};
use super::{Value, ValueError};
use crate::{BoxMode, Coordinates, Grid, Interpolation, Outside, Sample, TensorType};

/// Images that are sampled along each of their last axes.
pub(super) fn resized(x: &Value, interpolation: Interpolation, grid: Grid, ty: &TensorType) -> Vec<f64> {
    let from = strides(&x.ty.shape);
    let element = |at: &Vec<usize>| {
        // What each pixel contributes, and where it is: of as many axes as have been looked at.
        let mut parts = vec![(1.0, 0)];
        for (axis, &i) in at.iter().enumerate() {
            let (n, m) = (x.ty.shape[axis], ty.shape[axis]);
            let near = match interpolation {
                _ if n == m && !matches!(grid, Grid::OffsetCorners) => vec![(1.0, i)],
                Interpolation::Nearest => vec![(1.0, grid.point(i, n, m).round_ties_even() as usize)],
                Interpolation::Linear => between(grid.point(i, n, m), n),
            };
            let with = |(weight, place): &(f64, usize)| {
                near.iter().map(|(w, p)| (weight * w, place + p * from[axis])).collect::<Vec<_>>()
            };
            parts = parts.iter().flat_map(with).collect();
        }
        parts.into_iter().map(|(weight, place)| weight * x.data[place]).sum()
    };
    positions(&ty.shape).iter().map(element).collect()
}

/// The one or two pixels around a point inside an axis, and their shares.
fn between(point: f64, n: usize) -> Vec<(f64, usize)> {
    let low = (point.floor() as usize).min(n - 1);
    let share = point - low as f64;
    if share == 0.0 { vec![(1.0, low)] } else { vec![(1.0 - share, low), (share, (low + 1).min(n - 1))] }
}

/// A value of a plane of pixels at a point.
struct Plane<'a> {
    data: &'a [f64],
    height: usize,
    width: usize,
}

impl Plane<'_> {
    fn at(&self, row: f64, column: f64, interpolation: Interpolation) -> f64 {
        match interpolation {
            Interpolation::Nearest => {
                self.data[row.round_ties_even() as usize * self.width + column.round_ties_even() as usize]
            }
            Interpolation::Linear => {
                let mut sum = 0.0;
                for (a, y) in between(row, self.height) {
                    for &(b, x) in &between(column, self.width) {
                        sum += a * b * self.data[y * self.width + x];
                    }
                }
                sum
            }
        }
    }

    fn pixel(&self, row: f64, column: f64) -> Option<f64> {
        let inside = (0.0..self.height as f64).contains(&row) && (0.0..self.width as f64).contains(&column);
        inside.then(|| self.data[row as usize * self.width + column as usize])
    }
}

/// `crop_resize`.
pub(super) fn crop_resize(
    op: &Sample,
    x: &Value,
    boxes: &Value,
    indices: Option<&Value>,
    ty: &TensorType,
) -> Result<Vec<f64>, ValueError> {
    let Sample::CropResize { sizes, normalized, scale, mode, grid, outside, .. } = op else {
        unreachable!("the caller has a crop_resize")
    };
    let &[n, channels, height, width] = x.ty.shape.as_slice() else { unreachable!("images have rank 4") };
    let numbers = if boxes.ty.shape.len() == 2 { 4 } else { boxes.ty.shape[2] };
    let of_every_image = boxes.ty.shape.len() == 5 && numbers == 4;
    let mut result = Vec::with_capacity(ty.len());
    for (b, values) in boxes.data.chunks_exact(numbers).enumerate() {
        let image = match indices {
            Some(indices) => indices.data[b],
            None if numbers == 5 => values[0],
            None => b as f64,
        };
        let images =
            if of_every_image { (0..n).collect() } else { vec![super::movement::position(image, n)?] };
        let [top, left, bottom, right] = corners(*mode, &values[numbers - 4..]).map(|v| v * scale);
        let unit = |length: usize| if *normalized { length as f64 - 1.0 } else { 1.0 };
        let rows = spread(*grid, top * unit(height), bottom * unit(height), sizes[0]);
        let columns = spread(*grid, left * unit(width), right * unit(width), sizes[1]);
        for image in images {
            for c in 0..channels {
                let area = height * width;
                let data = &x.data[(image * channels + c) * area..][..area];
                let plane = Plane { data, height, width };
                for &row in &rows {
                    for &column in &columns {
                        let inside = (0.0..=height as f64 - 1.0).contains(&row)
                            && (0.0..=width as f64 - 1.0).contains(&column);
                        result.push(if inside {
                            plane.at(row, column, Interpolation::Linear)
                        } else {
                            *outside
                        });
                    }
                }
            }
        }
    }
    Ok(result)
}

/// Top, left, bottom and right of a box.
fn corners(mode: BoxMode, v: &[f64]) -> [f64; 4] {
    match mode {
        BoxMode::CornersHeightFirst => [v[0], v[1], v[2], v[3]],
        BoxMode::CornersWidthFirst => [v[1], v[0], v[3], v[2]],
        BoxMode::CenterSizeHeightFirst => {
            [v[0] - v[2] / 2.0, v[1] - v[3] / 2.0, v[0] + v[2] / 2.0, v[1] + v[3] / 2.0]
        }
        BoxMode::CenterSizeWidthFirst => {
            [v[1] - v[3] / 2.0, v[0] - v[2] / 2.0, v[1] + v[3] / 2.0, v[0] + v[2] / 2.0]
        }
    }
}

/// The points of m samples from the first pixel of a box to its last one.
fn spread(grid: Grid, first: f64, last: f64, m: usize) -> Vec<f64> {
    let length = last - first;
    let n = length + 1.0;
    let samples = m as f64;
    let point = |i: usize| {
        let i = i as f64;
        first
            + match grid {
                Grid::AlignCorners if m == 1 => length / 2.0,
                Grid::StrictAlignCorners | Grid::Default if m == 1 => 0.0,
                Grid::StrictAlignCorners | Grid::AlignCorners => i * length / (samples - 1.0),
                Grid::Default => i * (n - n / samples) / (samples - 1.0),
                Grid::OffsetCorners => (i + 0.5) * length.max(1.0) / samples,
                Grid::UnalignCorners => (i + 0.5) * n / samples - 0.5,
                Grid::Proportional => i * n / samples,
            }
    };
    (0..m).map(point).collect()
}

/// `resample`.
pub(super) fn resample(op: &Sample, x: &Value, points: &Value, ty: &TensorType) -> Vec<f64> {
    let Sample::Resample { interpolation, outside, unit, align_corners, .. } = op else {
        unreachable!("the caller has a resample")
    };
    let &[_, channels, height, width] = x.ty.shape.as_slice() else { unreachable!("images have rank 4") };
    let area = height * width;
    let per_image = ty.shape[2] * ty.shape[3];
    let mut result = vec![0.0; ty.len()];
    for (k, point) in points.data.chunks_exact(2).enumerate() {
        let (image, place) = (k / per_image, k % per_image);
        let column = in_pixels(point[0], *unit, *align_corners, width);
        let row = in_pixels(point[1], *unit, *align_corners, height);
        for c in 0..channels {
            let data = &x.data[(image * channels + c) * area..][..area];
            let plane = Plane { data, height, width };
            result[(image * channels + c) * per_image + place] =
                sampled(&plane, row, column, *interpolation, *outside);
        }
    }
    result
}

/// `affine`.
pub(super) fn affine(x: &Value, matrix: &Value, ty: &TensorType) -> Vec<f64> {
    let &[_, channels, height, width] = x.ty.shape.as_slice() else { unreachable!("images have rank 4") };
    let (area, rows) = (height * width, matrix.ty.shape[0]);
    let element = |at: &Vec<usize>| {
        let m = &matrix.data[if rows == 1 { 0 } else { at[0] * 6 }..][..6];
        let (px, py) = (Grid::normalized(at[3], ty.shape[3]), Grid::normalized(at[2], ty.shape[2]));
        let pixels = |v, n| in_pixels(v, Coordinates::MinusOneToOne, true, n);
        let column = pixels(m[0] * px + m[1] * py + m[2], width);
        let row = pixels(m[3] * px + m[4] * py + m[5], height);
        let plane = Plane { data: &x.data[(at[0] * channels + at[1]) * area..][..area], height, width };
        sampled(&plane, row, column, Interpolation::Linear, Outside::Constant(0.0))
    };
    positions(&ty.shape).iter().map(element).collect()
}

/// A coordinate in pixels, of which the first has its middle at 0.
fn in_pixels(v: f64, unit: Coordinates, align_corners: bool, length: usize) -> f64 {
    let n = length as f64;
    let share = match unit {
        Coordinates::Unnormalized => return v,
        Coordinates::MinusOneToOne => f64::midpoint(v, 1.0),
        Coordinates::ZeroToOne => v,
    };
    if align_corners { share * (n - 1.0) } else { share * n - 0.5 }
}

fn sampled(plane: &Plane<'_>, row: f64, column: f64, interpolation: Interpolation, outside: Outside) -> f64 {
    let (h, w) = (plane.height as f64, plane.width as f64);
    let inside = |v: f64, n: f64| match outside {
        Outside::Constant(_) => v,
        Outside::Border => v.clamp(0.0, n - 1.0),
        Outside::Reflection => mirrored(v, 0.0, n - 1.0),
        Outside::Symmetric => mirrored(v, -0.5, n - 0.5).clamp(0.0, n - 1.0),
    };
    let (row, column) = (inside(row, h), inside(column, w));
    let Outside::Constant(value) = outside else {
        return if row.is_nan() || column.is_nan() { f64::NAN } else { plane.at(row, column, interpolation) };
    };
    match interpolation {
        Interpolation::Nearest => {
            plane.pixel(row.round_ties_even(), column.round_ties_even()).unwrap_or(value)
        }
        Interpolation::Linear => {
            let (y, x) = (row.floor(), column.floor());
            let (b, a) = (row - y, column - x);
            let pixel = |dy: f64, dx: f64| plane.pixel(y + dy, x + dx).unwrap_or(value);
            let mut sum = 0.0;
            for (weight, dy, dx) in [
                ((1.0 - b) * (1.0 - a), 0.0, 0.0),
                ((1.0 - b) * a, 0.0, 1.0),
                (b * (1.0 - a), 1.0, 0.0),
                (b * a, 1.0, 1.0),
            ] {
                if weight != 0.0 {
                    sum += weight * pixel(dy, dx);
                }
            }
            sum
        }
    }
}

/// A point mirrored at two ends until it lies between them.
fn mirrored(v: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if span <= 0.0 {
        return low;
    }
    let around = (v - low).rem_euclid(2.0 * span);
    low + if around > span { 2.0 * span - around } else { around }
}
