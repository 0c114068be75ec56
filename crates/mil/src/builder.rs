//! Building functions so that the code reads like the model.

#![allow(
    clippy::missing_errors_doc,
    reason = "every method that appends an op gives a BuildError for an ill-typed one"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arcane_tensor::{DType, Tensor};

use crate::{
    Alias, Binary, Compare, Function, Logical, Op, Operation, Opset, Output, Parameter, Reduce, Role,
    ScatterMode, Strictness, TensorType, TypeError, Unary, ValueId, ValueInfo, infer, verify,
};

/// An op that cannot be built: where, which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op} at `{path}`: {source}")]
pub struct BuildError {
    /// The path that its result would have had.
    pub path: String,
    /// The op's name.
    pub op: &'static str,
    /// Why it is ill-typed.
    pub source: TypeError,
}

type Built = Result<ValueId, BuildError>;

/// Builds one function. Every method that appends an op names it by the current scope and the op's name; [`Builder::named`]
/// gives it a better name.
#[derive(Clone, Debug)]
pub struct Builder {
    function: Function,
    scopes: Vec<String>,
    scalars: HashMap<(DType, u64), ValueId>,
}

impl Builder {
    /// An empty function.
    pub fn new(name: &str, opset: Opset) -> Self {
        let function = Function {
            name: name.into(),
            opset,
            values: Vec::new(),
            parameters: Vec::new(),
            operations: Vec::new(),
            outputs: Vec::new(),
            aliases: Vec::new(),
            attributes: Vec::new(),
            attributes_of: BTreeMap::new(),
        };
        Self { function, scopes: Vec::new(), scalars: HashMap::new() }
    }

    /// Goes on with a function: its values keep their ids, its outputs, aliases and attributes are dropped.
    pub fn extend(function: &Function) -> Self {
        let mut function = function.clone();
        function.outputs.clear();
        function.aliases.clear();
        function.attributes.clear();
        function.attributes_of.clear();
        Self { function, scopes: Vec::new(), scalars: HashMap::new() }
    }

    /// The function so far.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Renames the function.
    pub fn rename(&mut self, name: &str) {
        self.function.name = name.into();
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.function.ty(v)
    }

