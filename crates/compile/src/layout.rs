//! Where ops run, and in which order the values of an engine's ops lie in memory.
//!
//! Engines have four dimensions, `[batch, channels, height, width]`. A value of a model, `[.., D]`, becomes `[1, D, 1, P]`
//! with all its positions in one row, so that a product with a weight needs no transpose, and neither does a sum over
//! channels. What an engine's op gives keeps the order of what it reads: reshapes and transposes of a model only rename
//! the parts of this order, and elements move where a product needs other neighbours, or where the host reads or writes.

mod elementwise;
mod order;
mod product;
mod structure;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arcane_mil::{Builder, Function, Op, Operation, Role, Unary, ValueId};
use arcane_tensor::{DType, Tensor};

use self::elementwise::Dims;
use self::order::Order;
use crate::plan::Place;

/// A function whose engine ops have the engine's shapes.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The function.
    pub(crate) function: Function,
    /// Where each of its ops runs. Constants run nowhere: each program that reads one has it.
    pub(crate) places: Vec<Place>,
    /// For each op the op of the original function that it stands for.
    pub(crate) origins: Vec<usize>,
}

/// An op cannot have the engine's shapes.
#[derive(Debug)]
pub(crate) struct Unplaceable {
    /// The index of the op in the original function.
    pub(crate) op: usize,
    /// Why not.
    pub(crate) why: String,
}

type Laying<T> = Result<T, String>;

/// The most axes of a value.
const MAX_RANK: usize = 5;

/// Rewrites the ops that `places` puts on the engine; values cross between engine and host through reshapes and transposes
/// on the host.
///
/// Products with a constant or a frozen weight become convolutions of one position with one position, whose weight is a
/// constant, except those of `products`, by index.
pub(crate) fn lay_out(
    function: &Function,
    places: &[Place],
    products: &BTreeSet<usize>,
) -> Result<Placed, Unplaceable> {
    let mut layer = Layer::new(function, products);
    for p in function.parameters() {
        let new = layer.builder.parameter(&p.name, function.ty(p.value).clone(), p.role);
        layer.host.insert(p.value, new);
    }
    for (i, operation) in function.operations().iter().enumerate() {
        layer.current = i;
        let laid = match (&operation.op, places[i]) {
            (Op::Const(_) | Op::Fill { .. }, _) => Ok(()),
            (_, Place::Engine) => layer.engine_op(operation),
            (_, Place::Host) => {
                layer.host_op(operation);
                Ok(())
            }
        };
        laid.map_err(|why| Unplaceable { op: i, why })?;
    }
    layer.outputs();
    Ok(Placed { function: layer.builder.finish(), places: layer.places, origins: layer.origins })
}

/// A value of the engine: `id` holds its elements in `order`, under some shape.
#[derive(Clone, Debug)]
struct Laid {
    id: ValueId,
    order: Order,
}

struct Layer<'a> {
    old: &'a Function,
    definitions: Vec<Option<usize>>,
    builder: Builder,
    places: Vec<Place>,
    origins: Vec<usize>,
    /// The old op that is being rewritten.
    current: usize,
    /// New values with the old ones' shapes, on the host.
    host: HashMap<ValueId, ValueId>,
    engine: HashMap<ValueId, Laid>,
    /// Old values in other orders, and shapes of new values: each is made once.
    ordered: HashMap<(ValueId, Vec<usize>, Vec<usize>), ValueId>,
    shaped: HashMap<(ValueId, Vec<usize>), ValueId>,
    /// What a reshape on the engine reshapes.
    unshaped: HashMap<ValueId, ValueId>,
    constants: HashMap<(ValueId, Vec<usize>, Vec<usize>), ValueId>,
    /// Old values that are weights or made of weights alone.
    weights: Vec<bool>,
    /// Those that are made of frozen weights alone.
    frozen: Vec<bool>,
    /// Ops that stay products.
    products: &'a BTreeSet<usize>,
}

