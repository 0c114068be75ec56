//! The software engine against the reference evaluator.

use arcane_engine::{LoadOptions, SoftwareEngine, conformance};

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
