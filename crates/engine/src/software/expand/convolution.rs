//! Convolutions as products.

use arcane_mil::{Builder, Convolution, Op};

use super::Expanded;

/// Positions of several dimensions become those of one, which is a product of the weight with rows of positions.
pub(super) fn convolution(f: &mut Builder, c: &Convolution) -> Expanded {
    let (x, weight) = (f.shape(c.x), f.shape(c.weight));
    if c.groups > 1 || !c.is_pointwise(&weight) || x[2..x.len() - 1].iter().all(|&d| d == 1) {
        return Ok(None);
    }
    let (outputs, inputs) = (weight[0], weight[1]);
    let rows = f.reshape(c.x, &[x[0], inputs, x[2..].iter().product()])?;
    let weight = f.reshape(c.weight, &[outputs, inputs, 1])?;
    let product = f.push_one(Op::Convolution(Convolution::pointwise(rows, weight, c.bias, 3)))?;
    let shape = [&[x[0], outputs], &x[2..]].concat();
    Ok(Some(vec![f.reshape(product, &shape)?]))
}
