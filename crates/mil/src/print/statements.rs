//! A function as the statements that are written, be it as text or into a package: every parameter of an op is a named constant
//! before it, every value has an identifier, and large constants stand in the weight file.

use std::borrow::Cow;

use arcane_tensor::{DType, Tensor};

use super::arguments::{Argument, Immediate, arguments};
use super::literal::is_finite;
use super::names::{Names, inline_constants};
use super::{PrintError, Unspellable};
use crate::blob::{BlobWriter, blob_code};
use crate::{
    Attribute, Constexpr, Function, Op, Operation, Opset, Parameter, Role, StateOp, TensorType, ValueId,
};

/// A function as it is written.
pub(super) struct Frame<'a> {
    pub(super) parameters: Vec<Port<'a>>,
    pub(super) statements: Vec<Statement<'a>>,
    /// What is written to a state is no output of the written function.
    pub(super) outputs: Vec<Port<'a>>,
}

/// A parameter or an output.
pub(super) struct Port<'a> {
    pub(super) ty: &'a TensorType,
    pub(super) name: &'a str,
    pub(super) is_state: bool,
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
        arguments: Vec<(&'static str, Items<'a>)>,
        name: String,
        /// Parameters that the definition has as attributes.
        parameters: Vec<(&'static str, Value<'a>)>,
        attributes: &'a [Attribute],
    },
}

/// What stands behind `name =`.
pub(super) enum Items<'a> {
    One(String),
    Several(Vec<String>),
    /// A value in place.
    Value(Value<'a>),
}

