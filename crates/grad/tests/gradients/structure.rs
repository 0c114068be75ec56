//! What is built and what is not, and what is refused.

use std::collections::BTreeMap;

use arcane_grad::{GradError, gradients};
use arcane_mil::{
    Activation, Binary, Builder, Cell, Compare, Op, Opset, Quantization, Recurrent, Reduce, Role,
    ScatterMode, StateOp, TensorType, Unary, ValueId, Way, evaluate,
};
use arcane_tensor::{DType, Tensor, Tolerance};

use crate::check::Check;

fn builder() -> Builder {
    Builder::new("main", Opset::Ios18)
}

fn parameter(f: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    f.parameter(name, TensorType::new(DType::F64, shape), Role::Param)
}

/// Differentiates Σ y and gives the derivatives and the names of the ops that were appended, constants aside.
fn appended(f: &mut Builder, y: ValueId, wrt: &[ValueId]) -> (Vec<ValueId>, Vec<&'static str>) {
    let adjoint = f.parameter("adjoint", f.ty(y).clone(), Role::Scalar);
    let before = f.function().operations().len();
    let found = gradients(f, &[(y, adjoint)], wrt).unwrap();
    let names = f.function().operations()[before..].iter().map(|o| o.op.name());
    (found, names.filter(|&n| n != "const").collect())
}

/// The values of `outputs` on `inputs`.
fn values(mut f: Builder, outputs: &[ValueId], inputs: &[(&str, Tensor)]) -> Vec<Vec<f64>> {
    for (i, &v) in outputs.iter().enumerate() {
        f.output(&format!("out{i}"), v);
    }
    let inputs: BTreeMap<String, Tensor> = inputs.iter().map(|(n, t)| ((*n).into(), t.clone())).collect();
    let found = evaluate(&f.finish(), &inputs).unwrap();
    (0..outputs.len()).map(|i| found[&format!("out{i}")].to_f64s()).collect()
}

fn vector(values: &[f64]) -> Tensor {
    Tensor::new(&[values.len()], values.to_vec()).unwrap()
}

#[test]
fn only_operands_that_are_asked_for_have_adjoints() {
    let mut f = builder();
    let (a, b) = (parameter(&mut f, "a", &[2, 3]), parameter(&mut f, "b", &[3]));
    let y = f.mul(a, b).unwrap();
    assert_eq!(appended(&mut f.clone(), y, &[a]).1, ["mul"]);
    assert_eq!(appended(&mut f, y, &[b]).1, ["mul", "reduce_sum"]);

    let mut f = builder();
    let x = parameter(&mut f, "x", &[2, 4]);
    let (w, bias) = (parameter(&mut f, "w", &[3, 4]), parameter(&mut f, "bias", &[3]));
    let y = f.linear(x, w, Some(bias)).unwrap();
    assert_eq!(appended(&mut f, y, &[bias]).1, ["reduce_sum"]);
}

#[test]
fn ops_off_the_way_are_not_differentiated() {
    let mut f = builder();
    let (a, b) = (parameter(&mut f, "a", &[2, 3]), parameter(&mut f, "b", &[3, 2]));
    let unused = f.matmul(a, b, false, false).unwrap();
    f.softmax(unused, 1).unwrap();
    let without_a = f.unary(Unary::Exp, b).unwrap();
    let without_a = f.transpose(without_a, &[1, 0]).unwrap();
    let y = f.add(a, without_a).unwrap();
    let (found, names) = appended(&mut f, y, &[a]);
    assert_eq!(names, [""; 0]);
    assert_eq!(found, [f.function().parameter("adjoint").unwrap().value]);
}

#[test]
fn flat_ops_end_a_way() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[2]);
    let sign = f.unary(Unary::Sign, x).unwrap();
    let integer = f.cast(x, DType::I32);
    let truncated = f.cast(integer, DType::F64);
    let zero = f.scalar(DType::F64, 0.0);
    let positive = f.compare(Compare::Greater, x, zero).unwrap();
    let positive = f.cast(positive, DType::F64);
    let sum = f.add(sign, truncated).unwrap();
    let sum = f.unary(Unary::Exp, sum).unwrap();
    let y = f.mul(sum, positive).unwrap();
    let (found, names) = appended(&mut f, y, &[x]);
    assert_eq!(names, ["fill"]);
    assert_eq!(f.ty(found[0]), f.ty(x));
}