impl<'a> Layer<'a> {
    fn new(old: &'a Function, products: &'a BTreeSet<usize>) -> Self {
        Self {
            old,
            definitions: old.definitions(),
            builder: Builder::new(old.name(), old.opset()),
            places: Vec::new(),
            origins: Vec::new(),
            current: 0,
            host: HashMap::new(),
            engine: HashMap::new(),
            ordered: HashMap::new(),
            shaped: HashMap::new(),
            unshaped: HashMap::new(),
            constants: HashMap::new(),
            weights: made_of(old, |role| matches!(role, Role::Param | Role::Constant)),
            frozen: made_of(old, |role| role == Role::Constant),
            products,
        }
    }

    fn engine_op(&mut self, operation: &Operation) -> Laying<()> {
        let result = operation.results[0];
        match &operation.op {
            Op::Unary { .. } | Op::Binary { .. } | Op::Compare { .. } | Op::Select { .. } => {
                self.elementwise(operation)
            }
            Op::Reduce { x, axes, keep_dims, kind } => self.reduce(result, *kind, *x, axes, *keep_dims),
            Op::Softmax { x, axis } => self.softmax(result, *x, *axis),
            Op::Matmul { x, y, transpose_x, transpose_y } => {
                self.matmul(result, [*x, *y], [*transpose_x, *transpose_y])
            }
            Op::Linear { x, weight, bias: None } => self.matmul(result, [*x, *weight], [false, true]),
            Op::Reshape { x, shape } => self.reshape(result, *x, shape),
            Op::Transpose { x, perm } => {
                let Laid { id, order } = self.laid(*x);
                self.engine.insert(result, Laid { id, order: order.transpose(perm) });
                Ok(())
            }
            Op::Concat { values, axis } => self.concat(result, values, *axis),
            Op::Split { x, axis, sizes } => self.split(operation, *x, *axis, sizes),
            Op::Tile { x, reps } => self.tile(result, *x, reps),
            Op::Linear { bias: Some(_), .. }
            | Op::Const(_)
            | Op::Fill { .. }
            | Op::Cast { .. }
            | Op::Logical { .. }
            | Op::Convolution(_)
            | Op::TransposedConvolution(_)
            | Op::Pool(_)
            | Op::Quantization(_)
            | Op::Constexpr(_)
            | Op::Recurrent(_)
            | Op::State(_)
            | Op::Einsum(_)
            | Op::Normalisation(_)
            | Op::Channelwise(_)
            | Op::AlongAxis(_)
            | Op::Random(_)
            | Op::ScaledDotProductAttention { .. }
            | Op::Gather { .. }
            | Op::GatherAlongAxis { .. }
            | Op::Scatter { .. }
            | Op::ScatterAlongAxis { .. }
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Dimensions(_)
            | Op::Rearrange(_)
            | Op::Join(_)
            | Op::Make(_)
            | Op::Index(_)
            | Op::Sample(_) => Err(format!("`{}` has no form on the engine", operation.op.name())),
        }
    }

    fn host_op(&mut self, operation: &Operation) {
        let op = operation.op.map_operands(|v| self.host_value(v));
        let results = self.push(Place::Host, op, operation.results[0]);
        for (&old, new) in operation.results.iter().zip(results) {
            self.builder.set_path(new, self.old.value(old).path.clone());
            self.host.insert(old, new);
        }
    }

    fn outputs(&mut self) {
        let outputs: Vec<ValueId> = self.old.outputs().iter().map(|o| self.host_value(o.value)).collect();
        let last_reads = self.last_reads();
        let definitions = self.builder.function().definitions();
        for (i, (o, mut value)) in self.old.outputs().iter().zip(outputs).enumerate() {
            let alias = self.old.aliases().iter().find(|a| a.output == i);
            let parameter = alias.map(|a| &self.old.parameters()[a.parameter]);
            let read = parameter.and_then(|p| last_reads.get(&self.host[&p.value]));
            if read.copied() > definitions[value.index()] {
                // The parameter is overwritten when the last reader of its old value is done.
                value = self.one(Place::Host, Op::Unary { kind: Unary::Identity, x: value }, o.value);
            }
            self.builder.output(&o.name, value);
            self.note(Place::Host);
            if let Some(p) = parameter {
                self.builder.alias(&o.name, &p.name);
            }
        }
    }

