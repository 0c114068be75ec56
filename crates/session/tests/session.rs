//! A linear regression, trained by hand and by a session on the software engine.

#![allow(missing_docs, reason = "tests are not documented")]

use std::sync::Arc;

use arcane_compile::{Place, Plan, PlanOptions, PortBinding, Precision, TrainingProgram, Work, plan};
use arcane_engine::{EngineError, SoftwareEngine};
use arcane_mil::{Builder, Compare, Function, Opset, Reduce, Role, TensorType, ValueId};
use arcane_session::{Engines, Session, SessionError};
use arcane_tensor::{DType, Tensor};

const F32: DType = DType::F32;
const LOSS_SCALE: f32 = 8.0;
const STEP_SIZE: f32 = 0.03125;

/// One micro-batch: inputs, targets and weights of two examples.
struct Batch {
    x: [[f32; 2]; 2],
    targets: [f32; 2],
    weights: [f32; 2],
}

const BATCHES: [Batch; 2] = [
    Batch { x: [[1.0, 2.0], [-1.0, 0.5]], targets: [1.0, -0.5], weights: [1.0, 0.5] },
    Batch { x: [[0.25, -1.0], [4.0, 4.0]], targets: [2.0, 9.0], weights: [2.0, 0.0] },
];

const START: [f32; 2] = [0.5, -0.25];

fn f32s(shape: &[usize]) -> TensorType {
    TensorType::new(F32, shape)
}

/// The errors e = x·wᵀ − targets, with Σ weights·e² and Σ weights as outputs; gives x, the weights and e.
fn loss(f: &mut Builder) -> [ValueId; 3] {
    let w = f.parameter("w", f32s(&[1, 2]), Role::Param);
    let x = f.parameter("x", f32s(&[2, 2]), Role::Batch);
    let targets = f.parameter("targets", f32s(&[2, 1]), Role::Batch);
    let weights = f.parameter("weights", f32s(&[2, 1]), Role::Batch);
    let y = f.linear(x, w, None).unwrap();
    let error = f.sub(y, targets).unwrap();
    let square = f.square(error).unwrap();
    let weighted = f.mul(square, weights).unwrap();
    let loss_sum = f.reduce_all(Reduce::Sum, weighted).unwrap();
    let weight_sum = f.reduce_all(Reduce::Sum, weights).unwrap();
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    [x, weights, error]
}

fn forward_backward() -> Function {
    let mut f = Builder::new("forward_backward", Opset::Ios18);
    let [x, weights, error] = loss(&mut f);
    let scale = f.parameter("loss_scale", f32s(&[]), Role::Scalar);
    let sum = f.parameter("accumulator.w", f32s(&[1, 2]), Role::Accumulator);
    let g = f.mul(error, weights).unwrap();
    let g = f.scale(g, 2.0).unwrap();
    let g = f.mul(g, scale).unwrap();
    let g = f.matmul(g, x, true, false).unwrap();
    let sum = f.add(sum, g).unwrap();
    let magnitude = f.abs(g).unwrap();
    let largest = f.reduce_all(Reduce::Max, magnitude).unwrap();
    let limit = f.scalar(F32, f64::from(f32::MAX));
    let finite = f.compare(Compare::LessEqual, largest, limit).unwrap();
    f.output("gradient.w", sum);
    f.alias("gradient.w", "accumulator.w");
    f.output("finite", finite);
    f.finish()
}

/// w' = w − `step_size`·gradient
fn update() -> Function {
    let mut f = Builder::new("update", Opset::Ios18);
    let w = f.parameter("master.w", f32s(&[1, 2]), Role::Master);
    let g = f.parameter("gradient.w", f32s(&[1, 2]), Role::Accumulator);
    let step = f.parameter("step_size", f32s(&[]), Role::Scalar);
    let change = f.mul(g, step).unwrap();
    let new = f.sub(w, change).unwrap();
    f.output("master.w.new", new);
    f.alias("master.w.new", "master.w");
    f.finish()
}

fn planned(precision: Precision) -> Plan {
    let mut evaluate = Builder::new("evaluate", Opset::Ios18);
    loss(&mut evaluate);
    let training = TrainingProgram {
        forward_backward: forward_backward(),
        update: update(),
        evaluate: Some(evaluate.finish()),
    };
    plan(&training, &PlanOptions { precision, chip: None, ..PlanOptions::default() }).unwrap()
}

