//! From statements to a function: names, constants, results.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arcane_tensor::{DType, Tensor};

use super::arguments::Arguments;
use super::known::KnownValues;
use super::lexer::shown;
use super::parser::unique;
use super::syntax::{Argument, Blob, Content, Header, Item, Name, Statement, Type, Value};
use super::weights::Arrays;
use super::{Blobs, Fault, ops};
use crate::{
    Alias, Attribute, Builder, Function, Op, Operation, Opset, Output, Role, StateOp, Strictness, TensorType,
    ValueId, verify,
};

/// What a name stands for.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Value(ValueId),
    /// An index into the constants.
    Constant(usize),
    /// An index into the states.
    State(usize),
    /// A result whose shape depends on run-time values, in a text that is checked only.
    Open,
}

/// A state of the function.
struct State {
    /// Its number among the parameters.
    parameter: usize,
    name: String,
    /// Its newest value: the parameter's, or what was written last.
    newest: ValueId,
    written: bool,
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
    states: Vec<State>,
    /// How many values are parameters in the text: the first ones.
    n_parameters: usize,
    /// The constants among the values.
    tensors: HashMap<ValueId, Arc<Tensor>>,
    /// Values that follow from constants, shapes and given inputs.
    known: KnownValues,
    /// Arrays of weight files that are parameters here.
    promoted: HashSet<ValueId>,
    /// Attributes without a meaning here, of the function and of operations by their index.
    attributes: Vec<Attribute>,
    attributes_of: BTreeMap<usize, Vec<Attribute>>,
    /// Results of ops on compressed weights, which are constants, too.
    computed: HashSet<ValueId>,
    arrays: &'a Arrays<'a>,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(
        header: &Header<'a>,
        arrays: &'a Arrays<'a>,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<Self, Fault> {
        let mut lowering = Self {
            builder: Builder::new(header.name.text, header.opset),
            function: header.name,
            names: HashMap::new(),
            constants: Vec::new(),
            states: Vec::new(),
            n_parameters: header.parameters.len(),
            tensors: HashMap::new(),
            known: KnownValues::default(),
            promoted: HashSet::new(),
            attributes: Vec::new(),
            attributes_of: BTreeMap::new(),
            computed: HashSet::new(),
            arrays,
        };
        lowering.attributes = header.attributes.iter().filter_map(super::syntax::Attribute::kept).collect();
        for (i, p) in header.parameters.iter().enumerate() {
            let (inner, role) = match &p.ty {
                Type::State(inner) if header.opset < Opset::Ios18 => {
                    let what =
                        format!("the parameter {} is {}", shown(p.name.text), Type::State(inner.clone()));
                    return Err(Fault::new(p.at, what, "a tensor: states exist from ios18"));
                }
                Type::State(inner) => (&**inner, Role::State),
                other => (other, Role::Batch),
            };
            let input = inputs.get(p.name.text);
            let ty = match input.map(|t| TensorType::new(t.dtype(), t.shape())) {
                Some(given) if inner.is_open() && inner.admits(&given) => given,
                _ => inner.concrete(p.at)?,
            };
            if ty.dtype.is_sub_byte() {
                let what = format!("the parameter {} is {ty}", shown(p.name.text));
                return Err(Fault::new(p.at, what, "a type of a byte or more"));
            }
            let value = lowering.builder.parameter(p.name.text, ty, role);
            if let Some(input) = input.filter(|t| inner.admits(&TensorType::new(t.dtype(), t.shape())))
                && role != Role::State
            {
                lowering.known.give(value, input);
            }
            let bound = match role {
                Role::State => {
                    let name = p.name.text.into();
                    lowering.states.push(State { parameter: i, name, newest: value, written: false });
                    Bound::State(lowering.states.len() - 1)
                }
                _ => Bound::Value(value),
            };
            lowering.define(p.name, bound)?;
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
            Bound::State(_) => {
                let what = format!("{} is a state", shown(name.text));
                return Err(Fault::new(name.at, what, "its value, which read_state gives"));
            }
            Bound::Open => return Err(open(name)),
        };
        value.ok_or_else(|| {
            Fault::new(name.at, format!("{} is a string", shown(name.text)), "a tensor or a number")
        })
    }

    /// The newest value of a state.
    pub(super) fn state(&self, name: Name<'_>) -> Result<ValueId, Fault> {
        match self.lookup(name)? {
            Bound::State(i) => Ok(self.states[i].newest),
            Bound::Value(_) | Bound::Constant(_) | Bound::Open => Err(Fault::new(
                name.at,
                format!("{} is no state", shown(name.text)),
                "a state of the function",
            )),
        }
    }

    /// The elements of a constant, where they are known.
    pub(super) fn tensor(&self, v: ValueId) -> Option<Arc<Tensor>> {
        self.tensors.get(&v).cloned()
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
        self.constant_of(ty, identifier, path, value)
    }

    /// As `constant`, of a type that the value has.
    pub(super) fn constant_of(
        &mut self,
        ty: TensorType,
        identifier: &str,
        path: &str,
        value: &Value,
    ) -> Result<ValueId, Fault> {
        let tensor = match &value.content {
            Content::Tensor(tensor) => tensor.clone(),
            Content::Blob(blob) if self.arrays.blobs == Blobs::Promote => {
                self.arrays.verify(blob, &ty, value.at)?;
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

    /// A constant that the text does not have.
    pub(super) fn made(&mut self, path: &str, tensor: Tensor) -> ValueId {
        let v = self.builder.constant(path, tensor.clone());
        self.tensors.insert(v, Arc::new(tensor));
        v
    }

    /// Whether a value is a constant of the text.
    pub(super) fn is_constant(&self, v: ValueId) -> bool {
        self.tensors.contains_key(&v) || self.promoted.contains(&v) || self.computed.contains(&v)
    }

    /// The value, where it follows from constants and shapes; from given inputs, too, where `inputs` says so.
    pub(super) fn known(&self, v: ValueId, inputs: bool) -> Option<Arc<Tensor>> {
        self.tensors.get(&v).cloned().or_else(|| self.known.get(v, inputs))
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
            None => {
                let converted = self.builder.cast(v, dtype);
                if self.computed.contains(&v) {
                    self.computed.insert(converted);
                }
                converted
            }
        }
    }

    /// Lets `true` and `false` as arguments be the typed values that other writers mean by them, unless a value is called so.
    fn with_flags<'s>(&self, statement: &'s Statement<'a>) -> Cow<'s, Statement<'a>> {
        let is_flag = |item: &Item<'_>| matches!(item, Item::Reference(n) if matches!(n.text, "true" | "false") && !self.names.contains_key(n.text));
        if !statement.arguments.iter().flat_map(|a| &a.items).any(is_flag) {
            return Cow::Borrowed(statement);
        }
        let mut statement = statement.clone();
        for item in statement.arguments.iter_mut().flat_map(|a| &mut a.items).filter(|item| is_flag(item)) {
            if let Item::Reference(Name { text, at }) = *item {
                let content = Content::Tensor(Arc::new(Tensor::scalar(text == "true")));
                *item = Item::Value(Value { at, ty: Type::Tensor(DType::Bool, Vec::new()), content });
            }
        }
        Cow::Owned(statement)
    }

    pub(super) fn statement(&mut self, statement: &Statement<'a>) -> Result<(), Fault> {
        let statement = &*self.with_flags(statement);
        unique(statement.arguments.iter().map(|a| a.name), "parameter")?;
        let path = path(statement)?;
        let is_const = statement.op.text == "const";
        let before = self.builder.function().operations().len();
        if is_const {
            self.named(statement, path)?;
        } else {
            self.op(statement, path)?;
        }
        // The attributes of ops on compressed weights are parameters.
        let parameters = statement.op.text.starts_with("constexpr_");
        let known = |name: &str| name == "name" || parameters || (is_const && name == "val");
        let unknown = statement.attributes.iter().filter(|a| !known(a.name.text));
        let kept: Vec<Attribute> = unknown.filter_map(super::syntax::Attribute::kept).collect();
        let after = self.builder.function().operations().len();
        if after > before && !kept.is_empty() {
            self.attributes_of.insert(after - 1, kept);
        }
        Ok(())
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
        match self.known_op(statement, path) {
            Err(fault) if fault.open && self.arrays.blobs == Blobs::Promote => {
                for item in statement.arguments.iter().flat_map(|a| &a.items) {
                    if let Item::Reference(reference) = item {
                        self.lookup(*reference)?;
                    }
                }
                statement.results.iter().try_for_each(|r| self.define(r.name, Bound::Open))
            }
            result => result,
        }
    }

    /// An op whose results have known shapes.
    fn known_op(&mut self, statement: &Statement<'a>, path: &str) -> Result<(), Fault> {
        let at = statement.op.at;
        let name = statement.op.text;
        let is_compressed = name.starts_with("constexpr_");
        let statement = &*if is_compressed { with_attributes(statement)? } else { Cow::Borrowed(statement) };
        let mut arguments = Arguments::new(self, statement);
        let op = ops::op(&mut arguments)?;
        arguments.finish()?;
        let write = match op {
            Op::State(StateOp::Write { state, .. }) => Some(state),
            _ => None,
        };
        let results = self.push(path, op, statement.op)?;
        if let Some(before) = write {
            return self.written(before, results[0], statement);
        }
        if is_compressed {
            self.computed.extend(&results);
        }
        if results.len() != statement.results.len() {
            let what = format!("{name} is given {} results", statement.results.len());
            return Err(Fault::new(at, what, results.len().to_string()));
        }
        for (i, (declared, &v)) in statement.results.iter().zip(&results).enumerate() {
            let admitted = if is_compressed {
                declared.ty.compressed(declared.at)? == *self.ty(v)
            } else {
                if !declared.ty.is_open() {
                    declared.ty.concrete(declared.at)?;
                }
                declared.ty.admits(self.ty(v))
            };
            if !admitted {
                let what = format!("{} is declared as {}", shown(declared.name.text), declared.ty);
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

    /// Notes that a state has a new value. The statement has no result.
    fn written(&mut self, before: ValueId, after: ValueId, statement: &Statement<'a>) -> Result<(), Fault> {
        if let Some(result) = statement.results.first() {
            return Err(Fault::new(result.at, "write_state is given a result", "none"));
        }
        for state in self.states.iter_mut().filter(|s| s.newest == before) {
            (state.newest, state.written) = (after, true);
        }
        Ok(())
    }

    /// Appends an op that stands for `op` in the text.
    pub(super) fn push(&mut self, path: &str, op: Op, spelled: Name<'_>) -> Result<Vec<ValueId>, Fault> {
        let built = self.builder.push_at(path, op);
        let results =
            built.map_err(|e| Fault::new(spelled.at, format!("{}: {}", spelled.text, e.source), ""))?;
        self.known.follow(self.builder.function(), &self.tensors);
        Ok(results)
    }

    /// Declares the outputs and ends the function.
    pub(super) fn finish(mut self, outputs: &[Name<'a>]) -> Result<Function, Fault> {
        unique(outputs.iter().copied(), "output")?;
        let mut returned = Vec::new();
        for output in outputs {
            let mut value = match self.operand(*output) {
                Err(fault) if fault.open && self.arrays.blobs == Blobs::Promote => continue,
                value => value?,
            };
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
        for state in self.states.iter().filter(|s| s.written) {
            function.aliases.push(Alias { output: returned.len(), parameter: state.parameter });
            returned.push(Output { name: format!("{}.after", state.name), value: state.newest });
        }
        function.outputs = returned;
        function.attributes = self.attributes;
        function.attributes_of = self.attributes_of;
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

/// A statement whose attributes, but for its name, are arguments.
fn with_attributes<'s, 'a>(statement: &'s Statement<'a>) -> Result<Cow<'s, Statement<'a>>, Fault> {
    if statement.attributes.iter().all(|a| a.name.text == "name") {
        return Ok(Cow::Borrowed(statement));
    }
    let mut whole = statement.clone();
    let (name, parameters) = whole.attributes.into_iter().partition(|a| a.name.text == "name");
    whole.attributes = name;
    let parameters: Vec<_> = parameters;
    for a in parameters {
        whole.arguments.push(Argument { name: a.name, items: vec![Item::Value(a.value)] });
    }
    unique(whole.arguments.iter().map(|a| a.name), "parameter")?;
    Ok(Cow::Owned(whole))
}

fn open(name: Name<'_>) -> Fault {
    Fault::open(name.at, format!("the shape of {} depends on run-time values", shown(name.text)))
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
    let stays: Vec<bool> = function.operations.iter().map(|o| !constant(o)).collect();
    let index = |i: usize| stays[..i].iter().filter(|&&s| s).count();
    let attributes = std::mem::take(&mut function.attributes_of).into_iter();
    function.attributes_of = attributes.filter(|(i, _)| stays[*i]).map(|(i, a)| (index(i), a)).collect();
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
