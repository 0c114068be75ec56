//! The ten programs, and what the processor computes between them.

use arcane_mil::{Builder, Function, Opset, Reduce, Role, TensorType, ValueId};
use arcane_tensor::{DType, Tensor};

/// The model's lengths. Keys and values have as many heads as queries.
pub(super) struct Sizes {
    pub(super) dim: usize,
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) head: usize,
    pub(super) seq: usize,
    pub(super) vocab: usize,
}

/// A program of one input `[1, channels, 1, width]`.
fn kernel(
    name: &str,
    channels: usize,
    width: usize,
    body: impl FnOnce(&mut Builder, ValueId) -> ValueId,
) -> Function {
    let mut f = Builder::new(name, Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F16, &[1, channels, 1, width]), Role::Batch);
    let y = body(&mut f, x);
    f.output("y", y);
    f.finish()
}

/// `weightᵀ · x` of `[1, IC, 1, OC]` and `[1, IC, 1, S]`, by a product over rows of positions.
fn product(f: &mut Builder, x: ValueId, weight: ValueId) -> ValueId {
    let ([_, inputs, _, seq], outputs) = (four(f, x), four(f, weight)[3]);
    let x = f.reshape(x, &[1, 1, inputs, seq]).unwrap();
    let rows = f.transpose(x, &[0, 1, 3, 2]).unwrap();
    let weight = f.reshape(weight, &[1, 1, inputs, outputs]).unwrap();
    let y = f.matmul(rows, weight, false, false).unwrap();
    let y = f.transpose(y, &[0, 1, 3, 2]).unwrap();
    f.reshape(y, &[1, outputs, 1, seq]).unwrap()
}

fn four(f: &Builder, x: ValueId) -> [usize; 4] {
    f.shape(x).try_into().unwrap()
}

impl Sizes {
    fn queries(&self) -> usize {
        self.heads * self.head
    }

    /// `[1, Q, 1, S]` as `[1, heads, S, head]`.
    fn to_heads(&self, f: &mut Builder, x: ValueId) -> ValueId {
        let x = f.reshape(x, &[1, self.heads, self.head, self.seq]).unwrap();
        f.transpose(x, &[0, 1, 3, 2]).unwrap()
    }

    fn of_heads(&self, f: &mut Builder, x: ValueId) -> ValueId {
        let x = f.transpose(x, &[0, 1, 3, 2]).unwrap();
        f.reshape(x, &[1, self.queries(), 1, self.seq]).unwrap()
    }

    fn constant(f: &mut Builder, shape: &[usize], value: f64) -> ValueId {
        let n = shape.iter().product();
        f.constant("c", Tensor::from_f64s(DType::F16, shape, &vec![value; n]).unwrap())
    }

    /// Rotates pairs by a product with a signed permutation.
    fn rope(&self, f: &mut Builder, x: ValueId) -> ValueId {
        let permutation = Self::constant(f, &[1, 1, self.head, self.head], 0.5);
        let [cos, sin] = [0.5, 0.25].map(|v| Self::constant(f, &[1, 1, self.seq, self.head], v));
        let turned = f.matmul(x, permutation, false, false).unwrap();
        let (a, b) = (f.mul(x, cos).unwrap(), f.mul(turned, sin).unwrap());
        f.add(a, b).unwrap()
    }

    fn probabilities(&self, f: &mut Builder, q: ValueId, k: ValueId) -> ValueId {
        let mask = Self::constant(f, &[1, 1, self.seq, self.seq], -65504.0);
        let scores = f.matmul(q, k, false, true).unwrap();
        let scaled = f.scale(scores, 1.0 / (self.head as f64).sqrt()).unwrap();
        let masked = f.add(scaled, mask).unwrap();
        f.softmax(masked, 3).unwrap()
    }

    /// `[1, heads, S, S]` as channels.
    fn scores_to_channels(&self, f: &mut Builder, x: ValueId) -> ValueId {
        f.reshape(x, &[1, self.heads * self.seq, 1, self.seq]).unwrap()
    }

    fn scores_from_channels(&self, f: &mut Builder, x: ValueId) -> ValueId {
        f.reshape(x, &[1, self.heads, self.seq, self.seq]).unwrap()
    }
}