    /// The last op that reads the memory of each value, itself or reshaped.
    fn last_reads(&self) -> HashMap<ValueId, usize> {
        let mut memory: HashMap<ValueId, ValueId> = HashMap::new();
        let mut last = HashMap::new();
        for (i, operation) in self.builder.function().operations().iter().enumerate() {
            for v in operation.op.operands() {
                let of = memory.get(&v).copied().unwrap_or(v);
                last.insert(of, i);
                if let (Op::Reshape { .. }, Place::Host) = (&operation.op, self.places[i]) {
                    memory.insert(operation.results[0], of);
                }
            }
        }
        last
    }

    /// Appends an op that stands for the current one.
    ///
    /// # Panics
    /// If it is ill-typed: a bug of the layout.
    fn push(&mut self, place: Place, op: Op, named: ValueId) -> Vec<ValueId> {
        let path = self.old.value(named).path.clone();
        let results =
            self.builder.push_at(&path, op).unwrap_or_else(|e| panic!("a layout made an ill-typed op: {e}"));
        self.note(place);
        results
    }

    /// Notes the place of the ops appended since the last call.
    fn note(&mut self, place: Place) {
        let count = self.builder.function().operations().len();
        self.places.resize(count, place);
        self.origins.resize(count, self.current);
    }

    fn one(&mut self, place: Place, op: Op, named: ValueId) -> ValueId {
        self.push(place, op, named)[0]
    }

