//! Functions whose fp16 values are fp32.

use std::sync::Arc;

use arcane_mil::{Function, Op, Rewriter, ValueId};
use arcane_tensor::{DType, Tensor};

/// The function with fp32 in place of fp16. Ports stay what they are: inputs are widened, outputs rounded.
///
/// # Panics
/// If an op takes fp16 and not fp32: none does.
pub(super) fn widened(function: &Function) -> Function {
    let mut rewriter = Rewriter::new(function);
    rewriter.copy_parameters();
    for p in function.parameters() {
        if function.ty(p.value).dtype == DType::F16 {
            let port = rewriter.get(p.value);
            let wide = rewriter.builder.cast(port, DType::F32);
            rewriter.set(p.value, wide);
        }
    }
    for operation in function.operations() {
        let op = operation.op.map_operands(|v| rewriter.get(v));
        rewriter.replace(operation, wide_op(op));
    }
    let rounded: Vec<(ValueId, ValueId)> = function
        .outputs()
        .iter()
        .filter(|o| function.ty(o.value).dtype == DType::F16)
        .map(|o| {
            let wide = rewriter.get(o.value);
            (o.value, rewriter.builder.cast(wide, DType::F16))
        })
        .collect();
    for (old, new) in rounded {
        rewriter.set(old, new);
    }
    rewriter.finish()
}

fn wide_op(op: Op) -> Op {
    match op {
        Op::Const(tensor) if tensor.dtype() == DType::F16 => {
            let wide = Tensor::from_f64s(DType::F32, tensor.shape(), &tensor.to_f64s());
            Op::Const(Arc::new(wide.expect("as many numbers as before")))
        }
        Op::Cast { x, dtype: DType::F16 } => Op::Cast { x, dtype: DType::F32 },
        Op::Fill { shape, dtype: DType::F16, value } => Op::Fill { shape, dtype: DType::F32, value },
        other => other,
    }
}
