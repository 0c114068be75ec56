//! From a function to nodes on storage: which value lives where, and which kernel computes it from what.

use std::collections::HashMap;
use std::sync::Arc;

use arcane_mil::{Function, Op, Reduce, Region, TensorType, Unary, ValueId, number_of};
use arcane_tensor::{DType, Tensor};

use super::chain::{Chain, ChainOp, ChainOperand, ChainStep, Level, is_chainable};
use super::fuse::{Cluster, Kind, Reduction, clusters, kind, reduction, regions_of, row_shape};
use super::silicon::Lookups;
use super::view::{SlotId, View};
use super::work::Work;
use crate::kernels::Lookup;
use crate::kernels::fused::Step;
use crate::kernels::integer::is_supported;
use crate::kernels::memory::ALIGNMENT;
use crate::{EngineError, Numerics};

/// Where a slot's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The buffer bound to parameter i.
    Parameter(usize),
    /// The buffer bound to output i.
    Output(usize),
    /// The constants, at a byte offset.
    Constant(usize),
    /// The arena; placed when lifetimes are known.
    Arena,
}

/// Storage of one value, or of several that lie in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Bytes.
    pub bytes: usize,
    /// Where.
    pub place: Place,
}

/// One kernel call.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// What to do.
    pub work: Work,
    /// The op that it stands for: order among ready nodes, and the place that errors name.
    pub op: usize,
    /// Slots read.
    pub reads: Vec<SlotId>,
    /// Slots written.
    pub writes: Vec<SlotId>,
    /// Slots that only this node uses.
    pub temporaries: Vec<SlotId>,
}

/// A lowered function.
pub(super) struct Lowered {
    /// All storage.
    pub slots: Vec<Slot>,
    /// Constants and their byte offsets.
    pub constants: Vec<(usize, Arc<Tensor>)>,
    /// Kernel calls in no particular order.
    pub nodes: Vec<Node>,
    /// The tables of steps that look up, in the Neural Engine's arithmetic.
    pub lookups: Option<Vec<Lookup>>,
}

/// Lowers a function.
///
/// The Neural Engine's arithmetic rounds where each op ends, so nothing is fused in it.
pub(super) fn lower(function: &Function, fuse: bool, numerics: Numerics) -> Result<Lowered, EngineError> {
    let lookups = match numerics {
        Numerics::Declared | Numerics::Fp32 => None,
        Numerics::Chip(tables) => Some(Lookups::of(function, tables)),
    };
    let fuse = fuse && lookups.is_none();
    let regions = if fuse { regions_of(function) } else { Vec::new() };
    let ops: Vec<Vec<usize>> = regions.iter().map(|r| r.ops.clone()).collect();
    let clusters = clusters(function, &ops, fuse);
    let mut lowering = Lowering::new(function, &regions, &clusters, lookups);
    lowering.place_operands();
    lowering.assign_views()?;
    for (c, cluster) in clusters.iter().enumerate() {
        match cluster {
            Cluster::Chain { ops, shape, row_axes } => lowering.chain(c, ops, shape, row_axes.as_ref())?,
            Cluster::Product { product, ops, shape } => lowering.product(c, *product, ops, shape)?,
            Cluster::Single(i) => lowering.single(*i)?,
            Cluster::Region(r) => lowering.region(&regions[*r])?,
        }
    }
    lowering.outputs()?;
    Ok(Lowered {
        slots: lowering.slots,
        constants: lowering.constants,
        nodes: lowering.nodes,
        lookups: lowering.lookups.map(|l| l.tables),
    })
}

pub(super) struct Lowering<'a> {
    pub(super) function: &'a Function,
    pub(super) definitions: Vec<Option<usize>>,
    users: Vec<Vec<usize>>,
    /// The cluster of each op that has one.
    cluster: Vec<Option<usize>>,
    in_region: Vec<bool>,
    output_of: HashMap<ValueId, usize>,
    slots: Vec<Slot>,
    constants: Vec<(usize, Arc<Tensor>)>,
    constant_bytes: usize,
    views: Vec<Option<View>>,
    /// Values that are computed right where their only reader wants them.
    placed: HashMap<ValueId, View>,
    nodes: Vec<Node>,
    /// In the Neural Engine's arithmetic its tables.
    pub(super) lookups: Option<Lookups>,
}

