//! The derivatives of convolutions and pools: a convolution's with respect to its operand is a transposed convolution and the
//! other way round; with respect to the weight it is a convolution whose batch is contracted.

use arcane_mil::{
    BuildError, Builder, Compare, Convolution, Op, PadType, Pool, PoolKind, Reduce, TransposedConvolution,
    ValueId,
};
use arcane_tensor::{DType, Tensor};

use crate::adjoint::Adjoints;

/// How a kernel moves over spatial dimensions. `lengths` are the dimensions of what the convolution reads.
struct Window {
    lengths: Vec<usize>,
    positions: Vec<usize>,
    sizes: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    before: Vec<usize>,
    groups: usize,
}

impl Window {
    /// Elements of a dimension, its padding included, that all positions together reach over.
    fn reach(&self, d: usize) -> usize {
        (self.positions[d] - 1) * self.strides[d] + (self.sizes[d] - 1) * self.dilations[d] + 1
    }

    /// Padding that lets a convolution have all positions: at least as many elements as they reach over.
    fn pad(&self) -> Vec<usize> {
        let pads = |d: usize| {
            let after = self.reach(d).saturating_sub(self.before[d] + self.lengths[d]);
            [self.before[d], after]
        };
        (0..self.lengths.len()).flat_map(pads).collect()
    }

    /// Whether some dimension's positions reach over padding alone.
    fn misses(&self) -> bool {
        (0..self.lengths.len()).any(|d| self.reach(d) <= self.before[d])
    }
}

/// `x` cut, or continued with zeros, to `length` elements along an axis.
fn fitted(f: &mut Builder, x: ValueId, axis: usize, length: usize) -> Result<ValueId, BuildError> {
    let mut shape = f.shape(x);
    let found = shape[axis];
    if found > length {
        return Ok(f.split(x, axis, &[length, found - length])?[0]);
    }
    if found == length {
        return Ok(x);
    }
    shape[axis] = length - found;
    let zeros = f.fill(f.ty(x).dtype, &shape, 0.0);
    f.concat(&[x, zeros], axis)
}

/// What the results' adjoint `g` gives to what a convolution reads, of `channels` channels.
fn data_gradient(
    f: &mut Builder,
    g: ValueId,
    weight: ValueId,
    w: &Window,
    channels: usize,
) -> Result<ValueId, BuildError> {
    let shape = [&[f.shape(g)[0], channels], w.lengths.as_slice()].concat();
    if w.misses() {
        return Ok(f.fill(f.ty(g).dtype, &shape, 0.0));
    }
    let cut = |d: usize| [w.before[d], w.reach(d).saturating_sub(w.before[d] + w.lengths[d])];
    let mut d = f.push_one(Op::TransposedConvolution(TransposedConvolution {
        x: g,
        weight,
        bias: None,
        strides: w.strides.clone(),
        pad_type: PadType::Custom,
        pad: (0..w.lengths.len()).flat_map(cut).collect(),
        dilations: w.dilations.clone(),
        groups: w.groups,
        output_shape: None,
    }))?;
    for (axis, &length) in w.lengths.iter().enumerate() {
        d = fitted(f, d, axis + 2, length)?;
    }
    Ok(d)
}

/// A convolution that gives exactly the window's positions.
fn correlate(f: &mut Builder, x: ValueId, weight: ValueId, w: &Window) -> Result<ValueId, BuildError> {
    let mut y = f.push_one(Op::Convolution(Convolution {
        x,
        weight,
        bias: None,
        strides: w.strides.clone(),
        pad_type: PadType::Custom,
        pad: w.pad(),
        dilations: w.dilations.clone(),
        groups: w.groups,
    }))?;
    for (axis, &length) in w.positions.iter().enumerate() {
        y = fitted(f, y, axis + 2, length)?;
    }
    Ok(y)
}

/// What the results' adjoint `g` gives to the weight: for each element of the kernel the products of `g` with what it met,
/// which is a convolution of x with `g` as the kernel, where strides and dilations change places and the batch is contracted.
fn weight_gradient(f: &mut Builder, x: ValueId, g: ValueId, w: &Window) -> Result<ValueId, BuildError> {
    let (x_shape, g_shape) = (f.shape(x), f.shape(g));
    let batch = x_shape[0];
    let (channels, outputs) = (x_shape[1] / w.groups, g_shape[1] / w.groups);
    let plane = |shape: &[usize]| shape[2..].iter().product();
    let x = f.reshape(x, &[batch, w.groups, channels, plane(&x_shape)])?;
    let x = f.transpose(x, &[2, 1, 0, 3])?;
    let x = f.reshape(x, &[&[channels, w.groups * batch], &x_shape[2..]].concat())?;
    let g = f.reshape(g, &[batch, w.groups, outputs, plane(&g_shape)])?;
    let g = f.transpose(g, &[1, 2, 0, 3])?;
    let g = f.reshape(g, &[&[w.groups * outputs, batch], &g_shape[2..]].concat())?;
    let turned = Window {
        lengths: w.lengths.clone(),
        positions: w.sizes.clone(),
        sizes: w.positions.clone(),
        strides: w.dilations.clone(),
        dilations: w.strides.clone(),
        before: w.before.clone(),
        groups: w.groups,
    };
    let d = correlate(f, x, g, &turned)?;
    let mut perm: Vec<usize> = (0..x_shape.len()).collect();
    perm.swap(0, 1);
    f.transpose(d, &perm)
}

