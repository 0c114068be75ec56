//! How far two tensors are apart.

use crate::Tensor;

/// How far a tensor `a` is from a reference `b` of the same shape.
///
/// Two NaN are equal, and so are two infinities of the same sign; any other difference that involves one of them is
/// infinite. Values are compared as `f64`, whatever the two types are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The largest |a − b|.
    pub max_abs: f64,
    /// The largest |a − b| / |b|; infinite where b is zero and a is not.
    pub max_rel: f64,
    /// ‖a − b‖₂ / ‖b‖₂ over the finite elements of b; zero for equal tensors, infinite for others where ‖b‖ is zero.
    pub norm_rel: f64,
    /// The row-major index of the (first) largest |a − b|.
    pub worst_index: usize,
}

/// Measures the difference of `a` from the reference `b`.
///
/// # Errors
/// [`Mismatch::Shape`] if the shapes differ.
pub fn difference(a: &Tensor, b: &Tensor) -> Result<Difference, Mismatch> {
    same_shape(a, b)?;
    let mut result = Difference { max_abs: 0.0, max_rel: 0.0, norm_rel: 0.0, worst_index: 0 };
    let (mut sum_difference, mut sum_reference) = (0.0, 0.0);
    for i in 0..a.len() {
        let (x, y) = (a.get(i), b.get(i));
        let d = distance(x, y);
        if d > result.max_abs {
            (result.max_abs, result.worst_index) = (d, i);
        }
        result.max_rel = result.max_rel.max(ratio(d, if y.is_finite() { y.abs() } else { 1.0 }));
        sum_difference += d * d;
        sum_reference += if y.is_finite() { y * y } else { 0.0 };
    }
    result.norm_rel = ratio(f64::sqrt(sum_difference), f64::sqrt(sum_reference));
    Ok(result)
}

/// What is close enough: |got − want| ≤ atol + rtol·|want| for every element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The absolute part.
    pub atol: f64,
    /// The part relative to the wanted value.
    pub rtol: f64,
}

impl Tolerance {
    /// Checks every element; NaN and infinities must match (see [`Difference`]).
    ///
    /// # Errors
    /// [`Mismatch`] names the element that exceeds what is allowed by most.
    pub fn check(&self, got: &Tensor, want: &Tensor) -> Result<(), Mismatch> {
        same_shape(got, want)?;
        let (mut failed, mut worst, mut worst_excess) = (0, 0, 0.0);
        for i in 0..got.len() {
            let excess = distance(got.get(i), want.get(i)) - self.allowed(want.get(i));
            if excess > 0.0 {
                failed += 1;
                if excess > worst_excess {
                    (worst, worst_excess) = (i, excess);
                }
            }
        }
        if failed == 0 {
            return Ok(());
        }
        Err(Mismatch::Values {
            index: unravel(worst, got.shape()),
            got: got.get(worst),
            want: want.get(worst),
            allowed: self.allowed(want.get(worst)),
            failed,
            count: got.len(),
        })
    }

    fn allowed(&self, want: f64) -> f64 {
        self.atol + if want.is_finite() { self.rtol * want.abs() } else { 0.0 }
    }
}

/// Why two tensors are not close enough.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// They have different shapes.
    #[error("shape {got:?}, expected {want:?}")]
    Shape {
        /// The shape of the tensor under test.
        got: Vec<usize>,
        /// The shape of the reference.
        want: Vec<usize>,
    },
    /// Elements differ by more than is allowed.
    #[error(
        "{failed} of {count} elements differ by too much, most at {index:?}: {got:e}, expected {want:e} within {allowed:e}"
    )]
    Values {
        /// Where the worst one is, one number a dimension.
        index: Vec<usize>,
        /// The worst element.
        got: f64,
        /// What it should be.
        want: f64,
        /// How far from that it may be.
        allowed: f64,
        /// How many elements differ by too much.
        failed: usize,
        /// How many there are.
        count: usize,
    },
}

fn same_shape(got: &Tensor, want: &Tensor) -> Result<(), Mismatch> {
    if got.shape() == want.shape() {
        return Ok(());
    }
    Err(Mismatch::Shape { got: got.shape().to_vec(), want: want.shape().to_vec() })
}

fn distance(x: f64, y: f64) -> f64 {
    if x == y || (x.is_nan() && y.is_nan()) {
        return 0.0;
    }
    let d = (x - y).abs();
    if d.is_nan() { f64::INFINITY } else { d }
}

/// `d / scale`, with 0/0 = 0.
fn ratio(d: f64, scale: f64) -> f64 {
    if d == 0.0 { 0.0 } else { d / scale }
}

fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (slot, &dim) in index.iter_mut().zip(shape).rev() {
        *slot = flat % dim;
        flat /= dim;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(&[values.len()], values.to_vec()).unwrap()
    }

    #[test]
    fn measures_are_those_of_their_definitions() {
        let d = difference(&tensor(&[1.5, 2.0, -4.0]), &tensor(&[1.0, 2.0, -3.0])).unwrap();
        assert_eq!((d.max_abs, d.max_rel, d.worst_index), (1.0, 0.5, 2));
        assert_eq!(d.norm_rel, 1.25f64.sqrt() / 14.0f64.sqrt());
        let zero = difference(&tensor(&[0.0]), &tensor(&[0.0])).unwrap();
        assert_eq!((zero.max_rel, zero.norm_rel), (0.0, 0.0));
        let from_zero = difference(&tensor(&[1.0]), &tensor(&[0.0])).unwrap();
        assert_eq!((from_zero.max_rel, from_zero.norm_rel), (f64::INFINITY, f64::INFINITY));
    }

    #[test]
    fn values_that_are_not_finite_must_match() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let exact = Tolerance { atol: 0.0, rtol: 1.0 };
        let special = tensor(&[nan, inf, -inf]);
        assert_eq!(difference(&special, &special).unwrap().norm_rel, 0.0);
        assert_eq!(exact.check(&special, &special), Ok(()));
        for (got, want) in [(inf, -inf), (nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf), (nan, inf)] {
            let (got, want) = (tensor(&[got]), tensor(&[want]));
            let d = difference(&got, &want).unwrap();
            assert_eq!((d.max_abs, d.max_rel, d.norm_rel), (inf, inf, inf), "{got:?} {want:?}");
            assert!(exact.check(&got, &want).is_err(), "{got:?} {want:?}");
        }
    }

    #[test]
    fn the_worst_element_is_named() {
        let got = Tensor::new(&[2, 2], vec![1.0f32, 2.0, 3.5, 4.2]).unwrap();
        let want = Tensor::new(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let error = Tolerance { atol: 0.1, rtol: 0.0 }.check(&got, &want).unwrap_err();
        let Mismatch::Values { index, failed, .. } = &error else { panic!("{error}") };
        assert_eq!((index.as_slice(), *failed), (&[1, 0][..], 2));
        assert_eq!(Tolerance { atol: 0.5, rtol: 0.0 }.check(&got, &want), Ok(()));
        assert_eq!(Tolerance { atol: 0.0, rtol: 0.17 }.check(&got, &want), Ok(()));
        assert!(matches!(difference(&got, &tensor(&[0.0; 4])), Err(Mismatch::Shape { .. })));
    }
}