#[test]
fn what_has_no_influence_has_a_derivative_of_zeros() {
    let mut f = builder();
    let (x, other) = (parameter(&mut f, "x", &[2]), parameter(&mut f, "other", &[3]));
    let y = f.square(x).unwrap();
    let (found, _) = appended(&mut f, y, &[other, x]);
    let inputs = [("x", vector(&[1.0, 2.0])), ("other", vector(&[1.0; 3])), ("adjoint", vector(&[1.0, 3.0]))];
    assert_eq!(values(f, &found, &inputs), [vec![0.0; 3], vec![2.0, 12.0]]);
}

#[test]
fn uses_accumulate_and_the_value_itself_may_be_an_output() {
    let mut f = builder();
    let (x, ax, ay) =
        (parameter(&mut f, "x", &[2]), parameter(&mut f, "ax", &[2]), parameter(&mut f, "ay", &[2]));
    let square = f.square(x).unwrap();
    let y = f.add(square, x).unwrap();
    let found = gradients(&mut f, &[(y, ay), (x, ax), (x, ax)], &[x, x]).unwrap();
    assert_eq!(found[0], found[1]);
    let inputs = [("x", vector(&[3.0, -1.0])), ("ax", vector(&[0.5, 10.0])), ("ay", vector(&[1.0, 2.0]))];
    assert_eq!(values(f, &found[..1], &inputs), [[6.0 + 1.0 + 1.0, 2.0 * (-2.0 + 1.0) + 20.0]]);
}

#[test]
fn intermediate_values_and_constants_can_be_asked_for() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[2]);
    let k = f.constant("k", vector(&[5.0, 7.0]));
    let square = f.square(x).unwrap();
    let hidden = f.binary(Binary::Maximum, square, x).unwrap();
    let y = f.mul(hidden, k).unwrap();
    let (found, names) = appended(&mut f.clone(), y, &[hidden]);
    assert_eq!((found.len(), names), (1, vec!["mul"]), "x is not asked for");
    let (found, _) = appended(&mut f, y, &[hidden, x, k]);
    let inputs = [("x", vector(&[2.0, 3.0])), ("adjoint", vector(&[1.0, 1.0]))];
    assert_eq!(values(f, &found, &inputs), [[5.0, 7.0], [20.0, 42.0], [4.0, 9.0]]);
}

#[test]
fn ties_share_a_reduction_and_go_to_the_left_of_a_maximum() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[4]);
    let largest = f.reduce(Reduce::Max, x, &[0], true).unwrap();
    let dx = appended(&mut f, largest, &[x]).0;
    let inputs = [("x", vector(&[2.0, 1.0, 2.0, 2.0])), ("adjoint", vector(&[6.0]))];
    assert_eq!(values(f, &dx, &inputs), [[2.0, 0.0, 2.0, 2.0]]);

    for kind in [Binary::Maximum, Binary::Minimum] {
        let mut f = builder();
        let (x, y) = (parameter(&mut f, "x", &[1]), parameter(&mut f, "y", &[1]));
        let z = f.binary(kind, x, y).unwrap();
        let found = appended(&mut f, z, &[x, y]).0;
        let inputs = [("x", vector(&[1.0])), ("y", vector(&[1.0])), ("adjoint", vector(&[3.0]))];
        assert_eq!(values(f, &found, &inputs), [[3.0], [0.0]]);
    }
}

#[test]
fn products_have_no_transposes_and_softmax_one_spelling() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[2, 3]);
    let p = f.softmax(x, 1).unwrap();
    assert_eq!(appended(&mut f, p, &[x]).1, ["mul", "reduce_sum", "sub", "mul"]);

    let mut f = builder();
    let (q, k) = (parameter(&mut f, "q", &[1, 2, 4]), parameter(&mut f, "k", &[1, 3, 4]));
    let v = parameter(&mut f, "v", &[1, 3, 5]);
    let y = f.attention(q, k, v, None).unwrap();
    let probabilities = ["matmul", "mul", "softmax"];
    let dv = ["matmul"];
    let ds = ["matmul", "mul", "reduce_sum", "sub", "mul", "mul"];
    let expected = [&probabilities[..], &dv, &ds, &["matmul", "matmul"]].concat();
    assert_eq!(appended(&mut f.clone(), y, &[q, k, v]).1, expected);
    assert_eq!(appended(&mut f.clone(), y, &[v]).1, [&probabilities[..], &dv].concat());

    let mut f = builder();
    let (x, w) = (parameter(&mut f, "x", &[2, 3, 4]), parameter(&mut f, "w", &[5, 4]));
    let y = f.linear(x, w, None).unwrap();
    let names = appended(&mut f, y, &[x, w]).1;
    assert_eq!(names, ["reshape", "matmul", "reshape", "reshape", "matmul"]);
}

