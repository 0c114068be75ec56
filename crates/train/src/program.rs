//! The training program of a model: forward and backward, update, evaluation, in fp32 MIL.

use arcane_compile::TrainingProgram;
use arcane_grad::{GradError, gradients};
use arcane_mil::{
    AdamW, Binary, BuildError, Builder, Compare, Function, Opset, Reduce, Role, TensorType, ValueId,
};
use arcane_models::{LlamaConfig, ParameterMap, ParameterSpec, declare_parameters, loss, parameters};
use arcane_tensor::DType;

use crate::config::OptimizerConfig;

/// Added to the gradient norm where it divides.
const CLIP_EPS: f64 = 1e-6;

/// Why a training program cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// An op of the model or of the optimiser is ill-typed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The model cannot be differentiated.
    #[error(transparent)]
    Grad(#[from] GradError),
}

/// What a training program is built for.
#[derive(Debug, Clone, Copy)]
pub struct ProgramOptions<'a> {
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Predictions in a sequence.
    pub seq: usize,
    /// Micro-batches in an update; from 2 on, gradients are added to accumulators.
    pub accumulate: usize,
    /// Whether there is to be a function `evaluate`.
    pub evaluate: bool,
    /// The update rule.
    pub optimizer: &'a OptimizerConfig,
}

/// The training program of a model, with the ports that [`TrainingProgram`] prescribes. Weights have the names that they
/// have in a checkpoint; the data are `tokens` and `targets` `[B, S]` int32 and `weights` `[B, S]` fp32.
///
/// # Errors
/// [`ProgramError`]: a bug of the model, whatever the configuration.
pub fn training_program(
    config: &LlamaConfig,
    options: &ProgramOptions<'_>,
) -> Result<TrainingProgram, ProgramError> {
    let specs = parameters(config);
    Ok(TrainingProgram {
        forward_backward: forward_backward(config, &specs, options)?,
        update: update(&specs, options.optimizer)?,
        evaluate: options.evaluate.then(|| evaluate(config, options)).transpose()?,
    })
}

