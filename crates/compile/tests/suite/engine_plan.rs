//! Plans for chips, run step by step in every order that they allow, against the functions that they were made of.

use std::collections::BTreeMap;

use arcane_chip::Chip;
use arcane_compile::{Call, Place, Placement, Plan, PlanOptions, Precision, legalise, plan_functions};
use arcane_grad::gradients;
use arcane_mil::{
    Binary, Builder, Compare, Function, Op, Opset, Reduce, Role, Strictness, TensorType, Unary, ValueId,
    verify,
};
use arcane_models::{LlamaConfig, declare_parameters, loss, parameters, preset};
use arcane_tensor::{DType, Tensor, Tolerance, difference};

use crate::execute::{Memory, ORDERS, Order, check_conflicts, results};
use crate::random::{Random, inputs, outputs, program, shaped_program};

const CHIPS: [&str; 2] = ["m1", "m4"];

fn planned(f: &Function, chip: &str) -> Plan {
    planned_by(f, chip, Placement::Price)
}

fn planned_by(f: &Function, chip: &str, placement: Placement) -> Plan {
    let chip = Some(Chip::named(chip).unwrap());
    let options = PlanOptions { precision: Precision::Engine, chip, placement, ..PlanOptions::default() };
    plan_functions(std::slice::from_ref(f), &options).unwrap()
}

/// Plans a function for each chip and checks that its steps give, in each order, what the legalised function gives: layout,
/// partition, sharing and buffers move elements and change none. Returns the results of the last chip.
#[track_caller]
fn check(name: &str, f: &Function, given: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut found = BTreeMap::new();
    let placements = [Placement::Legal, Placement::Price];
    for (chip, placement) in CHIPS.into_iter().flat_map(|chip| placements.map(|p| (chip, p))) {
        let plan = planned_by(f, chip, placement);
        let legal = legalise(f, Chip::named(chip).unwrap());
        let expected = outputs(&legal, given);
        for function in &plan.program.functions {
            verify(function, Strictness::Open).unwrap();
        }
        for call in &plan.calls {
            check_conflicts(call, &plan);
        }
        for order in ORDERS {
            found = results(&plan, f, given, order);
            for (output, value) in &expected {
                let d = difference(&found[output], value).unwrap();
                assert!(
                    d.max_abs == 0.0,
                    "{name} on {chip}, {placement:?}, {order:?}: {output} is off: {d:?}"
                );
            }
        }
    }
    found
}

fn check_random(name: &str, f: &Function) {
    check(name, f, &inputs(f, &mut Random::new(1)));
}

#[test]
fn random_programs_are_what_they_were() {
    let close = |found: &Tensor, exact: &Tensor| {
        let d = difference(found, exact).unwrap();
        let overflows = exact.to_f64s().iter().any(|x| x.abs() > 60_000.0);
        d.norm_rel < 5e-2 || d.max_abs < 2e-2 || overflows
    };
    for seed in 0..40 {
        let f = program(&mut Random::new(seed), 14);
        let given = inputs(&f, &mut Random::new(seed));
        let found = check(&format!("program {seed}"), &f, &given);
        for (name, exact) in outputs(&f, &given) {
            assert!(close(&found[&name], &exact), "seed {seed}: {name}");
        }
    }
}

#[test]
fn random_shapes_are_what_they_were() {
    for seed in 0..150 {
        let dtype = if seed % 3 == 0 { DType::F16 } else { DType::F32 };
        let f = shaped_program(&mut Random::new(seed), 12 + seed as usize % 30, dtype);
        check_random(&format!("shapes {seed}"), &f);
    }
}

/// A function of fp32 batches of the given shapes, called a, b, c, …
fn function<const N: usize>(
    shapes: [&[usize]; N],
    build: impl FnOnce(&mut Builder, [ValueId; N]) -> Vec<ValueId>,
) -> Function {
    let mut f = Builder::new("f", Opset::Ios18);
    let mut names = 'a'..;
    let parameters = shapes.map(|shape| {
        let name = names.next().unwrap().to_string();
        f.parameter(&name, TensorType::new(DType::F32, shape), Role::Batch)
    });
    for (i, v) in build(&mut f, parameters).into_iter().enumerate() {
        f.output(&format!("out{i}"), v);
    }
    f.finish()
}

