//! States: read, written, and left for the next call.

use std::collections::BTreeMap;

use arcane_mil::{
    Builder, NoWeights, Op, Opset, Program, Role, StateOp, Strictness, TensorType, evaluate, print, read,
    verify,
};
use arcane_tensor::DType;

use super::reading::{comes_back, text};
use super::refusals::refuses_text;
use super::tensor;

const BODY: &str = "tensor<fp16, [2]> old = read_state(input = kv)[name = string(\"old\")];\n\
    tensor<fp16, [2]> new = add(x = old, y = x)[name = string(\"new\")];\n\
    write_state(data = new, input = kv)[name = string(\"put\")];\n\
    tensor<fp16, [2]> y = read_state(input = kv)[name = string(\"y\")];\n\
    write_state(data = x, input = kv)[name = string(\"last\")];";
const PARAMETERS: &str = "state<tensor<fp16, [2]>> kv, tensor<fp16, [2]> x";

#[test]
fn a_state_is_what_was_written_last() {
    let program = read(&text(PARAMETERS, BODY, "y"), &NoWeights).unwrap();
    let f = &program.functions[0];
    assert_eq!(f.parameter("kv").unwrap().role, Role::State);
    let half = |values: [f64; 2]| tensor(DType::F16, &[2], &values);
    let inputs = BTreeMap::from([("kv".into(), half([1.0, 2.0])), ("x".into(), half([10.0, 20.0]))]);
    let outputs = evaluate(f, &inputs).unwrap();
    assert_eq!(outputs["y"], half([11.0, 22.0]));
    // What is left for the next call is an output in place of the parameter.
    let [alias] = f.aliases() else { panic!("{:?}", f.aliases()) };
    assert_eq!(f.parameters()[alias.parameter].name, "kv");
    assert_eq!(outputs[&f.outputs()[alias.output].name], half([10.0, 20.0]));
}

#[test]
fn states_keep_their_text() {
    let emitted = print(&read(&text(PARAMETERS, BODY, "y"), &NoWeights).unwrap()).unwrap();
    for line in [
        "func main<ios18>(state<tensor<fp16, [2]>> kv, tensor<fp16, [2]> x) {",
        "            write_state(data = new, input = kv)[name = string(\"put\")];",
        "            tensor<fp16, [2]> y = read_state(input = kv)[name = string(\"y\")];",
        "        } -> (y);",
    ] {
        assert!(emitted.text.contains(line), "{}", emitted.text);
    }
    let again = comes_back(&emitted);
    assert_eq!(again.functions, read(&text(PARAMETERS, BODY, "y"), &NoWeights).unwrap().functions);
    // A state that is only read, and a function that gives nothing else.
    let reads = text(PARAMETERS, "tensor<fp16, [2]> y = read_state(input = kv);", "y");
    comes_back(&print(&read(&reads, &NoWeights).unwrap()).unwrap());
    let writes = text(PARAMETERS, "write_state(data = x, input = kv);", "");
    comes_back(&print(&read(&writes, &NoWeights).unwrap()).unwrap());
}

#[test]
fn a_state_is_used_as_one() {
    let body = |line: &str| text(PARAMETERS, line, "y");
    refuses_text(
        &body("tensor<fp16, [2]> y = add(x = kv, y = x);"),
        "4:31: `kv` is a state, expected its value, which read_state gives",
    );
    refuses_text(
        &body("tensor<fp16, [2]> y = read_state(input = x);"),
        "4:42: `x` is no state, expected a state of the function",
    );
    refuses_text(
        &body("write_state(data = x, input = kv); tensor<fp16, [2]> z = write_state(data = x, input = kv);"),
        "4:36: write_state is given a result, expected none",
    );
    let other =
        text("state<tensor<fp16, [3]>> kv, tensor<fp16, [2]> x", "write_state(data = x, input = kv);", "");
    refuses_text(
        &other,
        "4:1: write_state: data is tensor<fp16, [2]>, tensor<fp16, [3]> was expected as of the state",
    );
    refuses_text(
        &text(PARAMETERS, "fp16 a = const()[val = fp16(1)];", "kv"),
        "5:7: `kv` is a state, expected its value, which read_state gives",
    );
    refuses_text(
        &body("tensor<fp16, [2]> y = read_state(input = kv);").replace("ios18", "ios17"),
        "3:18: the parameter `kv` is state<tensor<fp16, [2]>>, expected a tensor: states exist from ios18",
    );
}

#[test]
fn the_order_of_reads_and_writes_is_plain() {
    let mut f = Builder::new("main", Opset::Ios18);
    let ty = TensorType::new(DType::F16, &[2]);
    let state = f.parameter("kv", ty.clone(), Role::State);
    let x = f.parameter("x", ty, Role::Batch);
    let written = f.push_one(Op::State(StateOp::Write { state, data: x })).unwrap();
    let fails = |f: &Builder, message: &str| {
        let error = verify(f.function(), Strictness::Open).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    fails(&f, "the state written at `write_state` is no output in place of its parameter");
    f.output("kv.after", written);
    f.alias("kv.after", "kv");
    verify(f.function(), Strictness::Strict).unwrap();
    let mut late = f.clone();
    late.push_one(Op::State(StateOp::Read { state })).unwrap();
    fails(&late, "read_state at `read_state`: the state was written in between");
    let mut plain = f.clone();
    plain.push_one(Op::State(StateOp::Read { state: x })).unwrap();
    fails(&plain, "read_state at `read_state`: the operand is no state");
    let mut taken = f.clone();
    taken.abs(written).unwrap();
    fails(&taken, "abs takes a state, a read_state was expected");
    print(&Program::new(vec![f.finish()])).unwrap();
}
