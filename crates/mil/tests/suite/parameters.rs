//! Parameters of functions, normalisations and ops along an axis as they are written: defaults, types by opset, refusals.

use arcane_mil::{AlongAxis, Distribution, Gelu, NoWeights, Normalisation, Op, Unary, read};
use arcane_tensor::{DType, round_to};

use super::reading::text;

/// The last op of a function of x: fp16 `[1, 2, 3]`, w: fp32 `[1, 2, 3]`, i: int32 `[2, 3]`, in an opset.
fn last(opset: &str, statement: &str) -> Result<Op, String> {
    let parameters = "tensor<fp16, [1, 2, 3]> x, tensor<fp32, [1, 2, 3]> w, tensor<int32, [2, 3]> i";
    let text = text(parameters, statement, "y").replace("ios18", opset);
    let program = read(&text, &NoWeights).map_err(|e| e.to_string())?;
    Ok(program.functions[0].operations().last().unwrap().op.clone())
}

#[track_caller]
fn gives(opset: &str, statement: &str, expected: impl Fn(&Op) -> bool) {
    let op = last(opset, statement).unwrap_or_else(|e| panic!("{statement}: {e}"));
    assert!(expected(&op), "{op:?}");
}

#[track_caller]
fn refuses(opset: &str, statement: &str, fragment: &str) {
    let error = last(opset, statement).expect_err(statement);
    assert!(error.starts_with("4:") && error.contains(fragment), "{error}");
}

const HALVES: &str = "tensor<fp16, [1, 2, 3]> y";
const INDICES: &str = "tensor<int32, [1, 2, 3]> y";

#[test]
fn numbers_have_the_type_of_x_before_ios17() {
    let leaky = |alpha: &str| format!("{HALVES} = leaky_relu(alpha = {alpha}, x = x);");
    let is_leaky = |op: &Op| matches!(op, Op::Unary { kind: Unary::LeakyRelu { alpha: 0.5 }, .. });
    gives("ios15", &leaky("fp16(0.5)"), is_leaky);
    gives("ios17", &leaky("fp32(0.5)"), is_leaky);
    refuses("ios16", &leaky("fp32(0.5)"), "alpha is fp32, expected fp16");
    refuses("ios18", &leaky("int32(1)"), "alpha is int32, expected fp16 or fp32");
    refuses("ios18", &leaky("tensor<fp16, [2]>([0.5, 1])"), "alpha is tensor<fp16, [2]>");
    refuses("ios18", &leaky("fp16(nan)"), "alpha is nan, expected a number");
    refuses("ios18", &format!("{HALVES} = elu(x = x);"), "the parameter `alpha` is missing");
    // What clips has the type of x in every opset.
    let clip = |beta: &str| format!("{HALVES} = clip(alpha = fp16(0), beta = {beta}, x = x);");
    gives("ios18", &clip("fp16(2)"), |op| {
        matches!(op, Op::Unary { kind: Unary::Clip { alpha: 0.0, beta: 2.0 }, .. })
    });
    refuses("ios18", &clip("fp32(2)"), "beta is fp32, expected fp16");
    gives("ios18", "tensor<int32, [2, 3]> y = threshold(alpha = int32(4), x = i);", |op| {
        matches!(op, Op::Unary { kind: Unary::Threshold { alpha: 4.0 }, .. })
    });
    refuses("ios18", "tensor<int32, [2, 3]> y = threshold(alpha = fp16(4), x = i);", "alpha is fp16");
}

#[test]
fn functions_take_the_types_of_their_definitions() {
    refuses("ios18", "tensor<int32, [2, 3]> y = tanh(x = i);", "x is int32, expected fp16 or fp32");
    refuses("ios18", &format!("{HALVES} = logical_not(x = x);"), "x is fp16, expected bool");
    refuses("ios18", &format!("{HALVES} = pow(x = x, y = w);"), "one dtype was expected");
    refuses("ios18", &format!("{HALVES} = gelu(mode = string(\"exact\"), x = x);"), "mode is `exact`");
    gives("ios18", &format!("{HALVES} = gelu(x = x);"), |op| {
        matches!(op, Op::Unary { kind: Unary::Gelu(Gelu::Exact), .. })
    });
    gives("ios18", "tensor<int32, [2, 3]> y = exp2(x = i);", |op| {
        matches!(op, Op::Unary { kind: Unary::Exp2, .. })
    });
}

#[test]
fn normalisations_have_defaults_of_the_type_of_x() {
    let small = round_to(DType::F16, 1e-5);
    gives("ios15", &format!("{HALVES} = layer_norm(x = x);"), |op| {
        matches!(op, Op::Normalisation(Normalisation::Layer { axes, gamma: None, beta: None, epsilon, .. })
            if *axes == [0, 1, 2] && *epsilon == small)
    });
    gives("ios17", &format!("{HALVES} = instance_norm(epsilon = fp32(1e-12), x = x);"), |op| {
        let exact = f64::from(1e-12f32);
        matches!(op, Op::Normalisation(Normalisation::Instance { epsilon, .. }) if *epsilon == exact)
    });
    gives("ios15", "tensor<fp32, [1, 2, 3]> y = local_response_norm(size = int32(3), x = w);", |op| {
        matches!(op, Op::Normalisation(Normalisation::LocalResponse { size: 3, beta: 0.75, k: 1.0, .. }))
    });
    let batch = |gamma: &str| {
        format!(
            "tensor<fp16, [2]> m = const()[val = tensor<fp16, [2]>([0, 1])]; \
             {HALVES} = batch_norm(gamma = {gamma}, mean = m, variance = m, x = x);"
        )
    };
    gives("ios17", &batch("tensor<fp32, [2]>([1, 2])"), |op| {
        matches!(op, Op::Normalisation(Normalisation::Batch { gamma: Some(_), beta: None, .. }))
    });
    refuses(
        "ios16",
        &batch("tensor<fp32, [2]>([1, 2])"),
        "gamma is tensor<fp32, [2]>, expected fp16, or ios17",
    );
    refuses("ios18", &batch("tensor<fp16, [3]>([1, 2, 3])"), "floats of shape [2] were expected");
    refuses("ios18", &batch("x"), "gamma is a run-time value");
    refuses("ios18", &format!("{HALVES} = instance_norm(epsilon = fp16(inf), x = x);"), "epsilon is inf");
    refuses("ios18", &format!("{HALVES} = local_response_norm(size = int32(0), x = x);"), "size has 0");
    refuses("ios18", "tensor<fp16, [2]> y = l2_norm(x = tensor<fp16, [2]>([1, 2]));", "rank 3 or more");
    refuses("ios18", "tensor<fp16, [2]> y = prelu(alpha = fp16(1), x = x);", "floats of shape [2]");
}