#[test]
fn the_adjoint_of_a_sum_is_not_spread_out_for_element_wise_ops() {
    let mut f = builder();
    let (x, w) = (parameter(&mut f, "x", &[4, 3]), parameter(&mut f, "w", &[3]));
    let product = f.mul(x, w).unwrap();
    let sum = f.reduce_all(Reduce::Sum, product).unwrap();
    let (found, names) = appended(&mut f, sum, &[w]);
    assert_eq!(names, ["mul", "reduce_sum"]);
    assert_eq!(f.shape(found[0]), [3]);
}

#[test]
fn paths_are_those_of_the_forward_ops() {
    let mut f = builder();
    let (x, w) = (parameter(&mut f, "x", &[2, 4]), parameter(&mut f, "w", &[3, 4]));
    let q = f.scope("layers.3.attn", |f| {
        let q = f.linear(x, w, None).unwrap();
        f.named(q, "q")
    });
    let (found, _) = appended(&mut f, q, &[w]);
    assert_eq!(f.function().value(found[0]).path, "layers.3.attn.q.grad.matmul");
}

#[test]
fn the_same_function_gives_the_same_ops() {
    let build = || {
        let mut f = builder();
        let x = parameter(&mut f, "x", &[2, 3]);
        let p = f.softmax(x, 1).unwrap();
        let y = f.mul(p, x).unwrap();
        let found = appended(&mut f, y, &[x]).0;
        f.output("dx", found[0]);
        f.finish()
    };
    assert_eq!(build(), build());
}

#[test]
fn a_derivative_can_be_differentiated() {
    let check = Check { is_tested: |op| matches!(op, Op::Softmax { .. }) };
    check.that(|c| {
        let (x, w) = (c.float(&[2, 3]), c.float(&[4, 3]));
        let h = c.f.linear(x, w, None)?;
        let h = c.f.silu(h)?;
        let p = c.f.softmax(h, 1)?;
        let ones = c.f.fill(DType::F64, &[2, 4], 1.0);
        let square = c.f.square(p)?;
        Ok(gradients(&mut c.f, &[(square, ones)], &[w]).unwrap()[0])
    });
}

/// Attention's derivatives where a mask hides part of each row, or all of the first.
fn masked_attention(dtype: DType, mask: [bool; 4]) -> Vec<Vec<f64>> {
    let mut f = builder();
    let ty = TensorType::new(dtype, &[1, 2, 2]);
    let qkv = ["q", "k", "v"].map(|name| f.parameter(name, ty.clone(), Role::Param));
    let mask = f.constant("mask", Tensor::new(&[2, 2], mask.to_vec()).unwrap());
    let y = f.attention(qkv[0], qkv[1], qkv[2], Some(mask)).unwrap();
    let found = appended(&mut f, y, &qkv).0;
    let tensor = |values: &[f64]| Tensor::from_f64s(dtype, &[1, 2, 2], values).unwrap();
    let inputs = [
        ("q", tensor(&[1.0, 0.5, -0.5, 2.0])),
        ("k", tensor(&[0.25, 1.0, 1.5, -1.0])),
        ("v", tensor(&[1.0, -1.0, 0.5, 0.75])),
        ("adjoint", tensor(&[1.0, 0.5, -1.0, 0.25])),
    ];
    values(f, &found, &inputs)
}

#[test]
fn a_hidden_score_is_finite_in_every_type() {
    for mask in [[true, false, true, true], [false, false, true, true]] {
        let exact = masked_attention(DType::F64, mask);
        assert!(exact.iter().flatten().all(|d| d.is_finite()), "{exact:?}");
        for (dtype, atol) in [(DType::F32, 1e-6), (DType::F16, 5e-3), (DType::Bf16, 5e-2)] {
            for (got, want) in masked_attention(dtype, mask).iter().zip(&exact) {
                Tolerance { atol, rtol: 0.0 }.check(&vector(got), &vector(want)).unwrap();
            }
        }
    }
}

