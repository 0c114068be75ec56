use arcane_compile::{Compute, FP16_TABLE, OpClass, Precision, mixed, simplify};
use arcane_mil::{
    Builder, Compare, Function, Op, Opset, Reduce, Role, Strictness, TensorType, Unary, ValueId, verify,
};
use arcane_tensor::{DType, Tensor, difference};

use crate::random::{Random, inputs, outputs, program};

/// A function of an fp32 batch `x` and a weight `w` of `[4, 4]` and a gain `g` of `[4]`, and the fp16 program of it.
fn mix(build: impl FnOnce(&mut Builder, [ValueId; 3]) -> ValueId) -> Function {
    let mut f = Builder::new("f", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[4, 4]);
    let x = f.parameter("x", ty.clone(), Role::Batch);
    let w = f.parameter("w", ty, Role::Param);
    let g = f.parameter("g", TensorType::new(DType::F32, &[4]), Role::Param);
    let out = build(&mut f, [x, w, g]);
    f.output("out", out);
    mixed(&f.finish(), Precision::Fp16)
}

/// `name:type` of the first result of each op.
fn typed_ops(f: &Function) -> Vec<String> {
    let typed = |o: &arcane_mil::Operation| format!("{}:{}", o.op.name(), f.ty(o.results[0]).dtype);
    f.operations().iter().map(typed).collect()
}

#[test]
fn every_class_has_one_row() {
    let classes = [
        OpClass::Product,
        OpClass::Power,
        OpClass::Reduction,
        OpClass::Scatter,
        OpClass::ElementWise,
        OpClass::Movement,
        OpClass::Constant,
        OpClass::Cast,
    ];
    for class in classes {
        assert_eq!(FP16_TABLE.iter().filter(|(c, _)| *c == class).count(), 1, "{class:?}");
    }
    assert!(FP16_TABLE.contains(&(OpClass::Product, Compute::Half)));
}

#[test]
fn fp32_changes_nothing() {
    let f = program(&mut Random::new(1), 20);
    assert!(mixed(&f, Precision::Fp32) == f);
}

#[test]
fn products_are_fp16_and_what_follows_stays_so_until_it_is_summed() {
    let f = mix(|f, [x, w, g]| {
        let y = f.linear(x, w, Some(g)).unwrap();
        let y = f.silu(y).unwrap();
        let y = f.transpose(y, &[1, 0]).unwrap();
        let y = f.matmul(y, w, false, false).unwrap();
        f.reduce_all(Reduce::Sum, y).unwrap()
    });
    let expected = [
        "cast:fp16", // x
        "cast:fp16", // g
        "linear:fp16",
        "silu:fp16",
        "transpose:fp16",
        "matmul:fp16",
        "cast:fp32",
        "reduce_sum:fp32",
    ];
    assert_eq!(typed_ops(&f), expected);
    let dtype = |name| f.ty(f.parameter(name).unwrap().value).dtype;
    assert_eq!(["x", "w", "g"].map(dtype), [DType::F32, DType::F16, DType::F32]);
}

#[test]
fn a_norm_is_fp32_until_the_next_product() {
    let f = mix(|f, [x, w, g]| {
        let h = f.matmul(x, w, false, false).unwrap();
        let n = f.rms_norm(h, g, 1e-5).unwrap();
        let y = f.matmul(n, w, false, false).unwrap();
        f.add(h, y).unwrap()
    });
    let expected = [
        "cast:fp16",
        "matmul:fp16",
        "cast:fp32", // h, for the square and for the product with the root
        "square:fp32",
        "reduce_mean:fp32",
        "rsqrt:fp32",
        "mul:fp32",
        "mul:fp32",
        "cast:fp16",
        "matmul:fp16",
        "add:fp16",
        "cast:fp32", // the output
    ];
    assert_eq!(typed_ops(&f), expected);
}

