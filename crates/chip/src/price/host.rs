//! Functions on the processor cores. Times assume that one op runs after another.

use arcane_mil::{Function, Op, ValueId};

use super::work::Work;
use crate::Chip;

/// One execution of a function on the processor cores of a chip, in ns.
///
/// Element-wise ops and reductions are computed in one pass over what they read from memory and write to it: a host fuses
/// chains of them. All other ops are as if alone.
pub fn host_ns(chip: &Chip, function: &Function) -> f64 {
    let traffic = HostTraffic::of(function);
    let others = (0..function.operations().len()).filter(|&i| !is_fused(&function.operations()[i].op));
    others.map(|index| host_op_ns(chip, function, index)).sum::<f64>() + traffic.bytes / *chip.rates.host_gb_s
}

/// One op of a function on the processor cores of a chip, by its index, in ns, if nothing is fused with it.
///
/// # Panics
/// If the function has no such op.
pub fn host_op_ns(chip: &Chip, function: &Function, index: usize) -> f64 {
    let operation = &function.operations()[index];
    let bytes_of = |v: ValueId| function.ty(v).bytes() as f64;
    let load = Work::of(function, index).load(0);
    let bytes = match &operation.op {
        // Windows on the same memory.
        Op::Reshape { .. } | Op::Split { .. } | Op::Const(_) => 0.0,
        // The rows that are picked, not the table.
        Op::Gather { .. } | Op::GatherAlongAxis { .. } => 2.0 * bytes_of(operation.results[0]),
        Op::Scatter { data, updates, .. } | Op::ScatterAlongAxis { data, updates, .. } => {
            2.0 * (bytes_of(*data) + bytes_of(*updates))
        }
        _ => load.weight_bytes + load.read + load.written,
    };
    (load.flops / *chip.rates.host_gflops).max(bytes / *chip.rates.host_gb_s)
}

/// Whether a host computes an op in one pass with its neighbours.
fn is_fused(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary { .. }
            | Op::Cast { .. }
            | Op::Binary { .. }
            | Op::Compare { .. }
            | Op::Logical { .. }
            | Op::Select { .. }
            | Op::Reduce { .. }
            | Op::Fill { .. }
    )
}

/// What fused ops move.
struct HostTraffic {
    bytes: f64,
}

impl HostTraffic {
    /// Each value once where fused ops read it from memory, and once where they write one that others read.
    fn of(function: &Function) -> Self {
        let mut in_memory = vec![true; function.values().len()];
        for operation in function.operations().iter().filter(|o| is_fused(&o.op)) {
            operation.results.iter().for_each(|r| in_memory[r.index()] = false);
        }
        let mut moved = vec![false; function.values().len()];
        for operation in function.operations() {
            for v in operation.op.operands() {
                // Fused ops read what lies in memory; others have what fused ops make written there.
                moved[v.index()] |= is_fused(&operation.op) == in_memory[v.index()];
            }
        }
        for o in function.outputs() {
            moved[o.value.index()] |= !in_memory[o.value.index()];
        }
        let bytes =
            function.values().iter().zip(&moved).filter(|(_, m)| **m).map(|(v, _)| v.ty.bytes() as f64);
        Self { bytes: bytes.sum() }
    }
}
