//! The passes that write a program for an engine: their text before and after, and their results.

use std::collections::BTreeMap;
use std::path::Path;

use arcane_chip::Chip;
use arcane_compile::{
    ENGINE_PASSES, Precision, chunk_heads, decompose_attention, fold_identities, mixed, pad_contractions,
    scale_norms, simplify,
};
use arcane_grad::gradients;
use arcane_mil::{
    Builder, Function, Op, Opset, Recognised, Reduce, Region, Rewriter, Role, Strictness, TensorType,
    ValueId, regions, remove_dead_code, verify,
};
use arcane_tensor::{DType, Tensor, Tolerance, difference};

use crate::golden;
use crate::random::{Random, inputs, outputs, program, shaped_program};

const F16: DType = DType::F16;
const F32: DType = DType::F32;

/// Half a unit in the last place of an fp16 number, relative to it.
const HALF_ULP: f64 = 1.0 / 2048.0;

fn ty(dtype: DType, shape: &[usize]) -> TensorType {
    TensorType::new(dtype, shape)
}

fn text(before: &Function, after: &Function) -> String {
    let plain = |f: &Function| golden::listing(f, |_| String::new());
    format!("before\n{}after\n{}", plain(before), plain(after))
}

/// Checks the text of a function before and after a pass, and that its results stay within a tolerance.
#[track_caller]
fn check(case: &str, before: &Function, pass: impl Fn(&Function) -> Function, tolerance: Tolerance) {
    let after = pass(before);
    golden::check(case, &text(before, &after));
    close(case, before, &after, &inputs(before, &mut Random::new(7)), tolerance);
}

#[track_caller]
fn close(
    case: &str,
    before: &Function,
    after: &Function,
    given: &BTreeMap<String, Tensor>,
    tolerance: Tolerance,
) {
    verify(after, Strictness::Open).unwrap();
    let (expected, found) = (outputs(before, given), outputs(after, given));
    for (name, value) in &expected {
        tolerance.check(&found[name], value).unwrap_or_else(|e| panic!("{case}: {name}: {e}"));
    }
}

/// Appends the gradients of `loss` with respect to `of` and declares them as outputs.
fn differentiate(f: &mut Builder, loss: ValueId, of: &[(&str, ValueId)]) {
    let seed = f.fill(F32, &f.shape(loss), 1.0);
    let wrt: Vec<ValueId> = of.iter().map(|(_, v)| *v).collect();
    let found = gradients(f, &[(loss, seed)], &wrt).unwrap();
    for ((name, _), gradient) in of.iter().zip(found) {
        f.output(&format!("d_{name}"), gradient);
    }
}

/// Exactly the same results.
const EXACT: Tolerance = Tolerance { atol: 0.0, rtol: 0.0 };

/// A function of parameters `x` and `y` of `[2, 3]`, and one output.
fn small(dtype: DType, build: impl FnOnce(&mut Builder, [ValueId; 2]) -> ValueId) -> Function {
    let mut f = Builder::new("small", Opset::Ios18);
    let operands = ["x", "y"].map(|name| f.parameter(name, ty(dtype, &[2, 3]), Role::Batch));
    let z = build(&mut f, operands);
    f.output("z", z);
    f.finish()
}

#[test]
fn what_need_not_be_computed_goes() {
    let equal = small(F32, |f, [x, y]| {
        let same = f.scale(x, 1.0).unwrap();
        let (a, b) = (f.add(same, y).unwrap(), f.add(x, y).unwrap());
        f.mul(a, b).unwrap()
    });
    check("simplify", &equal, simplify, EXACT);
    let casts = small(F16, |f, [x, _]| {
        let wide = f.cast(x, F32);
        let narrow = f.cast(wide, F16);
        f.silu(narrow).unwrap()
    });
    check("simplify_casts", &casts, simplify, EXACT);
    let twice = small(F16, |f, [x, _]| {
        let flat = f.reshape(x, &[6]).unwrap();
        let turned = f.reshape(flat, &[3, 2]).unwrap();
        let (a, b) = (f.silu(turned).unwrap(), f.silu(turned).unwrap());
        f.add(a, b).unwrap()
    });
    check("fold_identities", &twice, |f| remove_dead_code(&fold_identities(f)), EXACT);
    let dead = small(F16, |f, [x, _]| {
        f.silu(x).unwrap();
        f.abs(x).unwrap()
    });
    check("remove_dead_code", &dead, remove_dead_code, EXACT);
}

