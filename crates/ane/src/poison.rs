//! Outputs are marked before a call and looked at after it, so that what an earlier call left is never taken for a result.

use arcane_engine::{Buffer, EngineError};

/// Rows of an output that are marked.
const MARKS: usize = 16;
/// The bytes of a mark, repeated: an fp16, bf16 or fp32 NaN that arithmetic on numbers does not give.
const MARK: u8 = 0xff;

/// The first bytes of some rows and the last bytes of the array, as ranges of a buffer's bytes.
fn marked(buffer: &Buffer) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let ty = buffer.ty();
    let (element, stride) = (ty.dtype.size(), buffer.row_stride());
    let width = ty.shape.last().map_or(1, |&w| w);
    let rows = ty.len() / width.max(1);
    let step = rows.div_ceil(MARKS).max(1);
    let starts = (0..rows).step_by(step).map(move |row| row * stride);
    let last = rows.checked_sub(1).map(|row| row * stride + (width - 1) * element);
    starts.chain(last).map(move |at| at..at + element)
}

/// Marks an output.
///
/// # Errors
/// [`EngineError::Locked`].
pub(crate) fn mark(buffer: &Buffer) -> Result<(), EngineError> {
    buffer.write_padded(|bytes| marked(buffer).for_each(|range| bytes[range].fill(MARK)))
}

/// Whether a call has written a marked output. Floats must have replaced every mark; integers, of which a mark may be a
/// result, one.
///
/// # Errors
/// [`EngineError::Locked`].
pub(crate) fn is_written(buffer: &Buffer) -> Result<bool, EngineError> {
    let every = buffer.ty().dtype.is_float();
    buffer.read_padded(|bytes| {
        let mut replaced = marked(buffer).map(|range| bytes[range].iter().any(|&b| b != MARK));
        if every { replaced.all(|r| r) } else { replaced.any(|r| r) }
    })
}

/// Fills an output whose call has failed, gaps included: with NaNs where it has floats.
///
/// # Errors
/// [`EngineError::Locked`].
pub(crate) fn spoil(buffer: &Buffer) -> Result<(), EngineError> {
    buffer.write_padded(|bytes| bytes.fill(MARK))
}

#[cfg(test)]
mod tests {
    use arcane_mil::TensorType;
    use arcane_tensor::{DType, Tensor};

    use super::*;

    fn buffer(dtype: DType) -> Buffer {
        Buffer::on_host(&TensorType::new(dtype, &[100, 3])).unwrap()
    }

    #[test]
    fn marks_are_nans_that_a_call_replaces() {
        let output = buffer(DType::F16);
        mark(&output).unwrap();
        let values = output.to_tensor().unwrap().to_f64s();
        assert!(values[0].is_nan() && values[299].is_nan() && values[1] == 0.0);
        assert!(!is_written(&output).unwrap());
        // All but the last element: a call that broke off.
        let mut values = vec![1.0; 300];
        values[299] = f64::NAN;
        output
            .write_padded(|b| {
                let broken = Tensor::from_f64s(DType::F16, &[100, 3], &values).unwrap();
                b[..598].copy_from_slice(&broken.bytes()[..598]);
            })
            .unwrap();
        assert!(!is_written(&output).unwrap());
        output.set(&Tensor::from_f64s(DType::F16, &[100, 3], &values).unwrap()).unwrap();
        assert!(is_written(&output).unwrap(), "a NaN that was computed is a result");
    }

    #[test]
    fn integers_may_equal_a_mark_here_and_there() {
        let output = buffer(DType::I8);
        mark(&output).unwrap();
        assert!(!is_written(&output).unwrap());
        output.write(|bytes| bytes[0] = 1).unwrap();
        assert!(is_written(&output).unwrap());
        spoil(&output).unwrap();
        assert!(!is_written(&output).unwrap());
    }
}