/// `loss_sum`, `weight_sum`, a `gradient.W` for each weight, and `finite`: whether all of these are finite.
fn forward_backward(
    config: &LlamaConfig,
    specs: &[ParameterSpec],
    options: &ProgramOptions<'_>,
) -> Result<Function, ProgramError> {
    let mut f = Builder::new("forward_backward", Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let accumulators: Option<Vec<ValueId>> = (options.accumulate > 1).then(|| {
        specs
            .iter()
            .map(|s| tensor(&mut f, &format!("accumulator.{}", s.name), s, Role::Accumulator))
            .collect()
    });
    let (loss_sum, weight_sum) = batch_loss(&mut f, "", config, &params, [options.batch, options.seq])?;
    let loss_scale = scalar(&mut f, "loss_scale");
    let weights: Vec<ValueId> = specs.iter().map(|s| params.get(&s.name)).collect();
    let mut sums = gradients(&mut f, &[(loss_sum, loss_scale)], &weights)?;
    if let Some(accumulators) = &accumulators {
        for (sum, &accumulator) in sums.iter_mut().zip(accumulators) {
            *sum = f.scope("accumulate", |f| f.add(accumulator, *sum))?;
        }
    }
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    for (spec, &sum) in specs.iter().zip(&sums) {
        let output = format!("gradient.{}", spec.name);
        f.set_path(sum, output.clone());
        f.output(&output, sum);
        if accumulators.is_some() {
            f.alias(&output, &format!("accumulator.{}", spec.name));
        }
    }
    let finite = f.scope("finite", |f| all_finite(f, &sums))?;
    f.output("finite", finite);
    Ok(f.finish())
}

/// Whether every element of every tensor is finite: the largest magnitude, which is NaN if any is, is at most the largest
/// fp32 number.
fn all_finite(f: &mut Builder, tensors: &[ValueId]) -> Result<ValueId, BuildError> {
    let largest = f.scalar(DType::F32, f64::from(f32::MAX));
    let mut all = None;
    for &t in tensors {
        let magnitudes = f.abs(t)?;
        let maximum = f.reduce_all(Reduce::Max, magnitudes)?;
        let finite = f.compare(Compare::LessEqual, maximum, largest)?;
        all = Some(match all {
            None => finite,
            Some(all) => f.logical_and(all, finite)?,
        });
    }
    Ok(all.expect("a model has parameters"))
}

/// The function `evaluate` of a training program.
fn evaluate(config: &LlamaConfig, options: &ProgramOptions<'_>) -> Result<Function, ProgramError> {
    loss_function("evaluate", "", config, [options.batch, options.seq])
}

/// A function that gives the loss of a batch, as `evaluate` of a training program does, but for the names of its ports, which
/// start with the function's: `NAME.tokens`, `NAME.loss_sum`. Several of them, for batches of different shapes, can then
/// share the weights of one plan.
///
/// # Errors
/// [`ProgramError`]: a bug of the model, whatever the configuration.
pub fn evaluation(
    name: &str,
    config: &LlamaConfig,
    batch: usize,
    seq: usize,
) -> Result<Function, ProgramError> {
    loss_function(name, &format!("{name}."), config, [batch, seq])
}

/// `loss_sum` and `weight_sum` of a batch.
fn loss_function(
    name: &str,
    prefix: &str,
    config: &LlamaConfig,
    shape: [usize; 2],
) -> Result<Function, ProgramError> {
    let mut f = Builder::new(name, Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let (loss_sum, weight_sum) = batch_loss(&mut f, prefix, config, &params, shape)?;
    f.output(&format!("{prefix}loss_sum"), loss_sum);
    f.output(&format!("{prefix}weight_sum"), weight_sum);
    Ok(f.finish())
}

fn batch_loss(
    f: &mut Builder,
    prefix: &str,
    config: &LlamaConfig,
    params: &ParameterMap,
    shape: [usize; 2],
) -> Result<(ValueId, ValueId), BuildError> {
    let mut batch = |port: &str, dtype| {
        f.parameter(&format!("{prefix}{port}"), TensorType::new(dtype, &shape), Role::Batch)
    };
    let tokens = batch("tokens", DType::I32);
    let targets = batch("targets", DType::I32);
    let weights = batch("weights", DType::F32);
    loss(f, config, params, tokens, targets, weights)
}

/// The tensors of one weight in the update.
struct Slot {
    master: ValueId,
    moments: [ValueId; 2],
    gradient: ValueId,
}

/// One step of `AdamW`.
///
/// The scalar `gradient_scale` is 1/(total weight · loss scale), which makes the gradients those of the mean loss;
/// `grad_norm` is their norm, all of them together. They are multiplied by min(1, `clip`/(`grad_norm` + 1e-6)), but not if
/// the configuration has no limit. Matrices alone decay.
fn update(specs: &[ParameterSpec], optimizer: &OptimizerConfig) -> Result<Function, ProgramError> {
    let mut f = Builder::new("update", Opset::Ios18);
    let declare = |spec: &ParameterSpec| Slot {
        master: tensor(&mut f, &format!("master.{}", spec.name), spec, Role::Master),
        moments: ["moment1", "moment2"]
            .map(|m| tensor(&mut f, &format!("{m}.{}", spec.name), spec, Role::Moment)),
        gradient: tensor(&mut f, &format!("gradient.{}", spec.name), spec, Role::Accumulator),
    };
    let slots: Vec<Slot> = specs.iter().map(declare).collect();
    let gradient_scale = scalar(&mut f, "gradient_scale");
    let clip = (optimizer.clip > 0.0).then(|| scalar(&mut f, "clip"));
    let step_size = scalar(&mut f, "step_size");
    let decay = scalar(&mut f, "decay");
    let root_correction = scalar(&mut f, "root_correction");

    let norm = f.scope("grad_norm", |f| norm(f, &slots, gradient_scale))?;
    let factor = match clip {
        Some(clip) => f.scope("clip", |f| {
            let coefficient = clip_coefficient(f, norm, clip)?;
            f.mul(gradient_scale, coefficient)
        })?,
        None => gradient_scale,
    };
    let constants = AdamW { beta1: optimizer.betas[0], beta2: optimizer.betas[1], eps: optimizer.eps };
    let mut updated = Vec::with_capacity(specs.len());
    for (spec, slot) in specs.iter().zip(&slots) {
        let decay = spec.decay.then_some(decay);
        let new = f.scope(&format!("{}.update", spec.name), |f| {
            let g = f.mul(slot.gradient, factor)?;
            let [m, v] = slot.moments;
            f.adamw(constants, [slot.master, m, v], g, decay, step_size, root_correction)
        })?;
        updated.push(new);
    }
    for (spec, new) in specs.iter().zip(updated) {
        for (kind, value) in ["master", "moment1", "moment2"].into_iter().zip(new) {
            let parameter = format!("{kind}.{}", spec.name);
            let output = format!("{parameter}.new");
            f.output(&output, value);
            f.alias(&output, &parameter);
        }
    }
    f.output("grad_norm", norm);
    Ok(f.finish())
}

fn norm(f: &mut Builder, slots: &[Slot], gradient_scale: ValueId) -> Result<ValueId, BuildError> {
    let mut total = None;
    for slot in slots {
        let square = f.reduce_all(Reduce::SumSquare, slot.gradient)?;
        total = Some(match total {
            None => square,
            Some(total) => f.add(total, square)?,
        });
    }
    let root = f.sqrt(total.expect("a model has parameters"))?;
    f.mul(root, gradient_scale)
}

fn clip_coefficient(f: &mut Builder, norm: ValueId, clip: ValueId) -> Result<ValueId, BuildError> {
    let eps = f.scalar(DType::F32, CLIP_EPS);
    let one = f.scalar(DType::F32, 1.0);
    let denominator = f.add(norm, eps)?;
    let quotient = f.binary(Binary::RealDiv, clip, denominator)?;
    f.minimum(quotient, one)
}

fn scalar(f: &mut Builder, name: &str) -> ValueId {
    f.parameter(name, TensorType::new(DType::F32, &[]), Role::Scalar)
}

fn tensor(f: &mut Builder, name: &str, spec: &ParameterSpec, role: Role) -> ValueId {
    f.parameter(name, TensorType::new(DType::F32, &spec.shape), role)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arcane_compile::{Plan, PlanOptions, Precision, plan};
    use arcane_models::preset;
    use arcane_tensor::Tensor;

    use super::*;

    fn optimizer() -> OptimizerConfig {
        toml::from_str("lr = 0.1\nclip = 1.0").unwrap()
    }

    fn planned(accumulate: usize, precision: Precision) -> Plan {
        let optimizer = optimizer();
        let options = ProgramOptions { batch: 2, seq: 8, accumulate, evaluate: true, optimizer: &optimizer };
        let program = training_program(&preset("stories260k").unwrap(), &options).unwrap();
        plan(&program, &PlanOptions { precision, chip: None, ..PlanOptions::default() }).unwrap()
    }

    #[test]
    fn only_accumulated_gradients_are_zeroed() {
        for precision in [Precision::Fp32, Precision::Fp16] {
            let zeroed = |accumulate| {
                let plan = planned(accumulate, precision);
                plan.buffers.iter().filter(|b| b.zeroed).map(|b| b.name.clone()).collect::<Vec<_>>()
            };
            assert_eq!(zeroed(1), [""; 0]);
            let names = zeroed(4);
            assert!(names.iter().all(|n| n.starts_with("gradient.")), "{names:?}");
            assert_eq!(names.len(), parameters(&preset("stories260k").unwrap()).len());
        }
    }

    /// The update of a gain and of a matrix by the formulas of Loshchilov & Hutter, in f64.
    #[test]
    fn update_follows_the_formulas() {
        let spec = |name: &str, shape: &[usize], decay| ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
            decay,
            init: arcane_models::Init::Ones,
        };
        let specs = [spec("gain", &[2], false), spec("matrix", &[1, 2], true)];
        let f = update(&specs, &optimizer()).unwrap();
        let tensor =
            |shape: &[usize], values: [f64; 2]| Tensor::from_f64s(DType::F32, shape, &values).unwrap();
        let (w, m, v, g) = ([1.0, -2.0], [0.5, 0.25], [0.125, 0.0625], [6.0, -8.0]);
        let mut inputs = BTreeMap::new();
        for s in &specs {
            for (kind, values) in [("master", w), ("moment1", m), ("moment2", v), ("gradient", g)] {
                inputs.insert(format!("{kind}.{}", s.name), tensor(&s.shape, values));
            }
        }
        let scalars = [
            ("gradient_scale", 0.5),
            ("clip", 1.0),
            ("step_size", 0.25),
            ("decay", 0.75),
            ("root_correction", 2.0),
        ];
        for (name, value) in scalars {
            inputs.insert(name.into(), Tensor::from_f64s(DType::F32, &[], &[value]).unwrap());
        }
        let results = arcane_mil::evaluate(&f, &inputs).unwrap();
        let result = |name: &str| &results[name];

        let norm = (2.0f64 * (36.0 + 64.0)).sqrt() * 0.5;
        assert!((result("grad_norm").get(0) - norm).abs() < 1e-6);
        for (s, decay) in specs.iter().zip([1.0, 0.75]) {
            for i in 0..2 {
                let g = g[i] * 0.5 / (norm + 1e-6);
                let m = 0.9 * m[i] + 0.1 * g;
                let v = 0.95 * v[i] + 0.05 * g * g;
                let w = decay * w[i] - 0.25 * m / (v.sqrt() * 2.0 + 1e-8);
                for (kind, expected) in [("master", w), ("moment1", m), ("moment2", v)] {
                    let found = result(&format!("{kind}.{}.new", s.name)).get(i);
                    assert!((found - expected).abs() < 1e-6, "{kind}.{} {found} {expected}", s.name);
                }
            }
        }
    }
}
