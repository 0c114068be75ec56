//! Kernels that are not chains: what they read and write, and the instructions that they become.

use std::collections::HashMap;

use arcane_mil::{
    HeadGradient, Op, Random, Recognised, Reduce, Region, ScatterMode, ScoreMask, TensorType, ValueId,
};
use arcane_tensor::DType;

use super::chain::{Chain, ChainOp, ChainOperand, ChainStep};
use super::lower::Lowering;
use super::view::View;
use crate::EngineError;
use crate::kernels::attention::{Attention, AttentionGradient, Mask};
use crate::kernels::cross_entropy::{CrossEntropy, Gradient, chunk_rows, shared_len};
use crate::kernels::fused::Step;
use crate::kernels::gemm::{Gemm, ProductResult};
use crate::kernels::index::{AxisCut, Gather, Scatter};
use crate::kernels::integer::IntegerStep;
use crate::kernels::lines::Line;
use crate::kernels::moves::Move;
use crate::kernels::nd::{GatherNd, ReverseSequence, ScatterNd};
use crate::kernels::region::Region as Window;
use crate::kernels::routine::Routine;
use crate::kernels::sample::{Sampling, SamplingKind};
use crate::kernels::silicon::Silicon;
use crate::kernels::{Access, Instruction};

/// What a node does, on views.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Element-wise ops and reductions.
    Chain(Chain),
    /// A plain copy of dense bytes.
    Copy { from: View, to: View },
    /// `x · y`, and where it is packed.
    Gemm { x: View, y: View, result: ProductView, packed: Option<View> },
    /// See [`Silicon`].
    Silicon { x: View, y: View, bias: Option<View>, out: View, packed: View },
    /// See [`Attention`].
    Attention { query: View, key: View, value: View, out: View, mask: ViewMask, scale: f32 },
    /// See [`AttentionGradient`].
    AttentionGradient(Box<ScoreGradient>),
    /// See [`CrossEntropy`].
    CrossEntropy(Box<Head>),
    /// A kernel on a list of operands.
    Routine { routine: Routine, views: Vec<View> },
    /// See [`Move`].
    Move { from: View, to: View, offsets: Vec<Vec<i64>>, fill: [u8; 8] },
    /// See [`Window`].
    Region { whole: View, part: View, begin: View, known: Vec<Option<i64>>, steps: Vec<i64>, put: bool },
    /// See [`GatherNd`]; the sizes are those of the batch, the picks and a slice.
    GatherNd { x: View, indices: View, out: View, dims: Vec<usize>, sizes: [usize; 3] },
    /// See [`ScatterNd`].
    ScatterNd { indices: View, updates: View, out: View, dims: Vec<usize>, inner: usize, mode: ScatterMode },
    /// See [`ReverseSequence`]; the axes are those of the sequence and of the batch.
    ReverseSequence { x: View, lengths: View, out: View, axes: [usize; 2] },
    /// See [`Sampling`].
    Sampling { x: View, points: View, images: Option<View>, out: View, kind: SamplingKind },
    /// See [`Gather`].
    Gather { x: View, indices: View, out: View, cut: AxisCut },
    /// See [`crate::kernels::integer::Elementwise`].
    Elementwise { step: IntegerStep, operands: Vec<View>, out: View },
    /// See [`crate::kernels::integer::IntegerReduce`].
    IntegerReduce { kind: Reduce, x: View, reduced: Vec<bool>, out: View },
    /// See [`crate::kernels::integer::IntegerProduct`].
    IntegerProduct { x: View, y: View, bias: Option<View>, out: View },
    /// See [`crate::kernels::lines::Lines`].
    Lines { what: Line, axis: usize, x: View, picks: usize, values: Option<View>, indices: Option<View> },
    /// See [`crate::kernels::random::Numbers`].
    Random { random: Random, out: View },
    /// See [`Scatter`].
    Scatter { data: View, indices: View, updates: View, out: View, cut: AxisCut, mode: ScatterMode },
}

