//! MIL to a Plan: which functions run, on which buffers, with which types.
//!
//! In the order in which a program meets them: [`simplify`] removes what need not be computed, [`mixed`] gives every value
//! its type, and [`plan`] lays the functions of a training program out over buffers. For a chip, [`legalise`] runs both with
//! the passes between them; then ops get places and orders of elements (`layout`), and the function is cut into programs
//! (`partition`). A [`Plan`] is plain data; a session runs it on engines.

mod canonical;
mod layout;
mod legalise;
mod partition;
mod placement;
mod plan;
mod precision;
mod predict;
mod simplify;

pub use legalise::{
    ENGINE_PASSES, EnginePass, chunk_heads, decompose_attention, legalise, pad_contractions, scale_norms,
};
pub use placement::Placement;
pub use plan::{
    BufferKind, Call, FORMAT_VERSION, PREPARE, Place, Plan, PlanBuffer, PlanError, PlanFilesError,
    PlanOptions, PortBinding, Step, TrainingProgram, Work, plan, plan_functions,
};
pub use precision::{Compute, ENGINE_TABLE, FP16_TABLE, OpClass, Precision, mixed};
pub use predict::Prediction;
pub use simplify::{PASSES, Pass, common_subexpressions, fold_identities, scatter_into, simplify};

#[cfg(test)]
#[path = "../tests/suite/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "../tests/suite/random.rs"]
#[allow(dead_code, reason = "the tests of whole plans use all of it")]
mod random;
