//! Attention and its gradients in products, sums and softmax.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arcane_mil::{
    Binary, BuildError, Builder, Function, Op, Recognised, Reduce, Region, Rewriter, ScoreMask, ValueId,
    regions, remove_dead_code,
};
use arcane_tensor::{DType, Tensor};

/// What hides a score: no exponential of it is left, and a score of either sign can be added to it in fp16.
const HIDDEN: f64 = -30000.0;

/// Writes `scaled_dot_product_attention`, and the gradients of attention where they are recognised, in fp16 `matmul`, `mul`,
/// `add`, `softmax`, `reduce_sum` and `sub`.
///
/// Engines are known to ignore the mask of the whole op, so a mask is added to the scores: 0 where a query sees a key,
/// −30000 where it does not. The query is scaled before the product, which keeps sums small. Gradients compute the
/// probabilities again, from the same ops.
#[must_use]
pub fn decompose_attention(function: &Function) -> Function {
    let found = regions(function);
    let gradients: Vec<&Region> =
        found.iter().filter(|r| matches!(r.what, Recognised::AttentionGradient { .. })).collect();
    let last: HashMap<usize, &Region> =
        gradients.iter().filter_map(|r| Some((first_safe(function, r)?, *r))).collect();
    let covered: HashSet<usize> = last.values().flat_map(|r| r.ops.iter().copied()).collect();
    let mut decomposer =
        Decomposer { rewriter: Rewriter::new(function), old: function, masks: HashMap::new() };
    decomposer.rewriter.copy_parameters();
    for (i, operation) in function.operations().iter().enumerate() {
        if let Some(region) = last.get(&i) {
            decomposer.gradient(region).expect("gradients of attention are well-typed");
        }
        if covered.contains(&i) {
            continue;
        }
        match &operation.op {
            Op::ScaledDotProductAttention { query, key, value, attn_mask }
                if function.ty(operation.results[0]).dtype == DType::F16 =>
            {
                let (path, result) = (&function.value(operation.results[0]).path, operation.results[0]);
                let mask = attn_mask.map(|m| {
                    if function.ty(m).dtype == DType::Bool {
                        ScoreMask::Select(m, 0.0)
                    } else {
                        ScoreMask::Add(m)
                    }
                });
                let out = decomposer.forward(path, [*query, *key, *value], mask.unwrap_or(ScoreMask::None));
                decomposer.rewriter.set(result, out.expect("attention is well-typed"));
            }
            _ => decomposer.rewriter.copy(operation),
        }
    }
    remove_dead_code(&decomposer.rewriter.finish())
}

/// The op of a region before which everything that it reads is there, if that is before its first reader.
fn first_safe(function: &Function, region: &Region) -> Option<usize> {
    let Recognised::AttentionGradient { query, key, value, d_out, d, mask, .. } = &region.what else {
        return None;
    };
    let definitions = function.definitions();
    let mask = match mask {
        ScoreMask::None => None,
        // Such a score still counts in the softmax.
        ScoreMask::Select(_, score) if f64::from(*score) > HIDDEN => return None,
        ScoreMask::Select(m, _) | ScoreMask::Add(m) => Some(*m),
    };
    let inputs = [*query, *key, *value, *d_out].into_iter().chain(mask);
    let ready = inputs.filter_map(|v| definitions[v.index()]).max().map_or(0, |i| i + 1);
    let results = d.iter().filter_map(|v| definitions[v.index()]);
    let readers = function
        .operations()
        .iter()
        .enumerate()
        .filter(|(i, o)| !region.ops.contains(i) && o.op.operands().iter().any(|v| d.contains(v)));
    let first_reader = readers.map(|(i, _)| i).min().unwrap_or(usize::MAX);
    // Emitted at the first op of the region that comes after all that it reads.
    let at = region.ops.iter().copied().find(|&i| i >= ready)?;
    (at <= first_reader && results.max()? >= at).then_some(at)
}

struct Decomposer<'a> {
    old: &'a Function,
    rewriter: Rewriter<'a>,
    /// Additive masks by the value that they were made from.
    masks: HashMap<ValueId, ValueId>,
}

