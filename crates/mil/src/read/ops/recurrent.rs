//! Recurrent networks as they are written.

use super::{Built, flag};
use crate::op::recurrent::{Activation, Back, Cell, Lstm, Recurrent, Way};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::{Op, Opset};

const FLOAT: Class = Class::Recurrent;

/// `rnn`, `gru` and `lstm`.
pub(super) fn recurrent(a: &mut Arguments<'_, '_>) -> Built {
    let (x, initial_h) = (a.operand("x", FLOAT)?, a.operand("initial_h", FLOAT)?);
    let cell = match a.op() {
        "rnn" => Cell::Rnn,
        "gru" => gru(a)?,
        _ => Cell::Lstm(Box::new(lstm(a)?)),
    };
    let (weight_ih, weight_hh) =
        (a.constant_operand("weight_ih", FLOAT)?, a.constant_operand("weight_hh", FLOAT)?);
    let bias = a.maybe_constant_operand("bias", FLOAT)?;
    let way = match a.text("direction")? {
        None => Way::Forward,
        Some(Found { value, at }) => {
            let known = Way::ALL.into_iter().find(|w| w.name() == value);
            known.ok_or_else(|| {
                let expected = "forward, reverse or, of lstm, bidirectional";
                Fault::new(at, format!("direction is {}", shown(&value)), expected)
            })?
        }
    };
    let output_sequence = flag(a, "output_sequence")?;
    let activation = activation(a, "activation", Activation::Tanh)?;
    Ok(Op::Recurrent(Recurrent {
        cell,
        x,
        initial_h,
        weight_ih,
        weight_hh,
        bias,
        way,
        output_sequence,
        activation,
    }))
}

fn gru(a: &mut Arguments<'_, '_>) -> Result<Cell, Fault> {
    let recurrent_activation = activation(a, "recurrent_activation", Activation::Sigmoid)?;
    let (mut reset_after, mut input_bias) = (false, None);
    if a.opset() >= Opset::Ios18 {
        reset_after = flag(a, "reset_after")?;
        input_bias = a.maybe_constant_operand("input_bias", FLOAT)?;
    }
    Ok(Cell::Gru { recurrent_activation, reset_after, input_bias })
}

fn lstm(a: &mut Arguments<'_, '_>) -> Result<Lstm, Fault> {
    let initial_c = a.operand("initial_c", FLOAT)?;
    let peephole = a.maybe_constant_operand("peephole", FLOAT)?;
    let weight_ih = a.maybe_constant_operand("weight_ih_back", FLOAT)?;
    let weight_hh = a.maybe_constant_operand("weight_hh_back", FLOAT)?;
    let bias = a.maybe_constant_operand("bias_back", FLOAT)?;
    let peephole_back = a.maybe_constant_operand("peephole_back", FLOAT)?;
    let back = match (weight_ih, weight_hh) {
        (Some(weight_ih), Some(weight_hh)) => {
            Some(Back { weight_ih, weight_hh, bias, peephole: peephole_back })
        }
        (None, None) if bias.is_none() && peephole_back.is_none() => None,
        _ => {
            return Err(a.fault(
                "some of the weights of the way back are missing",
                "weight_ih_back and weight_hh_back",
            ));
        }
    };
    Ok(Lstm {
        initial_c,
        peephole,
        back,
        recurrent_activation: activation(a, "recurrent_activation", Activation::Sigmoid)?,
        cell_activation: activation(a, "cell_activation", Activation::Tanh)?,
        clip: a.float("clip")?.map(|found| found.value),
    })
}

fn activation(
    a: &mut Arguments<'_, '_>,
    name: &'static str,
    default: Activation,
) -> Result<Activation, Fault> {
    let Some(Found { value, at }) = a.text(name)? else { return Ok(default) };
    let known = Activation::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(&value));
    known.ok_or_else(|| {
        let names = Activation::ALL.map(Activation::name).join(", ");
        Fault::new(at, format!("{name} is {}", shown(&value)), format!("one of {names}"))
    })
}
