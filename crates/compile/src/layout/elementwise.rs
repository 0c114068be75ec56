//! Ops that keep their operands' order: element-wise ops, reductions, softmax.

use arcane_mil::{Op, Operation, Reduce, ValueId};

use super::order::Order;
use super::{Laid, Layer, Laying};
use crate::plan::Place;

/// Dimensions of the engine: each is a run of atoms in memory.
pub(super) struct Dims {
    /// The lengths, four of them.
    pub(super) lengths: Vec<usize>,
    /// The atoms of each.
    pub(super) atoms: Vec<Vec<usize>>,
}

impl Dims {
    /// Dimensions for an order whose atoms differ in `mark`; atoms of one dimension do not. `preferred` is taken if it fits.
    pub(super) fn of<M: PartialEq>(
        order: &Order,
        mark: impl Fn(usize) -> M,
        preferred: Option<&[usize]>,
    ) -> Laying<Self> {
        if let Some(dims) = preferred.and_then(|p| Self::fit(order, &mark, p)) {
            return Ok(dims);
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for &atom in order.memory() {
            match groups.last_mut() {
                Some(group) if mark(group[0]) == mark(atom) => group.push(atom),
                _ => groups.push(vec![atom]),
            }
        }
        if let [group] = groups.as_mut_slice() {
            // Channels and positions.
            let first = order.axis_of(group[0]);
            let channels = group.iter().take_while(|&&a| order.axis_of(a) == first).count();
            let positions = group.split_off(channels);
            groups.extend((!positions.is_empty()).then_some(positions));
        }
        let none = Vec::new;
        let atoms = match groups.len() {
            0 => vec![none(), none(), none(), none()],
            1 => [vec![none()], groups, vec![none(), none()]].concat(),
            2 => {
                let width = groups.pop().unwrap_or_default();
                [vec![none()], groups, vec![none(), width]].concat()
            }
            3 => [vec![none()], groups].concat(),
            4 => groups,
            n => return Err(format!("it would have {n} dimensions, an engine has 4")),
        };
        let lengths = atoms.iter().map(|group| group.iter().map(|&a| order.size(a)).product()).collect();
        Ok(Self { lengths, atoms })
    }

    /// The atoms of given dimensions, if none of them is cut and all of one dimension have one mark.
    fn fit<M: PartialEq>(order: &Order, mark: impl Fn(usize) -> M, lengths: &[usize]) -> Option<Self> {
        let mut left = order.memory().iter().copied().peekable();
        let mut atoms = Vec::new();
        for &length in lengths {
            let (mut group, mut product) = (Vec::new(), 1);
            while product < length {
                let atom = left.next()?;
                product *= order.size(atom);
                if group.first().is_some_and(|&first| mark(first) != mark(atom)) {
                    return None;
                }
                group.push(atom);
            }
            if product != length {
                return None;
            }
            atoms.push(group);
        }
        (left.peek().is_none() && lengths.len() == 4).then(|| Self { lengths: lengths.to_vec(), atoms })
    }

    /// The dimension of an atom.
    pub(super) fn dim_of(&self, atom: usize) -> usize {
        self.atoms.iter().position(|group| group.contains(&atom)).expect("every atom has a dimension")
    }
}

impl Layer<'_> {
    pub(super) fn elementwise(&mut self, operation: &Operation) -> Laying<()> {
        let result = operation.results[0];
        let operands = operation.op.operands();
        let shape = self.old.ty(result).shape.clone();
        let whole = operands.iter().copied().find(|&v| self.old.ty(v).len() == self.old.ty(result).len());
        whole.map_or(Ok(()), |v| self.settle(v))?;
        let order = self.joint_order(&operands, &shape)?;
        let missing: Vec<Vec<usize>> = operands.iter().map(|&v| self.missing(v, &shape)).collect();
        let leader = self.leader(&operands).map(|v| self.builder.shape(self.engine[&v].id));
        let mark = |atom: usize| -> Vec<bool> {
            let axis = order.axis_of(atom);
            missing.iter().map(|axes| axes.contains(&axis)).collect()
        };
        let dims = Dims::of(&order, mark, leader.as_deref())?;
        let mut realised = Vec::with_capacity(operands.len());
        for (&v, axes) in operands.iter().zip(&missing) {
            if let Some(number) = self.number(v) {
                realised.push(number);
                continue;
            }
            let own = order.without(axes).with_rank(shape.len());
            let is_there =
                |group: &Vec<usize>| group.first().is_none_or(|&a| !axes.contains(&order.axis_of(a)));
            let lengths: Vec<usize> =
                dims.lengths.iter().zip(&dims.atoms).map(|(&l, g)| if is_there(g) { l } else { 1 }).collect();
            let rank = self.old.ty(v).shape.len();
            let own = own.drop_axes(&(0..shape.len() - rank).collect::<Vec<_>>());
            realised.push(self.realise(v, &own, &lengths)?);
        }
        let mut next = realised.into_iter();
        let op = operation.op.map_operands(|_| next.next().expect("one for each operand"));
        let id = self.one(Place::Engine, op, result);
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }

