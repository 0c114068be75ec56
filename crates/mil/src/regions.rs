//! Regions of a program that are more than their ops, recognised by dataflow: cross entropy over a linear head, and the
//! gradients of scaled dot-product attention. Casts of mixed programs may stand between their ops.

use arcane_tensor::DType;

use crate::{Binary, Function, Op, Reduce, ScatterMode, ValueId};

/// A recognised region and the ops that it covers.
#[derive(Clone, Debug)]
pub struct Region {
    /// Indices of the ops, ascending.
    pub ops: Vec<usize>,
    /// What it computes.
    pub what: Recognised,
}

/// What a region computes.
#[derive(Clone, Debug)]
pub enum Recognised {
    /// Of logits = hidden·headᵀ, hidden `[N, D]`, head `[V, D]`: what cross entropy needs, and its gradient.
    CrossEntropy {
        /// `[N, D]`
        hidden: ValueId,
        /// `[V, D]`
        head: ValueId,
        /// `[N, 1]`, int32
        targets: ValueId,
        /// log Σ exp(logits), fp32 `[N, 1]`
        log_sum: Option<ValueId>,
        /// The logits of the targets, fp32 `[N, 1]`
        picked: Option<ValueId>,
        /// The gradients with respect to hidden and head.
        gradient: Option<HeadGradient>,
    },
    /// The gradients of softmax(mask(query·keyᵀ·scale))·value, all of rank 3 or more.
    AttentionGradient {
        /// `[.., L, E]`
        query: ValueId,
        /// `[.., S, E]`
        key: ValueId,
        /// `[.., S, F]`
        value: ValueId,
        /// The result's adjoint, `[.., L, F]`
        d_out: ValueId,
        /// Gradients of query, key and value.
        d: [ValueId; 3],
        /// How scores are masked.
        mask: ScoreMask,
        /// The factor of the scores, and whether scaled scores are rounded to fp16.
        scale: (f32, bool),
        /// The factor of the scores' gradients.
        d_scale: f32,
    },
}

/// The gradient part of a cross entropy: the logits' adjoint is `softmax(logits)·factor`, plus `update` at the target.
#[derive(Clone, Debug)]
pub struct HeadGradient {
    /// `[N, 1]`, or what broadcasts to it.
    pub factor: ValueId,
    /// `[N, 1]`
    pub update: ValueId,
    /// `[N, D]`
    pub d_hidden: Option<ValueId>,
    /// `[V, D]`
    pub d_head: Option<ValueId>,
}

/// How scores are masked.
#[derive(Clone, Copy, Debug)]
pub enum ScoreMask {
    /// Not at all.
    None,
    /// A `bool` value, and what replaces a score where it is false.
    Select(ValueId, f32),
    /// A float value that is added.
    Add(ValueId),
}

/// Finds all regions, in the order of their first ops. A region may depend on itself through ops outside; whoever computes
/// it as one has to check.
pub fn regions(function: &Function) -> Vec<Region> {
    let finder = Finder::new(function);
    let found = (0..function.operations().len())
        .filter_map(|i| finder.cross_entropy(i).or_else(|| finder.attention_gradient(i)));
    found
        .map(|mut region| {
            region.ops.sort_unstable();
            region.ops.dedup();
            region
        })
        .collect()
}

/// The number that a value is everywhere, if it is a constant of one number; `definitions` are the function's.
pub fn number_of(function: &Function, definitions: &[Option<usize>], v: ValueId) -> Option<f32> {
    match &function.operations()[definitions[v.index()]?].op {
        Op::Const(t) if t.len() == 1 => Some(t.get(0) as f32),
        Op::Fill { value, dtype, .. } => Some(arcane_tensor::round_to(*dtype, *value) as f32),
        _ => None,
    }
}

