use arcane_compile::{PASSES, Pass, common_subexpressions, fold_identities, scatter_into, simplify};
use arcane_mil::{
    Builder, Function, Op, Opset, Role, ScatterMode, Strictness, TensorType, Unary, ValueId, verify,
};
use arcane_tensor::{DType, Tensor, Tolerance};

use crate::random::{Random, inputs, outputs, program};

/// A function with parameters `a` and `b` of `[2, 3]`, and one output.
fn function(build: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) -> Function {
    let mut f = Builder::new("f", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[2, 3]);
    let a = f.parameter("a", ty.clone(), Role::Batch);
    let b = f.parameter("b", ty, Role::Batch);
    let out = build(&mut f, a, b);
    f.output("out", out);
    f.finish()
}

/// The names of the ops that are needed, in order.
fn ops(f: &Function) -> Vec<&'static str> {
    let live = arcane_mil::remove_dead_code(f);
    live.operations().iter().map(|o| o.op.name()).collect()
}

fn check(pass: Pass, f: &Function, expected: &[&str]) {
    assert_eq!(ops(&pass(f)), expected);
}

/// Bits of every output, so that zeros of both signs and NaN are told apart.
fn bits(f: &Function, seed: u64) -> Vec<(String, Vec<u8>)> {
    let found = outputs(f, &inputs(f, &mut Random::new(seed)));
    found.into_iter().map(|(name, t)| (name, t.bytes().to_vec())).collect()
}

#[test]
fn neutral_operands_are_left_out() {
    check(
        fold_identities,
        &function(|f, a, b| {
            let one = f.scalar(DType::F32, 1.0);
            let zero = f.scalar(DType::F32, 0.0);
            let ones = f.fill(DType::F32, &[3], 1.0);
            let a = f.mul(a, one).unwrap();
            let a = f.real_div(a, one).unwrap();
            let a = f.mul(ones, a).unwrap();
            let a = f.sub(a, zero).unwrap();
            let a = f.identity(a);
            f.add(a, b).unwrap()
        }),
        &["add"],
    );
}

#[test]
fn operands_that_change_bits_or_shapes_stay() {
    let zero_added = |f: &mut Builder, a| {
        let zero = f.scalar(DType::F32, 0.0);
        f.add(a, zero).unwrap()
    };
    check(fold_identities, &function(|f, a, _| zero_added(f, a)), &["const", "add"]);
    let negative_zero_subtracted = |f: &mut Builder, a| {
        let zero = f.scalar(DType::F32, -0.0);
        f.sub(a, zero).unwrap()
    };
    check(fold_identities, &function(|f, a, _| negative_zero_subtracted(f, a)), &["const", "sub"]);
    let divided = |f: &mut Builder, a| {
        let one = f.scalar(DType::F32, 1.0);
        f.real_div(one, a).unwrap()
    };
    check(fold_identities, &function(|f, a, _| divided(f, a)), &["const", "real_div"]);
    let broadcast = |f: &mut Builder, a| {
        let ones = f.fill(DType::F32, &[4, 1, 1], 1.0);
        f.mul(a, ones).unwrap()
    };
    check(fold_identities, &function(|f, a, _| broadcast(f, a)), &["fill", "mul"]);
}

#[test]
fn casts_that_lose_nothing_are_left_out() {
    use DType::{Bf16, Bool, F16, F32, F64, I32, U8};
    let casts = |through: &[DType]| function(|f, a, _| through.iter().fold(a, |a, &dtype| f.cast(a, dtype)));
    // Narrowed and widened again: the first cast rounds, the others do not.
    check(fold_identities, &casts(&[F16, F32, F64, F16]), &["cast"]);
    check(fold_identities, &casts(&[F64, F32]), &["identity"]);
    check(fold_identities, &casts(&[F16, F32]), &["cast", "cast"]);
    check(fold_identities, &casts(&[Bf16, F16]), &["cast", "cast"]);
    check(fold_identities, &casts(&[U8, I32, F64, F16]), &["cast", "cast"]);
    check(fold_identities, &casts(&[I32, F32]), &["cast", "cast"]);
    check(fold_identities, &casts(&[I32, F32, F64]), &["cast", "cast", "cast"]);
    check(fold_identities, &casts(&[Bool, I32, F32]), &["cast", "cast"]);
}

