//! The arguments of one op, asked for by the names and kinds that the op wants.

mod known;

use std::sync::Arc;

use arcane_tensor::{DType, Tensor};

use super::Fault;
use super::lexer::shown;
use super::literal::integer;
use super::lower::{Bound, Lowering};
use super::syntax::{Argument, Content, Item, Statement, Type, Value};
use crate::{Op, Opset, TensorType, ValueId};

/// The element types that an operand may have. Letters are those of coremltools' definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Any type.
    Any,
    /// `bool`.
    Bool,
    /// Floats.
    Float,
    /// Floats and `int32`.
    Numeric,
    /// Floats, `int32` and `bool`.
    Plain,
    /// As `Plain`, from ios17 small integers too.
    Wide,
    /// As `Wide`, without `bool`.
    WideNumeric,
    /// Integers that index, by opset.
    Index,
    /// `int32`.
    Int,
    /// Integers that are lengths of a resized image.
    Lengths,
    /// What boxes are made of.
    Box,
    /// Which image a box is of.
    BoxIndex,
    /// What points in an image are made of, by opset.
    Coordinates,
    /// Integers that say where a slice begins, by opset; they may be negative.
    Position,
    /// What masks of attention are.
    Mask,
    /// Integers of eight bits.
    Byte,
    /// Floats, before ios17 of 32 bits.
    Recurrent,
}

impl Class {
    fn dtypes(self, opset: Opset) -> &'static [DType] {
        use DType::{Bool, F16, F32, I8, I16, I32, U8, U16, U32};
        match self {
            Self::Any => &[],
            Self::Bool => &[Bool],
            Self::Wide if opset >= Opset::Ios17 => &[F16, F32, I32, Bool, I8, U8, I16, U16],
            Self::WideNumeric | Self::Coordinates if opset >= Opset::Ios17 => {
                &[F16, F32, I32, I8, U8, I16, U16]
            }
            Self::Coordinates if opset < Opset::Ios16 => &[F32, I32],
            Self::Numeric | Self::WideNumeric | Self::Coordinates => &[F16, F32, I32],
            Self::Plain | Self::Wide => &[F16, F32, I32, Bool],
            Self::Index if opset >= Opset::Ios17 => &[I32, U16, I16, I8, U8],
            Self::Index if opset >= Opset::Ios16 => &[I32, U16, I16],
            Self::Position if opset >= Opset::Ios17 => &[I32, I16, I8],
            Self::Int | Self::Index | Self::Position => &[I32],
            Self::Lengths => &[I32, I16, U16, U32],
            Self::Box => &[F16, F32, U16],
            Self::BoxIndex => &[I32, U16],
            Self::Mask => &[Bool, F16, F32],
            Self::Byte => &[I8, U8],
            Self::Recurrent if opset < Opset::Ios17 => &[F32],
            Self::Float | Self::Recurrent => &[F16, F32],
        }
    }

    /// Refuses a type of an element that is not of the class.
    pub(super) fn admit(self, dtype: DType, opset: Opset, what: &str, at: usize) -> Result<(), Fault> {
        let dtypes = self.dtypes(opset);
        if dtypes.is_empty() || dtypes.contains(&dtype) {
            return Ok(());
        }
        let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
        let expected = match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        };
        Err(Fault::new(at, format!("{what} is {dtype}"), expected))
    }
}

/// A constant parameter and where it stands.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A parameter's value as it is written.
enum Parameter {
    Tensor(Arc<Tensor>),
    Text(String),
}

/// The arguments of a statement. What has not been asked for when the op is complete is a parameter that it lacks.
pub(super) struct Arguments<'s, 'a> {
    lowering: &'s mut Lowering<'a>,
    statement: &'s Statement<'a>,
    asked: Vec<&'static str>,
}

impl<'s, 'a> Arguments<'s, 'a> {
    pub(super) fn new(lowering: &'s mut Lowering<'a>, statement: &'s Statement<'a>) -> Self {
        Self { lowering, statement, asked: Vec::new() }
    }