    /// A constant of the old function.
    fn constant(&self, v: ValueId) -> Option<&'a Op> {
        let op = &self.old.operations()[self.definitions[v.index()]?].op;
        matches!(op, Op::Const(_) | Op::Fill { .. }).then_some(op)
    }

    /// The old value on the host, in its own shape.
    fn host_value(&mut self, v: ValueId) -> ValueId {
        if let Some(&new) = self.host.get(&v) {
            return new;
        }
        let shape = self.old.ty(v).shape.clone();
        let new = if let Some(op) = self.constant(v) {
            self.one(Place::Host, op.clone(), v)
        } else {
            let Laid { id, order } = self.engine[&v].clone();
            let positions: Vec<usize> = (0..order.memory().len())
                .map(|atom| order.memory().iter().position(|&a| a == atom).expect("all atoms are in memory"))
                .collect();
            let id = self.rearranged(id, order.memory_sizes(), &positions, v);
            self.view(id, &shape)
        };
        self.host.insert(v, new);
        new
    }

    /// A value whose memory has parts of some sizes, with part `positions[i]` in place i, by the host.
    fn rearranged(
        &mut self,
        mut v: ValueId,
        mut sizes: Vec<usize>,
        positions: &[usize],
        named: ValueId,
    ) -> ValueId {
        if movement(&sizes, positions).0.len() <= MAX_RANK {
            return self.transposed(v, &sizes, positions, named);
        }
        // One part after the other comes to its place; each time three neighbouring blocks move at most.
        let mut parts: Vec<usize> = (0..sizes.len()).collect();
        for (to, part) in positions.iter().enumerate() {
            let from = parts.iter().position(|p| p == part).expect("a permutation");
            let mut step: Vec<usize> = (0..sizes.len()).collect();
            step[to..=from].rotate_right(1);
            v = self.transposed(v, &sizes, &step, named);
            parts[to..=from].rotate_right(1);
            sizes[to..=from].rotate_right(1);
        }
        v
    }

    fn transposed(&mut self, v: ValueId, sizes: &[usize], positions: &[usize], named: ValueId) -> ValueId {
        if positions.is_sorted() {
            return v;
        }
        let (dims, perm) = movement(sizes, positions);
        let x = self.view(v, &dims);
        self.one(Place::Host, Op::Transpose { x, perm }, named)
    }

    /// A value under another shape, on the host: memory is not touched.
    fn view(&mut self, v: ValueId, shape: &[usize]) -> ValueId {
        if self.builder.shape(v) == shape {
            return v;
        }
        let path = self.builder.function().value(v).path.clone();
        let op = Op::Reshape { x: v, shape: shape.to_vec() };
        let new = self.builder.push_at(&path, op).expect("as many elements as before")[0];
        self.note(Place::Host);
        new
    }

    /// A value of the engine under another shape.
    fn shape(&mut self, v: ValueId, shape: &[usize]) -> ValueId {
        let v = self.unshaped.get(&v).copied().unwrap_or(v);
        if self.builder.shape(v) == shape {
            return v;
        }
        if let Some(&new) = self.shaped.get(&(v, shape.to_vec())) {
            return new;
        }
        let path = self.builder.function().value(v).path.clone();
        let op = Op::Reshape { x: v, shape: shape.to_vec() };
        let new = self.builder.push_at(&path, op).expect("as many elements as before")[0];
        self.note(Place::Engine);
        self.shaped.insert((v, shape.to_vec()), new);
        self.unshaped.insert(new, v);
        new
    }

    /// Lets a value of the host that changes from call to call lie channels first, as all do that the engine makes.
    fn settle(&mut self, v: ValueId) -> Laying<()> {
        let free = !self.engine.contains_key(&v) && !self.weights[v.index()] && self.constant(v).is_none();
        if free {
            let order = Order::channels_first(&self.old.ty(v).shape);
            let dims = Dims::of(&order, |_| (), None)?.lengths;
            let id = self.realise(v, &order, &dims)?;
            self.engine.insert(v, Laid { id, order });
        }
        Ok(())
    }

    /// How a value lies, or is to lie if that is still free.
    fn laid_order(&self, v: ValueId) -> Order {
        if let Some(laid) = self.engine.get(&v) {
            return laid.order.clone();
        }
        let shape = &self.old.ty(v).shape;
        let natural = self.weights[v.index()] || self.constant(v).is_some();
        if natural { Order::natural(shape) } else { Order::channels_first(shape) }
    }

    /// The value on the engine, wherever it comes from.
    fn laid(&mut self, v: ValueId) -> Laid {
        if let Some(laid) = self.engine.get(&v) {
            return laid.clone();
        }
        let order = self.laid_order(v);
        let id = self.realise(v, &order, &order.memory_sizes()).expect("the order is its own");
        Laid { id, order }
    }

    /// The old value in an order, whose atoms are as fine as its own or finer, under a shape.
    fn realise(&mut self, v: ValueId, order: &Order, dims: &[usize]) -> Laying<ValueId> {
        if let Some(op) = self.constant(v) {
            return Ok(self.constant_in(v, op, order, dims));
        }
        if let Some(laid) = self.engine.get(&v).cloned() {
            let mut own = laid.order;
            for axis in 0..own.rank() {
                own.refine(axis, &order.sizes(axis))
                    .ok_or("axes are cut where they have no common factors")?;
            }
            if own.shape() != order.shape() || own.memory().len() != order.memory().len() {
                return Err("axes are cut where they have no common factors".into());
            }
            if own.memory() == order.memory() {
                return Ok(self.shape(laid.id, dims));
            }
            let moved = self.moved(v, laid.id, &own, order)?;
            return Ok(self.shape(moved, dims));
        }
        let key = (v, atoms_of(order), order.memory().to_vec());
        let moved = if let Some(&made) = self.ordered.get(&key) {
            made
        } else {
            let id = self.host_value(v);
            let id = self.rearranged(id, atoms_of(order), order.memory(), v);
            self.ordered.insert(key, id);
            id
        };
        Ok(self.view_for_engine(moved, dims))
    }

    /// A host value under the shape that an engine's op reads it in.
    fn view_for_engine(&mut self, v: ValueId, dims: &[usize]) -> ValueId {
        if self.builder.shape(v) == dims {
            return v;
        }
        if let Some(&new) = self.shaped.get(&(v, dims.to_vec())) {
            return new;
        }
        let new = self.view(v, dims);
        self.shaped.insert((v, dims.to_vec()), new);
        new
    }

    /// A value of the engine with its elements in another order, by a transpose.
    fn moved(&mut self, v: ValueId, id: ValueId, own: &Order, order: &Order) -> Laying<ValueId> {
        let key = (v, atoms_of(order), order.memory().to_vec());
        if let Some(&made) = self.ordered.get(&key) {
            return Ok(made);
        }
        let place = |atom: &usize| own.memory().iter().position(|a| a == atom).expect("the same atoms");
        let positions: Vec<usize> = order.memory().iter().map(place).collect();
        let (mut dims, mut perm) = movement(&own.memory_sizes(), &positions);
        if dims.len() > 4 {
            return Err(format!("its elements would move in {} dimensions, an engine has 4", dims.len()));
        }
        while dims.len() < 4 {
            dims.insert(0, 1);
            perm = std::iter::once(0).chain(perm.into_iter().map(|p| p + 1)).collect();
        }
        let source = self.shape(id, &dims);
        let new = self.one(Place::Engine, Op::Transpose { x: source, perm }, v);
        self.ordered.insert(key, new);
        Ok(new)
    }

    /// A constant of one number as a scalar, which broadcasts to any dimensions.
    fn number(&mut self, v: ValueId) -> Option<ValueId> {
        let op = self.constant(v).filter(|_| self.old.ty(v).len() == 1)?;
        Some(self.constant_in(v, op, &Order::natural(&[]), &[]))
    }

    /// A constant with its elements in an order, under a shape.
    fn constant_in(&mut self, v: ValueId, op: &Op, order: &Order, dims: &[usize]) -> ValueId {
        let dims = dims.to_vec();
        let key = (v, dims.clone(), order.memory().to_vec());
        if let Some(&made) = self.constants.get(&key) {
            return made;
        }
        let op = match op {
            Op::Const(t) if order.memory().is_sorted() => {
                Op::Const(Arc::new(Tensor::clone(t).reshape(&dims).expect("as many elements as before")))
            }
            Op::Const(t) => Op::Const(Arc::new(permuted(t, &atoms_of(order), order.memory(), &dims))),
            Op::Fill { dtype, value, .. } => Op::Fill { shape: dims, dtype: *dtype, value: *value },
            _ => unreachable!("`constant` gives constants"),
        };
        let new = self.one(Place::Host, op, v);
        self.constants.insert(key, new);
        new
    }
}

