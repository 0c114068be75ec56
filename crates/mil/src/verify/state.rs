//! What holds of states: one name stands for all values of a state in text, so their order has to be plain.

use crate::{Function, Op, Operation, Role, StateOp, ValueId};

/// The states of a function while its ops are gone through.
pub(super) struct States {
    /// For each value that is a state, whether it is the newest of its parameter.
    newest: Vec<Option<bool>>,
}

impl States {
    pub(super) fn new(function: &Function) -> Self {
        let mut newest = vec![None; function.values.len()];
        for p in function.parameters.iter().filter(|p| p.role == Role::State) {
            newest[p.value.index()] = Some(true);
        }
        Self { newest }
    }

    /// Takes an op; what is wrong with it, if something is.
    pub(super) fn operation(&mut self, operation: &Operation) -> Result<(), String> {
        let Op::State(op) = &operation.op else { return Ok(()) };
        match self.newest.get(op.state().index()).copied().flatten() {
            None => return Err("the operand is no state".into()),
            Some(false) => return Err("the state was written in between".into()),
            Some(true) => {}
        }
        if let StateOp::Write { state, .. } = op {
            self.newest[state.index()] = Some(false);
            self.newest[operation.results[0].index()] = Some(true);
        }
        Ok(())
    }
}

/// The parameter whose state a value is.
pub(crate) fn parameter_of_state(
    function: &Function,
    definitions: &[Option<usize>],
    mut v: ValueId,
) -> Option<usize> {
    while let Some(d) = definitions[v.index()] {
        let Op::State(StateOp::Write { state, .. }) = function.operations[d].op else { return None };
        v = state;
    }
    function.parameters.iter().position(|p| p.value == v && p.role == Role::State)
}

/// Checks that states are read and written as states only, and that what is written last is an output in place of the
/// parameter.
pub(super) fn hold(function: &Function) -> Result<(), String> {
    let definitions = function.definitions();
    let mut read = vec![0usize; function.values.len()];
    for operation in &function.operations {
        for v in operation.op.operands() {
            let is_write = definitions[v.index()]
                .is_some_and(|d| matches!(function.operations[d].op, Op::State(StateOp::Write { .. })));
            let as_state = matches!(&operation.op, Op::State(s) if s.state() == v);
            if is_write && !as_state {
                return Err(format!("{} takes a state, a read_state was expected", operation.op.name()));
            }
            if let Op::State(StateOp::Write { state, .. }) = &operation.op
                && *state == v
            {
                read[v.index()] += 1;
            }
        }
    }
    for operation in &function.operations {
        let Op::State(StateOp::Write { .. }) = operation.op else { continue };
        let last = operation.results[0];
        if read[last.index()] > 0 {
            continue;
        }
        let parameter = parameter_of_state(function, &definitions, last);
        let output = function.outputs.iter().position(|o| o.value == last);
        let aliased = |a: &crate::Alias| Some(a.output) == output && Some(a.parameter) == parameter;
        if !function.aliases.iter().any(aliased) {
            let path = &function.value(last).path;
            return Err(format!("the state written at `{path}` is no output in place of its parameter"));
        }
    }
    Ok(())
}
