//! Reading MIL text.
//!
//! Both dialects are read under both versions, with any white space and any order of arguments and attributes. Typed
//! literals may stand in place of references, parameters with a default may be left out, and constants that only give
//! parameters of ops (axes, shapes, flags, ...) become those parameters. What the text declares is checked against what the
//! ops give, and nothing is allocated for what the text merely declares.

mod arguments;
mod lexer;
mod literal;
mod lower;
mod ops;
mod parser;
mod syntax;
mod weights;

use std::collections::HashSet;

use self::lower::Lowering;
use self::parser::Parser;
pub use self::weights::{BlobFolder, NoWeights, WeightSource};
use crate::Program;

/// Why a text is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What was expected; empty where `what` says it.
    pub expected: String,
}

impl std::error::Error for ReadError {}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)?;
        if self.expected.is_empty() { Ok(()) } else { write!(f, ", expected {}", self.expected) }
    }
}

/// A [`ReadError`] whose place is still an offset in bytes.
#[derive(Debug)]
struct Fault {
    at: usize,
    what: String,
    expected: String,
}

impl Fault {
    fn new(at: usize, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { at, what: what.into(), expected: expected.into() }
    }

    fn locate(self, text: &str) -> ReadError {
        let before = &text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ReadError {
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: self.what,
            expected: self.expected,
        }
    }
}

/// What becomes of arrays in weight files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blobs {
    /// Constants, read from the file.
    Read,
    /// Parameters of the function, not read.
    Promote,
}

/// Reads a program. `weights` gives the arrays that stand in weight files.
///
/// A value's path is the `name` attribute of its op, or its identifier where there is none; of several results the first
/// takes the name and the others their identifiers. Parameters and outputs keep their identifiers, parameters have the role
/// [`crate::Role::Batch`]. The functions hold under [`crate::Strictness::Strict`], and a canonical text comes back from
/// [`crate::print()`] as it was.
///
/// # Errors
/// [`ReadError`] for the first fault: of the text, of the types, or of a weight file.
pub fn read(text: &str, weights: &dyn WeightSource) -> Result<Program, ReadError> {
    read_as(text, weights, Blobs::Read)
}

/// Checks a text as [`read`] does, without its weight files, and gives the program with each constant of a weight file as a
/// parameter of the role [`crate::Role::Constant`], named by its identifier and `.blob`: the same ops and types at no cost.
///
/// `weights` is asked only where an array decides a type (`split_sizes` of ten parts); [`NoWeights`] will mostly do.
///
/// # Errors
/// Those of [`read`], but for the weight files.
pub fn check(text: &str, weights: &dyn WeightSource) -> Result<Program, ReadError> {
    read_as(text, weights, Blobs::Promote)
}

fn read_as(text: &str, weights: &dyn WeightSource, blobs: Blobs) -> Result<Program, ReadError> {
    program(text, weights, blobs).map_err(|fault| fault.locate(text))
}

fn program(text: &str, weights: &dyn WeightSource, blobs: Blobs) -> Result<Program, Fault> {
    let mut parser = Parser::new(text);
    let mut program = Program::default();
    let mut names = HashSet::new();
    let arrays = weights::Arrays::new(weights, blobs);
    parser.open_program()?;
    while let Some(header) = parser.function()? {
        let name = header.name;
        if !names.insert(name.text) {
            return Err(Fault::new(name.at, format!("a second function `{}`", name.text), "another name"));
        }
        let mut lowering = Lowering::new(&header, &arrays)?;
        while let Some(statement) = parser.statement()? {
            lowering.statement(&statement)?;
        }
        let outputs = parser.outputs()?;
        program.functions.push(lowering.finish(&outputs)?);
    }
    parser.close_program(!program.functions.is_empty())?;
    Ok(program)
}
