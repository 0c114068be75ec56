//! Normalisations as they are written.

use arcane_tensor::round_to;

use super::elementwise::{epsilon, one_type};
use super::{Built, axes, sizes};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::{Normalisation, Op, ValueId};

/// `batch_norm`, `instance_norm`, `layer_norm`, `l2_norm`, `local_response_norm`.
pub(super) fn normalisation(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let found = match a.op() {
        "batch_norm" => {
            let mean = a.constant_operand("mean", Class::Float)?;
            let variance = a.constant_operand("variance", Class::Float)?;
            let [gamma, beta] = scales(a)?;
            one_type(
                a,
                x,
                &[("mean", Some(mean)), ("variance", Some(variance)), ("gamma", gamma), ("beta", beta)],
            )?;
            Normalisation::Batch { x, mean, variance, gamma, beta, epsilon: small(a, x, 1e-5)? }
        }
        "instance_norm" => {
            let [gamma, beta] = scales(a)?;
            one_type(a, x, &[("gamma", gamma), ("beta", beta)])?;
            Normalisation::Instance { x, gamma, beta, epsilon: small(a, x, 1e-5)? }
        }
        "layer_norm" => {
            let axes = axes(a, x)?;
            let [gamma, beta] = scales(a)?;
            one_type(a, x, &[("gamma", gamma), ("beta", beta)])?;
            Normalisation::Layer { x, axes, gamma, beta, epsilon: small(a, x, 1e-5)? }
        }
        "l2_norm" => Normalisation::L2 { x, epsilon: small(a, x, 1e-6)? },
        _ => {
            let Some(Found { value, at }) = a.int("size")? else {
                return Err(a.fault("the parameter `size` is missing", "a value for it"));
            };
            let size = sizes(&[value], 1, "size", at)?[0];
            let (alpha, beta, k) =
                (number(a, x, "alpha", 1e-4)?, number(a, x, "beta", 0.75)?, number(a, x, "k", 1.0)?);
            Normalisation::LocalResponse { x, size, alpha, beta, k }
        }
    };
    Ok(Op::Normalisation(found))
}

fn scales(a: &mut Arguments<'_, '_>) -> Result<[Option<ValueId>; 2], Fault> {
    Ok([a.maybe_constant_operand("gamma", Class::Float)?, a.maybe_constant_operand("beta", Class::Float)?])
}

/// `epsilon`; a default is one of x's type.
fn small(a: &mut Arguments<'_, '_>, x: ValueId, default: f64) -> Result<f64, Fault> {
    epsilon(a, x, round_to(a.ty(x).dtype, default))
}

fn number(a: &mut Arguments<'_, '_>, x: ValueId, name: &'static str, default: f64) -> Result<f64, Fault> {
    Ok(a.real(name, x)?.map_or_else(|| round_to(a.ty(x).dtype, default), |found| found.value))
}
