//! `einsum` as a matrix product.

use arcane_mil::{Builder, Einsum};

use super::Expanded;

/// `nchw,nwhu->nchu`: with h before c and w it is a product of matrices.
pub(super) fn einsum(f: &mut Builder, e: &Einsum) -> Expanded {
    let rank = f.shape(e.values[0]).len();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 3, rank - 2);
    let (x, y) = (f.transpose(e.values[0], &perm)?, f.transpose(e.values[1], &perm)?);
    let product = f.matmul(x, y, false, false)?;
    Ok(Some(vec![f.transpose(product, &perm)?]))
}
