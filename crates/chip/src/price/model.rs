//! The model of time: coefficients, and what they make of one op.

use crate::Chip;

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// What the time of an execution depends on beside the program. All but the first four are a chip's facts and not fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// See [`crate::Rates::floor_us`].
    pub floor_us: f64,
    /// See [`crate::Rates::weight_gb_s`].
    pub weight_gb_s: f64,
    /// See [`crate::Rates::staging_gb_s`].
    pub staging_gb_s: f64,
    /// See [`crate::Rates::half_rate_positions`].
    pub half_rate_positions: f64,
    /// See [`crate::Rates::pass_mib`].
    pub pass_mib: f64,
    /// See [`crate::Rates::peak_tflops`].
    pub peak_tflops: f64,
    /// See [`crate::Rates::matmul_fraction`].
    pub matmul_fraction: f64,
    /// See [`crate::Rates::activation_gb_s`].
    pub activation_gb_s: f64,
}

impl Coefficients {
    /// Those of a chip.
    pub fn of(chip: &Chip) -> Self {
        let r = &chip.rates;
        Self {
            floor_us: *r.floor_us,
            weight_gb_s: *r.weight_gb_s,
            staging_gb_s: *r.staging_gb_s,
            half_rate_positions: *r.half_rate_positions,
            pass_mib: *r.pass_mib,
            peak_tflops: *r.peak_tflops,
            matmul_fraction: *r.matmul_fraction,
            activation_gb_s: *r.activation_gb_s,
        }
    }
}

/// What one op asks of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Operations of its products.
    pub(super) flops: f64,
    /// Rows that a product computes at once, at least one.
    pub(super) positions: f64,
    /// Whether one operand of the product is a constant.
    pub(super) has_constant: bool,
    /// Bytes of operands of a product that come from memory.
    pub(super) weight_bytes: f64,
    /// Bytes of the operand that those are multiplied with.
    pub(super) operand_bytes: f64,
    /// Bytes that are read otherwise.
    pub(super) read: f64,
    /// Bytes that are written.
    pub(super) written: f64,
}

/// The times of one op, in ns, each as if it were alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpTimes {
    pub(super) compute: f64,
    pub(super) weight: f64,
    pub(super) activation: f64,
}

impl OpTimes {
    pub(super) fn longest(self) -> f64 {
        self.compute.max(self.weight).max(self.activation)
    }
}

impl Coefficients {
    /// What an op takes.
    pub(super) fn times(&self, load: &Load) -> OpTimes {
        let slowdown = if load.has_constant { 1.0 } else { 1.0 / self.matmul_fraction };
        let filled = load.positions / (load.positions + self.half_rate_positions);
        let compute =
            if load.flops > 0.0 { load.flops * slowdown / (self.peak_tflops * filled) * 1e-3 } else { 0.0 };
        // Weights are read once for each part of the other operand that fits beside them.
        let passes = (load.operand_bytes / (self.pass_mib * MIB)).max(1.0);
        OpTimes {
            compute,
            weight: load.weight_bytes * passes / self.weight_gb_s,
            activation: load.read.max(load.written) / self.activation_gb_s,
        }
    }

    /// One execution that does nothing, in ns.
    pub(super) fn floor_ns(&self) -> f64 {
        self.floor_us * 1e3
    }

    /// What a host takes to put arrays of so many bytes into surfaces, or out of them, in ns.
    pub(super) fn staging_ns(&self, bytes: f64) -> f64 {
        bytes / self.staging_gb_s
    }
}
