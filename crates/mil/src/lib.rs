//! MIL: typed ops, builder, shape and type rules, verifier, text, and the reference evaluator.
