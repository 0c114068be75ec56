//! Quantisation and recurrent networks: their operands as their kernels want them.

use arcane_mil::{Cell, Quantization, Recurrent, ValueId, Way};
use arcane_tensor::DType;

use super::lower::Lowering;
use super::view::View;
use crate::EngineError;
use crate::kernels::quantize::Quantize;
use crate::kernels::recurrent::{Recurrence, Recurrent as Kind, Weights};
use crate::kernels::routine::Routine;

impl Lowering<'_> {
    pub(super) fn quantization(&mut self, i: usize, q: &Quantization) -> Result<(), EngineError> {
        let result = self.function.operations()[i].results[0];
        let (scale, zero_point) = q.scale();
        let ty = self.function.ty(q.x());
        let (length, inner) = match q.axis() {
            None => (1, 1),
            Some(axis) => (ty.shape[axis], ty.shape[axis + 1..].iter().product()),
        };
        let quantize = Quantize {
            quantizes: matches!(q, Quantization::Quantize { .. }),
            count: ty.len(),
            length,
            inner,
            has_zero: zero_point.is_some(),
        };
        let operands = [Some(q.x()), Some(scale), zero_point].into_iter().flatten();
        let operands = operands.map(|v| self.dense(i, v)).collect::<Result<_, _>>()?;
        let out = self.visible(i, result);
        self.routine(i, Routine::Quantize(quantize), operands, vec![out]);
        Ok(())
    }

    pub(super) fn recurrent(&mut self, i: usize, r: &Recurrent) -> Result<(), EngineError> {
        let function = self.function;
        let operation = &function.operations()[i];
        let (x, hidden) = (&function.ty(r.x).shape, function.ty(r.weight_hh).shape[1]);
        let sizes = [x[0], x[1], x[2], hidden];
        let mut operands = vec![self.single_precision(i, r.x)?, self.single_precision(i, r.initial_h)?];
        if let Cell::Lstm(l) = &r.cell {
            operands.push(self.single_precision(i, l.initial_c)?);
        }
        let mut take = |lowering: &mut Self, v: ValueId| {
            operands.push(lowering.single_precision(i, v)?);
            Ok::<_, EngineError>(operands.len() - 1)
        };
        let mut maybe = |lowering: &mut Self, v: Option<ValueId>| v.map(|v| take(lowering, v)).transpose();
        let (input_bias, peephole) = match &r.cell {
            Cell::Rnn => (None, None),
            Cell::Gru { input_bias, .. } => (*input_bias, None),
            Cell::Lstm(l) => (None, l.peephole),
        };
        let mut sets = vec![(r.weight_ih, r.weight_hh, r.bias, peephole)];
        if let (Way::Bidirectional, Cell::Lstm(l)) = (r.way, &r.cell) {
            sets.extend(l.back.as_ref().map(|b| (b.weight_ih, b.weight_hh, b.bias, b.peephole)));
        }
        let mut weights = Vec::new();
        for (ih, hh, bias, peephole) in sets {
            let required = "a required operand is there";
            weights.push(Weights {
                ih: maybe(self, Some(ih))?.expect(required),
                hh: maybe(self, Some(hh))?.expect(required),
                bias: maybe(self, bias)?,
                input_bias: maybe(self, input_bias)?,
                peephole: maybe(self, peephole)?,
            });
        }
        let kind = match &r.cell {
            Cell::Rnn => Kind::Rnn,
            Cell::Gru { recurrent_activation, reset_after, .. } => {
                Kind::Gru { gate: *recurrent_activation, reset_after: *reset_after }
            }
            Cell::Lstm(l) => Kind::Lstm {
                gate: l.recurrent_activation,
                cell: l.cell_activation,
                clip: l.clip.map(|clip| clip as f32),
            },
        };
        let recurrence = Recurrence {
            kind,
            activation: r.activation,
            weights,
            reverse: r.way == Way::Reverse,
            output_sequence: r.output_sequence,
            sizes,
        };
        let results = operation.results.iter().map(|&v| self.visible(i, v)).collect();
        self.routine(i, Routine::Recurrence(Box::new(recurrence)), operands, results);
        Ok(())
    }

    /// A dense fp32 view of a float.
    fn single_precision(&mut self, i: usize, v: ValueId) -> Result<View, EngineError> {
        self.floats(i, v)?;
        if self.function.ty(v).dtype == DType::F32 {
            return self.dense(i, v);
        }
        let from = self.view(v);
        let to = self.temporary(DType::F32, &from.shape);
        self.convert(i, from, to.clone());
        Ok(to)
    }
}
