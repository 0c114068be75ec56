//! What a call of a plan would take on its chip.

use arcane_chip::Chip;
use arcane_chip::price::{energy_mj, host_ns, program_ns};

use crate::plan::{Call, PREPARE, Place, Plan, Work};

/// A modelled call, or several. Times are in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// From the first step's start to the last one's end.
    pub total_ms: f64,
    /// The engine at work.
    pub engine_ms: f64,
    /// The host at work, transfers apart.
    pub host_ms: f64,
    /// Copies between buffers with and without gaps.
    pub transfer_ms: f64,
    /// The part of the critical path that is the host's, 0 to 1; copies are the host's.
    pub critical_host_share: f64,
    /// Floating-point operations of the engine's products.
    pub engine_flops: f64,
    /// Energy of engine and host, in mJ.
    pub energy_mj: f64,
    /// Programs of the engine that are run.
    pub dispatches: usize,
}

impl Prediction {
    /// This call and another one after it, `times` times.
    #[must_use]
    pub fn then(self, other: Self, times: usize) -> Self {
        let n = times as f64;
        let critical =
            self.critical_host_share * self.total_ms + n * other.critical_host_share * other.total_ms;
        let total_ms = self.total_ms + n * other.total_ms;
        Self {
            total_ms,
            engine_ms: self.engine_ms + n * other.engine_ms,
            host_ms: self.host_ms + n * other.host_ms,
            transfer_ms: self.transfer_ms + n * other.transfer_ms,
            critical_host_share: if total_ms > 0.0 { critical / total_ms } else { 0.0 },
            engine_flops: self.engine_flops + n * other.engine_flops,
            energy_mj: self.energy_mj + n * other.energy_mj,
            dispatches: self.dispatches + times * other.dispatches,
        }
    }
}

/// One step: its place, its time, and what it is part of.
struct Timed {
    place: Place,
    is_copy: bool,
    ns: f64,
    /// When it ends, and how much of the path to that end is the host's.
    end: f64,
    host: f64,
}

impl Plan {
    /// What a call takes on a chip, with the steps of engine and host running beside each other as their dependencies allow.
    pub fn predict(&self, call: &Call, chip: &Chip) -> Prediction {
        let mut flops = 0.0;
        let mut timed: Vec<Timed> = Vec::with_capacity(call.steps.len());
        for step in &call.steps {
            let ns = match &step.work {
                Work::Copy { from, .. } => {
                    // Row by row, which is much slower than a flat copy.
                    self.buffers[*from].ty.bytes() as f64 / *chip.rates.staging_gb_s
                }
                Work::Run { place, function, .. } => {
                    let f = self.program.function(function);
                    match (place, f) {
                        (Place::Host, Some(f)) => host_ns(chip, f),
                        (Place::Engine, Some(f)) => {
                            let price = program_ns(chip, f);
                            flops += price.flops;
                            price.total_ns
                        }
                        (_, None) => 0.0,
                    }
                }
            };
            let place = step.place();
            let before = timed.iter().rev().find(|t| t.place == place);
            let waited = step.after.iter().filter_map(|&s| timed.get(s));
            let (start, host) = before
                .into_iter()
                .chain(waited)
                .map(|t| (t.end, t.host))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap_or_default();
            let host = host + if place == Place::Host { ns } else { 0.0 };
            let is_copy = matches!(step.work, Work::Copy { .. });
            timed.push(Timed { place, is_copy, ns, end: start + ns, host });
        }
        summary(chip, &timed, flops)
    }
}

fn summary(chip: &Chip, timed: &[Timed], flops: f64) -> Prediction {
    let sum = |of: &dyn Fn(&Timed) -> bool| timed.iter().filter(|t| of(t)).fold(0.0, |ns, t| ns + t.ns);
    let engine = sum(&|t| t.place == Place::Engine);
    let transfer = sum(&|t| t.is_copy);
    let host = sum(&|t| t.place == Place::Host) - transfer;
    let last = timed.iter().max_by(|a, b| a.end.total_cmp(&b.end));
    let (total, on_host) = last.map_or((0.0, 0.0), |t| (t.end, t.host));
    let peak_flops_ns = *chip.rates.peak_tflops * 1e3;
    let utilisation = if engine > 0.0 { flops / (engine * peak_flops_ns) } else { 0.0 };
    Prediction {
        total_ms: total * 1e-6,
        engine_ms: engine * 1e-6,
        host_ms: host * 1e-6,
        transfer_ms: transfer * 1e-6,
        critical_host_share: if total > 0.0 { on_host / total } else { 0.0 },
        engine_flops: flops,
        energy_mj: energy_mj(chip, engine, utilisation, host + transfer),
        dispatches: timed.iter().filter(|t| t.place == Place::Engine).count(),
    }
}

impl Plan {
    /// What one update takes on a chip: `accumulate` times `forward_backward`, then `update`, and what prepares the weights.
    pub fn predict_update(&self, accumulate: usize, chip: &Chip) -> Prediction {
        let mut update = Prediction::default();
        for (name, times) in [(PREPARE, 1), ("forward_backward", accumulate), ("update", 1)] {
            if let Some(call) = self.call(name) {
                update = update.then(self.predict(call, chip), times);
            }
        }
        update
    }
}
