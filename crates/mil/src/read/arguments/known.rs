//! Arguments that may be constants, follow from shapes, or be run-time values; and constants of several numbers.

use std::sync::Arc;

use arcane_tensor::{DType, Tensor, round_to};

use super::{Arguments, Class, Found, Parameter, type_of};
use crate::read::Fault;
use crate::read::literal::integer;
use crate::read::lower::Bound;
use crate::read::syntax::Item;
use crate::{Op, Position, ValueId};

impl Arguments<'_, '_> {
    /// A vector of integers that may follow from shapes, or from inputs if they are given.
    pub(in crate::read) fn maybe_known_ints(
        &mut self,
        name: &'static str,
        class: Class,
        most: usize,
    ) -> Result<Option<Found<Vec<i64>>>, Fault> {
        let Some(item) = self.single(name)? else { return Ok(None) };
        let at = item.at();
        if let Item::Reference(reference) = item
            && let Bound::Value(v) = self.lowering.lookup(*reference)?
        {
            let ty = self.ty(v);
            class.admit(ty.dtype, self.opset(), name, at)?;
            if ty.shape.len() != 1 || ty.shape[0] > most {
                let expected = format!("a vector of at most {most} integers");
                return Err(Fault::new(at, format!("{name} is {ty}"), expected));
            }
            return self.settled(v).map(|value| Some(Found { value, at }));
        }
        self.ints(name, most)
    }

    /// As [`Self::maybe_known_ints`], of a vector that has to be there.
    pub(in crate::read) fn known_ints(
        &mut self,
        name: &'static str,
        class: Class,
        most: usize,
    ) -> Result<Found<Vec<i64>>, Fault> {
        self.maybe_known_ints(name, class, most)?.ok_or_else(|| self.missing(name))
    }

    /// The integers of a value that follows from constants and shapes.
    pub(in crate::read) fn known_values(&self, v: ValueId) -> Option<Vec<i64>> {
        integers(&*self.lowering.known(v, false)?)
    }

    /// A value that follows from constants, shapes and inputs that are given.
    pub(in crate::read) fn known_tensor(&self, v: ValueId) -> Option<Arc<Tensor>> {
        self.lowering.known(v, true)
    }

    /// A number with its type, that follows from constants, shapes and inputs that are given.
    pub(in crate::read) fn known_number(&mut self, name: &'static str) -> Result<(DType, f64), Fault> {
        let item = self.single(name)?.ok_or_else(|| self.missing(name))?;
        let at = item.at();
        let run_time = match item {
            Item::Reference(reference) => !matches!(self.lowering.lookup(*reference)?, Bound::Constant(_)),
            Item::Value(_) => false,
        };
        if !run_time {
            let found = self.number(name)?.ok_or_else(|| self.missing(name))?;
            return Ok(found.value);
        }
        let v = self.item(item, name, name, Class::Numeric)?;
        if !self.ty(v).shape.is_empty() {
            return Err(Fault::new(at, format!("{name} is {}", self.ty(v)), "a number"));
        }
        let known = self.lowering.known(v, true).map(|tensor| (tensor.dtype(), tensor.get(0)));
        known.ok_or_else(|| Fault::open(at, format!("{name} is a run-time value, which decides a shape")))
    }

