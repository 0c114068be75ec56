//! The software engine against the reference evaluator.

use arcane_engine::{LoadOptions, SoftwareEngine, conformance};
use arcane_mil::{Op, Operation};
use arcane_tensor::Tensor;

fn failures(threads: usize, fuse: bool) -> Vec<String> {
    let engine = SoftwareEngine::new(threads).expect("threads start");
    let check = |case| conformance::check(&engine, case, LoadOptions { fuse }).err().map(|e| e.to_string());
    conformance::cases().iter().filter_map(check).collect()
}

#[test]
fn every_case_fused() {
    let failures = failures(2, true);
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_case_unfused_on_one_thread() {
    let failures = failures(1, false);
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn neither_threads_nor_what_follows_a_product_change_a_bit() {
    let engine = |threads| SoftwareEngine::new(threads).expect("threads start");
    let (one, three) = (engine(1), engine(3));
    for case in conformance::cases() {
        let run = |engine, fuse| {
            let outputs = conformance::run(engine, &case.program, "main", &case.inputs, LoadOptions { fuse });
            let bytes = |(_, tensor): (String, Tensor)| tensor.bytes().to_vec();
            outputs.expect("it runs").into_iter().map(bytes).collect::<Vec<_>>()
        };
        let fused = run(&three, true);
        assert_eq!(fused, run(&one, true), "{}", case.name);
        let is_product = |o: &Operation| matches!(o.op, Op::Matmul { .. } | Op::Linear { .. });
        if case.program.functions[0].operations().iter().any(is_product) {
            assert_eq!(fused, run(&one, false), "{}", case.name);
        }
    }
}