#[test]
fn movements_of_movements_are_one() {
    check(
        fold_identities,
        &function(|f, a, _| {
            let a = f.reshape(a, &[6]).unwrap();
            let a = f.reshape(a, &[3, 2]).unwrap();
            let a = f.reshape(a, &[1, 3, 2]).unwrap();
            let a = f.transpose(a, &[2, 0, 1]).unwrap();
            f.transpose(a, &[2, 0, 1]).unwrap()
        }),
        &["reshape", "transpose"],
    );
    check(
        fold_identities,
        &function(|f, a, _| {
            let a = f.reshape(a, &[1, 2, 3]).unwrap();
            let a = f.transpose(a, &[1, 2, 0]).unwrap();
            let a = f.transpose(a, &[2, 0, 1]).unwrap();
            let a = f.reshape(a, &[2, 3]).unwrap();
            let a = f.tile(a, &[1, 1]).unwrap();
            let a = f.split(a, 0, &[2]).unwrap()[0];
            let a = f.concat(&[a], 1).unwrap();
            f.abs(a).unwrap()
        }),
        &["abs"],
    );
}

#[test]
fn an_output_that_is_a_parameter_is_copied() {
    let f = function(|f, a, _| f.identity(a));
    check(simplify, &f, &["identity"]);
    assert_eq!(bits(&simplify(&f), 0), bits(&f, 0));
}

#[test]
fn equal_ops_are_computed_once() {
    check(
        common_subexpressions,
        &function(|f, a, b| {
            let (x, y) = (f.add(a, b).unwrap(), f.add(b, a).unwrap());
            let (x, y) = (f.split(x, 1, &[1, 2]).unwrap(), f.split(y, 1, &[1, 2]).unwrap());
            let table = |f: &mut Builder| f.constant("t", Tensor::new(&[2], vec![3.0f32, 4.0]).unwrap());
            let (s, t) = (table(f), table(f));
            let (x, y) = (f.mul(x[1], s).unwrap(), f.mul(t, y[1]).unwrap());
            f.concat(&[x, y], 1).unwrap()
        }),
        &["add", "split", "const", "mul", "concat"],
    );
}

#[test]
fn ops_that_only_look_equal_are_both_computed() {
    check(
        common_subexpressions,
        &function(|f, a, b| {
            let (x, y) = (f.sub(a, b).unwrap(), f.sub(b, a).unwrap());
            let (p, n) = (f.fill(DType::F32, &[], 0.0), f.fill(DType::F32, &[], -0.0));
            let (x, y) = (f.mul(x, p).unwrap(), f.mul(y, n).unwrap());
            let (x, y) = (f.rsqrt(x, 1e-5).unwrap(), f.rsqrt(y, 1e-6).unwrap());
            let sum = f.add(x, y).unwrap();
            let other = f.rsqrt(sum, 1e-5).unwrap();
            f.minimum(sum, other).unwrap()
        }),
        &["sub", "sub", "fill", "fill", "mul", "mul", "rsqrt", "rsqrt", "add", "rsqrt", "minimum"],
    );
}

/// `out = a + scatter_add(fill, i, u)`, with the scatter's other use if there is one.
fn scattered(fill: f64, mode: ScatterMode, other_use: bool) -> Function {
    function(|f, a, b| {
        let i = f.parameter("i", TensorType::new(DType::I32, &[2]), Role::Batch);
        let zeros = f.fill(DType::F32, &[2, 3], fill);
        let op = Op::Scatter { data: zeros, indices: i, updates: b, axis: 0, mode };
        let scattered = f.push_one(op).unwrap();
        let sum = f.add(a, scattered).unwrap();
        if other_use { f.mul(sum, scattered).unwrap() } else { sum }
    })
}

