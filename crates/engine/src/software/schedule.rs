//! An order for the nodes, a place for their storage, and the instructions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arcane_mil::{Function, TensorType};
use arcane_tensor::DType;

use super::arena::{self, Lifetime};
use super::lower::{Lowered, Node, Place, Slot};
use super::view::{SlotId, View};
use super::work::{Work, partials_type};
use crate::EngineError;
use crate::kernels::memory::ALIGNMENT;
use crate::kernels::{ARENA, Access, CONSTANTS, Instruction, PORTS};

/// An instruction and the op that it stands for.
pub(super) struct Scheduled {
    /// What to run.
    pub instruction: Instruction,
    op: &'static str,
    path: String,
    index_limit: usize,
}

impl Scheduled {
    /// The error of a run-time index that was out of range.
    pub(super) fn bad_index(&self, index: i64) -> EngineError {
        EngineError::Index { op: self.op, path: self.path.clone(), index, limit: self.index_limit }
    }
}

/// A function ready to run.
pub(super) struct Schedule {
    /// The instructions in order.
    pub instructions: Vec<Scheduled>,
    /// Bytes of intermediate values.
    pub arena_bytes: usize,
    /// Bytes of constants.
    pub constant_bytes: usize,
}

impl Schedule {
    /// Bytes of scratch that each thread needs.
    pub(super) fn scratch_bytes(&self) -> usize {
        self.instructions.iter().map(|i| i.instruction.scratch_bytes()).max().unwrap_or(0)
    }
}

/// Orders, places and emits.
pub(super) fn schedule(function: &Function, lowered: &Lowered) -> Schedule {
    let mut slots = lowered.slots.clone();
    let nodes = order(&lowered.nodes, slots.len());
    let copies = unsafe_outputs(function, &nodes, &mut slots);
    let mut planner = Planner::new(&nodes, slots);
    let partials: Vec<Vec<SlotId>> =
        nodes.iter().enumerate().map(|(i, node)| planner.partials(i, node)).collect();
    let count = nodes.len();
    for (slot, _) in &copies {
        planner.touch(*slot, count);
    }
    let (offsets, arena_bytes) = planner.place();
    let place = |view: &View| planner.access(view, &offsets, function);
    let mut instructions: Vec<Scheduled> = Vec::new();
    for (node, partials) in nodes.iter().zip(&partials) {
        let instruction = match &node.work {
            Work::Chain(chain) => {
                let dense = |i: usize| {
                    let slot = partials[i];
                    let bytes = planner.slots[slot.0].bytes;
                    place(&View::dense(slot, &partials_type(bytes / 8)))
                };
                Instruction::Fused(chain.kernel(&place, &dense))
            }
            other => other.instruction(&place),
        };
        let operation = &function.operations()[node.op];
        let path = function.value(operation.results[0]).path.clone();
        let index_limit = node.work.index_limit();
        instructions.push(Scheduled { instruction, op: operation.op.name(), path, index_limit });
    }
    for (slot, output) in copies {
        let ty = function.ty(function.outputs()[output].value);
        let from = place(&View::dense(slot, ty));
        let to = Access { base: PORTS + function.parameters().len() + output, offset: 0, ..from.clone() };
        let path = function.outputs()[output].name.clone();
        let instruction = Instruction::Copy { from, to };
        instructions.push(Scheduled { instruction, op: "output", path, index_limit: 0 });
    }
    let constant_bytes = lowered
        .constants
        .iter()
        .map(|(offset, t)| offset + t.bytes().len().next_multiple_of(ALIGNMENT))
        .max();
    Schedule { instructions, arena_bytes, constant_bytes: constant_bytes.unwrap_or(0) }
}

/// Nodes so that every slot is written before it is read; among ready ones the earliest op first.
fn order(nodes: &[Node], slots: usize) -> Vec<Node> {
    let mut writers: Vec<Vec<usize>> = vec![Vec::new(); slots];
    for (i, node) in nodes.iter().enumerate() {
        for slot in &node.writes {
            writers[slot.0].push(i);
        }
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        let mut before: Vec<usize> =
            node.reads.iter().flat_map(|slot| writers[slot.0].iter().copied()).filter(|&w| w != i).collect();
        before.sort_unstable();
        before.dedup();
        // Of two nodes that update one slot in place, the one made first comes first.
        let updates =
            |j: usize| nodes[j].writes.iter().any(|s| nodes[j].reads.contains(s) && node.writes.contains(s));
        let in_place = node.writes.iter().any(|s| node.reads.contains(s));
        before.retain(|&j| !(in_place && updates(j) && j > i));
        waiting[i] = before.len();
        for j in before {
            followers[j].push(i);
        }
    }
    let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
        (0..nodes.len()).filter(|&i| waiting[i] == 0).map(|i| Reverse((nodes[i].op, i))).collect();
    let mut ordered = Vec::with_capacity(nodes.len());
    while let Some(Reverse((_, i))) = ready.pop() {
        ordered.push(nodes[i].clone());
        for &j in &followers[i] {
            waiting[j] -= 1;
            if waiting[j] == 0 {
                ready.push(Reverse((nodes[j].op, j)));
            }
        }
    }
    assert_eq!(ordered.len(), nodes.len(), "clusters leave an order to compute in");
    ordered
}