/// What becomes of a product.
#[derive(Clone, Debug)]
pub(super) enum ProductView {
    /// It goes to memory as it is.
    Memory(View),
    /// A chain takes it.
    Chain(Chain),
}

impl ProductView {
    /// Where the product goes that a chain begins with, in the shape `flat` where it goes to memory as it is; and whether it
    /// does.
    pub(super) fn of(chain: Chain, flat: &[usize]) -> (Self, bool) {
        match plain_store(&chain).and_then(|view| view.reshape(flat)) {
            Some(out) => (Self::Memory(out), true),
            None => (Self::Chain(chain), false),
        }
    }
}

/// A mask on views.
#[derive(Clone, Debug)]
pub(super) enum ViewMask {
    None,
    Causal,
    Tensor(View),
}

/// Operands of [`AttentionGradient`].
#[derive(Clone, Debug)]
pub(super) struct ScoreGradient {
    query: View,
    key: View,
    value: View,
    d_out: View,
    d: [View; 3],
    mask: ViewMask,
    masked: f32,
    scale: (f32, bool),
    d_scale: f32,
}

/// Operands of [`CrossEntropy`].
#[derive(Clone, Debug)]
pub(super) struct Head {
    hidden: View,
    weight: View,
    targets: View,
    log_sum: Option<View>,
    picked: Option<View>,
    gradient: Option<HeadGradientViews>,
    logits: View,
    packed: View,
}

#[derive(Clone, Debug)]
struct HeadGradientViews {
    factor: View,
    update: View,
    d: [Option<View>; 2],
    wide: [Option<View>; 2],
}

