//! The types of recurrent networks.

use super::{TypeError, float};
use crate::op::recurrent::{Cell, Recurrent, Way};
use crate::{TensorType, ValueId};

/// The results: hidden states, the last one, and the last cell state of `lstm`.
pub(super) fn recurrent<'a>(
    r: &Recurrent,
    types: impl Fn(ValueId) -> &'a TensorType,
) -> Result<Vec<TensorType>, TypeError> {
    let x = types(r.x);
    float(x, "x")?;
    ensure!(
        r.way != Way::Bidirectional || matches!(r.cell, Cell::Lstm(_)),
        "direction is bidirectional, forward or reverse was expected"
    );
    let &[steps, batch, inputs] = x.shape.as_slice() else {
        return Err(TypeError(format!("x is {x}, rank 3 was expected")));
    };
    ensure!(steps > 0, "x is {x}, at least one step was expected");
    let weight_hh = types(r.weight_hh);
    let &[rows, hidden] = weight_hh.shape.as_slice() else {
        return Err(TypeError(format!("weight_hh is {weight_hh}, rank 2 was expected")));
    };
    let gates = r.gates();
    ensure!(
        hidden > 0 && hidden.checked_mul(gates) == Some(rows),
        "weight_hh is {weight_hh}, {gates} times as many rows as columns were expected"
    );
    let wide = r.directions().saturating_mul(hidden);
    let is = |name: &str, v: ValueId, shape: &[usize]| {
        let (found, expected) = (types(v), TensorType::new(x.dtype, shape));
        ensure!(*found == expected, "{name} is {found}, {expected} was expected");
        Ok(())
    };
    is("initial_h", r.initial_h, &[batch, wide])?;
    for (name, v) in r.constants() {
        match name {
            "weight_ih" | "weight_ih_back" => is(name, v, &[rows, inputs])?,
            "weight_hh" | "weight_hh_back" => is(name, v, &[rows, hidden])?,
            "peephole" | "peephole_back" => is(name, v, &[rows - hidden])?,
            _ => is(name, v, &[rows])?,
        }
    }
    let last = TensorType::new(x.dtype, &[batch, wide]);
    let length = if r.output_sequence { steps } else { 1 };
    let mut results = vec![TensorType::new(x.dtype, &[length, batch, wide]), last.clone()];
    if let Cell::Lstm(l) = &r.cell {
        is("initial_c", l.initial_c, &[batch, wide])?;
        ensure!(
            r.way != Way::Bidirectional || l.back.is_some(),
            "there is no weight_ih_back and weight_hh_back, both were expected for two directions"
        );
        results.push(last);
    }
    Ok(results)
}
