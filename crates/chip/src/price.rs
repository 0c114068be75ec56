//! What a function would cost: time and energy, modelled.
//!
//! One execution of a loaded program takes
//!
//! ```text
//! floor + Σ over ops max(FLOP / rate, passes · weight bytes / weight bandwidth, activation bytes / activation bandwidth)
//! ```
//!
//! because the engine fetches operands while it computes, and reads activations while it writes others. `rate` is the part
//! `positions / (positions + half_rate_positions)` of the peak for a product with a constant, and a fraction of that for one
//! of two run-time values. Weights that stay on the engine are read once; others once for each part of the other operand that
//! fits beside them (`passes`). A host that keeps plain arrays also has to stage those whose channels have several rows
//! ([`staging_ns`]).
//!
//! The coefficients are [`crate::Rates`] and [`crate::Energy`] of the chip. Five of them are fitted to published latencies by
//! [`mod@fit`], which also says how far predictions are off; the intervals of [`relative_half_width`] are those errors.

pub mod fit;
mod host;
mod interval;
mod model;
mod rows;
mod work;

use arcane_mil::{Function, Role};

pub use self::host::{host_ns, host_op_ns};
pub use self::interval::relative_half_width;
pub use self::model::Coefficients;
use self::model::{Load, OpTimes};
use self::work::{OnEngine, Work};
use crate::Chip;
use crate::surface::folded;

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
    /// Bytes of constants and parameters that products read, each once.
    pub weight_bytes: f64,
    /// Bytes of activations that are read and written.
    pub activation_bytes: f64,
    /// Bytes of the parameters, dense.
    pub bytes_in: f64,
    /// Bytes of the outputs, dense.
    pub bytes_out: f64,
}

/// What one op of a program takes on one engine, in ns. The parts overlap: the op takes the longest of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpPrice {
    /// The op.
    pub total_ns: f64,
    /// Its products.
    pub compute_ns: f64,
    /// Reading operands of products that come from memory.
    pub weight_ns: f64,
    /// Reading and writing activations.
    pub activation_ns: f64,
}

impl From<OpTimes> for OpPrice {
    fn from(times: OpTimes) -> Self {
        Self {
            total_ns: times.longest(),
            compute_ns: times.compute,
            weight_ns: times.weight,
            activation_ns: times.activation,
        }
    }
}

/// What each op of a function asks of a chip's engine; constants that are there already are not read again.
fn loads(chip: &Chip, function: &Function) -> Vec<Load> {
    let resident_weight = *chip.limits.resident_weight_bytes;
    let mut on_engine = OnEngine::new(function, resident_weight);
    let of = |index: usize| {
        let mut work = Work::of(function, index);
        work.leave_out(&mut on_engine, resident_weight);
        work.load(*chip.limits.resident_operand_bytes)
    };
    (0..function.operations().len()).map(of).collect()
}

/// One execution of a function that is loaded, on one engine of a chip. Whether the chip runs it at all is another question
/// ([`crate::violations`]).
pub fn program_ns(chip: &Chip, function: &Function) -> Price {
    let coefficients = Coefficients::of(chip);
    let mut price = Price { floor_ns: coefficients.floor_ns(), ..Price::default() };
    price.total_ns = price.floor_ns;
    for load in loads(chip, function) {
        let times = coefficients.times(&load);
        price.total_ns += times.longest();
        price.compute_ns += times.compute;
        price.weight_ns += times.weight;
        price.activation_ns += times.activation;
        price.flops += load.flops;
        price.weight_bytes += load.weight_bytes;
        price.activation_bytes += load.read + load.written;
    }
    let inputs = function.parameters().iter().filter(|p| p.role != Role::Constant);
    price.bytes_in = inputs.map(|p| function.ty(p.value).bytes() as f64).sum();
    price.bytes_out = function.outputs().iter().map(|o| function.ty(o.value).bytes() as f64).sum();
    price
}

/// What each op of a function takes as part of an execution on one engine, in order.
pub fn op_prices(chip: &Chip, function: &Function) -> Vec<OpPrice> {
    let coefficients = Coefficients::of(chip);
    loads(chip, function).iter().map(|load| coefficients.times(load).into()).collect()
}

/// One op of a function as part of an execution on one engine, by its index, in ns; its constants are read from memory.
///
/// # Panics
/// If the function has no such op.
pub fn op_ns(chip: &Chip, function: &Function, index: usize) -> f64 {
    let load = Work::of(function, index).load(*chip.limits.resident_operand_bytes);
    Coefficients::of(chip).times(&load).longest()
}

/// What a host takes that keeps plain arrays, to put inputs of a function into surfaces and outputs out of them, in ns. Arrays
/// of one row a channel are used where they are; those with several rows or batches are rearranged.
pub fn staging_ns(chip: &Chip, function: &Function) -> f64 {
    Coefficients::of(chip).staging_ns(staged_bytes(function))
}

fn staged_bytes(function: &Function) -> f64 {
    let inputs = function.parameters().iter().filter(|p| !crate::constraint::stands_for_constant(p));
    let values = inputs.map(|p| p.value).chain(function.outputs().iter().map(|o| o.value));
    let staged = values.map(|v| function.ty(v)).filter(|ty| {
        let [_, rows, _, batches] = folded(&ty.shape).unwrap_or([1; 4]);
        rows > 1 || batches > 1
    });
    staged.map(|ty| ty.bytes() as f64).sum()
}

/// Compiling a function as a program of a chip, in ns: a part that each takes, and one for its constants.
pub fn compile_ns(chip: &Chip, function: &Function) -> f64 {
    let constants: f64 = constant_bytes(function);
    (*chip.rates.compile_ms + *chip.rates.compile_ms_per_mb * constants * 1e-6) * 1e6
}

/// Loading a compiled program, in ns.
pub fn load_ns(chip: &Chip) -> f64 {
    *chip.rates.load_ms * 1e6
}

fn constant_bytes(function: &Function) -> f64 {
    let promoted = function.parameters().iter().filter(|p| crate::constraint::stands_for_constant(p));
    let constants = function.operations().iter().filter(|o| matches!(o.op, arcane_mil::Op::Const(_)));
    let values = promoted.map(|p| p.value).chain(constants.flat_map(|o| o.results.iter().copied()));
    values.map(|v| function.ty(v).bytes() as f64).sum()
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

#[cfg(test)]
mod tests;
