//! From a chain of element-wise ops and reductions on views to a kernel over one domain.

use arcane_mil::{Binary, Reduce, Unary};
use arcane_tensor::DType;

use super::view::{SlotId, View};
use crate::kernels::Access;
use crate::kernels::fused::{Fused, Micro, Operand, Outer, Port, Step, Store, Target};

/// Where a chain's op finds an operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ChainOperand {
    /// The result of an earlier op of the chain.
    Internal(usize),
    /// Memory, broadcast to the domain.
    External(View),
    /// A number.
    Constant(f32),
    /// The product that the chain follows.
    Product,
}

/// How many values a result has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// One an element of the domain.
    Full,
    /// One a row.
    Row,
}

/// What an op of a chain does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ChainStep {
    /// One kernel step.
    Step(Step),
    /// The operand itself, under another name.
    Same,
    /// Softmax of a row.
    Softmax,
    /// Log-sum-exp of a row.
    LogSumExp,
    /// A reduction over rows, and over columns if `all`.
    Outer {
        /// Which.
        kind: Reduce,
        /// Whether columns are reduced, too.
        all: bool,
    },
}

/// An op of a chain.
#[derive(Clone, Debug)]
pub(super) struct ChainOp {
    /// What.
    pub step: ChainStep,
    /// Of what.
    pub operands: Vec<ChainOperand>,
    /// How many values.
    pub level: Level,
    /// Whether the result is fp16.
    pub round: bool,
    /// Where the result is stored, if it is; broadcastable to the domain (an outer reduction's is dense).
    pub store: Option<View>,
}

/// A chain over a domain.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The domain.
    pub shape: Vec<usize>,
    /// Axes of the domain that make up a row, where rows matter.
    pub row_axes: Option<Vec<usize>>,
    /// The ops in order.
    pub ops: Vec<ChainOp>,
}

impl Chain {
    /// Appends the steps from an fp32 product to its op's result: the bias is added first, then the result is rounded once.
    pub(super) fn product_result(&mut self, bias: Option<ChainOperand>, round: bool, store: Option<View>) {
        let mut add = |step, operands, round, store| {
            self.ops.push(ChainOp { step, operands, level: Level::Full, round, store });
            self.ops.len() - 1
        };
        let product = vec![ChainOperand::Product];
        if let Some(bias) = bias {
            let sum = ChainStep::Step(Step::Binary(Binary::Add));
            let product = add(ChainStep::Same, product, false, None);
            add(sum, vec![ChainOperand::Internal(product), bias], round, store);
        } else if round {
            add(ChainStep::Step(Step::Unary(Unary::Identity)), product, true, store);
        } else {
            add(ChainStep::Same, product, false, store);
        }
    }

    /// A copy of one view to another of the same shape.
    pub(super) fn copy(from: View, to: View) -> Self {
        let op = ChainOp {
            step: ChainStep::Same,
            operands: vec![ChainOperand::External(from)],
            level: Level::Full,
            round: false,
            store: Some(to.clone()),
        };
        Self { shape: to.shape, row_axes: None, ops: vec![op] }
    }

    /// Elements of the domain.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The views that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = &View> {
        self.ops.iter().flat_map(|op| &op.operands).filter_map(|o| match o {
            ChainOperand::External(view) => Some(view),
            ChainOperand::Internal(_) | ChainOperand::Constant(_) | ChainOperand::Product => None,
        })
    }

    /// The views that it writes.
    pub(super) fn writes(&self) -> impl Iterator<Item = &View> {
        self.ops.iter().filter_map(|op| op.store.as_ref())
    }

    /// Whether an output may share the memory of a parameter that the chain reads: each element is read before it is written.
    pub(super) fn reads_before_writing(&self, parameter: SlotId, output: SlotId) -> bool {
        let place = |v: &View| (v.offset, v.broadcast(&self.shape).strides);
        let written: Vec<_> = self.writes().filter(|v| v.slot == output).collect();
        let read: Vec<_> = self.reads().filter(|v| v.slot == parameter).map(place).collect();
        written.iter().all(|w| w.len() == self.len() && read.iter().all(|r| *r == place(w)))
    }

    /// How many reductions over rows it has.
    pub(super) fn outer_reductions(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op.step, ChainStep::Outer { .. })).count()
    }

    /// The kernel. `resolve` places views; `partials` places the partial results of the outer reductions.
    pub(super) fn kernel(
        &self,
        resolve: &dyn Fn(&View) -> Access,
        partials: &dyn Fn(usize) -> Access,
    ) -> Fused {
        let domain = Domain::of(self);
        let mut emitter = Emitter {
            chain: self,
            domain: &domain,
            resolve,
            loads: Vec::new(),
            load_views: Vec::new(),
            micros: Vec::new(),
            stores: Vec::new(),
            reductions: Vec::new(),
            results: Vec::new(),
            last_use: self.last_uses(),
            registers: Registers::default(),
            row_registers: Registers::default(),
        };
        for i in 0..self.ops.len() {
            emitter.emit(i, partials);
        }
        Fused {
            outer: domain.outer.iter().map(|d| d.len).collect(),
            cols: domain.cols(),
            loads: emitter.loads,
            micros: emitter.micros,
            stores: emitter.stores,
            reductions: emitter.reductions,
            registers: emitter.registers.most,
            row_registers: emitter.row_registers.most,
            whole_rows: self.row_axes.is_some(),
        }
    }

    /// For each op the last op that reads its result; the chain's length where it is stored at the end.
    fn last_uses(&self) -> Vec<usize> {
        let mut last: Vec<usize> = (0..self.ops.len()).collect();
        for (i, op) in self.ops.iter().enumerate() {
            for operand in &op.operands {
                if let ChainOperand::Internal(j) = operand {
                    last[*j] = last[*j].max(i);
                }
            }
        }
        for (i, op) in self.ops.iter().enumerate().rev() {
            let kept = op.store.is_some();
            if kept {
                last[i] = self.ops.len();
            }
            if let (ChainStep::Same, Some(ChainOperand::Internal(j))) = (op.step, op.operands.first()) {
                last[*j] = last[*j].max(last[i]);
            }
            if let (ChainStep::Outer { .. }, Some(ChainOperand::Internal(j))) = (op.step, op.operands.first())
            {
                last[*j] = self.ops.len();
            }
        }
        last
    }
}

