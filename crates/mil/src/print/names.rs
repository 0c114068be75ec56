//! Identifiers of values.

use std::collections::HashMap;

use crate::{Function, Op, StateOp, ValueId};

/// Identifiers that are taken, each with the number that the next of its name tries first.
#[derive(Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// Takes an identifier made from `path` (from `otherwise` if it is empty): other characters become `_`, a digit in
    /// front gets a `_` before it, and a taken name gets `_2`, `_3`, ...
    pub(super) fn unique(&mut self, path: &str, otherwise: &str) -> String {
        let name = identifier(if path.is_empty() { otherwise } else { path });
        let Some(next) = self.0.get(&name).copied() else {
            self.0.insert(name.clone(), 2);
            return name;
        };
        let mut candidates = (next..).map(|n| (n, format!("{name}_{n}")));
        let (n, free) =
            candidates.find(|(_, c)| !self.0.contains_key(c)).expect("there are more numbers than names");
        self.0.insert(name, n + 1);
        self.0.insert(free.clone(), 2);
        free
    }
}

fn identifier(path: &str) -> String {
    let ok = |(i, c): (usize, char)| c.is_ascii_alphanumeric() || c == '_' || (c == '@' && i > 0);
    let mut name: String = path.chars().enumerate().map(|(i, c)| if ok((i, c)) { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// The identifier of each value in the function's text, indexed as [`Function::values`]; empty for constants that stand in the
/// arguments of others. Ports come first, parameters before
/// outputs, so that they keep their names; then the other values in order, by their paths.
pub fn identifiers(function: &Function) -> Vec<String> {
    let mut names = Names::default();
    let mut found = vec![String::new(); function.values().len()];
    let parameters = function.parameters().iter().map(|p| (&p.name, p.value));
    let definitions = function.definitions();
    let is_state = |v: ValueId| {
        definitions[v.index()]
            .is_some_and(|d| matches!(function.operations()[d].op, Op::State(StateOp::Write { .. })))
    };
    let outputs = function.outputs().iter().filter(|o| !is_state(o.value));
    for (name, v) in parameters.chain(outputs.map(|o| (&o.name, o.value))) {
        found[v.index()] = names.unique(name, "port");
    }
    let inline = inline_constants(function);
    for operation in function.operations() {
        if matches!(operation.op, Op::Const(_)) && inline[operation.results[0].index()] {
            continue;
        }
        if let Op::State(StateOp::Write { state, .. }) = operation.op {
            // A state has one name, whatever is written to it.
            let name = found[state.index()].clone();
            found[operation.results[0].index()] = name;
        }
        for r in &operation.results {
            if found[r.index()].is_empty() {
                found[r.index()] = names.unique(&function.value(*r).path, operation.op.name());
            }
        }
    }
    found
}

/// For each value whether it is a constant that only ops on compressed weights read.
pub(super) fn inline_constants(function: &Function) -> Vec<bool> {
    let (mut compressed, mut other) =
        (vec![false; function.values().len()], vec![false; function.values().len()]);
    for operation in function.operations() {
        let readers = if matches!(operation.op, Op::Constexpr(_)) { &mut compressed } else { &mut other };
        operation.op.operands().iter().for_each(|v| readers[v.index()] = true);
    }
    function.outputs().iter().for_each(|o| other[o.value.index()] = true);
    compressed.into_iter().zip(other).map(|(inside, outside)| inside && !outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_and_leading_digits_are_replaced() {
        assert_eq!(identifier("layers.3.attn-q"), "layers_3_attn_q");
        assert_eq!(identifier("3.x"), "_3_x");
        assert_eq!(identifier("größe"), "gr__e");
        assert_eq!(identifier("@a@1"), "_a@1");
        assert_eq!(identifier(""), "_");
    }

    #[test]
    fn taken_names_are_numbered_around_names_that_look_numbered() {
        let mut names = Names::default();
        let mut take = |path| names.unique(path, "op");
        assert_eq!(take("h"), "h");
        assert_eq!(take("h_2"), "h_2");
        assert_eq!(take("h"), "h_3");
        assert_eq!(take("h.2"), "h_2_2");
        assert_eq!(take("h"), "h_4");
        assert_eq!(take(""), "op");
        assert_eq!(take(""), "op_2");
    }
}
