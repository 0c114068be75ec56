//! What a function would cost: time and energy, modelled.
//!
//! One execution of a loaded program takes
//!
//! ```text
//! floor + Σ over ops max(FLOP / rate, weight bytes / weight bandwidth, activation bytes / activation bandwidth)
//! ```
//!
//! because the engine fetches operands while it computes, and reads activations while it writes others. `rate` is the part
//! `positions / (positions + half_rate_positions)` of the peak for a product with a constant, and a fraction of that for one
//! of two run-time values. Published chains on M1 and M4 are met within a tenth, single products on M4 and M3 Pro within a
//! quarter; whole programs have not been compared. All coefficients are [`crate::Rates`] and [`crate::Energy`] of the chip.
//! Host times assume that the processor runs one op after another.

mod work;

use arcane_mil::{Function, Op, Role, ValueId};

use self::work::Work;
use crate::Chip;

/// What one execution of a function takes on one engine. Times are in ns.
///
/// The parts are sums over ops, each as if it were alone; because they overlap, `total_ns` is less than their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Price {
    /// The whole execution.
    pub total_ns: f64,
    /// Submitting and completing it.
    pub floor_ns: f64,
    /// Products.
    pub compute_ns: f64,
    /// Reading constants and other operands of products that come from memory.
    pub weight_ns: f64,
    /// Reading and writing activations.
    pub activation_ns: f64,
    /// Floating-point operations of products; a multiplication and an addition are two.
    pub flops: f64,
    /// Bytes of constants and parameters that products read.
    pub weight_bytes: f64,
    /// Bytes of activations that are read and written.
    pub activation_bytes: f64,
    /// Bytes of the parameters, dense.
    pub bytes_in: f64,
    /// Bytes of the outputs, dense.
    pub bytes_out: f64,
}

/// The times of one op, in ns.
#[derive(Clone, Copy, Debug, Default)]
struct OpTimes {
    compute: f64,
    weight: f64,
    activation: f64,
}

impl OpTimes {
    fn longest(self) -> f64 {
        self.compute.max(self.weight).max(self.activation)
    }
}

/// One execution of a function that is loaded, on one engine of a chip. Whether the chip runs it at all is another question
/// ([`crate::violations`]).
pub fn program_ns(chip: &Chip, function: &Function) -> Price {
    let mut price = Price { floor_ns: *chip.rates.floor_us * 1e3, ..Price::default() };
    price.total_ns = price.floor_ns;
    let mut on_engine = vec![false; function.values().len()];
    for index in 0..function.operations().len() {
        let mut work = Work::of(function, index);
        work.leave_out(&mut on_engine, *chip.limits.resident_weight_bytes);
        let times = engine_times(chip, &work);
        price.total_ns += times.longest();
        price.compute_ns += times.compute;
        price.weight_ns += times.weight;
        price.activation_ns += times.activation;
        price.flops += work.flops;
        price.weight_bytes += work.weight_bytes();
        price.activation_bytes += work.activation_bytes(*chip.limits.resident_operand_bytes);
    }
    let inputs = function.parameters().iter().filter(|p| p.role != Role::Constant);
    price.bytes_in = inputs.map(|p| function.ty(p.value).bytes() as f64).sum();
    price.bytes_out = function.outputs().iter().map(|o| function.ty(o.value).bytes() as f64).sum();
    price
}

/// One op of a function as part of an execution on one engine, by its index, in ns; its constants are read from memory.
///
/// # Panics
/// If the function has no such op.
pub fn op_ns(chip: &Chip, function: &Function, index: usize) -> f64 {
    engine_times(chip, &Work::of(function, index)).longest()
}

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
    let work = Work::of(function, index);
    let bytes = match &operation.op {
        // Windows on the same memory.
        Op::Reshape { .. } | Op::Split { .. } | Op::Const(_) => 0.0,
        // The rows that are picked, not the table.
        Op::Gather { .. } | Op::GatherAlongAxis { .. } => 2.0 * bytes_of(operation.results[0]),
        Op::Scatter { data, updates, .. } | Op::ScatterAlongAxis { data, updates, .. } => {
            2.0 * (bytes_of(*data) + bytes_of(*updates))
        }
        _ => work.weight_bytes() + work.activation_bytes(0),
    };
    (work.flops / *chip.rates.host_gflops).max(bytes / *chip.rates.host_gb_s)
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

/// What the chip draws, in mJ, while one engine works for `engine_ns` at the part `engine_utilisation` (0 to 1) of its peak,
/// and the processor cores for `host_ns`.
///
/// The rail grows linearly from its floor to what it draws at the peak; the rest of the package draws its share while the
/// engine works. (Concluded from rail and package power of kernels on M1 Max, M2 Pro and M4.)
pub fn energy_mj(chip: &Chip, engine_ns: f64, engine_utilisation: f64, host_ns: f64) -> f64 {
    let e = &chip.energy;
    let rail = *e.rail_floor_w + (*e.rail_full_w - *e.rail_floor_w) * engine_utilisation.clamp(0.0, 1.0);
    ((rail + *e.host_share_w) * engine_ns + *e.host_w * host_ns) * 1e-6
}

fn engine_times(chip: &Chip, work: &Work) -> OpTimes {
    let rates = &chip.rates;
    let resident = *chip.limits.resident_operand_bytes;
    let slowdown = if work.has_constant { 1.0 } else { 1.0 / *rates.matmul_fraction };
    let filled = work.positions / (work.positions + *rates.half_rate_positions);
    let compute =
        if work.flops > 0.0 { work.flops * slowdown / (*rates.peak_tflops * filled) * 1e-3 } else { 0.0 };
    let (read, written) = work.moved(resident);
    OpTimes {
        compute,
        weight: work.weight_bytes() / *rates.weight_gb_s,
        activation: read.max(written) / *rates.activation_gb_s,
    }
}

#[cfg(test)]
mod tests;