impl Lowering<'_> {
    /// Lowers an op that has a kernel of its own.
    pub(super) fn single(&mut self, i: usize) -> Result<(), EngineError> {
        let operation = &self.function.operations()[i];
        let result = operation.results[0];
        if let Op::Slice(_) | Op::Pad(_) | Op::Rearrange(_) | Op::Sample(_) = operation.op {
            self.short(i, &self.function.ty(result).shape)?;
        }
        match operation.op.clone() {
            Op::ScaledDotProductAttention { query, key, value, attn_mask } => {
                self.floats(i, query)?;
                let (width, length) = {
                    let shape = &self.function.ty(query).shape;
                    (shape[shape.len() - 1], shape[shape.len() - 2])
                };
                let scores = [self.function.ty(query).shape.len() - 2, length];
                let (query, key, value) = (self.view(query), self.view(key), self.view(value));
                let mask = match attn_mask {
                    None => ViewMask::None,
                    Some(mask) => self.mask(mask, &query.shape[..scores[0]], length, key.shape[scores[0]]),
                };
                let out = self.visible(i, result);
                let mut reads = vec![query.slot, key.slot, value.slot];
                if let ViewMask::Tensor(view) = &mask {
                    reads.push(view.slot);
                }
                let writes = vec![out.slot];
                let scale = 1.0 / (width as f32).sqrt();
                self.node(
                    Work::Attention { query, key, value, out, mask, scale },
                    i,
                    reads,
                    writes,
                    Vec::new(),
                );
                Ok(())
            }
            Op::Make(_) => Err(self.unsupported(i, "an array of this size is not supported here")),
            Op::Slice(slice) => self.slice(i, &slice, result),
            Op::Pad(pad) => {
                self.pad(i, &pad, result);
                Ok(())
            }
            Op::Rearrange(op) => self.rearrange(i, &op, result),
            Op::Index(op) => self.indexed(i, &op, result),
            Op::Sample(op) => self.sampled(i, &op, result),
            Op::Gather { x, indices, axis } => {
                let cut =
                    AxisCut::new(&self.function.ty(x).shape, axis, self.function.ty(indices).len(), false);
                self.gather(i, x, indices, cut, result)
            }
            Op::GatherAlongAxis { x, indices, axis } => {
                let picks = self.function.ty(indices).shape[axis];
                let cut = AxisCut::new(&self.function.ty(x).shape, axis, picks, true);
                self.gather(i, x, indices, cut, result)
            }
            Op::Scatter { data, indices, updates, axis, mode } => {
                let cut =
                    AxisCut::new(&self.function.ty(data).shape, axis, self.function.ty(indices).len(), false);
                self.scatter(i, [data, indices, updates], cut, mode, result)
            }
            Op::ScatterAlongAxis { data, indices, updates, axis, mode } => {
                let picks = self.function.ty(indices).shape[axis];
                let cut = AxisCut::new(&self.function.ty(data).shape, axis, picks, true);
                self.scatter(i, [data, indices, updates], cut, mode, result)
            }
            Op::Convolution(c) => self.convolution(i, &c),
            Op::TransposedConvolution(c) => self.transposed_convolution(i, &c),
            Op::Pool(p) => self.pool(i, &p),
            Op::Quantization(q) => self.quantization(i, &q),
            Op::Recurrent(r) => self.recurrent(i, &r),
            Op::Constexpr(_) => Err(self.unsupported(i, "its operands are no constants that fit each other")),
            Op::AlongAxis(_) | Op::Normalisation(_) => self.lines(i),
            Op::Random(random) => {
                let out = self.visible(i, result);
                let writes = vec![out.slot];
                self.node(Work::Random { random, out }, i, Vec::new(), writes, Vec::new());
                Ok(())
            }
            _ => self.integer(i),
        }
    }

    /// The view of a result; storage that nobody reads where it has none.
    pub(super) fn visible(&mut self, i: usize, v: ValueId) -> View {
        let ty = self.function.ty(v).clone();
        self.known_view(v).unwrap_or_else(|| {
            debug_assert!(self.definitions[v.index()] == Some(i));
            self.temporary(ty.dtype, &ty.shape)
        })
    }

    pub(super) fn floats(&self, i: usize, v: ValueId) -> Result<(), EngineError> {
        match self.function.ty(v).dtype {
            DType::F16 | DType::F32 => Ok(()),
            other => Err(self.unsupported(i, format!("{other} operands are not supported here"))),
        }
    }

    /// Lowers a matrix product and the element-wise ops that follow it.
    pub(super) fn product(
        &mut self,
        cluster: usize,
        product: usize,
        ops: &[usize],
        shape: &[usize],
    ) -> Result<(), EngineError> {
        let (x, y, bias) = self.product_operands(product, shape)?;
        let result = self.function.operations()[product].results[0];
        if self.lookups.is_some() && self.function.ty(result).dtype == DType::F16 {
            return self.silicon_product(product, [x, y], bias, shape);
        }
        let mut chain =
            Chain { shape: shape.to_vec(), row_axes: Some(vec![shape.len() - 1]), ops: Vec::new() };
        let mut position = HashMap::new();
        for &i in ops {
            if i == product {
                let result = self.function.operations()[i].results[0];
                let round = self.function.ty(result).dtype == DType::F16;
                let bias = bias.clone().map(ChainOperand::External);
                chain.product_result(bias, round, self.known_view(result));
            } else {
                let op = self.chain_op(i, cluster, &position, &chain)?;
                chain.ops.push(op);
            }
            position.insert(i, chain.ops.len() - 1);
        }
        if chain.writes().next().is_some() {
            self.gemm(product, x, y, chain);
        }
        Ok(())
    }

    /// The operands of a product as `[batch.., m, k]` and `[batch.., k, n]`, and the bias of a `linear`.
    pub(super) fn product_operands(
        &mut self,
        i: usize,
        shape: &[usize],
    ) -> Result<(View, View, Option<View>), EngineError> {
        let (x, y, bias) = match self.function.operations()[i].op.clone() {
            Op::Matmul { x, y, transpose_x, transpose_y } => {
                let flip = |view: View, transposed: bool| if transposed { view.swap_last() } else { view };
                let batch = &shape[..shape.len() - 2];
                let stretch = |v: View| v.broadcast(&[batch, &v.shape[v.shape.len() - 2..]].concat());
                let (x, y) = (flip(self.view(x), transpose_x), flip(self.view(y), transpose_y));
                (stretch(x), stretch(y), None)
            }
            Op::Convolution(c) => {
                self.floats(i, c.x)?;
                let ty = self.function.ty(c.x).shape.clone();
                let (batch, channels, positions) = (ty[0], ty[1], ty[ty.len() - 1]);
                let y = self.reshaped(i, c.x, &[batch, channels, positions])?;
                let weight = self.reshaped(i, c.weight, &[shape[1], channels])?;
                let bias = match c.bias {
                    None => None,
                    Some(bias) => {
                        Some(self.reshaped(i, bias, &[&[shape[1]], &vec![1; ty.len() - 2][..]].concat())?)
                    }
                };
                (weight.broadcast(&[batch, shape[1], channels]), y, bias)
            }
            Op::Linear { x, weight, bias } => {
                let width = self.function.ty(weight).shape[1];
                let rows = shape[..shape.len() - 1].iter().product();
                let x = self.reshaped(i, x, &[rows, width])?;
                let bias = bias.map(|bias| self.view(bias));
                (x, self.view(weight).swap_last(), bias)
            }
            other => unreachable!("{} is no product", other.name()),
        };
        Ok((x, y, bias))
    }

    /// A mask as the kernel wants it; a constant lower triangle is recognised.
    fn mask(&mut self, mask: ValueId, batch: &[usize], rows: usize, cols: usize) -> ViewMask {
        if let Some(tensor) = self.constant(mask)
            && tensor.shape().iter().rev().skip(2).all(|&d| d == 1)
            && tensor.shape().ends_with(&[rows, cols])
            && rows == cols
            && let Some(values) = tensor.as_slice::<bool>()
            && values.iter().enumerate().all(|(k, &seen)| seen == (k % cols <= k / cols))
        {
            return ViewMask::Causal;
        }
        let view = self.view(mask);
        ViewMask::Tensor(view.broadcast(&[batch, &[rows, cols]].concat()))
    }

    /// Adds a node that converts a view to another float type.
    pub(super) fn convert(&mut self, i: usize, from: View, to: View) {
        let (reads, writes) = (vec![from.slot], vec![to.slot]);
        let round = to.dtype == DType::F16;
        let mut chain = Chain::copy(from, to);
        if round {
            chain.ops[0].step = ChainStep::Step(Step::Unary(arcane_mil::Unary::Identity));
            chain.ops[0].round = true;
        }
        self.node(Work::Chain(chain), i, reads, writes, Vec::new());
    }

    /// Lowers a recognised region.
    pub(super) fn region(&mut self, region: &Region) -> Result<(), EngineError> {
        let last = *region.ops.last().expect("regions have ops");
        match &region.what {
            Recognised::CrossEntropy { hidden, head, targets, log_sum, picked, gradient } => {
                let hidden = self.dense(last, *hidden)?;
                let head = self.dense(last, *head)?;
                let targets = self.dense(last, *targets)?;
                let (log_sum, picked) = (self.wanted(*log_sum), self.wanted(*picked));
                let chunk = chunk_rows(hidden.shape[0], head.shape[0]);
                let logits = self.temporary(DType::F32, &[chunk, head.shape[0]]);
                let packed = shared_len(hidden.shape[0], hidden.shape[1], head.shape[0]);
                let packed = self.temporary(DType::F32, &[packed]);
                let gradient = match gradient {
                    Some(g) => Some(self.head_gradient(last, g, chunk)?),
                    None => None,
                };
                let head = Head { hidden, weight: head, targets, log_sum, picked, gradient, logits, packed };
                self.head_node(last, head);
                Ok(())
            }
            Recognised::AttentionGradient { query, key, value, d_out, d, mask, scale, d_scale } => {
                let shape = self.function.ty(*query).shape.clone();
                let (batch, length) = (&shape[..shape.len() - 2], shape[shape.len() - 2]);
                let (query, key, value) = (self.view(*query), self.view(*key), self.view(*value));
                let keys = key.shape[shape.len() - 2];
                let (mask, masked) = match mask {
                    ScoreMask::None => (ViewMask::None, 0.0),
                    ScoreMask::Select(mask, masked) => (self.mask(*mask, batch, length, keys), *masked),
                    ScoreMask::Add(mask) => {
                        let view = self.view(*mask).broadcast(&[batch, &[length, keys]].concat());
                        (ViewMask::Tensor(view), 0.0)
                    }
                };
                let d_out = self.view(*d_out);
                let d = [self.visible_anyhow(d[0]), self.visible_anyhow(d[1]), self.visible_anyhow(d[2])];
                let mut reads = vec![query.slot, key.slot, value.slot, d_out.slot];
                if let ViewMask::Tensor(view) = &mask {
                    reads.push(view.slot);
                }
                let writes = d.iter().map(|v| v.slot).collect();
                let (scale, d_scale) = (*scale, *d_scale);
                let all = ScoreGradient { query, key, value, d_out, d, mask, masked, scale, d_scale };
                self.node(Work::AttentionGradient(Box::new(all)), last, reads, writes, Vec::new());
                Ok(())
            }
        }
    }

    fn visible_anyhow(&mut self, v: ValueId) -> View {
        let i = self.definitions[v.index()].expect("regions compute their results");
        self.visible(i, v)
    }

    /// The view of a region's result that somebody reads.
    fn wanted(&mut self, v: Option<ValueId>) -> Option<View> {
        v.and_then(|v| self.known_view(v))
    }

    fn head_gradient(
        &mut self,
        i: usize,
        g: &HeadGradient,
        chunk: usize,
    ) -> Result<HeadGradientViews, EngineError> {
        let (factor, update) = (self.dense(i, g.factor)?, self.dense(i, g.update)?);
        let d = [self.wanted(g.d_hidden), self.wanted(g.d_head)];
        // fp16 gradients are sums in fp32 first: a chunk's rows of the one, all chunks of the other.
        let wide = [0, 1].map(|k| {
            let view = d[k].as_ref().filter(|view| view.dtype == DType::F16)?;
            let rows = if k == 0 { chunk } else { view.shape[0] };
            Some(self.temporary(DType::F32, &[rows, view.shape[1]]))
        });
        Ok(HeadGradientViews { factor, update, d, wide })
    }

    fn head_node(&mut self, i: usize, head: Head) {
        let mut reads = vec![head.hidden.slot, head.weight.slot, head.targets.slot];
        let mut writes: Vec<_> = head.log_sum.iter().chain(&head.picked).map(|v| v.slot).collect();
        let mut temporaries = vec![head.logits.slot, head.packed.slot];
        if let Some(g) = &head.gradient {
            reads.extend([g.factor.slot, g.update.slot]);
            writes.extend(g.d.iter().flatten().map(|v| v.slot));
            temporaries.extend(g.wide.iter().flatten().map(|v| v.slot));
        }
        self.node(Work::CrossEntropy(Box::new(head)), i, reads, writes, temporaries);
    }
}