fn norm(shape: &[usize], gradient: bool) -> Function {
    let mut f = Builder::new("norm", Opset::Ios18);
    // The engine table makes states fp16.
    let x = f.parameter("x", ty(F32, shape), Role::State);
    let gain = f.parameter("gain", ty(F32, &shape[shape.len() - 1..]), Role::Param);
    let y = f.rms_norm(x, gain, 1e-5).unwrap();
    f.output("y", y);
    if gradient {
        let weights = f.parameter("weights", ty(F32, shape), Role::State);
        let loss = f.mul(y, weights).unwrap();
        differentiate(&mut f, loss, &[("x", x), ("gain", gain)]);
    }
    simplify(&f.finish())
}

/// A few dozen roundings of fp32.
const FULL: Tolerance = Tolerance { atol: 4e-6, rtol: 4e-6 };

#[test]
fn norms_are_scaled() {
    check("scale_norms", &norm(&[2, 4], false), scale_norms, FULL);
    check("scale_norms_gradient", &norm(&[2, 4], true), scale_norms, FULL);
    let f = norm(&[2, 3, 5], true);
    close("rank 3", &f, &scale_norms(&f), &inputs(&f, &mut Random::new(3)), FULL);
}

#[test]
fn scaled_norms_stay_in_the_range_of_fp16() {
    let f = norm(&[4, 64], true);
    let half = mixed(&scale_norms(&f), Precision::Engine);
    let sizes = [30_000.0, 200.0, 1.0, 1e-3];
    let rows = |sizes: [f64; 4], stride: usize| -> Tensor {
        let values: Vec<f64> =
            (0..256).map(|i| sizes[i / 64] * (((i * stride) % 64) as f64 / 32.0 - 1.0)).collect();
        Tensor::from_f64s(F32, &[4, 64], &values).unwrap().cast(F16)
    };
    let ones = Tensor::from_f64s(F32, &[64], &[1.0; 64]).unwrap();
    let given = [("x", rows(sizes, 37)), ("weights", rows([1.0; 4], 11)), ("gain", ones)];
    let given: BTreeMap<String, Tensor> = given.map(|(n, t)| (n.to_string(), t)).into();
    let given = given.into_iter().map(|(n, t)| (n, t.cast(F32))).collect();
    let (exact, found) = (outputs(&f, &given), outputs(&half, &given));
    // About eight roundings of elements below 2.
    Tolerance { atol: 16.0 * HALF_ULP, rtol: 0.0 }.check(&found["y"], &exact["y"]).unwrap();
    for (row, size) in sizes.iter().enumerate() {
        let of_row = |t: &Tensor| -> Tensor {
            Tensor::from_f64s(F32, &[64], &t.to_f64s()[row * 64..(row + 1) * 64]).unwrap()
        };
        let d = difference(&of_row(&found["d_x"]), &of_row(&exact["d_x"])).unwrap();
        // The derivative is as small as the row is large: below 2⁻¹⁴ fp16 has fewer digits.
        assert!(d.norm_rel < 1e-2, "size {size}: {d:?}");
    }
    let plain = outputs(&mixed(&f, Precision::Engine), &given);
    assert!(difference(&plain["y"], &exact["y"]).unwrap().max_abs > 0.5, "unscaled squares overflow");
}

