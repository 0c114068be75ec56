//! An op where it stands.

use arcane_mil::{Function, Op, Operation, Parameter, Role, TensorType, ValueId};
use arcane_tensor::Tensor;

use crate::Chip;

/// An op, the function around it and the chip that is to run it.
pub(super) struct Site<'a> {
    pub(super) chip: &'a Chip,
    pub(super) function: &'a Function,
    pub(super) operation: &'a Operation,
}

/// Whether a parameter is a constant when the function is compiled.
pub(crate) fn stands_for_constant(parameter: &Parameter) -> bool {
    parameter.role == Role::Constant
}

/// The op that defines a value; `None` for parameters. Values are numbered in the order of definition, so it is found by
/// bisection.
pub(crate) fn definition(function: &Function, v: ValueId) -> Option<&Operation> {
    let operations = function.operations();
    let after = operations.partition_point(|o| o.results.first().is_none_or(|&r| r <= v));
    operations[..after].last().filter(|o| o.results.contains(&v))
}

/// Whether a value is a constant.
pub(crate) fn is_constant(function: &Function, v: ValueId) -> bool {
    match definition(function, v) {
        Some(operation) => matches!(operation.op, Op::Const(_)),
        None => function.parameters().iter().any(|p| p.value == v && stands_for_constant(p)),
    }
}

impl<'a> Site<'a> {
    pub(super) fn new(chip: &'a Chip, function: &'a Function, operation: &'a Operation) -> Self {
        Self { chip, function, operation }
    }

    /// The path of the first result.
    pub(super) fn path(&self) -> &'a str {
        self.operation.results.first().map_or("", |&r| &self.function.value(r).path)
    }

    pub(super) fn ty(&self, v: ValueId) -> &'a TensorType {
        self.function.ty(v)
    }

    /// What defines a value, if it is no parameter.
    pub(super) fn op_of(&self, v: ValueId) -> Option<&'a Op> {
        definition(self.function, v).map(|o| &o.op)
    }

    pub(super) fn is_constant(&self, v: ValueId) -> bool {
        is_constant(self.function, v)
    }

    /// The number that a constant consists of, if it is in the program and all its elements are one.
    pub(super) fn uniform(&self, v: ValueId) -> Option<f64> {
        let Some(Op::Const(tensor)) = self.op_of(v) else { return None };
        all_equal(tensor)
    }

    /// The types of results and of operands that are no constants.
    pub(super) fn activations(&self) -> impl Iterator<Item = &'a TensorType> {
        let operands = self.operation.op.operands().into_iter().filter(|&v| !self.is_constant(v));
        operands.chain(self.operation.results.iter().copied()).map(|v| self.ty(v))
    }
}

fn all_equal(tensor: &Tensor) -> Option<f64> {
    if tensor.is_empty() {
        return None;
    }
    let first = tensor.get(0);
    (1..tensor.len()).all(|i| tensor.get(i) == first).then_some(first)
}