impl Work {
    /// The instruction, on placed views. Chains are emitted by their own module.
    pub(super) fn instruction(&self, place: &dyn Fn(&View) -> Access) -> Instruction {
        match self {
            Self::Chain(_) => unreachable!("chains need partial results"),
            Self::Copy { from, to } => Instruction::Copy { from: place(from), to: place(to) },
            Self::Gemm { x, y, result, packed } => {
                let no_partials = |_| unreachable!("what follows a product has no reductions");
                let result = match result {
                    ProductView::Memory(out) => ProductResult::Memory(place(out)),
                    ProductView::Chain(chain) => {
                        ProductResult::Chain(Box::new(chain.kernel(place, &no_partials)))
                    }
                };
                Instruction::Gemm(Gemm {
                    x: place(x),
                    y: place(y),
                    result,
                    packed: packed.as_ref().map(place),
                })
            }
            Self::Silicon { x, y, bias, out, packed } => Instruction::Silicon(Silicon {
                x: place(x),
                y: place(y),
                bias: bias.as_ref().map(place),
                out: place(out),
                packed: place(packed),
            }),
            Self::Attention { query, key, value, out, mask, scale } => Instruction::Attention(Attention {
                query: place(query),
                key: place(key),
                value: place(value),
                out: place(out),
                mask: mask.place(place),
                scale: *scale,
            }),
            Self::AttentionGradient(g) => Instruction::AttentionGradient(Box::new(AttentionGradient {
                query: place(&g.query),
                key: place(&g.key),
                value: place(&g.value),
                d_out: place(&g.d_out),
                d: [0, 1, 2].map(|k| place(&g.d[k])),
                mask: g.mask.place(place),
                masked: g.masked,
                scale: g.scale.0,
                round_scaled: g.scale.1,
                d_scale: g.d_scale,
            })),
            Self::CrossEntropy(h) => Instruction::CrossEntropy(Box::new(CrossEntropy {
                hidden: place(&h.hidden),
                head: place(&h.weight),
                targets: place(&h.targets),
                log_sum: h.log_sum.as_ref().map(place),
                picked: h.picked.as_ref().map(place),
                gradient: h.gradient.as_ref().map(|g| Gradient {
                    factor: place(&g.factor),
                    update: place(&g.update),
                    d_hidden: g.d[0].as_ref().map(place),
                    d_head: g.d[1].as_ref().map(place),
                    wide: [0, 1].map(|k| g.wide[k].as_ref().map(place)),
                }),
                logits: place(&h.logits),
                packed: place(&h.packed),
            })),
            Self::Routine { routine, views } => {
                Instruction::Routine { routine: routine.clone(), operands: views.iter().map(place).collect() }
            }
            Self::Move { from, to, offsets, fill } => Instruction::Move(Move {
                from: place(from),
                to: place(to),
                offsets: offsets.clone(),
                fill: *fill,
            }),
            Self::Region { whole, part, begin, known, steps, put } => Instruction::Region(Window {
                whole: place(whole),
                part: place(part),
                begin: place(begin),
                known: known.clone(),
                steps: steps.clone(),
                put: *put,
            }),
            Self::GatherNd { x, indices, out, dims, sizes } => Instruction::GatherNd(GatherNd {
                x: place(x),
                indices: place(indices),
                out: place(out),
                dims: dims.clone(),
                batch: sizes[0],
                picks: sizes[1],
                inner: sizes[2],
            }),
            Self::ScatterNd { indices, updates, out, dims, inner, mode } => {
                Instruction::ScatterNd(ScatterNd {
                    indices: place(indices),
                    updates: place(updates),
                    out: place(out),
                    dims: dims.clone(),
                    inner: *inner,
                    mode: *mode,
                })
            }
            Self::ReverseSequence { x, lengths, out, axes } => {
                Instruction::ReverseSequence(ReverseSequence {
                    x: place(x),
                    lengths: place(lengths),
                    out: place(out),
                    seq_axis: axes[0],
                    batch_axis: axes[1],
                })
            }
            Self::Sampling { x, points, images, out, kind } => Instruction::Sampling(Sampling {
                x: place(x),
                points: place(points),
                images: images.as_ref().map(place),
                out: place(out),
                kind: *kind,
            }),
            Self::Gather { x, indices, out, cut } => Instruction::Gather(Gather {
                x: place(x),
                indices: place(indices),
                out: place(out),
                cut: *cut,
            }),
            Self::Elementwise { .. }
            | Self::IntegerReduce { .. }
            | Self::IntegerProduct { .. }
            | Self::Random { .. }
            | Self::Lines { .. } => super::integer::instruction(self, place),
            Self::Scatter { data, indices, updates, out, cut, mode } => Instruction::Scatter(Scatter {
                data: place(data),
                indices: place(indices),
                updates: place(updates),
                out: place(out),
                cut: *cut,
                mode: *mode,
            }),
        }
    }