#[test]
fn types_of_the_engine_table() {
    let mut f = Builder::new("typed", Opset::Ios18);
    let x = f.parameter("x", ty(F32, &[2, 4]), Role::Batch);
    let w = f.parameter("w", ty(F32, &[3, 4]), Role::Param);
    let gain = f.parameter("gain", ty(F32, &[4]), Role::Param);
    let scaled = f.mul(x, gain).unwrap();
    let y = f.linear(scaled, w, None).unwrap();
    let square = f.square(y).unwrap();
    let mean = f.reduce(Reduce::Mean, square, &[1], true).unwrap();
    let z = f.sub(y, mean).unwrap();
    let p = f.softmax(z, 1).unwrap();
    f.output("p", p);
    let half = |f: &Function| mixed(f, Precision::Engine);
    check("mixed", &f.finish(), half, Tolerance { atol: 32.0 * HALF_ULP, rtol: 0.0 });
}

/// Cross entropy of rows over a vocabulary, in the types of the engine table.
fn cross_entropy([rows, width, vocabulary]: [usize; 3], gradient: bool) -> Function {
    let mut f = Builder::new("loss", Opset::Ios18);
    let hidden = f.parameter("hidden", ty(F32, &[rows, width]), Role::Batch);
    let head = f.parameter("head", ty(F32, &[vocabulary, width]), Role::Param);
    let targets = f.parameter("targets", ty(DType::I32, &[rows, 1]), Role::Batch);
    let weights = f.parameter("weights", ty(F32, &[rows, 1]), Role::Batch);
    let loss = f.cross_entropy(hidden, head, targets, weights).unwrap();
    f.output("loss", loss);
    if gradient {
        differentiate(&mut f, loss, &[("hidden", hidden), ("head", head)]);
    }
    simplify(&mixed(&simplify(&f.finish()), Precision::Engine))
}

/// Logits up to 16 are off by 2⁻⁷ at most where they are rounded; a row of five weights of 2 sums up to 20.
const LOGITS: Tolerance = Tolerance { atol: 0.05, rtol: 1e-2 };

#[test]
fn heads_are_chunked() {
    let chunked = |f: &Function| chunk_heads(f, 32);
    check("chunk_heads", &cross_entropy([2, 4, 32], false), chunked, LOGITS);
    check("chunk_heads_gradient", &cross_entropy([2, 4, 32], true), chunked, LOGITS);
    check("chunk_heads_in_two", &cross_entropy([2, 4, 40], true), chunked, LOGITS);
    for (sizes, columns) in [([5, 4, 70], 32), ([1, 3, 100], 64), ([3, 1, 31], 32), ([4, 8, 65], 50)] {
        let f = cross_entropy(sizes, true);
        let mut random = Random::new(11);
        let mut given = inputs(&f, &mut random);
        let targets: Vec<i32> = (0..sizes[0]).map(|_| random.below(sizes[2]) as i32).collect();
        given.insert("targets".into(), Tensor::new(&[sizes[0], 1], targets).unwrap());
        let after = chunk_heads(&f, columns);
        let widest = after.operations().iter().filter(|o| matches!(o.op, Op::Linear { .. }));
        let widest = widest.map(|o| after.ty(o.results[0]).shape[1]).max().unwrap();
        assert!(widest <= columns, "{sizes:?}");
        close("chunks", &f, &after, &given, LOGITS);
    }
}

/// How attention is masked.
#[derive(Clone, Copy, Debug)]
enum Mask {
    None,
    Causal,
    RunTime,
    Added,
}

