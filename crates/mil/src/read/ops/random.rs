//! Random numbers as they are written.

use arcane_tensor::DType;

use super::{Built, sizes};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Found};
use crate::read::syntax::MAX_RANK;
use crate::{Distribution, Op, Random};

/// `random_uniform`, `random_normal`, `random_bernoulli`: of the type of their numbers, fp32 where none is given.
pub(super) fn random(a: &mut Arguments<'_, '_>) -> Built {
    let Found { value: shape, at } = a.required_ints("shape", MAX_RANK)?;
    let shape = sizes(&shape, 0, "shape", at)?;
    let mut dtype = None;
    let distribution = match a.op() {
        "random_uniform" => {
            let (low, high) = (number(a, "low", 0.0, &mut dtype)?, number(a, "high", 1.0, &mut dtype)?);
            Distribution::Uniform { low, high }
        }
        "random_normal" => {
            let mean = number(a, "mean", 0.0, &mut dtype)?;
            Distribution::Normal { mean, deviation: number(a, "stddev", 1.0, &mut dtype)? }
        }
        _ => Distribution::Bernoulli { probability: number(a, "prob", 0.5, &mut dtype)? },
    };
    let seed = match a.int("seed")? {
        None => -1,
        Some(Found { value, at }) => {
            i32::try_from(value).map_err(|_| Fault::new(at, format!("seed is {value}"), "an int32"))?
        }
    };
    Ok(Op::Random(Random { distribution, seed, shape, dtype: dtype.unwrap_or(DType::F32) }))
}

/// A finite number of one type with those before it.
fn number(
    a: &mut Arguments<'_, '_>,
    name: &'static str,
    default: f64,
    dtype: &mut Option<DType>,
) -> Result<f64, Fault> {
    let Some(Found { value: (own, value), at }) = a.number(name)? else { return Ok(default) };
    if !matches!(own, DType::F16 | DType::F32) || dtype.is_some_and(|other| other != own) {
        let expected = dtype.map_or("fp16 or fp32", DType::name);
        return Err(Fault::new(at, format!("{name} is {own}"), expected));
    }
    if !value.is_finite() {
        return Err(Fault::new(at, format!("{name} is {value}"), "a finite number"));
    }
    *dtype = Some(own);
    Ok(value)
}
