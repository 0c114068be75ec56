use arcane_compile::{BufferKind, Plan, PlanError, PlanOptions, Precision, TrainingProgram, Work, plan};
use arcane_mil::{AdamW, Builder, Function, Opset, Reduce, Role, TensorType, ValueId};
use arcane_tensor::DType;

const F32: DType = DType::F32;

/// What a toy's `forward_backward` does with its gradients.
#[derive(Clone, Copy, PartialEq)]
enum Gradients {
    Accumulated,
    AccumulatedWithoutAlias,
    Written,
    Dropped,
}

/// A toy training program: how it treats gradients and masters, and its weight decay.
#[derive(Clone, Copy)]
struct Toy {
    gradients: Gradients,
    aliases_master: bool,
    decay: f64,
}

const TOY: Toy = Toy { gradients: Gradients::Accumulated, aliases_master: true, decay: 0.9 };

const WEIGHTS: [(&str, &[usize]); 2] = [("w", &[3, 4]), ("gain", &[4])];

fn f32s(shape: &[usize]) -> TensorType {
    TensorType::new(F32, shape)
}

/// Σ weights·(x·gain)·wᵀ, with the params and the batch that it needs.
fn loss(f: &mut Builder) -> [ValueId; 4] {
    let [w, gain] = WEIGHTS.map(|(name, shape)| f.parameter(name, f32s(shape), Role::Param));
    let x = f.parameter("x", f32s(&[2, 4]), Role::Batch);
    let weights = f.parameter("weights", f32s(&[2, 1]), Role::Batch);
    let scaled = f.mul(x, gain).unwrap();
    let y = f.matmul(scaled, w, false, true).unwrap();
    let y = f.mul(y, weights).unwrap();
    let loss_sum = f.reduce_all(Reduce::Sum, y).unwrap();
    let weight_sum = f.reduce_all(Reduce::Sum, weights).unwrap();
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    [w, x, gain, weights]
}

fn forward_backward(toy: Toy) -> Function {
    let mut f = Builder::new("forward_backward", Opset::Ios18);
    let [w, x, gain, weights] = loss(&mut f);
    let scale = f.parameter("loss_scale", f32s(&[]), Role::Scalar);
    let ones = f.fill(F32, &[2, 3], 1.0);
    let g = f.mul(weights, scale).unwrap();
    let g = f.mul(ones, g).unwrap();
    let scaled = f.mul(x, gain).unwrap();
    let d_w = f.matmul(g, scaled, true, false).unwrap();
    let d_scaled = f.matmul(g, w, false, false).unwrap();
    let d_gain = f.mul(d_scaled, x).unwrap();
    let d_gain = f.reduce(Reduce::Sum, d_gain, &[0], false).unwrap();
    for ((name, shape), d) in WEIGHTS.iter().zip([d_w, d_gain]) {
        let (output, accumulator) = (format!("gradient.{name}"), format!("accumulator.{name}"));
        match toy.gradients {
            Gradients::Dropped => {}
            Gradients::Written => f.output(&output, d),
            Gradients::Accumulated | Gradients::AccumulatedWithoutAlias => {
                let sum = f.parameter(&accumulator, f32s(shape), Role::Accumulator);
                let sum = f.add(sum, d).unwrap();
                f.output(&output, sum);
            }
        }
        if toy.gradients == Gradients::Accumulated {
            f.alias(&output, &accumulator);
        }
    }
    f.finish()
}