    /// Whether an output may share the memory of a parameter that this work reads: every element is read before it is
    /// written.
    pub(super) fn reads_before_writing(
        &self,
        parameter: super::view::SlotId,
        output: super::view::SlotId,
    ) -> bool {
        match self {
            Self::Chain(chain) => chain.reads_before_writing(parameter, output),
            Self::Gemm { x, y, result: ProductView::Chain(chain), .. } => {
                ![x.slot, y.slot].contains(&parameter) && chain.reads_before_writing(parameter, output)
            }
            Self::Scatter { data, indices, updates, .. } => {
                data.slot == parameter && indices.slot != parameter && updates.slot != parameter
            }
            Self::Copy { .. }
            | Self::Move { .. }
            | Self::Region { .. }
            | Self::GatherNd { .. }
            | Self::ScatterNd { .. }
            | Self::ReverseSequence { .. }
            | Self::Sampling { .. }
            | Self::Gemm { .. }
            | Self::Silicon { .. }
            | Self::Attention { .. }
            | Self::AttentionGradient(_)
            | Self::CrossEntropy(_)
            | Self::Routine { .. }
            | Self::Elementwise { .. }
            | Self::IntegerReduce { .. }
            | Self::IntegerProduct { .. }
            | Self::Lines { .. }
            | Self::Random { .. }
            | Self::Gather { .. } => false,
        }
    }

