//! Cross entropy over a vocabulary that an engine has not the channels for.

use std::collections::{HashMap, HashSet};

use arcane_mil::{
    Binary, BuildError, Builder, Function, HeadGradient, Op, Recognised, Reduce, Region, Rewriter,
    ScatterMode, Unary, ValueId, regions, remove_dead_code,
};
use arcane_tensor::DType;

/// Chunks of the vocabulary are this many columns or a multiple.
const COLUMN_UNIT: usize = 32;

/// Writes each recognised cross entropy over an fp16 head in chunks of at most `columns` columns.
///
/// Of a chunk c with logits l the engine computes `m = max l` and `s = Σ exp(l − m)`. The rest is fp32:
/// `M = max m`, `S = Σ s·exp(m − M)`, `log Σ exp = M + log S`. What concerns the targets alone is not taken out of the
/// logits but computed from their rows of the head, in fp32: the logit as `Σ hidden·head[target]`, and the gradient's
/// sparse part, which is added to the dense one `d = exp(l − M)·(factor/S)`.
#[must_use]
pub fn chunk_heads(function: &Function, columns: usize) -> Function {
    let found = regions(function);
    let heads: Vec<CrossEntropy<'_>> = found.iter().filter_map(|r| CrossEntropy::new(function, r)).collect();
    if heads.is_empty() {
        return function.clone();
    }
    let mut chunker = Chunker {
        old: function,
        rewriter: Rewriter::new(function),
        columns: columns.max(COLUMN_UNIT),
        statistics: HashMap::new(),
        wide: HashMap::new(),
    };
    chunker.rewriter.copy_parameters();
    let covered: HashSet<usize> = heads.iter().flat_map(|h| h.region.ops.iter().copied()).collect();
    for (i, operation) in function.operations().iter().enumerate() {
        for (h, head) in heads.iter().enumerate() {
            if head.forward_at == i {
                chunker.forward(h, head).expect("a cross entropy is well-typed");
            }
            if head.gradient_at == Some(i) {
                chunker.backward(h, head).expect("a gradient of cross entropy is well-typed");
            }
        }
        if covered.contains(&i) {
            continue;
        }
        match operation.op {
            Op::Cast { x, dtype: DType::F32 } if chunker.wide.contains_key(&x) => {
                chunker.rewriter.set(operation.results[0], chunker.wide[&x]);
            }
            _ => chunker.rewriter.copy(operation),
        }
    }
    remove_dead_code(&chunker.rewriter.finish())
}

/// A region that can be rewritten.
struct CrossEntropy<'a> {
    region: &'a Region,
    hidden: ValueId,
    head: ValueId,
    targets: ValueId,
    log_sum: Option<ValueId>,
    picked: Option<ValueId>,
    gradient: Option<&'a HeadGradient>,
    /// Ops before which the two parts are emitted.
    forward_at: usize,
    gradient_at: Option<usize>,
}

impl<'a> CrossEntropy<'a> {
    fn new(function: &Function, region: &'a Region) -> Option<Self> {
        let Recognised::CrossEntropy { hidden, head, targets, log_sum, picked, gradient } = &region.what
        else {
            return None;
        };
        let is_half = [*hidden, *head].iter().all(|&v| function.ty(v).dtype == DType::F16);
        let has_columns = function.ty(*head).shape[0] > 0;
        if !is_half || !has_columns {
            return None;
        }
        let forward: Vec<ValueId> = log_sum.iter().chain(picked).copied().collect();
        let forward_at = place(function, region, &[*hidden, *head, *targets], &forward)?;
        let gradient_at = match gradient {
            None => None,
            Some(g) => {
                let results: Vec<ValueId> = g.d_hidden.iter().chain(&g.d_head).copied().collect();
                let inputs = [*hidden, *head, *targets, g.factor, g.update];
                Some(place(function, region, &inputs, &results)?.max(forward_at))
            }
        };
        let gradient = gradient.as_ref();
        let (hidden, head, targets) = (*hidden, *head, *targets);
        let (log_sum, picked) = (*log_sum, *picked);
        Some(Self { region, hidden, head, targets, log_sum, picked, gradient, forward_at, gradient_at })
    }
}

