//! How much memory a training program takes, and which batch fits what there is.

use arcane_compile::{Plan, PlanOptions, Precision, plan};
use arcane_mil::{Function, Op, Unary, ValueId};
use arcane_models::LlamaConfig;

use crate::error::SetupError;
use crate::program::{ProgramOptions, training_program};

/// A training program with its plan's memory compared to what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The model.
    pub(crate) model: &'a LlamaConfig,
    /// What the program is built for.
    pub(crate) options: ProgramOptions<'a>,
    /// What it computes in.
    pub(crate) precision: Precision,
}

impl Request<'_> {
    /// The plan, if it fits into `available` bytes (`None`: it is not known how many there are).
    ///
    /// # Errors
    /// [`SetupError::Memory`] with what is needed, what there is, and the largest batch that fits.
    pub(crate) fn plan_within(&self, available: Option<u64>) -> Result<Plan, SetupError> {
        let Some(available) = available else { return self.plan() };
        let needed = match self.try_plan(available)? {
            Outcome::Fits { plan, .. } => return Ok(*plan),
            Outcome::Exceeds(needed) => needed,
        };
        let largest = self.largest_batch(needed, available)?;
        Err(SetupError::Memory { needed, available, batch: self.options.batch, largest })
    }

    fn plan(&self) -> Result<Plan, SetupError> {
        let program = training_program(self.model, &self.options)?;
        Ok(plan(&program, &PlanOptions { precision: self.precision })?)
    }

    fn try_plan(&self, available: u64) -> Result<Outcome, SetupError> {
        // Building the program takes memory of its own for masks and tables.
        let floor = self.floor_bytes();
        if floor > available {
            return Ok(Outcome::Exceeds(floor));
        }
        let plan = self.plan()?;
        let needed = required_bytes(&plan) + self.copy_bytes();
        if needed > available {
            return Ok(Outcome::Exceeds(needed));
        }
        Ok(Outcome::Fits { needed, plan: Box::new(plan) })
    }

    /// The largest batch below the one that `needed` more than is `available`; 0 if not even one sequence fits. The next
    /// guess is by turns where a straight line puts the limit, which it is close to, and half-way.
    fn largest_batch(&self, needed: u64, available: u64) -> Result<usize, SetupError> {
        let (mut low, mut high) = ((0, 0), (self.options.batch, needed));
        let mut guess = 1;
        for halve in [false, true].into_iter().cycle() {
            if high.0 - low.0 <= 1 {
                break;
            }
            let request = Request { options: ProgramOptions { batch: guess, ..self.options }, ..*self };
            match request.try_plan(available)? {
                Outcome::Fits { needed, .. } => low = (guess, needed),
                Outcome::Exceeds(needed) => high = (guess, needed),
            }
            if low.0 == 0 {
                break;
            }
            let per_sequence = (high.1.saturating_sub(low.1) / (high.0 - low.0) as u64).max(1);
            let more = ((available - low.1) / per_sequence) as usize;
            let most = (high.0 - low.0).saturating_sub(1).max(1);
            guess = low.0 + if halve { most.div_ceil(2) } else { more.clamp(1, most) };
        }
        Ok(low.0)
    }

    /// A lower bound that needs no program: weights, moments, gradients, the causal mask, the rotary tables.
    fn floor_bytes(&self) -> u64 {
        let seq = self.options.seq as u128;
        let tables = seq * seq + 4 * seq * self.model.head_dim as u128;
        let weights = 16 * u128::from(self.model.parameter_count());
        u64::try_from(weights + tables).unwrap_or(u64::MAX)
    }

    /// Beside the session: a checkpoint is written from copies, at most both moments at a time.
    fn copy_bytes(&self) -> u64 {
        self.model.parameter_count().saturating_mul(8)
    }
}

enum Outcome {
    Fits { needed: u64, plan: Box<Plan> },
    Exceeds(u64),
}

/// An estimate from above of the bytes that a session takes: the plan's buffers, and for each function what
/// [`intermediate_bytes`] says, since an engine holds that for as long as the function is loaded.
pub fn required_bytes(plan: &Plan) -> u64 {
    let intermediate: u64 = plan.program.functions.iter().map(intermediate_bytes).sum();
    plan.memory_bytes() as u64 + intermediate
}