    /// The shape of a value.
    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.function.ty(v).shape.clone()
    }

    /// Builds `body` with `name` appended to the scope.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(name.into());
        let result = body(self);
        self.scopes.pop();
        result
    }

    /// Gives a value the path of the current scope and `name`.
    pub fn named(&mut self, v: ValueId, name: &str) -> ValueId {
        let path = self.path(name);
        self.set_path(v, path);
        v
    }

    /// Gives a value a whole path.
    pub fn set_path(&mut self, v: ValueId, path: String) {
        self.function.values[v.index()].path = path;
    }

    fn path(&self, name: &str) -> String {
        let mut path = self.scopes.join(".");
        if !path.is_empty() {
            path.push('.');
        }
        path + name
    }

    fn value(&mut self, path: String, ty: TensorType) -> ValueId {
        let id = ValueId(u32::try_from(self.function.values.len()).expect("fewer than 2^32 values"));
        self.function.values.push(ValueInfo { path, ty });
        id
    }

    /// Declares a parameter.
    pub fn parameter(&mut self, name: &str, ty: TensorType, role: Role) -> ValueId {
        let value = self.value(name.into(), ty);
        self.function.parameters.push(Parameter { name: name.into(), value, role });
        value
    }

    /// Declares an output. A parameter, or a value that is an output already, is copied by an `identity`.
    pub fn output(&mut self, name: &str, v: ValueId) {
        let taken = self.function.outputs.iter().any(|o| o.value == v)
            || self.function.parameters.iter().any(|p| p.value == v);
        let value = if taken { self.identity(v) } else { v };
        self.function.outputs.push(Output { name: name.into(), value });
    }

    /// Lets an output overwrite a parameter.
    ///
    /// # Panics
    /// If there is no such output or parameter: a bug of the caller.
    pub fn alias(&mut self, output: &str, parameter: &str) {
        let output =
            self.function.outputs.iter().position(|o| o.name == output).expect("the output was declared");
        let parameter = self
            .function
            .parameters
            .iter()
            .position(|p| p.name == parameter)
            .expect("the parameter was declared");
        self.function.aliases.push(Alias { output, parameter });
    }

    /// Ends the function.
    ///
    /// # Panics
    /// In debug builds, if the verifier finds fault: a bug of the caller.
    pub fn finish(self) -> Function {
        if cfg!(debug_assertions)
            && let Err(e) = verify(&self.function, Strictness::Open)
        {
            panic!("a function was built wrong: {e}\n{:#?}", self.function.outputs);
        }
        self.function
    }

    /// The function as it stands, not verified.
    pub(crate) fn into_function(self) -> Function {
        self.function
    }

    /// Appends an op whose results get the path `path`.
    pub fn push_at(&mut self, path: &str, op: Op) -> Result<Vec<ValueId>, BuildError> {
        let types = infer(&op, |v| self.function.ty(v)).map_err(|source| BuildError {
            path: path.into(),
            op: op.name(),
            source,
        })?;
        let results: Vec<ValueId> = types.into_iter().map(|ty| self.value(path.into(), ty)).collect();
        self.function.operations.push(Operation { op, results: results.clone() });
        Ok(results)
    }

    /// Appends an op, named by the current scope and its own name.
    pub fn push(&mut self, op: Op) -> Result<Vec<ValueId>, BuildError> {
        let path = self.path(op.name());
        self.push_at(&path, op)
    }

    /// Appends an op of one result.
    pub fn push_one(&mut self, op: Op) -> Built {
        self.push(op).map(|results| results[0])
    }

    /// A constant.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let ty = TensorType::new(tensor.dtype(), tensor.shape());
        let value = self.value(self.path(name), ty);
        self.function.operations.push(Operation { op: Op::Const(Arc::new(tensor)), results: vec![value] });
        value
    }

    /// A rank-0 constant, rounded to `dtype`; one for each value and type.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        if let Some(&v) = self.scalars.get(&(dtype, value.to_bits())) {
            return v;
        }
        let tensor = Tensor::from_f64s(dtype, &[], &[value]).expect("one element has rank 0");
        let id = self.value(format!("const_{dtype}_{value:e}"), TensorType::new(dtype, &[]));
        self.function.operations.push(Operation { op: Op::Const(Arc::new(tensor)), results: vec![id] });
        self.scalars.insert((dtype, value.to_bits()), id);
        id
    }

    /// A copy of a value.
    pub fn identity(&mut self, x: ValueId) -> ValueId {
        self.unary(Unary::Identity, x).expect("identity takes any type")
    }

    /// An element-wise op of one operand.
    pub fn unary(&mut self, kind: Unary, x: ValueId) -> Built {
        self.push_one(Op::Unary { kind, x })
    }

    /// |x|
    pub fn abs(&mut self, x: ValueId) -> Built {
        self.unary(Unary::Abs, x)
    }

    /// x²
    pub fn square(&mut self, x: ValueId) -> Built {
        self.unary(Unary::Square, x)
    }

    /// √x
    pub fn sqrt(&mut self, x: ValueId) -> Built {
        self.unary(Unary::Sqrt, x)
    }

    /// 1 / √(x + ε)
    pub fn rsqrt(&mut self, x: ValueId, epsilon: f64) -> Built {
        self.unary(Unary::Rsqrt { epsilon }, x)
    }

    /// The logistic function.
    pub fn sigmoid(&mut self, x: ValueId) -> Built {
        self.unary(Unary::Sigmoid, x)
    }

    /// x · sigmoid(x)
    pub fn silu(&mut self, x: ValueId) -> Built {
        self.unary(Unary::Silu, x)
    }

    /// Conversion; the value itself where it has the type already.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> ValueId {
        if self.ty(x).dtype == dtype {
            return x;
        }
        self.push_one(Op::Cast { x, dtype }).expect("cast takes any type")
    }

    /// An element-wise op of two operands.
    pub fn binary(&mut self, kind: Binary, x: ValueId, y: ValueId) -> Built {
        self.push_one(Op::Binary { kind, x, y })
    }

    /// x + y
    pub fn add(&mut self, x: ValueId, y: ValueId) -> Built {
        self.binary(Binary::Add, x, y)
    }

    /// x − y
    pub fn sub(&mut self, x: ValueId, y: ValueId) -> Built {
        self.binary(Binary::Sub, x, y)
    }

    /// x · y
    pub fn mul(&mut self, x: ValueId, y: ValueId) -> Built {
        self.binary(Binary::Mul, x, y)
    }

    /// x / y
    pub fn real_div(&mut self, x: ValueId, y: ValueId) -> Built {
        self.binary(Binary::RealDiv, x, y)
    }

    /// The smaller of two.
    pub fn minimum(&mut self, x: ValueId, y: ValueId) -> Built {
        self.binary(Binary::Minimum, x, y)
    }

    /// x · c for a number c, rounded to x's type.
    pub fn scale(&mut self, x: ValueId, c: f64) -> Built {
        let c = self.scalar(self.ty(x).dtype, c);
        self.mul(x, c)
    }

    /// −x
    pub fn neg(&mut self, x: ValueId) -> Built {
        self.scale(x, -1.0)
    }

    /// A comparison.
    pub fn compare(&mut self, kind: Compare, x: ValueId, y: ValueId) -> Built {
        self.push_one(Op::Compare { kind, x, y })
    }

    /// Both.
    pub fn logical_and(&mut self, x: ValueId, y: ValueId) -> Built {
        self.push_one(Op::Logical { kind: Logical::And, x, y })
    }

    /// `cond ? a : b`
    pub fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> Built {
        self.push_one(Op::Select { cond, a, b })
    }

    /// A reduction over `axes` (sorted, from the front).
    pub fn reduce(&mut self, kind: Reduce, x: ValueId, axes: &[usize], keep_dims: bool) -> Built {
        self.push_one(Op::Reduce { kind, x, axes: axes.to_vec(), keep_dims })
    }

    /// A reduction over all axes to a scalar.
    pub fn reduce_all(&mut self, kind: Reduce, x: ValueId) -> Built {
        let axes: Vec<usize> = (0..self.ty(x).shape.len()).collect();
        self.reduce(kind, x, &axes, false)
    }

    /// Softmax along an axis.
    pub fn softmax(&mut self, x: ValueId, axis: usize) -> Built {
        self.push_one(Op::Softmax { x, axis })
    }

    /// Matrix product.
    pub fn matmul(&mut self, x: ValueId, y: ValueId, transpose_x: bool, transpose_y: bool) -> Built {
        self.push_one(Op::Matmul { x, y, transpose_x, transpose_y })
    }

    /// x · weightᵀ + bias
    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Built {
        self.push_one(Op::Linear { x, weight, bias })
    }

    /// softmax(Q·Kᵀ/√E + mask)·V
    pub fn attention(
        &mut self,
        query: ValueId,
        key: ValueId,
        value: ValueId,
        attn_mask: Option<ValueId>,
    ) -> Built {
        self.push_one(Op::ScaledDotProductAttention { query, key, value, attn_mask })
    }

    /// Slices of x by indices along an axis.
    pub fn gather(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Built {
        self.push_one(Op::Gather { x, indices, axis })
    }

    /// Elements of x by indices along an axis.
    pub fn gather_along_axis(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Built {
        self.push_one(Op::GatherAlongAxis { x, indices, axis })
    }

    /// `data` with slices added at indices along an axis.
    pub fn scatter_add(&mut self, data: ValueId, indices: ValueId, updates: ValueId, axis: usize) -> Built {
        self.push_one(Op::Scatter { data, indices, updates, axis, mode: ScatterMode::Add })
    }

    /// `data` with slices replaced at indices along an axis; the last one where indices repeat.
    pub fn scatter_update(
        &mut self,
        data: ValueId,
        indices: ValueId,
        updates: ValueId,
        axis: usize,
    ) -> Built {
        self.push_one(Op::Scatter { data, indices, updates, axis, mode: ScatterMode::Update })
    }

    /// `data` with elements added at indices along an axis.
    pub fn scatter_along_axis_add(
        &mut self,
        data: ValueId,
        indices: ValueId,
        updates: ValueId,
        axis: usize,
    ) -> Built {
        self.push_one(Op::ScatterAlongAxis { data, indices, updates, axis, mode: ScatterMode::Add })
    }

    /// Another shape; the value itself where it has the shape already.
    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Built {
        if self.ty(x).shape == shape {
            return Ok(x);
        }
        self.push_one(Op::Reshape { x, shape: shape.to_vec() })
    }

    /// Permuted dimensions.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Built {
        self.push_one(Op::Transpose { x, perm: perm.to_vec() })
    }

    /// Operands one after another.
    pub fn concat(&mut self, values: &[ValueId], axis: usize) -> Built {
        self.push_one(Op::Concat { values: values.to_vec(), axis })
    }

    /// Consecutive pieces.
    pub fn split(&mut self, x: ValueId, axis: usize, sizes: &[usize]) -> Result<Vec<ValueId>, BuildError> {
        self.push(Op::Split { x, axis, sizes: sizes.to_vec() })
    }

    /// The whole repeated.
    pub fn tile(&mut self, x: ValueId, reps: &[usize]) -> Built {
        self.push_one(Op::Tile { x, reps: reps.to_vec() })
    }

    /// A tensor of one value.
    pub fn fill(&mut self, dtype: DType, shape: &[usize], value: f64) -> ValueId {
        let op = Op::Fill { shape: shape.to_vec(), dtype, value };
        self.push_one(op).expect("fill has no operands")
    }
}
