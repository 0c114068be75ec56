//! Norms whose every intermediate value is in the range of fp16.

use std::collections::{HashMap, HashSet};

use arcane_mil::{
    Binary, BuildError, Builder, Function, Op, Reduce, Rewriter, Unary, ValueId, number_of, remove_dead_code,
};
use arcane_tensor::DType;

/// What a row is at least divided by: larger rows come into the range −1..1, and `ε / 2⁻¹⁴` is still finite.
const SMALLEST_MAXIMUM: f64 = 1.0 / 128.0;

/// Rewrites `r = rsqrt(mean(x²) + ε)` and the products that it and its derivative occur in, so that fp16 holds every value.
///
/// The sum of 768 squares of fp16 numbers overflows where their root mean square is 9, the cube of `r`, which the derivative
/// has as a factor, where it is 0.025. With m = max(max|x|, 2⁻⁷) and y = x/m, which is in −1..1,
///
/// ```text
/// s = rsqrt(mean(y²) + ε/m²)        r = s/m        x·r = y·s
/// −½·r·r²·Σ(d·x)·(1/n)·2x  =  −(x·r)·r·Σ(d·(x·r)·(1/n))
/// ```
///
/// the second line being the derivative's part through the mean. It is recognised in the spelling that differentiation
/// gives it; where the derivative is spelled otherwise, only the forward part is rewritten.
#[must_use]
pub fn scale_norms(function: &Function) -> Function {
    let norms = find(function);
    if norms.is_empty() {
        return function.clone();
    }
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    let by_root: HashMap<usize, &Norm> = norms.iter().map(|n| (n.root_op, n)).collect();
    let by_product: HashMap<usize, &Norm> =
        norms.iter().flat_map(|n| n.products.iter().map(move |&p| (p, n))).collect();
    let by_gradient: HashMap<usize, (&Norm, &Gradient)> =
        norms.iter().flat_map(|n| n.gradients.iter().map(move |g| (g.op, (n, g)))).collect();
    let mut scaled: HashMap<usize, Scaled> = HashMap::new();
    for (i, operation) in function.operations().iter().enumerate() {
        let result = operation.results[0];
        let path = &function.value(result).path;
        if let Some(norm) = by_root.get(&i) {
            let x = rewriter.get(norm.x);
            let parts = forward(&mut rewriter.builder, path, norm, x).expect("a norm's operands broadcast");
            rewriter.set(result, parts.root);
            scaled.insert(i, parts);
        } else if let Some(norm) = by_product.get(&i) {
            rewriter.set(result, scaled[&norm.root_op].normed);
        } else if let Some((norm, gradient)) = by_gradient.get(&i) {
            let d = rewriter.get(gradient.d);
            let parts = &scaled[&norm.root_op];
            let part = backward(&mut rewriter.builder, path, norm, parts, d);
            rewriter.set(result, part.expect("a norm's derivative broadcasts"));
        } else {
            rewriter.copy(operation);
        }
    }
    remove_dead_code(&rewriter.finish())
}

/// `root = rsqrt(mean(x²) + ε)`
struct Norm {
    x: ValueId,
    axes: Vec<usize>,
    epsilon: f64,
    /// The op of the root.
    root_op: usize,
    /// Ops that give x·root.
    products: Vec<usize>,
    gradients: Vec<Gradient>,
}

/// An op that gives the part of the derivative through the mean.
struct Gradient {
    op: usize,
    /// The adjoint of x·root.
    d: ValueId,
}

/// New values of a norm.
struct Scaled {
    /// rsqrt(mean(x²) + ε)
    root: ValueId,
    /// x·root
    normed: ValueId,
}

fn forward(b: &mut Builder, path: &str, norm: &Norm, x: ValueId) -> Result<Scaled, BuildError> {
    let dtype = b.ty(x).dtype;
    let mut at = Place { b, path };
    let magnitude = at.unary(Unary::Abs, x)?;
    let largest = at.reduce(Reduce::Max, magnitude, &norm.axes)?;
    let least = at.b.scalar(dtype, SMALLEST_MAXIMUM);
    let maximum = at.binary(Binary::Maximum, largest, least)?;
    let one = at.b.scalar(dtype, 1.0);
    let inverse = at.binary(Binary::RealDiv, one, maximum)?;
    let y = at.binary(Binary::Mul, x, inverse)?;
    let square = at.unary(Unary::Square, y)?;
    let mean = at.reduce(Reduce::Mean, square, &norm.axes)?;
    let root_epsilon = at.b.scalar(dtype, norm.epsilon.sqrt());
    let scaled_epsilon = at.binary(Binary::Mul, inverse, root_epsilon)?;
    let epsilon = at.unary(Unary::Square, scaled_epsilon)?;
    let sum = at.binary(Binary::Add, mean, epsilon)?;
    let s = at.unary(Unary::Rsqrt { epsilon: 0.0 }, sum)?;
    let normed = at.binary(Binary::Mul, y, s)?;
    let root = at.binary(Binary::Mul, s, inverse)?;
    Ok(Scaled { root, normed })
}

fn backward(
    b: &mut Builder,
    path: &str,
    norm: &Norm,
    parts: &Scaled,
    d: ValueId,
) -> Result<ValueId, BuildError> {
    let shape = b.shape(parts.normed);
    let count: usize = norm.axes.iter().map(|&a| shape[a]).product();
    let dtype = b.ty(d).dtype;
    let mut at = Place { b, path };
    let share = at.b.scalar(dtype, -1.0 / count as f64);
    let shared = at.binary(Binary::Mul, parts.normed, share)?;
    let product = at.binary(Binary::Mul, d, shared)?;
    let mean = at.reduce(Reduce::Sum, product, &norm.axes)?;
    let scaled = at.binary(Binary::Mul, mean, parts.root)?;
    at.binary(Binary::Mul, parts.normed, scaled)
}