    /// The operand of the engine with the most elements.
    fn leader(&self, operands: &[ValueId]) -> Option<ValueId> {
        let laid = operands.iter().copied().filter(|v| self.engine.contains_key(v));
        laid.rev().max_by_key(|&v| self.old.ty(v).len())
    }

    /// The axes of `shape` along which an operand is broadcast.
    fn missing(&self, v: ValueId, shape: &[usize]) -> Vec<usize> {
        let own = &self.old.ty(v).shape;
        let lead = shape.len() - own.len();
        (0..shape.len()).filter(|&a| shape[a] != 1 && (a < lead || own[a - lead] == 1)).collect()
    }

    /// An order of `shape` that follows the leading operand and is as fine as any.
    fn joint_order(&self, operands: &[ValueId], shape: &[usize]) -> Laying<Order> {
        let rank = shape.len();
        // What does not have all axes does not say how they lie.
        let whole =
            self.leader(operands).filter(|&v| self.old.ty(v).len() == shape.iter().product::<usize>());
        let mut order = match whole {
            Some(v) => self.engine[&v].order.clone().with_rank(rank),
            None => Order::channels_first(shape),
        };
        for v in operands {
            let Some(laid) = self.engine.get(v) else { continue };
            let other = laid.order.clone().with_rank(rank);
            for axis in 0..rank {
                let sizes = other.sizes(axis);
                if !sizes.is_empty() {
                    order.refine(axis, &sizes).ok_or("axes are cut where they have no common factors")?;
                }
            }
        }
        Ok(order)
    }

    pub(super) fn reduce(
        &mut self,
        result: ValueId,
        kind: Reduce,
        x: ValueId,
        axes: &[usize],
        keep_dims: bool,
    ) -> Laying<()> {
        self.settle(x)?;
        let order = self.laid_order(x);
        let is_reduced = |atom: usize| axes.contains(&order.axis_of(atom));
        let preferred = self.engine.get(&x).map(|laid| self.builder.shape(laid.id));
        let dims = Dims::of(&order, is_reduced, preferred.as_deref())?;
        let reduced: Vec<usize> =
            (0..4).filter(|&d| dims.atoms[d].first().is_some_and(|&a| is_reduced(a))).collect();
        if reduced.is_empty() {
            return Err("it reduces axes of length 1 alone".into());
        }
        let x = self.realise(x, &order, &dims.lengths)?;
        let id = self.one(Place::Engine, Op::Reduce { kind, x, axes: reduced, keep_dims: true }, result);
        let mut order = order.without(axes);
        if !keep_dims {
            order = order.drop_axes(axes);
        }
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }

    pub(super) fn softmax(&mut self, result: ValueId, x: ValueId, axis: usize) -> Laying<()> {
        self.settle(x)?;
        let mut order = self.laid_order(x);
        if order.merge(axis).is_none() {
            order = Order::natural(&self.old.ty(x).shape);
        }
        let atom = order.axis(axis).next().ok_or("its axis has length 1")?;
        let preferred = self.engine.get(&x).map(|laid| self.builder.shape(laid.id));
        let dims = Dims::of(&order, |a| a == atom, preferred.as_deref())?;
        let dim = dims.dim_of(atom);
        let x = self.realise_merged(x, &order, &dims.lengths)?;
        let id = self.one(Place::Engine, Op::Softmax { x, axis: dim }, result);
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }
}