/// The bytes of a function's constants, and of its intermediate values where most of them are alive, if ops run in order.
///
/// Every result of an op is taken to be stored whole from the op to its last use. A reshape or a copy shares its operand's
/// storage, an element-wise op writes over an operand of its size that nothing else needs, parameters and outputs are the
/// plan's. Engines that fuse more (attention, cross entropy) take less.
pub fn intermediate_bytes(f: &Function) -> u64 {
    let storage = storage(f);
    let mut uses = vec![0u32; f.values().len()];
    for operation in f.operations() {
        for v in operation.op.operands() {
            uses[storage.root[v.index()]] += 1;
        }
    }
    let (mut live, mut peak) = (0u64, 0u64);
    for operation in f.operations() {
        let mut released = 0;
        for v in operation.op.operands() {
            let root = storage.root[v.index()];
            uses[root] -= 1;
            if uses[root] == 0 {
                released += storage.bytes[root];
            }
        }
        let made: u64 = operation.results.iter().map(|r| storage.bytes[r.index()]).sum();
        let reused = if is_element_wise(&operation.op) { released.min(made) } else { 0 };
        live += made - reused;
        peak = peak.max(live);
        live -= released - reused;
        // What nothing uses does not stay.
        let unused = operation.results.iter().filter(|r| uses[storage.root[r.index()]] == 0);
        live -= unused.map(|r| storage.bytes[r.index()]).sum::<u64>().min(live);
    }
    storage.constants + peak
}

struct Storage {
    /// For each value the one whose storage it shares.
    root: Vec<usize>,
    /// For each value the bytes that it takes while it is alive; 0 unless it is its own root.
    bytes: Vec<u64>,
    /// Bytes of all constants.
    constants: u64,
}

fn storage(f: &Function) -> Storage {
    let size = |v: ValueId| f.ty(v).bytes() as u64;
    let mut root: Vec<usize> = (0..f.values().len()).collect();
    let mut bytes = vec![0; f.values().len()];
    let mut constants = 0;
    for operation in f.operations() {
        match &operation.op {
            Op::Const(tensor) => constants += tensor.bytes().len() as u64,
            Op::Reshape { x, .. } | Op::Unary { kind: Unary::Identity, x } => {
                root[operation.results[0].index()] = root[x.index()];
            }
            _ => operation.results.iter().for_each(|&r| bytes[r.index()] = size(r)),
        }
    }
    for o in f.outputs() {
        bytes[root[o.value.index()]] = 0;
    }
    Storage { root, bytes, constants }
}

fn is_element_wise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary { .. }
            | Op::Binary { .. }
            | Op::Compare { .. }
            | Op::Logical { .. }
            | Op::Select { .. }
            | Op::Cast { .. }
    )
}

#[cfg(test)]
mod tests {
    use arcane_mil::{Builder, Opset, Role, TensorType};
    use arcane_models::preset;
    use arcane_tensor::DType;

    use super::*;
    use crate::config::OptimizerConfig;

    #[test]
    fn only_what_is_alive_together_counts() {
        let mut f = Builder::new("f", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(DType::F32, &[8, 8]), Role::Batch);
        let table = f.fill(DType::F32, &[8, 8], 2.0);
        // Written over the table, then a product beside it, then a chain in place.
        let a = f.add(x, table).unwrap();
        let b = f.matmul(a, x, false, false).unwrap();
        let c = f.reshape(b, &[64]).unwrap();
        let c = f.square(c).unwrap();
        let c = f.abs(c).unwrap();
        f.output("c", c);
        // The last value is the plan's, so only `a` and `b` are counted.
        assert_eq!(intermediate_bytes(&f.finish()), 2 * 256);
    }

    #[test]
    fn constants_stay_for_good() {
        let mut f = Builder::new("f", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(DType::F32, &[]), Role::Scalar);
        let y = f.scale(x, 3.0).unwrap();
        let y = f.scale(y, 5.0).unwrap();
        f.output("y", y);
        assert_eq!(intermediate_bytes(&f.finish()), 4 + 4 + 4);
    }

    fn request<'a>(
        model: &'a LlamaConfig,
        optimizer: &'a OptimizerConfig,
        batch: usize,
        seq: usize,
    ) -> Request<'a> {
        let options = ProgramOptions { batch, seq, accumulate: 1, evaluate: false, optimizer };
        Request { model, options, precision: Precision::Fp32 }
    }

    #[test]
    fn the_largest_batch_fits_and_the_next_does_not() {
        let (model, optimizer) = (preset("stories260k").unwrap(), toml::from_str("lr = 1.0").unwrap());
        let available = 200 << 20;
        let error = request(&model, &optimizer, 100_000, 64).plan_within(Some(available)).unwrap_err();
        let SetupError::Memory { needed, largest, .. } = error else { panic!("{error}") };
        assert!(needed > available && largest > 1);
        assert!(request(&model, &optimizer, largest, 64).plan_within(Some(available)).is_ok());
        assert!(request(&model, &optimizer, largest + 1, 64).plan_within(Some(available)).is_err());
    }

    #[test]
    fn a_sequence_that_is_too_long_for_any_batch_is_refused_before_its_mask_is_made() {
        let (model, optimizer) = (preset("stories260k").unwrap(), toml::from_str("lr = 1.0").unwrap());
        let error = request(&model, &optimizer, 1, 2_000_000_000).plan_within(Some(1 << 30)).unwrap_err();
        assert!(error.to_string().contains("no batch"), "{error}");
    }
}
