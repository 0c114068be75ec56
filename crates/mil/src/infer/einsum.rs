//! The type of `einsum`.

use arcane_tensor::DType;

use super::{TypeError, broadcast};
use crate::{Einsum, TensorType};

/// The result of `einsum`.
pub(super) fn einsum(e: &Einsum, [x, y]: [&TensorType; 2]) -> Result<TensorType, TypeError> {
    ensure!(
        x.dtype == y.dtype && x.dtype != DType::Bool,
        "the operands are {x} and {y}, one numeric dtype was expected"
    );
    let Some(rank) = Einsum::rank_of(&e.equation) else {
        return Err(TypeError(format!(
            "the equation is {:?}, one like \"nchw,nwhu->nchu\" or \"chw,whu->chu\" was expected",
            e.equation
        )));
    };
    ensure!(
        x.shape.len() == rank && y.shape.len() == rank,
        "the operands are {x} and {y}, rank {rank} was expected for {:?}",
        e.equation
    );
    let (left, right) = (&x.shape[rank - 3..], &y.shape[rank - 3..]);
    ensure!(left[2] == right[0], "{x} and {y} do not agree in the contracted dimension");
    let of = |t: &TensorType| [&t.shape[..rank - 3], &t.shape[rank - 2..rank - 1]].concat();
    let outer = broadcast(&of(x), &of(y));
    let outer =
        outer.ok_or_else(|| TypeError(format!("the outer dimensions of {x} and {y} do not broadcast")))?;
    let (h, n) = outer.split_last().expect("h is one of them");
    Ok(TensorType::new(x.dtype, &[n, &[left[0], *h, right[2]]].concat()))
}
