//! MIL to a Plan: which functions run, on which buffers, with which types.
//!
//! In the order in which a program meets them: [`simplify`] removes what need not be computed, [`mixed`] gives every value
//! its type, and [`plan`] lays the functions of a training program out over buffers. A [`Plan`] is plain data; a session
//! runs it on an engine.

mod canonical;
mod layout;
mod legalise;
mod partition;
mod plan;
mod precision;
mod predict;
mod simplify;

pub use legalise::{chunk_heads, decompose_attention, pad_contractions, scale_norms};
pub use plan::{
    BufferKind, Call, FORMAT_VERSION, PREPARE, Place, Plan, PlanBuffer, PlanError, PlanFilesError,
    PlanOptions, PortBinding, Step, TrainingProgram, Work, plan, plan_functions,
};
pub use precision::{Compute, ENGINE_TABLE, FP16_TABLE, OpClass, Precision, mixed};
pub use predict::{Prediction, UNCERTAINTY};
pub use simplify::{PASSES, Pass, common_subexpressions, fold_identities, scatter_into, simplify};
