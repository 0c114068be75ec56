//! A small Llama's loss and gradients, planned for chips and run on the simulated engine, against the host alone.

#![allow(missing_docs, reason = "tests are not documented")]

use std::sync::Arc;

use arcane_chip::Chip;
use arcane_compile::{Place, Plan, PlanOptions, Precision, Work, plan_functions};
use arcane_engine::{Counters, DeviceError, EngineError, Faults, SimulatedEngine, SoftwareEngine};
use arcane_grad::gradients;
use arcane_mil::{Builder, Function, Opset, Role, TensorType, Unary, ValueId};
use arcane_models::{LlamaConfig, declare_parameters, initialize_parameter, loss, parameters, preset};
use arcane_session::{Engines, Session, SessionError};
use arcane_tensor::{DType, Tensor};

const BATCH: usize = 2;
const SEQ: usize = 32;

fn model() -> LlamaConfig {
    LlamaConfig { num_hidden_layers: 2, ..preset("stories260k").unwrap() }
}

fn forward_backward(config: &LlamaConfig) -> Function {
    let mut f = Builder::new("forward_backward", Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let mut batch = |name: &str, dtype| f.parameter(name, TensorType::new(dtype, &[BATCH, SEQ]), Role::Batch);
    let (tokens, targets, weights) =
        (batch("tokens", DType::I32), batch("targets", DType::I32), batch("weights", DType::F32));
    let (loss_sum, weight_sum) = loss(&mut f, config, &params, tokens, targets, weights).unwrap();
    let scale = f.parameter("loss_scale", TensorType::new(DType::F32, &[]), Role::Scalar);
    let names: Vec<String> = parameters(config).into_iter().map(|p| p.name).collect();
    let of: Vec<ValueId> = names.iter().map(|n| params.get(n)).collect();
    let found = gradients(&mut f, &[(loss_sum, scale)], &of).unwrap();
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    for (name, gradient) in names.iter().zip(found) {
        let name = format!("gradient.{name}");
        f.set_path(gradient, name.clone());
        f.output(&name, gradient);
    }
    f.finish()
}

fn planned(chip: Option<&str>) -> Plan {
    let chip = chip.map(|name| Chip::named(name).unwrap());
    let precision = if chip.is_some() { Precision::Engine } else { Precision::Fp32 };
    plan_functions(&[forward_backward(&model())], &PlanOptions { precision, chip, ..PlanOptions::default() })
        .unwrap()
}

fn simulated(chip: &str, faults: Faults) -> (Arc<SimulatedEngine>, Engines) {
    let engine = Arc::new(SimulatedEngine::with_faults(Chip::named(chip).unwrap(), 2, faults).unwrap());
    let host = Arc::new(SoftwareEngine::new(2).unwrap());
    (engine.clone(), Engines { accelerator: Some(engine), host })
}

/// Sets weights and a batch.
fn set(session: &Session) {
    let config = model();
    for spec in parameters(&config) {
        session.set(&spec.name, &initialize_parameter(&spec, 7)).unwrap();
    }
    let tokens = |offset: i32| -> Vec<i32> {
        (0..(BATCH * SEQ) as i32).map(|i| (i * 37 + offset) % config.vocab_size as i32).collect()
    };
    session.set("tokens", &Tensor::new(&[BATCH, SEQ], tokens(1)).unwrap()).unwrap();
    session.set("targets", &Tensor::new(&[BATCH, SEQ], tokens(5)).unwrap()).unwrap();
    let weights: Vec<f32> = (0..BATCH * SEQ).map(|i| if i % 7 == 3 { 0.0 } else { 1.0 }).collect();
    session.set("weights", &Tensor::new(&[BATCH, SEQ], weights).unwrap()).unwrap();
    session.set_scalar("loss_scale", 4.0).unwrap();
}

fn run(session: &Session) -> Vec<(String, Tensor)> {
    session.call("forward_backward").unwrap();
    let names = parameters(&model()).into_iter().map(|p| format!("gradient.{}", p.name));
    names
        .chain(["loss_sum".into(), "weight_sum".into()])
        .map(|n| (n.clone(), session.get(&n).unwrap()))
        .collect()
}

/// Root of the sum of squares of a difference, relative to that of the second.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64s(), b.to_f64s());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    square(&mut a.iter().zip(&b).map(|(x, y)| x - y)) / square(&mut b.iter().copied()).max(1e-30)
}

