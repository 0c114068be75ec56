//! The canonical text of a program: the same program gives the same bytes.
//!
//! A program with a function of opset ios18 is written in the short dialect, `program(1.3)`; an older one in the long
//! dialect, `program(1.0)`, in which scalars are tensors of rank 0. Arguments are in alphabetical order and every parameter
//! of an op is a named constant before it. Constants of ten elements or more, and any with an infinity or a NaN, which have
//! no spelling, stand in the weight file.

mod arguments;
mod literal;
mod names;

use arcane_tensor::{DType, Tensor};

use self::arguments::{Argument, Immediate, arguments};
use self::literal::{elements, is_finite, quoted};
use self::names::Names;
pub use self::names::identifiers;
use crate::blob::{BlobWriter, blob_code};
use crate::{Function, Op, Operation, Opset, Program, Strictness, TensorType, VerifyError, verify};

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
    /// A parameter of a function has a type without a spelling.
    #[error("{function}: parameter `{parameter}`: {source}")]
    Parameter {
        /// The function.
        function: String,
        /// The parameter.
        parameter: String,
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

/// What MIL text cannot say.
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
    let mut taken = Names::default();
    let mut text = format!("program({})\n[buildInfo = {}]\n{{\n", dialect.version(), dialect.build_info());
    for function in &program.functions {
        verify(function, Strictness::Open)?;
        if function.name().is_empty() || taken.unique(function.name(), "") != function.name() {
            return Err(PrintError::FunctionName(function.name().into()));
        }
        let mut printer = Printer {
            function,
            dialect,
            identifiers: identifiers(function),
            taken: Names::default(),
            weights: &mut weights,
            text: &mut text,
        };
        printer.function()?;
    }
    text.push_str("}\n");
    Ok(Emitted { text, weights: weights.finish() })
}

/// How rank-0 types, strings and numbers are spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Long,
    Short,
}

impl Dialect {
    fn of(program: &Program) -> Self {
        if program.functions.iter().all(|f| f.opset() < Opset::Ios18) && !program.functions.is_empty() {
            Self::Long
        } else {
            Self::Short
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Long => "1.0",
            Self::Short => "1.3",
        }
    }

    fn ty(self, ty: &TensorType) -> String {
        if ty.shape.is_empty() { self.scalar(ty.dtype.name()) } else { ty.to_string() }
    }

    fn scalar(self, name: &str) -> String {
        match self {
            Self::Long => format!("tensor<{name}, []>"),
            Self::Short => name.into(),
        }
    }

    fn string(self, text: &str) -> String {
        format!("{}({})", self.scalar("string"), quoted(text))
    }

    fn build_info(self) -> String {
        let string = self.scalar("string");
        let entries = r#"{"coremlc-component-MIL", "3510.2.1"}, {"coremlc-version", "3505.4.1"}"#;
        format!("dict<{string}, {string}>({{{entries}}})")
    }
}

/// Writes one function.
struct Printer<'a> {
    function: &'a Function,
    dialect: Dialect,
    /// By value.
    identifiers: Vec<String>,
    /// Every identifier of the function, its named parameters' included.
    taken: Names,
    weights: &'a mut BlobWriter,
    text: &'a mut String,
}