/// Attention of `heads` query heads over half as many key heads, in the types of the engine table.
fn attention([batch, heads, length, width]: [usize; 4], mask: Mask, gradient: bool) -> Function {
    let mut f = Builder::new("attention", Opset::Ios18);
    let shape = |heads: usize| [batch, heads, length, width];
    let q = f.parameter("q", ty(F32, &shape(heads)), Role::Batch);
    let [k, v] = ["k", "v"].map(|name| f.parameter(name, ty(F32, &shape(heads / 2)), Role::Batch));
    let [wide_k, wide_v] = [k, v].map(|x| {
        let spread = f.reshape(x, &[batch, heads / 2, 1, length, width]).unwrap();
        let copies = f.tile(spread, &[1, 1, 2, 1, 1]).unwrap();
        f.reshape(copies, &shape(heads)).unwrap()
    });
    let square = [1, 1, length, length];
    let mask = match mask {
        Mask::None => None,
        Mask::Causal => {
            let sees: Vec<bool> = (0..length * length).map(|i| i % length <= i / length).collect();
            Some(f.constant("mask", Tensor::new(&square, sees).unwrap()))
        }
        Mask::RunTime => Some(f.parameter("mask", ty(DType::Bool, &square), Role::Batch)),
        // A state is fp16.
        Mask::Added => Some(f.parameter("mask", ty(F32, &square), Role::State)),
    };
    let out = f.attention(q, wide_k, wide_v, mask).unwrap();
    f.output("out", out);
    if gradient {
        let weights = f.parameter("weights", ty(F32, &shape(heads)), Role::Batch);
        let loss = f.mul(out, weights).unwrap();
        differentiate(&mut f, loss, &[("q", q), ("k", k), ("v", v)]);
    }
    simplify(&mixed(&simplify(&f.finish()), Precision::Engine))
}

/// Inputs of attention: every query sees one key at least.
fn seen(f: &Function, length: usize) -> BTreeMap<String, Tensor> {
    let mut given = inputs(f, &mut Random::new(13));
    if let Some(mask) = given.get_mut("mask").filter(|m| m.dtype() == DType::Bool) {
        let sees: Vec<bool> = (0..length * length).map(|i| i % length == 0 || mask.get(i) != 0.0).collect();
        *mask = Tensor::new(mask.shape(), sees).unwrap();
    }
    given
}

/// Scores up to 12, rounded three times, make probabilities that are off by a part in 64 at most; sums of weighted values
/// below 4 and their gradients have one digit less.
const SCORES: Tolerance = Tolerance { atol: 0.04, rtol: 0.02 };

#[test]
fn attention_is_decomposed() {
    let cases = [
        ("decompose_attention", Mask::Causal, false),
        ("decompose_attention_mask", Mask::RunTime, false),
        ("decompose_attention_gradient", Mask::Causal, true),
    ];
    for (case, mask, gradient) in cases {
        let f = attention([1, 2, 4, 4], mask, gradient);
        golden::check(case, &text(&f, &decompose_attention(&f)));
    }
    for mask in [Mask::None, Mask::Causal, Mask::RunTime, Mask::Added] {
        for sizes in [[1, 2, 4, 4], [2, 4, 5, 6], [1, 2, 1, 3], [3, 2, 33, 2]] {
            let f = attention(sizes, mask, true);
            let after = decompose_attention(&f);
            close("attention", &f, &after, &seen(&f, sizes[2]), SCORES);
            let left = after.operations().iter().filter(|o| {
                let is_whole = matches!(o.op, Op::ScaledDotProductAttention { .. });
                let is_wide = matches!(o.op, Op::Softmax { .. }) && after.ty(o.results[0]).dtype == F32;
                is_whole || is_wide
            });
            assert_eq!(left.count(), 0, "{mask:?} {sizes:?}: forward and backward are the engine's");
        }
    }
}

#[test]
fn a_score_that_is_replaced_by_a_number_which_counts_is_left_alone() {
    let hidden = attention([1, 2, 4, 4], Mask::RunTime, true);
    let mut rewriter = Rewriter::new(&hidden);
    rewriter.copy_parameters();
    for operation in hidden.operations() {
        if let Op::Select { cond, a, .. } = operation.op {
            let (cond, a) = (rewriter.get(cond), rewriter.get(a));
            let b = rewriter.builder.scalar(F16, -1.0);
            rewriter.replace(operation, Op::Select { cond, a, b });
        } else {
            rewriter.copy(operation);
        }
    }
    let f = rewriter.finish();
    assert!(matches!(regions(&f)[..], [Region { what: Recognised::AttentionGradient { .. }, .. }]));
    close("masked", &f, &decompose_attention(&f), &seen(&f, 4), SCORES);
}