impl Decomposer<'_> {
    fn forward(
        &mut self,
        path: &str,
        [q, k, v]: [ValueId; 3],
        mask: ScoreMask,
    ) -> Result<ValueId, BuildError> {
        let scale = 1.0 / (*self.old.ty(q).shape.last().expect("attention has axes") as f64).sqrt();
        let p = self.probabilities(path, [q, k], mask, scale)?;
        let v = self.half(v);
        push(&mut self.rewriter.builder, path, matmul(p, v, false, false))
    }

    fn probabilities(
        &mut self,
        path: &str,
        [q, k]: [ValueId; 2],
        mask: ScoreMask,
        scale: f64,
    ) -> Result<ValueId, BuildError> {
        let mask = self.mask(mask)?;
        let (q, k) = (self.half(q), self.half(k));
        let b = &mut self.rewriter.builder;
        let scale = b.scalar(DType::F16, scale);
        let scaled = push(b, path, Op::Binary { kind: Binary::Mul, x: q, y: scale })?;
        let mut scores = push(b, path, matmul(scaled, k, false, true))?;
        if let Some(mask) = mask {
            scores = push(b, path, Op::Binary { kind: Binary::Add, x: scores, y: mask })?;
        }
        let axis = b.shape(scores).len() - 1;
        push(b, path, Op::Softmax { x: scores, axis })
    }

    fn gradient(&mut self, region: &Region) -> Result<(), BuildError> {
        let Recognised::AttentionGradient { query, key, value, d_out, d, mask, scale, d_scale } =
            &region.what
        else {
            return Ok(());
        };
        let path = self.old.value(d[0]).path.clone();
        let p = self.probabilities(&path, [*query, *key], *mask, f64::from(scale.0))?;
        let [q, k, v, g] = [*query, *key, *value, *d_out].map(|v| self.half(v));
        let b = &mut self.rewriter.builder;
        let d_value = push(b, &path, matmul(p, g, true, false))?;
        let dp = push(b, &path, matmul(g, v, false, true))?;
        let weighted = push(b, &path, Op::Binary { kind: Binary::Mul, x: p, y: dp })?;
        let last = b.shape(p).len() - 1;
        let sum = Op::Reduce { kind: Reduce::Sum, x: weighted, axes: vec![last], keep_dims: true };
        let sum = push(b, &path, sum)?;
        let centred = push(b, &path, Op::Binary { kind: Binary::Sub, x: dp, y: sum })?;
        let ds = push(b, &path, Op::Binary { kind: Binary::Mul, x: p, y: centred })?;
        let d_scale = b.scalar(DType::F16, f64::from(*d_scale));
        let ds = push(b, &path, Op::Binary { kind: Binary::Mul, x: ds, y: d_scale })?;
        let d_query = push(b, &path, matmul(ds, k, false, false))?;
        let d_key = push(b, &path, matmul(ds, q, true, false))?;
        for (&old, new) in d.iter().zip([d_query, d_key, d_value]) {
            let dtype = self.old.ty(old).dtype;
            let new = if dtype == DType::F16 { new } else { self.rewriter.builder.cast(new, dtype) };
            self.rewriter.set(old, new);
        }
        Ok(())
    }

    /// The new value of an old one, in fp16.
    fn half(&mut self, v: ValueId) -> ValueId {
        let new = self.rewriter.get(v);
        if self.rewriter.builder.ty(new).dtype == DType::F16 {
            new
        } else {
            self.rewriter.builder.cast(new, DType::F16)
        }
    }

    /// What is added to the scores, fp16.
    fn mask(&mut self, mask: ScoreMask) -> Result<Option<ValueId>, BuildError> {
        let old = match mask {
            ScoreMask::None => return Ok(None),
            ScoreMask::Add(m) => return Ok(Some(self.half(m))),
            ScoreMask::Select(m, _) => m,
        };
        if let Some(&made) = self.masks.get(&old) {
            return Ok(Some(made));
        }
        let definitions = self.old.definitions();
        let path = format!("{}.additive", self.old.value(old).path);
        let constant = definitions[old.index()].map(|i| &self.old.operations()[i].op);
        let b = &mut self.rewriter.builder;
        let made = if let Some(Op::Const(sees)) = constant {
            let values: Vec<f64> =
                sees.to_f64s().into_iter().map(|s| if s == 0.0 { HIDDEN } else { 0.0 }).collect();
            let tensor = Tensor::from_f64s(DType::F16, sees.shape(), &values).expect("as many as before");
            push(b, &path, Op::Const(Arc::new(tensor)))?
        } else {
            let cond = self.rewriter.get(old);
            let b = &mut self.rewriter.builder;
            let (zero, hidden) = (b.scalar(DType::F32, 0.0), b.scalar(DType::F32, HIDDEN));
            let chosen = push(b, &path, Op::Select { cond, a: zero, b: hidden })?;
            b.cast(chosen, DType::F16)
        };
        self.masks.insert(old, made);
        Ok(Some(made))
    }
}

fn matmul(x: ValueId, y: ValueId, transpose_x: bool, transpose_y: bool) -> Op {
    Op::Matmul { x, y, transpose_x, transpose_y }
}

fn push(b: &mut Builder, path: &str, op: Op) -> Result<ValueId, BuildError> {
    Ok(b.push_at(path, op)?[0])
}