/// The ten programs of the engine.
pub(super) fn engine_kernels(s: &Sizes) -> Vec<Function> {
    let (d, hidden, q, seq) = (s.dim, s.hidden, s.queries(), s.seq);
    // Each sums products of pieces of the input with the weights behind them.
    let products = |name: &str, channels: usize, outputs: usize, terms: usize| {
        kernel(name, channels, terms * (seq + outputs), |f, x| {
            let sizes = [vec![seq; terms], vec![outputs; terms]].concat();
            let parts = f.split(x, 3, &sizes).unwrap();
            let of = |f: &mut Builder, i: usize| product(f, parts[i], parts[terms + i]);
            let first = of(f, 0);
            (1..terms).fold(first, |sum, i| {
                let term = of(f, i);
                f.add(sum, term).unwrap()
            })
        })
    };
    vec![
        attention_forward(s),
        products("woFwd", q, d, 1),
        feed_forward(s),
        products("ffnBwdW2t", d, hidden, 1),
        products("ffnBwdW13t", hidden, d, 2),
        products("wotBwd", d, q, 1),
        attention_backward_scores(s),
        attention_backward_operands(s),
        products("qBwd", q, d, 1),
        products("kvBwd", q, d, 2),
    ]
}

fn attention_forward(s: &Sizes) -> Function {
    let q = s.queries();
    kernel("sdpaFwd", s.dim, s.seq + 3 * q, |f, x| {
        let parts = f.split(x, 3, &[s.seq, q, q, q]).unwrap();
        let heads = [1, 2, 3].map(|i| {
            let projected = product(f, parts[0], parts[i]);
            s.to_heads(f, projected)
        });
        let (query, key) = (s.rope(f, heads[0]), s.rope(f, heads[1]));
        let p = s.probabilities(f, query, key);
        let mixed = f.matmul(p, heads[2], false, false).unwrap();
        let outputs = [mixed, query, key, heads[2]].map(|v| s.of_heads(f, v));
        f.concat(&[&outputs[..], &parts[..1]].concat(), 1).unwrap()
    })
}

fn feed_forward(s: &Sizes) -> Function {
    let (d, hidden, seq) = (s.dim, s.hidden, s.seq);
    kernel("ffnFused", d, 2 * seq + 3 * hidden, |f, x| {
        let parts = f.split(x, 3, &[seq, seq, hidden, hidden, hidden]).unwrap();
        let (h1, h3) = (product(f, parts[0], parts[2]), product(f, parts[0], parts[3]));
        let gated = f.silu(h1).unwrap();
        let gate = f.mul(gated, h3).unwrap();
        let weight = f.reshape(parts[4], &[1, 1, d, hidden]).unwrap();
        let rows = f.reshape(gate, &[1, 1, hidden, seq]).unwrap();
        let down = f.matmul(weight, rows, false, false).unwrap();
        let down = f.reshape(down, &[1, d, 1, seq]).unwrap();
        let branch = f.scale(down, 0.25).unwrap();
        let next = f.add(parts[1], branch).unwrap();
        f.concat(&[next, h1, h3, gate], 1).unwrap()
    })
}

/// dV, the probabilities again, and their gradients.
fn attention_backward_scores(s: &Sizes) -> Function {
    let q = s.queries();
    kernel("sdpaBwd1", 4 * q, s.seq, |f, x| {
        let parts = f.split(x, 1, &[q; 4]).unwrap();
        let [query, key, value, d_out] = [0, 1, 2, 3].map(|i| s.to_heads(f, parts[i]));
        let p = s.probabilities(f, query, key);
        let d_value = f.matmul(p, d_out, true, false).unwrap();
        let d_p = f.matmul(d_out, value, false, true).unwrap();
        let d_value = s.of_heads(f, d_value);
        let scores = [p, d_p].map(|v| s.scores_to_channels(f, v));
        f.concat(&[&[d_value], &scores[..]].concat(), 1).unwrap()
    })
}