#[test]
fn a_sum_with_scattered_zeros_scatters_into_the_sum() {
    let f = scattered(0.0, ScatterMode::Add, false);
    check(scatter_into, &f, &["scatter"]);
    let (into, given) = (scatter_into(&f), inputs(&f, &mut Random::new(3)));
    let close = Tolerance { atol: 1e-6, rtol: 0.0 };
    close.check(&outputs(&into, &given)["out"], &outputs(&f, &given)["out"]).unwrap();
    check(scatter_into, &scattered(1.0, ScatterMode::Add, false), &["fill", "scatter", "add"]);
    check(scatter_into, &scattered(0.0, ScatterMode::Update, false), &["fill", "scatter", "add"]);
    check(scatter_into, &scattered(0.0, ScatterMode::Add, true), &["fill", "scatter", "add", "mul"]);
}

#[test]
fn a_sum_of_another_shape_is_not_scattered_into() {
    let f = function(|f, _, b| {
        let i = f.parameter("i", TensorType::new(DType::I32, &[2, 3]), Role::Batch);
        let row = f.parameter("row", TensorType::new(DType::F32, &[3]), Role::Batch);
        let zeros = f.fill(DType::F32, &[2, 3], 0.0);
        let scattered = f.scatter_along_axis_add(zeros, i, b, 1).unwrap();
        f.add(row, scattered).unwrap()
    });
    check(scatter_into, &f, &["fill", "scatter_along_axis", "add"]);
}

#[test]
fn the_interface_stays() {
    let mut f = Builder::new("step", Opset::Ios17);
    let ty = TensorType::new(DType::F32, &[2]);
    let g = f.parameter("g", ty.clone(), Role::Batch);
    let sum = f.parameter("sum", ty, Role::Accumulator);
    let new = f.add(sum, g).unwrap();
    let same = f.add(g, sum).unwrap();
    f.output("new", new);
    f.output("same", same);
    f.alias("new", "sum");
    let f = f.finish();
    let simple = simplify(&f);
    assert_eq!((simple.name(), simple.opset()), ("step", Opset::Ios17));
    assert_eq!((simple.parameters().len(), simple.aliases()), (2, f.aliases()));
    assert_eq!(ops(&simple), ["add", "identity"]);
}

#[test]
fn random_programs_keep_their_bits_but_for_the_order_of_scattered_sums() {
    let exact: [Pass; 3] = [fold_identities, common_subexpressions, arcane_mil::remove_dead_code];
    let close = Tolerance { atol: 1e-5, rtol: 1e-5 };
    for seed in 0..60 {
        let f = program(&mut Random::new(seed), 30);
        for pass in exact {
            assert_eq!(bits(&pass(&f), seed), bits(&f, seed), "seed {seed}");
        }
        let given = inputs(&f, &mut Random::new(seed));
        let (into, before) = (outputs(&scatter_into(&f), &given), outputs(&f, &given));
        for (name, value) in &before {
            close.check(&into[name], value).unwrap_or_else(|e| panic!("seed {seed}, {name}: {e}"));
        }
    }
}

#[test]
fn a_second_run_finds_nothing_more() {
    for seed in 0..60 {
        let f = program(&mut Random::new(seed), 30);
        let once = simplify(&f);
        assert!(once.operations().len() < f.operations().len());
        verify(&once, Strictness::Open).unwrap();
        for (name, pass) in PASSES {
            let again = pass(&once);
            assert_eq!(again.operations().len(), once.operations().len(), "seed {seed}: {name}");
        }
    }
}

#[test]
fn a_large_constant_is_shared_by_identity_only() {
    let table = std::sync::Arc::new(Tensor::zeros(DType::F32, &[1 << 15]));
    let f = function(|f, a, _| {
        let mut copies = Vec::new();
        for t in [table.clone(), table.clone(), std::sync::Arc::new((*table).clone())] {
            let t = f.push_one(Op::Const(t)).unwrap();
            copies.push(f.unary(Unary::Abs, t).unwrap());
        }
        let all = f.concat(&copies, 0).unwrap();
        let sum = f.reduce_all(arcane_mil::Reduce::Sum, all).unwrap();
        f.add(a, sum).unwrap()
    });
    check(common_subexpressions, &f, &["const", "abs", "const", "abs", "concat", "reduce_sum", "add"]);
}
