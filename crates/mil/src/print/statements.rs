//! A function as the statements that are written, be it as text or into a package: every parameter of an op is a named constant
//! before it, every value has an identifier, and large constants stand in the weight file.

use arcane_tensor::{DType, Tensor};

use super::arguments::{Argument, Immediate, arguments};
use super::literal::is_finite;
use super::names::{Names, identifiers};
use super::{PrintError, Unspellable};
use crate::blob::{BlobWriter, blob_code};
use crate::{Attribute, Function, Op, Operation, TensorType};

/// A function as it is written.
pub(super) struct Frame<'a> {
    pub(super) parameters: Vec<(&'a TensorType, &'a str)>,
    pub(super) statements: Vec<Statement<'a>>,
    pub(super) outputs: Vec<(&'a TensorType, &'a str)>,
}

/// A constant or an op.
pub(super) enum Statement<'a> {
    Const {
        identifier: String,
        /// The `name` attribute.
        name: String,
        value: Value<'a>,
        attributes: &'a [Attribute],
    },
    Op {
        results: Vec<(&'a TensorType, String)>,
        op: &'static str,
        /// In alphabetical order.
        arguments: Vec<(&'static str, Items)>,
        name: String,
        attributes: &'a [Attribute],
    },
}

/// What stands behind `name =`.
pub(super) enum Items {
    One(String),
    Several(Vec<String>),
}

/// The value of a constant.
pub(super) enum Value<'a> {
    Text(&'static str),
    Inline(std::borrow::Cow<'a, Tensor>),
    /// An array whose record is at an offset of the weight file.
    Blob(TensorType, u64),
}

/// Where a function is written, as far as that decides about constants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Infinities and NaN have no spelling.
    Text,
    /// Every number can be said.
    Package,
}

/// The statements of a verified function; `identifiers` are its values'. Arrays are put into the weight file.
pub(super) fn frame<'a>(
    function: &'a Function,
    identifiers: &'a [String],
    weights: &mut BlobWriter,
    form: Form,
) -> Result<Frame<'a>, PrintError> {
    let mut taken = Names::default();
    for name in identifiers {
        taken.unique(name, "");
    }
    let mut parameters = Vec::new();
    for p in function.parameters() {
        let ty = function.ty(p.value);
        spellable(ty).map_err(|source| PrintError::Port {
            function: function.name().into(),
            port: format!("parameter `{}`", p.name),
            source,
        })?;
        parameters.push((ty, identifiers[p.value.index()].as_str()));
    }
    let mut writer = Writer { function, identifiers, taken, weights, form, statements: Vec::new() };
    for (i, operation) in function.operations().iter().enumerate() {
        writer.operation(operation, function.attributes_of(i)).map_err(|source| PrintError::Op {
            function: function.name().into(),
            op: operation.op.name(),
            path: operation.results.first().map_or(String::new(), |&r| function.value(r).path.clone()),
            source,
        })?;
    }
    let statements = writer.statements;
    let output = |o: &'a crate::Output| (function.ty(o.value), identifiers[o.value.index()].as_str());
    Ok(Frame { parameters, statements, outputs: function.outputs().iter().map(output).collect() })
}

/// The identifiers that [`frame`] takes.
pub(super) fn named(function: &Function) -> Vec<String> {
    identifiers(function)
}

struct Writer<'a, 'w> {
    function: &'a Function,
    /// By value.
    identifiers: &'a [String],
    /// Every identifier of the function, its named parameters' included.
    taken: Names,
    weights: &'w mut BlobWriter,
    form: Form,
    statements: Vec<Statement<'a>>,
}

impl<'a> Writer<'a, '_> {
    fn operation(
        &mut self,
        operation: &'a Operation,
        attributes: &'a [Attribute],
    ) -> Result<(), Unspellable> {
        let function = self.function;
        operation.results.iter().map(|&r| function.ty(r)).try_for_each(spellable)?;
        let first = operation.results[0];
        let path = &function.value(first).path;
        let identifiers = self.identifiers;
        let identifier = &identifiers[first.index()];
        let name = if path.is_empty() { identifier.clone() } else { path.clone() };
        if let Op::Const(tensor) = &operation.op {
            let value = self.constant(tensor)?;
            self.statements.push(Statement::Const {
                identifier: identifier.clone(),
                name,
                value,
                attributes,
            });
            return Ok(());
        }
        let of = |v: crate::ValueId| identifiers[v.index()].clone();
        let mut spelled = Vec::new();
        for (parameter, argument) in arguments(&operation.op, |v| function.ty(v), function.opset())? {
            let items = match argument {
                Argument::Value(v) => Items::One(of(v)),
                Argument::Values(values) => Items::Several(values.iter().map(|&v| of(v)).collect()),
                Argument::Const(value) => Items::One(self.parameter(identifier, parameter, value)?),
            };
            spelled.push((parameter, items));
        }
        let results = operation.results.iter().map(|&r| (function.ty(r), of(r))).collect();
        let op = operation.op.name();
        self.statements.push(Statement::Op { results, op, arguments: spelled, name, attributes });
        Ok(())
    }

    /// Writes a parameter of the op that defines the value `owner` as a constant and gives its identifier.
    fn parameter(
        &mut self,
        owner: &str,
        parameter: &'static str,
        value: Immediate,
    ) -> Result<String, Unspellable> {
        let value = match value {
            Immediate::Text(text) => Value::Text(text),
            Immediate::Tensor(tensor) => {
                if self.form == Form::Text && !is_finite(&tensor) {
                    return Err(Unspellable::NotFinite { parameter });
                }
                Value::Inline(std::borrow::Cow::Owned(tensor))
            }
        };
        let name = self.taken.unique(&format!("{owner}_{parameter}"), "");
        let identifier = name.clone();
        self.statements.push(Statement::Const { identifier, name: name.clone(), value, attributes: &[] });
        Ok(name)
    }

    /// The value of a constant: inline if it is small and can be said so, or cannot stand in a weight file.
    fn constant(&mut self, tensor: &'a Tensor) -> Result<Value<'a>, Unspellable> {
        let sayable = self.form == Form::Package || is_finite(tensor);
        if sayable && (tensor.len() < 10 || blob_code(tensor.dtype()).is_none()) {
            return Ok(Value::Inline(std::borrow::Cow::Borrowed(tensor)));
        }
        let Some(offset) = self.weights.add(tensor) else {
            return Err(Unspellable::NotFinite { parameter: "val" });
        };
        Ok(Value::Blob(TensorType::new(tensor.dtype(), tensor.shape()), offset))
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
