//! A placed function in pieces: programs of the engine and of the host, in an order in which they can run.

mod cuts;
mod extract;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arcane_mil::{Function, Op, Operation, Opset, ValueId};
use arcane_tensor::DType;

use crate::layout::Placed;
use crate::plan::Place;

pub(crate) use extract::Piece;

/// A function as a list of pieces.
#[derive(Debug)]
pub(crate) struct Partitioned {
    /// In an order in which each piece comes after what it reads.
    pub(crate) pieces: Vec<Piece>,
    /// Values that are made of weights alone: they are computed once for each change of the weights, not in a piece.
    pub(crate) prepared: Vec<ValueId>,
    /// Why the engine's programs end where they end.
    pub(crate) cuts: Vec<String>,
    /// What the host computes, and why it does.
    pub(crate) hosted: Vec<String>,
}

/// What the engine's programs have to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The opset that they are written in.
    pub(crate) opset: Opset,
    /// How many inputs and outputs one may have.
    pub(crate) max_ports: usize,
    /// How many ops one with constant weights may have, how many products among them, and how many bytes of weights.
    pub(crate) max_operations: usize,
    pub(crate) max_products: usize,
    pub(crate) max_weight_bytes: usize,
}

/// Cuts a placed function.
///
/// Ops that can run without a change of place in between form a stage. A stage of the engine is cut where its ops repeat, at
/// the boundary that the fewest bytes cross: then the repetitions, the layers of a model, can share a program. Those with
/// weights of their own as constants cannot: as many of them as the limits allow are one program. The host's
/// ops are grouped by the last program of the engine that they wait for, so that they run beside the next one.
pub(crate) fn partition(placed: &Placed, limits: Limits) -> Partitioned {
    let graph = Graph::new(placed);
    let stages = stages::stages(&graph);
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    let mut cuts = Vec::new();
    for ops in stages.engine() {
        let found = cuts::chunks(&graph, &ops, limits);
        cuts.push(found.why);
        chunks.extend(found.chunks);
    }
    let groups = stages.host_groups(&graph, &chunks);
    let extractor = extract::Extractor::new(&graph, &chunks, &groups, limits.opset);
    let mut pieces = Vec::new();
    for key in 0..=chunks.len() {
        if let Some(chunk) = key.checked_sub(1) {
            pieces.push(extractor.piece(Place::Engine, &chunks[chunk]));
        }
        pieces.extend(groups.iter().filter(|g| g.key == key).map(|g| extractor.piece(Place::Host, &g.ops)));
    }
    Partitioned { pieces, prepared: graph.prepared_values(), cuts, hosted: hosted(&graph) }
}

/// How many ops of each kind the host has, by reason.
fn hosted(graph: &Graph<'_>) -> Vec<String> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (i, _) in graph.running().filter(|(_, place)| *place == Place::Host) {
        let operation = &graph.function.operations()[i];
        let operands = operation.op.operands();
        let half =
            operands.iter().chain(&operation.results).all(|v| graph.function.ty(*v).dtype == DType::F16);
        let why = match (&operation.op, half) {
            (Op::Cast { .. }, _) => "values cross between fp16 and other types here",
            (_, false) => "an engine computes fp16 alone",
            (Op::Transpose { .. }, true) => "elements change their order where they cross",
            (_, true) => "an engine has no form of it, or the chip refuses it",
        };
        *counts.entry((operation.op.name(), why)).or_default() += 1;
    }
    counts.into_iter().map(|((op, why), n)| format!("on the host: {n} {op}: {why}")).collect()
}

/// What an op is for the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing needs it.
    Dead,
    /// A constant: in every piece that reads it.
    Constant,
    /// A reshape of the host: its memory is what it reshapes.
    View,
    /// Made of weights alone.
    Prepared,
    /// An op of a piece.
    Runs(Place),
}