#[test]
fn a_value_is_cast_once_for_all_its_uses() {
    let f = mix(|f, [x, w, _]| {
        let a = f.matmul(x, w, false, false).unwrap();
        let b = f.matmul(w, x, false, false).unwrap();
        let (p, q) = (f.softmax(a, 1).unwrap(), f.reduce(Reduce::LogSumExp, a, &[1], true).unwrap());
        let q = f.sub(p, q).unwrap();
        f.add(b, q).unwrap()
    });
    let casts = typed_ops(&f).iter().filter(|o| o.starts_with("cast")).count();
    assert_eq!(casts, 3); // x to fp16, a to fp32, b to fp32
}

#[test]
fn constants_take_the_type_of_their_use_and_fit_it() {
    let f = mix(|f, [x, w, _]| {
        let h = f.matmul(x, w, false, false).unwrap();
        let mask =
            f.constant("mask", Tensor::new(&[2, 2], vec![0.0, -1e9f32, f32::NEG_INFINITY, 3e38]).unwrap());
        let mask = f.tile(mask, &[2, 2]).unwrap();
        let (a, b) = (f.add(h, mask).unwrap(), f.add(x, mask).unwrap());
        let largest = f.scalar(DType::F32, 1e30);
        let c = f.binary(arcane_mil::Binary::Minimum, a, largest).unwrap();
        f.add(b, c).unwrap()
    });
    let constants: Vec<Vec<f64>> = f
        .operations()
        .iter()
        .filter_map(|o| if let Op::Const(t) = &o.op { Some(t.to_f64s()) } else { None })
        .collect();
    let full = [0.0, f64::from(-1e9f32), f64::NEG_INFINITY, f64::from(3e38f32)];
    let half = [0.0, -65504.0, f64::NEG_INFINITY, 65504.0];
    assert_eq!(constants, [&full[..], &half, &[65504.0]]);
    let expected = ["tile:fp32", "tile:fp16", "add:fp16", "add:fp32", "minimum:fp16", "add:fp32"];
    let others: Vec<String> = typed_ops(&f).into_iter().filter(|o| expected.contains(&o.as_str())).collect();
    assert_eq!(others, expected);
}

#[test]
fn a_concat_is_as_wide_as_its_widest_operand() {
    let f = mix(|f, [x, w, _]| {
        let h = f.matmul(x, w, false, false).unwrap();
        let wide = f.concat(&[h, x], 0).unwrap();
        let narrow = f.concat(&[h, w], 0).unwrap();
        f.add(wide, narrow).unwrap()
    });
    let found = typed_ops(&f);
    let expected =
        ["cast:fp16", "matmul:fp16", "cast:fp32", "concat:fp32", "concat:fp16", "cast:fp32", "add:fp32"];
    assert_eq!(found, expected);
}

#[test]
fn integers_and_flags_are_left_alone() {
    let f = mix(|f, [x, w, _]| {
        let h = f.matmul(x, w, false, false).unwrap();
        let zero = f.scalar(DType::F32, 0.0);
        let flags = f.compare(Compare::Less, h, zero).unwrap();
        let counts = f.cast(flags, DType::I32);
        let counts = f.reduce(Reduce::Sum, counts, &[0], false).unwrap();
        let (flags, counts) = (f.cast(flags, DType::F32), f.cast(counts, DType::F32));
        let h = f.mul(h, flags).unwrap();
        f.mul(h, counts).unwrap()
    });
    let expected = [
        "cast:fp16",
        "matmul:fp16",
        "const:fp16",
        "less:bool",
        "cast:int32",
        "reduce_sum:int32",
        "cast:fp16", // flags: exact
        "cast:fp32", // counts: not
        "mul:fp16",
        "cast:fp32",
        "mul:fp32",
    ];
    assert_eq!(typed_ops(&f), expected);
}

#[test]
fn states_that_are_overwritten_keep_their_type() {
    let mut f = Builder::new("f", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[4, 4]);
    let mean = f.parameter("mean", ty.clone(), Role::Param);
    let x = f.parameter("x", ty, Role::Batch);
    let new = f.matmul(mean, x, false, false).unwrap();
    f.output("mean.new", new);
    f.alias("mean.new", "mean");
    let f = mixed(&f.finish(), Precision::Fp16);
    assert_eq!(f.ty(f.parameters()[0].value).dtype, DType::F32);
    assert_eq!(typed_ops(&f), ["cast:fp16", "cast:fp16", "matmul:fp16", "cast:fp32"]);
}

