//! Ops that cut values and put them together.

use arcane_mil::{Op, Operation, ValueId};

use super::elementwise::Dims;
use super::order::Order;
use super::{Laid, Layer, Laying};
use crate::plan::Place;

impl Layer<'_> {
    pub(super) fn reshape(&mut self, result: ValueId, x: ValueId, shape: &[usize]) -> Laying<()> {
        let Laid { id, order } = self.laid(x);
        let laid = if let Some(order) = order.reshape(shape) {
            Laid { id, order }
        } else {
            let natural = Order::natural(&self.old.ty(x).shape);
            let id = self.realise_merged(x, &natural, &natural.memory_sizes())?;
            Laid { id, order: Order::natural(shape) }
        };
        self.engine.insert(result, laid);
        Ok(())
    }

    /// As `realise`, but the order's atoms may be coarser than the value's own.
    pub(super) fn realise_merged(&mut self, v: ValueId, order: &Order, dims: &[usize]) -> Laying<ValueId> {
        let mut finer = order.clone();
        if let Some(laid) = self.engine.get(&v) {
            for axis in 0..finer.rank() {
                finer
                    .refine(axis, &laid.order.sizes(axis))
                    .ok_or("axes are cut where they have no common factors")?;
            }
        }
        self.realise(v, &finer, dims)
    }

    pub(super) fn split(
        &mut self,
        operation: &Operation,
        x: ValueId,
        axis: usize,
        sizes: &[usize],
    ) -> Laying<()> {
        let mut order = self.laid_order(x);
        if order.merge(axis).is_none() {
            order = Order::channels_first(&self.old.ty(x).shape);
        }
        let atom = order.axis(axis).next().ok_or("its axis has length 1")?;
        let preferred = self.engine.get(&x).map(|laid| self.builder.shape(laid.id));
        let dims = Dims::of(&order, |a| a == atom, preferred.as_deref())?;
        let dim = dims.dim_of(atom);
        let x = self.realise_merged(x, &order, &dims.lengths)?;
        let op = Op::Split { x, axis: dim, sizes: sizes.to_vec() };
        let results = self.push(Place::Engine, op, operation.results[0]);
        for ((&old, id), &size) in operation.results.iter().zip(results).zip(sizes) {
            let mut order = order.clone();
            order.resize(axis, size);
            self.engine.insert(old, Laid { id, order });
        }
        Ok(())
    }

    pub(super) fn concat(&mut self, result: ValueId, values: &[ValueId], axis: usize) -> Laying<()> {
        let leader =
            values.iter().find(|v| self.engine.contains_key(v)).ok_or("nothing of it is on the engine")?;
        let mut order = self.laid_order(*leader);
        if order.merge(axis).is_none() {
            order = Order::channels_first(&self.old.ty(*leader).shape);
        }
        let total = self.old.ty(result).shape[axis];
        order.resize(axis, total);
        for v in values {
            let Some(laid) = self.engine.get(v) else { continue };
            for other in (0..order.rank()).filter(|&a| a != axis) {
                order
                    .refine(other, &laid.order.sizes(other))
                    .ok_or("axes are cut where they have no common factors")?;
            }
        }
        let atom = order.axis(axis).next().ok_or("its axis has length 1")?;
        let preferred = self.engine.get(leader).map(|laid| {
            let own = self.old.ty(*leader).shape[axis];
            self.builder.shape(laid.id).iter().map(|&d| if d == own { total } else { d }).collect::<Vec<_>>()
        });
        let dims = Dims::of(&order, |a| a == atom, preferred.as_deref())?;
        let dim = dims.dim_of(atom);
        let mut realised = Vec::with_capacity(values.len());
        for &v in values {
            let length = self.old.ty(v).shape[axis];
            let mut own = order.clone();
            own.resize(axis, length);
            let mut lengths = dims.lengths.clone();
            lengths[dim] = length;
            realised.push(self.realise_merged(v, &own, &lengths)?);
        }
        let id = self.one(Place::Engine, Op::Concat { values: realised, axis: dim }, result);
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }

    /// One axis of length 1, repeated: as many copies one after the other.
    pub(super) fn tile(&mut self, result: ValueId, x: ValueId, reps: &[usize]) -> Laying<()> {
        let repeated: Vec<usize> = (0..reps.len()).filter(|&a| reps[a] > 1).collect();
        let [axis] = *repeated.as_slice() else {
            return Err(format!("it repeats {} axes, an engine has a form for one", repeated.len()));
        };
        if self.old.ty(x).shape[axis] != 1 {
            return Err("it repeats an axis whose length is not 1".into());
        }
        let Laid { order: own, .. } = self.laid(x);
        let mut order = own.clone();
        order.resize(axis, reps[axis]);
        let atom = order.axis(axis).start;
        let dims = Dims::of(&order, |a| a == atom, None)?;
        let dim = dims.dim_of(atom);
        let mut lengths = dims.lengths.clone();
        lengths[dim] = 1;
        let x = self.realise(x, &own, &lengths)?;
        let id = self.one(Place::Engine, Op::Concat { values: vec![x; reps[axis]], axis: dim }, result);
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }
}