/// A placed function with what the partition asks of it.
struct Graph<'a> {
    function: &'a Function,
    definitions: Vec<Option<usize>>,
    parts: Vec<Part>,
    is_output: Vec<bool>,
    /// For each op that overwrites a parameter, the ops before it that read the parameter.
    readers: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(placed: &'a Placed) -> Self {
        let function = &placed.function;
        let definitions = function.definitions();
        let mut is_output = vec![false; function.values().len()];
        for o in function.outputs() {
            is_output[o.value.index()] = true;
        }
        let mut live = is_output.clone();
        for operation in function.operations().iter().rev() {
            if operation.results.iter().any(|r| live[r.index()]) {
                operation.op.operands().iter().for_each(|v| live[v.index()] = true);
            }
        }
        let weights = crate::layout::made_of_weights(function);
        let part = |(i, operation): (usize, &Operation)| {
            let output = operation.results.iter().any(|r| is_output[r.index()]);
            let weight = operation.results.iter().all(|r| weights[r.index()]);
            match &operation.op {
                _ if !operation.results.iter().any(|r| live[r.index()]) => Part::Dead,
                Op::Const(_) | Op::Fill { .. } if !output => Part::Constant,
                Op::Reshape { .. } if placed.places[i] == Place::Host && !output => Part::View,
                _ if weight && !output => Part::Prepared,
                _ => Part::Runs(placed.places[i]),
            }
        };
        let parts = function.operations().iter().enumerate().map(part).collect();
        let mut graph = Self { function, definitions, parts, is_output, readers: BTreeMap::new() };
        for a in function.aliases() {
            let parameter = function.parameters()[a.parameter].value;
            let output = graph.definitions[function.outputs()[a.output].value.index()];
            graph.readers.extend(output.map(|op| (op, graph.readers_of(parameter, op))));
        }
        graph
    }

    /// The ops of pieces before `end` that read a value's memory.
    fn readers_of(&self, v: ValueId, end: usize) -> Vec<usize> {
        let reads =
            |op: usize| self.function.operations()[op].op.operands().iter().any(|&o| self.base(o) == v);
        self.running().map(|(op, _)| op).take_while(|&op| op < end).filter(|&op| reads(op)).collect()
    }

    /// The op that a value comes from, through views; `None` for a parameter.
    fn source(&self, v: ValueId) -> Option<usize> {
        self.definitions[self.base(v).index()]
    }

    /// The value whose memory a value is.
    fn base(&self, v: ValueId) -> ValueId {
        match self.definitions[v.index()] {
            Some(i) if self.parts[i] == Part::View => {
                self.base(self.function.operations()[i].op.operands()[0])
            }
            _ => v,
        }
    }

    /// The weight that has to be a constant when the program of an op is compiled.
    fn constant_of(&self, op: usize) -> Option<ValueId> {
        match &self.function.operations()[op].op {
            Op::Convolution(c) => Some(c.weight),
            _ => None,
        }
    }

    /// The ops of pieces that an op reads.
    fn reads(&self, op: usize) -> impl Iterator<Item = usize> + '_ {
        let operands = self.function.operations()[op].op.operands();
        operands
            .into_iter()
            .filter_map(|v| self.source(v))
            .filter(|&d| matches!(self.parts[d], Part::Runs(_)))
    }

    /// The ops of pieces that have to be done before an op: those that it reads, and those that read what it overwrites.
    fn waits_for(&self, op: usize) -> impl Iterator<Item = usize> + '_ {
        self.reads(op).chain(self.readers.get(&op).into_iter().flatten().copied())
    }

    /// The ops of pieces, in order.
    fn running(&self) -> impl Iterator<Item = (usize, Place)> + '_ {
        self.parts.iter().enumerate().filter_map(|(i, part)| match part {
            Part::Runs(place) => Some((i, *place)),
            _ => None,
        })
    }

    /// Values made of weights alone that a piece reads.
    fn prepared_values(&self) -> Vec<ValueId> {
        let mut found: Vec<ValueId> = Vec::new();
        for (i, _) in self.running() {
            for v in self.function.operations()[i].op.operands() {
                let base = self.base(v);
                let prepared =
                    self.definitions[base.index()].is_some_and(|d| self.parts[d] == Part::Prepared);
                if prepared && !found.contains(&base) {
                    found.push(base);
                }
            }
        }
        found.sort_unstable();
        found
    }
}