#[test]
fn functions_without_an_op_for_the_engine() {
    check_random("nothing", &function([], |_, []| vec![]));
    check_random("a parameter", &function([&[2, 3]], |_, [a]| vec![a, a]));
    check_random("a view", &function([&[2, 6]], |f, [a]| vec![f.reshape(a, &[3, 4]).unwrap(), a]));
    let constants = function([], |f, []| {
        let table = f.constant("table", Tensor::new(&[2], vec![1.0f32, -0.5]).unwrap());
        let zeros = f.fill(DType::F16, &[3], 0.0);
        let number = f.scalar(DType::F32, 2.0);
        let view = f.reshape(table, &[1, 2]).unwrap();
        vec![table, zeros, number, view, table]
    });
    check_random("constants", &constants);
    let integers = function([&[3, 2]], |f, [a]| {
        let i = f.parameter("i", TensorType::new(DType::I32, &[2]), Role::Batch);
        let rows = f.gather(a, i, 0).unwrap();
        let flags = f.compare(Compare::Less, i, i).unwrap();
        let both = f.logical_and(flags, flags).unwrap();
        vec![rows, flags, both]
    });
    check_random("integers", &integers);
}

#[test]
fn axes_of_length_one() {
    let scalars = function([&[], &[1]], |f, [a, b]| {
        let square = f.mul(a, a).unwrap();
        let sum = f.add(square, b).unwrap();
        let mean = f.reduce(Reduce::Mean, sum, &[0], false).unwrap();
        let shaped = f.reshape(mean, &[1, 1, 1]).unwrap();
        vec![square, sum, mean, shaped]
    });
    check_random("scalars", &scalars);
    let ones = function([&[1, 1, 1], &[1, 1]], |f, [a, b]| {
        let y = f.linear(a, b, None).unwrap();
        let turned = f.transpose(y, &[2, 0, 1]).unwrap();
        let kept = f.reduce(Reduce::Max, turned, &[0, 2], true).unwrap();
        let dropped = f.reduce(Reduce::Sum, turned, &[1], false).unwrap();
        let product = f.matmul(dropped, kept, false, true).unwrap();
        vec![f.abs(product).unwrap(), turned]
    });
    check_random("ones", &ones);
    let cut = function([&[3, 1], &[1, 4]], |f, [a, b]| {
        let a = f.abs(a).unwrap();
        let one = f.split(a, 1, &[1]).unwrap()[0];
        let twice = f.concat(&[one, a], 1).unwrap();
        let rows = f.concat(&[twice, twice], 0).unwrap();
        let halves = f.split(rows, 1, &[1, 1]).unwrap();
        let wide = f.mul(halves[1], b).unwrap();
        let mean = f.reduce(Reduce::Mean, wide, &[1], true).unwrap();
        let same = f.reduce(Reduce::Sum, mean, &[1], true).unwrap();
        vec![wide, f.sub(halves[0], same).unwrap()]
    });
    check_random("cut", &cut);
}

#[test]
fn constants_of_one_number() {
    let f = function([&[4, 1], &[1, 31]], |f, [a, b]| {
        let number = |f: &mut Builder, shape: &[usize]| f.fill(DType::F32, shape, 0.5);
        let (one, pair) = (number(f, &[1, 1]), number(f, &[1]));
        let x = f.abs(a).unwrap();
        let product = f.matmul(x, one, false, false).unwrap();
        let linear = f.linear(product, one, None).unwrap();
        let longer = f.concat(&[linear, x], 1).unwrap();
        let row = f.abs(b).unwrap();
        let with_number = f.concat(&[row, one], 1).unwrap();
        let dot = f.matmul(row, b, false, true).unwrap();
        let sum = f.add(pair, pair).unwrap();
        vec![f.add(longer, sum).unwrap(), with_number, f.mul(dot, sum).unwrap()]
    });
    check_random("constants of one number", &f);
}

#[test]
fn products_of_any_ranks() {
    let f = function([&[3, 4], &[2, 4, 5], &[2, 1, 3, 4], &[6, 4, 2], &[4]], |f, [a, b, c, d, e]| {
        let (a, b) = (f.abs(a).unwrap(), f.abs(b).unwrap());
        let low_high = f.matmul(a, b, false, false).unwrap();
        let high_low = f.matmul(b, a, true, true).unwrap();
        let batches = f.matmul(c, d, false, false).unwrap();
        let turned = f.matmul(d, c, true, true).unwrap();
        let e = f.abs(e).unwrap();
        let vector = f.linear(e, a, None).unwrap();
        vec![low_high, high_low, batches, turned, vector]
    });
    check_random("products", &f);
}

