//! The types of normalisations.

use super::{TypeError, float};
use crate::{Normalisation, TensorType, ValueId};

/// The result of a normalisation: the type of x.
pub(super) fn normalisation<'a>(
    n: &Normalisation,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<TensorType, TypeError> {
    let x = types(n.x());
    float(x, "x")?;
    let rank = x.shape.len();
    match n {
        Normalisation::Batch { mean, variance, gamma, beta, .. } => {
            ensure!((3..=5).contains(&rank), "x is {x}, rank 3 to 5 was expected");
            let all = [("mean", Some(mean)), ("variance", Some(variance))];
            for (name, v) in all.into_iter().chain([("gamma", gamma.as_ref()), ("beta", beta.as_ref())]) {
                scale(v.map(|v| types(*v)), name, &x.shape[1..2])?;
            }
        }
        Normalisation::Instance { gamma, beta, .. } => {
            ensure!((3..=4).contains(&rank), "x is {x}, rank 3 or 4 was expected");
            scale(gamma.map(&types), "gamma", &x.shape[1..2])?;
            scale(beta.map(&types), "beta", &x.shape[1..2])?;
        }
        Normalisation::Layer { axes, gamma, beta, .. } => {
            ensure!(
                axes.is_sorted_by(|a, b| a < b) && axes.iter().all(|&a| a < rank),
                "axes {axes:?} are not sorted and distinct axes of x {x}"
            );
            let shape: Vec<usize> = axes.iter().map(|&a| x.shape[a]).collect();
            scale(gamma.map(&types), "gamma", &shape)?;
            scale(beta.map(&types), "beta", &shape)?;
        }
        Normalisation::L2 { .. } => ensure!(rank >= 3, "x is {x}, rank 3 or more was expected"),
        Normalisation::LocalResponse { size, .. } => {
            ensure!(rank >= 3, "x is {x}, rank 3 or more was expected");
            ensure!(*size > 0, "size is 0, 1 or more was expected");
        }
    }
    Ok(x.clone())
}

/// Checks an operand that scales or shifts.
pub(super) fn scale(found: Option<&TensorType>, name: &str, shape: &[usize]) -> Result<(), TypeError> {
    let Some(found) = found else { return Ok(()) };
    ensure!(
        found.dtype.is_float() && found.shape == shape,
        "{name} is {found}, floats of shape {shape:?} were expected"
    );
    Ok(())
}
