//! The program of a package as the statements that text would have, so that one reader builds ops of both.
//!
//! A place (`at`) is the number of an operation in its function, from 1; 0 is the function itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcane_tensor::DType::{self, Bf16, F16, I8, U8, U32};
use arcane_tensor::{Tensor, element_count};

use super::lexer::shown;
use super::lower::Lowering;
use super::syntax::{
    Argument, Attribute, Blob, Content, Declared, Header, Item, Name, Statement, Type, Value,
};
use super::weights::{Arrays, WeightSource};
use super::{Blobs, Fault};
use crate::package::proto::{self, binding, dimension, elements, immediate, value, value_type};
use crate::{Opset, Program};

/// Why the program of a package is refused.
pub(crate) struct Refusal {
    /// Which function and operation.
    pub(crate) place: String,
    pub(crate) what: String,
    pub(crate) expected: String,
}

/// What becomes of arrays in weight files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// Constants, read from the files.
    Read,
    /// Parameters, checked where the files are there.
    Check,
}

/// The program with its functions in the order of their names, `first` before the others.
pub(crate) fn program(
    program: &proto::Program,
    first: &str,
    source: &dyn WeightSource,
    weights: Weights,
) -> Result<Program, Refusal> {
    let blobs = match weights {
        Weights::Read => Blobs::Read,
        Weights::Check => Blobs::Promote,
    };
    let arrays = Arrays::new(source, blobs);
    let mut names: Vec<&String> = program.functions.keys().collect();
    names.sort_by_key(|name| (*name != first, *name));
    let mut functions = Vec::new();
    for name in names {
        functions.push(function(name, &program.functions[name], &arrays)?);
    }
    if functions.is_empty() {
        let (what, expected) = ("the program has no functions".into(), "one or more".into());
        return Err(Refusal { place: "program".into(), what, expected });
    }
    Ok(Program::new(functions))
}

fn function(name: &str, function: &proto::Function, arrays: &Arrays<'_>) -> Result<crate::Function, Refusal> {
    let (opset, block) = specialization(function).map_err(|fault| refusal(name, &[], fault))?;
    let lower = || {
        let name = Name { text: name, at: 0 };
        let parameters = function.inputs.iter().map(|p| declared(p, 0)).collect::<Result<_, _>>()?;
        let header = Header { name, opset, parameters, attributes: Vec::new() };
        let mut lowering = Lowering::new(&header, arrays, &BTreeMap::new())?;
        for (i, operation) in block.operations.iter().enumerate() {
            lowering.statement(&statement(operation, i + 1)?)?;
        }
        let outputs: Vec<Name<'_>> = block.outputs.iter().map(|text| Name { text, at: 0 }).collect();
        lowering.finish(&outputs)
    };
    lower().map_err(|fault| refusal(name, &block.operations, fault))
}