/// The value of a constant.
pub(super) enum Value<'a> {
    Text(Cow<'static, str>),
    Inline(Cow<'a, Tensor>),
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
    for name in identifiers.iter().filter(|name| !name.is_empty()) {
        taken.unique(name, "");
    }
    let port = |v: ValueId| Port { ty: function.ty(v), name: &identifiers[v.index()], is_state: false };
    let mut parameters = Vec::new();
    for p in function.parameters() {
        spellable(function.ty(p.value)).map_err(|source| PrintError::Port {
            function: function.name().into(),
            port: format!("parameter `{}`", p.name),
            source,
        })?;
        parameters.push(Port { is_state: is_state(function, p), ..port(p.value) });
    }
    let definitions = function.definitions();
    let written = |v: ValueId| {
        let op = definitions[v.index()].map(|d| &function.operations()[d].op);
        matches!(op, Some(Op::State(StateOp::Write { .. })))
    };
    let outputs = function.outputs().iter().map(|o| o.value).filter(|&v| !written(v)).map(port).collect();
    let mut writer = Writer {
        function,
        identifiers,
        definitions: &definitions,
        is_inline: inline_constants(function),
        taken,
        weights,
        form,
        statements: Vec::new(),
    };
    for (i, operation) in function.operations().iter().enumerate() {
        writer.operation(operation, function.attributes_of(i)).map_err(|source| PrintError::Op {
            function: function.name().into(),
            op: operation.op.name(),
            path: function.value(operation.results[0]).path.clone(),
            source,
        })?;
    }
    Ok(Frame { parameters, statements: writer.statements, outputs })
}

/// Whether a parameter is written as a state: one that a function of ios18 reads and writes as a state only.
fn is_state(f: &Function, p: &Parameter) -> bool {
    let as_state = |o: &Operation| match &o.op {
        Op::State(s) => !o.op.operands().contains(&p.value) || s.state() == p.value,
        other => !other.operands().contains(&p.value),
    };
    p.role == Role::State && f.opset() >= Opset::Ios18 && f.operations().iter().all(as_state)
}

struct Writer<'a, 'w> {
    function: &'a Function,
    /// By value.
    identifiers: &'a [String],
    /// The op that defines each value.
    definitions: &'w [Option<usize>],
    /// The constants that stand in the arguments of ops on compressed weights only.
    is_inline: Vec<bool>,
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
            if self.is_inline[first.index()] {
                return Ok(());
            }
            let value = self.constant(tensor)?;
            self.statements.push(Statement::Const {
                identifier: identifier.clone(),
                name,
                value,
                attributes,
            });
            return Ok(());
        }
        let (spelled, parameters) = match &operation.op {
            Op::Constexpr(op) => self.compressed(op, operation)?,
            op => (self.arguments(op, identifier)?, Vec::new()),
        };
        let results = match operation.op {
            Op::State(StateOp::Write { .. }) => Vec::new(),
            _ => {
                operation.results.iter().map(|&r| (function.ty(r), identifiers[r.index()].clone())).collect()
            }
        };
        let op = operation.op.name();
        self.statements.push(Statement::Op { results, op, arguments: spelled, name, parameters, attributes });
        Ok(())
    }

    /// The arguments of an op, its parameters as named constants.
    fn arguments(
        &mut self,
        op: &'a Op,
        identifier: &str,
    ) -> Result<Vec<(&'static str, Items<'a>)>, Unspellable> {
        let function = self.function;
        let of = |v: ValueId| self.identifiers[v.index()].clone();
        let mut spelled = Vec::new();
        for (parameter, argument) in arguments(op, |v| function.ty(v), function.opset())? {
            let items = match argument {
                Argument::Value(v) => Items::One(of(v)),
                Argument::Values(values) => Items::Several(values.iter().map(|&v| of(v)).collect()),
                Argument::Const(value) => Items::One(self.parameter(identifier, parameter, value)?),
                Argument::Consts(values) => {
                    let names = values.into_iter().map(|v| self.parameter(identifier, parameter, v));
                    Items::Several(names.collect::<Result<_, _>>()?)
                }
            };
            spelled.push((parameter, items));
        }
        Ok(spelled)
    }

    /// The arguments of an op on compressed weights: values stand in place, as attributes where the definition is that of ios16
    /// and all operands are constants.
    #[expect(clippy::type_complexity, reason = "arguments and attributes, each by name")]
    fn compressed(
        &mut self,
        op: &Constexpr,
        operation: &'a Operation,
    ) -> Result<(Vec<(&'static str, Items<'a>)>, Vec<(&'static str, Value<'a>)>), Unspellable> {
        let (function, definitions) = (self.function, self.definitions);
        let constant = |v: ValueId| match &function.operations()[definitions[v.index()]?].op {
            Op::Const(tensor) => Some(&**tensor),
            _ => None,
        };
        let in_attributes = match op {
            Constexpr::AffineDequantize { .. }
            | Constexpr::PackedLutToDense { .. }
            | Constexpr::PackedSparseToDense { .. } => true,
            Constexpr::Cast { .. } => function.opset() < Opset::Ios18,
            _ => false,
        };
        let in_attributes =
            in_attributes && operation.op.operands().into_iter().all(|v| constant(v).is_some());
        let (mut spelled, mut parameters) = (Vec::new(), Vec::new());
        for (parameter, argument) in arguments(&operation.op, |v| function.ty(v), function.opset())? {
            let value = match argument {
                Argument::Value(v) => {
                    let Some(tensor) = constant(v) else {
                        spelled.push((parameter, Items::One(self.identifiers[v.index()].clone())));
                        continue;
                    };
                    self.constant(tensor)?
                }
                Argument::Const(Immediate::Tensor(tensor)) => Value::Inline(Cow::Owned(tensor)),
                Argument::Const(Immediate::Text(text)) => Value::Text(text),
                Argument::Values(_) | Argument::Consts(_) => {
                    unreachable!("no op on compressed weights takes several")
                }
            };
            if in_attributes {
                parameters.push((parameter, value));
            } else {
                spelled.push((parameter, Items::Value(value)));
            }
        }
        Ok((spelled, parameters))
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
                Value::Inline(Cow::Owned(tensor))
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
            return Ok(Value::Inline(Cow::Borrowed(tensor)));
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
        | DType::U64
        | DType::U1
        | DType::U2
        | DType::U3
        | DType::U4
        | DType::U6
        | DType::I4 => Ok(()),
    }
}
