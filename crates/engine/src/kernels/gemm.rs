//! The instruction of matrix products: batches, and what follows the product.

use super::fused::Fused;
use super::pack::Matrix;
use super::product::{Product, Target, packed_len};
use super::{Access, Context, for_each_task, skinny};

/// Multiply-adds that are worth a task of small products.
const TASK: usize = 1 << 20;
/// Multiply-adds of a product that is worth all threads.
const LARGE: usize = 8 << 20;
/// Batches that are enough for all threads.
const MANY: usize = 16;
/// Longest contraction of a product that one thread computes alone: it packs whole panels.
const SHORT: usize = 4096;

/// `x · y`, batch by batch.
#[derive(Clone, Debug)]
pub(crate) struct Gemm {
    /// `[batch.., m, k]`, any strides, fp16 or fp32.
    pub x: Access,
    /// `[batch.., k, n]`, any strides, fp16 or fp32.
    pub y: Access,
    /// What becomes of the fp32 product.
    pub result: ProductResult,
    /// Where the right operand is packed: [`Shape::shared_len`] floats.
    pub packed: Option<Access>,
}

/// What becomes of a product.
#[derive(Clone, Debug)]
pub(crate) enum ProductResult {
    /// It goes to memory: `[batch.., m, n]`, fp32, the last dimension dense.
    Memory(Access),
    /// It is the tile of a chain over `[batch · m, n]`.
    Chain(Box<Fused>),
}

/// A product's shape: batches, and `[m, n, k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    batches: usize,
    m: usize,
    n: usize,
    k: usize,
}

impl Shape {
    /// Of `[batch.., m, k] · [batch.., k, n]`.
    pub(crate) fn new(x: &[usize], y: &[usize]) -> Self {
        let rank = x.len();
        Self { batches: x[..rank - 2].iter().product(), m: x[rank - 2], n: y[rank - 1], k: x[rank - 1] }
    }

    /// How many products.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// Rows of the left operand.
    pub(crate) fn m(&self) -> usize {
        self.m
    }

    /// Columns of the right operand.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The contracted length.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Whether each product is one thread's.
    fn is_alone(&self) -> bool {
        let work = (self.m * self.n).saturating_mul(self.k);
        self.k <= SHORT && self.batches > 1 && (self.batches >= MANY || work < LARGE)
    }

    /// Floats of shared storage for the packed right operand, if the product needs it.
    pub(crate) fn shared_len(&self, y_strides: &[usize], in_memory: bool) -> Option<usize> {
        let rank = y_strides.len();
        let is_skinny = skinny::fits(self.m, self.k, y_strides[rank - 2], y_strides[rank - 1]);
        let used = !self.is_alone() && !is_skinny;
        used.then(|| packed_len(self.k, self.n, in_memory))
    }
}

impl Gemm {
    fn shape(&self) -> Shape {
        Shape::new(&self.x.shape, &self.y.shape)
    }

    fn chain(&self) -> Option<&Fused> {
        match &self.result {
            ProductResult::Memory(_) => None,
            ProductResult::Chain(chain) => Some(chain),
        }
    }

    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let shape = self.shape();
        let chain = self.chain();
        let skinny = skinny::scratch_len(shape.m, shape.k) + chain.map_or(0, Fused::tile_scratch_len);
        let alone = if shape.is_alone() { Product::alone_len(shape.k, shape.n) } else { 0 };
        4 * (alone + Product::scratch_len(chain, shape.n)).max(skinny)
    }

    /// Runs it over all batches.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let shape = self.shape();
        let Shape { batches, m, n, k } = shape;
        if batches * m * n == 0 {
            return;
        }
        let product = |b: usize| self.product(context, shape, b);
        let rank = self.y.strides.len();
        if skinny::fits(m, k, self.y.strides[rank - 2], self.y.strides[rank - 1]) {
            let per_task = skinny::cols_per_task(k);
            let pieces = n.div_ceil(per_task);
            for_each_task(batches * pieces, &|t| {
                let first = t % pieces * per_task;
                // SAFETY: the planner lays the views inside their memories and keeps the result apart.
                unsafe { skinny::run_cols(&product(t / pieces), context, first..(first + per_task).min(n)) };
            });
        } else if shape.is_alone() {
            let per_task = TASK.div_ceil((m * n * k).max(1)).min(batches);
            for_each_task(batches.div_ceil(per_task), &|t| {
                for b in t * per_task..((t + 1) * per_task).min(batches) {
                    // SAFETY: as above; batches write disjoint results.
                    unsafe { product(b).run_alone(context) };
                }
            });
        } else {
            let packed = self.packed.as_ref().expect("products of all threads share a packed operand");
            let packed = context.pointer(packed).cast::<f32>();
            for b in 0..batches {
                // SAFETY: as above; the planner gave the packed operand its storage.
                unsafe { product(b).run(context, packed) };
            }
        }
    }

    /// Batch b.
    fn product(&self, context: &Context<'_>, shape: Shape, b: usize) -> Product<'_> {
        let rank = self.x.shape.len();
        let matrix = |access: &Access| Matrix {
            start: context.pointer(access).wrapping_add(batch_offset(access, b) * access.dtype.size()),
            dtype: access.dtype,
            row: access.strides[rank - 2],
            col: access.strides[rank - 1],
        };
        let target = match &self.result {
            ProductResult::Memory(out) => Target::Memory {
                start: context.pointer(out).cast::<f32>().wrapping_add(batch_offset(out, b)),
                stride: out.strides[rank - 2],
                add: false,
            },
            ProductResult::Chain(chain) => Target::Chain { chain, first_row: b * shape.m },
        };
        let Shape { m, n, k, .. } = shape;
        Product::new([m, n, k], matrix(&self.x), matrix(&self.y), target)
    }
}

/// The offset of batch b's first element.
pub(crate) fn batch_offset(access: &Access, b: usize) -> usize {
    let outer = access.shape.len() - 2;
    let (mut rest, mut offset) = (b, 0);
    for i in (0..outer).rev() {
        offset += rest % access.shape[i] * access.strides[i];
        rest /= access.shape[i];
    }
    offset
}
