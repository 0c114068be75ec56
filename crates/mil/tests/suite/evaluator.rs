//! How inputs are bound, and which values can be read.

use arcane_mil::{AdamW, Function, Unary, evaluate, evaluate_values};
use arcane_tensor::{DType, Tensor};

use super::{assert_same, bound, f32s, function, i32s, iota, tensor};

fn sum() -> Function {
    function(&[iota(&[2]), iota(&[2])], |f, x| Ok(vec![f.add(x[0], x[1])?]))
}

#[track_caller]
fn refuses(inputs: &[Tensor], message: &str) {
    assert_eq!(evaluate(&sum(), &bound(inputs)).unwrap_err().to_string(), message);
}

#[test]
fn inputs_fit_the_parameters() {
    refuses(&[iota(&[2])], "there is no input for parameter `x1`, tensor<fp32, [2]> was expected");
    refuses(&[iota(&[2]), iota(&[3])], "input `x1` is tensor<fp32, [3]>, tensor<fp32, [2]> was expected");
    refuses(
        &[iota(&[2]), i32s(&[2], &[0.0, 1.0])],
        "input `x1` is tensor<int32, [2]>, tensor<fp32, [2]> was expected",
    );
    refuses(&[iota(&[2]), iota(&[2]), iota(&[])], "input `x2`, fp32, is no parameter of the function");
}

#[test]
fn inputs_that_are_not_exact_are_refused() {
    let big = Tensor::scalar(i64::MAX);
    let f = function(std::slice::from_ref(&big), |f, x| Ok(vec![f.identity(x[0])]));
    let error = evaluate(&f, &bound(&[big])).unwrap_err().to_string();
    assert!(error.starts_with("input `x0` holds an integer beyond 2^53"), "{error}");
}

#[test]
fn every_value_can_be_read() {
    let f = function(&[iota(&[2])], |f, x| {
        let square = f.square(x[0])?;
        Ok(vec![f.add(square, x[0])?])
    });
    let values = evaluate_values(&f, &bound(&[f32s(&[2], &[2.0, 3.0])])).unwrap();
    let expected = [[2.0, 3.0], [4.0, 9.0], [6.0, 12.0]];
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(expected) {
        assert_same(value, &f32s(&[2], &expected));
    }
}

#[test]
fn fp64_functions_are_not_rounded() {
    let x = tensor(DType::F64, &[1], &[0.1]);
    let f = function(std::slice::from_ref(&x), |f, x| Ok(vec![f.unary(Unary::Exp, x[0])?]));
    assert_eq!(evaluate(&f, &bound(&[x])).unwrap()["y0"].get(0), 0.1f64.exp());
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    let inputs = [tensor(DType::F64, &[1, 2], &[3.0, 4.0]), tensor(DType::F64, &[2], &[1.0, 10.0])];
    let f = function(&inputs, |f, x| Ok(vec![f.rms_norm(x[0], x[1], 0.5)?]));
    let y = &evaluate(&f, &bound(&inputs)).unwrap()["y0"];
    let r = 1.0 / 13f64.sqrt();
    for (found, expected) in y.to_f64s().into_iter().zip([3.0 * r, 40.0 * r]) {
        assert!((found - expected).abs() < 1e-14);
    }
}

#[test]
fn rope_rotates_the_halves() {
    let inputs =
        [f32s(&[1, 4], &[1.0, 2.0, 3.0, 4.0]), f32s(&[1, 2], &[0.0, 1.0]), f32s(&[1, 2], &[1.0, 0.0])];
    let f = function(&inputs, |f, x| Ok(vec![f.rope(x[0], x[1], x[2])?]));
    assert_same(&evaluate(&f, &bound(&inputs)).unwrap()["y0"], &f32s(&[1, 4], &[-3.0, 2.0, 1.0, 4.0]));
}

#[test]
fn cross_entropy_is_a_weighted_sum() {
    // Logits are 0 and ln 3 in each row; the last row has weight 0.
    let head = tensor(DType::F64, &[2, 1], &[0.0, 3f64.ln()]);
    let inputs = [
        tensor(DType::F64, &[3, 1], &[1.0; 3]),
        head,
        i32s(&[3, 1], &[0.0, 1.0, 0.0]),
        tensor(DType::F64, &[3, 1], &[1.0, 2.0, 0.0]),
    ];
    let f = function(&inputs, |f, x| Ok(vec![f.cross_entropy(x[0], x[1], x[2], x[3])?]));
    let loss = evaluate(&f, &bound(&inputs)).unwrap()["y0"].get(0);
    let expected = 4f64.ln() + 2.0 * (4.0f64 / 3.0).ln();
    assert!((loss - expected).abs() < 1e-14, "{loss}, expected {expected}");
}

#[test]
fn adamw_takes_one_step() {
    let scalar = |x| tensor(DType::F64, &[], &[x]);
    let (beta1, beta2, eps) = (0.9, 0.99, 1e-3);
    let inputs =
        [scalar(2.0), scalar(0.5), scalar(0.25), scalar(-1.0), scalar(0.75), scalar(0.1), scalar(2.0)];
    let f = function(&inputs, |f, x| {
        let constants = AdamW { beta1, beta2, eps };
        Ok(f.adamw(constants, [x[0], x[1], x[2]], x[3], Some(x[4]), x[5], x[6])?.to_vec())
    });
    let found = evaluate(&f, &bound(&inputs)).unwrap();
    let (m, v): (f64, f64) = (0.9 * 0.5 - 0.1, 0.99 * 0.25 + 0.01);
    let w = 2.0 * 0.75 - 0.1 * m / (v.sqrt() * 2.0 + eps);
    for (name, expected) in [("y0", w), ("y1", m), ("y2", v)] {
        assert!((found[name].get(0) - expected).abs() < 1e-14, "{name}");
    }
}
