//! Tests of the public interface.

mod along_axis;
mod compressed;
mod elementwise;
mod evaluator;
mod functions;
mod golden;
mod movement;
mod mutations;
mod normalisation;
mod packages;
mod parameters;
mod properties;
mod reading;
mod recurrent;
mod refusals;
mod spatial;
mod states;
mod structure;
mod types;
mod weight_files;

use std::collections::BTreeMap;

use arcane_mil::{BuildError, Builder, EvaluateError, Function, Opset, Role, TensorType, ValueId, evaluate};
use arcane_tensor::{DType, Tensor};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

fn tensor(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::from_f64s(dtype, shape, values).unwrap()
}

fn f32s(shape: &[usize], values: &[f64]) -> Tensor {
    tensor(DType::F32, shape, values)
}

fn i32s(shape: &[usize], values: &[f64]) -> Tensor {
    tensor(DType::I32, shape, values)
}

fn bools(shape: &[usize], values: &[f64]) -> Tensor {
    tensor(DType::Bool, shape, values)
}

/// 0, 1, 2, ... as fp32.
fn iota(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    f32s(shape, &(0..n).map(|i| i as f64).collect::<Vec<_>>())
}

/// A function whose parameters `x0`, `x1`, ... have the types of `inputs` and whose outputs `y0`, ... are what `build` gives.
fn function(
    inputs: &[Tensor],
    build: impl FnOnce(&mut Builder, &[ValueId]) -> Result<Vec<ValueId>, BuildError>,
) -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let declare = |(i, t): (usize, &Tensor)| {
        f.parameter(&format!("x{i}"), TensorType::new(t.dtype(), t.shape()), Role::Batch)
    };
    let parameters: Vec<ValueId> = inputs.iter().enumerate().map(declare).collect();
    let results = build(&mut f, &parameters).unwrap();
    for (i, &r) in results.iter().enumerate() {
        f.output(&format!("y{i}"), r);
    }
    f.finish()
}

fn bound(inputs: &[Tensor]) -> BTreeMap<String, Tensor> {
    inputs.iter().enumerate().map(|(i, t)| (format!("x{i}"), t.clone())).collect()
}

fn attempt(
    inputs: &[Tensor],
    build: impl FnOnce(&mut Builder, &[ValueId]) -> Result<ValueId, BuildError>,
) -> Result<Tensor, EvaluateError> {
    let function = function(inputs, |f, x| Ok(vec![build(f, x)?]));
    Ok(evaluate(&function, &bound(inputs))?.remove("y0").unwrap())
}

/// Same type and same values, NaN equal to NaN.
#[track_caller]
fn assert_same(found: &Tensor, expected: &Tensor) {
    let same = found.shape() == expected.shape()
        && found.dtype() == expected.dtype()
        && (0..found.len()).all(|i| {
            let (a, b) = (found.get(i), expected.get(i));
            a == b || (a.is_nan() && b.is_nan())
        });
    assert!(same, "found {found:?}, expected {expected:?}");
}

/// Checks the result of one op.
#[track_caller]
fn gives(
    inputs: &[Tensor],
    build: impl FnOnce(&mut Builder, &[ValueId]) -> Result<ValueId, BuildError>,
    expected: &Tensor,
) {
    assert_same(&attempt(inputs, build).unwrap(), expected);
}

/// Checks that evaluation fails with a message.
#[track_caller]
fn fails(
    inputs: &[Tensor],
    build: impl FnOnce(&mut Builder, &[ValueId]) -> Result<ValueId, BuildError>,
    message: &str,
) {
    assert_eq!(attempt(inputs, build).unwrap_err().to_string(), message);
}