/// The transpose, as dimensions and their permutation, that puts part `positions[i]` of memory in place i. Parts that stay
/// neighbours move as one.
fn movement(sizes: &[usize], positions: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for &at in positions {
        match runs.last_mut() {
            Some(run) if run.last() == at.checked_sub(1).as_ref() => run.push(at),
            _ => runs.push(vec![at]),
        }
    }
    let mut sources: Vec<usize> = (0..runs.len()).collect();
    sources.sort_by_key(|&r| runs[r][0]);
    let dims = sources.iter().map(|&r| runs[r].iter().map(|&p| sizes[p]).product()).collect();
    let place = |r: usize| sources.iter().position(|&s| s == r).expect("a permutation");
    (dims, (0..runs.len()).map(place).collect())
}

/// The sizes of the atoms in the order of the axes.
fn atoms_of(order: &Order) -> Vec<usize> {
    (0..order.memory().len()).map(|a| order.size(a)).collect()
}

/// The elements of `t`, whose dimensions are `atoms`, in the order `memory` of them.
fn permuted(t: &Tensor, atoms: &[usize], memory: &[usize], dims: &[usize]) -> Tensor {
    let mut strides = vec![1; atoms.len()];
    for a in (0..atoms.len().saturating_sub(1)).rev() {
        strides[a] = strides[a + 1] * atoms[a + 1];
    }
    let size = t.dtype().size();
    let mut bytes = Vec::with_capacity(t.bytes().len());
    let mut index = vec![0; memory.len()];
    for _ in 0..t.len() {
        let at: usize = memory.iter().zip(&index).map(|(&a, &i)| strides[a] * i).sum();
        bytes.extend_from_slice(&t.bytes()[at * size..(at + 1) * size]);
        for d in (0..memory.len()).rev() {
            index[d] += 1;
            if index[d] < atoms[memory[d]] {
                break;
            }
            index[d] = 0;
        }
    }
    Tensor::from_bytes(t.dtype(), dims, &bytes).expect("as many elements as before")
}