/// The first op of a region at which its inputs are there, if no other op has read its results before.
fn place(function: &Function, region: &Region, inputs: &[ValueId], results: &[ValueId]) -> Option<usize> {
    let definitions = function.definitions();
    let ready = inputs.iter().filter_map(|v| definitions[v.index()]).max().map_or(0, |i| i + 1);
    let at = region.ops.iter().copied().find(|&i| i >= ready)?;
    let read_before = function.operations()[..at]
        .iter()
        .enumerate()
        .any(|(i, o)| !region.ops.contains(&i) && o.op.operands().iter().any(|v| results.contains(v)));
    (!read_before).then_some(at)
}

/// What the forward part leaves for the gradient.
struct Statistics {
    /// A piece of the head for each chunk, and its logits, fp16.
    pieces: Vec<ValueId>,
    logits: Vec<ValueId>,
    /// M and S, fp32 `[N, 1]`.
    maximum: ValueId,
    sum: ValueId,
    /// The targets as `[N]`, and their rows of the head, fp32 `[N, D]`.
    targets: ValueId,
    rows: ValueId,
}

struct Chunker<'a> {
    old: &'a Function,
    rewriter: Rewriter<'a>,
    columns: usize,
    statistics: HashMap<usize, Statistics>,
    /// New fp32 values that stand for old fp16 ones which are cast to fp32.
    wide: HashMap<ValueId, ValueId>,
}

impl Chunker<'_> {
    fn forward(&mut self, index: usize, head: &CrossEntropy<'_>) -> Result<(), BuildError> {
        let path = self.old.value(head.log_sum.unwrap_or(head.hidden)).path.clone();
        let [hidden, weight, targets] = [head.hidden, head.head, head.targets].map(|v| self.rewriter.get(v));
        let vocabulary = self.old.ty(head.head).shape[0];
        let sizes = chunk_sizes(vocabulary, self.columns);
        let mut at = At { b: &mut self.rewriter.builder, path: &path };
        let pieces = match sizes.len() {
            1 => vec![weight],
            _ => at.b.push_at(&path, Op::Split { x: weight, axis: 0, sizes })?,
        };
        let (mut logits, mut partial) = (Vec::new(), Vec::new());
        for &piece in &pieces {
            let l = at.one(Op::Linear { x: hidden, weight: piece, bias: None })?;
            let m = at.reduce(Reduce::Max, l)?;
            let shifted = at.binary(Binary::Sub, l, m)?;
            let powers = at.one(Op::Unary { kind: Unary::Exp, x: shifted })?;
            let s = at.reduce(Reduce::Sum, powers)?;
            logits.push(l);
            partial.push((at.b.cast(m, DType::F32), at.b.cast(s, DType::F32)));
        }
        let mut maximum = partial[0].0;
        for &(m, _) in &partial[1..] {
            maximum = at.binary(Binary::Maximum, maximum, m)?;
        }
        let mut sum = None;
        for &(m, s) in &partial {
            let shifted = at.binary(Binary::Sub, m, maximum)?;
            let power = at.one(Op::Unary { kind: Unary::Exp, x: shifted })?;
            let scaled = at.binary(Binary::Mul, s, power)?;
            sum = Some(match sum {
                None => scaled,
                Some(sum) => at.binary(Binary::Add, sum, scaled)?,
            });
        }
        let sum = sum.expect("a head has columns");
        let log = at.one(Op::Unary { kind: Unary::Log { epsilon: 0.0 }, x: sum })?;
        let log_sum = at.binary(Binary::Add, maximum, log)?;
        let count = at.b.shape(targets)[0];
        let targets = at.one(Op::Reshape { x: targets, shape: vec![count] })?;
        let rows = at.one(Op::Gather { x: weight, indices: targets, axis: 0 })?;
        let rows = at.b.cast(rows, DType::F32);
        let wide_hidden = at.b.cast(hidden, DType::F32);
        let products = at.binary(Binary::Mul, wide_hidden, rows)?;
        let picked = at.reduce(Reduce::Sum, products)?;
        for (old, new) in [(head.log_sum, log_sum), (head.picked, picked)] {
            if let Some(old) = old {
                self.rewriter.set(old, new);
            }
        }
        let statistics = Statistics { pieces, logits, maximum, sum, targets, rows };
        self.statistics.insert(index, statistics);
        Ok(())
    }

    fn backward(&mut self, index: usize, head: &CrossEntropy<'_>) -> Result<(), BuildError> {
        let Some(gradient) = head.gradient else { return Ok(()) };
        let path = self.old.value(gradient.d_hidden.or(gradient.d_head).unwrap_or(head.hidden)).path.clone();
        let [hidden, factor, update] =
            [head.hidden, gradient.factor, gradient.update].map(|v| self.rewriter.get(v));
        let Statistics { pieces, logits, maximum, sum, targets, rows } = &self.statistics[&index];
        let mut at = At { b: &mut self.rewriter.builder, path: &path };
        let maximum = at.b.cast(*maximum, DType::F16);
        let factor = at.binary(Binary::RealDiv, factor, *sum)?;
        let factor = at.b.cast(factor, DType::F16);
        let (mut d_hidden, mut d_head) = (None, Vec::new());
        for (&piece, &l) in pieces.iter().zip(logits) {
            let shifted = at.binary(Binary::Sub, l, maximum)?;
            let powers = at.one(Op::Unary { kind: Unary::Exp, x: shifted })?;
            let d = at.binary(Binary::Mul, powers, factor)?;
            if gradient.d_hidden.is_some() {
                let part = at.one(matmul(d, piece, false))?;
                let part = at.b.cast(part, DType::F32);
                d_hidden = Some(match d_hidden {
                    None => part,
                    Some(total) => at.binary(Binary::Add, total, part)?,
                });
            }
            if gradient.d_head.is_some() {
                let part = at.one(matmul(d, hidden, true))?;
                d_head.push(at.b.cast(part, DType::F32));
            }
        }
        let (mut wide_hidden, mut wide_head) = (None, None);
        if let Some(dense) = d_hidden {
            let sparse = at.binary(Binary::Mul, *rows, update)?;
            wide_hidden = Some(at.binary(Binary::Add, dense, sparse)?);
        }
        if !d_head.is_empty() {
            let dense = match d_head.len() {
                1 => d_head[0],
                _ => at.one(Op::Concat { values: d_head, axis: 0 })?,
            };
            let hidden = at.b.cast(hidden, DType::F32);
            let updates = at.binary(Binary::Mul, hidden, update)?;
            let mode = ScatterMode::Add;
            wide_head =
                Some(at.one(Op::Scatter { data: dense, indices: *targets, updates, axis: 0, mode })?);
        }
        for (old, new) in [(gradient.d_hidden, wide_hidden), (gradient.d_head, wide_head)] {
            if let (Some(old), Some(new)) = (old, new) {
                self.wide.insert(old, new);
                let narrow = self.rewriter.builder.cast(new, self.old.ty(old).dtype);
                self.rewriter.set(old, narrow);
            }
        }
        Ok(())
    }
}

