//! Which ops are computed together: clusters of element-wise ops and reductions over one domain, and matrix products with
//! the element-wise ops that follow them.
//!
//! A cluster is computed in one pass, so it must not need, through memory, anything that depends on itself.

use std::collections::{BTreeSet, HashMap};

use arcane_mil::{Convolution, Function, Op, Reduce, Region, ValueId, regions};

use super::chain::is_chainable;
use super::integer::is_beyond_chains;
use super::moves::is_window;

/// Most ops of a cluster: its registers have to stay in cache.
const MAX_OPS: usize = 64;

/// What an op is for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A constant.
    Constant,
    /// A change of window; `concat` is one whose operands may be put in place.
    Window,
    /// Element-wise, softmax, or a reduction.
    Chain,
    /// A matrix product.
    Product,
    /// Anything else: a kernel of its own.
    Single,
}

/// How a reduction runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    /// Each row on its own; the row's axes.
    Row(Vec<usize>),
    /// Over rows, for each column; the columns' axes.
    Columns(Vec<usize>),
    /// Over everything.
    All,
}

/// Ops that are computed together.
#[derive(Clone, Debug)]
pub(super) enum Cluster {
    /// Element-wise ops and reductions.
    Chain {
        /// Indices of the ops, ascending.
        ops: Vec<usize>,
        /// The domain.
        shape: Vec<usize>,
        /// The axes of a row, where rows matter.
        row_axes: Option<Vec<usize>>,
    },
    /// A matrix product and element-wise ops over its result.
    Product {
        /// The product.
        product: usize,
        /// Indices of all ops, ascending.
        ops: Vec<usize>,
        /// The shape of the product's result.
        shape: Vec<usize>,
    },
    /// One op.
    Single(usize),
    /// A recognised region: its number.
    Region(usize),
}

/// What an op is.
pub(super) fn kind(function: &Function, index: usize) -> Kind {
    let operation = &function.operations()[index];
    let chainable = |v: &ValueId| is_chainable(function.ty(*v).dtype);
    match &operation.op {
        Op::Const(_) => Kind::Constant,
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Split { .. }
        | Op::Concat { .. }
        | Op::Tile { .. } => Kind::Window,
        Op::Slice(s) if is_window(s, &function.ty(operation.op.operands()[0]).shape) => Kind::Window,
        Op::Unary { kind: arcane_mil::Unary::Identity, x } if !chainable(x) => Kind::Window,
        Op::Unary { .. }
        | Op::Cast { .. }
        | Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Select { .. }
        | Op::Reduce { .. }
        | Op::Fill { .. }
        | Op::Matmul { .. }
        | Op::Linear { .. }
            if is_beyond_chains(function, index) =>
        {
            Kind::Single
        }
        Op::Unary { .. }
        | Op::Cast { .. }
        | Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Logical { .. }
        | Op::Select { .. }
        | Op::Reduce { .. }
        | Op::Softmax { .. }
        | Op::Fill { .. } => Kind::Chain,
        Op::Matmul { .. } | Op::Linear { .. } => Kind::Product,
        Op::Convolution(c) if is_row_product(function, c) => Kind::Product,
        Op::Convolution(_)
        | Op::TransposedConvolution(_)
        | Op::Pool(_)
        | Op::Quantization(_)
        | Op::Recurrent(_)
        | Op::Constexpr(_)
        | Op::State(_)
        | Op::Einsum(_)
        | Op::Normalisation(_)
        | Op::Channelwise(_)
        | Op::AlongAxis(_)
        | Op::Random(_)
        | Op::ScaledDotProductAttention { .. }
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Dimensions(_)
        | Op::Rearrange(_)
        | Op::Join(_)
        | Op::Make(_)
        | Op::Index(_)
        | Op::Sample(_)
        | Op::Gather { .. }
        | Op::GatherAlongAxis { .. }
        | Op::Scatter { .. }
        | Op::ScatterAlongAxis { .. } => Kind::Single,
    }
}

/// Whether a convolution is a product of the weight with rows of positions.
pub(super) fn is_row_product(function: &Function, c: &Convolution) -> bool {
    let (x, weight) = (&function.ty(c.x).shape, &function.ty(c.weight).shape);
    c.groups == 1 && c.is_pointwise(weight) && x[2..x.len() - 1].iter().all(|&d| d == 1)
}