    /// The name of the op.
    pub(super) fn op(&self) -> &'a str {
        self.statement.op.text
    }

    /// Where the op stands.
    pub(super) fn at(&self) -> usize {
        self.statement.op.at
    }

    pub(super) fn opset(&self) -> Opset {
        self.lowering.opset()
    }

    /// How many results the statement declares.
    pub(super) fn n_results(&self) -> usize {
        self.statement.results.len()
    }

    pub(super) fn ty(&self, v: ValueId) -> &TensorType {
        self.lowering.ty(v)
    }

    /// Whether a value is a constant.
    pub(super) fn is_constant(&self, v: ValueId) -> bool {
        self.lowering.is_constant(v)
    }

    /// An operand in the type that the op computes with, where MIL allows it another.
    pub(super) fn converted(&mut self, v: ValueId, dtype: DType) -> ValueId {
        self.lowering.converted(v, dtype)
    }

    /// The result of an op that stands before the one that the text has.
    pub(super) fn intermediate(&mut self, op: Op) -> Result<ValueId, Fault> {
        let owner = self.statement.results.first().map_or("", |r| r.name.text);
        let path = format!("{owner}.{}", op.name());
        self.lowering.push(&path, op, self.statement.op).map(|results| results[0])
    }

    /// A fault of the op as a whole.
    pub(super) fn fault(&self, what: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault::new(self.statement.op.at, format!("{}: {}", self.op(), what.into()), expected)
    }

    /// Refuses arguments that nothing has asked for.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        let unknown = self.statement.arguments.iter().find(|a| !self.asked.contains(&a.name.text));
        let Some(unknown) = unknown else { return Ok(()) };
        self.asked.sort_unstable();
        let what = format!("{} has no parameter {}", self.op(), shown(unknown.name.text));
        Err(Fault::new(unknown.name.at, what, format!("one of {}", self.asked.join(", "))))
    }

    fn find(&mut self, name: &'static str) -> Option<&'s Argument<'a>> {
        self.asked.push(name);
        self.statement.arguments.iter().find(|a| a.name.text == name)
    }

    fn single(&mut self, name: &'static str) -> Result<Option<&'s Item<'a>>, Fault> {
        match self.find(name) {
            None => Ok(None),
            Some(Argument { items, .. }) if items.len() == 1 => Ok(items.first()),
            Some(argument) => {
                let what = format!("{name} has {} values", argument.items.len());
                Err(Fault::new(argument.name.at, what, "one"))
            }
        }
    }

    fn missing(&self, name: &str) -> Fault {
        self.fault(format!("the parameter `{name}` is missing"), "a value for it")
    }

    /// A run-time operand.
    pub(super) fn operand(&mut self, name: &'static str, class: Class) -> Result<ValueId, Fault> {
        self.maybe_operand(name, class)?.ok_or_else(|| self.missing(name))
    }

    /// A run-time operand that may be left out.
    pub(super) fn maybe_operand(
        &mut self,
        name: &'static str,
        class: Class,
    ) -> Result<Option<ValueId>, Fault> {
        let Some(item) = self.single(name)? else { return Ok(None) };
        self.item(item, name, name, class).map(Some)
    }

    /// An operand that has to be constant and may be left out.
    pub(super) fn maybe_constant_operand(
        &mut self,
        name: &'static str,
        class: Class,
    ) -> Result<Option<ValueId>, Fault> {
        let Some(item) = self.single(name)? else { return Ok(None) };
        if let Item::Reference(reference) = item
            && let Bound::Value(v) = self.lowering.lookup(*reference)?
            && !self.is_constant(v)
        {
            return Err(run_time(name, reference.at));
        }
        self.item(item, name, name, class).map(Some)
    }

    /// An operand of an op on compressed weights: a constant of any type and up to seven dimensions.
    pub(super) fn compressed(&mut self, name: &'static str) -> Result<ValueId, Fault> {
        self.maybe_compressed(name)?.ok_or_else(|| self.missing(name))
    }

    /// As `compressed`, of an operand that may be left out.
    pub(super) fn maybe_compressed(&mut self, name: &'static str) -> Result<Option<ValueId>, Fault> {
        let Some(item) = self.single(name)? else { return Ok(None) };
        match item {
            Item::Reference(reference) => {
                let v = self.lowering.operand(*reference)?;
                if self.is_constant(v) { Ok(Some(v)) } else { Err(run_time(name, reference.at)) }
            }
            Item::Value(value) => {
                let owner = self.statement.results.first().map_or("", |r| r.name.text);
                let path = format!("{owner}.{name}");
                let ty = value.ty.compressed(value.at)?;
                self.lowering.constant_of(ty, &path, &path, value).map(Some)
            }
        }
    }

    /// The elements of a constant that the text or a weight file that is read has.
    pub(super) fn tensor(&self, v: ValueId) -> Option<Arc<Tensor>> {
        self.lowering.tensor(v)
    }

    /// The newest value of a state.
    pub(super) fn state(&mut self, name: &'static str) -> Result<ValueId, Fault> {
        match self.single(name)? {
            None => Err(self.missing(name)),
            Some(Item::Reference(reference)) => self.lowering.state(*reference),
            Some(Item::Value(value)) => {
                Err(Fault::new(value.at, format!("{name} is {}", value.ty), "a state of the function"))
            }
        }
    }

    /// An operand that has to be constant.
    pub(super) fn constant_operand(&mut self, name: &'static str, class: Class) -> Result<ValueId, Fault> {
        self.maybe_constant_operand(name, class)?.ok_or_else(|| self.missing(name))
    }

    /// Several operands.
    pub(super) fn operands(&mut self, name: &'static str, class: Class) -> Result<Vec<ValueId>, Fault> {
        let Some(argument) = self.find(name) else { return Err(self.missing(name)) };
        let items = argument.items.iter().enumerate();
        items.map(|(i, item)| self.item(item, &format!("{name}.{i}"), name, class)).collect()
    }

    fn item(&mut self, item: &'s Item<'a>, label: &str, name: &str, class: Class) -> Result<ValueId, Fault> {
        let v = match item {
            Item::Reference(reference) => self.lowering.operand(*reference)?,
            Item::Value(value) => {
                let owner = self.statement.results.first().map_or("", |r| r.name.text);
                let path = format!("{owner}.{label}");
                self.lowering.constant(&path, &path, value)?
            }
        };
        class.admit(self.ty(v).dtype, self.opset(), name, item.at())?;
        Ok(v)
    }

    fn parameter(&mut self, name: &'static str) -> Result<Option<Found<Parameter>>, Fault> {
        let Some(item) = self.single(name)? else { return Ok(None) };
        self.item_parameter(item, name).map(Some)
    }

    fn item_parameter(&mut self, item: &Item<'a>, name: &str) -> Result<Found<Parameter>, Fault> {
        let at = item.at();
        let value = match item {
            Item::Value(Value { ty, content, .. }) => self.resolve(ty, content, name, at)?,
            Item::Reference(reference) => match self.lowering.lookup(*reference)? {
                Bound::Value(_) | Bound::State(_) | Bound::Open => return Err(run_time(name, at)),
                Bound::Constant(i) => {
                    let (ty, content) = self.lowering.fold(i);
                    self.resolve(&ty, &content, name, at)?
                }
            },
        };
        Ok(Found { value, at })
    }

    fn resolve(&self, ty: &Type, content: &Content, name: &str, at: usize) -> Result<Parameter, Fault> {
        match content {
            Content::Tensor(tensor) => Ok(Parameter::Tensor(tensor.clone())),
            Content::Text(text) => Ok(Parameter::Text(text.clone())),
            Content::Blob(blob) => {
                let ty = ty.concrete(at)?;
                self.lowering.array(blob, &ty, at).map(Parameter::Tensor)
            }
            Content::Other => {
                Err(Fault::new(at, format!("{name} is {ty}"), "a tensor, a number or a string"))
            }
        }
    }

    /// A parameter that `read` understands.
    fn scalar<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl Fn(&Tensor) -> Option<T>,
    ) -> Result<Option<Found<T>>, Fault> {
        let Some(Found { value, at }) = self.parameter(name)? else { return Ok(None) };
        let (found, ty) = match &value {
            Parameter::Tensor(t) if t.shape().is_empty() => (read(t), type_of(t)),
            Parameter::Tensor(t) => (None, type_of(t)),
            Parameter::Text(_) => (None, "string".into()),
        };
        match found {
            Some(value) => Ok(Some(Found { value, at })),
            None => Err(Fault::new(at, format!("{name} is {ty}"), expected)),
        }
    }

    /// A whole number.
    pub(super) fn int(&mut self, name: &'static str) -> Result<Option<Found<i64>>, Fault> {
        self.scalar(name, "an integer", |t| integer(t, 0))
    }

    /// A truth value.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<Found<bool>>, Fault> {
        self.scalar(name, "bool", |t| t.as_slice().map(|v: &[bool]| v[0]))
    }

    /// A number of x's type; from ios17 a float of another type will do for a float.
    pub(super) fn real(&mut self, name: &'static str, x: ValueId) -> Result<Option<Found<f64>>, Fault> {
        let own = self.ty(x).dtype;
        let other = self.opset() >= Opset::Ios17 && own.is_float();
        self.number_of(name, own, other)
    }

    /// As [`Self::real`], and it has to be there.
    pub(super) fn required_real(&mut self, name: &'static str, x: ValueId) -> Result<f64, Fault> {
        self.real(name, x)?.map(|found| found.value).ok_or_else(|| self.missing(name))
    }

    /// A number of x's type that has to be there.
    pub(super) fn required_bound(&mut self, name: &'static str, x: ValueId) -> Result<f64, Fault> {
        let bound = self.number_of(name, self.ty(x).dtype, false)?;
        bound.map(|found| found.value).ok_or_else(|| self.missing(name))
    }

    fn number_of(
        &mut self,
        name: &'static str,
        own: DType,
        other: bool,
    ) -> Result<Option<Found<f64>>, Fault> {
        let expected = if other { "fp16 or fp32".into() } else { own.to_string() };
        let fits = |t: &Tensor| t.dtype() == own || other && matches!(t.dtype(), DType::F16 | DType::F32);
        match self.scalar(name, &expected, |t| fits(t).then(|| t.get(0)))? {
            Some(Found { value, at }) if value.is_nan() => {
                Err(Fault::new(at, format!("{name} is nan"), "a number"))
            }
            number => Ok(number),
        }
    }

    /// A number of any plain type, with its type.
    pub(super) fn number(&mut self, name: &'static str) -> Result<Option<Found<(DType, f64)>>, Fault> {
        let number = self.scalar(name, "a number", |t| Some((t.dtype(), t.get(0))))?;
        if let Some(Found { value: (dtype, _), at }) = &number {
            Class::Plain.admit(*dtype, self.opset(), name, *at)?;
        }
        Ok(number)
    }

    /// A string.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<Found<String>>, Fault> {
        match self.parameter(name)? {
            None => Ok(None),
            Some(Found { value: Parameter::Text(value), at }) => Ok(Some(Found { value, at })),
            Some(Found { value: Parameter::Tensor(t), at }) => {
                Err(Fault::new(at, format!("{name} is {}", type_of(&t)), "a string"))
            }
        }
    }

    /// A string that has to be there.
    pub(super) fn required_text(&mut self, name: &'static str) -> Result<Found<String>, Fault> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// A vector of integers, at most `most` of them.
    pub(super) fn ints(&mut self, name: &'static str, most: usize) -> Result<Option<Found<Vec<i64>>>, Fault> {
        let Some(Found { value, at }) = self.parameter(name)? else { return Ok(None) };
        let ty = match &value {
            Parameter::Tensor(t) if t.dtype().is_int() && t.shape().len() == 1 => {
                if t.len() > most {
                    let what = format!("{name} has {} numbers", t.len());
                    return Err(Fault::new(at, what, format!("at most {most}")));
                }
                let values: Option<Vec<i64>> = (0..t.len()).map(|i| integer(t, i)).collect();
                if let Some(value) = values {
                    return Ok(Some(Found { value, at }));
                }
                type_of(t)
            }
            Parameter::Tensor(t) => type_of(t),
            Parameter::Text(_) => "string".into(),
        };
        Err(Fault::new(at, format!("{name} is {ty}"), "a vector of int32"))
    }

    /// A vector of integers that has to be there.
    pub(super) fn required_ints(
        &mut self,
        name: &'static str,
        most: usize,
    ) -> Result<Found<Vec<i64>>, Fault> {
        self.ints(name, most)?.ok_or_else(|| self.missing(name))
    }

    /// An axis of `x`, counted from the front.
    pub(super) fn axis(
        &mut self,
        name: &'static str,
        x: ValueId,
        default: Option<i64>,
    ) -> Result<usize, Fault> {
        let (axis, at) = match (self.int(name)?, default) {
            (Some(Found { value, at }), _) => (value, at),
            (None, Some(default)) => (default, self.statement.op.at),
            (None, None) => return Err(self.missing(name)),
        };
        from_front(axis, self.ty(x), name, at)
    }
}

