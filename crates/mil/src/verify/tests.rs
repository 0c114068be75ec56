//! Each invariant broken by hand in a function that holds otherwise.

use arcane_tensor::DType;

use super::*;
use crate::{Alias, Builder, Opset, Output, Parameter, Role, TensorType, Unary, ValueId};

/// `y = square(x)`, `z = linear(x, w)`, and `w` aliased by nothing.
fn sound() -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[2, 3]), Role::Batch);
    let w = f.parameter("w", TensorType::new(DType::F32, &[3, 3]), Role::Param);
    let y = f.square(x).unwrap();
    let z = f.linear(x, w, None).unwrap();
    f.output("y", y);
    f.output("z", z);
    f.alias("y", "x");
    f.finish()
}

#[track_caller]
fn breaks(edit: impl FnOnce(&mut Function), message: &str) {
    let mut function = sound();
    verify(&function, Strictness::Open).expect("the function is sound before the edit");
    edit(&mut function);
    let error = verify(&function, Strictness::Open).expect_err(message).to_string();
    assert!(error.starts_with("main: ") && error.contains(message), "`{error}` does not say `{message}`");
}

#[test]
fn operands_are_defined_before_their_use() {
    breaks(
        |f| f.operations[0].op = Op::Unary { kind: Unary::Square, x: ValueId(3) },
        "square at `square` uses value 3 before it is defined",
    );
    breaks(|f| f.operations[0].op = Op::Unary { kind: Unary::Square, x: ValueId(9) }, "uses value 9");
}

#[test]
fn values_are_defined_once() {
    breaks(|f| f.operations[1].results[0] = ValueId(2), "value 2 `square` is defined twice");
    breaks(|f| f.operations[1].results[0] = ValueId(7), "value 7 does not exist");
    breaks(|f| drop(f.operations.pop()), "value 3 `linear` is never defined");
}

#[test]
fn results_have_the_inferred_types() {
    breaks(
        |f| f.values[2].ty = TensorType::new(DType::F16, &[2, 3]),
        "square at `square`: declared tensor<fp16, [2, 3]>, the op gives tensor<fp32, [2, 3]>",
    );
    breaks(|f| f.operations[0].results.push(ValueId(3)), "square at `square` has 2 results");
    breaks(|f| f.operations[0].results.clear(), "has 0 results");
    breaks(|f| f.values[1].ty = TensorType::new(DType::F32, &[3, 2]), "linear at `linear`: weight is");
}

#[test]
fn ranks_and_sizes_are_bounded() {
    breaks(|f| f.values[1].ty.shape = vec![1; 6], "and rank 5 or less was expected");
    breaks(|f| f.values[1].ty.shape = vec![usize::MAX, 2], "is larger than memory can be");
    breaks(|f| f.values[1].ty.shape = vec![usize::MAX / 4], "is larger than memory can be");
}

#[test]
fn port_names_are_unique_and_not_empty() {
    breaks(|f| f.outputs[0].name.clear(), "the port name `` is empty");
    breaks(|f| f.outputs[0].name = "x".into(), "the port name `x` is empty or taken twice");
    breaks(|f| f.parameters[0].name = "w".into(), "the port name `w` is empty or taken twice");
}

#[test]
fn outputs_are_distinct_results_of_ops() {
    breaks(|f| f.outputs[0].value = ValueId(0), "output `y` is a parameter or another output");
    breaks(|f| f.outputs[1].value = ValueId(2), "output `z` is a parameter or another output");
    breaks(|f| f.outputs[1].value = ValueId(9), "output `z` does not exist");
    let extra = Output { name: "again".into(), value: ValueId(2) };
    breaks(|f| f.outputs.push(extra), "output `again` is a parameter or another output");
}

#[test]
fn parameters_are_values_of_their_own() {
    let twin = Parameter { name: "twin".into(), value: ValueId(0), role: Role::Batch };
    breaks(|f| f.parameters.push(twin), "value 0 `x` is defined twice");
}

#[test]
fn aliases_pair_ports_of_one_type_once() {
    breaks(|f| f.aliases[0].parameter = 1, "output `y` and parameter `w` differ in type");
    breaks(|f| f.aliases[0].output = 5, "names a port that does not exist");
    breaks(|f| f.aliases.push(Alias { output: 1, parameter: 0 }), "parameter `x` is aliased twice");
    breaks(
        |f| f.aliases.push(Alias { output: 0, parameter: 0 }),
        "output `y` or parameter `x` is aliased twice",
    );
}

#[test]
fn numbers_inside_ops_fit_their_type() {
    for epsilon in [f64::NAN, f64::INFINITY] {
        let kind = Unary::Rsqrt { epsilon };
        breaks(|f| f.operations[0].op = Op::Unary { kind, x: ValueId(0) }, "rsqrt has a constant");
        let kind = Unary::Log { epsilon };
        breaks(|f| f.operations[0].op = Op::Unary { kind, x: ValueId(0) }, "log has a constant");
    }
    let filled = |dtype, value| {
        let mut f = Builder::new("main", Opset::Ios18);
        let y = f.fill(dtype, &[2], value);
        f.output("y", y);
        verify(f.function(), Strictness::Open)
    };
    assert!(filled(DType::Bool, 2.0).is_err());
    assert!(filled(DType::I32, 0.5).is_err());
    assert!(filled(DType::I8, 128.0).is_err());
    assert!(filled(DType::I8, f64::NAN).is_err());
    assert!(filled(DType::I8, -128.0).is_ok());
    assert!(filled(DType::F16, f64::NEG_INFINITY).is_ok());
}

#[test]
fn strict_wants_constant_weights() {
    let error = verify(&sound(), Strictness::Strict).unwrap_err().to_string();
    assert_eq!(error, "main: linear at `linear`: weight is a run-time value, a constant was expected");

    let build = |constant_bias: bool| {
        let mut f = Builder::new("main", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(DType::F32, &[2, 3]), Role::Batch);
        let w = f.constant("w", arcane_tensor::Tensor::zeros(DType::F32, &[3, 3]));
        let bias = if constant_bias {
            f.constant("b", arcane_tensor::Tensor::zeros(DType::F32, &[3]))
        } else {
            f.parameter("b", TensorType::new(DType::F32, &[3]), Role::Param)
        };
        let y = f.linear(x, w, Some(bias)).unwrap();
        f.output("y", y);
        verify(f.function(), Strictness::Strict)
    };
    assert!(build(true).is_ok());
    assert!(build(false).unwrap_err().to_string().contains("bias is a run-time value"));
}
