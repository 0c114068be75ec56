//! Statements as the messages of a package.

use std::collections::BTreeMap;

use arcane_tensor::{DType, Data, Tensor};
use prost::Message;

use super::names::identifiers;
use super::statements::{Form, Frame, Items, Port, Statement, Value, frame};
use super::{PrintError, Unspellable, names_hold};
use crate::blob::BlobWriter;
use crate::package::EmittedPackage;
use crate::package::proto::{
    self, binding, dimension, elements, feature_type, immediate, model, value, value_type,
};
use crate::read::package::{STRING, dtype_code};
use crate::{Function, Opset, Program, Strictness, TensorType, verify};

/// The weight file as programs name it.
pub(crate) const WEIGHT_PATH: &str = "@model_path/weights/weight.bin";
/// The first specification with several functions.
const SEVERAL: i32 = 9;

/// A program as the files of a package.
pub(crate) fn emit(program: &Program) -> Result<EmittedPackage, PrintError> {
    names_hold(program)?;
    let several = program.functions.len() > 1;
    let mut weights = BlobWriter::new();
    let mut messages = BTreeMap::new();
    let mut described = Vec::new();
    for function in &program.functions {
        verify(function, Strictness::Strict)?;
        let identifiers = identifiers(function);
        let frame = frame(function, &identifiers, &mut weights, Form::Package)?;
        described.push(describe(function, &frame)?);
        messages.insert(function.name().to_string(), message(function, frame));
    }
    let newest = program.functions.iter().map(Function::opset).max().unwrap_or(Opset::Ios18);
    let description = match (several, described.pop()) {
        (false, Some(only)) => proto::Description {
            input: only.input,
            output: only.output,
            state: only.state,
            ..proto::Description::default()
        },
        (_, last) => {
            described.extend(last);
            // The one that runs where none is named.
            let first = program.functions.iter().find(|f| f.name() == "main").or(program.functions.first());
            let default_function_name = first.map_or(String::new(), |f| f.name().into());
            proto::Description { functions: described, default_function_name, ..Default::default() }
        }
    };
    let program = proto::Program { version: 1, functions: messages, attributes: BTreeMap::new() };
    let model = proto::Model {
        specification_version: specification(newest).max(if several { SEVERAL } else { 0 }),
        description: Some(description),
        kind: Some(model::Kind::MlProgram(program)),
    };
    Ok(EmittedPackage { model: model.encode_to_vec(), weights: weights.finish() })
}

fn specification(opset: Opset) -> i32 {
    match opset {
        Opset::Ios15 => 6,
        Opset::Ios16 => 7,
        Opset::Ios17 => 8,
        Opset::Ios18 => 9,
    }
}

/// The inputs, outputs and states of a function, which have to be of types that Core ML passes.
fn describe(function: &Function, frame: &Frame<'_>) -> Result<proto::FunctionDescription, PrintError> {
    let opset = function.opset();
    let feature = |kind: &str, port: &Port<'_>| {
        feature(port, opset).ok_or_else(|| PrintError::Port {
            function: function.name().into(),
            port: format!("{kind} `{}`", port.name),
            source: Unspellable::Port { ty: port.ty.clone(), opset },
        })
    };
    let (states, inputs): (Vec<&Port<'_>>, Vec<&Port<'_>>) =
        frame.parameters.iter().partition(|p| p.is_state);
    Ok(proto::FunctionDescription {
        name: function.name().into(),
        input: inputs.into_iter().map(|p| feature("parameter", p)).collect::<Result<_, _>>()?,
        output: frame.outputs.iter().map(|p| feature("output", p)).collect::<Result<_, _>>()?,
        state: states.into_iter().map(|p| feature("state", p)).collect::<Result<_, _>>()?,
    })
}