#[test]
fn an_update_that_overwrites_is_refused_by_name_if_it_is_on_the_way() {
    let mut f = builder();
    let (data, updates) = (parameter(&mut f, "data", &[4]), parameter(&mut f, "updates", &[2]));
    let indices = f.constant("indices", Tensor::new(&[2], vec![1, 1]).unwrap());
    let scatter = Op::Scatter { data, indices, updates, axis: 0, mode: ScatterMode::Update };
    let cache = f.scope("cache", |f| f.push_one(scatter)).unwrap();
    let x = parameter(&mut f, "x", &[4]);
    let y = f.mul(cache, x).unwrap();
    assert_eq!(appended(&mut f.clone(), y, &[x]).1, ["mul"]);

    let adjoint = parameter(&mut f, "adjoint", &[4]);
    let error = gradients(&mut f, &[(y, adjoint)], &[data]).unwrap_err();
    let GradError::NotDifferentiable { op, path, .. } = &error else { panic!("{error}") };
    assert_eq!((*op, path.as_str()), ("scatter", "cache.scatter"));
    assert!(error.to_string().contains("scatter at `cache.scatter`"), "{error}");
}

#[test]
fn ops_without_a_rule_are_refused_by_name() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[2, 1, 3]);
    let h = parameter(&mut f, "h", &[1, 1]);
    let (weight_ih, weight_hh) = (parameter(&mut f, "ih", &[1, 3]), parameter(&mut f, "hh", &[1, 1]));
    let rnn = Op::Recurrent(Recurrent {
        cell: Cell::Rnn,
        x,
        initial_h: h,
        weight_ih,
        weight_hh,
        bias: None,
        way: Way::Forward,
        output_sequence: true,
        activation: Activation::Tanh,
    });
    let recurrent = f.push(rnn).unwrap()[0];
    let scale = parameter(&mut f, "scale", &[]);
    let quantize = Quantization::Quantize { x, scale, zero_point: None, axis: None, dtype: DType::I8 };
    let quantized = f.push_one(Op::Quantization(quantize)).unwrap();
    let dequantize = Quantization::Dequantize { x: quantized, scale, zero_point: None, axis: None };
    let quantized = f.push_one(Op::Quantization(dequantize)).unwrap();
    let state = f.parameter("state", TensorType::new(DType::F64, &[2]), Role::State);
    let state = f.push_one(Op::State(StateOp::Read { state })).unwrap();
    let of_state = f.function().parameter("state").unwrap().value;
    for (y, wrt, op) in
        [(recurrent, x, "rnn"), (quantized, scale, "dequantize"), (state, of_state, "read_state")]
    {
        let error = gradients(&mut f.clone(), &[(y, y)], &[wrt]).unwrap_err();
        let GradError::NotDifferentiable { op: found, .. } = &error else { panic!("{error}") };
        assert_eq!(*found, op);
    }
}

#[test]
fn what_is_not_of_a_float_type_has_no_derivative() {
    let mut f = builder();
    let x = parameter(&mut f, "x", &[2]);
    let i = f.parameter("i", TensorType::new(DType::I32, &[2]), Role::Batch);
    let expected = GradError::NotFloat { path: "i".into(), ty: TensorType::new(DType::I32, &[2]) };
    assert_eq!(gradients(&mut f, &[(x, x)], &[i]), Err(expected.clone()));
    assert_eq!(gradients(&mut f, &[(i, i)], &[x]), Err(expected));
}

#[test]
fn an_adjoint_must_have_the_type_of_its_output() {
    let mut f = builder();
    let (x, adjoint) = (parameter(&mut f, "x", &[2]), parameter(&mut f, "adjoint", &[3]));
    let y = f.square(x).unwrap();
    let error = gradients(&mut f, &[(y, adjoint)], &[x]).unwrap_err();
    let message = "the adjoint of `square` is tensor<fp64, [3]>, tensor<fp64, [2]> was expected";
    assert_eq!(error.to_string(), message);
}
