//! Lowering of ops on integers, of ops along one axis, and of random numbers.

use arcane_mil::{AlongAxis, Function, Normalisation, Op, Unary};

use super::chain::is_chainable;
use super::lower::Lowering;
use super::view::View;
use super::work::Work;
use crate::EngineError;
use crate::kernels::index::AxisCut;
use crate::kernels::integer::{Elementwise, IntegerProduct, IntegerReduce, IntegerStep, is_supported};
use crate::kernels::lines::{Line, Lines};
use crate::kernels::random::Numbers;
use crate::kernels::{Access, Instruction};

/// Whether an op has an operand or a result that chains cannot hold.
pub(super) fn is_beyond_chains(function: &Function, index: usize) -> bool {
    let operation = &function.operations()[index];
    let values = operation.op.operands().into_iter().chain(operation.results.iter().copied());
    values.into_iter().any(|v| !is_chainable(function.ty(v).dtype))
}

impl Lowering<'_> {
    /// Lowers an element-wise op, reduction or product on integers.
    pub(super) fn integer(&mut self, i: usize) -> Result<(), EngineError> {
        let operation = self.function.operations()[i].clone();
        let result = operation.results[0];
        for v in operation.op.operands().into_iter().chain([result]) {
            let dtype = self.function.ty(v).dtype;
            if !is_supported(dtype) {
                return Err(self.unsupported(i, format!("{dtype} operands are not supported here")));
            }
        }
        let shape = self.function.ty(result).shape.clone();
        let out = self.visible(i, result);
        let work = match &operation.op {
            Op::Reduce { kind, x, axes, .. } => {
                let x = self.view(*x);
                let reduced = (0..x.shape.len()).map(|axis| axes.contains(&axis)).collect();
                Work::IntegerReduce { kind: *kind, x, reduced, out }
            }
            Op::Matmul { .. } | Op::Linear { .. } => {
                let (x, y, bias) = self.product_operands(i, &shape)?;
                // A `linear` has the rows of all its dimensions in one.
                let flat = [&x.shape[..x.shape.len() - 1], &shape[shape.len() - 1..]].concat();
                let out = out.reshape(&flat).expect("a fresh result is dense");
                let bias = bias.map(|bias| bias.broadcast(&flat));
                Work::IntegerProduct { x, y, bias, out }
            }
            op => {
                let operands = op.operands().into_iter().map(|v| self.view(v).broadcast(&shape)).collect();
                Work::Elementwise { step: step(op), operands, out }
            }
        };
        self.push_work(i, work);
        Ok(())
    }

    /// Lowers an op along one axis.
    pub(super) fn lines(&mut self, i: usize) -> Result<(), EngineError> {
        let operation = self.function.operations()[i].clone();
        let (v, axis, what, with_values) = match &operation.op {
            Op::AlongAxis(op) => {
                let (x, axis) = op.place();
                let (what, with_values) = match op {
                    AlongAxis::Extreme { largest, .. } => (Line::Extreme { largest: *largest }, false),
                    AlongAxis::Argsort { ascending, .. } => (Line::Order { ascending: *ascending }, false),
                    AlongAxis::TopK { ascending, .. } => (Line::Order { ascending: *ascending }, true),
                    AlongAxis::CumSum { exclusive, reverse, .. } => {
                        (Line::Sums { exclusive: *exclusive, reverse: *reverse }, true)
                    }
                };
                (x, axis, what, with_values)
            }
            Op::Normalisation(Normalisation::LocalResponse { x, size, alpha, beta, k }) => {
                let factor = alpha / *size as f64;
                (*x, 1, Line::LocalResponse { size: *size, factor, beta: *beta, k: *k }, true)
            }
            other => unreachable!("{} goes along no axis", other.name()),
        };
        let dtype = self.function.ty(v).dtype;
        if !is_supported(dtype) {
            return Err(self.unsupported(i, format!("{dtype} operands are not supported here")));
        }
        let x = self.dense(i, v)?;
        let mut results: Vec<View> = operation.results.iter().map(|&r| self.visible(i, r)).collect();
        let picks = match what {
            Line::Extreme { .. } => 1,
            _ => results[0].shape[axis],
        };
        let indices = (results.len() > usize::from(with_values)).then(|| results.pop()).flatten();
        self.push_work(i, Work::Lines { what, axis, x, picks, values: results.pop(), indices });
        Ok(())
    }

    fn push_work(&mut self, i: usize, work: Work) {
        let (reads, writes): (Vec<&View>, Vec<&View>) = match &work {
            Work::Elementwise { operands, out, .. } => (operands.iter().collect(), vec![out]),
            Work::IntegerReduce { x, out, .. } => (vec![x], vec![out]),
            Work::IntegerProduct { x, y, bias, out } => ([x, y].into_iter().chain(bias).collect(), vec![out]),
            Work::Lines { x, values, indices, .. } => (vec![x], values.iter().chain(indices).collect()),
            _ => unreachable!("the work of another module"),
        };
        let slots = |views: Vec<&View>| views.into_iter().map(|v| v.slot).collect();
        let (reads, writes) = (slots(reads), slots(writes));
        self.node(work, i, reads, writes, Vec::new());
    }
}

/// The instruction of such work, on placed views.
pub(super) fn instruction(work: &Work, place: &dyn Fn(&View) -> Access) -> Instruction {
    match work {
        Work::Elementwise { step, operands, out } => Instruction::Elementwise(Elementwise {
            step: *step,
            operands: operands.iter().map(place).collect(),
            out: place(out),
        }),
        Work::IntegerReduce { kind, x, reduced, out } => Instruction::IntegerReduce(IntegerReduce {
            kind: *kind,
            x: place(x),
            reduced: reduced.clone(),
            out: place(out),
        }),
        Work::IntegerProduct { x, y, bias, out } => Instruction::IntegerProduct(IntegerProduct {
            x: place(x),
            y: place(y),
            bias: bias.as_ref().map(place),
            out: place(out),
        }),
        Work::Random { random, out } => {
            Instruction::Random(Numbers { random: random.clone(), out: place(out) })
        }
        Work::Lines { what, axis, x, picks, values, indices } => {
            let cut = AxisCut::new(&x.shape, *axis, *picks, true);
            Instruction::Lines(Lines {
                what: *what,
                x: place(x),
                cut,
                values: values.as_ref().map(place),
                indices: indices.as_ref().map(place),
            })
        }
        _ => unreachable!("the work of another module"),
    }
}

fn step(op: &Op) -> IntegerStep {
    match op {
        Op::Unary { kind: Unary::Identity, .. } | Op::Cast { .. } => IntegerStep::Convert,
        Op::Unary { kind, .. } => IntegerStep::Unary(*kind),
        Op::Binary { kind, .. } => IntegerStep::Binary(*kind),
        Op::Compare { kind, .. } => IntegerStep::Compare(*kind),
        Op::Select { .. } => IntegerStep::Select,
        Op::Fill { value, .. } => IntegerStep::Fill(*value as i64),
        other => unreachable!("{} is not element-wise", other.name()),
    }
}