/// How a reduction of `x` over `axes` runs.
pub(super) fn reduction(reduce: Reduce, shape: &[usize], axes: &[usize]) -> Reduction {
    let long = |&a: &usize| shape[a] > 1;
    let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
    let needs_rows = match reduce {
        Reduce::Prod | Reduce::L1Norm | Reduce::L2Norm | Reduce::LogSum | Reduce::LogSumExp => true,
        Reduce::Sum | Reduce::Mean | Reduce::Max | Reduce::Min | Reduce::SumSquare => false,
    };
    if needs_rows || !axes.iter().any(long) {
        return Reduction::Row(axes.to_vec());
    }
    if !kept.iter().any(long) {
        return Reduction::All;
    }
    let last_reduced = axes.iter().copied().filter(long).max();
    let first_kept = kept.iter().copied().filter(long).min();
    if last_reduced < first_kept { Reduction::Columns(kept) } else { Reduction::Row(axes.to_vec()) }
}

/// The domain of a chain op, and the row axes that it asks for.
fn domain(function: &Function, op: &Op, result: ValueId) -> (Vec<usize>, Option<Vec<usize>>) {
    match op {
        Op::Reduce { kind, x, axes, .. } => {
            let shape = function.ty(*x).shape.clone();
            let rows = match reduction(*kind, &shape, axes) {
                Reduction::Row(axes) | Reduction::Columns(axes) => Some(axes),
                Reduction::All => None,
            };
            (shape, rows)
        }
        Op::Softmax { x, axis } => (function.ty(*x).shape.clone(), Some(vec![*axis])),
        _ => (function.ty(result).shape.clone(), None),
    }
}

/// A domain's shape with one element a row.
pub(super) fn row_shape(shape: &[usize], row_axes: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &d)| if row_axes.contains(&i) { 1 } else { d }).collect()
}

struct Group {
    ops: Vec<usize>,
    shape: Vec<usize>,
    row_axes: Option<Vec<usize>>,
    /// Whether a reduction counts the domain's elements.
    reduces: bool,
    /// The matrix product whose result the domain is, if there is one.
    product: Option<usize>,
}

/// Groups a function's ops. `regions` are sets of ops that are computed together anyway.
pub(super) fn clusters(function: &Function, regions: &[Vec<usize>], fuse: bool) -> Vec<Cluster> {
    let mut fuser = Fuser::new(function, regions);
    let mut found = Vec::new();
    for (i, ops) in regions.iter().enumerate() {
        debug_assert!(!ops.is_empty());
        found.push((ops[0], Cluster::Region(i)));
    }
    for (i, operation) in function.operations().iter().enumerate() {
        if fuser.in_region[i] {
            continue;
        }
        match kind(function, i) {
            Kind::Constant | Kind::Window => {}
            Kind::Single => found.push((i, Cluster::Single(i))),
            Kind::Chain
                if matches!(operation.op, Op::Fill { .. }) && !fuser.must_store(operation.results[0]) => {}
            Kind::Chain | Kind::Product => fuser.place(i, fuse),
        }
    }
    if fuse {
        fuser.attach();
    }
    for Group { ops, shape, row_axes, product, .. } in fuser.groups.into_values() {
        let first = ops[0];
        let cluster = match product {
            Some(product) => Cluster::Product { product, ops, shape },
            None => Cluster::Chain { ops, shape, row_axes },
        };
        found.push((first, cluster));
    }
    found.sort_by_key(|(first, _)| *first);
    found.into_iter().map(|(_, cluster)| cluster).collect()
}

/// The regions that have a kernel; those that would leave no order to compute in are dropped.
pub(super) fn regions_of(function: &Function) -> Vec<Region> {
    let mut kept: Vec<Region> = Vec::new();
    for region in regions(function) {
        kept.push(region);
        let ops: Vec<Vec<usize>> = kept.iter().map(|r| r.ops.clone()).collect();
        if !is_acyclic(function, &ops) {
            kept.pop();
        }
    }
    kept
}

/// Whether putting ops together as regions leaves an order to compute in.
fn is_acyclic(function: &Function, regions: &[Vec<usize>]) -> bool {
    let fuser = Fuser::new(function, regions);
    regions.iter().enumerate().all(|(i, ops)| {
        let me = BTreeSet::from([function.operations().len() + i]);
        !fuser.reaches_itself(&me, ops)
    })
}

struct Fuser<'a> {
    function: &'a Function,
    definitions: Vec<Option<usize>>,
    in_region: Vec<bool>,
    /// The cluster of each computing op: its own index at first, `ops + r` for region r.
    cluster: Vec<usize>,
    /// Ops of each region.
    regions: Vec<Vec<usize>>,
    /// Computing ops that read an op's results, through windows.
    readers: Vec<Vec<usize>>,
    /// Computing ops behind each value.
    producers: Vec<Vec<usize>>,
    groups: HashMap<usize, Group>,
    /// How often each value is read, by ops and as an output.
    uses: Vec<usize>,
}