#[test]
fn contractions_are_padded_with_zeros() {
    let mut f = Builder::new("padded", Opset::Ios18);
    let x = f.parameter("x", ty(F16, &[2, 5]), Role::Batch);
    let w = f.parameter("w", ty(F16, &[3, 5]), Role::Param);
    let y = f.linear(x, w, None).unwrap();
    let z = f.matmul(x, y, true, false).unwrap();
    let again = f.matmul(x, w, false, true).unwrap();
    for (name, v) in [("y", y), ("z", z), ("again", again)] {
        f.output(name, v);
    }
    check("pad_contractions", &f.finish(), |f| pad_contractions(f, 4), EXACT);
}

/// How far a pass may take the results of random programs.
fn within(pass: &str, found: &Tensor, expected: &Tensor) -> bool {
    let d = difference(found, expected).unwrap();
    let overflows = expected.to_f64s().iter().any(|x| x.abs() > 60_000.0);
    match pass {
        "mixed" => d.norm_rel < 5e-2 || d.max_abs < 2e-2 || overflows,
        "scale_norms" => d.norm_rel < 1e-5 || d.max_abs < 1e-5,
        // The order of scattered sums.
        "simplify" => d.norm_rel < 1e-3 || d.max_abs < 1e-3,
        _ => d.max_abs == 0.0,
    }
}

#[test]
fn each_pass_keeps_the_results_of_random_programs() {
    let chip = Chip::named("m4").unwrap();
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut f = match seed % 2 {
            0 => program(&mut random, 14),
            _ => shaped_program(&mut random, 24, F32),
        };
        let given = inputs(&f, &mut random);
        for pass in ENGINE_PASSES {
            let after = (pass.run)(&f, chip);
            verify(&after, Strictness::Open).unwrap();
            let (expected, found) = (outputs(&f, &given), outputs(&after, &given));
            for (name, value) in &expected {
                let d = difference(&found[name], value).unwrap();
                assert!(within(pass.name, &found[name], value), "seed {seed}, {}: {name}: {d:?}", pass.name);
            }
            assert_eq!(f.aliases(), after.aliases());
            f = after;
        }
        assert_eq!(remove_dead_code(&f), f);
    }
}

const PAGE: &str = include_str!("../../../../docs/compiler.md");

#[test]
fn the_page_names_every_pass_in_order() {
    let headings: Vec<&str> = PAGE.lines().filter(|l| l.starts_with("### ")).collect();
    let passes = ENGINE_PASSES.iter().map(|p| p.name).chain(["lay_out", "partition"]);
    let expected: Vec<String> = passes.enumerate().map(|(n, p)| format!("### {}. `{p}`", n + 1)).collect();
    assert_eq!(headings, expected);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let said = words(PAGE);
    for pass in ENGINE_PASSES {
        assert!(
            said.contains(&words(pass.why)),
            "docs/compiler.md does not say of {}: {}",
            pass.name,
            pass.why
        );
    }
}

#[test]
fn the_page_quotes_the_cases() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut quoted = 0;
    for block in PAGE.split("```text ").skip(1) {
        let (case, rest) = block.split_once('\n').unwrap();
        let text = std::fs::read_to_string(cases.join(format!("{case}.txt"))).unwrap();
        let mut lines = text.lines();
        for line in rest.split("```").next().unwrap().lines() {
            assert!(
                lines.any(|l| l == line),
                "{case}.txt has no line, or not after those before it:\n{line}"
            );
            quoted += 1;
        }
    }
    assert!(quoted > 50, "{quoted} lines are quoted");
}