/// dQ and dK.
fn attention_backward_operands(s: &Sizes) -> Function {
    let (q, scores) = (s.queries(), s.heads * s.seq);
    kernel("sdpaBwd2", 2 * scores + 2 * q, s.seq, |f, x| {
        let parts = f.split(x, 1, &[scores, scores, q, q]).unwrap();
        let [p, d_p] = [0, 1].map(|i| s.scores_from_channels(f, parts[i]));
        let [query, key] = [2, 3].map(|i| s.to_heads(f, parts[i]));
        let weighted = f.mul(p, d_p).unwrap();
        let total = f.reduce(Reduce::Sum, weighted, &[3], true).unwrap();
        let centred = f.sub(d_p, total).unwrap();
        let product = f.mul(p, centred).unwrap();
        let d_scores = f.scale(product, 1.0 / (s.head as f64).sqrt()).unwrap();
        let d_query = f.matmul(d_scores, key, false, false).unwrap();
        let d_key = f.matmul(d_scores, query, true, false).unwrap();
        let outputs = [d_query, d_key].map(|v| s.of_heads(f, v));
        f.concat(&outputs, 1).unwrap()
    })
}

/// What the processor computes, in fp32.
pub(super) fn host_functions(s: &Sizes) -> Vec<Function> {
    vec![norm(s), norm_backward(s), silu_backward(s), classifier(s)]
}

fn host(name: &str, body: impl FnOnce(&mut Builder) -> Vec<ValueId>) -> Function {
    let mut f = Builder::new(name, Opset::Ios18);
    for (i, v) in body(&mut f).into_iter().enumerate() {
        f.output(&format!("y{i}"), v);
    }
    f.finish()
}

fn input(f: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    f.parameter(name, TensorType::new(DType::F32, shape), Role::Batch)
}

fn norm(s: &Sizes) -> Function {
    host("norm", |f| {
        let (x, gain) = (input(f, "x", &[s.seq, s.dim]), input(f, "gain", &[s.dim]));
        let square = f.square(x).unwrap();
        let mean = f.reduce(Reduce::Mean, square, &[1], true).unwrap();
        let root = f.rsqrt(mean, 1e-5).unwrap();
        let scaled = f.mul(x, root).unwrap();
        vec![f.mul(scaled, gain).unwrap()]
    })
}

fn norm_backward(s: &Sizes) -> Function {
    host("normBwd", |f| {
        let [x, dy] = ["x", "dy"].map(|name| input(f, name, &[s.seq, s.dim]));
        let (gain, residual) = (input(f, "gain", &[s.dim]), input(f, "residual", &[s.seq, s.dim]));
        let square = f.square(x).unwrap();
        let mean = f.reduce(Reduce::Mean, square, &[1], true).unwrap();
        let root = f.rsqrt(mean, 1e-5).unwrap();
        let scaled = f.mul(dy, gain).unwrap();
        let weighted = f.mul(scaled, x).unwrap();
        let total = f.reduce(Reduce::Mean, weighted, &[1], true).unwrap();
        let cube = f.mul(root, mean).unwrap();
        let part = f.mul(total, cube).unwrap();
        let along = f.mul(x, part).unwrap();
        let across = f.sub(scaled, along).unwrap();
        let dx = f.mul(across, root).unwrap();
        vec![f.add(dx, residual).unwrap()]
    })
}

fn silu_backward(s: &Sizes) -> Function {
    host("siluBwd", |f| {
        let [h1, h3, dy] = ["h1", "h3", "dy"].map(|name| input(f, name, &[s.hidden, s.seq]));
        let sigmoid = f.sigmoid(h1).unwrap();
        let one = f.scalar(DType::F32, 1.0);
        let rest = f.sub(one, sigmoid).unwrap();
        let product = f.mul(h1, rest).unwrap();
        let slope = f.add(product, one).unwrap();
        let (gated, open) = (f.mul(dy, sigmoid).unwrap(), f.mul(h3, slope).unwrap());
        vec![f.mul(gated, open).unwrap(), f.mul(gated, h1).unwrap()]
    })
}

/// Logits, probabilities, and the gradient of the last hidden values.
fn classifier(s: &Sizes) -> Function {
    host("classifier", |f| {
        let (x, embedding) = (input(f, "x", &[s.seq, s.dim]), input(f, "e", &[s.vocab, s.dim]));
        let targets = input(f, "targets", &[s.seq, 1]);
        let logits = f.matmul(x, embedding, false, true).unwrap();
        let p = f.softmax(logits, 1).unwrap();
        let d_logits = f.sub(p, targets).unwrap();
        vec![f.matmul(d_logits, embedding, false, false).unwrap()]
    })
}