impl<'a> Fuser<'a> {
    fn new(function: &'a Function, regions: &[Vec<usize>]) -> Self {
        let n = function.operations().len();
        let mut in_region = vec![false; n];
        let mut cluster: Vec<usize> = (0..n).collect();
        for (r, ops) in regions.iter().enumerate() {
            for &op in ops {
                in_region[op] = true;
                cluster[op] = n + r;
            }
        }
        let mut producers: Vec<Vec<usize>> = vec![Vec::new(); function.values().len()];
        let mut readers = vec![Vec::new(); n];
        for (i, operation) in function.operations().iter().enumerate() {
            let mut behind: Vec<usize> =
                operation.op.operands().iter().flat_map(|v| producers[v.index()].iter().copied()).collect();
            behind.sort_unstable();
            behind.dedup();
            let passes = kind(function, i) == Kind::Window && !in_region[i];
            if !passes {
                for &p in &behind {
                    readers[p].push(i);
                }
                behind = if kind(function, i) == Kind::Constant { Vec::new() } else { vec![i] };
            }
            for r in &operation.results {
                producers[r.index()].clone_from(&behind);
            }
        }
        let mut uses = vec![0; function.values().len()];
        let read = function.operations().iter().flat_map(|o| o.op.operands());
        for v in read.chain(function.outputs().iter().map(|o| o.value)) {
            uses[v.index()] += 1;
        }
        let definitions = function.definitions();
        let (regions, groups) = (regions.to_vec(), HashMap::new());
        Self { function, definitions, in_region, cluster, regions, readers, producers, groups, uses }
    }

    /// Whether a fill has a reader that cannot take it as a number.
    fn must_store(&self, v: ValueId) -> bool {
        let f = self.function;
        f.outputs().iter().any(|o| o.value == v)
            || f.operations().iter().enumerate().any(|(i, o)| {
                o.op.operands().contains(&v) && (kind(f, i) != Kind::Chain || self.in_region[i])
            })
    }

    /// The op that computes a value that a cluster can hand on in registers.
    fn direct(&self, v: ValueId) -> Option<usize> {
        let i = self.definitions[v.index()]?;
        if self.in_region[i] || !matches!(kind(self.function, i), Kind::Chain | Kind::Product) {
            return None;
        }
        match &self.function.operations()[i].op {
            Op::Fill { .. } => None,
            Op::Reduce { kind, x, axes, .. } => {
                let row = matches!(reduction(*kind, &self.function.ty(*x).shape, axes), Reduction::Row(_));
                row.then_some(i)
            }
            _ => Some(i),
        }
    }