    /// A whole number of at least `least`.
    pub(in crate::read) fn size(
        &mut self,
        name: &'static str,
        least: i64,
        default: Option<usize>,
    ) -> Result<usize, Fault> {
        match (self.int(name)?, default) {
            (Some(Found { value, .. }), _) if value >= least => Ok(value as usize),
            (Some(Found { value, at }), _) => {
                Err(Fault::new(at, format!("{name} is {value}"), format!("{least} or more")))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name)),
        }
    }

    /// A whole number that has to be there.
    pub(in crate::read) fn required_int(&mut self, name: &'static str) -> Result<Found<i64>, Fault> {
        self.int(name)?.ok_or_else(|| self.missing(name))
    }

    /// What `read` finds for a parameter that has to be there.
    pub(in crate::read) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.find(name).is_none() {
            return Err(self.missing(name));
        }
        read(self)
    }

    /// Two sizes for each of two dimensions.
    pub(in crate::read) fn pairs(&mut self, name: &'static str) -> Result<[[usize; 2]; 2], Fault> {
        let Some(Found { value, at }) = self.parameter(name)? else { return Err(self.missing(name)) };
        let expected = "two rows of two integers, 0 or more";
        let ty = match &value {
            Parameter::Tensor(t) => type_of(t),
            Parameter::Text(_) => "string".into(),
        };
        let Parameter::Tensor(tensor) = value else {
            return Err(Fault::new(at, format!("{name} is {ty}"), expected));
        };
        let numbers = integers(&tensor).filter(|_| tensor.shape() == [2, 2]);
        let size =
            |v: i64| usize::try_from(v).map_err(|_| Fault::new(at, format!("{name} has {v}"), expected));
        match numbers.as_deref() {
            Some(&[a, b, c, d]) => Ok([[size(a)?, size(b)?], [size(c)?, size(d)?]]),
            _ => Err(Fault::new(at, format!("{name} is {ty}"), expected)),
        }
    }

    /// Several constant numbers in parentheses.
    pub(in crate::read) fn int_tuple(&mut self, name: &'static str) -> Result<Vec<i64>, Fault> {
        self.tuple(name, "integers", |t| integer(t, 0))
    }

    /// Several constant truth values in parentheses.
    pub(in crate::read) fn flag_tuple(&mut self, name: &'static str) -> Result<Vec<bool>, Fault> {
        self.tuple(name, "values of bool", |t| t.as_slice().map(|v: &[bool]| v[0]))
    }

    fn tuple<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl Fn(&Tensor) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let Some(argument) = self.find(name) else { return Err(self.missing(name)) };
        let mut found = Vec::new();
        for item in &argument.items {
            let value = match self.item_parameter(item, name)?.value {
                Parameter::Tensor(t) if t.shape().is_empty() => read(&t),
                Parameter::Tensor(_) | Parameter::Text(_) => None,
            };
            let wrong = || Fault::new(item.at(), format!("{name} has another kind of value"), expected);
            found.push(value.ok_or_else(wrong)?);
        }
        Ok(found)
    }

    /// An op that gives a constant.
    pub(in crate::read) fn constant_result(&self, shape: &[usize], data: Vec<i32>) -> Result<Op, Fault> {
        let tensor = Tensor::new(shape, data).map_err(|e| self.fault(e.to_string(), ""))?;
        Ok(Op::Const(Arc::new(tensor)))
    }

    /// `length` integers that may be known or not.
    pub(in crate::read) fn position(
        &mut self,
        name: &'static str,
        class: Class,
        length: usize,
    ) -> Result<Position, Fault> {
        let item = self.single(name)?.ok_or_else(|| self.missing(name))?;
        let wrong =
            |ty: String| Fault::new(item.at(), format!("{name} is {ty}"), format!("{length} integers"));
        let bound = match item {
            Item::Reference(reference) => self.lowering.lookup(*reference)?,
            Item::Value(_) => Bound::Constant(0),
        };
        if let Bound::Constant(_) = bound {
            let Found { value, at } = self.ints(name, usize::MAX)?.ok_or_else(|| self.missing(name))?;
            if value.len() != length {
                return Err(Fault::new(
                    at,
                    format!("{name} has {} numbers", value.len()),
                    format!("{length}"),
                ));
            }
            return Ok(Position::Known(value));
        }
        let v = self.item(item, name, name, class)?;
        if self.ty(v).shape != [length] {
            return Err(wrong(self.ty(v).to_string()));
        }
        let known = self.lowering.known(v, false).and_then(|tensor| integers(&tensor));
        Ok(known.map_or(Position::Value(v), Position::Known))
    }

    /// The integers of a value that follows from constants, shapes and inputs that are given.
    pub(in crate::read) fn settled(&self, v: ValueId) -> Result<Vec<i64>, Fault> {
        let known = self.lowering.known(v, true).and_then(|tensor| integers(&tensor));
        known.ok_or_else(|| {
            Fault::open(
                self.at(),
                format!("the shape of what {} gives depends on run-time values", self.op()),
            )
        })
    }

    /// The shape that the first result is declared with, if it is known.
    pub(in crate::read) fn declared_shape(&self) -> Option<Vec<usize>> {
        let declared = self.statement.results.first()?;
        declared.ty.concrete(declared.at).ok().map(|ty| ty.shape)
    }

    /// A constant vector that stands before the op.
    pub(in crate::read) fn vector(&mut self, data: Vec<i32>) -> ValueId {
        let owner = self.statement.results.first().map_or("", |r| r.name.text);
        let tensor = Tensor::new(&[data.len()], data).expect("a vector has its length");
        self.lowering.made(&format!("{owner}.const"), tensor)
    }

    /// A vector of truth values, one for each of `rank` dimensions.
    pub(in crate::read) fn flags(
        &mut self,
        name: &'static str,
        rank: usize,
    ) -> Result<Option<Vec<bool>>, Fault> {
        let Some(Found { value, at }) = self.parameter(name)? else { return Ok(None) };
        let ty = match &value {
            Parameter::Tensor(t) => match t.as_slice::<bool>() {
                Some(flags) if t.shape() == [rank] => return Ok(Some(flags.to_vec())),
                _ => type_of(t),
            },
            Parameter::Text(_) => "string".into(),
        };
        Err(Fault::new(at, format!("{name} is {ty}"), format!("{rank} values of bool, one a dimension of x")))
    }

    /// A float of any type, finite.
    pub(in crate::read) fn float(&mut self, name: &'static str) -> Result<Option<Found<f64>>, Fault> {
        match self.scalar(name, "a float", |t| t.dtype().is_float().then(|| t.get(0)))? {
            Some(Found { value, at }) if !value.is_finite() => {
                Err(Fault::new(at, format!("{name} is {value}"), "a finite number"))
            }
            float => Ok(float),
        }
    }

    /// A float, rounded to a type; by default 0.
    pub(in crate::read) fn float_in(&mut self, name: &'static str, dtype: DType) -> Result<f64, Fault> {
        let found = self.scalar(name, "a float", |t| t.dtype().is_float().then(|| t.get(0)))?;
        Ok(found.map_or(0.0, |found| round_to(dtype, found.value)))
    }
}

fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    (0..tensor.len()).map(|i| integer(tensor, i)).collect()
}
