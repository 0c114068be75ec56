//! Matrix products.

use arcane_mil::{Convolution, Op, ValueId};

use super::order::Order;
use super::{Laid, Layer, Laying};
use crate::plan::Place;

/// An operand of a product.
struct Factor {
    value: ValueId,
    order: Order,
    /// The axis that the result keeps, and the one that is summed over.
    free: usize,
    inner: usize,
}

/// An operand in the order in which it is multiplied.
struct Ready {
    id: ValueId,
    /// Whether the summed axis lies before the other.
    inner_first: bool,
}

impl Layer<'_> {
    /// `x·y` of the last two axes, each transposed first if `swapped` says so.
    ///
    /// The result lies channels first, `[weight's rows, positions]`, where one operand is a weight; as rows and columns where
    /// it is a matrix; and among activations so that the axis which comes before the summed one in y comes before the other
    /// in the result, which keeps heads `[.., E, S]`.
    pub(super) fn matmul(
        &mut self,
        result: ValueId,
        operands: [ValueId; 2],
        swapped: [bool; 2],
    ) -> Laying<()> {
        if operands.iter().any(|&v| self.old.ty(v).shape.len() < 2) {
            return Err("a vector is not a matrix".into());
        }
        let [x, y] = [0, 1].map(|side| {
            let value = operands[side];
            let rank = self.old.ty(value).shape.len();
            let last_is_inner = (side == 0) != swapped[side];
            let (free, inner) = if last_is_inner { (rank - 2, rank - 1) } else { (rank - 1, rank - 2) };
            (value, free, inner)
        });
        let is_batched = |value: ValueId| {
            let shape = &self.old.ty(value).shape;
            shape[..shape.len() - 2].iter().any(|&d| d != 1)
        };
        let batched = is_batched(y.0);
        let mut factor = |(value, free, inner): (ValueId, usize, usize)| -> Laying<Factor> {
            let order = if batched && !self.engine.contains_key(&value) {
                // What comes from the host with heads, a cache, stays as it is.
                Order::natural(&self.old.ty(value).shape)
            } else {
                self.settle(value)?;
                self.laid_order(value)
            };
            Ok(Factor { value, order, free, inner })
        };
        let (mut x, mut y) = (factor(x)?, factor(y)?);
        let (x_sizes, y_sizes) = (x.order.sizes(x.inner), y.order.sizes(y.inner));
        let uncommon = "the summed axes are cut where they have no common factors";
        x.order.refine(x.inner, &y_sizes).ok_or(uncommon)?;
        y.order.refine(y.inner, &x_sizes).ok_or(uncommon)?;
        if batched { self.batched_product(result, x, y) } else { self.plain_product(result, &x, &y) }
    }

    /// y is one matrix: all axes of x but the summed one are its rows.
    fn plain_product(&mut self, result: ValueId, x: &Factor, y: &Factor) -> Laying<()> {
        let rank = self.old.ty(result).shape.len();
        let rows: Vec<usize> = others(&x.order, x.inner);
        let columns: Vec<usize> = others(&y.order, y.inner);
        let (x_weight, y_weight) = (self.weights[x.value.index()], self.weights[y.value.index()]);
        let fixed = self.frozen[y.value.index()] || self.constant(y.value).is_some();
        let varies = !x_weight && self.constant(x.value).is_none();
        if fixed && varies && !self.products.contains(&self.current) {
            let order = result_order(rank, x, y, &rows, &columns, true);
            let id = self.convolution(result, x, y, &rows, &columns)?;
            self.engine.insert(result, Laid { id, order });
            return Ok(());
        }
        let a = self.ready(x, &[], &rows, &[1, 1])?;
        let b = self.ready(y, &[], &columns, &[1, 1])?;
        let transposed = match (x_weight, y_weight) {
            (false, true) => true,
            (true, false) => false,
            _ => rank > 2 && !b.inner_first,
        };
        let order = result_order(rank, x, y, &rows, &columns, transposed);
        let mut id = self.product(result, &a, &b, transposed);
        if transposed {
            let shape = self.builder.shape(id);
            id = self.shape(id, &[1, shape[2], 1, shape[3]]);
        }
        self.engine.insert(result, Laid { id, order });
        Ok(())
    }

    /// A product with a weight that is a constant for the engine's compiler: `[1, C, 1, P]` becomes `[1, O, 1, P]`.
    fn convolution(
        &mut self,
        result: ValueId,
        x: &Factor,
        weight: &Factor,
        positions: &[usize],
        outputs: &[usize],
    ) -> Laying<ValueId> {
        let length = |f: &Factor, atoms: &[usize]| atoms.iter().map(|&a| f.order.size(a)).product::<usize>();
        let inner: Vec<usize> = x.order.axis(x.inner).collect();
        let (channels, length_of_row) = (length(x, &inner), length(x, positions));
        let mut order = x.order.clone();
        order.set_memory([&inner, positions].concat());
        let operand = self.realise(x.value, &order, &[1, channels, 1, length_of_row])?;
        let mut order = weight.order.clone();
        let inner: Vec<usize> = weight.order.axis(weight.inner).collect();
        order.set_memory([outputs, &inner].concat());
        let kernel = self.realise(weight.value, &order, &[length(weight, outputs), channels, 1, 1])?;
        let op = Op::Convolution(Convolution::pointwise(operand, kernel, None, 4));
        Ok(self.one(Place::Engine, op, result))
    }

    fn batched_product(&mut self, result: ValueId, mut x: Factor, mut y: Factor) -> Laying<()> {
        let rank = self.old.ty(result).shape.len();
        let batch_rank = rank - 2;
        let (x_lead, y_lead) = (rank - x.order.rank(), rank - y.order.rank());
        for axis in 0..batch_rank {
            let (Some(in_x), Some(in_y)) = (axis.checked_sub(x_lead), axis.checked_sub(y_lead)) else {
                continue;
            };
            let (x_sizes, y_sizes) = (x.order.sizes(in_x), y.order.sizes(in_y));
            if !x_sizes.is_empty() && !y_sizes.is_empty() {
                let uncommon = "the batches are cut where they have no common factors";
                x.order.refine(in_x, &y_sizes).ok_or(uncommon)?;
                y.order.refine(in_y, &x_sizes).ok_or(uncommon)?;
            }
        }
        let sizes_of = |f: &Factor, lead: usize, axis: usize| {
            axis.checked_sub(lead).map_or(Vec::new(), |a| f.order.sizes(a))
        };
        let mut axes: Vec<Vec<usize>> = (0..batch_rank)
            .map(|axis| {
                let in_x = sizes_of(&x, x_lead, axis);
                if in_x.is_empty() { sizes_of(&y, y_lead, axis) } else { in_x }
            })
            .collect();
        axes.push(x.order.sizes(x.free));
        axes.push(y.order.sizes(y.free));
        // Batch atoms by axis and number, in the order of x, then those of y alone.
        let batch_of = |f: &Factor, lead: usize| -> Vec<(usize, usize)> {
            let is_batch = |&&a: &&usize| ![f.free, f.inner].contains(&f.order.axis_of(a));
            f.order
                .memory()
                .iter()
                .filter(is_batch)
                .map(|&a| {
                    let axis = f.order.axis_of(a);
                    (axis + lead, a - f.order.axis(axis).start)
                })
                .collect()
        };
        let (x_batch, y_batch) = (batch_of(&x, x_lead), batch_of(&y, y_lead));
        let y_only = y_batch.iter().filter(|b| !x_batch.contains(b));
        let batch: Vec<(usize, usize)> = x_batch.iter().chain(y_only).copied().collect();
        let has = |b: &(usize, usize)| (x_batch.contains(b), y_batch.contains(b));
        let mut groups: Vec<Vec<(usize, usize)>> = Vec::new();
        for &b in &batch {
            match groups.last_mut() {
                Some(group) if has(&group[0]) == has(&b) => group.push(b),
                _ => groups.push(vec![b]),
            }
        }
        if groups.len() > 2 {
            return Err(format!(
                "its batch has {} dimensions, an engine has 2 beside a matrix",
                groups.len()
            ));
        }
        let lengths = |of: &Vec<(usize, usize)>| -> Vec<usize> {
            let mut dims: Vec<usize> =
                groups
                    .iter()
                    .map(|g| {
                        if of.contains(&g[0]) {
                            g.iter().map(|&(axis, n)| axes[axis][n]).product()
                        } else {
                            1
                        }
                    })
                    .collect();
            while dims.len() < 2 {
                dims.insert(0, 1);
            }
            dims
        };
        let ready = |layer: &mut Self, f: &Factor, lead: usize, own: &Vec<(usize, usize)>| {
            let atoms: Vec<usize> = batch
                .iter()
                .filter(|b| own.contains(b))
                .map(|&(axis, n)| f.order.axis(axis - lead).start + n)
                .collect();
            let free: Vec<usize> =
                f.order.memory().iter().copied().filter(|&a| f.order.axis_of(a) == f.free).collect();
            Ok::<_, String>((layer.ready(f, &atoms, &free, &lengths(own))?, free))
        };
        let (a, rows) = ready(self, &x, x_lead, &x_batch)?;
        let (b, columns) = ready(self, &y, y_lead, &y_batch)?;
        let start = |axis: usize| -> usize { axes[..axis].iter().map(Vec::len).sum() };
        let batch_atoms: Vec<usize> = batch.iter().map(|&(axis, n)| start(axis) + n).collect();
        let row_atoms = renamed(&x.order, &rows, &axes, |_| rank - 2);
        let column_atoms = renamed(&y.order, &columns, &axes, |_| rank - 1);
        let transposed = !b.inner_first;
        let memory = if transposed {
            [batch_atoms, column_atoms, row_atoms].concat()
        } else {
            [batch_atoms, row_atoms, column_atoms].concat()
        };
        let id = self.product(result, &a, &b, transposed);
        self.engine.insert(result, Laid { id, order: Order::from_parts(&axes, memory) });
        Ok(())
    }

    /// `a·b`, or its transpose.
    fn product(&mut self, result: ValueId, a: &Ready, b: &Ready, transposed: bool) -> ValueId {
        let op = if transposed {
            Op::Matmul { x: b.id, y: a.id, transpose_x: b.inner_first, transpose_y: !a.inner_first }
        } else {
            Op::Matmul { x: a.id, y: b.id, transpose_x: a.inner_first, transpose_y: !b.inner_first }
        };
        self.one(Place::Engine, op, result)
    }

    /// An operand as `[batch.., inner, free]` or `[batch.., free, inner]`, whichever moves nothing; if none does, the first.
    fn ready(&mut self, f: &Factor, batch: &[usize], free: &[usize], batch_dims: &[usize]) -> Laying<Ready> {
        let inner: Vec<usize> = f.order.axis(f.inner).collect();
        let length = |atoms: &[usize]| atoms.iter().map(|&a| f.order.size(a)).product::<usize>();
        let last = [batch, free, &inner].concat();
        let inner_first = f.order.memory() != last;
        let (memory, matrix) = if inner_first {
            ([batch, &inner, free].concat(), [length(&inner), length(free)])
        } else {
            (last, [length(free), length(&inner)])
        };
        let mut order = f.order.clone();
        order.set_memory(memory);
        let id = self.realise(f.value, &order, &[batch_dims, &matrix].concat())?;
        Ok(Ready { id, inner_first })
    }
}