fn matmul(x: ValueId, y: ValueId, transpose_x: bool) -> Op {
    Op::Matmul { x, y, transpose_x, transpose_y: false }
}

/// As few chunks as there can be, equal but for the last.
fn chunk_sizes(vocabulary: usize, columns: usize) -> Vec<usize> {
    let chunks = vocabulary.div_ceil(columns);
    let size = vocabulary.div_ceil(chunks).next_multiple_of(COLUMN_UNIT).min(columns);
    let mut sizes = vec![size; vocabulary / size];
    if !vocabulary.is_multiple_of(size) {
        sizes.push(vocabulary % size);
    }
    sizes
}

/// Where new ops stand in the model.
struct At<'a> {
    b: &'a mut Builder,
    path: &'a str,
}

impl At<'_> {
    fn one(&mut self, op: Op) -> Result<ValueId, BuildError> {
        Ok(self.b.push_at(self.path, op)?[0])
    }

    fn binary(&mut self, kind: Binary, x: ValueId, y: ValueId) -> Result<ValueId, BuildError> {
        self.one(Op::Binary { kind, x, y })
    }

    fn reduce(&mut self, kind: Reduce, x: ValueId) -> Result<ValueId, BuildError> {
        self.one(Op::Reduce { kind, x, axes: vec![1], keep_dims: true })
    }
}

#[cfg(test)]
mod tests {
    use super::chunk_sizes;

    #[test]
    fn chunks_are_equal_and_within_the_limit() {
        assert_eq!(chunk_sizes(512, 16384), [512]);
        assert_eq!(chunk_sizes(32000, 16384), [16000, 16000]);
        assert_eq!(chunk_sizes(100, 64), [64, 36]);
        for vocabulary in [49152, 50257, 151_936] {
            let sizes = chunk_sizes(vocabulary, 16384);
            assert_eq!(sizes.iter().sum::<usize>(), vocabulary);
            assert!(sizes.iter().all(|&s| s <= 16384 && s > 0));
            assert_eq!(sizes.len(), vocabulary.div_ceil(16384));
        }
    }
}
