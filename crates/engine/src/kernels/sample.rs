//! Images sampled at run-time points.

use arcane_mil::{BoxMode, Coordinates, Grid, Interpolation, Outside};
use arcane_tensor::DType;
use half::{bf16, f16};

use super::index::{index_at, wrapped};
use super::{Access, Bytes, Context, for_each_task};

/// Images sampled in boxes or at points. All views are dense.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    /// `[n, channels, height, width]`
    pub x: Access,
    /// Boxes or points.
    pub points: Access,
    /// The image of each box.
    pub images: Option<Access>,
    /// `[.., channels, rows, columns]`
    pub out: Access,
    /// What the points are.
    pub kind: SamplingKind,
}

/// Where samples lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SamplingKind {
    /// On a grid in each box.
    Boxes {
        /// Whether 1 is the last pixel's place.
        normalized: bool,
        /// What the boxes are multiplied with.
        scale: f64,
        /// The order of a box's numbers.
        mode: BoxMode,
        /// The grid.
        grid: Grid,
        /// What is outside an image.
        outside: f64,
    },
    /// At points (x, y), one a pixel of the result.
    Points {
        /// How pixels are computed.
        interpolation: Interpolation,
        /// What is outside.
        outside: Outside,
        /// What the points count in.
        unit: Coordinates,
        /// Whether normalized coordinates reach to the middles of border pixels.
        align_corners: bool,
    },
}

/// Reads an element of any numeric type.
unsafe fn number_at(dtype: DType, from: *const u8, i: usize) -> f64 {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::F16 => f64::from(*from.cast::<f16>().add(i)),
            DType::Bf16 => f64::from(*from.cast::<bf16>().add(i)),
            DType::F32 => f64::from(*from.cast::<f32>().add(i)),
            DType::F64 => *from.cast::<f64>().add(i),
            integer => index_at(integer, from, i) as f64,
        }
    }
}

/// One channel of an image.
struct Plane {
    dtype: DType,
    start: *const u8,
    height: usize,
    width: usize,
}

impl Plane {
    /// The pixel at whole coordinates, if it exists.
    unsafe fn pixel(&self, row: f64, column: f64) -> Option<f64> {
        let inside = row >= 0.0 && column >= 0.0 && row < self.height as f64 && column < self.width as f64;
        // SAFETY: the coordinates are inside the plane that the caller has.
        inside.then(|| unsafe {
            number_at(self.dtype, self.start, row as usize * self.width + column as usize)
        })
    }

    /// The image at a point; `outside` stands for pixels that do not exist.
    unsafe fn at(&self, row: f64, column: f64, interpolation: Interpolation, outside: f64) -> f64 {
        if interpolation == Interpolation::Nearest {
            // SAFETY: as the caller promises.
            return unsafe { self.pixel(row.round_ties_even(), column.round_ties_even()).unwrap_or(outside) };
        }
        let (top, left) = (row.floor(), column.floor());
        let (down, right) = (row - top, column - left);
        let mut sum = 0.0;
        for (share, y, x) in [
            ((1.0 - down) * (1.0 - right), top, left),
            ((1.0 - down) * right, top, left + 1.0),
            (down * (1.0 - right), top + 1.0, left),
            (down * right, top + 1.0, left + 1.0),
        ] {
            if share != 0.0 {
                // SAFETY: as the caller promises.
                sum += share * unsafe { self.pixel(y, x).unwrap_or(outside) };
            }
        }
        sum
    }
}