/// Gives the sum over everything but the channels to a bias.
fn give_bias(a: &mut Adjoints<'_>, bias: Option<ValueId>, g: ValueId) -> Result<(), BuildError> {
    let Some(bias) = bias else { return Ok(()) };
    let axes: Vec<usize> = (0..a.f.shape(g).len()).filter(|&i| i != 1).collect();
    a.give(bias, |f| f.reduce(Reduce::Sum, g, &axes, false))
}

/// The derivatives of `conv`.
pub(crate) fn convolution(a: &mut Adjoints<'_>, c: &Convolution, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    give_bias(a, c.bias, g)?;
    let (x, weight) = (a.f.shape(c.x), a.f.shape(c.weight));
    if c.groups == 1 && c.is_pointwise(&weight) {
        return pointwise(a, c, g);
    }
    let w = Window {
        lengths: x[2..].to_vec(),
        positions: a.f.shape(y)[2..].to_vec(),
        sizes: weight[2..].to_vec(),
        strides: c.strides.clone(),
        dilations: c.dilations.clone(),
        before: (0..x.len() - 2).map(|d| c.padding(d, x[d + 2], weight[d + 2])[0]).collect(),
        groups: c.groups,
    };
    a.give(c.x, |f| data_gradient(f, g, c.weight, &w, x[1]))?;
    a.give(c.weight, |f| weight_gradient(f, c.x, g, &w))
}

/// Of one position with one position it is a product over the channels: with the positions last, dx = Wᵀ · g and dW = Σ over
/// the batch of g · xᵀ.
fn pointwise(a: &mut Adjoints<'_>, c: &Convolution, g: ValueId) -> Result<(), BuildError> {
    let (x_shape, weight_shape) = (a.f.shape(c.x), a.f.shape(c.weight));
    let (batch, inputs, outputs) = (x_shape[0], weight_shape[1], weight_shape[0]);
    let positions = x_shape[2..].iter().product();
    a.give(c.x, |f| {
        let g = f.reshape(g, &[batch, outputs, positions])?;
        let weight = f.reshape(c.weight, &[outputs, inputs])?;
        let d = f.matmul(weight, g, true, false)?;
        f.reshape(d, &x_shape)
    })?;
    a.give(c.weight, |f| {
        let g = f.reshape(g, &[batch, outputs, positions])?;
        let x = f.reshape(c.x, &[batch, inputs, positions])?;
        let d = f.matmul(g, x, false, true)?;
        let d = f.reduce(Reduce::Sum, d, &[0], false)?;
        f.reshape(d, &weight_shape)
    })
}

/// The derivatives of `conv_transpose`.
pub(crate) fn transposed(
    a: &mut Adjoints<'_>,
    c: &TransposedConvolution,
    y: ValueId,
) -> Result<(), BuildError> {
    let g = a.full(y)?;
    give_bias(a, c.bias, g)?;
    let (x, weight) = (a.f.shape(c.x), a.f.shape(c.weight));
    let before = |d: usize| c.cut(d, x[d + 2], weight[d + 2]).map_or(0, |(_, before)| before);
    let w = Window {
        lengths: a.f.shape(y)[2..].to_vec(),
        positions: x[2..].to_vec(),
        sizes: weight[2..].to_vec(),
        strides: c.strides.clone(),
        dilations: c.dilations.clone(),
        before: (0..x.len() - 2).map(before).collect(),
        groups: c.groups,
    };
    a.give(c.x, |f| correlate(f, g, c.weight, &w))?;
    a.give(c.weight, |f| weight_gradient(f, g, c.x, &w))
}

