//! From statements to a function: names, constants, results.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arcane_tensor::{DType, Tensor};

use super::arguments::Arguments;
use super::lexer::shown;
use super::parser::unique;
use super::syntax::{Blob, Content, Header, Name, Statement, Type, Value};
use super::weights::Arrays;
use super::{Blobs, Fault, ops};
use crate::{Builder, Function, Op, Operation, Opset, Output, Role, Strictness, TensorType, ValueId, verify};

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Value(ValueId),
    /// An index into the constants.
    Constant(usize),
}

/// A named constant.
struct Constant {
    ty: Type,
    content: Content,
    /// Its value; strings have none.
    value: Option<ValueId>,
    /// Whether it gives a parameter of some op.
    folded: bool,
    /// Whether it is an operand or an output.
    used: bool,
}

/// Builds one function.
pub(super) struct Lowering<'a> {
    builder: Builder,
    function: Name<'a>,
    names: HashMap<&'a str, Bound>,
    constants: Vec<Constant>,
    /// How many values are parameters in the text: the first ones.
    n_parameters: usize,
    /// The constants among the values.
    tensors: HashMap<ValueId, Arc<Tensor>>,
    /// Arrays of weight files that are parameters here.
    promoted: HashSet<ValueId>,
    arrays: &'a Arrays<'a>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(header: &Header<'a>, arrays: &'a Arrays<'a>) -> Result<Self, Fault> {
        let mut lowering = Self {
            builder: Builder::new(header.name.text, header.opset),
            function: header.name,
            names: HashMap::new(),
            constants: Vec::new(),
            n_parameters: header.parameters.len(),
            tensors: HashMap::new(),
            promoted: HashSet::new(),
            arrays,
        };
        for p in &header.parameters {
            let ty = p.ty.concrete(p.at)?;
            let value = lowering.builder.parameter(p.name.text, ty, Role::Batch);
            lowering.define(p.name, Bound::Value(value))?;
        }
        Ok(lowering)
    }

    pub(super) fn opset(&self) -> Opset {
        self.builder.function().opset()
    }

    pub(super) fn ty(&self, v: ValueId) -> &TensorType {
        self.builder.ty(v)
    }

    fn define(&mut self, name: Name<'a>, bound: Bound) -> Result<(), Fault> {
        if self.names.insert(name.text, bound).is_some() {
            let what = format!("{} is defined twice", shown(name.text));
            return Err(Fault::new(name.at, what, "another name"));
        }
        Ok(())
    }

    pub(super) fn lookup(&self, name: Name<'_>) -> Result<Bound, Fault> {
        self.names.get(name.text).copied().ok_or_else(|| {
            let what = format!("{} is not defined", shown(name.text));
            Fault::new(name.at, what, "a parameter, or the result of an op before this one")
        })
    }

    /// The value of a name that is used as an operand or output.
    pub(super) fn operand(&mut self, name: Name<'_>) -> Result<ValueId, Fault> {
        let value = match self.lookup(name)? {
            Bound::Value(v) => Some(v),
            Bound::Constant(i) => {
                self.constants[i].used = true;
                self.constants[i].value
            }
        };
        value.ok_or_else(|| {
            Fault::new(name.at, format!("{} is a string", shown(name.text)), "a tensor or a number")
        })
    }

    /// A named constant that gives a parameter of an op.
    pub(super) fn fold(&mut self, constant: usize) -> (Type, Content) {
        let constant = &mut self.constants[constant];
        constant.folded = true;
        (constant.ty.clone(), constant.content.clone())
    }

    pub(super) fn array(&self, blob: &Blob, ty: &TensorType, at: usize) -> Result<Arc<Tensor>, Fault> {
        self.arrays.get(blob, ty, at)
    }

    /// A typed literal as a value with this path. `identifier` is the name that it has in the text, or a name of its own.
    pub(super) fn constant(&mut self, identifier: &str, path: &str, value: &Value) -> Result<ValueId, Fault> {
        let ty = value.ty.concrete(value.at)?;
        let tensor = match &value.content {
            Content::Tensor(tensor) => tensor.clone(),
            Content::Blob(_) if self.arrays.blobs == Blobs::Promote => {
                let v = self.builder.parameter(&format!("{identifier}.blob"), ty, Role::Constant);
                self.builder.set_path(v, path.into());
                self.promoted.insert(v);
                return Ok(v);
            }
            Content::Blob(blob) => self.arrays.get(blob, &ty, value.at)?,
            Content::Text(_) | Content::Other => {
                return Err(Fault::new(value.at, format!("found {}", value.ty), "a tensor or a number"));
            }
        };
        let built = self.builder.push_at(path, Op::Const(tensor.clone()));
        let v = built.map_err(|e| Fault::new(value.at, e.source.to_string(), ""))?[0];
        self.tensors.insert(v, tensor);
        Ok(v)
    }

    /// Whether a value is a constant of the text.
    pub(super) fn is_constant(&self, v: ValueId) -> bool {
        self.tensors.contains_key(&v) || self.promoted.contains(&v)
    }

    /// The value in another type: a constant rounded to it, of another value a cast.
    pub(super) fn converted(&mut self, v: ValueId, dtype: DType) -> ValueId {
        match self.tensors.get(&v) {
            Some(tensor) if tensor.dtype() != dtype => {
                let tensor = tensor.cast(dtype);
                let path = self.builder.function().value(v).path.clone();
                self.builder.constant(&path, tensor)
            }
            Some(_) => v,
            None => self.builder.cast(v, dtype),
        }
    }

    pub(super) fn statement(&mut self, statement: &Statement<'a>) -> Result<(), Fault> {
        unique(statement.arguments.iter().map(|a| a.name), "parameter")?;
        let path = path(statement)?;
        if statement.op.text == "const" { self.named(statement, path) } else { self.op(statement, path) }
    }

    /// `T name = const()[name = ..., val = T(...)];`
    fn named(&mut self, statement: &Statement<'a>, path: &str) -> Result<(), Fault> {
        let at = statement.op.at;
        if let Some(argument) = statement.arguments.first() {
            let what = format!("const has no parameter {}", shown(argument.name.text));
            return Err(Fault::new(argument.name.at, what, "the value as the attribute `val`"));
        }
        let [declared] = statement.results.as_slice() else {
            return Err(Fault::new(at, format!("const has {} results", statement.results.len()), "one"));
        };
        let Some(value) = statement.attribute("val") else {
            return Err(Fault::new(at, "const has no attribute `val`", "`val` with the value"));
        };
        if value.ty != declared.ty {
            let what = format!("{} is declared as {}", shown(declared.name.text), declared.ty);
            return Err(Fault::new(declared.at, what, format!("{}, the type of its value", value.ty)));
        }
        // A string has no value of its own: only a parameter can take it.
        let v = match value.content {
            Content::Text(_) => None,
            _ => Some(self.constant(declared.name.text, path, value)?),
        };
        self.constants.push(Constant {
            ty: value.ty.clone(),
            content: value.content.clone(),
            value: v,
            folded: false,
            used: false,
        });
        self.define(declared.name, Bound::Constant(self.constants.len() - 1))
    }

    fn op(&mut self, statement: &Statement<'a>, path: &str) -> Result<(), Fault> {
        let at = statement.op.at;
        let name = statement.op.text;
        let mut arguments = Arguments::new(self, statement);
        let op = ops::op(&mut arguments)?;
        arguments.finish()?;
        let results = self.push(path, op, statement.op)?;
        if results.len() != statement.results.len() {
            let what = format!("{name} is given {} results", statement.results.len());
            return Err(Fault::new(at, what, results.len().to_string()));
        }
        for (i, (declared, &v)) in statement.results.iter().zip(&results).enumerate() {
            let ty = declared.ty.concrete(declared.at)?;
            if ty != *self.ty(v) {
                let what = format!("{} is declared as {ty}", shown(declared.name.text));
                let expected = format!("{}, which {name} gives", self.ty(v));
                return Err(Fault::new(declared.at, what, expected));
            }
            if i > 0 {
                self.builder.set_path(v, declared.name.text.into());
            }
            self.define(declared.name, Bound::Value(v))?;
        }
        Ok(())
    }

    /// Appends an op that stands for `op` in the text.
    pub(super) fn push(&mut self, path: &str, op: Op, spelled: Name<'_>) -> Result<Vec<ValueId>, Fault> {
        let built = self.builder.push_at(path, op);
        built.map_err(|e| Fault::new(spelled.at, format!("{}: {}", spelled.text, e.source), ""))
    }

    /// Declares the outputs and ends the function.
    pub(super) fn finish(mut self, outputs: &[Name<'a>]) -> Result<Function, Fault> {
        unique(outputs.iter().copied(), "output")?;
        let mut returned = Vec::new();
        for output in outputs {
            let mut value = self.operand(*output)?;
            if value.index() < self.n_parameters {
                let what = format!("the output {} is a parameter", shown(output.text));
                return Err(Fault::new(output.at, what, "the result of an op (insert an identity)"));
            }
            if self.promoted.contains(&value) {
                value = self.builder.identity(value);
            }
            returned.push(Output { name: output.text.into(), value });
        }
        let mut function = self.builder.into_function();
        function.outputs = returned;
        let folded = self.constants.iter().filter(|c| c.folded && !c.used);
        let folded: HashSet<ValueId> = folded.filter_map(|c| c.value).collect();
        let function = without(function, &folded);
        let strictness = match self.arrays.blobs {
            Blobs::Read => Strictness::Strict,
            Blobs::Promote => Strictness::Open,
        };
        verify(&function, strictness).map_err(|e| Fault::new(self.function.at, e.to_string(), ""))?;
        Ok(function)
    }
}