impl Printer<'_> {
    fn function(&mut self) -> Result<(), PrintError> {
        let function = self.function;
        for name in &self.identifiers {
            self.taken.unique(name, "");
        }
        let mut parameters = Vec::new();
        for p in function.parameters() {
            let ty = function.ty(p.value);
            spellable(ty).map_err(|source| PrintError::Parameter {
                function: function.name().into(),
                parameter: p.name.clone(),
                source,
            })?;
            parameters.push(format!("{} {}", self.dialect.ty(ty), self.identifiers[p.value.index()]));
        }
        let (name, opset) = (function.name(), function.opset().name());
        self.line(4, &format!("func {name}<{opset}>({}) {{", parameters.join(", ")));
        for operation in function.operations() {
            self.operation(operation).map_err(|source| PrintError::Op {
                function: function.name().into(),
                op: operation.op.name(),
                path: function.value(operation.results[0]).path.clone(),
                source,
            })?;
        }
        let outputs: Vec<&str> =
            function.outputs().iter().map(|o| self.identifiers[o.value.index()].as_str()).collect();
        self.line(8, &format!("}} -> ({});", outputs.join(", ")));
        Ok(())
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), Unspellable> {
        let function = self.function;
        let types = operation.results.iter().map(|&r| function.ty(r));
        types.clone().try_for_each(spellable)?;
        let first = operation.results[0];
        let path = &function.value(first).path;
        let name = if path.is_empty() { self.identifiers[first.index()].clone() } else { path.clone() };
        if let Op::Const(tensor) = &operation.op {
            let value = self.constant(tensor)?;
            let identifier = self.identifiers[first.index()].clone();
            self.const_line(&self.dialect.ty(function.ty(first)), &identifier, &name, &value);
            return Ok(());
        }
        let mut spelled = Vec::new();
        for (parameter, argument) in arguments(&operation.op, |v| function.ty(v), function.opset())? {
            let argument = match argument {
                Argument::Value(v) => self.identifiers[v.index()].clone(),
                Argument::Values(values) => {
                    let names: Vec<&str> =
                        values.iter().map(|v| self.identifiers[v.index()].as_str()).collect();
                    format!("({})", names.join(", "))
                }
                Argument::Const(value) => self.parameter(first.index(), parameter, &value)?,
                Argument::Consts(values) => {
                    let mut names = Vec::new();
                    for value in &values {
                        names.push(self.parameter(first.index(), parameter, value)?);
                    }
                    format!("({})", names.join(", "))
                }
            };
            spelled.push(format!("{parameter} = {argument}"));
        }
        let results: Vec<String> = types
            .zip(&operation.results)
            .map(|(ty, r)| format!("{} {}", self.dialect.ty(ty), self.identifiers[r.index()]))
            .collect();
        let (results, op, spelled) = (results.join(", "), operation.op.name(), spelled.join(", "));
        self.line(12, &format!("{results} = {op}({spelled})[name = {}];", self.dialect.string(&name)));
        Ok(())
    }

    /// Writes a parameter of the op that defines value `owner` as a constant and gives its identifier.
    fn parameter(
        &mut self,
        owner: usize,
        parameter: &'static str,
        value: &Immediate,
    ) -> Result<String, Unspellable> {
        let (ty, value) = match value {
            Immediate::Text(text) => (self.dialect.scalar("string"), self.dialect.string(text)),
            Immediate::Tensor(tensor) => {
                if !is_finite(tensor) {
                    return Err(Unspellable::NotFinite { parameter });
                }
                let ty = TensorType::new(tensor.dtype(), tensor.shape());
                (self.dialect.ty(&ty), self.inline(tensor))
            }
        };
        let name = self.taken.unique(&format!("{}_{parameter}", self.identifiers[owner]), "");
        self.const_line(&ty, &name, &name, &value);
        Ok(name)
    }

    fn const_line(&mut self, ty: &str, identifier: &str, name: &str, value: &str) {
        let name = self.dialect.string(name);
        self.line(12, &format!("{ty} {identifier} = const()[name = {name}, val = {value}];"));
    }

    fn line(&mut self, indent: usize, line: &str) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// The value of a constant: inline if it is small and finite or cannot stand in a weight file.
    fn constant(&mut self, tensor: &Tensor) -> Result<String, Unspellable> {
        let ty = TensorType::new(tensor.dtype(), tensor.shape());
        let finite = is_finite(tensor);
        if finite && (tensor.len() < 10 || blob_code(tensor.dtype()).is_none()) {
            return Ok(self.inline(tensor));
        }
        let Some(offset) = self.weights.add(tensor) else {
            return Err(Unspellable::NotFinite { parameter: "val" });
        };
        Ok(format!(
            "{}(BLOBFILE(path = {}, offset = {}({offset})))",
            self.dialect.ty(&ty),
            self.dialect.string("@model_path/weights/weight.bin"),
            self.dialect.scalar("uint64")
        ))
    }

    fn inline(&self, tensor: &Tensor) -> String {
        let ty = TensorType::new(tensor.dtype(), tensor.shape());
        format!("{}({})", self.dialect.ty(&ty), elements(tensor))
    }
}

fn spellable(ty: &TensorType) -> Result<(), Unspellable> {
    match ty.dtype {
        DType::F64 => Err(Unspellable::Type(ty.clone())),
        DType::Bool
        | DType::F16
        | DType::Bf16
        | DType::F32
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64 => Ok(()),
    }
}