impl<'a> Lowering<'a> {
    fn new(function: &'a Function, regions: &[Region], list: &[Cluster], lookups: Option<Lookups>) -> Self {
        let mut users = vec![Vec::new(); function.values().len()];
        for (i, operation) in function.operations().iter().enumerate() {
            for v in operation.op.operands() {
                users[v.index()].push(i);
            }
        }
        let mut cluster = vec![None; function.operations().len()];
        let mut in_region = vec![false; function.operations().len()];
        for &op in regions.iter().flat_map(|r| &r.ops) {
            in_region[op] = true;
        }
        for (c, members) in list.iter().enumerate() {
            let ops: &[usize] = match members {
                Cluster::Chain { ops, .. } | Cluster::Product { ops, .. } => ops,
                Cluster::Single(i) => std::slice::from_ref(i),
                Cluster::Region(r) => &regions[*r].ops,
            };
            for &op in ops {
                cluster[op] = Some(c);
            }
        }
        let output_of = function.outputs().iter().enumerate().map(|(i, o)| (o.value, i)).collect();
        let mut lowering = Self {
            function,
            definitions: function.definitions(),
            users,
            cluster,
            in_region,
            output_of,
            slots: Vec::new(),
            constants: Vec::new(),
            constant_bytes: 0,
            views: vec![None; function.values().len()],
            placed: HashMap::new(),
            nodes: Vec::new(),
            lookups,
        };
        for (i, p) in function.parameters().iter().enumerate() {
            let slot = lowering.slot(function.ty(p.value).bytes(), Place::Parameter(i));
            lowering.views[p.value.index()] = Some(View::dense(slot, function.ty(p.value)));
        }
        lowering
    }

    fn slot(&mut self, bytes: usize, place: Place) -> SlotId {
        self.slots.push(Slot { bytes, place });
        SlotId(self.slots.len() - 1)
    }

    /// A dense view of fresh arena storage.
    pub(super) fn temporary(&mut self, dtype: DType, shape: &[usize]) -> View {
        let ty = TensorType::new(dtype, shape);
        let slot = self.slot(ty.bytes(), Place::Arena);
        View::dense(slot, &ty)
    }

    /// An error that names an op.
    pub(super) fn unsupported(&self, i: usize, why: impl Into<String>) -> EngineError {
        let operation = &self.function.operations()[i];
        EngineError::Unsupported {
            op: operation.op.name(),
            path: self.function.value(operation.results[0]).path.clone(),
            why: why.into(),
        }
    }

    /// Fresh storage for a value: where its only reader wants it, in its output's buffer, or in the arena.
    fn home(&mut self, v: ValueId) -> View {
        if let Some(view) = self.placed.get(&v) {
            return view.clone();
        }
        let ty = self.function.ty(v);
        let place = self.output_of.get(&v).map_or(Place::Arena, |&i| Place::Output(i));
        let slot = self.slot(ty.bytes(), place);
        View::dense(slot, ty)
    }

    /// Lets concat operands and scatter data be computed in place where they have no other reader.
    fn place_operands(&mut self) {
        for i in (0..self.function.operations().len()).rev() {
            let operation = &self.function.operations()[i];
            let result = operation.results[0];
            let wanted: Vec<(ValueId, usize, usize)> = match &operation.op {
                Op::Concat { values, axis } => {
                    let lengths = values.iter().map(|&v| (v, self.function.ty(v).shape[*axis]));
                    let starts = lengths.clone().scan(0, |at, (_, n)| Some(std::mem::replace(at, *at + n)));
                    lengths.zip(starts).map(|((v, _), start)| (v, *axis, start)).collect()
                }
                Op::Scatter { data, .. } | Op::ScatterAlongAxis { data, .. }
                    if self.function.ty(result).dtype == DType::F32 && !self.in_region[i] =>
                {
                    vec![(*data, 0, 0)]
                }
                _ => continue,
            };
            let whole = self.home(result);
            self.placed.insert(result, whole.clone());
            for (v, axis, start) in wanted {
                if self.can_place(v) {
                    let shape = &self.function.ty(v).shape;
                    let view = if *shape == whole.shape {
                        whole.clone()
                    } else {
                        whole.slice(axis, start, shape[axis])
                    };
                    self.placed.insert(v, view);
                }
            }
        }
    }

