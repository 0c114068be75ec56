//! What callers of the software engine rely on: aliasing, bindings, errors.

use std::collections::BTreeMap;
use std::time::Duration;

use arcane_engine::{Buffer, Engine, EngineError, LoadOptions, Loaded, SoftwareEngine, conformance};
use arcane_mil::{Builder, Function, Opset, Program, Reduce, Role, TensorType};
use arcane_tensor::{DType, Tensor};

fn engine() -> SoftwareEngine {
    SoftwareEngine::new(2).expect("threads start")
}

fn program(function: Function) -> Program {
    Program::new(vec![function])
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).expect("values fit the shape")
}

fn call(loaded: &dyn Loaded, buffers: &[(&str, &Buffer)]) -> Result<(), EngineError> {
    let binding = loaded.bind(buffers)?;
    let ticket = loaded.submit(&binding)?;
    loaded.wait(ticket, Duration::from_mins(1)).map(|_| ())
}

/// `y = x·x + x`, a product that reads all of x, with y allowed to overwrite x.
fn product_over_its_operand() -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[2, 2]), Role::State);
    let square = f.matmul(x, x, false, false).expect("well-typed");
    let y = f.add(square, x).expect("well-typed");
    f.output("y", y);
    f.alias("y", "x");
    f.finish()
}

#[test]
fn an_aliased_output_may_share_its_parameters_buffer() {
    let engine = engine();
    let loaded =
        engine.load(&program(product_over_its_operand()), "main", LoadOptions::default()).expect("it loads");
    let x = engine.buffer(&TensorType::new(DType::F32, &[2, 2])).expect("memory");
    x.set(&f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0])).expect("its type");
    call(&*loaded, &[("x", &x), ("y", &x)]).expect("it runs");
    assert_eq!(x.to_tensor().expect("free"), f32s(&[2, 2], &[8.0, 12.0, 18.0, 26.0]));
}

#[test]
fn outputs_that_would_overwrite_what_is_still_read_are_written_last() {
    let mut f = Builder::new("main", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[2, 3]);
    let x = f.parameter("x", ty.clone(), Role::State);
    let turned = f.transpose(x, &[1, 0]).expect("well-typed");
    let y = f.reshape(turned, &[2, 3]).expect("well-typed");
    let y = f.neg(y).expect("well-typed");
    let sum = f.reduce_all(Reduce::Sum, x).expect("well-typed");
    let z = f.add(sum, y).expect("well-typed");
    f.output("y", y);
    f.output("z", z);
    f.alias("y", "x");
    let engine = engine();
    let loaded = engine.load(&program(f.finish()), "main", LoadOptions::default()).expect("it loads");
    let (x, z) = (engine.buffer(&ty).expect("memory"), engine.buffer(&ty).expect("memory"));
    x.set(&f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])).expect("its type");
    call(&*loaded, &[("x", &x), ("y", &x), ("z", &z)]).expect("it runs");
    assert_eq!(x.to_tensor().expect("free"), f32s(&[2, 3], &[-1.0, -4.0, -2.0, -5.0, -3.0, -6.0]));
    assert_eq!(z.to_tensor().expect("free"), f32s(&[2, 3], &[20.0, 17.0, 19.0, 16.0, 18.0, 15.0]));
}

#[test]
fn bindings_that_do_not_fit_are_refused_by_name() {
    let engine = engine();
    let loaded =
        engine.load(&program(product_over_its_operand()), "main", LoadOptions::default()).expect("it loads");
    let right = engine.buffer(&TensorType::new(DType::F32, &[2, 2])).expect("memory");
    let wrong = engine.buffer(&TensorType::new(DType::F16, &[2, 2])).expect("memory");
    let refused = |buffers: &[(&str, &Buffer)]| loaded.bind(buffers).err().expect("refused").to_string();
    assert_eq!(refused(&[("x", &right)]), "port `y`: not bound");
    assert_eq!(refused(&[("x", &right), ("x", &right)]), "port `x`: bound twice");
    assert_eq!(refused(&[("q", &right)]), "port `q`: the function has no such port");
    assert!(refused(&[("x", &wrong)]).contains("tensor<fp16, [2, 2]>"));
    let other =
        engine.load(&program(product_over_its_operand()), "main", LoadOptions::default()).expect("it loads");
    let binding = loaded.bind(&[("x", &right), ("y", &right)]).expect("fits");
    assert!(matches!(other.submit(&binding), Err(EngineError::Foreign(_))));
    let busy = right.read(|_| loaded.submit(&binding).map(|_| ())).expect("free");
    assert!(matches!(busy, Err(EngineError::Locked(_))));
    assert!(matches!(
        engine.load(&program(product_over_its_operand()), "f", LoadOptions::default()),
        Err(EngineError::NoFunction(_))
    ));
}

#[test]
fn outputs_that_are_not_aliased_may_not_share() {
    let mut f = Builder::new("main", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[4]);
    let x = f.parameter("x", ty.clone(), Role::Batch);
    let y = f.neg(x).expect("well-typed");
    f.output("y", y);
    let engine = engine();
    let loaded = engine.load(&program(f.finish()), "main", LoadOptions::default()).expect("it loads");
    let x = engine.buffer(&ty).expect("memory");
    let error = loaded.bind(&[("x", &x), ("y", &x)]).err().expect("refused").to_string();
    assert_eq!(error, "port `y`: shares its buffer with `x`, to which it is not aliased");
}

#[test]
fn an_index_out_of_range_is_an_error_that_names_it() {
    let mut f = Builder::new("main", Opset::Ios18);
    let table = f.parameter("table", TensorType::new(DType::F32, &[3, 2]), Role::Param);
    let ids = f.parameter("ids", TensorType::new(DType::I32, &[2]), Role::Batch);
    let rows = f.scope("embedding", |f| f.gather(table, ids, 0)).expect("well-typed");
    f.output("rows", rows);
    let program = program(f.finish());
    for (bad, shown) in [(3, "3"), (-4, "-4"), (i32::MAX, "2147483647")] {
        let inputs = BTreeMap::from([
            ("table".to_string(), f32s(&[3, 2], &[0.0; 6])),
            ("ids".to_string(), Tensor::new(&[2], vec![1, bad]).expect("two")),
        ]);
        let error = conformance::run(&engine(), &program, "main", &inputs, LoadOptions::default())
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("gather at `embedding.gather`: index {shown} is outside an axis of 3")
        );
    }
}

#[test]
fn what_the_engine_cannot_run_is_an_error_at_loading() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::I64, &[3]), Role::Batch);
    let y = f.add(x, x).expect("well-typed");
    f.output("y", y);
    let error = engine().load(&program(f.finish()), "main", LoadOptions::default()).err().expect("refused");
    assert_eq!(error.to_string(), "add at `add`: int64 operands are not supported here");
}