/// The path of a statement's first result: its `name` attribute, or else its identifier.
fn path<'s>(statement: &'s Statement<'_>) -> Result<&'s str, Fault> {
    match statement.attribute("name") {
        Some(Value { content: Content::Text(text), .. }) => Ok(text),
        Some(Value { at, ty, .. }) => Err(Fault::new(*at, format!("the name is {ty}"), "a string")),
        None => Ok(statement.results.first().map_or("", |r| r.name.text)),
    }
}

/// The function without constants that have become parameters of ops.
fn without(mut function: Function, folded: &HashSet<ValueId>) -> Function {
    let constant = |o: &Operation| matches!(o.op, Op::Const(_)) && folded.contains(&o.results[0]);
    let mut kept = vec![true; function.values.len()];
    for operation in function.operations.iter().filter(|o| constant(o)) {
        kept[operation.results[0].index()] = false;
    }
    // The new index of each value, given that it is kept.
    let moved: Vec<u32> =
        kept.iter().scan(0, |next, &k| Some(std::mem::replace(next, *next + u32::from(k)))).collect();
    let moved = |v: ValueId| ValueId(moved[v.index()]);
    function.operations.retain(|o| !constant(o));
    for operation in &mut function.operations {
        operation.op = operation.op.map_operands(moved);
        operation.results.iter_mut().for_each(|r| *r = moved(*r));
    }
    function.parameters.iter_mut().for_each(|p| p.value = moved(p.value));
    function.outputs.iter_mut().for_each(|o| o.value = moved(o.value));
    let mut kept = kept.into_iter();
    function.values.retain(|_| kept.next().unwrap_or(true));
    function
}
