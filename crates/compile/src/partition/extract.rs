//! The function of a piece.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arcane_mil::{Builder, Function, Opset, Role, ValueId};

use super::stages::Group;
use super::{Graph, Part};
use crate::plan::Place;

/// A program and the values that its ports stand for.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Where it runs.
    pub(crate) place: Place,
    /// Its ops in the placed function, ascending.
    pub(crate) ops: Vec<usize>,
    /// Its function; ports are numbered, so that their names ascend.
    pub(crate) function: Function,
    /// For each parameter the value of the whole function whose memory it reads.
    pub(crate) inputs: Vec<ValueId>,
    /// For each output the value of the whole function.
    pub(crate) outputs: Vec<ValueId>,
}

pub(super) struct Extractor<'a> {
    graph: &'a Graph<'a>,
    /// The piece of each op, whichever number it has.
    piece_of: BTreeMap<usize, usize>,
    /// Values that are read outside the piece which computes them, or are outputs of the function.
    escapes: BTreeSet<ValueId>,
    /// The opset of the engine's programs.
    opset: Opset,
}

impl<'a> Extractor<'a> {
    pub(super) fn new(graph: &'a Graph<'a>, chunks: &[Vec<usize>], groups: &[Group], opset: Opset) -> Self {
        let mut piece_of = BTreeMap::new();
        let lists = chunks.iter().chain(groups.iter().map(|g| &g.ops));
        for (n, ops) in lists.enumerate() {
            piece_of.extend(ops.iter().map(|&op| (op, n)));
        }
        let mut escapes = BTreeSet::new();
        for (&op, piece) in &piece_of {
            let operation = &graph.function.operations()[op];
            escapes.extend(operation.results.iter().filter(|r| graph.is_output[r.index()]));
            for v in operation.op.operands() {
                let base = graph.base(v);
                let defined = graph.definitions[base.index()].and_then(|d| piece_of.get(&d));
                if defined.is_some_and(|d| d != piece) {
                    escapes.insert(base);
                }
            }
        }
        Self { graph, piece_of, escapes, opset }
    }

    /// The piece of some ops, ascending.
    pub(super) fn piece(&self, place: Place, ops: &[usize]) -> Piece {
        let opset = if place == Place::Engine { self.opset } else { self.graph.function.opset() };
        let mut building = Building {
            extractor: self,
            place,
            piece: self.piece_of[&ops[0]],
            builder: Builder::new("piece", opset),
            map: HashMap::new(),
            inputs: Vec::new(),
        };
        building.declare(ops);
        for &op in ops {
            let operation = &self.graph.function.operations()[op];
            let operands: HashMap<ValueId, ValueId> =
                operation.op.operands().into_iter().map(|v| (v, building.value(v))).collect();
            building.append(op, |v| operands[&v]);
        }
        building.finish(ops)
    }
}

struct Building<'a> {
    extractor: &'a Extractor<'a>,
    place: Place,
    piece: usize,
    builder: Builder,
    map: HashMap<ValueId, ValueId>,
    inputs: Vec<ValueId>,
}

impl Building<'_> {
    /// Declares what the ops read from outside, in the order in which they do.
    fn declare(&mut self, ops: &[usize]) {
        let graph = self.extractor.graph;
        let mut read = Vec::new();
        let constants: BTreeSet<ValueId> = ops.iter().filter_map(|&op| graph.constant_of(op)).collect();
        for &op in ops {
            for v in graph.function.operations()[op].op.operands() {
                let v = self.outside(v);
                read.extend(v.filter(|v| !read.contains(v)));
            }
        }
        for (i, &v) in read.iter().enumerate() {
            let name = port_name('i', i, &graph.function.value(v).path);
            let role = if constants.contains(&v) { Role::Constant } else { Role::Batch };
            let new = self.builder.parameter(&name, graph.function.ty(v).clone(), role);
            self.map.insert(v, new);
            self.inputs.push(graph.base(v));
        }
    }

    /// The value that has to be a parameter for an operand: the engine reads memory in the shape that it wants, the host in
    /// that in which it was written. `None` if it is computed here, or constant.
    fn outside(&self, v: ValueId) -> Option<ValueId> {
        let graph = self.extractor.graph;
        let base = graph.base(v);
        if let Some(d) = graph.definitions[base.index()] {
            let here = self.extractor.piece_of.get(&d) == Some(&self.piece);
            if here || graph.parts[d] == Part::Constant {
                return None;
            }
        }
        Some(if self.place == Place::Engine { v } else { base })
    }

    /// The new value of an operand; views and constants are made here.
    fn value(&mut self, v: ValueId) -> ValueId {
        if let Some(&new) = self.map.get(&v) {
            return new;
        }
        let graph = self.extractor.graph;
        let op = graph.definitions[v.index()].expect("parameters have been declared");
        debug_assert!(matches!(graph.parts[op], Part::View | Part::Constant));
        let operands: HashMap<ValueId, ValueId> =
            graph.function.operations()[op].op.operands().into_iter().map(|v| (v, self.value(v))).collect();
        self.append(op, |v| operands[&v]);
        self.map[&v]
    }

    fn append(&mut self, op: usize, map: impl Fn(ValueId) -> ValueId) {
        let function = self.extractor.graph.function;
        let operation = &function.operations()[op];
        let path = &function.value(operation.results[0]).path;
        let new =
            self.builder.push_at(path, operation.op.map_operands(map)).expect("a copy is as well-typed");
        for (&old, new) in operation.results.iter().zip(new) {
            self.builder.set_path(new, function.value(old).path.clone());
            self.map.insert(old, new);
        }
    }

    fn finish(mut self, ops: &[usize]) -> Piece {
        let graph = self.extractor.graph;
        let results = ops.iter().flat_map(|&op| graph.function.operations()[op].results.iter().copied());
        let outputs: Vec<ValueId> = results.filter(|r| self.extractor.escapes.contains(r)).collect();
        for (i, &v) in outputs.iter().enumerate() {
            let name = port_name('o', i, &graph.function.value(v).path);
            self.builder.output(&name, self.map[&v]);
            let output = graph.function.outputs().iter().position(|o| o.value == v);
            let alias = output.and_then(|o| graph.function.aliases().iter().find(|a| a.output == o));
            let overwritten = alias.map(|a| graph.function.parameters()[a.parameter].value);
            let input = overwritten.and_then(|p| self.inputs.iter().position(|&i| i == p));
            if let Some(input) = input {
                let parameter = self.builder.function().parameters()[input].name.clone();
                self.builder.alias(&name, &parameter);
            }
        }
        let function = self.builder.finish();
        Piece { place: self.place, ops: ops.to_vec(), function, inputs: self.inputs, outputs }
    }
}

/// A name that sorts by its number; the end of the path is for people.
fn port_name(kind: char, index: usize, path: &str) -> String {
    let tail = path.rsplit('.').next().unwrap_or_default();
    let tail: String = tail.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(24).collect();
    format!("{kind}{index:03}_{tail}")
}