#[test]
fn the_simulated_engine_gives_the_hosts_results_within_half_precision() {
    let host =
        Session::new(planned(None), &Engines::host(Arc::new(SoftwareEngine::new(2).unwrap()))).unwrap();
    set(&host);
    let expected = run(&host);
    for chip in ["m1", "m4", "m5"] {
        let (engine, engines) = simulated(chip, Faults::default());
        let session = Session::new(planned(Some(chip)), &engines).unwrap();
        set(&session);
        for ((name, found), (_, expected)) in run(&session).iter().zip(&expected) {
            let d = distance(found, expected);
            assert!(d < 2e-2, "{chip}: {name} is off by {d}");
        }
        let first = run(&session);
        assert_eq!(run(&session), first, "{chip}: the same again");
        let counters = engine.counters();
        assert!(counters.dispatches > 0 && counters.busy_ns > 0.0 && counters.energy_mj > 0.0);
    }
}

#[test]
fn bookkeeping_is_that_of_the_plan() {
    let plan = planned(Some("m4"));
    let (engine, engines) = simulated("m4", Faults::default());
    let session = Session::new(plan.clone(), &engines).unwrap();
    set(&session);
    let programs = plan.engine_programs() as u64;
    let loaded = Counters {
        compiles: programs,
        loads: programs,
        loaded: programs,
        most_loaded: programs,
        ..Counters::default()
    };
    assert_eq!(engine.counters(), loaded, "nothing has run yet");
    let steps = &plan.call("forward_backward").unwrap().steps;
    let dispatches = steps.iter().filter(|s| s.place() == Place::Engine).count() as u64;
    run(&session);
    run(&session);
    let counters = engine.counters();
    assert_eq!(counters.dispatches, 2 * dispatches);
    // Two layers forward, the head twice, two layers backward, what is left at both ends.
    assert!((6..=12).contains(&dispatches), "{dispatches} dispatches");
    let surfaces = |writes: bool| -> u64 {
        let of_step = |step: &arcane_compile::Step| -> u64 {
            let Work::Run { place: Place::Engine, function, ports } = &step.work else { return 0 };
            let f = plan.program.function(function).unwrap();
            let inputs = f.parameters().len();
            let types = f.parameters().iter().map(|p| p.value).chain(f.outputs().iter().map(|o| o.value));
            types
                .take(ports.len())
                .enumerate()
                .filter(|(i, _)| (*i >= inputs) == writes)
                .map(|(_, v)| arcane_chip::surface::SurfaceLayout::of(f.ty(v)).unwrap().bytes as u64)
                .sum()
        };
        steps.iter().map(of_step).sum()
    };
    assert_eq!((counters.bytes_read, counters.bytes_written), (2 * surfaces(false), 2 * surfaces(true)));
    drop(session);
    assert_eq!(engine.counters().loaded, 0);
}

/// The device error that a session of a plan for m4 ends with.
fn failure(faults: Faults) -> DeviceError {
    let (_, engines) = simulated("m4", faults);
    let error = match Session::new(planned(Some("m4")), &engines) {
        Err(e) => e,
        Ok(session) => {
            set(&session);
            session.call("forward_backward").expect_err("it is to fail")
        }
    };
    let source = match error {
        SessionError::Load { source, .. } | SessionError::Call { source, .. } => source,
        other => panic!("{other}"),
    };
    let EngineError::Device(error) = source else { panic!("{source}") };
    *error
}