/// Checks the types of a mixed program against the rules, restated here.
fn check_types(f: &Function) {
    let definitions = f.definitions();
    let definition = |v: ValueId| definitions[v.index()].map(|i| &f.operations()[i].op);
    let is_constant = |v: ValueId| matches!(definition(v), Some(Op::Const(_) | Op::Fill { .. }));
    let narrowed = |v: ValueId| {
        matches!(definition(v), Some(Op::Cast { x, .. }) if f.ty(*x).dtype == DType::F32) && !is_constant(v)
    };
    for operation in f.operations() {
        let operands = operation.op.operands();
        let floats: Vec<ValueId> = operands.into_iter().filter(|&v| f.ty(v).dtype.is_float()).collect();
        let all = |dtype| floats.iter().all(|&v| f.ty(v).dtype == dtype);
        let holds = match &operation.op {
            Op::Matmul { .. } | Op::Linear { .. } | Op::ScaledDotProductAttention { .. } => all(DType::F16),
            Op::Reduce { .. } | Op::Softmax { .. } | Op::Scatter { .. } | Op::ScatterAlongAxis { .. } => {
                all(DType::F32)
            }
            Op::Unary { kind: Unary::Square | Unary::Sqrt | Unary::Exp, .. } => all(DType::F32),
            Op::Unary { .. } | Op::Binary { .. } | Op::Compare { .. } | Op::Select { .. } => {
                all(DType::F32) || (all(DType::F16) && !floats.iter().any(|&v| narrowed(v)))
            }
            _ => true,
        };
        assert!(holds, "{:?}", operation.op);
    }
}

#[test]
fn random_programs_get_the_types_of_the_table_and_stay_close() {
    for seed in 0..60 {
        let f = program(&mut Random::new(seed), 12);
        let half = mixed(&f, Precision::Fp16);
        verify(&half, Strictness::Open).unwrap();
        check_types(&half);
        for (o, p) in f.outputs().iter().zip(half.outputs()) {
            assert_eq!((&o.name, f.ty(o.value)), (&p.name, half.ty(p.value)));
        }
        let given = inputs(&f, &mut Random::new(seed));
        let (rounded, exact) = (outputs(&simplify(&half), &given), outputs(&f, &given));
        for (name, value) in &exact {
            let d = difference(&rounded[name], value).unwrap();
            let overflows = value.to_f64s().iter().any(|x| x.abs() > 60_000.0);
            assert!(d.norm_rel < 2e-2 || d.max_abs < 5e-3 || overflows, "seed {seed}, {name}: {d:?}");
        }
    }
}

#[test]
fn a_state_is_fp16_with_the_output_that_overwrites_it() {
    let mut f = Builder::new("f", Opset::Ios18);
    let ty = TensorType::new(DType::F32, &[4, 4]);
    let x = f.parameter("x", TensorType::new(DType::F32, &[1, 4]), Role::Batch);
    let at = f.parameter("at", TensorType::new(DType::I32, &[1]), Role::Batch);
    let state = f.parameter("state", ty.clone(), Role::State);
    let other = f.parameter("other", ty, Role::Moment);
    let new = f.scatter_update(state, at, x, 0).unwrap();
    let out = f.scatter_add(other, at, x, 0).unwrap();
    f.output("new", new);
    f.output("out", out);
    f.alias("new", "state");
    let f = mixed(&f.finish(), Precision::Fp16);
    verify(&f, Strictness::Open).unwrap();
    let dtype = |name: &str| f.ty(f.parameter(name).unwrap().value).dtype;
    assert_eq!(["x", "state", "other"].map(dtype), [DType::F32, DType::F16, DType::F32]);
    assert_eq!(f.outputs().iter().map(|o| f.ty(o.value).dtype).collect::<Vec<_>>(), [DType::F16, DType::F32]);
}