    /// Whether the op behind a value can write it where its only reader wants it.
    fn can_place(&self, v: ValueId) -> bool {
        let Some(i) = self.definitions[v.index()] else { return false };
        let op = &self.function.operations()[i].op;
        let writes_anywhere = !self.in_region[i]
            && matches!(kind(self.function, i), Kind::Chain | Kind::Product)
            && self.cluster[i].is_some()
            && !matches!(op, Op::Reduce { .. });
        writes_anywhere
            && self.users[v.index()].len() == 1
            && !self.output_of.contains_key(&v)
            && !self.placed.contains_key(&v)
    }

    /// Whether a value that op i computes is needed outside the op's cluster.
    fn is_visible(&self, v: ValueId, i: usize) -> bool {
        let inside = |&u: &usize| self.cluster[u].is_some() && self.cluster[u] == self.cluster[i];
        self.output_of.contains_key(&v) || !self.users[v.index()].iter().all(inside)
    }

    /// Gives every value that is in memory its view.
    fn assign_views(&mut self) -> Result<(), EngineError> {
        for i in 0..self.function.operations().len() {
            let operation = &self.function.operations()[i];
            match kind(self.function, i) {
                Kind::Window if self.cluster[i].is_none() => self.window(i)?,
                Kind::Constant | Kind::Window => {}
                Kind::Chain | Kind::Product | Kind::Single => {
                    for &r in &operation.results {
                        let outer = matches!(&operation.op, Op::Reduce { kind, x, axes, .. }
                            if !matches!(reduction(*kind, &self.function.ty(*x).shape, axes), Reduction::Row(_)));
                        if self.cluster[i].is_some() && (self.is_visible(r, i) || outer) {
                            self.views[r.index()] = Some(self.home(r));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The view of a value that has one.
    pub(super) fn known_view(&self, v: ValueId) -> Option<View> {
        self.views[v.index()].clone()
    }

    /// The tensor of a constant.
    pub(super) fn constant(&self, v: ValueId) -> Option<Arc<Tensor>> {
        match &self.function.operations()[self.definitions[v.index()]?].op {
            Op::Const(tensor) => Some(tensor.clone()),
            _ => None,
        }
    }

    /// The view of a value; constants are stored when first asked for.
    pub(super) fn view(&mut self, v: ValueId) -> View {
        if let Some(view) = &self.views[v.index()] {
            return view.clone();
        }
        let i = self.definitions[v.index()].expect("parameters have views");
        let Op::Const(tensor) = &self.function.operations()[i].op else {
            unreachable!("values that are read from memory have views");
        };
        let offset = self.constant_bytes;
        self.constant_bytes += tensor.bytes().len().next_multiple_of(ALIGNMENT);
        self.constants.push((offset, tensor.clone()));
        let slot = self.slot(tensor.bytes().len(), Place::Constant(offset));
        let view = View::dense(slot, self.function.ty(v));
        self.views[v.index()] = Some(view.clone());
        view
    }

    /// Adds a node that copies one view to another.
    pub(super) fn copy(&mut self, i: usize, from: View, to: View) -> Result<(), EngineError> {
        let (mut from, mut to) = (from, to);
        if matches!(from.dtype, DType::I32 | DType::U32) {
            // A plain copy moves bits, whatever they mean.
            (from.dtype, to.dtype) = (DType::F32, DType::F32);
        }
        if is_chainable(from.dtype) {
            let (reads, writes) = (vec![from.slot], vec![to.slot]);
            self.node(Work::Chain(Chain::copy(from, to)), i, reads, writes, Vec::new());
            return Ok(());
        }
        if from.is_dense() && to.is_dense() {
            let (reads, writes) = (vec![from.slot], vec![to.slot]);
            self.node(Work::Copy { from, to }, i, reads, writes, Vec::new());
            return Ok(());
        }
        if is_supported(from.dtype) {
            self.copy_elements(i, from, to);
            return Ok(());
        }
        Err(self.unsupported(i, format!("moving {} elements in this order is not supported", from.dtype)))
    }

    /// The view, or a dense copy of it.
    pub(super) fn dense(&mut self, i: usize, v: ValueId) -> Result<View, EngineError> {
        let view = self.view(v);
        self.dense_view(i, view)
    }

    fn dense_view(&mut self, i: usize, view: View) -> Result<View, EngineError> {
        if view.is_dense() {
            return Ok(view);
        }
        let to = self.temporary(view.dtype, &view.shape);
        self.copy(i, view, to.clone())?;
        Ok(to)
    }

    /// The view under another shape, copied if strides cannot say it.
    pub(super) fn reshaped(&mut self, i: usize, v: ValueId, shape: &[usize]) -> Result<View, EngineError> {
        let view = self.view(v);
        if let Some(reshaped) = view.reshape(shape) {
            return Ok(reshaped);
        }
        let dense = self.dense_view(i, view)?;
        Ok(dense.reshape(shape).expect("dense views take any shape"))
    }

    fn window(&mut self, i: usize) -> Result<(), EngineError> {
        let operation = &self.function.operations()[i];
        let result = operation.results[0];
        let view = match &operation.op {
            Op::Reshape { x, shape } => self.reshaped(i, *x, shape)?,
            Op::Transpose { x, perm } => self.view(*x).transpose(perm),
            Op::Unary { x, .. } => self.view(*x),
            Op::Split { x, axis, sizes } => {
                let whole = self.view(*x);
                let mut start = 0;
                for (&r, &size) in operation.results.iter().zip(sizes) {
                    self.views[r.index()] = Some(whole.slice(*axis, start, size));
                    start += size;
                }
                return Ok(());
            }
            Op::Tile { x, reps } => {
                let view = self.view(*x);
                let stretches = reps.iter().zip(&view.shape).all(|(&r, &d)| r == 1 || d == 1);
                let shape = self.function.ty(result).shape.clone();
                if stretches {
                    view.broadcast(&shape)
                } else {
                    let home = self.home(result);
                    let from = view.tiled(reps);
                    let to = home.reshape(&from.shape).expect("a fresh tile is dense");
                    self.copy(i, from, to)?;
                    home
                }
            }
            Op::Concat { values, axis } => {
                let whole = self.home(result);
                let mut start = 0;
                for v in values {
                    let size = self.function.ty(*v).shape[*axis];
                    if self.placed.get(v).is_none_or(|p| p.slot != whole.slot) {
                        let from = self.view(*v);
                        self.copy(i, from, whole.slice(*axis, start, size))?;
                    }
                    start += size;
                }
                whole
            }
            other => unreachable!("{} is no window", other.name()),
        };
        self.views[result.index()] = Some(view);
        Ok(())
    }

    /// Copies outputs that are windows on other values to their buffers.
    fn outputs(&mut self) -> Result<(), EngineError> {
        for (k, o) in self.function.outputs().iter().enumerate() {
            let view = self.view(o.value);
            if self.slots[view.slot.0].place == Place::Output(k) && view.is_dense() {
                continue;
            }
            let ty = self.function.ty(o.value);
            let slot = self.slot(ty.bytes(), Place::Output(k));
            let i = self.definitions[o.value.index()].expect("outputs are results of ops");
            self.copy(i, view, View::dense(slot, ty))?;
        }
        Ok(())
    }

    pub(super) fn node(
        &mut self,
        work: Work,
        op: usize,
        reads: Vec<SlotId>,
        writes: Vec<SlotId>,
        temporaries: Vec<SlotId>,
    ) {
        self.nodes.push(Node { work, op, reads, writes, temporaries });
    }

    fn chain(
        &mut self,
        cluster: usize,
        ops: &[usize],
        shape: &[usize],
        row_axes: Option<&Vec<usize>>,
    ) -> Result<(), EngineError> {
        let position: HashMap<usize, usize> = ops.iter().enumerate().map(|(p, &i)| (i, p)).collect();
        let mut chain = Chain { shape: shape.to_vec(), row_axes: row_axes.cloned(), ops: Vec::new() };
        for &i in ops {
            let op = self.chain_op(i, cluster, &position, &chain)?;
            chain.ops.push(op);
        }
        let (reads, writes): (Vec<_>, Vec<_>) =
            (chain.reads().map(|v| v.slot).collect(), chain.writes().map(|v| v.slot).collect());
        if !writes.is_empty() {
            let last = *ops.last().expect("clusters have ops");
            self.node(Work::Chain(chain), last, reads, writes, Vec::new());
        }
        Ok(())
    }

    pub(super) fn chain_op(
        &mut self,
        i: usize,
        cluster: usize,
        position: &HashMap<usize, usize>,
        chain: &Chain,
    ) -> Result<ChainOp, EngineError> {
        let operation = &self.function.operations()[i];
        let result = operation.results[0];
        let ty = self.function.ty(result).clone();
        for v in operation.op.operands().into_iter().chain([result]) {
            let dtype = self.function.ty(v).dtype;
            if !is_chainable(dtype) {
                return Err(self.unsupported(i, format!("{dtype} operands are not supported here")));
            }
        }
        let (step, round) = self.chain_step(&operation.op, &ty);
        let mut operands = Vec::new();
        for v in operation.op.operands() {
            operands.push(
                match (number_of(self.function, &self.definitions, v), self.definitions[v.index()]) {
                    (Some(c), _) => ChainOperand::Constant(c),
                    (None, Some(d)) if self.cluster[d] == Some(cluster) => {
                        ChainOperand::Internal(position[&d])
                    }
                    (None, _) => ChainOperand::External(self.view(v)),
                },
            );
        }
        if let Op::Fill { value, dtype, .. } = &operation.op {
            operands.push(ChainOperand::Constant(arcane_tensor::round_to(*dtype, *value) as f32));
        }
        let rows = chain.row_axes.as_ref().map(|axes| row_shape(&chain.shape, axes));
        let reduces = matches!(operation.op, Op::Reduce { .. });
        let level = if !reduces && ty.shape == chain.shape { Level::Full } else { Level::Row };
        let outer = matches!(step, ChainStep::Outer { .. });
        let store = (outer || self.is_visible(result, i)).then(|| {
            let view = self.view(result);
            match (&rows, level) {
                (Some(rows), Level::Row) if !outer => {
                    view.reshape(rows).expect("rows of reductions are dense")
                }
                _ => view,
            }
        });
        Ok(ChainOp { step, operands, level, round, store })
    }

    /// What a chain's op does, and whether it rounds to fp16.
    fn chain_step(&self, op: &Op, ty: &TensorType) -> (ChainStep, bool) {
        let round = ty.dtype == DType::F16;
        if let Some(step) = self.lookups.as_ref().and_then(|l| l.step(self.function, op)) {
            return (ChainStep::Step(step), round);
        }
        let step = match op {
            Op::Unary { kind: Unary::Identity, .. } | Op::Fill { .. } => return (ChainStep::Same, false),
            Op::Unary { kind, .. } => Step::Unary(*kind),
            Op::Binary { kind, .. } => Step::Binary(*kind),
            Op::Compare { kind, .. } => return (ChainStep::Step(Step::Compare(*kind)), false),
            Op::Logical { kind, .. } => return (ChainStep::Step(Step::Logical(*kind)), false),
            Op::Select { .. } => return (ChainStep::Step(Step::Select), false),
            Op::Cast { x, dtype } => match (self.function.ty(*x).dtype, dtype) {
                (DType::F32, DType::F16) => Step::Unary(Unary::Identity),
                (from, DType::Bool) if from != DType::Bool => return (ChainStep::Step(Step::Truth), false),
                _ => return (ChainStep::Same, false),
            },
            Op::Softmax { .. } => return (ChainStep::Softmax, round),
            Op::Reduce { kind, x, axes, .. } => {
                let all = match reduction(*kind, &self.function.ty(*x).shape, axes) {
                    Reduction::Row(_) if *kind == Reduce::LogSumExp => return (ChainStep::LogSumExp, round),
                    Reduction::Row(_) => return (ChainStep::Step(Step::Reduce(*kind)), round),
                    Reduction::Columns(_) => false,
                    Reduction::All => true,
                };
                return (ChainStep::Outer { kind: *kind, all }, false);
            }
            other => unreachable!("{} is no chain op", other.name()),
        };
        (ChainStep::Step(step), round)
    }
}
