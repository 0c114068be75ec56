//! Compares what `gradients` builds with central differences, both in fp64.

use std::collections::BTreeMap;

use arcane_grad::gradients;
use arcane_mil::{BuildError, Builder, Function, Op, Opset, Reduce, Role, TensorType, ValueId, evaluate};
use arcane_tensor::{DType, Tensor, Tolerance};

const CLOSE: Tolerance = Tolerance { atol: 1e-9, rtol: 1e-6 };
/// The step of the differences, a power of two so that it adds no rounding to values that are multiples of it.
const STEP: f64 = 1.0 / 1024.0;

/// A function that is being built and what it is evaluated on.
pub(crate) struct Case {
    pub(crate) f: Builder,
    inputs: BTreeMap<String, Tensor>,
    wrt: Vec<(String, ValueId)>,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self { f: Builder::new("main", Opset::Ios18), inputs: BTreeMap::new(), wrt: Vec::new() }
    }

    /// An input to differentiate, around zero. No two elements are close, neither in an input nor between inputs, and none
    /// is close to zero: nothing has a kink within a step.
    pub(crate) fn float(&mut self, shape: &[usize]) -> ValueId {
        let n: usize = shape.iter().product();
        self.spread(shape, -0.05 * n as f64)
    }

    /// As [`Self::float`], above zero.
    pub(crate) fn positive(&mut self, shape: &[usize]) -> ValueId {
        self.spread(shape, 0.25)
    }

    fn spread(&mut self, shape: &[usize], lowest: f64) -> ValueId {
        let n: usize = shape.iter().product();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| scrambled(i + 1000 * self.wrt.len()));
        let offset = (lowest * 10.0).floor() / 10.0 + 0.0121 * (1 + self.wrt.len()) as f64;
        let values: Vec<f64> = order.iter().map(|&i| offset + 0.1 * i as f64).collect();
        self.input(Tensor::new(shape, values).unwrap())
    }

    /// An input to differentiate.
    pub(crate) fn input(&mut self, tensor: Tensor) -> ValueId {
        let name = format!("x{}", self.wrt.len());
        let v = self.parameter(&name, tensor, Role::Param);
        self.wrt.push((name, v));
        v
    }

    /// An input that is not differentiated: indices, masks.
    pub(crate) fn data(&mut self, tensor: Tensor) -> ValueId {
        self.parameter(&format!("data{}", self.inputs.len()), tensor, Role::Batch)
    }

    pub(crate) fn indices(&mut self, shape: &[usize], values: &[i32]) -> ValueId {
        self.data(Tensor::new(shape, values.to_vec()).unwrap())
    }

    fn parameter(&mut self, name: &str, tensor: Tensor, role: Role) -> ValueId {
        let v = self.f.parameter(name, TensorType::new(tensor.dtype(), tensor.shape()), role);
        self.inputs.insert(name.into(), tensor);
        v
    }
}

/// The adjoints that a case is checked with. What is summed has an adjoint that is not of its own shape.
#[derive(Clone, Copy, Debug)]
enum Summed {
    Nothing,
    LastAxis,
    All,
}

/// Checks cases of one op.
pub(crate) struct Check {
    /// Whether an op is the one.
    pub(crate) is_tested: fn(&Op) -> bool,
}

impl Check {
    /// Checks the derivatives of the value that `build` builds with respect to all inputs together, and to each alone.
    pub(crate) fn that(&self, build: impl Fn(&mut Case) -> Result<ValueId, BuildError>) {
        for summed in [Summed::Nothing, Summed::LastAxis, Summed::All] {
            let mut case = Case::new();
            let y = build(&mut case).unwrap();
            assert!(
                case.f.function().operations().iter().any(|o| (self.is_tested)(&o.op)),
                "the op is not there"
            );
            let rank = case.f.shape(y).len();
            let y = match summed {
                Summed::Nothing => y,
                Summed::All => case.f.reduce_all(Reduce::Sum, y).unwrap(),
                Summed::LastAxis if rank > 0 => case.f.reduce(Reduce::Sum, y, &[rank - 1], false).unwrap(),
                Summed::LastAxis => continue,
            };
            check_case(&case, y, summed);
        }
    }
}

fn check_case(case: &Case, y: ValueId, summed: Summed) {
    let ty = case.f.ty(y).clone();
    let weights: Vec<f64> = (0..ty.len()).map(|i| (scrambled(i) % 61) as f64 / 16.0 - 1.75).collect();
    let weights = Tensor::from_f64s(ty.dtype, &ty.shape, &weights).unwrap();
    let all: Vec<usize> = (0..case.wrt.len()).collect();
    let together = analytic(case, y, &weights, &all);

    let mut forward = case.f.clone();
    forward.output("y", y);
    let forward = forward.finish();
    for (i, (name, _)) in case.wrt.iter().enumerate() {
        let numeric = numeric(&forward, &case.inputs, name, &weights);
        if let Err(e) = CLOSE.check(&together[i], &numeric) {
            panic!("the derivative with respect to {name} (summed: {summed:?}): {e}\n{forward:#?}");
        }
        assert_eq!(analytic(case, y, &weights, &[i])[0], together[i], "{name} alone differs");
    }
}

/// The derivatives of Σ y·weights that `gradients` builds.
fn analytic(case: &Case, y: ValueId, weights: &Tensor, wrt: &[usize]) -> Vec<Tensor> {
    let mut f = case.f.clone();
    let adjoint = f.parameter("weights", f.ty(y).clone(), Role::Scalar);
    let wrt: Vec<ValueId> = wrt.iter().map(|&i| case.wrt[i].1).collect();
    let found = gradients(&mut f, &[(y, adjoint)], &wrt).unwrap();
    for (i, (&x, &dx)) in wrt.iter().zip(&found).enumerate() {
        assert_eq!(f.ty(x), f.ty(dx));
        f.output(&format!("d{i}"), dx);
    }
    let mut inputs = case.inputs.clone();
    inputs.insert("weights".into(), weights.clone());
    let mut outputs = evaluate(&f.finish(), &inputs).unwrap();
    (0..wrt.len()).map(|i| outputs.remove(&format!("d{i}")).unwrap()).collect()
}

/// The same by differences of fourth order.
fn numeric(forward: &Function, inputs: &BTreeMap<String, Tensor>, name: &str, weights: &Tensor) -> Tensor {
    let x = &inputs[name];
    let mut inputs = inputs.clone();
    let mut objective = |i: usize, distance: f64| {
        let mut moved = x.to_f64s();
        moved[i] += distance;
        inputs.insert(name.into(), Tensor::from_f64s(x.dtype(), x.shape(), &moved).unwrap());
        let y = &evaluate(forward, &inputs).unwrap()["y"];
        y.to_f64s().iter().zip(weights.to_f64s()).map(|(y, w)| y * w).sum::<f64>()
    };
    let mut difference = |i, distance| objective(i, distance) - objective(i, -distance);
    let slopes: Vec<f64> = (0..x.len())
        .map(|i| (8.0 * difference(i, STEP) - difference(i, 2.0 * STEP)) / (12.0 * STEP))
        .collect();
    Tensor::from_f64s(DType::F64, x.shape(), &slopes).unwrap()
}

/// A fixed number that looks random (splitmix64).
pub(crate) fn scrambled(i: usize) -> u64 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