struct Finder<'a> {
    function: &'a Function,
    definitions: Vec<Option<usize>>,
    users: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl<'a> Finder<'a> {
    fn new(function: &'a Function) -> Self {
        let mut users = vec![Vec::new(); function.values().len()];
        for (i, operation) in function.operations().iter().enumerate() {
            for v in operation.op.operands() {
                users[v.index()].push(i);
            }
        }
        let mut is_output = vec![false; function.values().len()];
        for o in function.outputs() {
            is_output[o.value.index()] = true;
        }
        Self { function, definitions: function.definitions(), users, is_output }
    }

    fn op(&self, i: usize) -> &'a Op {
        &self.function.operations()[i].op
    }

    fn result(&self, i: usize) -> ValueId {
        self.function.operations()[i].results[0]
    }

    fn definition(&self, v: ValueId) -> Option<(usize, &'a Op)> {
        self.definitions[v.index()].map(|i| (i, self.op(i)))
    }

    /// The users of a value that nothing else may see: `None` if it is an output.
    fn inner_users(&self, v: ValueId) -> Option<&[usize]> {
        (!self.is_output[v.index()]).then_some(self.users[v.index()].as_slice())
    }

    /// The only user of a value.
    fn only_user(&self, v: ValueId) -> Option<usize> {
        match self.inner_users(v)? {
            [one] => Some(*one),
            _ => None,
        }
    }

    fn number(&self, v: ValueId) -> Option<f32> {
        number_of(self.function, &self.definitions, v)
    }

    /// The value before a cast that only this use sees, if there is one; covers the cast.
    fn before_cast(&self, v: ValueId, ops: &mut Vec<usize>) -> ValueId {
        match self.definition(v) {
            Some((i, Op::Cast { x, .. })) if !self.is_output[v.index()] => {
                ops.push(i);
                *x
            }
            _ => v,
        }
    }

    /// The value after a cast that is the only use, if there is one; covers the cast.
    fn after_cast(&self, v: ValueId, ops: &mut Vec<usize>) -> ValueId {
        match self.only_user(v).map(|i| (i, self.op(i))) {
            Some((i, Op::Cast { .. })) => {
                ops.push(i);
                self.result(i)
            }
            _ => v,
        }
    }

    fn cross_entropy(&self, start: usize) -> Option<Region> {
        let Op::Linear { x: hidden, weight: head, bias: None } = self.op(start) else { return None };
        let (hidden, head) = (*hidden, *head);
        let logits = self.result(start);
        let ty = self.function.ty(logits);
        if ty.shape.len() != 2 || !matches!(ty.dtype, DType::F16 | DType::F32) {
            return None;
        }
        let mut ops = vec![start];
        let logits = self.after_cast(logits, &mut ops);
        if self.function.ty(logits).dtype != DType::F32 {
            return None;
        }
        let (mut log_sum, mut picked, mut targets, mut probabilities) = (None, None, None, None);
        for &user in self.inner_users(logits)? {
            let slot = match self.op(user) {
                Op::Reduce { kind: Reduce::LogSumExp, axes, keep_dims: true, .. } if axes == &[1] => {
                    &mut log_sum
                }
                Op::GatherAlongAxis { x, indices, axis: 1 } if *x == logits => {
                    targets = Some(*indices);
                    &mut picked
                }
                Op::Softmax { axis: 1, .. } => &mut probabilities,
                _ => return None,
            };
            if slot.replace(self.result(user)).is_some() {
                return None;
            }
            ops.push(user);
        }
        let gradient = match probabilities {
            Some(p) => {
                let (gradient, indices) = self.head_gradient(p, hidden, head, &mut ops)?;
                if targets.is_some_and(|t| t != indices) {
                    return None;
                }
                targets = Some(indices);
                Some(gradient)
            }
            None => None,
        };
        let targets = targets?;
        let rows = self.function.ty(hidden).shape[0];
        let ty = self.function.ty(targets);
        if ty.dtype != DType::I32 || ty.shape != [rows, 1] || log_sum.is_none() {
            return None;
        }
        Some(Region {
            ops,
            what: Recognised::CrossEntropy { hidden, head, targets, log_sum, picked, gradient },
        })
    }

    fn head_gradient(
        &self,
        probabilities: ValueId,
        hidden: ValueId,
        head: ValueId,
        ops: &mut Vec<usize>,
    ) -> Option<(HeadGradient, ValueId)> {
        let rows = self.function.ty(hidden).shape[0];
        let column = |v: ValueId| self.function.ty(v).shape == [rows, 1];
        let scaled = self.only_user(probabilities)?;
        let Op::Binary { kind: Binary::Mul, x, y } = self.op(scaled) else { return None };
        let factor = if *x == probabilities { *y } else { *x };
        let scattered = self.only_user(self.result(scaled))?;
        let Op::ScatterAlongAxis { data, indices, updates, axis: 1, mode: ScatterMode::Add } =
            self.op(scattered)
        else {
            return None;
        };
        if *data != self.result(scaled) || !column(factor) || !column(*updates) {
            return None;
        }
        ops.extend([scaled, scattered]);
        let d_logits = self.after_cast(self.result(scattered), ops);
        let (mut d_hidden, mut d_head) = (None, None);
        for &user in self.inner_users(d_logits)? {
            let slot = match self.op(user) {
                Op::Matmul { x, y, transpose_x: false, transpose_y: false }
                    if *x == d_logits && *y == head =>
                {
                    &mut d_hidden
                }
                Op::Matmul { x, y, transpose_x: true, transpose_y: false }
                    if *x == d_logits && *y == hidden =>
                {
                    &mut d_head
                }
                _ => return None,
            };
            if slot.replace(self.result(user)).is_some() {
                return None;
            }
            ops.push(user);
        }
        Some((HeadGradient { factor, update: *updates, d_hidden, d_head }, *indices))
    }

    fn attention_gradient(&self, start: usize) -> Option<Region> {
        let Op::Softmax { x: masked, axis } = self.op(start) else { return None };
        let p = self.result(start);
        let rank = self.function.ty(p).shape.len();
        if rank < 3 || *axis != rank - 1 || self.function.ty(p).dtype != DType::F32 {
            return None;
        }
        let mut ops = vec![start];
        let (query, key, mask, scale) = self.masked_scores(*masked, &mut ops)?;
        let (mut d_value, mut weighted) = (None, Vec::new());
        for &user in self.inner_users(p)? {
            match self.op(user) {
                Op::Binary { kind: Binary::Mul, x, y } if *x == p => weighted.push((user, *y)),
                Op::Cast { .. } => {
                    ops.push(user);
                    let cast = self.result(user);
                    d_value = d_value.or(Some((self.only_user(cast)?, cast)));
                }
                Op::Matmul { .. } => d_value = d_value.or(Some((user, p))),
                _ => return None,
            }
        }
        let (d_value, p_operand) = d_value?;
        let Op::Matmul { x, y: d_out, transpose_x: true, transpose_y: false } = self.op(d_value) else {
            return None;
        };
        if *x != p_operand || weighted.len() != 2 || self.inner_users(p)?.len() != 3 {
            return None;
        }
        ops.push(d_value);
        let (value, d_scores) = self.softmax_gradient(&weighted, *d_out, &mut ops)?;
        let scaled = self.only_user(d_scores)?;
        let Op::Binary { kind: Binary::Mul, y: factor, .. } = self.op(scaled) else { return None };
        let d_scale = self.number(*factor)?;
        ops.push(scaled);
        let d_scores = self.after_cast(self.result(scaled), &mut ops);
        let (mut d_query, mut d_key) = (None, None);
        for &user in self.inner_users(d_scores)? {
            ops.push(user);
            match self.op(user) {
                Op::Matmul { x, y, transpose_x: false, transpose_y: false }
                    if *x == d_scores && *y == key =>
                {
                    d_query = Some(self.result(user));
                }
                Op::Matmul { x, y, transpose_x: true, transpose_y: false }
                    if *x == d_scores && *y == query =>
                {
                    d_key = Some(self.result(user));
                }
                _ => return None,
            }
        }
        let d = [d_query?, d_key?, self.result(d_value)];
        let shape = |v: ValueId| &self.function.ty(v).shape;
        if d.iter().zip([query, key, value]).any(|(&d, v)| shape(d) != shape(v)) {
            return None;
        }
        let what =
            Recognised::AttentionGradient { query, key, value, d_out: *d_out, d, mask, scale, d_scale };
        Some(Region { ops, what })
    }

    /// Masked, scaled scores: query, key, mask, and the scale with whether it is rounded to fp16.
    fn masked_scores(
        &self,
        masked: ValueId,
        ops: &mut Vec<usize>,
    ) -> Option<(ValueId, ValueId, ScoreMask, (f32, bool))> {
        let only = |v: ValueId| self.only_user(v).is_some();
        let masked = self.before_cast(masked, ops);
        if !only(masked) {
            return None;
        }
        let (i, op) = self.definition(masked)?;
        ops.push(i);
        let (scaled, mask, scaling) = match op {
            Op::Select { cond, a, b } => (*a, ScoreMask::Select(*cond, self.number(*b)?), None),
            Op::Binary { kind: Binary::Add, x, y } => (*x, ScoreMask::Add(*y), None),
            Op::Binary { kind: Binary::Mul, x, y } => (masked, ScoreMask::None, Some((*x, *y))),
            _ => return None,
        };
        let (scores, factor) = if let Some(operands) = scaling {
            operands
        } else {
            let (i, op) = self.definition(scaled)?;
            let Op::Binary { kind: Binary::Mul, x, y } = op else { return None };
            ops.push(i);
            (*x, *y)
        };
        let half = self.function.ty(scaled).dtype == DType::F16;
        let scale = (self.number(factor)?, half);
        if !only(scaled) || !only(scores) {
            return None;
        }
        let (i, op) = self.definition(scores)?;
        let Op::Matmul { x: query, y: key, transpose_x: false, transpose_y: true } = op else { return None };
        if self.function.ty(*query).shape.len() != self.function.ty(*key).shape.len() {
            return None;
        }
        ops.push(i);
        Some((*query, *key, mask, scale))
    }

    /// `p·(dp − Σ p·dp)` with `dp = d_out·valueᵀ`: gives value and the result.
    fn softmax_gradient(
        &self,
        weighted: &[(usize, ValueId)],
        d_out: ValueId,
        ops: &mut Vec<usize>,
    ) -> Option<(ValueId, ValueId)> {
        for (first, second) in [(0, 1), (1, 0)] {
            let ((t, dp), (ds, difference)) = (weighted[first], weighted[second]);
            let Some((sub, Op::Binary { kind: Binary::Sub, x, y })) = self.definition(difference) else {
                continue;
            };
            let Some((sum, Op::Reduce { kind: Reduce::Sum, x: summed, keep_dims: true, axes })) =
                self.definition(*y)
            else {
                continue;
            };
            let rank = self.function.ty(dp).shape.len();
            let fits = *x == dp
                && *summed == self.result(t)
                && axes == &[rank - 1]
                && self.only_user(difference) == Some(ds)
                && self.only_user(*y) == Some(sub)
                && self.only_user(*summed) == Some(sum)
                && self.inner_users(dp)?.len() == 2;
            if !fits {
                continue;
            }
            ops.extend([t, sub, sum, ds]);
            let product = self.before_cast(dp, ops);
            if product != dp && self.only_user(product).is_none() {
                return None;
            }
            let (i, op) = self.definition(product)?;
            let Op::Matmul { x, y: value, transpose_x: false, transpose_y: true } = op else { return None };
            if *x != d_out {
                return None;
            }
            ops.push(i);
            return Some((*value, self.result(ds)));
        }
        None
    }
}
