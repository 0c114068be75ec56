//! A small Llama's loss and gradients, planned for chips and run on the simulated engine, against the host alone.

#![allow(missing_docs, reason = "tests are not documented")]

use std::sync::Arc;

use arcane_chip::Chip;
use arcane_compile::{Place, Plan, PlanOptions, Precision, Work, plan_functions};
use arcane_engine::{Counters, DeviceError, EngineError, Faults, SimulatedEngine, SoftwareEngine};
use arcane_grad::gradients;
use arcane_mil::{Builder, Function, Opset, Role, TensorType, ValueId};
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
    plan_functions(&[forward_backward(&model())], &PlanOptions { precision, chip }).unwrap()
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
