//! Copying a function op by op into a new one: the frame of every MIL-to-MIL pass.

use std::sync::Arc;

use arcane_tensor::Tensor;

use crate::{Builder, Function, Op, Operation, Parameter, Role, TensorType, ValueId};

/// Maps the values of an old function to those of the one being built.
pub struct Rewriter<'a> {
    old: &'a Function,
    map: Vec<Option<ValueId>>,
    /// The function being built.
    pub builder: Builder,
}

impl<'a> Rewriter<'a> {
    /// Starts a function with the name and opset of `old` and no parameters.
    pub fn new(old: &'a Function) -> Self {
        Self { old, map: vec![None; old.values().len()], builder: Builder::new(old.name(), old.opset()) }
    }

    /// The new value that stands for an old one.
    ///
    /// # Panics
    /// If the old value has not been mapped yet: a bug of the pass.
    pub fn get(&self, old: ValueId) -> ValueId {
        self.map[old.index()].expect("operands are mapped before they are used")
    }

    /// Lets `new` stand for `old`.
    pub fn set(&mut self, old: ValueId, new: ValueId) {
        self.map[old.index()] = Some(new);
    }

    /// Declares every parameter of the old function, unchanged.
    pub fn copy_parameters(&mut self) {
        for p in self.old.parameters() {
            let new = self.builder.parameter(&p.name, self.old.ty(p.value).clone(), p.role);
            self.set(p.value, new);
        }
    }

    /// Appends an old operation, its operands mapped, and maps its results. Paths are kept.
    ///
    /// # Panics
    /// If the op is ill-typed for the mapped operands: a bug of the pass.
    pub fn copy(&mut self, operation: &Operation) {
        let op = operation.op.map_operands(|v| self.get(v));
        self.replace(operation, op);
    }

    /// Appends `op`, whose operands are new values, in place of an old operation with as many results.
    ///
    /// # Panics
    /// If the op is ill-typed: a bug of the pass.
    pub fn replace(&mut self, operation: &Operation, op: Op) {
        let path = &self.old.value(operation.results[0]).path;
        let results =
            self.builder.push_at(path, op).unwrap_or_else(|e| panic!("a rewrite made an ill-typed op: {e}"));
        for (&old, &new) in operation.results.iter().zip(&results) {
            let path = self.old.value(old).path.clone();
            self.builder.set_path(new, path);
            self.set(old, new);
        }
    }

    /// Declares the old function's outputs and aliases on the mapped values and ends the function.
    pub fn finish(mut self) -> Function {
        for o in self.old.outputs() {
            let value = self.get(o.value);
            self.builder.output(&o.name, value);
        }
        for a in self.old.aliases() {
            let (o, p) = (&self.old.outputs()[a.output], &self.old.parameters()[a.parameter]);
            self.builder.alias(&o.name, &p.name);
        }
        self.builder.finish()
    }
}

/// The function with parameters of the role [`Role::Constant`] as the constants that `tensor` gives for their names; those
/// that it gives none for stay.
///
/// # Panics
/// If a tensor has another type than its parameter.
#[must_use]
pub fn with_constants(function: &Function, tensor: impl Fn(&str) -> Option<Arc<Tensor>>) -> Function {
    let mut rewriter = Rewriter::new(function);
    // Parameters are values before all others.
    let given = |p: &Parameter| if p.role == Role::Constant { tensor(&p.name) } else { None };
    for p in function.parameters().iter().filter(|p| given(p).is_none()) {
        let new = rewriter.builder.parameter(&p.name, function.ty(p.value).clone(), p.role);
        rewriter.set(p.value, new);
    }
    for (p, tensor) in function.parameters().iter().filter_map(|p| given(p).map(|t| (p, t))) {
        let found = TensorType::new(tensor.dtype(), tensor.shape());
        assert_eq!(found, *function.ty(p.value), "the type of constant `{}`", p.name);
        let path = &function.value(p.value).path;
        let new = rewriter.builder.push_at(path, Op::Const(tensor)).expect("constants are well-typed");
        rewriter.set(p.value, new[0]);
    }
    for operation in function.operations() {
        rewriter.copy(operation);
    }
    rewriter.finish()
}

/// The function without the ops that no output needs. Parameters stay.
#[must_use]
pub fn remove_dead_code(function: &Function) -> Function {
    let mut live = vec![false; function.values().len()];
    for o in function.outputs() {
        live[o.value.index()] = true;
    }
    for operation in function.operations().iter().rev() {
        if operation.results.iter().any(|r| live[r.index()]) {
            for v in operation.op.operands() {
                live[v.index()] = true;
            }
        }
    }
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    for operation in function.operations() {
        if operation.results.iter().any(|r| live[r.index()]) {
            rewriter.copy(operation);
        }
    }
    rewriter.finish()
}
