//! Programs, functions and their values.

use arcane_tensor::{DType, element_count};

use crate::Op;

/// The dtype and shape of a value. An empty shape is a scalar.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        Self { dtype, shape: shape.to_vec() }
    }

    /// The number of elements. The verifier has excluded overflow.
    pub fn len(&self) -> usize {
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a dense array of this type.
    pub fn bytes(&self) -> usize {
        self.len().saturating_mul(self.dtype.size())
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.shape.is_empty() {
            return write!(f, "{}", self.dtype);
        }
        write!(f, "tensor<{}, {:?}>", self.dtype, self.shape)
    }
}

/// A value of a function: an index into its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// The index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value: where it stands in the model and its type.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueInfo {
    /// Its path, `layers.3.attn.q`: MIL's `name` attribute. Paths need not be unique.
    pub path: String,
    /// Its type.
    pub ty: TensorType,
}

/// What a parameter of a function is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A trainable weight in the type that the engine computes with.
    Param,
    /// A constant whose elements are not part of the program yet: it is one when the program is compiled.
    Constant,
    /// The fp32 weight that the optimiser updates.
    Master,
    /// A moment of the optimiser.
    Moment,
    /// A sum of gradients.
    Accumulator,
    /// Data of one batch.
    Batch,
    /// A number that the host sets for each call.
    Scalar,
    /// State that a call reads and replaces.
    State,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, unique among the function's ports.
    pub name: String,
    /// Its value.
    pub value: ValueId,
    /// What it is for.
    pub role: Role,
}

/// A result of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its name, unique among the function's ports.
    pub name: String,
    /// Its value: the result of an op, and no other output's.
    pub value: ValueId,
}

/// Output `output` may overwrite parameter `parameter` (indices); they have one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alias {
    /// Index of the output.
    pub output: usize,
    /// Index of the parameter.
    pub parameter: usize,
}

/// An op and the values that it defines.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What it does.
    pub op: Op,
    /// What it defines, in order.
    pub results: Vec<ValueId>,
}

/// The set of op definitions that a function is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as in MIL text")]
pub enum Opset {
    Ios15,
    Ios16,
    Ios17,
    Ios18,
}

impl Opset {
    /// The name in MIL text: `ios18`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ios15 => "ios15",
            Self::Ios16 => "ios16",
            Self::Ios17 => "ios17",
            Self::Ios18 => "ios18",
        }
    }
}

/// A function in single static assignment: parameters, ops in an order in which every operand is defined before its use,
/// outputs. Made by a [`crate::Builder`].
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub(crate) name: String,
    pub(crate) opset: Opset,
    pub(crate) values: Vec<ValueInfo>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) aliases: Vec<Alias>,
}

impl Function {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its opset.
    pub fn opset(&self) -> Opset {
        self.opset
    }

    /// All values, by index.
    pub fn values(&self) -> &[ValueInfo] {
        &self.values
    }

    /// One value.
    pub fn value(&self, v: ValueId) -> &ValueInfo {
        &self.values[v.index()]
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.values[v.index()].ty
    }

    /// The parameters in declared order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The parameter of a name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// The ops in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The outputs in declared order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The output of a name.
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|o| o.name == name)
    }

    /// Which outputs may overwrite which parameters.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// For each value the index of the operation that defines it; `None` for parameters.
    pub fn definitions(&self) -> Vec<Option<usize>> {
        let mut found = vec![None; self.values.len()];
        for (i, operation) in self.operations.iter().enumerate() {
            for &r in &operation.results {
                found[r.index()] = Some(i);
            }
        }
        found
    }
}

/// Functions under one roof.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The functions; names are unique.
    pub functions: Vec<Function>,
}

impl Program {
    /// The function of a name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }
}
