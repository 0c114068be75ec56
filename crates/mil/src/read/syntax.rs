//! The pieces of MIL text that the parser gives: one function's header, statements and outputs at a time.

use std::sync::Arc;

use arcane_tensor::{DType, Tensor, element_count};

use super::Fault;
use crate::{Opset, TensorType};

/// An identifier and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

/// A type as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    /// A tensor or scalar; `None` for a dimension `?`.
    Tensor(DType, Vec<Option<usize>>),
    /// A string.
    Text,
    /// A state of a tensor.
    State(Box<Type>),
    /// A type that exists in MIL and not here, by its spelling.
    Other(String),
}

/// The largest rank of values in MIL.
pub(super) const MAX_RANK: usize = 5;
/// The largest rank of literals: those of packed weights have more dimensions than the values made of them.
const MAX_LITERAL_RANK: usize = 16;

impl Type {
    /// The type of a value: of known dimensions, of a rank that MIL has, and of a size that can be addressed.
    pub(super) fn concrete(&self, at: usize) -> Result<TensorType, Fault> {
        self.up_to_rank(MAX_RANK, at)
    }

    /// The type of a value that only compressed weights are made of.
    pub(super) fn compressed(&self, at: usize) -> Result<TensorType, Fault> {
        self.up_to_rank(crate::op::constexpr::MAX_RANK, at)
    }

    /// The type of a literal, which `concrete` may still refuse as that of a value.
    pub(super) fn literal(&self, at: usize) -> Result<TensorType, Fault> {
        self.up_to_rank(MAX_LITERAL_RANK, at)
    }

    /// Whether a type is this one, which may leave dimensions open.
    pub(super) fn admits(&self, ty: &TensorType) -> bool {
        let Self::Tensor(dtype, dims) = self else { return false };
        let fits = |(dim, &found): (&Option<usize>, &usize)| dim.is_none_or(|d| d == found);
        *dtype == ty.dtype && dims.len() == ty.shape.len() && dims.iter().zip(&ty.shape).all(fits)
    }

    /// Whether it leaves dimensions open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Tensor(_, dims) if dims.contains(&None))
    }

    fn up_to_rank(&self, most: usize, at: usize) -> Result<TensorType, Fault> {
        let (dtype, dims) = match self {
            Self::Tensor(dtype, dims) => (*dtype, dims),
            Self::Text => return Err(Fault::new(at, "the type is string", "a tensor or a number")),
            Self::State(_) => {
                return Err(Fault::new(at, format!("the type is {self}"), "a tensor or a number"));
            }
            Self::Other(spelling) => {
                let what = format!("values of type {spelling} are not supported yet");
                return Err(Fault::new(at, what, "a tensor or a number"));
            }
        };
        if dims.len() > most {
            return Err(Fault::new(
                at,
                format!("the type has rank {}", dims.len()),
                format!("rank {most} or less"),
            ));
        }
        let Some(shape) = dims.iter().copied().collect::<Option<Vec<usize>>>() else {
            return Err(Fault::open(at, format!("{self} has open dimensions")));
        };
        let bytes = element_count(&shape).and_then(|n| n.checked_mul(dtype.size()));
        if bytes.is_none_or(|b| isize::try_from(b).is_err()) {
            let what = format!("{} is larger than memory can be", TensorType::new(dtype, &shape));
            return Err(Fault::new(at, what, "smaller dimensions"));
        }
        Ok(TensorType { dtype, shape })
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor(dtype, dims) if dims.is_empty() => write!(f, "{dtype}"),
            Self::Tensor(dtype, dims) => {
                let dims: Vec<String> =
                    dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
                write!(f, "tensor<{dtype}, [{}]>", dims.join(", "))
            }
            Self::Text => f.write_str("string"),
            Self::State(ty) => write!(f, "state<{ty}>"),
            Self::Other(spelling) => f.write_str(spelling),
        }
    }
}

/// A typed literal.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) at: usize,
    pub(super) ty: Type,
    pub(super) content: Content,
}

/// What stands in the parentheses of a typed literal.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Tensor(Arc<Tensor>),
    Text(String),
    Blob(Blob),
    /// A value of a type that no op here takes.
    Other,
}

/// A place in a weight file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Blob {
    pub(super) path: String,
    pub(super) offset: u64,
}

/// What an argument may be.
#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    Reference(Name<'a>),
    Value(Value),
}

impl Item<'_> {
    pub(super) fn at(&self) -> usize {
        match self {
            Self::Reference(name) => name.at,
            Self::Value(value) => value.at,
        }
    }
}

/// `name = item` or `name = (item, ...)`.
#[derive(Clone, Debug)]
pub(super) struct Argument<'a> {
    pub(super) name: Name<'a>,
    pub(super) items: Vec<Item<'a>>,
}

/// A declared name: a parameter of a function or a result of an op.
#[derive(Clone, Debug)]
pub(super) struct Declared<'a> {
    pub(super) ty: Type,
    /// Where the type stands.
    pub(super) at: usize,
    pub(super) name: Name<'a>,
}

/// An attribute.
#[derive(Clone, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) name: Name<'a>,
    pub(super) value: Value,
    /// The value as it stands in the text; empty where there is none.
    pub(super) text: &'a str,
}

impl Attribute<'_> {
    /// The attribute as it is kept, if it came from text.
    pub(super) fn kept(&self) -> Option<crate::Attribute> {
        let tokens = super::tokens(self.text);
        (!self.text.is_empty()).then(|| crate::Attribute::new(self.name.text, tokens))
    }
}

/// One op.
#[derive(Clone, Debug)]
pub(super) struct Statement<'a> {
    pub(super) results: Vec<Declared<'a>>,
    pub(super) op: Name<'a>,
    pub(super) arguments: Vec<Argument<'a>>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

impl Statement<'_> {
    /// The attribute of a name.
    pub(super) fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|a| a.name.text == name).map(|a| &a.value)
    }
}

/// What stands before the body of a function.
#[derive(Clone, Debug)]
pub(super) struct Header<'a> {
    pub(super) name: Name<'a>,
    pub(super) opset: Opset,
    pub(super) parameters: Vec<Declared<'a>>,
    pub(super) attributes: Vec<Attribute<'a>>,
}