#[test]
fn shapes_without_common_factors() {
    let f = function([&[4, 6], &[6, 4]], |f, [a, b]| {
        let x = f.sub(a, a).unwrap();
        let x = f.add(x, a).unwrap();
        let y = f.reshape(x, &[6, 4]).unwrap();
        let sum = f.add(y, b).unwrap();
        let z = f.reshape(sum, &[3, 8]).unwrap();
        let turned = f.transpose(z, &[1, 0]).unwrap();
        let back = f.reshape(turned, &[4, 6]).unwrap();
        let product = f.matmul(back, y, false, false).unwrap();
        let deep = f.reshape(sum, &[2, 3, 1, 2, 2]).unwrap();
        let deep = f.transpose(deep, &[4, 1, 0, 2, 3]).unwrap();
        let deep = f.unary(Unary::Silu, deep).unwrap();
        vec![product, deep, f.reduce(Reduce::Max, deep, &[1, 3], false).unwrap()]
    });
    check_random("no common factors", &f);
    let tiled = function([&[2, 1, 3]], |f, [a]| {
        let a = f.abs(a).unwrap();
        let along_one = f.tile(a, &[1, 4, 1]).unwrap();
        let along_two = f.tile(a, &[2, 3, 1]).unwrap();
        let long = f.tile(a, &[1, 1, 2]).unwrap();
        let joined = f.reshape(along_one, &[8, 3]).unwrap();
        vec![f.abs(joined).unwrap(), f.abs(along_two).unwrap(), f.abs(long).unwrap()]
    });
    check_random("tiles", &tiled);
}

#[test]
fn arrays_without_elements() {
    let f = function([&[0, 4], &[3, 4]], |f, [a, b]| {
        let (x, y) = (f.abs(a).unwrap(), f.abs(b).unwrap());
        let all = f.concat(&[y, x], 0).unwrap();
        let sum = f.reduce(Reduce::Sum, x, &[0], true).unwrap();
        let none = f.matmul(x, y, false, true).unwrap();
        let zeros = f.matmul(x, x, true, false).unwrap();
        vec![f.add(all, sum).unwrap(), none, f.linear(y, a, None).unwrap(), zeros]
    });
    check_random("no elements", &f);
}

#[test]
fn an_overwritten_parameter_is_read_before() {
    // Readers of the old value: on the host and on the engine, before and after what overwrites it. With a last axis of
    // length 1 the engine reads the states where they are.
    for dtype in [DType::F32, DType::F16] {
        let mut f = Builder::new("f", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(dtype, &[1, 32, 32, 1]), Role::Batch);
        let state = f.parameter("state", TensorType::new(dtype, &[1, 32, 32, 1]), Role::State);
        let kept = f.parameter("kept", TensorType::new(dtype, &[1, 32, 32, 1]), Role::State);
        let flat = f.reshape(state, &[1024]).unwrap();
        let new = f.add(state, x).unwrap();
        let p = f.softmax(new, 2).unwrap();
        let weighted = f.mul(p, state).unwrap();
        let q = f.softmax(weighted, 1).unwrap();
        let row = f.reshape(flat, &[16, 64]).unwrap();
        let row = f.abs(row).unwrap();
        let late = f.mul(q, kept).unwrap();
        let new_kept = f.softmax(x, 1).unwrap();
        for (name, v) in [("new", new), ("q", q), ("row", row), ("late", late), ("new_kept", new_kept)] {
            f.output(name, v);
        }
        f.alias("new", "state");
        f.alias("new_kept", "kept");
        let f = f.finish();
        check_random(&format!("state {dtype}"), &f);
    }
}

#[test]
fn a_state_is_carried_from_call_to_call() {
    let mut f = Builder::new("f", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[2, 32]), Role::Batch);
    let state = f.parameter("state", TensorType::new(DType::F32, &[2, 32]), Role::State);
    let half = f.scale(state, 0.5).unwrap();
    let new = f.add(half, x).unwrap();
    f.output("new", new);
    f.alias("new", "state");
    let f = f.finish();
    let plan = planned(&f, "m4");
    let mut memory = Memory::new(&plan);
    let quarter = |n: f64| Tensor::from_f64s(DType::F32, &[2, 32], &[n; 64]).unwrap();
    memory.set(&[("x".to_string(), quarter(1.0)), ("state".to_string(), quarter(4.0))].into());
    for expected in [3.0, 2.5, 2.25] {
        memory.run("f", Order::Listed);
        assert_eq!(memory.get("state").to_f64s(), vec![expected; 64]);
    }
}

/// A llama whose sizes have little in common: heads that are not the width over their number, keys and values shared by two
/// heads, a length and a vocabulary that are no multiples of anything.
fn odd_llama() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 20,
        intermediate_size: 28,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        vocab_size: 37,
        ..preset("stories260k").unwrap()
    }
}