#[test]
fn errors_that_last_stop_the_session_with_their_cause() {
    let compile = failure(Faults { compile: Some(2), ..Faults::default() });
    assert!(compile.to_string().contains("ANECCompile() failed"), "{compile}");
    let slots = failure(Faults { slots: Some(1), ..Faults::default() });
    assert!(slots.to_string().contains("all 1 slots"), "{slots}");
    let evaluate = failure(Faults { evaluate: Some((3, 0x1d)), ..Faults::default() });
    assert_eq!((evaluate.code, evaluate.status), (8, Some(0x1d)));
    let hang = failure(Faults { hang: Some(2), ..Faults::default() });
    assert!(hang.to_string().contains("did not end before its deadline"), "{hang}");
}

#[test]
fn errors_that_pass_are_survived() {
    let (_, engines) = simulated("m4", Faults::default());
    let session = Session::new(planned(Some("m4")), &engines).unwrap();
    set(&session);
    let expected = run(&session);
    let (_, engines) =
        simulated("m4", Faults { load: Some(2), evaluate: Some((3, 0x12)), ..Faults::default() });
    let session = Session::new(planned(Some("m4")), &engines).unwrap();
    set(&session);
    assert_eq!(run(&session), expected);
    let recovered = session.recovered();
    assert_eq!((recovered.loads, recovered.steps), (1, 1));
}

#[test]
fn weights_that_change_reach_the_engine() {
    let (_, engines) = simulated("m4", Faults::default());
    let session = Session::new(planned(Some("m4")), &engines).unwrap();
    set(&session);
    let before = run(&session);
    let gain = "model.norm.weight";
    let ones = session.get(gain).unwrap();
    let halves: Vec<f64> = ones.to_f64s().iter().map(|x| x * 0.5).collect();
    session.set(gain, &Tensor::from_f64s(ones.dtype(), ones.shape(), &halves).unwrap()).unwrap();
    assert_ne!(run(&session), before);
    session.set(gain, &ones).unwrap();
    assert_eq!(run(&session), before);
}

const LAYERS: usize = 4;

/// Residual layers of two products each, with enough positions for the time of a product to be that of its arithmetic.
fn perceptron(freeze: bool) -> Plan {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[1, 256, 256]), Role::Batch);
    let entry = f.parameter("entry", TensorType::new(DType::F32, &[256, 256]), Role::Param);
    let mut h = f.linear(x, entry, None).unwrap();
    for layer in 0..LAYERS {
        let mut weight = |name: &str, shape: &[usize]| {
            f.parameter(&format!("{layer}.{name}"), TensorType::new(DType::F32, shape), Role::Param)
        };
        // One lies as `linear` wants it, the other as `matmul` does.
        let (up, down) = (weight("up", &[512, 256]), weight("down", &[512, 256]));
        let inner = f.linear(h, up, None).unwrap();
        let inner = f.unary(Unary::Silu, inner).unwrap();
        let delta = f.matmul(inner, down, false, false).unwrap();
        h = f.add(h, delta).unwrap();
    }
    f.output("y", h);
    let chip = Some(Chip::named("m1").unwrap());
    plan_functions(
        &[f.finish()],
        &PlanOptions { precision: Precision::Engine, chip, freeze, ..PlanOptions::default() },
    )
    .unwrap()
}

fn set_perceptron(session: &Session) {
    let numbers = |shape: &[usize], seed: u32, scale: f32| {
        let value = |i: u32| {
            let mixed = (i ^ seed).wrapping_mul(2_654_435_761);
            ((mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519) >> 16) as f32 / 32768.0 - 1.0
        };
        let n = shape.iter().product::<usize>() as u32;
        Tensor::new(shape, (0..n).map(|i| scale * value(i)).collect::<Vec<f32>>()).unwrap()
    };
    session.set("x", &numbers(&[1, 256, 256], 3, 1.0)).unwrap();
    session.set("entry", &numbers(&[256, 256], 77, 0.1)).unwrap();
    for layer in 0..LAYERS {
        for (n, name) in ["up", "down"].into_iter().enumerate() {
            let seed = 1_000_003 * (2 * layer + n) as u32;
            session.set(&format!("{layer}.{name}"), &numbers(&[512, 256], seed, 0.1)).unwrap();
        }
    }
}