/// The derivative of a pool. Of several largest elements of a window each takes an equal share.
pub(crate) fn pool(a: &mut Adjoints<'_>, p: &Pool, y: ValueId) -> Result<(), BuildError> {
    let g = a.full(y)?;
    let x = a.f.shape(p.x);
    let w = Window {
        lengths: x[2..].to_vec(),
        positions: a.f.shape(y)[2..].to_vec(),
        sizes: p.kernel_sizes.clone(),
        strides: p.strides.clone(),
        dilations: vec![1; x.len() - 2],
        before: (0..x.len() - 2).map(|d| p.padding(d, x[d + 2])[0]).collect(),
        groups: x[1],
    };
    a.give(p.x, |f| match p.kind {
        PoolKind::Average { exclude_padding } => {
            let counts = counts(p, &w, exclude_padding);
            let shape = [&[1, 1], w.positions.as_slice()].concat();
            let counts = constant(f, f.ty(g).dtype, &shape, &counts);
            let share = f.real_div(g, counts)?;
            let ones = f.fill(f.ty(g).dtype, &[&[x[1], 1], w.sizes.as_slice()].concat(), 1.0);
            data_gradient(f, share, ones, &w, x[1])
        }
        PoolKind::L2 => {
            let slope = f.real_div(g, y)?;
            let ones = f.fill(f.ty(g).dtype, &[&[x[1], 1], w.sizes.as_slice()].concat(), 1.0);
            let d = data_gradient(f, slope, ones, &w, x[1])?;
            f.mul(p.x, d)
        }
        PoolKind::Max => largest(f, p, g, y, &w),
    })
}

/// Every window is laid out by a convolution whose kernels have a single one, its largest elements are found, and their shares
/// go back the same way.
fn largest(f: &mut Builder, p: &Pool, g: ValueId, y: ValueId, w: &Window) -> Result<ValueId, BuildError> {
    let (x, dtype) = (f.shape(p.x), f.ty(p.x).dtype);
    let (taps, positions): (usize, usize) = (w.sizes.iter().product(), w.positions.iter().product());
    let single = |i: usize| f64::from(u8::from(i % taps == i / taps % taps));
    let singles: Vec<f64> = (0..x[1] * taps * taps).map(single).collect();
    let singles = constant(f, dtype, &[&[x[1] * taps, 1], w.sizes.as_slice()].concat(), &singles);
    let laid_out = correlate(f, p.x, singles, w)?;
    let laid_out = f.reshape(laid_out, &[x[0], x[1], taps, positions])?;
    let row = [x[0], x[1], 1, positions];
    let (g, y) = (f.reshape(g, &row)?, f.reshape(y, &row)?);
    let inside = constant(f, DType::Bool, &[1, 1, taps, positions], &inside(w));
    let equal = f.compare(Compare::Equal, laid_out, y)?;
    let is_largest = f.logical_and(equal, inside)?;
    let ones = f.cast(is_largest, dtype);
    let count = f.reduce(Reduce::Sum, ones, &[2], true)?;
    let share = f.real_div(g, count)?;
    let zero = f.scalar(dtype, 0.0);
    let d = f.select(is_largest, share, zero)?;
    let d = f.reshape(d, &[&[x[0], x[1] * taps], w.positions.as_slice()].concat())?;
    data_gradient(f, d, singles, w, x[1])
}

fn constant(f: &mut Builder, dtype: DType, shape: &[usize], values: &[f64]) -> ValueId {
    let tensor = Tensor::from_f64s(dtype, shape, values).expect("one value an element");
    f.constant("window", tensor)
}

/// The coordinates of an element of a shape in row-major order.
fn coordinates(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (c, &d) in at.iter_mut().zip(shape).rev() {
        *c = i % d;
        i /= d;
    }
    at
}

/// For each element of the kernel and each position whether they meet an element that is no padding.
fn inside(w: &Window) -> Vec<f64> {
    let (taps, positions): (usize, usize) = (w.sizes.iter().product(), w.positions.iter().product());
    let meets = |i: usize| {
        let (tap, at) = (coordinates(&w.sizes, i / positions), coordinates(&w.positions, i % positions));
        (0..tap.len()).all(|d| {
            let padded = at[d] * w.strides[d] + tap[d];
            padded >= w.before[d] && padded < w.before[d] + w.lengths[d]
        })
    };
    (0..taps * positions).map(|i| f64::from(u8::from(meets(i)))).collect()
}

/// How many elements an average counts at each position.
fn counts(p: &Pool, w: &Window, exclude_padding: bool) -> Vec<f64> {
    let along = |d: usize, at: usize| {
        let [before, after] = p.padding(d, w.lengths[d]);
        let (from, to) = if exclude_padding {
            (before, before + w.lengths[d])
        } else {
            (0, before + w.lengths[d] + after)
        };
        let first = at * w.strides[d];
        (first + w.sizes[d]).min(to).saturating_sub(first.max(from))
    };
    let count = |i: usize| {
        let at = coordinates(&w.positions, i);
        let all: usize = (0..at.len()).map(|d| along(d, at[d])).product();
        all as f64
    };
    (0..w.positions.iter().product()).map(count).collect()
}