fn llama_step(config: &LlamaConfig, shape: [usize; 2]) -> Function {
    let mut f = Builder::new("step", Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let mut batch = |name: &str, dtype| f.parameter(name, TensorType::new(dtype, &shape), Role::Batch);
    let (tokens, targets, weights) =
        (batch("tokens", DType::I32), batch("targets", DType::I32), batch("weights", DType::F32));
    let (loss_sum, weight_sum) = loss(&mut f, config, &params, tokens, targets, weights).unwrap();
    let names: Vec<String> = parameters(config).into_iter().map(|p| p.name).collect();
    let of: Vec<ValueId> = names.iter().map(|n| params.get(n)).collect();
    let one = f.scalar(DType::F32, 1.0);
    let found = gradients(&mut f, &[(loss_sum, one)], &of).unwrap();
    f.output("loss_sum", loss_sum);
    f.output("weight_sum", weight_sum);
    for (name, gradient) in names.iter().zip(found) {
        f.output(&format!("gradient.{name}"), gradient);
    }
    f.finish()
}

/// A llama whose rows have no gaps on the engine: its buffers pass from value to value.
fn even_llama() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 4,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 32,
        vocab_size: 64,
        ..preset("stories260k").unwrap()
    }
}

/// Weights as a model has them, about 0.1 to 0.2, gains about 1; any ids.
fn model_inputs(f: &Function, config: &LlamaConfig) -> BTreeMap<String, Tensor> {
    let mut random = Random::new(5);
    let mut given = inputs(f, &mut random);
    for (name, t) in &mut given {
        let (factor, shift) = match t.shape() {
            _ if ["tokens", "targets"].contains(&name.as_str()) => {
                let ids = (0..t.len()).map(|_| random.below(config.vocab_size) as i32).collect();
                *t = Tensor::new(t.shape(), ids).unwrap();
                continue;
            }
            [_] => (0.1, 1.0),
            _ if name == "weights" => continue,
            _ => (0.15, 0.0),
        };
        let values: Vec<f64> = t.to_f64s().iter().map(|x| shift + factor * x).collect();
        *t = Tensor::from_f64s(DType::F32, t.shape(), &values).unwrap();
    }
    given
}

#[test]
fn llamas_of_odd_and_even_sizes() {
    let tied = LlamaConfig { tie_word_embeddings: true, ..odd_llama() };
    for (config, shape) in [(odd_llama(), [2, 5]), (tied, [1, 7]), (even_llama(), [1, 32])] {
        let f = llama_step(&config, shape);
        let given = model_inputs(&f, &config);
        let found = check("llama", &f, &given);
        for (name, exact) in outputs(&f, &given) {
            let d = difference(&found[&name], &exact).unwrap();
            // A few dozen roundings to eleven bits one after the other.
            assert!(d.norm_rel < 1e-2, "{name}: {d:?}");
        }
    }
}

#[test]
fn layers_share_a_program() {
    let config = LlamaConfig { num_hidden_layers: 6, ..odd_llama() };
    let counts = |layers| {
        let f = llama_step(&LlamaConfig { num_hidden_layers: layers, ..config.clone() }, [1, 32]);
        let plan = planned(&f, "m4");
        (plan.engine_programs(), plan.call("step").unwrap().dispatches())
    };
    let ((programs, dispatches), (more_programs, more_dispatches)) = (counts(3), counts(6));
    assert_eq!(programs, more_programs);
    // A layer is one program forward and one backward.
    assert_eq!(more_dispatches, dispatches + 6);
}

/// How often elements move in each program that runs more than once: the layers, forward and backward.
fn moves_of_layers(batch: usize) -> Vec<usize> {
    let config = LlamaConfig { num_hidden_layers: 4, ..preset("stories260k").unwrap() };
    let plan = planned(&llama_step(&config, [batch, 64]), "m4");
    let runs = |name: &str| plan.calls.iter().flat_map(Call::runs).filter(|(n, _)| *n == name).count();
    let functions = plan.program.functions.iter().zip(&plan.places);
    let layers = functions.filter(|(f, place)| **place == Place::Engine && runs(f.name()) > 1);
    let moves = |f: &Function| f.operations().iter().filter(|o| matches!(o.op, Op::Transpose { .. })).count();
    layers.map(|(f, _)| moves(f)).collect()
}

#[test]
fn elements_move_in_a_layer_only_between_sequences() {
    assert_eq!(moves_of_layers(1), [0, 0]);
    // Of several sequences the positions lie side by side, and each product of attention wants one sequence.
    assert_eq!(moves_of_layers(2), [4, 13]);
}

