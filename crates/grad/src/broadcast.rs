//! Adjoints of shapes that broadcast: to the full shape, and back to an operand's.

use arcane_mil::{BuildError, Builder, Reduce, ValueId};

/// The value `g`, whose shape broadcasts to `shape`, in that shape.
pub(crate) fn materialise(f: &mut Builder, g: ValueId, shape: &[usize]) -> Result<ValueId, BuildError> {
    let padded = padded(&f.shape(g), shape.len());
    let g = f.reshape(g, &padded)?;
    if padded == shape {
        return Ok(g);
    }
    let reps: Vec<usize> = padded.iter().zip(shape).map(|(&p, &d)| if p == d { 1 } else { d }).collect();
    f.tile(g, &reps)
}

/// The adjoint of an operand of shape `target` that was broadcast to `shape`, from an adjoint `g` of what it became (whose
/// own shape broadcasts to `shape`): the sum over the broadcast dimensions. The result broadcasts to `target`.
///
/// Where `g` is constant along such a dimension, its length is a factor instead.
pub(crate) fn reduce_to(
    f: &mut Builder,
    g: ValueId,
    shape: &[usize],
    target: &[usize],
) -> Result<ValueId, BuildError> {
    let (own, rank) = (f.shape(g), shape.len());
    let (dims, wanted) = (padded(&own, rank), padded(target, rank));
    let is_broadcast = |&i: &usize| wanted[i] == 1 && shape[i] != 1;
    let (constant, summed): (Vec<usize>, Vec<usize>) =
        (0..rank).filter(is_broadcast).partition(|&i| dims[i] == 1);

    let mut result = g;
    if !summed.is_empty() {
        let only_leading = summed.iter().all(|&i| i < rank - target.len());
        let axes: Vec<usize> = summed.iter().map(|i| i + own.len() - rank).collect();
        result = f.reduce(Reduce::Sum, result, &axes, !only_leading)?;
    }
    let reduced = f.shape(result);
    if reduced.len() > target.len() {
        result = f.reshape(result, &reduced[reduced.len() - target.len()..])?;
    }
    let factor: usize = constant.iter().map(|&i| shape[i]).product();
    if factor == 1 { Ok(result) } else { f.scale(result, factor as f64) }
}

/// A value `v` that broadcasts to a reduction's result, so that it broadcasts to the reduction's operand of `rank`
/// dimensions: dimensions of length 1 stand for the reduced ones.
pub(crate) fn unreduce(
    f: &mut Builder,
    v: ValueId,
    rank: usize,
    axes: &[usize],
    keep_dims: bool,
) -> Result<ValueId, BuildError> {
    if keep_dims {
        return Ok(v);
    }
    let own = f.shape(v);
    let mut kept = padded(&own, rank - axes.len()).into_iter();
    let is_reduced = |i: &usize| axes.contains(i);
    let shape: Vec<usize> =
        (0..rank).map(|i| if is_reduced(&i) { 1 } else { kept.next().expect("one a kept axis") }).collect();
    if without_leading_ones(&shape) == without_leading_ones(&own) {
        return Ok(v);
    }
    f.reshape(v, &shape)
}

/// The shape with leading ones up to `rank` dimensions.
fn padded(shape: &[usize], rank: usize) -> Vec<usize> {
    [&vec![1; rank - shape.len()], shape].concat()
}

fn without_leading_ones(shape: &[usize]) -> &[usize] {
    &shape[shape.iter().take_while(|&&d| d == 1).count()..]
}
