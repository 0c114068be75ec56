//! Products whose inner dimension an engine does not take.

use arcane_mil::{BuildError, Function, Op, Rewriter, ValueId};
use arcane_tensor::DType;

/// Lengthens the inner dimension of every fp16 `matmul` and `linear` to a multiple of `unit`, with zeros on both sides.
#[must_use]
pub fn pad_contractions(function: &Function, unit: usize) -> Function {
    let mut padder = Padder { rewriter: Rewriter::new(function), padded: Vec::new() };
    padder.rewriter.copy_parameters();
    for operation in function.operations() {
        let is_half = function.ty(operation.results[0]).dtype == DType::F16;
        let op = match operation.op {
            Op::Matmul { x, y, transpose_x, transpose_y } if is_half => {
                let rank = |v: ValueId| function.ty(v).shape.len();
                let x_axis = if transpose_x { rank(x) - 2 } else { rank(x) - 1 };
                let y_axis = if transpose_y { rank(y) - 1 } else { rank(y) - 2 };
                let (x, y) = padder.both([(x, x_axis), (y, y_axis)], unit);
                Op::Matmul { x, y, transpose_x, transpose_y }
            }
            Op::Linear { x, weight, bias } if is_half => {
                let axis = function.ty(x).shape.len() - 1;
                let (x, weight) = padder.both([(x, axis), (weight, 1)], unit);
                Op::Linear { x, weight, bias: bias.map(|b| padder.rewriter.get(b)) }
            }
            _ => {
                padder.rewriter.copy(operation);
                continue;
            }
        };
        padder.rewriter.replace(operation, op);
    }
    padder.rewriter.finish()
}

struct Padder<'a> {
    rewriter: Rewriter<'a>,
    /// What has been padded: value, axis, result.
    padded: Vec<(ValueId, usize, ValueId)>,
}

impl Padder<'_> {
    fn both(&mut self, operands: [(ValueId, usize); 2], unit: usize) -> (ValueId, ValueId) {
        let [x, y] = operands.map(|(v, axis)| {
            let new = self.rewriter.get(v);
            self.pad(new, axis, unit).expect("zeros of a value's type follow it")
        });
        (x, y)
    }

    fn pad(&mut self, v: ValueId, axis: usize, unit: usize) -> Result<ValueId, BuildError> {
        let mut shape = self.rewriter.builder.shape(v);
        let missing = shape[axis].next_multiple_of(unit) - shape[axis];
        if missing == 0 {
            return Ok(v);
        }
        if let Some((_, _, padded)) = self.padded.iter().find(|(of, at, _)| (*of, *at) == (v, axis)) {
            return Ok(*padded);
        }
        shape[axis] = missing;
        let path = format!("{}.padded", self.rewriter.builder.function().value(v).path);
        let zeros = Op::Fill { shape, dtype: DType::F16, value: 0.0 };
        let zeros = self.rewriter.builder.push_at(&path, zeros)?[0];
        let padded = self.rewriter.builder.push_at(&path, Op::Concat { values: vec![v, zeros], axis })?[0];
        self.padded.push((v, axis, padded));
        Ok(padded)
    }
}
