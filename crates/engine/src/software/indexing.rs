//! Ops whose elements are picked at run time: by indices, by coordinates, by points in an image.

use arcane_mil::{Index, Sample, ScatterMode, ValueId};
use arcane_tensor::DType;

use super::lower::Lowering;
use super::work::Work;
use crate::EngineError;
use crate::kernels::index::AxisCut;
use crate::kernels::sample::SamplingKind;

impl Lowering<'_> {
    pub(super) fn gather(
        &mut self,
        i: usize,
        x: ValueId,
        indices: ValueId,
        cut: AxisCut,
        result: ValueId,
    ) -> Result<(), EngineError> {
        let (x, indices) = (self.dense(i, x)?, self.dense(i, indices)?);
        let out = self.visible(i, result);
        let (reads, writes) = (vec![x.slot, indices.slot], vec![out.slot]);
        self.node(Work::Gather { x, indices, out, cut }, i, reads, writes, Vec::new());
        Ok(())
    }

    pub(super) fn scatter(
        &mut self,
        i: usize,
        [data, indices, updates]: [ValueId; 3],
        cut: AxisCut,
        mode: ScatterMode,
        result: ValueId,
    ) -> Result<(), EngineError> {
        let dtype = self.function.ty(data).dtype;
        let update = mode == ScatterMode::Update;
        if !update && !matches!(dtype, DType::F16 | DType::F32 | DType::I32) {
            return Err(self.unsupported(i, format!("{dtype} operands are not supported here")));
        }
        let indices = self.dense(i, indices)?;
        let out = self.visible(i, result);
        let half = !update && dtype == DType::F16;
        let (data, updates, target) = if half {
            // Repeated indices accumulate in fp32; the result is rounded once.
            let widened = |lowering: &mut Self, v: ValueId| {
                let from = lowering.view(v);
                let to = lowering.temporary(DType::F32, &from.shape);
                lowering.convert(i, from, to.clone());
                to
            };
            let data = widened(self, data);
            (data.clone(), widened(self, updates), data)
        } else {
            (self.dense(i, data)?, self.dense(i, updates)?, out.clone())
        };
        let (reads, writes) = (vec![data.slot, indices.slot, updates.slot], vec![target.slot]);
        let work = Work::Scatter { data, indices, updates, out: target.clone(), cut, mode };
        self.node(work, i, reads, writes, Vec::new());
        if half {
            // Reads the slot after both of its writers.
            self.convert(i, target, out);
        }
        Ok(())
    }

    pub(super) fn indexed(&mut self, i: usize, op: &Index, result: ValueId) -> Result<(), EngineError> {
        match op {
            Index::GatherBatched { .. } => unreachable!("batched gathers have been rewritten"),
            Index::GatherNd { x, indices, batch_dims } => {
                let (x, indices) = (self.dense(i, *x)?, self.dense(i, *indices)?);
                let out = self.visible(i, result);
                let depth = indices.shape[indices.shape.len() - 1];
                if out.len() == 0 {
                    return Ok(());
                }
                let dims = x.shape[*batch_dims..batch_dims + depth].to_vec();
                let inner = x.shape[batch_dims + depth..].iter().product();
                let batch: usize = x.shape[..*batch_dims].iter().product();
                let picks = out.len() / (batch * inner);
                let (reads, writes) = (vec![x.slot, indices.slot], vec![out.slot]);
                let work = Work::GatherNd { x, indices, out, dims, sizes: [batch, picks, inner] };
                self.node(work, i, reads, writes, Vec::new());
                Ok(())
            }
            Index::ScatterNd { data, indices, updates, mode } => {
                self.scatter_nd(i, [*data, *indices, *updates], *mode, result)
            }
            Index::ReverseSequence { x, lengths, seq_axis, batch_axis } => {
                let (x, lengths) = (self.dense(i, *x)?, self.dense(i, *lengths)?);
                let out = self.visible(i, result);
                let (reads, writes) = (vec![x.slot, lengths.slot], vec![out.slot]);
                if out.len() > 0 {
                    let axes = [*seq_axis, *batch_axis];
                    self.node(Work::ReverseSequence { x, lengths, out, axes }, i, reads, writes, Vec::new());
                }
                Ok(())
            }
        }
    }

    /// A copy of the data, and then the updates in it. What is computed in fp16 is so in fp32, and rounded once.
    fn scatter_nd(
        &mut self,
        i: usize,
        [data, indices, updates]: [ValueId; 3],
        mode: ScatterMode,
        result: ValueId,
    ) -> Result<(), EngineError> {
        let dtype = self.function.ty(data).dtype;
        let half = mode != ScatterMode::Update && dtype == DType::F16;
        if mode != ScatterMode::Update && !matches!(dtype, DType::F16 | DType::F32 | DType::I32) {
            return Err(self.unsupported(i, format!("{dtype} operands are not supported here")));
        }
        let (from, indices) = (self.view(data), self.dense(i, indices)?);
        let result = self.visible(i, result);
        if result.len() == 0 {
            return Ok(());
        }
        let depth = indices.shape[indices.shape.len() - 1];
        let dims = from.shape[..depth].to_vec();
        let inner = from.shape[depth..].iter().product();
        let (out, updates) = if half {
            let out = self.temporary(DType::F32, &from.shape);
            self.convert(i, from, out.clone());
            let updates = self.view(updates);
            let wide = self.temporary(DType::F32, &updates.shape);
            self.convert(i, updates, wide.clone());
            (out, wide)
        } else {
            self.copy(i, from, result.clone())?;
            (result.clone(), self.dense(i, updates)?)
        };
        if updates.len() > 0 {
            let (reads, writes) = (vec![indices.slot, updates.slot, out.slot], vec![out.slot]);
            let work = Work::ScatterNd { indices, updates, out: out.clone(), dims, inner, mode };
            self.node(work, i, reads, writes, Vec::new());
        }
        if half {
            self.convert(i, out, result);
        }
        Ok(())
    }

    pub(super) fn sampled(&mut self, i: usize, op: &Sample, result: ValueId) -> Result<(), EngineError> {
        let (points, images, kind) = match op {
            Sample::CropResize { boxes, box_indices, normalized, scale, mode, grid, outside, .. } => {
                let (normalized, scale, mode, grid, outside) = (*normalized, *scale, *mode, *grid, *outside);
                (*boxes, *box_indices, SamplingKind::Boxes { normalized, scale, mode, grid, outside })
            }
            Sample::Resample { coordinates, interpolation, outside, unit, align_corners, .. } => {
                let (interpolation, outside, unit) = (*interpolation, *outside, *unit);
                let align_corners = *align_corners;
                (*coordinates, None, SamplingKind::Points { interpolation, outside, unit, align_corners })
            }
            Sample::Resize { .. }
            | Sample::ResizeBilinear { .. }
            | Sample::UpsampleBilinear { .. }
            | Sample::Affine { .. } => {
                unreachable!("images sampled at known points have been rewritten")
            }
        };
        self.floats(i, op.x())?;
        let (x, points) = (self.dense(i, op.x())?, self.dense(i, points)?);
        let images = images.map(|images| self.dense(i, images)).transpose()?;
        let out = self.visible(i, result);
        if out.len() == 0 {
            return Ok(());
        }
        let mut reads = vec![x.slot, points.slot];
        reads.extend(images.as_ref().map(|v| v.slot));
        let writes = vec![out.slot];
        let work = Work::Sampling { x, points, images, out, kind };
        self.node(work, i, reads, writes, Vec::new());
        Ok(())
    }
}