fn refusal(function: &str, operations: &[proto::Operation], fault: Fault) -> Refusal {
    let operation = fault.at.checked_sub(1).and_then(|i| operations.get(i));
    let place = operation.map_or(function.to_string(), |o| {
        let result = o.outputs.first().map_or(String::new(), |r| format!(" {}", shown(&r.name)));
        format!("{function}: operation {}, {}{result}", fault.at, shown(&o.r#type))
    });
    Refusal { place, what: fault.what, expected: fault.expected }
}

/// The block for the opset that a function names.
fn specialization(function: &proto::Function) -> Result<(Opset, &proto::Block), Fault> {
    let opset = match function.opset.as_str() {
        "CoreML5" => Opset::Ios15,
        "CoreML6" => Opset::Ios16,
        "CoreML7" => Opset::Ios17,
        // CoreML9 (iOS 26) defines no op anew.
        "CoreML8" | "CoreML9" => Opset::Ios18,
        other => {
            return Err(Fault::new(0, format!("the opset is {}", shown(other)), "CoreML5 to CoreML9"));
        }
    };
    let block = function.block_specializations.get(&function.opset).ok_or_else(|| {
        let names: Vec<&str> = function.block_specializations.keys().map(String::as_str).collect();
        let what = format!("there is no block for the opset {}", function.opset);
        Fault::new(0, what, format!("one among [{}]", shown(&names.join(", "))))
    })?;
    Ok((opset, block))
}

fn statement(operation: &proto::Operation, at: usize) -> Result<Statement<'_>, Fault> {
    if !operation.blocks.is_empty() {
        let what = format!("{} has nested blocks, which are not supported yet", shown(&operation.r#type));
        return Err(Fault::new(at, what, "an op without blocks"));
    }
    let results = operation.outputs.iter().map(|r| declared(r, at)).collect::<Result<_, _>>()?;
    Ok(Statement {
        results,
        op: Name { text: &operation.r#type, at },
        arguments: operation.inputs.iter().map(|(n, a)| argument(n, a, at)).collect::<Result<_, _>>()?,
        attributes: attributes(&operation.attributes, at)?,
    })
}

fn argument<'a>(name: &'a str, argument: &'a proto::Argument, at: usize) -> Result<Argument<'a>, Fault> {
    let items = argument.arguments.iter().map(|binding| match &binding.kind {
        Some(binding::Kind::Name(text)) => Ok(Item::Reference(Name { text, at })),
        Some(binding::Kind::Value(v)) => value(v, at).map(Item::Value),
        None => Err(Fault::new(at, format!("{} is bound to nothing", shown(name)), "a name or a value")),
    });
    Ok(Argument { name: Name { text: name, at }, items: items.collect::<Result<_, _>>()? })
}

fn attributes(attributes: &BTreeMap<String, proto::Value>, at: usize) -> Result<Vec<Attribute<'_>>, Fault> {
    let all = attributes.iter();
    all.map(|(name, v)| Ok(Attribute { name: Name { text: name, at }, value: value(v, at)?, text: "" }))
        .collect()
}

fn declared(named: &proto::NamedValueType, at: usize) -> Result<Declared<'_>, Fault> {
    let fault = || Fault::new(at, format!("{} has no type", shown(&named.name)), "a type");
    let ty = ty(named.r#type.as_ref().ok_or_else(fault)?, at)?;
    Ok(Declared { ty, at, name: Name { text: &named.name, at } })
}

/// A type. Its depth is what the decoder of protobuf lets through.
fn ty(ty_of: &proto::ValueType, at: usize) -> Result<Type, Fault> {
    let inner = |boxed: &Option<Box<proto::ValueType>>| match boxed {
        Some(inner) => ty(inner, at),
        None => Err(Fault::new(at, "a type without its inner type", "a type")),
    };
    Ok(match &ty_of.kind {
        Some(value_type::Kind::Tensor(tensor)) => tensor_type(tensor, at)?,
        Some(value_type::Kind::State(state)) => Type::State(Box::new(inner(&state.wrapped)?)),
        Some(value_type::Kind::List(list)) => {
            let length = list.length.as_ref().map(|d| dimension(d, at)).transpose()?.flatten();
            let length = length.map_or("?".into(), |n| n.to_string());
            Type::Other(format!("list<{}, {length}>", inner(&list.r#type)?))
        }
        Some(value_type::Kind::Tuple(tuple)) => {
            let parts: Vec<String> =
                tuple.types.iter().map(|t| ty(t, at).map(|t| t.to_string())).collect::<Result<_, _>>()?;
            Type::Other(format!("tuple<{}>", parts.join(", ")))
        }
        Some(value_type::Kind::Dictionary(d)) => {
            Type::Other(format!("dict<{}, {}>", inner(&d.key)?, inner(&d.value)?))
        }
        None => return Err(Fault::new(at, "an empty type", "a tensor")),
    })
}

fn tensor_type(tensor: &proto::TensorType, at: usize) -> Result<Type, Fault> {
    let dims: Vec<Option<usize>> =
        tensor.dimensions.iter().map(|d| dimension(d, at)).collect::<Result<_, _>>()?;
    if usize::try_from(tensor.rank) != Ok(dims.len()) {
        let what = format!("a tensor type of rank {} with {} dimensions", tensor.rank, dims.len());
        return Err(Fault::new(at, what, "as many dimensions"));
    }
    let Some(&(_, name, dtype)) = DTYPES.iter().find(|(code, _, _)| *code == tensor.data_type) else {
        let what = format!("a tensor of the unknown data type {}", tensor.data_type);
        return Err(Fault::new(at, what, "10 (fp16), 11 (fp32), 23 (int32), ..."));
    };
    Ok(match dtype {
        Some(dtype) => Type::Tensor(dtype, dims),
        None if name == "string" && dims.is_empty() => Type::Text,
        None => Type::Other(format!("tensor<{name}, ...>")),
    })
}

/// The codes of element types: the name in text, and the type here if there is one.
const DTYPES: [(i32, &str, Option<DType>); 22] = [
    (1, "bool", Some(DType::Bool)),
    (2, "string", None),
    (10, "fp16", Some(DType::F16)),
    (11, "fp32", Some(DType::F32)),
    (12, "fp64", None),
    (13, "bf16", Some(DType::Bf16)),
    (21, "int8", Some(DType::I8)),
    (22, "int16", Some(DType::I16)),
    (23, "int32", Some(DType::I32)),
    (24, "int64", Some(DType::I64)),
    (25, "int4", Some(DType::I4)),
    (31, "uint8", Some(DType::U8)),
    (32, "uint16", Some(DType::U16)),
    (33, "uint32", Some(DType::U32)),
    (34, "uint64", Some(DType::U64)),
    (35, "uint4", Some(DType::U4)),
    (36, "uint2", Some(DType::U2)),
    (37, "uint1", Some(DType::U1)),
    (38, "uint6", Some(DType::U6)),
    (39, "uint3", Some(DType::U3)),
    (40, "fp8e4m3fn", None),
    (41, "fp8e5m2", None),
];

/// The code of an element type.
pub(crate) fn dtype_code(dtype: DType) -> Option<i32> {
    DTYPES.iter().find(|(_, _, d)| *d == Some(dtype)).map(|(code, _, _)| *code)
}

/// The code of `string`.
pub(crate) const STRING: i32 = 2;

fn dimension(d: &proto::Dimension, at: usize) -> Result<Option<usize>, Fault> {
    match &d.kind {
        Some(dimension::Kind::Constant(c)) => usize::try_from(c.size)
            .map(Some)
            .map_err(|_| Fault::new(at, format!("a dimension of {}", c.size), "one that can be addressed")),
        Some(dimension::Kind::Unknown(_)) => Ok(None),
        None => Err(Fault::new(at, "an empty dimension", "a constant or an unknown one")),
    }
}

/// A value of a type. Only tensors, strings and places in weight files mean something here.
fn value(v: &proto::Value, at: usize) -> Result<Value, Fault> {
    let fault = |what: &str| Fault::new(at, what, "a typed value");
    let ty = ty(v.r#type.as_ref().ok_or_else(|| fault("a value without a type"))?, at)?;
    let content = match &v.kind {
        Some(value::Kind::BlobFile(file)) => match &ty {
            Type::Tensor(..) => {
                ty.literal(at)?;
                Content::Blob(Blob { path: file.file_name.clone(), offset: file.offset })
            }
            Type::Text => return Err(Fault::new(at, "a weight file holds no strings", "a string")),
            Type::State(_) | Type::Other(_) => Content::Other,
        },
        Some(value::Kind::Immediate(immediate)) => match (&ty, &immediate.kind) {
            (Type::Tensor(_, dims), Some(immediate::Kind::Tensor(elements))) if !dims.contains(&None) => {
                Content::Tensor(Arc::new(tensor(&ty, elements, at)?))
            }
            (Type::Text, Some(immediate::Kind::Tensor(elements))) => match &elements.kind {
                Some(elements::Kind::Strings(s)) if s.values.len() == 1 => Content::Text(s.values[0].clone()),
                _ => return Err(Fault::new(at, "a string without its text", "one string")),
            },
            (_, Some(_)) => Content::Other,
            (_, None) => return Err(fault("an empty immediate value")),
        },
        None => return Err(fault("a value that is neither immediate nor in a weight file")),
    };
    Ok(Value { at, ty, content })
}

/// The elements of an immediate tensor, which have to be as many as its type says.
fn tensor(ty: &Type, found: &proto::Elements, at: usize) -> Result<Tensor, Fault> {
    let ty = ty.literal(at)?;
    let count = element_count(&ty.shape).unwrap_or(usize::MAX);
    let held = |kind: &str| {
        Fault::new(at, format!("the elements of {ty} are stored as {kind}"), "the field for their type")
    };
    let counted = |n: usize| {
        if n == count {
            return Ok(());
        }
        Err(Fault::new(at, format!("{ty} has {n} elements"), count.to_string()))
    };
    let from_ints = |values: &[i32]| {
        counted(values.len())?;
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let tensor = Tensor::from_f64s(ty.dtype, &ty.shape, &wide).map_err(|e| wrong(&e, at))?;
        match (0..count).find(|&i| tensor.get(i) != wide[i]) {
            None => Ok(tensor),
            Some(i) => Err(Fault::new(at, format!("an element of {ty} is {}", wide[i]), "one that fits")),
        }
    };
    match (&found.kind, ty.dtype) {
        (Some(elements::Kind::Bytes(b)), dtype)
            if dtype.is_sub_byte() || matches!(dtype, F16 | Bf16 | I8 | U8 | U32) =>
        {
            Tensor::from_packed(dtype, &ty.shape, &b.values).map_err(|e| wrong(&e, at))
        }
        (Some(elements::Kind::Floats(f)), DType::F32) => {
            counted(f.values.len())?;
            Tensor::new(&ty.shape, f.values.clone()).map_err(|e| wrong(&e, at))
        }
        (Some(elements::Kind::Bools(b)), DType::Bool) => {
            counted(b.values.len())?;
            Tensor::new(&ty.shape, b.values.clone()).map_err(|e| wrong(&e, at))
        }
        (Some(elements::Kind::Ints(i)), DType::I16 | DType::U16 | DType::I32) => from_ints(&i.values),
        (Some(elements::Kind::LongInts(i)), DType::I64) => {
            counted(i.values.len())?;
            Tensor::new(&ty.shape, i.values.clone()).map_err(|e| wrong(&e, at))
        }
        (Some(elements::Kind::LongInts(i)), DType::U64) => {
            counted(i.values.len())?;
            let values: Vec<u64> = i.values.iter().map(|&v| v as u64).collect();
            Tensor::new(&ty.shape, values).map_err(|e| wrong(&e, at))
        }
        (Some(elements::Kind::Floats(_)), _) => Err(held("floats")),
        (Some(elements::Kind::Ints(_)), _) => Err(held("ints")),
        (Some(elements::Kind::Bools(_)), _) => Err(held("bools")),
        (Some(elements::Kind::Strings(_)), _) => Err(held("strings")),
        (Some(elements::Kind::LongInts(_)), _) => Err(held("long ints")),
        (Some(elements::Kind::Doubles(_)), _) => Err(held("doubles")),
        (Some(elements::Kind::Bytes(_)), _) => Err(held("bytes")),
        // A tensor without elements has no field set by some writers.
        (None, dtype) if count == 0 => Ok(Tensor::zeros(dtype, &ty.shape)),
        (None, _) => Err(Fault::new(at, format!("{ty} has no elements"), count.to_string())),
    }
}

fn wrong(error: &arcane_tensor::TensorError, at: usize) -> Fault {
    Fault::new(at, error.to_string(), "")
}