    /// Puts a chain op into the clusters of its operands where that is possible, else into one of its own. A product starts
    /// one: it reads its operands from memory.
    fn place(&mut self, i: usize, fuse: bool) {
        let operation = &self.function.operations()[i];
        let (shape, row_axes) = domain(self.function, &operation.op, operation.results[0]);
        let reduces = matches!(operation.op, Op::Reduce { .. } | Op::Softmax { .. });
        let product = (kind(self.function, i) == Kind::Product).then_some(i);
        self.groups.insert(i, Group { ops: vec![i], shape, row_axes, reduces, product });
        if !fuse || product.is_some() {
            return;
        }
        let mut candidates: Vec<usize> = Vec::new();
        for v in operation.op.operands() {
            let Some(cluster) = self.direct(v).map(|p| self.cluster[p]) else { continue };
            if self.groups[&cluster].product.is_none() || self.spares(v, i) {
                candidates.push(cluster);
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        for other in candidates.into_iter().rev() {
            self.try_merge(i, other);
        }
    }

    /// Whether computing op i right after a product keeps its operand `v` out of memory, for something no larger.
    fn spares(&self, v: ValueId, i: usize) -> bool {
        let result = self.function.operations()[i].results[0];
        let size = |v: ValueId| self.function.ty(v).dtype.size();
        let is_output = self.function.outputs().iter().any(|o| o.value == result);
        self.uses[v.index()] == 1 && (size(result) <= size(v) || is_output)
    }

    /// Puts clusters of element-wise ops behind the last product that they read. This comes after all ops are placed: an op
    /// that reads an early product only may be wanted late, and its result would lie in memory until then.
    fn attach(&mut self) {
        let mut clusters: Vec<usize> = self.groups.keys().copied().collect();
        clusters.sort_unstable();
        for cluster in clusters {
            let Some(Group { ops, product: None, .. }) = self.groups.get(&cluster) else { continue };
            let op = ops[0];
            let read = ops.iter().flat_map(|&i| self.function.operations()[i].op.operands());
            let products = read.filter_map(|v| self.direct(v)).map(|p| self.cluster[p]);
            let mut products: Vec<_> =
                products.filter_map(|c| self.groups[&c].product.map(|product| (product, c))).collect();
            products.sort_unstable();
            products.dedup();
            for (_, behind) in products.into_iter().rev() {
                if self.groups.get(&cluster).is_some_and(|g| g.product.is_none()) {
                    self.try_merge(op, behind);
                }
            }
        }
    }

    /// Merges the cluster of op `i` with another, if one domain holds both and an order remains.
    fn try_merge(&mut self, i: usize, other: usize) {
        let mine = self.cluster[i];
        if mine == other {
            return;
        }
        let (a, b) = (&self.groups[&other], &self.groups[&mine]);
        let Some((shape, row_axes)) = common_domain(a, b) else { return };
        let (reduces, product) = (a.reduces || b.reduces, a.product.or(b.product));
        let mut ops = [a.ops.as_slice(), b.ops.as_slice()].concat();
        ops.sort_unstable();
        if ops.len() > MAX_OPS || self.reaches_itself(&BTreeSet::from([mine, other]), &ops) {
            return;
        }
        let keep = other.min(mine);
        for &op in &ops {
            self.cluster[op] = keep;
        }
        self.groups.remove(&other);
        self.groups.remove(&mine);
        self.groups.insert(keep, Group { ops, shape, row_axes, reduces, product });
    }

    /// Whether the ops of `clusters`, taken as one, need through memory what depends on them.
    fn reaches_itself(&self, clusters: &BTreeSet<usize>, ops: &[usize]) -> bool {
        let is_region = clusters.iter().any(|&c| c >= self.function.operations().len());
        for &op in ops.iter().filter(|_| !is_region) {
            for v in self.function.operations()[op].op.operands() {
                let is_product = kind(self.function, op) == Kind::Product;
                let through_memory = is_product || self.direct(v).is_none();
                let mine = |p: &usize| clusters.contains(&self.cluster[*p]);
                if through_memory && self.producers[v.index()].iter().any(mine) {
                    return true;
                }
            }
        }
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = Vec::new();
        let push = |op: usize, seen: &mut BTreeSet<usize>, open: &mut Vec<usize>| {
            for &reader in &self.readers[op] {
                let c = self.cluster[reader];
                if !clusters.contains(&c) && seen.insert(c) {
                    open.push(c);
                }
            }
        };
        for &op in ops {
            push(op, &mut seen, &mut open);
        }
        while let Some(c) = open.pop() {
            let n = self.function.operations().len();
            let single = [c];
            let members: &[usize] = match self.groups.get(&c) {
                Some(group) => &group.ops,
                None if c >= n => &self.regions[c - n],
                None => &single,
            };
            for &op in members {
                if self.readers[op].iter().any(|&r| clusters.contains(&self.cluster[r])) {
                    return true;
                }
                push(op, &mut seen, &mut open);
            }
        }
        false
    }
}

/// The domain that holds two groups, if one does: equal domains, or one that is the other's rows. A tile of a product has
/// no whole rows, so nothing that needs them goes with one.
fn common_domain(a: &Group, b: &Group) -> Option<(Vec<usize>, Option<Vec<usize>>)> {
    let products = [a, b].iter().filter(|g| g.product.is_some()).count();
    let needs_rows = [a, b].iter().any(|g| g.reduces || g.row_axes.is_some());
    if products == 2 || products == 1 && needs_rows {
        return None;
    }
    let row_axes = match (&a.row_axes, &b.row_axes) {
        (Some(x), Some(y)) if x != y => return None,
        (x, y) => x.clone().or_else(|| y.clone()),
    };
    if a.shape == b.shape {
        return Some((a.shape.clone(), row_axes));
    }
    let holds = |outer: &Group, inner: &Group| {
        !inner.reduces
            && outer.row_axes.as_ref().is_some_and(|axes| row_shape(&outer.shape, axes) == inner.shape)
    };
    match (holds(a, b), holds(b, a)) {
        (true, _) => Some((a.shape.clone(), row_axes)),
        (_, true) => Some((b.shape.clone(), row_axes)),
        _ => None,
    }
}
