//! The derivatives of whole models.

use arcane_mil::{BuildError, Op, ValueId};
use arcane_tensor::{DType, Tensor};

use crate::check::{Case, Check, scrambled};

const BATCH: usize = 2;
const SEQ: usize = 3;
const DIM: usize = 8;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 2;
const HIDDEN: usize = 6;
const VOCAB: usize = 5;
const EPS: f64 = 1e-5;

#[test]
fn a_llama_with_tied_embedding_has_the_derivatives_of_its_loss() {
    let check = Check { is_tested: |op| matches!(op, Op::ScaledDotProductAttention { .. }) };
    check.that(|c| {
        let table = weight(c, VOCAB, DIM);
        let tokens = c.indices(&[BATCH, SEQ], &[0, 3, 1, 4, 4, 2]);
        let x = c.f.gather(table, tokens, 0)?;
        let x = block(c, x)?;
        let gain = gain(c);
        let x = c.f.rms_norm(x, gain, EPS)?;
        let x = c.f.reshape(x, &[BATCH * SEQ, DIM])?;
        let targets = c.indices(&[BATCH * SEQ, 1], &[3, 1, 2, 4, 2, 0]);
        let weights = Tensor::new(&[BATCH * SEQ, 1], vec![1.0, 1.0, 0.0, 0.5, 1.0, 1.0]).unwrap();
        let weights = c.data(weights);
        c.f.cross_entropy(x, table, targets, weights)
    });
}

fn block(c: &mut Case, x: ValueId) -> Result<ValueId, BuildError> {
    let first = gain(c);
    let normed = c.f.rms_norm(x, first, EPS)?;
    let (q, k) = (heads(c, normed, HEADS)?, heads(c, normed, KV_HEADS)?);
    let v = heads(c, normed, KV_HEADS)?;
    let (cos, sin) = angles(c);
    let (q, k) = (c.f.rope(q, cos, sin)?, c.f.rope(k, cos, sin)?);
    let (k, v) = (repeat(c, k)?, repeat(c, v)?);
    let causal: Vec<bool> = (0..SEQ * SEQ).map(|i| i % SEQ <= i / SEQ).collect();
    let causal = c.f.constant("causal", Tensor::new(&[SEQ, SEQ], causal).unwrap());
    let mixed = c.f.attention(q, k, v, Some(causal))?;
    let mixed = c.f.transpose(mixed, &[0, 2, 1, 3])?;
    let mixed = c.f.reshape(mixed, &[BATCH, SEQ, HEADS * HEAD_DIM])?;
    let out = weight(c, DIM, HEADS * HEAD_DIM);
    let mixed = c.f.linear(mixed, out, None)?;
    let x = c.f.add(x, mixed)?;

    let second = gain(c);
    let normed = c.f.rms_norm(x, second, EPS)?;
    let (gate, up, down) = (weight(c, HIDDEN, DIM), weight(c, HIDDEN, DIM), weight(c, DIM, HIDDEN));
    let (gate, up) = (c.f.linear(normed, gate, None)?, c.f.linear(normed, up, None)?);
    let gate = c.f.silu(gate)?;
    let hidden = c.f.mul(gate, up)?;
    let hidden = c.f.linear(hidden, down, None)?;
    c.f.add(x, hidden)
}

/// x·Wᵀ as `[BATCH, n, SEQ, HEAD_DIM]`.
fn heads(c: &mut Case, x: ValueId, n: usize) -> Result<ValueId, BuildError> {
    let projection = weight(c, n * HEAD_DIM, DIM);
    let x = c.f.linear(x, projection, None)?;
    let x = c.f.reshape(x, &[BATCH, SEQ, n, HEAD_DIM])?;
    c.f.transpose(x, &[0, 2, 1, 3])
}

fn repeat(c: &mut Case, x: ValueId) -> Result<ValueId, BuildError> {
    let x = c.f.reshape(x, &[BATCH, KV_HEADS, 1, SEQ, HEAD_DIM])?;
    let x = c.f.tile(x, &[1, 1, HEADS / KV_HEADS, 1, 1])?;
    c.f.reshape(x, &[BATCH, HEADS, SEQ, HEAD_DIM])
}

fn angles(c: &mut Case) -> (ValueId, ValueId) {
    let table = |g: fn(f64) -> f64| {
        let values: Vec<f64> = (0..SEQ).map(|i| g(i as f64)).collect();
        Tensor::new(&[SEQ, HEAD_DIM / 2], values).unwrap()
    };
    (c.f.constant("cos", table(f64::cos)), c.f.constant("sin", table(f64::sin)))
}

fn weight(c: &mut Case, rows: usize, cols: usize) -> ValueId {
    let uniform = |i| (scrambled(i + 100 * rows + cols) % 2000) as f64 / 1000.0 - 1.0;
    let values: Vec<f64> = (0..rows * cols).map(uniform).collect();
    c.input(Tensor::from_f64s(DType::F64, &[rows, cols], &values).unwrap())
}

fn gain(c: &mut Case) -> ValueId {
    c.positive(&[DIM])
}