fn update(toy: Toy) -> Function {
    let mut f = Builder::new("update", Opset::Ios18);
    let constants = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8 };
    let [step, correction] =
        ["step_size", "root_correction"].map(|n| f.parameter(n, f32s(&[]), Role::Scalar));
    let decay = f.scalar(F32, toy.decay);
    for (name, shape) in WEIGHTS {
        let state = [("master", Role::Master), ("moment1", Role::Moment), ("moment2", Role::Moment)];
        let old = state.map(|(prefix, role)| f.parameter(&format!("{prefix}.{name}"), f32s(shape), role));
        let g = f.parameter(&format!("gradient.{name}"), f32s(shape), Role::Accumulator);
        let new = f.adamw(constants, old, g, Some(decay), step, correction).unwrap();
        for ((prefix, role), new) in state.into_iter().zip(new) {
            let parameter = format!("{prefix}.{name}");
            let output = format!("{parameter}.new");
            f.output(&output, new);
            if toy.aliases_master || role != Role::Master {
                f.alias(&output, &parameter);
            }
        }
    }
    f.finish()
}

fn training(toy: Toy) -> TrainingProgram {
    let mut f = Builder::new("evaluate", Opset::Ios18);
    loss(&mut f);
    TrainingProgram {
        forward_backward: forward_backward(toy),
        update: update(toy),
        evaluate: Some(f.finish()),
    }
}

fn planned(toy: Toy, precision: Precision) -> Result<Plan, PlanError> {
    plan(&training(toy), &PlanOptions { precision, chip: None, ..PlanOptions::default() })
}

/// `name kind type` of each buffer, sorted.
fn buffers(plan: &Plan) -> Vec<String> {
    let line = |b: &arcane_compile::PlanBuffer| {
        let zeroed = if b.zeroed { " zeroed" } else { "" };
        format!("{} {} {}{zeroed}", b.name, b.kind.name(), b.ty)
    };
    let mut lines: Vec<String> = plan.buffers.iter().map(line).collect();
    lines.sort();
    lines
}

/// The names of the buffers of a call's ports, by port.
fn ports<'a>(plan: &'a Plan, call: &str) -> Vec<(&'a str, &'a str)> {
    let (_, ports) = plan.call(call).unwrap().runs().next().unwrap();
    ports.iter().map(|p| (p.port.as_str(), plan.buffers[p.buffer].name.as_str())).collect()
}

/// The buffers that both precisions have.
const SHARED: [&str; 15] = [
    "gain weight tensor<fp32, [4]>",
    "gradient.gain accumulator tensor<fp32, [4]> zeroed",
    "gradient.w accumulator tensor<fp32, [3, 4]> zeroed",
    "loss_scale scalar fp32",
    "loss_sum result fp32",
    "moment1.gain moment tensor<fp32, [4]>",
    "moment1.w moment tensor<fp32, [3, 4]>",
    "moment2.gain moment tensor<fp32, [4]>",
    "moment2.w moment tensor<fp32, [3, 4]>",
    "root_correction scalar fp32",
    "step_size scalar fp32",
    "w weight tensor<fp32, [3, 4]>",
    "weight_sum result fp32",
    "weights batch tensor<fp32, [2, 1]>",
    "x batch tensor<fp32, [2, 4]>",
];

#[test]
fn in_fp32_weight_and_master_are_one_buffer() {
    let plan = planned(TOY, Precision::Fp32).unwrap();
    assert_eq!(buffers(&plan), SHARED);
    // Four times two weights of 12 and 4 elements, the batch of 10, five scalars.
    assert_eq!(plan.memory_bytes(), 4 * (4 * (12 + 4) + 10 + 5));
    let of = |call| ports(&plan, call);
    let batch = [("w", "w"), ("gain", "gain"), ("x", "x"), ("weights", "weights")];
    let sums = [("loss_sum", "loss_sum"), ("weight_sum", "weight_sum")];
    assert_eq!(of("evaluate"), [&batch[..], &sums].concat());
    let accumulate = [
        ("loss_scale", "loss_scale"),
        ("accumulator.w", "gradient.w"),
        ("accumulator.gain", "gradient.gain"),
        sums[0],
        sums[1],
        ("gradient.w", "gradient.w"),
        ("gradient.gain", "gradient.gain"),
    ];
    assert_eq!(of("forward_backward"), [&batch[..], &accumulate].concat());
    let update = [
        ("step_size", "step_size"),
        ("root_correction", "root_correction"),
        ("master.w", "w"),
        ("moment1.w", "moment1.w"),
        ("moment2.w", "moment2.w"),
        ("gradient.w", "gradient.w"),
        ("master.gain", "gain"),
        ("moment1.gain", "moment1.gain"),
        ("moment2.gain", "moment2.gain"),
        ("gradient.gain", "gradient.gain"),
        ("master.w.new", "w"),
        ("moment1.w.new", "moment1.w"),
        ("moment2.w.new", "moment2.w"),
        ("master.gain.new", "gain"),
        ("moment1.gain.new", "moment1.gain"),
        ("moment2.gain.new", "moment2.gain"),
    ];
    assert_eq!(of("update"), update);
    let calls: Vec<&str> = plan.calls.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(calls, ["forward_backward", "update", "evaluate"]);
}

