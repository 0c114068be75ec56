//! Convolutions and pools: which of their windows are unfolded for a product, and which are computed as they are.

use arcane_mil::{Convolution, Pool, TransposedConvolution, ValueId};
use arcane_tensor::DType;

use super::chain::{Chain, ChainOperand};
use super::lower::Lowering;
use super::view::View;
use super::work::Work;
use crate::EngineError;
use crate::kernels::gemm::Shape;
use crate::kernels::routine::Routine;
use crate::kernels::spatial::{Axes, Axis, Direct, Pooling, Unfold, positions, taps};

/// Multiply-adds of a group's channels and outputs below which a product is not worth its packing.
const FEW: usize = 4;
/// Bytes of unfolded windows that are held at once.
const UNFOLDED: usize = 32 << 20;
/// Most parts that the positions of one convolution are cut into.
const MAX_PARTS: usize = 256;
/// Positions of a part are a multiple of this.
const PART: usize = 64;

/// A convolution of either kind.
struct Spatial {
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    groups: usize,
    axes: Axes,
    transposed: bool,
    /// Whether each position of the result comes from the same position of x.
    pointwise: bool,
}

/// Axes in front of which units stand.
fn axes(spatial: impl DoubleEndedIterator<Item = Axis>) -> Axes {
    let mut found = [Axis::UNIT; 3];
    found.iter_mut().rev().zip(spatial.rev()).for_each(|(to, axis)| *to = axis);
    found
}

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, i: usize, c: &Convolution) -> Result<(), EngineError> {
        let function = self.function;
        let (x, weight) = (&function.ty(c.x).shape, &function.ty(c.weight).shape);
        let result = &function.ty(function.operations()[i].results[0]).shape;
        let axis = |d: usize| Axis {
            length: x[d + 2],
            positions: result[d + 2],
            size: weight[d + 2],
            stride: c.strides[d],
            dilation: c.dilations[d] as isize,
            offset: -(c.padding(d, x[d + 2], weight[d + 2])[0] as isize),
            spacing: 1,
        };
        let spatial = Spatial {
            x: c.x,
            weight: c.weight,
            bias: c.bias,
            groups: c.groups,
            axes: axes((0..x.len() - 2).map(axis)),
            transposed: false,
            pointwise: c.is_pointwise(weight),
        };
        self.spatial(i, &spatial)
    }

    pub(super) fn transposed_convolution(
        &mut self,
        i: usize,
        c: &TransposedConvolution,
    ) -> Result<(), EngineError> {
        let function = self.function;
        let (x, weight) = (&function.ty(c.x).shape, &function.ty(c.weight).shape);
        let result = &function.ty(function.operations()[i].results[0]).shape;
        let axis = |d: usize| Axis {
            length: x[d + 2],
            positions: result[d + 2],
            size: weight[d + 2],
            stride: 1,
            dilation: -(c.dilations[d] as isize),
            offset: c.cut(d, x[d + 2], weight[d + 2]).map_or(0, |(_, before)| before as isize),
            spacing: c.strides[d],
        };
        let spatial = Spatial {
            x: c.x,
            weight: c.weight,
            bias: c.bias,
            groups: c.groups,
            axes: axes((0..x.len() - 2).map(axis)),
            transposed: true,
            pointwise: false,
        };
        self.spatial(i, &spatial)
    }

    fn spatial(&mut self, i: usize, s: &Spatial) -> Result<(), EngineError> {
        self.floats(i, s.x)?;
        let result = self.function.operations()[i].results[0];
        let [batch, channels] = [0, 1].map(|d| self.function.ty(s.x).shape[d] / [1, s.groups][d]);
        let outputs = self.function.ty(result).shape[1] / s.groups;
        let out = self.visible(i, result);
        if channels * outputs > FEW {
            return self.unfolded(i, s, [batch, channels, outputs], &out);
        }
        let mut operands = vec![self.dense(i, s.x)?, self.dense(i, s.weight)?];
        if let Some(bias) = s.bias {
            operands.push(self.dense(i, bias)?);
        }
        let direct = Direct {
            axes: s.axes,
            batch,
            groups: s.groups,
            channels,
            outputs,
            transposed: s.transposed,
            has_bias: s.bias.is_some(),
        };
        self.routine(i, Routine::Direct(direct), operands, vec![out]);
        Ok(())
    }

    /// A product of the weight with unfolded windows, as many positions at a time as fit into little memory.
    fn unfolded(
        &mut self,
        i: usize,
        s: &Spatial,
        [batch, channels, outputs]: [usize; 3],
        out: &View,
    ) -> Result<(), EngineError> {
        let (groups, taps, count) = (s.groups, taps(&s.axes), positions(&s.axes));
        let inner = channels * taps;
        let weight = self.weight_matrix(i, s, [channels, outputs, taps])?;
        let weight = weight.broadcast(&[batch, groups, outputs, inner]);
        let bias = match s.bias {
            None => None,
            Some(bias) => Some(self.reshaped(i, bias, &[groups * outputs, 1])?),
        };
        let out = out.reshape(&[batch, groups * outputs, count]).expect("results of single ops are dense");
        let x = self.dense(i, s.x)?;
        let line = (batch * groups).saturating_mul(inner).saturating_mul(x.dtype.size()).max(1);
        let most = (UNFOLDED / line).max(count.div_ceil(MAX_PARTS)).next_multiple_of(PART).min(count);
        for from in (0..count).step_by(most.max(1)) {
            let to = (from + most).min(count);
            let n = to - from;
            let columns = [batch, groups, inner, n];
            let y = if s.pointwise {
                let columns = [batch, groups, inner, count];
                x.reshape(&columns).expect("x is dense").slice(3, from, n)
            } else {
                let y = self.temporary(x.dtype, &columns);
                let unfold = Unfold { axes: s.axes, rows: batch * groups * channels, from, to };
                self.routine(i, Routine::Unfold(unfold), vec![x.clone()], vec![y.clone()]);
                y
            };
            let mut chain =
                Chain { shape: vec![batch, groups * outputs, n], row_axes: Some(vec![2]), ops: Vec::new() };
            let part = out.slice(2, from, n);
            let round = part.dtype == DType::F16;
            chain.product_result(bias.clone().map(ChainOperand::External), round, Some(part));
            self.gemm(i, weight.clone(), y, chain);
        }
        Ok(())
    }

    /// The weight as `[groups, outputs, channels · taps]`.
    fn weight_matrix(
        &mut self,
        i: usize,
        s: &Spatial,
        [channels, outputs, taps]: [usize; 3],
    ) -> Result<View, EngineError> {
        let groups = s.groups;
        if !s.transposed {
            return self.reshaped(i, s.weight, &[groups, outputs, channels * taps]);
        }
        let weight = self.reshaped(i, s.weight, &[groups, channels, outputs, taps])?;
        let weight = self.dense_view(i, weight.transpose(&[0, 2, 1, 3]))?;
        Ok(weight.reshape(&[groups, outputs, channels * taps]).expect("the copy is dense"))
    }

    /// Adds the node of a product and what follows it.
    pub(super) fn gemm(&mut self, i: usize, x: View, y: View, chain: Chain) {
        let writes: Vec<_> = chain.writes().map(|v| v.slot).collect();
        let reads = [x.slot, y.slot].into_iter().chain(chain.reads().map(|v| v.slot)).collect();
        let flat = [&x.shape[..x.shape.len() - 1], &chain.shape[chain.shape.len() - 1..]].concat();
        let (result, in_memory) = super::work::ProductView::of(chain, &flat);
        let packed = Shape::new(&x.shape, &y.shape).shared_len(&y.strides, in_memory);
        let packed = packed.map(|len| self.temporary(DType::F32, &[len]));
        let temporaries = packed.iter().map(|v| v.slot).collect();
        self.node(Work::Gemm { x, y, result, packed }, i, reads, writes, temporaries);
    }

    pub(super) fn pool(&mut self, i: usize, p: &Pool) -> Result<(), EngineError> {
        self.floats(i, p.x)?;
        let function = self.function;
        let x = &function.ty(p.x).shape;
        let result = function.operations()[i].results[0];
        let positions = &function.ty(result).shape[2..];
        let padding: Vec<[usize; 2]> = (0..x.len() - 2).map(|d| p.padding(d, x[d + 2])).collect();
        let axis = |d: usize| Axis {
            length: x[d + 2],
            positions: positions[d],
            size: p.kernel_sizes[d],
            stride: p.strides[d],
            offset: -(padding[d][0] as isize),
            ..Axis::UNIT
        };
        let mut after = [0; 3];
        after.iter_mut().rev().zip(padding.iter().rev()).for_each(|(to, p)| *to = p[1]);
        let pooling =
            Pooling { axes: axes((0..x.len() - 2).map(axis)), after, rows: x[0] * x[1], kind: p.kind };
        let x = self.dense(i, p.x)?;
        let out = self.visible(i, result);
        self.routine(i, Routine::Pooling(pooling), vec![x], vec![out]);
        Ok(())
    }

    /// Adds the node of a routine.
    pub(super) fn routine(&mut self, i: usize, routine: Routine, operands: Vec<View>, results: Vec<View>) {
        let slots = |views: &[View]| views.iter().map(|v| v.slot).collect();
        let (reads, writes) = (slots(&operands), slots(&results));
        let views = [operands, results].concat();
        self.node(Work::Routine { routine, views }, i, reads, writes, Vec::new());
    }
}
