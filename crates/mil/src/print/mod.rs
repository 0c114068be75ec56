//! The canonical text of a program: the same program gives the same bytes.
//!
//! A program with a function of opset ios18 is written in the short dialect, `program(1.3)`; an older one in the long
//! dialect, `program(1.0)`, in which scalars are tensors of rank 0. Arguments are in alphabetical order and every parameter
//! of an op is a named constant before it. Constants of ten elements or more, and any with an infinity or a NaN, which have
//! no spelling, stand in the weight file.

mod arguments;
mod literal;
mod names;
pub(crate) mod package;
mod statements;
mod text;

use self::names::Names;
pub use self::names::identifiers;
use self::text::Dialect;
use crate::blob::BlobWriter;
use crate::{Opset, Program, Strictness, TensorType, VerifyError, verify};

/// A program as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The text, `model.mil`.
    pub text: String,
    /// The weight file, `weights/weight.bin` beside the text; empty if the text refers to none.
    pub weights: Vec<u8>,
}

/// Why a program has no text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrintError {
    /// A function breaks an invariant.
    #[error(transparent)]
    Function(#[from] VerifyError),
    /// A function's name is no identifier or is taken twice.
    #[error("the function name `{0}` is no identifier or is taken twice")]
    FunctionName(String),
    /// A parameter or an output of a function has a type without a spelling.
    #[error("{function}: {port}: {source}")]
    Port {
        /// The function.
        function: String,
        /// Which: "parameter `x`".
        port: String,
        /// Why.
        source: Unspellable,
    },
    /// An op has no spelling.
    #[error("{function}: {op} at `{path}`: {source}")]
    Op {
        /// The function.
        function: String,
        /// The op's name.
        op: &'static str,
        /// The path of its first result.
        path: String,
        /// Why.
        source: Unspellable,
    },
}

/// What MIL text, or a package, cannot say.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unspellable {
    /// Values of the type.
    #[error("MIL text has no values of type {0}")]
    Type(TensorType),
    /// A parameter that is infinite or NaN in its type.
    #[error("{parameter} is infinite or NaN, which has no spelling")]
    NotFinite {
        /// The parameter.
        parameter: &'static str,
    },
    /// A parameter beyond `int32`.
    #[error("{parameter} has {value}, which int32 does not hold")]
    TooLarge {
        /// The parameter.
        parameter: &'static str,
        /// The number.
        value: usize,
    },
    /// A type that inputs and outputs of packages do not have.
    #[error("Core ML has no input or output of type {ty} in {}", opset.name())]
    Port {
        /// The type.
        ty: TensorType,
        /// The function's opset.
        opset: Opset,
    },
    /// An op that the function's opset lacks.
    #[error("the op exists from {}, the function is {}", since.name(), opset.name())]
    Opset {
        /// The first opset with the op.
        since: Opset,
        /// The function's.
        opset: Opset,
    },
}

/// Writes a program as text and weights. Open programs are written as they are: a `linear` with a run-time weight stays one.
///
/// # Errors
/// [`PrintError`] if a function breaks an invariant or holds what MIL text cannot say.
pub fn print(program: &Program) -> Result<Emitted, PrintError> {
    let dialect = Dialect::of(program);
    let mut weights = BlobWriter::new();
    let mut text = dialect.open(&program.attributes);
    names_hold(program)?;
    for function in &program.functions {
        verify(function, Strictness::Open)?;
        text::function(function, dialect, &mut weights, &mut text)?;
    }
    text.push_str("}\n");
    Ok(Emitted { text, weights: weights.finish() })
}

/// Refuses names of functions that are no identifiers, or the same.
fn names_hold(program: &Program) -> Result<(), PrintError> {
    let mut taken = Names::default();
    let names = program.functions.iter().map(crate::Function::name);
    for name in names {
        if name.is_empty() || taken.unique(name, "") != name {
            return Err(PrintError::FunctionName(name.into()));
        }
    }
    Ok(())
}