#[test]
fn in_fp16_the_update_writes_a_copy_of_each_weight_of_rank_two() {
    let plan = planned(TOY, Precision::Fp16).unwrap();
    let mut expected = SHARED.to_vec();
    expected.push("copy.w copy tensor<fp16, [3, 4]>");
    expected.sort_unstable();
    assert_eq!(buffers(&plan), expected);
    let copy = &plan.buffers[plan.buffer("copy.w").unwrap()];
    assert_eq!(copy.kind, BufferKind::Copy { of: plan.buffer("w").unwrap() });
    for call in ["forward_backward", "evaluate"] {
        assert_eq!(ports(&plan, call)[..2], [("w", "copy.w"), ("gain", "gain")]);
    }
    let update = ports(&plan, "update");
    assert_eq!(update.len(), 17);
    assert_eq!(update[16], ("copy.w", "copy.w"));
    let f = plan.program.function("update").unwrap();
    let half = f.operations().iter().filter(|o| f.ty(o.results[0]).dtype == DType::F16).count();
    assert_eq!(half, 1, "only the copy is fp16");
}

#[test]
fn gradients_that_do_not_accumulate_are_not_zeroed() {
    let plan = planned(Toy { gradients: Gradients::Written, ..TOY }, Precision::Fp32).unwrap();
    assert_eq!(plan.buffers.len(), SHARED.len());
    assert!(plan.buffers.iter().all(|b| !b.zeroed));
}

#[test]
fn a_weight_without_master_is_frozen_in_its_own_type() {
    let mut toy = training(TOY);
    let mut f = Builder::extend(&toy.forward_backward);
    let w = f.parameter("frozen", f32s(&[2, 2]), Role::Param);
    for o in toy.forward_backward.outputs() {
        f.output(&o.name, o.value);
    }
    for a in toy.forward_backward.aliases() {
        let (o, p) =
            (&toy.forward_backward.outputs()[a.output], &toy.forward_backward.parameters()[a.parameter]);
        f.alias(&o.name, &p.name);
    }
    let product = f.matmul(w, w, false, false).unwrap();
    f.output("product", product);
    toy.forward_backward = f.finish();
    let plan = plan(&toy, &PlanOptions { precision: Precision::Fp16, chip: None, ..PlanOptions::default() })
        .unwrap();
    let frozen = &plan.buffers[plan.buffer("frozen").unwrap()];
    assert_eq!((frozen.kind, frozen.ty.dtype), (BufferKind::Weight, DType::F16));
    assert_eq!(plan.buffer("copy.frozen"), None);
}