/// An axis of a type counted from the front, where negative ones count from the end.
pub(super) fn from_front(axis: i64, x: &TensorType, name: &str, at: usize) -> Result<usize, Fault> {
    if x.shape.is_empty() {
        return Err(Fault::new(at, format!("{name} has {axis}"), format!("none: {x} has no dimensions")));
    }
    let rank = x.shape.len() as i64;
    let expected = || format!("an axis of {x}, {} to {}", -rank, rank - 1);
    from_front_of(axis, x.shape.len(), name, at).map_err(|fault| Fault { expected: expected(), ..fault })
}

/// An axis of `rank` dimensions counted from the front.
pub(super) fn from_front_of(axis: i64, rank: usize, name: &str, at: usize) -> Result<usize, Fault> {
    let rank = rank as i64;
    if (-rank..rank).contains(&axis) {
        return Ok(axis.rem_euclid(rank) as usize);
    }
    Err(Fault::new(at, format!("{name} has {axis}"), format!("{} to {}", -rank, rank - 1)))
}

fn type_of(tensor: &Tensor) -> String {
    TensorType::new(tensor.dtype(), tensor.shape()).to_string()
}

fn run_time(name: &str, at: usize) -> Fault {
    Fault::new(at, format!("{name} is a run-time value"), "a constant")
}