#[test]
fn what_is_made_of_weights_alone_is_computed_once() {
    let mut f = Builder::new("f", Opset::Ios18);
    let w = f.parameter("w", TensorType::new(DType::F32, &[8, 31]), Role::Param);
    let x = f.parameter("x", TensorType::new(DType::F32, &[2, 31]), Role::Batch);
    let turned = f.transpose(w, &[1, 0]).unwrap();
    let y = f.matmul(x, turned, false, false).unwrap();
    f.output("y", y);
    let f = f.finish();
    let plan = planned(&f, "m4");
    let prepare = plan.call(arcane_compile::PREPARE).unwrap();
    assert!(prepare.steps.iter().all(|s| s.place() == Place::Host));
    let call = plan.call("f").unwrap();
    let reads_weight = call.runs().any(|(_, ports)| ports.iter().any(|p| plan.buffers[p.buffer].name == "w"));
    assert!(!reads_weight, "the transposed and padded weight is there when the call begins\n{plan}");
    let given = inputs(&f, &mut Random::new(2));
    let found = check("prepared", &f, &given);
    let close = Tolerance { atol: 0.05, rtol: 2e-3 };
    close.check(&found["y"], &outputs(&f, &given)["y"]).unwrap();
}

#[test]
fn element_wise_ops_of_one_operand_broadcast_over_both_axes() {
    let f = function([&[3, 1, 5], &[1, 4, 1], &[2, 1, 1, 1]], |f, [a, b, c]| {
        let outer = f.mul(a, b).unwrap();
        let turned = f.transpose(outer, &[2, 0, 1]).unwrap();
        let all = f.binary(Binary::Maximum, c, turned).unwrap();
        vec![f.reduce(Reduce::Sum, all, &[0, 2], true).unwrap(), outer]
    });
    check_random("broadcast", &f);
}

#[test]
fn a_small_program_without_a_product_is_the_hosts() {
    let build = |rows: usize| {
        let mut f = Builder::new("f", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(DType::F32, &[rows, 64]), Role::Batch);
        let w = f.parameter("w", TensorType::new(DType::F32, &[64, 64]), Role::Param);
        let rows = f.parameter("rows", TensorType::new(DType::I32, &[rows]), Role::Batch);
        let y = f.linear(x, w, None).unwrap();
        // The host picks rows, so what follows cannot be part of the product's program.
        let picked = f.gather(y, rows, 0).unwrap();
        let gate = f.unary(Unary::Sigmoid, picked).unwrap();
        let z = f.mul(picked, gate).unwrap();
        f.output("z", z);
        f.finish()
    };
    let programs = |rows, placement| {
        let plan = planned_by(&build(rows), "m4", placement);
        let moved = plan.reasons.iter().any(|r| r.contains("ops without a product"));
        (plan.call("f").unwrap().dispatches(), moved)
    };
    assert_eq!(programs(64, Placement::Legal), (2, false));
    assert_eq!(programs(64, Placement::Price), (1, true));
}

#[test]
fn layers_with_constants_are_joined_up_to_the_limit_on_their_bytes() {
    const LAYERS: usize = 70;
    let mut f = Builder::new("f", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[256, 1024]), Role::Batch);
    let mut h = x;
    for layer in 0..LAYERS {
        let w = f.parameter(&format!("w{layer}"), TensorType::new(DType::F32, &[1024, 1024]), Role::Param);
        let y = f.linear(h, w, None).unwrap();
        h = f.unary(Unary::Silu, y).unwrap();
    }
    f.output("y", h);
    let chip = Chip::named("m1").unwrap();
    let options = PlanOptions {
        precision: Precision::Engine,
        chip: Some(chip),
        freeze: true,
        ..PlanOptions::default()
    };
    let plan = plan_functions(&[f.finish()], &options).unwrap();
    let constants = |f: &Function| -> Vec<usize> {
        let constant = f.parameters().iter().filter(|p| p.role == Role::Constant);
        constant.map(|p| f.ty(p.value).bytes()).collect()
    };
    let runs = plan.call("f").unwrap().runs().filter(|(name, _)| plan.place(name) == Some(Place::Engine));
    let run: Vec<&Function> = runs.filter_map(|(name, _)| plan.program.function(name)).collect();
    assert_eq!(run.iter().map(|f| constants(f).len()).sum::<usize>(), LAYERS);
    let most = run.iter().map(|f| constants(f).iter().sum::<usize>()).max().unwrap();
    // Two megabytes a layer, and less than two layers short of the limit.
    let limit = *chip.limits.max_weight_bytes;
    assert!(most <= limit && most * 2 > limit, "{most} of {limit} bytes in one program");
    for f in run {
        assert!(
            !arcane_chip::violations(chip, f).iter().any(arcane_chip::Violation::is_fatal),
            "{}",
            f.name()
        );
    }
}