#[test]
fn the_hash_is_stable_and_tells_programs_apart() {
    let hash = |toy, precision| planned(toy, precision).unwrap().hash();
    let same = hash(TOY, Precision::Fp32);
    assert_eq!(hash(TOY, Precision::Fp32), same);
    let others = [hash(TOY, Precision::Fp16), hash(Toy { decay: 0.8, ..TOY }, Precision::Fp32)];
    assert!(!others.contains(&same) && others[0] != others[1]);
    let mut changed = planned(TOY, Precision::Fp32).unwrap();
    let Work::Run { ports, .. } = &mut changed.calls[0].steps[0].work else { panic!("it runs a function") };
    ports.swap(0, 1);
    assert_ne!(changed.hash(), same);
    let empty = Plan {
        format_version: 3,
        chip: None,
        program: arcane_mil::Program::default(),
        places: vec![],
        buffers: vec![],
        calls: vec![],
        reasons: vec![],
    };
    assert_eq!(empty.hash(), 0xdf72_a6d7_63c8_f6e6, "FNV-1a of the numbers 3, 0, 0, 0, 0");
}

#[test]
fn a_printed_plan_names_buffers_and_the_ports_that_are_called_otherwise() {
    let text = planned(TOY, Precision::Fp16).unwrap().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("plan format 3 hash "));
    for line in [
        "buffer copy.w          copy        tensor<fp16, [3, 4]> of w",
        "buffer gradient.w      accumulator tensor<fp32, [3, 4]> zeroed",
        "call update",
        "  0 host update",
        "    master.w on w",
        "    w on copy.w",
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{text}");
    }
}

#[test]
fn faults_of_the_program_are_named() {
    let fault = |toy| planned(toy, Precision::Fp16).unwrap_err().to_string();
    assert_eq!(
        fault(Toy { gradients: Gradients::AccumulatedWithoutAlias, ..TOY }),
        "`accumulator.w` is read, but no function has an output of this name"
    );
    assert_eq!(
        fault(Toy { aliases_master: false, ..TOY }),
        "no output of the update is aliased to `master.w`"
    );
    assert_eq!(
        fault(Toy { gradients: Gradients::Dropped, ..TOY }),
        "`gradient.w` is read, but no function has an output of this name"
    );
}

/// The plan of a toy whose `evaluate` is `build`'s.
fn with_evaluate(build: impl FnOnce(&mut Builder)) -> Result<Plan, PlanError> {
    let mut f = Builder::new("other", Opset::Ios18);
    build(&mut f);
    plan(&TrainingProgram { evaluate: Some(f.finish()), ..training(TOY) }, &PlanOptions::default())
}

#[test]
fn ports_that_may_not_share_a_buffer_are_named() {
    let of_another_type = with_evaluate(|f| {
        let x = f.parameter("x", f32s(&[8, 4]), Role::Batch);
        f.output("same", x);
    });
    let expected = "other: port `x` is tensor<fp32, [8, 4]>, buffer `x` is tensor<fp32, [2, 4]>";
    assert_eq!(of_another_type.unwrap_err().to_string(), expected);
    let overwrites_a_weight = with_evaluate(|f| {
        let zeros = f.fill(F32, &[3, 4], 0.0);
        f.output("w", zeros);
    });
    let expected = "other: output `w` would overwrite the weight of the same name: alias it, or rename it";
    assert_eq!(overwrites_a_weight.unwrap_err().to_string(), expected);
    let reads_weight_and_master = with_evaluate(|f| {
        f.parameter("w", f32s(&[3, 4]), Role::Param);
        let master = f.parameter("master.w", f32s(&[3, 4]), Role::Master);
        let new = f.abs(master).unwrap();
        f.output("new", new);
        f.alias("new", "master.w");
    });
    let expected = "other: output `new` and port `w` are both on buffer `w` without an alias";
    assert_eq!(reads_weight_and_master.unwrap_err().to_string(), expected);
    let without_param = {
        let mut toy = training(TOY);
        toy.forward_backward = with_only_gain();
        toy.evaluate = None;
        plan(&toy, &PlanOptions::default())
    };
    assert_eq!(
        without_param.unwrap_err().to_string(),
        "`master.w` was given, but no function has a param `w`"
    );
}

fn with_only_gain() -> Function {
    let mut f = Builder::new("forward_backward", Opset::Ios18);
    let gain = f.parameter("gain", f32s(&[4]), Role::Param);
    f.output("gradient.gain", gain);
    f.finish()
}