/// Outputs that may not be written while the parameter they are aliased to is still needed: they are computed in the arena
/// and copied at the end. Returns their slots and numbers.
fn unsafe_outputs(function: &Function, nodes: &[Node], slots: &mut [Slot]) -> Vec<(SlotId, usize)> {
    let mut copies = Vec::new();
    for alias in function.aliases() {
        let find = |place: Place| slots.iter().position(|s| s.place == place).map(SlotId);
        let (Some(output), Some(parameter)) =
            (find(Place::Output(alias.output)), find(Place::Parameter(alias.parameter)))
        else {
            continue;
        };
        let first_write = nodes.iter().position(|n| n.writes.contains(&output)).unwrap_or(nodes.len());
        let is_safe = nodes.iter().enumerate().filter(|(_, n)| n.reads.contains(&parameter)).all(|(i, n)| {
            i < first_write || i == first_write && n.work.reads_before_writing(parameter, output)
        });
        if !is_safe {
            slots[output.0].place = Place::Arena;
            copies.push((output, alias.output));
        }
    }
    copies
}

struct Planner {
    slots: Vec<Slot>,
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Planner {
    fn new(nodes: &[Node], slots: Vec<Slot>) -> Self {
        let mut planner = Self { first: vec![usize::MAX; slots.len()], last: vec![0; slots.len()], slots };
        for (i, node) in nodes.iter().enumerate() {
            for slot in node.reads.iter().chain(&node.writes).chain(&node.temporaries) {
                planner.touch(*slot, i);
            }
        }
        planner
    }

    fn touch(&mut self, slot: SlotId, i: usize) {
        self.first[slot.0] = self.first[slot.0].min(i);
        self.last[slot.0] = self.last[slot.0].max(i);
    }

    /// Storage for the partial results of a node's outer reductions. The domain is cut by its shape alone, so a kernel on
    /// unplaced views tells how many there are.
    fn partials(&mut self, i: usize, node: &Node) -> Vec<SlotId> {
        let Work::Chain(chain) = &node.work else { return Vec::new() };
        let nowhere = |v: &View| Access {
            base: ARENA,
            offset: 0,
            dtype: v.dtype,
            shape: v.shape.clone(),
            strides: v.strides.clone(),
        };
        if chain.outer_reductions() == 0 {
            return Vec::new();
        }
        let empty = View::dense(SlotId(0), &TensorType::new(DType::F64, &[]));
        let kernel = chain.kernel(&nowhere, &|_| nowhere(&empty));
        (0..chain.outer_reductions())
            .map(|k| {
                self.slots.push(Slot { bytes: 8 * kernel.partial_len(k), place: Place::Arena });
                self.first.push(i);
                self.last.push(i);
                SlotId(self.slots.len() - 1)
            })
            .collect()
    }

    /// Offsets of the slots in the arena, and its size.
    fn place(&self) -> (Vec<usize>, usize) {
        let lifetime = |s: usize| {
            let used = self.slots[s].place == Place::Arena && self.first[s] != usize::MAX;
            let bytes = if used { self.slots[s].bytes } else { 0 };
            Lifetime { bytes, first: self.first[s].min(self.last[s]), last: self.last[s] }
        };
        arena::place(&(0..self.slots.len()).map(lifetime).collect::<Vec<_>>())
    }

    fn access(&self, view: &View, offsets: &[usize], function: &Function) -> Access {
        let (base, start) = match self.slots[view.slot.0].place {
            Place::Arena => (ARENA, offsets[view.slot.0]),
            Place::Constant(offset) => (CONSTANTS, offset),
            Place::Parameter(i) => (PORTS + i, 0),
            Place::Output(i) => (PORTS + function.parameters().len() + i, 0),
        };
        Access {
            base,
            offset: start + view.offset * view.dtype.size(),
            dtype: view.dtype,
            shape: view.shape.clone(),
            strides: view.strides.clone(),
        }
    }
}