fn run_perceptron(session: &Session) -> Tensor {
    session.call("main").unwrap();
    session.get("y").unwrap()
}

#[test]
fn frozen_weights_are_constants_of_convolutions() {
    let plan = perceptron(true);
    let convolutions = |plan: &Plan| {
        let ops = plan.program.functions.iter().flat_map(arcane_mil::Function::operations);
        ops.filter(|o| matches!(o.op, arcane_mil::Op::Convolution(_))).count()
    };
    let shared = perceptron(false);
    assert_eq!((convolutions(&plan), convolutions(&shared)), (1 + 2 * LAYERS, 0));
    // Layers with weights of their own are one program; layers that are given theirs share one.
    assert_eq!(plan.call("main").unwrap().dispatches(), 1);
    assert!(shared.engine_programs() < shared.call("main").unwrap().dispatches());

    let (_, engines) = simulated("m1", Faults::default());
    let expected = {
        let session = Session::new(shared, &engines).unwrap();
        set_perceptron(&session);
        run_perceptron(&session)
    };
    let (engine, engines) = simulated("m1", Faults::default());
    let session = Session::new(plan.clone(), &engines).unwrap();
    assert_eq!(engine.counters().loaded, 0, "constants are to come");
    set_perceptron(&session);
    let found = run_perceptron(&session);
    assert_eq!(engine.counters().loaded, 1);
    assert!(session.memory_bytes() as u64 <= engines.required_bytes(&plan).unwrap());
    assert!(distance(&found, &expected) < 1e-3, "off by {}", distance(&found, &expected));
    // A weight that changes is compiled anew, and the old program gives back its slot.
    let old = session.get("1.up").unwrap();
    session.zero("1.up").unwrap();
    assert_ne!(run_perceptron(&session), found);
    assert_eq!((engine.counters().loads, engine.counters().loaded), (2, 1));
    session.set("1.up", &old).unwrap();
    assert_eq!(run_perceptron(&session), found);
    assert_eq!(run_perceptron(&session), found);
    assert_eq!(engine.counters().loads, 3, "nothing has changed since");
}

#[test]
fn a_lost_program_is_loaded_again() {
    for freeze in [false, true] {
        let (_, engines) = simulated("m1", Faults::default());
        let session = Session::new(perceptron(freeze), &engines).unwrap();
        set_perceptron(&session);
        let expected = run_perceptron(&session);
        let faults = Faults { evaluate: Some((1, 0xe)), ..Faults::default() };
        let (engine, engines) = simulated("m1", faults);
        let session = Session::new(perceptron(freeze), &engines).unwrap();
        set_perceptron(&session);
        assert_eq!(run_perceptron(&session), expected);
        let recovered = session.recovered();
        assert_eq!((recovered.loads, recovered.steps), (1, 1));
        assert_eq!(engine.counters().loads, engine.counters().loaded + 1, "the lost one is let go");
    }
}

#[test]
fn a_plan_comes_back_from_its_files() {
    let plan = planned(Some("m4"));
    let files = plan.to_files().unwrap();
    let read = Plan::from_files(&files).unwrap();
    assert_eq!((&read.buffers, &read.calls, &read.places), (&plan.buffers, &plan.calls, &plan.places));
    for (path, bytes) in &read.to_files().unwrap() {
        // The index has a hash of everything, paths of values among it, which text shortens.
        assert!(path.ends_with("plan.json") || bytes == &files[path], "{}", path.display());
    }
    let results = |plan: Plan| {
        let (_, engines) = simulated("m4", Faults::default());
        let session = Session::new(plan, &engines).unwrap();
        set(&session);
        run(&session)
    };
    assert_eq!(results(read), results(plan));
    let mut damaged = files.clone();
    let text = files.keys().find(|path| path.ends_with("model.mil")).unwrap();
    damaged.remove(text);
    assert!(Plan::from_files(&damaged).unwrap_err().to_string().contains("no such file"));
    damaged.insert("plan.json".into(), b"{}".to_vec());
    assert!(Plan::from_files(&damaged).unwrap_err().to_string().contains("format_version"));
}