/// Which values are parameters of some roles, or made of them and constants alone.
fn made_of(function: &Function, roles: impl Fn(Role) -> bool) -> Vec<bool> {
    let mut weights = vec![false; function.values().len()];
    let mut constants = vec![false; function.values().len()];
    for p in function.parameters() {
        weights[p.value.index()] = roles(p.role);
    }
    for operation in function.operations() {
        let operands = operation.op.operands();
        let fixed = operands.iter().all(|v| weights[v.index()] || constants[v.index()]);
        let weight = operands.iter().any(|v| weights[v.index()]);
        for r in &operation.results {
            weights[r.index()] = fixed && weight;
            constants[r.index()] = fixed && !weight;
        }
    }
    weights
}

/// Which values are weights, or made of weights and constants alone.
pub(crate) fn made_of_weights(function: &Function) -> Vec<bool> {
    made_of(function, |role| matches!(role, Role::Param | Role::Constant))
}

/// Where each op runs, by its kind and types: engines compute fp16 and nothing else, and have no arrays without elements. Ops
/// that are `hosted` run on the host.
pub(crate) fn places(function: &Function, hosted: impl Fn(usize) -> bool) -> Vec<Place> {
    let half = |v: &ValueId| {
        let ty = function.ty(*v);
        ty.dtype == DType::F16 && !ty.shape.contains(&0)
    };
    let definitions = function.definitions();
    let weights = made_of_weights(function);
    let mut places: Vec<Place> = Vec::with_capacity(function.operations().len());
    for (i, operation) in function.operations().iter().enumerate() {
        let operands = operation.op.operands();
        let all_half = operands.iter().chain(&operation.results).all(half);
        let is_weight = operation.results.iter().all(|r| weights[r.index()]);
        let on_engine = |v: &ValueId| definitions[v.index()].is_some_and(|d| places[d] == Place::Engine);
        let engine = all_half
            && !is_weight
            && !hosted(i)
            && match &operation.op {
                Op::Unary { .. }
                | Op::Binary { .. }
                | Op::Reduce { .. }
                | Op::Softmax { .. }
                | Op::Matmul { .. }
                | Op::Linear { bias: None, .. } => true,
                Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Concat { .. }
                | Op::Split { .. }
                | Op::Tile { .. } => operands.iter().any(on_engine),
                Op::Linear { .. }
                | Op::Const(_)
                | Op::Fill { .. }
                | Op::Cast { .. }
                | Op::Compare { .. }
                | Op::Logical { .. }
                | Op::Select { .. }
                | Op::Convolution(_)
                | Op::TransposedConvolution(_)
                | Op::Pool(_)
                | Op::Quantization(_)
                | Op::Constexpr(_)
                | Op::Recurrent(_)
                | Op::State(_)
                | Op::Einsum(_)
                | Op::Normalisation(_)
                | Op::Channelwise(_)
                | Op::AlongAxis(_)
                | Op::Random(_)
                | Op::ScaledDotProductAttention { .. }
                | Op::Gather { .. }
                | Op::GatherAlongAxis { .. }
                | Op::Scatter { .. }
                | Op::ScatterAlongAxis { .. }
                | Op::Slice(_)
                | Op::Pad(_)
                | Op::Dimensions(_)
                | Op::Rearrange(_)
                | Op::Join(_)
                | Op::Make(_)
                | Op::Index(_)
                | Op::Sample(_) => false,
            };
        places.push(if engine { Place::Engine } else { Place::Host });
    }
    places
}