    /// The length of the axis that run-time indices index, if there are any.
    pub(super) fn index_limit(&self) -> usize {
        match self {
            Self::Gather { cut, .. } | Self::Scatter { cut, .. } => cut.length,
            Self::CrossEntropy(h) => h.weight.shape[0],
            Self::GatherNd { dims, .. } | Self::ScatterNd { dims, .. } => {
                dims.iter().copied().max().unwrap_or(0)
            }
            Self::ReverseSequence { x, axes, .. } => x.shape[axes[0]] + 1,
            Self::Sampling { x, .. } => x.shape[0],
            Self::Region { whole, .. } => whole.shape.iter().copied().max().unwrap_or(0),
            Self::Chain(_)
            | Self::Copy { .. }
            | Self::Move { .. }
            | Self::Gemm { .. }
            | Self::Silicon { .. }
            | Self::Attention { .. }
            | Self::Routine { .. }
            | Self::AttentionGradient(_)
            | Self::Elementwise { .. }
            | Self::IntegerReduce { .. }
            | Self::IntegerProduct { .. }
            | Self::Lines { .. }
            | Self::Random { .. } => 0,
        }
    }
}

impl ViewMask {
    fn place(&self, place: &dyn Fn(&View) -> Access) -> Mask {
        match self {
            Self::None => Mask::None,
            Self::Causal => Mask::Causal,
            Self::Tensor(view) => Mask::Tensor(place(view)),
        }
    }
}

/// Where a product goes if nothing follows it and micro-kernels can write it.
fn plain_store(chain: &Chain) -> Option<&View> {
    let [ChainOp { step: ChainStep::Same, store: Some(view), .. }] = chain.ops.as_slice() else {
        return None;
    };
    let last = view.shape.len() - 1;
    (view.dtype == DType::F32 && (view.strides[last] == 1 || view.shape[last] == 1)).then_some(view)
}

/// A rank-1 type of f64 values: partial results.
pub(super) fn partials_type(len: usize) -> TensorType {
    TensorType::new(DType::F64, &[len])
}