fn engines() -> Engines {
    Engines::host(Arc::new(SoftwareEngine::new(1).unwrap()))
}

/// A session with the starting weight and the loss scale set.
fn session(precision: Precision) -> Session {
    let session = Session::new(planned(precision), &engines()).unwrap();
    session.set("w", &tensor(&[1, 2], &START)).unwrap();
    session.set_scalar("loss_scale", LOSS_SCALE).unwrap();
    session
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

fn set_batch(session: &Session, batch: &Batch) {
    session.set("x", &tensor(&[2, 2], batch.x.as_flattened())).unwrap();
    session.set("targets", &tensor(&[2, 1], &batch.targets)).unwrap();
    session.set("weights", &tensor(&[2, 1], &batch.weights)).unwrap();
}

/// Loss and weight of all batches before each of three updates, and the weight after them.
fn train(session: &Session) -> (Vec<[f64; 2]>, Vec<f64>) {
    let micro_step = session.call_id("forward_backward").unwrap();
    let update = session.call_id("update").unwrap();
    let mut sums = Vec::new();
    for _ in 0..3 {
        session.zero_accumulators().unwrap();
        let mut sum = [0.0; 2];
        for batch in &BATCHES {
            set_batch(session, batch);
            session.run(micro_step).unwrap();
            sum[0] += session.scalar("loss_sum").unwrap();
            sum[1] += session.scalar("weight_sum").unwrap();
            assert_eq!(session.scalar("finite").unwrap(), 1.0);
        }
        session.set_scalar("step_size", STEP_SIZE / LOSS_SCALE / sum[1] as f32).unwrap();
        session.run(update).unwrap();
        sums.push(sum);
    }
    (sums, session.get("w").unwrap().to_f64s())
}

/// The same by hand.
fn train_by_hand() -> (Vec<[f64; 2]>, Vec<f64>) {
    let mut w = START.map(f64::from);
    let mut sums = Vec::new();
    for _ in 0..3 {
        let (mut sum, mut gradient) = ([0.0; 2], [0.0; 2]);
        let examples =
            BATCHES.iter().flat_map(|b| (0..2).map(|i| (b.x[i].map(f64::from), b.targets[i], b.weights[i])));
        for (x, target, weight) in examples {
            let error = w[0] * x[0] + w[1] * x[1] - f64::from(target);
            sum[0] += f64::from(weight) * error * error;
            sum[1] += f64::from(weight);
            for (g, x) in gradient.iter_mut().zip(x) {
                *g += 2.0 * f64::from(weight) * error * x;
            }
        }
        for (w, g) in w.iter_mut().zip(gradient) {
            *w -= f64::from(STEP_SIZE) / sum[1] * g;
        }
        sums.push(sum);
    }
    (sums, w.to_vec())
}

fn check_training(session: &Session, tolerance: f64) {
    let ((sums, w), (expected_sums, expected_w)) = (train(session), train_by_hand());
    let found = sums.as_flattened().iter().chain(&w);
    for (a, b) in found.zip(expected_sums.as_flattened().iter().chain(&expected_w)) {
        assert!(
            (a - b).abs() <= tolerance * b.abs(),
            "{sums:?} {w:?}, {expected_sums:?} {expected_w:?} by hand"
        );
    }
    assert!(sums[2][0] < sums[0][0], "the loss falls");
}

#[test]
fn three_updates_are_those_by_hand() {
    check_training(&session(Precision::Fp32), 1e-6);
}

#[test]
fn fp16_updates_are_close_to_those_by_hand_and_keep_the_copy() {
    let session = session(Precision::Fp16);
    let copy_is_rounded_weight = |session: &Session| {
        let (w, copy) = (session.get("w").unwrap(), session.get("copy.w").unwrap());
        copy == w.cast(DType::F16)
    };
    assert!(copy_is_rounded_weight(&session), "set with the weight");
    check_training(&session, 5e-3);
    assert!(copy_is_rounded_weight(&session), "written by the update");
    session.zero("w").unwrap();
    assert!(copy_is_rounded_weight(&session), "zeroed with the weight");
}

#[test]
fn evaluate_sees_the_weight_and_leaves_the_gradient() {
    let session = session(Precision::Fp32);
    set_batch(&session, &BATCHES[0]);
    session.call("forward_backward").unwrap();
    let (loss, gradient) = (session.scalar("loss_sum").unwrap(), session.get("gradient.w").unwrap());
    session.set_scalar("step_size", 0.0).unwrap();
    session.call("update").unwrap();
    session.call("evaluate").unwrap();
    assert_eq!(session.scalar("loss_sum").unwrap(), loss);
    assert_eq!(session.get("gradient.w").unwrap(), gradient);
    session.call("forward_backward").unwrap();
    let doubled: Vec<f64> = gradient.to_f64s().iter().map(|g| 2.0 * g).collect();
    assert_eq!(
        session.get("gradient.w").unwrap().to_f64s(),
        doubled,
        "gradients add up until they are zeroed"
    );
}

#[test]
fn memory_is_that_of_the_plan_and_of_the_loaded_functions() {
    let session = session(Precision::Fp16);
    // w, gradient: 2 each; x: 4; targets, weights: 2 each; loss_sum, weight_sum, loss_scale, step_size; finite; the copy.
    let buffers = 4 * (2 + 2 + 4 + 2 + 2 + 4) + 1 + 2 * 2;
    assert_eq!(session.plan().memory_bytes(), buffers);
    assert!(session.memory_bytes() >= buffers);
}

#[test]
fn floats_are_rounded_to_the_buffer_and_nothing_else_is_converted() {
    let session = session(Precision::Fp32);
    session.set("w", &Tensor::new(&[1, 2], vec![0.1f64, 2.0]).unwrap()).unwrap();
    assert_eq!(session.get("w").unwrap(), tensor(&[1, 2], &[0.1, 2.0]));
    let another_shape = session.set("w", &tensor(&[2, 1], &[1.0, 2.0])).unwrap_err();
    assert_eq!(
        another_shape.to_string(),
        "buffer `w`: a buffer of tensor<fp32, [1, 2]> was given tensor<fp32, [2, 1]>"
    );
    let another_kind = session.set("w", &Tensor::new(&[1, 2], vec![1i32, 2]).unwrap());
    assert!(matches!(another_kind, Err(SessionError::Buffer { .. })));
}

#[test]
fn faults_of_the_caller_are_named() {
    let session = session(Precision::Fp32);
    let message = |e: SessionError| e.to_string();
    assert_eq!(message(session.get("v").unwrap_err()), "the plan has no buffer `v`");
    assert_eq!(message(session.call("predict").unwrap_err()), "the plan has no call `predict`");
    let expected = "buffer `w` is tensor<fp32, [1, 2]>, a scalar of fp32, fp64, int32 or bool was expected";
    assert_eq!(message(session.scalar("w").unwrap_err()), expected);
    let expected = "buffer `finite` is bool, a scalar of fp32 was expected";
    assert_eq!(message(session.set_scalar("finite", 1.0).unwrap_err()), expected);
    let locked = session.buffer("w").unwrap().read(|_| session.call("update")).unwrap().unwrap_err();
    let SessionError::Call { call, source: EngineError::Locked(_) } = &locked else { panic!("{locked:?}") };
    assert_eq!(call, "update");
}

#[test]
fn a_malformed_plan_is_refused() {
    let refused = |change: fn(&mut Plan)| {
        let mut plan = planned(Precision::Fp32);
        change(&mut plan);
        Session::new(plan, &engines()).err().expect("it is malformed")
    };
    assert!(matches!(refused(|p| p.format_version = 0), SessionError::Plan(_)));
    assert!(matches!(refused(|p| p.places.truncate(1)), SessionError::Plan(_)));
    assert!(matches!(refused(|p| p.buffers[0].place = Place::Engine), SessionError::Plan(_)));
    assert!(matches!(refused(|p| ports(p).0[0].buffer = 999), SessionError::Plan(_)));
    assert!(matches!(refused(|p| p.buffers[1].name = p.buffers[0].name.clone()), SessionError::Plan(_)));
    assert!(matches!(refused(|p| *ports(p).1 = "none".into()), SessionError::Load { .. }));
    assert!(matches!(refused(|p| ports(p).0.truncate(1)), SessionError::Bind { .. }));
    assert!(matches!(refused(|p| ports(p).0[0].buffer = 1), SessionError::Bind { .. }));
}

/// The ports and the function of a plan's first step.
fn ports(plan: &mut Plan) -> (&mut Vec<PortBinding>, &mut String) {
    let Work::Run { ports, function, .. } = &mut plan.calls[0].steps[0].work else {
        panic!("the first step runs a function")
    };
    (ports, function)
}