#[test]
fn indices_have_a_type_of_their_own_from_ios17() {
    let extreme = |dtype: &str| {
        format!("tensor<uint16, [1, 2]> y = reduce_argmax(output_dtype = string(\"{dtype}\"), x = x);")
    };
    gives("ios17", &extreme("uint16"), |op| {
        matches!(op, Op::AlongAxis(AlongAxis::Extreme { axis: 2, keep_dims: false, dtype: DType::U16, .. }))
    });
    refuses("ios16", &extreme("uint16"), "has no parameter `output_dtype`");
    refuses("ios17", &extreme("int8"), "output_dtype is `int8`, expected int32 or uint16");
    gives("ios15", &format!("{INDICES} = argsort(x = x);"), |op| {
        matches!(op, Op::AlongAxis(AlongAxis::Argsort { axis: 2, ascending: false, .. }))
    });
    gives("ios15", &format!("{HALVES} = cumsum(x = x);"), |op| {
        matches!(op, Op::AlongAxis(AlongAxis::CumSum { axis: 0, exclusive: false, reverse: false, .. }))
    });
}

#[test]
fn random_numbers_have_the_type_of_their_numbers() {
    let shape = "shape = tensor<int32, [2]>([2, 3])";
    gives("ios15", &format!("tensor<fp32, [2, 3]> y = random_uniform({shape});"), |op| {
        let unit = Distribution::Uniform { low: 0.0, high: 1.0 };
        matches!(op, Op::Random(r) if r.distribution == unit && r.seed == -1 && r.dtype == DType::F32)
    });
    gives(
        "ios18",
        &format!("tensor<fp16, [2, 3]> y = random_normal(stddev = fp16(2), seed = int32(5), {shape});"),
        |op| {
            let normal = Distribution::Normal { mean: 0.0, deviation: 2.0 };
            matches!(op, Op::Random(r) if r.distribution == normal && r.seed == 5 && r.dtype == DType::F16)
        },
    );
    let mixed = format!("tensor<fp16, [2, 3]> y = random_uniform(low = fp16(0), high = fp32(1), {shape});");
    refuses("ios18", &mixed, "high is fp32, expected fp16");
    refuses(
        "ios18",
        &format!("tensor<int32, [2, 3]> y = random_bernoulli(prob = int32(1), {shape});"),
        "prob is int32",
    );
}

#[test]
fn topk_grows_with_the_opsets() {
    let both = "tensor<fp16, [1, 2, 1]> y, tensor<int32, [1, 2, 1]> j = topk(x = x);";
    gives("ios15", both, |op| {
        matches!(
            op,
            Op::AlongAxis(AlongAxis::TopK { k: 1, axis: 2, ascending: false, indices: Some(DType::I32), .. })
        )
    });
    let alone = "tensor<fp16, [1, 2, 1]> y = topk(return_indices = bool(false), sort = bool(false), x = x);";
    gives("ios16", alone, |op| {
        matches!(op, Op::AlongAxis(AlongAxis::TopK { sort: false, indices: None, .. }))
    });
    refuses("ios15", alone, "has no parameter `return_indices`");
    let all = format!(
        "{HALVES}, tensor<uint16, [1, 2, 3]> j = \
        topk(k = int32(-1), output_indices_dtype = string(\"uint16\"), x = x);"
    );
    gives("ios17", &all, |op| {
        matches!(op, Op::AlongAxis(AlongAxis::TopK { k: 3, indices: Some(DType::U16), .. }))
    });
    refuses("ios16", &all, "k has -1");
    refuses("ios18", &format!("{HALVES}, {INDICES}j = topk(k = int32(4), x = x);"), "k is 4, axis 2");
}

#[test]
fn einsum_is_of_one_form() {
    let einsum = |equation: &str| {
        format!(
            "tensor<fp32, [1, 2, 2]> y = einsum(equation = string(\"{equation}\"), values = (w, \
            tensor<fp32, [3, 2, 2]>([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])));"
        )
    };
    gives("ios15", &einsum("chw,whr->chr"), |op| matches!(op, Op::Einsum(_)));
    refuses("ios15", &einsum("chw,whr->crh"), "the equation is \"chw,whr->crh\", one like");
    refuses("ios15", &einsum("nchw,nwhu->nchu"), "rank 4 was expected");
    refuses(
        "ios15",
        "tensor<fp32, [1, 2, 2]> y = einsum(equation = string(\"a\"), values = (w));",
        "1 operands",
    );
}
