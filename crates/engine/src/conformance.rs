//! Conformance of any engine with the reference evaluator.