/// Where new ops stand in the model.
struct Place<'a> {
    b: &'a mut Builder,
    path: &'a str,
}

impl Place<'_> {
    fn unary(&mut self, kind: Unary, x: ValueId) -> Result<ValueId, BuildError> {
        Ok(self.b.push_at(self.path, Op::Unary { kind, x })?[0])
    }

    fn binary(&mut self, kind: Binary, x: ValueId, y: ValueId) -> Result<ValueId, BuildError> {
        Ok(self.b.push_at(self.path, Op::Binary { kind, x, y })?[0])
    }

    fn reduce(&mut self, kind: Reduce, x: ValueId, axes: &[usize]) -> Result<ValueId, BuildError> {
        Ok(self.b.push_at(self.path, Op::Reduce { kind, x, axes: axes.to_vec(), keep_dims: true })?[0])
    }
}

fn find(function: &Function) -> Vec<Norm> {
    let definitions = function.definitions();
    let op = |v: ValueId| definitions[v.index()].map(|i| &function.operations()[i].op);
    let finder = GradientFinder { function, definitions: &definitions };
    let mut norms = Vec::new();
    for (i, operation) in function.operations().iter().enumerate() {
        let Op::Unary { kind: Unary::Rsqrt { epsilon }, x: mean } = operation.op else { continue };
        let Some(Op::Reduce { kind: Reduce::Mean, x: square, axes, keep_dims: true }) = op(mean) else {
            continue;
        };
        let x = match op(*square) {
            Some(Op::Unary { kind: Unary::Square, x }) => *x,
            Some(Op::Binary { kind: Binary::Mul, x, y }) if x == y => *x,
            _ => continue,
        };
        if function.ty(x).dtype != DType::F32 {
            continue;
        }
        let root = operation.results[0];
        let products = uses(function, Binary::Mul, |a, b| [a, b] == [x, root] || [b, a] == [x, root]);
        let gradients = finder.gradients(x, root, axes);
        norms.push(Norm { x, axes: axes.clone(), epsilon, root_op: i, products, gradients });
    }
    norms
}

/// The element-wise ops of a kind whose operands `fit`.
fn uses(function: &Function, kind: Binary, fit: impl Fn(ValueId, ValueId) -> bool) -> Vec<usize> {
    let is_use = |op: &Op| matches!(*op, Op::Binary { kind: k, x, y } if k == kind && fit(x, y));
    let found = function.operations().iter().enumerate().filter(|(_, o)| is_use(&o.op));
    found.map(|(i, _)| i).collect()
}

struct GradientFinder<'a> {
    function: &'a Function,
    definitions: &'a [Option<usize>],
}

impl GradientFinder<'_> {
    /// Ops that give `(2x)·((−½r·r²·Σ(d·x))·(1/n))`.
    fn gradients(&self, x: ValueId, root: ValueId, axes: &[usize]) -> Vec<Gradient> {
        let is_twice_x =
            |v: ValueId| self.product(v).is_some_and(|(a, b)| a == x && self.number(b) == Some(2.0));
        let candidates: HashSet<usize> =
            uses(self.function, Binary::Mul, |a, _| is_twice_x(a)).into_iter().collect();
        let mut found: Vec<Gradient> = candidates
            .into_iter()
            .filter_map(|i| {
                let Op::Binary { y: share, .. } = self.function.operations()[i].op else { return None };
                Some(Gradient { op: i, d: self.adjoint(share, x, root, axes)? })
            })
            .collect();
        found.sort_by_key(|g| g.op);
        found
    }

    /// d of `(−½r·r²·Σ(d·x))·(1/n)`, where n is the number of elements of the axes.
    fn adjoint(&self, share: ValueId, x: ValueId, root: ValueId, axes: &[usize]) -> Option<ValueId> {
        let shape = &self.function.ty(x).shape;
        let count: usize = axes.iter().map(|&a| shape[a]).product();
        let (derivative, factor) = self.product(share)?;
        if self.number(factor)? != (1.0 / count as f64) as f32 {
            return None;
        }
        let (slope, sum) = self.product(derivative)?;
        let (half, square) = self.product(slope)?;
        let (r, minus_half) = self.product(half)?;
        let is_square = matches!(self.op(square)?, Op::Unary { kind: Unary::Square, x } if *x == root);
        if r != root || self.number(minus_half)? != -0.5 || !is_square {
            return None;
        }
        let Op::Reduce { kind: Reduce::Sum, x: summed, axes: summed_axes, keep_dims: true } = self.op(sum)?
        else {
            return None;
        };
        let (d, by) = self.product(*summed)?;
        (summed_axes == axes && by == x).then_some(d)
    }

    fn op(&self, v: ValueId) -> Option<&Op> {
        self.definitions[v.index()].map(|i| &self.function.operations()[i].op)
    }

    fn product(&self, v: ValueId) -> Option<(ValueId, ValueId)> {
        match self.op(v)? {
            Op::Binary { kind: Binary::Mul, x, y } => Some((*x, *y)),
            _ => None,
        }
    }

    fn number(&self, v: ValueId) -> Option<f32> {
        number_of(self.function, self.definitions, v)
    }
}