/// A run of domain dimensions that every view crosses with one stride.
#[derive(Clone, Copy, Debug)]
struct Dimension {
    len: usize,
    /// The last of the domain's axes in the run; its stride is the run's.
    axis: usize,
}

/// The domain's dimensions, merged where every view allows it.
struct Domain {
    outer: Vec<Dimension>,
    inner: Vec<Dimension>,
}

impl Domain {
    fn of(chain: &Chain) -> Self {
        let views: Vec<View> = chain
            .reads()
            .cloned()
            .chain(
                chain
                    .ops
                    .iter()
                    .filter(|op| !matches!(op.step, ChainStep::Outer { .. }))
                    .filter_map(|op| op.store.clone()),
            )
            .map(|v| v.broadcast(&chain.shape))
            .collect();
        let merge = |axes: &[usize]| {
            let mut dims: Vec<Dimension> = Vec::new();
            for &axis in axes {
                let len = chain.shape[axis];
                if len == 1 {
                    continue;
                }
                let fits = |d: &Dimension| views.iter().all(|v| v.strides[d.axis] == v.strides[axis] * len);
                match dims.last_mut() {
                    Some(d) if fits(d) => *d = Dimension { len: d.len * len, axis },
                    _ => dims.push(Dimension { len, axis }),
                }
            }
            dims
        };
        let all: Vec<usize> = (0..chain.shape.len()).collect();
        if let Some(row) = &chain.row_axes {
            let outer: Vec<usize> = all.iter().copied().filter(|a| !row.contains(a)).collect();
            return Self { outer: merge(&outer), inner: merge(row) };
        }
        let mut outer = merge(&all);
        let inner = outer.pop().into_iter().collect();
        Self { outer, inner }
    }

    fn cols(&self) -> usize {
        self.inner.iter().map(|d| d.len).product()
    }

    /// A view as the kernel crosses it.
    fn port(&self, view: &View, shape: &[usize], resolve: &dyn Fn(&View) -> Access) -> Port {
        let stretched = view.broadcast(shape);
        let mut access = resolve(view);
        access.shape = self.outer.iter().map(|d| d.len).collect();
        access.strides = self.outer.iter().map(|d| stretched.strides[d.axis]).collect();
        let mut segments = vec![0];
        let (step, rest) = match self.inner.split_last() {
            Some((last, rest)) => (stretched.strides[last.axis], rest),
            None => (0, &[][..]),
        };
        for d in rest {
            let stride = stretched.strides[d.axis];
            segments = segments.iter().flat_map(|&s| (0..d.len).map(move |i| s + i * stride)).collect();
        }
        Port { access, segments, step }
    }
}

/// Registers, handed out so that they are free again after the last use.
#[derive(Default)]
struct Registers {
    free: Vec<usize>,
    most: usize,
}

impl Registers {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.most += 1;
            self.most - 1
        })
    }
}

struct Emitter<'a> {
    chain: &'a Chain,
    domain: &'a Domain,
    resolve: &'a dyn Fn(&View) -> Access,
    loads: Vec<Port>,
    load_views: Vec<View>,
    micros: Vec<Micro>,
    stores: Vec<Store>,
    reductions: Vec<Outer>,
    results: Vec<Operand>,
    last_use: Vec<usize>,
    registers: Registers,
    row_registers: Registers,
}