impl Sampling {
    /// Runs it. A box of an image that does not exist is reported and gives zeros.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let rank = self.out.shape.len();
        let (rows, columns) = (self.out.shape[rank - 2], self.out.shape[rank - 1]);
        let pixels = self.out.shape[rank - 3] * rows * columns;
        match self.kind {
            SamplingKind::Points { .. } => {
                for_each_task(self.x.shape[0], &|image| self.points(context, image, [rows, columns]));
            }
            SamplingKind::Boxes { .. } => {
                let results = self.out.len().checked_div(pixels).unwrap_or(0);
                for_each_task(results, &|result| self.boxed(context, result, [rows, columns]));
            }
        }
    }

    fn plane(&self, context: &Context<'_>, image: usize, channel: usize) -> Plane {
        let (height, width) = (self.x.shape[2], self.x.shape[3]);
        let offset = (image * self.x.shape[1] + channel) * height * width * self.x.dtype.size();
        // SAFETY: the plane is inside x.
        let start = unsafe { context.pointer(&self.x).add(offset) };
        Plane { dtype: self.x.dtype, start, height, width }
    }

    unsafe fn put(&self, out: Bytes, i: usize, value: f64) {
        // SAFETY: the caller's index is inside the result.
        unsafe {
            match self.out.dtype {
                DType::F16 => *out.get().cast::<f16>().add(i) = f16::from_f64(value),
                _ => *out.get().cast::<f32>().add(i) = value as f32,
            }
        }
    }

    /// Every pixel of one image's result.
    fn points(&self, context: &Context<'_>, image: usize, [rows, columns]: [usize; 2]) {
        let SamplingKind::Points { interpolation, outside, unit, align_corners } = self.kind else { return };
        let (points, out) = (context.pointer(&self.points), Bytes(context.pointer(&self.out)));
        let (channels, area) = (self.x.shape[1], rows * columns);
        let [h, w] = [self.x.shape[2] as f64, self.x.shape[3] as f64];
        for place in 0..area {
            let number = |k| {
                // SAFETY: there are two numbers for each pixel of each image.
                unsafe { number_at(self.points.dtype, points, (image * area + place) * 2 + k) }
            };
            let column = inside(in_pixels(number(0), unit, align_corners, w), outside, w);
            let row = inside(in_pixels(number(1), unit, align_corners, h), outside, h);
            let value = if let Outside::Constant(value) = outside { value } else { f64::NAN };
            for channel in 0..channels {
                let plane = self.plane(context, image, channel);
                // SAFETY: pixels are inside the plane or not read; each image writes its own part.
                unsafe {
                    let sample = plane.at(row, column, interpolation, value);
                    self.put(out, (image * channels + channel) * area + place, sample);
                }
            }
        }
    }

    /// One box of one image.
    fn boxed(&self, context: &Context<'_>, result: usize, [rows, columns]: [usize; 2]) {
        let SamplingKind::Boxes { normalized, scale, mode, grid, outside } = self.kind else { return };
        let (boxes, out) = (context.pointer(&self.points), Bytes(context.pointer(&self.out)));
        let (n, channels) = (self.x.shape[0], self.x.shape[1]);
        let numbers = self.points.shape[if self.points.shape.len() == 2 { 1 } else { 2 }];
        let every = self.points.shape.len() == 5 && numbers == 4;
        let (which, image) = if every { (result / n, result % n) } else { (result, result) };
        // SAFETY: there are that many numbers for each box.
        let number = |k: usize| unsafe { number_at(self.points.dtype, boxes, which * numbers + k) };
        let image = match &self.images {
            // SAFETY: there is an image for each box.
            Some(images) => unsafe { index_at(images.dtype, context.pointer(images), which) },
            None if numbers == 5 => number(0) as i64,
            None => image as i64,
        };
        let pixels = channels * rows * columns;
        let Some(image) = wrapped(image, n) else {
            context.fault.report(context.instruction, image);
            return;
        };
        let v = [0, 1, 2, 3].map(|k| number(numbers - 4 + k) * scale);
        let unit = |axis: usize| if normalized { self.x.shape[axis] as f64 - 1.0 } else { 1.0 };
        let [vertical, horizontal] = ends(mode, v);
        for row in 0..rows {
            let y = on_grid(grid, vertical.map(|end| end * unit(2)), row, rows);
            for column in 0..columns {
                let x = on_grid(grid, horizontal.map(|end| end * unit(3)), column, columns);
                for channel in 0..channels {
                    let plane = self.plane(context, image, channel);
                    let exists = y >= 0.0
                        && x >= 0.0
                        && y <= plane.height as f64 - 1.0
                        && x <= plane.width as f64 - 1.0;
                    // SAFETY: pixels are inside the plane; each box writes its own part.
                    unsafe {
                        let sample =
                            if exists { plane.at(y, x, Interpolation::Linear, outside) } else { outside };
                        self.put(out, result * pixels + (channel * rows + row) * columns + column, sample);
                    }
                }
            }
        }
    }
}

/// Top and bottom, left and right of a box.
fn ends(mode: BoxMode, [a, b, c, d]: [f64; 4]) -> [[f64; 2]; 2] {
    let around = |middle: f64, size: f64| [middle - size / 2.0, middle + size / 2.0];
    match mode {
        BoxMode::CornersHeightFirst => [[a, c], [b, d]],
        BoxMode::CornersWidthFirst => [[b, d], [a, c]],
        BoxMode::CenterSizeHeightFirst => [around(a, c), around(b, d)],
        BoxMode::CenterSizeWidthFirst => [around(b, d), around(a, c)],
    }
}

/// Where sample i of m lies between the first and the last pixel of a box.
fn on_grid(grid: Grid, [first, last]: [f64; 2], i: usize, m: usize) -> f64 {
    let (length, i, samples) = (last - first, i as f64, m as f64);
    let pixels = length + 1.0;
    let along = match (grid, m) {
        (Grid::AlignCorners, 1) => length / 2.0,
        (Grid::StrictAlignCorners | Grid::Default, 1) => 0.0,
        (Grid::StrictAlignCorners | Grid::AlignCorners, _) => i * length / (samples - 1.0),
        (Grid::Default, _) => i * (pixels - pixels / samples) / (samples - 1.0),
        (Grid::OffsetCorners, _) => (i + 0.5) * length.max(1.0) / samples,
        (Grid::UnalignCorners, _) => (i + 0.5) * pixels / samples - 0.5,
        (Grid::Proportional, _) => i * pixels / samples,
    };
    first + along
}

/// A coordinate in pixels, of which the first has its middle at 0.
fn in_pixels(v: f64, unit: Coordinates, align_corners: bool, n: f64) -> f64 {
    let share = match unit {
        Coordinates::Unnormalized => return v,
        Coordinates::MinusOneToOne => f64::midpoint(v, 1.0),
        Coordinates::ZeroToOne => v,
    };
    if align_corners { share * (n - 1.0) } else { share * n - 0.5 }
}

/// A coordinate moved into the image, if what is outside says how.
fn inside(v: f64, outside: Outside, n: f64) -> f64 {
    match outside {
        Outside::Constant(_) => v,
        Outside::Border => v.clamp(0.0, n - 1.0),
        Outside::Reflection => mirrored(v, 0.0, n - 1.0),
        Outside::Symmetric => mirrored(v, -0.5, n - 0.5).clamp(0.0, n - 1.0),
    }
}

fn mirrored(v: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if span <= 0.0 {
        return low;
    }
    let around = (v - low).rem_euclid(2.0 * span);
    low + around.min(2.0 * span - around)
}