fn feature(port: &Port<'_>, opset: Opset) -> Option<proto::Feature> {
    let data_type = match port.ty.dtype {
        DType::F16 if opset >= Opset::Ios16 => 65552,
        // States are fp16.
        _ if port.is_state => return None,
        DType::F32 => 65568,
        DType::I32 => 131_104,
        _ => return None,
    };
    let array = proto::ArrayFeature { shape: port.ty.shape.iter().map(|&d| d as i64).collect(), data_type };
    let kind = if port.is_state {
        feature_type::Kind::State(proto::StateFeature { array: Some(array) })
    } else {
        feature_type::Kind::MultiArray(array)
    };
    Some(proto::Feature { name: port.name.into(), r#type: Some(proto::FeatureType { kind: Some(kind) }) })
}

fn message(function: &Function, frame: Frame<'_>) -> proto::Function {
    let opset = match function.opset() {
        Opset::Ios15 => "CoreML5",
        Opset::Ios16 => "CoreML6",
        Opset::Ios17 => "CoreML7",
        Opset::Ios18 => "CoreML8",
    };
    let block = proto::Block {
        inputs: Vec::new(),
        outputs: frame.outputs.iter().map(|o| o.name.into()).collect(),
        operations: frame.statements.into_iter().map(operation).collect(),
    };
    proto::Function {
        inputs: frame.parameters.iter().map(parameter).collect(),
        opset: opset.into(),
        block_specializations: BTreeMap::from([(opset.to_string(), block)]),
        attributes: BTreeMap::new(),
    }
}

fn parameter(port: &Port<'_>) -> proto::NamedValueType {
    let mut ty = tensor_type(port.ty);
    if port.is_state {
        let state = proto::StateType { wrapped: Some(Box::new(ty)) };
        ty = proto::ValueType { kind: Some(value_type::Kind::State(Box::new(state))) };
    }
    proto::NamedValueType { name: port.name.into(), r#type: Some(ty) }
}

fn operation(statement: Statement<'_>) -> proto::Operation {
    match statement {
        Statement::Const { identifier, name, value, .. } => {
            let (ty, value) = typed(value);
            proto::Operation {
                r#type: "const".into(),
                outputs: vec![proto::NamedValueType { name: identifier, r#type: Some(ty) }],
                attributes: BTreeMap::from([("name".into(), string(&name)), ("val".into(), value)]),
                ..Default::default()
            }
        }
        Statement::Op { results, op, arguments, name, parameters, .. } => proto::Operation {
            r#type: op.into(),
            inputs: arguments.into_iter().map(|(name, items)| (name.to_string(), argument(items))).collect(),
            outputs: results.into_iter().map(|(ty, name)| named_type(name, ty)).collect(),
            attributes: parameters
                .into_iter()
                .map(|(name, value)| (name.to_string(), typed(value).1))
                .chain([("name".to_string(), string(&name))])
                .collect(),
            ..Default::default()
        },
    }
}

fn argument(items: Items<'_>) -> proto::Argument {
    let arguments = match items {
        Items::One(name) => vec![binding::Kind::Name(name)],
        Items::Several(names) => names.into_iter().map(binding::Kind::Name).collect(),
        Items::Value(value) => vec![binding::Kind::Value(Box::new(typed(value).1))],
    };
    let binding = |kind| proto::Binding { kind: Some(kind) };
    proto::Argument { arguments: arguments.into_iter().map(binding).collect() }
}

fn named_type(name: String, ty: &TensorType) -> proto::NamedValueType {
    proto::NamedValueType { name, r#type: Some(tensor_type(ty)) }
}

fn tensor_type(ty: &TensorType) -> proto::ValueType {
    // Types without a code have been refused as values that cannot be said.
    value_type_of(dtype_code(ty.dtype).unwrap_or_default(), &ty.shape)
}

fn value_type_of(data_type: i32, shape: &[usize]) -> proto::ValueType {
    let dimension = |&size: &usize| proto::Dimension {
        kind: Some(dimension::Kind::Constant(proto::Constant { size: size as u64 })),
    };
    let dimensions = shape.iter().map(dimension).collect();
    let tensor = proto::TensorType { data_type, rank: shape.len() as i64, dimensions };
    proto::ValueType { kind: Some(value_type::Kind::Tensor(tensor)) }
}

fn typed(value: Value<'_>) -> (proto::ValueType, proto::Value) {
    match value {
        Value::Text(text) => (value_type_of(STRING, &[]), string(&text)),
        Value::Inline(tensor) => {
            let ty = tensor_type(&TensorType::new(tensor.dtype(), tensor.shape()));
            (ty.clone(), immediate(ty, elements_of(&tensor)))
        }
        Value::Blob(ty, offset) => {
            let ty = tensor_type(&ty);
            let file = proto::BlobFile { file_name: WEIGHT_PATH.into(), offset };
            (ty.clone(), proto::Value { r#type: Some(ty), kind: Some(value::Kind::BlobFile(file)) })
        }
    }
}

fn string(text: &str) -> proto::Value {
    let values = vec![text.into()];
    immediate(value_type_of(STRING, &[]), elements::Kind::Strings(proto::Strings { values }))
}

fn immediate(ty: proto::ValueType, elements: elements::Kind) -> proto::Value {
    let tensor = proto::Elements { kind: Some(elements) };
    let immediate = proto::Immediate { kind: Some(immediate::Kind::Tensor(tensor)) };
    proto::Value { r#type: Some(ty), kind: Some(value::Kind::Immediate(immediate)) }
}

/// The elements in the field for their type.
fn elements_of(tensor: &Tensor) -> elements::Kind {
    use elements::Kind;
    let ints = |values: Vec<i32>| Kind::Ints(proto::Ints { values });
    match tensor.data() {
        Data::Bool(v) => Kind::Bools(proto::Bools { values: v.clone() }),
        Data::F32(v) => Kind::Floats(proto::Floats { values: v.clone() }),
        Data::F64(v) => Kind::Doubles(proto::Doubles { values: v.clone() }),
        Data::I16(v) => ints(v.iter().map(|&x| x.into()).collect()),
        Data::U16(v) => ints(v.iter().map(|&x| x.into()).collect()),
        Data::I32(v) => ints(v.clone()),
        Data::I64(v) => Kind::LongInts(proto::LongInts { values: v.clone() }),
        Data::U64(v) => Kind::LongInts(proto::LongInts { values: v.iter().map(|&x| x as i64).collect() }),
        Data::F16(_) | Data::Bf16(_) | Data::I8(_) | Data::U8(_) | Data::U32(_) | Data::SubByte(..) => {
            Kind::Bytes(proto::Bytes { values: tensor.packed().into_owned() })
        }
    }
}