impl Emitter<'_> {
    fn operand(&mut self, operand: &ChainOperand) -> Operand {
        match operand {
            ChainOperand::Internal(j) => self.results[*j],
            ChainOperand::Constant(c) => Operand::Constant(*c),
            ChainOperand::Product => Operand::Tile,
            ChainOperand::External(view) => {
                let known = self.load_views.iter().position(|v| v == view);
                Operand::Load(known.unwrap_or_else(|| {
                    self.load_views.push(view.clone());
                    self.loads.push(self.domain.port(view, &self.chain.shape, self.resolve));
                    self.loads.len() - 1
                }))
            }
        }
    }

    fn emit(&mut self, i: usize, partials: &dyn Fn(usize) -> Access) {
        let op = &self.chain.ops[i];
        let operands: Vec<Operand> = op.operands.iter().map(|o| self.operand(o)).collect();
        let result = match op.step {
            ChainStep::Same => operands[0],
            ChainStep::Step(step) => self.micro(step, &operands, op.level, op.round),
            ChainStep::Softmax => self.softmax(operands[0], op.round),
            ChainStep::LogSumExp => self.log_sum_exp(operands[0], op.round),
            ChainStep::Outer { kind, all } => {
                let to = (self.resolve)(op.store.as_ref().expect("an outer reduction is stored"));
                let partials = partials(self.reductions.len());
                self.reductions.push(Outer { kind, source: operands[0], all, to, partials });
                Operand::Constant(0.0)
            }
        };
        self.results.push(result);
        if let Some(view) = &op.store
            && !matches!(op.step, ChainStep::Outer { .. })
        {
            let port = self.domain.port(view, &self.chain.shape, self.resolve);
            self.stores.push(Store { source: result, port });
        }
        self.release(i);
    }

    /// Frees the registers whose values nobody reads after op i.
    fn release(&mut self, i: usize) {
        for j in 0..=i {
            if self.last_use[j] != i || matches!(self.chain.ops[j].step, ChainStep::Same) {
                continue;
            }
            match self.results[j] {
                Operand::Register(r) => self.registers.free.push(r),
                Operand::Row(r) => self.row_registers.free.push(r),
                Operand::Load(_) | Operand::Constant(_) | Operand::Tile => {}
            }
        }
    }

    fn micro(&mut self, step: Step, operands: &[Operand], level: Level, round: bool) -> Operand {
        let (target, result) = match level {
            Level::Full => {
                let r = self.registers.take();
                (Target::Register(r), Operand::Register(r))
            }
            Level::Row => {
                let r = self.row_registers.take();
                (Target::Row(r), Operand::Row(r))
            }
        };
        let mut three = [Operand::Constant(0.0); 3];
        three[..operands.len()].copy_from_slice(operands);
        self.micros.push(Micro { step, operands: three, target, round });
        result
    }

    fn free(&mut self, operand: Operand) {
        match operand {
            Operand::Register(r) => self.registers.free.push(r),
            Operand::Row(r) => self.row_registers.free.push(r),
            Operand::Load(_) | Operand::Constant(_) | Operand::Tile => {}
        }
    }

    fn softmax(&mut self, x: Operand, round: bool) -> Operand {
        use arcane_mil::Binary::{RealDiv, Sub};
        let top = self.micro(Step::Reduce(Reduce::Max), &[x], Level::Row, false);
        let shifted = self.micro(Step::Binary(Sub), &[x, top], Level::Full, false);
        let powers = self.micro(Step::Unary(Unary::Exp), &[shifted], Level::Full, false);
        let total = self.micro(Step::Reduce(Reduce::Sum), &[powers], Level::Row, false);
        let result = self.micro(Step::Binary(RealDiv), &[powers, total], Level::Full, round);
        for operand in [top, shifted, powers, total] {
            self.free(operand);
        }
        result
    }

    fn log_sum_exp(&mut self, x: Operand, round: bool) -> Operand {
        use arcane_mil::Binary::{Add, Sub};
        let top = self.micro(Step::Reduce(Reduce::Max), &[x], Level::Row, false);
        let finite = self.micro(Step::FiniteOrZero, &[top], Level::Row, false);
        let shifted = self.micro(Step::Binary(Sub), &[x, finite], Level::Full, false);
        let powers = self.micro(Step::Unary(Unary::Exp), &[shifted], Level::Full, false);
        let total = self.micro(Step::Reduce(Reduce::Sum), &[powers], Level::Row, false);
        let log = self.micro(Step::Unary(Unary::Log { epsilon: 0.0 }), &[total], Level::Row, false);
        let result = self.micro(Step::Binary(Add), &[log, finite], Level::Row, round);
        for operand in [top, finite, shifted, powers, total, log] {
            self.free(operand);
        }
        result
    }
}

/// Whether the fused kernel can read and write a type.
pub(super) fn is_chainable(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::F32 | DType::Bool)
}
