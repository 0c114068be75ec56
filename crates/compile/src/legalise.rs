//! Passes that write a program in the ops, sizes and ranges of an engine that computes in fp16.
//!
//! Each is a function from MIL to MIL with the same interface and, up to rounding, the same results. None knows a model:
//! what they rewrite is found by dataflow.

mod attention;
mod contraction;
mod head;
mod norm;

use arcane_chip::Chip;
use arcane_mil::{Function, remove_dead_code};

pub use attention::decompose_attention;
pub use contraction::pad_contractions;
pub use head::chunk_heads;
pub use norm::scale_norms;

use crate::{Precision, fold_identities, mixed, simplify};

/// A pass on the way from a differentiated fp32 function to one whose ops an engine has.
#[derive(Clone, Copy, Debug)]
pub struct EnginePass {
    /// The name of the function that it runs.
    pub name: &'static str,
    /// Why it is here in the order.
    pub why: &'static str,
    /// The pass, for a chip.
    pub run: fn(&Function, &Chip) -> Function,
}

/// The passes of [`legalise`], in order.
pub const ENGINE_PASSES: &[EnginePass] = &[
    EnginePass {
        name: "simplify",
        why: "identities hide what the next passes look for",
        run: |f, _| simplify(f),
    },
    EnginePass {
        name: "scale_norms",
        why: "before types: all of a norm is fp32 then, and its derivative has one spelling",
        run: |f, _| scale_norms(f),
    },
    EnginePass {
        name: "mixed",
        why: "what follows writes fp16 alone, so it has to know what is fp16",
        run: |f, _| mixed(f, Precision::Engine),
    },
    EnginePass {
        name: "simplify",
        why: "casts that cancel stand between the ops of a region",
        run: |f, _| simplify(f),
    },
    EnginePass {
        name: "chunk_heads",
        why: "before products are padded: it writes new ones",
        run: |f, chip| chunk_heads(f, *chip.limits.max_output_channels),
    },
    EnginePass {
        name: "decompose_attention",
        why: "after the last merging of equal ops: the backward pass computes the probabilities again, because to keep \
              them costs more",
        run: |f, _| decompose_attention(f),
    },
    EnginePass {
        name: "pad_contractions",
        why: "after all passes that write products",
        run: |f, chip| pad_contractions(f, *chip.limits.inner_multiple),
    },
    EnginePass {
        name: "fold_identities",
        why: "leaves out the casts and reshapes that the passes before have made needless; merges nothing",
        run: |f, _| fold_identities(f),
    },
    EnginePass {
        name: "remove_dead_code",
        why: "only ops that something needs are to be placed",
        run: |f, _| remove_dead_code(f),
    },
];

/// Runs all [`ENGINE_PASSES`] once.
#[must_use]
pub fn legalise(function: &Function, chip: &Chip) -> Function {
    ENGINE_PASSES.iter().fold(function.clone(), |f, pass| (pass.run)(&f, chip))
}