/// The order of a product with one matrix, whose columns lie before its rows if it is `transposed`.
fn result_order(
    rank: usize,
    x: &Factor,
    y: &Factor,
    rows: &[usize],
    columns: &[usize],
    transposed: bool,
) -> Order {
    let lead = rank - x.order.rank();
    let mut axes: Vec<Vec<usize>> = (0..x.order.rank() - 2).map(|a| x.order.sizes(a)).collect();
    axes.splice(0..0, vec![Vec::new(); lead]);
    axes.push(x.order.sizes(x.free));
    axes.push(y.order.sizes(y.free));
    let axis_in_result = |axis: usize| if axis == x.free { rank - 2 } else { axis + lead };
    let rows = renamed(&x.order, rows, &axes, axis_in_result);
    let columns = renamed(&y.order, columns, &axes, |_| rank - 1);
    let memory = if transposed { [columns, rows].concat() } else { [rows, columns].concat() };
    Order::from_parts(&axes, memory)
}

/// The atoms of all axes but one, in their order in memory.
fn others(order: &Order, axis: usize) -> Vec<usize> {
    order.memory().iter().copied().filter(|&a| order.axis_of(a) != axis).collect()
}

/// Atoms of an operand as atoms of the result, whose axes are given.
fn renamed(
    order: &Order,
    atoms: &[usize],
    axes: &[Vec<usize>],
    axis_in_result: impl Fn(usize) -> usize,
) -> Vec<usize> {
    atoms
        .iter()
        .map(|&a| {
            let own = order.axis_of(a);
            let axis = axis_in_result(own);
            axes[..axis].iter().map(Vec::len).sum::<usize>() + a - order.axis(own).start
        })
        .collect()
}
