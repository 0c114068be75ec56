//! Ill-typed ops and what their errors say.

use arcane_mil::{
    Binary, BuildError, Builder, Compare, Convolution, Logical, Op, Opset, Reduce, Role, ScatterMode,
    TensorType, Unary, ValueId, broadcast,
};
use arcane_tensor::DType;

/// Parameters of the types that the cases need.
struct Values {
    /// fp32 `[2, 3]`
    f: ValueId,
    /// fp32 `[3, 4]`
    g: ValueId,
    /// fp16 `[2, 3]`
    h: ValueId,
    /// int32 `[2, 3]`
    i: ValueId,
    /// bool `[2, 3]`
    b: ValueId,
    /// fp32 `[3]`
    v: ValueId,
    /// int32 `[2]`
    n: ValueId,
    /// fp32, a scalar
    s: ValueId,
    /// fp32 `[1, 2, 3]`
    q: ValueId,
    /// fp32 `[1, 4, 3]`
    k: ValueId,
}

fn values(f: &mut Builder) -> Values {
    let mut declare =
        |name: &str, dtype, shape: &[usize]| f.parameter(name, TensorType::new(dtype, shape), Role::Batch);
    Values {
        f: declare("f", DType::F32, &[2, 3]),
        g: declare("g", DType::F32, &[3, 4]),
        h: declare("h", DType::F16, &[2, 3]),
        i: declare("i", DType::I32, &[2, 3]),
        b: declare("b", DType::Bool, &[2, 3]),
        v: declare("v", DType::F32, &[3]),
        n: declare("n", DType::I32, &[2]),
        s: declare("s", DType::F32, &[]),
        q: declare("q", DType::F32, &[1, 2, 3]),
        k: declare("k", DType::F32, &[1, 4, 3]),
    }
}

#[track_caller]
fn refuses(op: impl FnOnce(&Values) -> Op, fragment: &str) {
    let mut f = Builder::new("main", Opset::Ios18);
    let values = values(&mut f);
    let op = op(&values);
    let name = op.name();
    let before = f.function().clone();
    let error = f.scope("here", |f| f.push(op)).expect_err(fragment);
    let message = error.to_string();
    assert_eq!((error.op, error.path.as_str()), (name, format!("here.{name}").as_str()));
    assert!(message.starts_with(&format!("{name} at `here.{name}`: ")), "{message}");
    assert!(message.contains(fragment), "`{message}` does not say `{fragment}`");
    assert_eq!(*f.function(), before, "a refused op leaves the function as it was");
}

#[test]
fn elementwise_ops_want_one_numeric_dtype() {
    refuses(
        |v| Op::Unary { kind: Unary::Exp, x: v.i },
        "x is tensor<int32, [2, 3]>, a float type was expected",
    );
    for kind in [Unary::Abs, Unary::Sign, Unary::Square] {
        refuses(|v| Op::Unary { kind, x: v.b }, "x is tensor<bool, [2, 3]>, a numeric type was expected");
    }
    for kind in
        [Unary::Sqrt, Unary::Rsqrt { epsilon: 0.0 }, Unary::Log { epsilon: 0.0 }, Unary::Sigmoid, Unary::Silu]
    {
        refuses(|v| Op::Unary { kind, x: v.i }, "a float type was expected");
    }
    refuses(
        |v| Op::Binary { kind: Binary::Add, x: v.f, y: v.h },
        "the operands are tensor<fp32, [2, 3]> and tensor<fp16, [2, 3]>, one dtype was expected",
    );
    refuses(|v| Op::Binary { kind: Binary::Add, x: v.b, y: v.b }, "a numeric type was expected");
    refuses(
        |v| Op::Binary { kind: Binary::Mul, x: v.f, y: v.g },
        "tensor<fp32, [2, 3]> and tensor<fp32, [3, 4]> do not broadcast",
    );
    refuses(|v| Op::Compare { kind: Compare::Less, x: v.b, y: v.b }, "a numeric type was expected");
    refuses(|v| Op::Compare { kind: Compare::Less, x: v.f, y: v.i }, "one dtype was expected");
    refuses(|v| Op::Logical { kind: Logical::And, x: v.f, y: v.b }, "bool was expected");
    refuses(|v| Op::Logical { kind: Logical::Or, x: v.b, y: v.f }, "one dtype was expected");
}

#[test]
fn select_wants_a_condition_and_two_of_a_kind() {
    refuses(|v| Op::Select { cond: v.f, a: v.f, b: v.f }, "cond is tensor<fp32, [2, 3]>, bool was expected");
    refuses(|v| Op::Select { cond: v.b, a: v.f, b: v.h }, "one dtype was expected");
    refuses(|v| Op::Select { cond: v.b, a: v.g, b: v.s }, "does not broadcast");
}

#[test]
fn reductions_want_sorted_axes_in_range() {
    let reduce =
        |x, axes: &[usize]| Op::Reduce { kind: Reduce::Sum, x, axes: axes.to_vec(), keep_dims: false };
    refuses(|v| reduce(v.b, &[0]), "a numeric type was expected");
    refuses(|v| reduce(v.f, &[1, 0]), "axes [1, 0] are not sorted and distinct");
    refuses(|v| reduce(v.f, &[1, 1]), "axes [1, 1] are not sorted and distinct");
    refuses(|v| reduce(v.f, &[2]), "axes [2] are outside the dimensions of tensor<fp32, [2, 3]>");
    refuses(|v| Op::Softmax { x: v.i, axis: 0 }, "a float type was expected");
    refuses(
        |v| Op::Softmax { x: v.f, axis: 2 },
        "axis 2 is outside the 2 dimensions of tensor<fp32, [2, 3]>",
    );
    refuses(|v| Op::Softmax { x: v.s, axis: 0 }, "axis 0 is outside the 0 dimensions of fp32");
}

#[test]
fn products_want_matching_dimensions() {
    let matmul = |x, y, transpose_x, transpose_y| Op::Matmul { x, y, transpose_x, transpose_y };
    refuses(|v| matmul(v.f, v.h, false, true), "one numeric dtype was expected");
    refuses(|v| matmul(v.b, v.b, false, true), "one numeric dtype was expected");
    refuses(|v| matmul(v.f, v.v, false, false), "rank 2 or more was expected");
    refuses(|v| matmul(v.f, v.f, false, false), "do not agree in the contracted dimension (3 and 2)");
    refuses(
        |v| matmul(v.f, v.g, true, false),
        "x tensor<fp32, [2, 3]> transposed and y tensor<fp32, [3, 4]> do not agree",
    );
    let linear = |x, weight, bias| Op::Linear { x, weight, bias };
    refuses(|v| linear(v.s, v.f, None), "x is fp32, rank 1 or more was expected");
    refuses(|v| linear(v.b, v.b, None), "a numeric type was expected");
    refuses(
        |v| linear(v.f, v.g, None),
        "weight is tensor<fp32, [3, 4]>, tensor<fp32, [O, 3]> was expected for x tensor<fp32, [2, 3]>",
    );
    refuses(|v| linear(v.f, v.h, None), "weight is tensor<fp16, [2, 3]>");
    refuses(|v| linear(v.f, v.v, None), "weight is tensor<fp32, [3]>");
    refuses(|v| linear(v.f, v.f, Some(v.v)), "bias is tensor<fp32, [3]>, tensor<fp32, [2]> was expected");
}

#[test]
fn conv_wants_a_kernel_that_fits() {
    let conv = |x, weight, edit: fn(&mut Convolution)| {
        let mut conv = Convolution::pointwise(x, weight, None, 3);
        edit(&mut conv);
        Op::Convolution(conv)
    };
    refuses(|v| conv(v.f, v.k, |_| ()), "rank 3 to 5 was expected");
    refuses(|v| conv(v.k, v.f, |_| ()), "weight is tensor<fp32, [2, 3]>, fp32 of rank 3 was expected");
    refuses(|v| conv(v.k, v.k, |c| c.groups = 2), "2 groups do not divide the 4 channels of x and the 1");
    refuses(|v| conv(v.k, v.k, |c| c.groups = 0), "0 groups do not divide");
    refuses(
        |v| conv(v.k, v.k, |c| c.dilations = vec![2]),
        "the window reaches over 5 elements of spatial dimension 0",
    );
    refuses(|v| conv(v.k, v.k, |c| c.strides = vec![0]), "strides are [0], 1 numbers above 0 were expected");
    refuses(|v| conv(v.k, v.k, |c| c.pad = vec![1]), "pad is [1], 2 numbers were expected");
    refuses(
        |v| conv(v.k, v.k, |c| c.bias = Some(c.x)),
        "bias is tensor<fp32, [1, 4, 3]>, tensor<fp32, [1]> was expected",
    );
}

#[test]
fn attention_wants_equal_batches_and_a_mask_that_fits() {
    let attention =
        |query, key, value, attn_mask| Op::ScaledDotProductAttention { query, key, value, attn_mask };
    refuses(|v| attention(v.i, v.k, v.k, None), "query is tensor<int32, [2, 3]>, a float type was expected");
    refuses(|v| attention(v.f, v.k, v.k, None), "rank 3 or more was expected");
    refuses(|v| attention(v.q, v.f, v.k, None), "equal batch dimensions were expected");
    refuses(|v| attention(v.q, v.k, v.i, None), "one dtype was expected");
    refuses(|v| attention(v.q, v.k, v.q, None), "value tensor<fp32, [1, 2, 3]> has not the length of key");
    refuses(|v| attention(v.q, v.k, v.k, Some(v.i)), "attn_mask is tensor<int32, [2, 3]>, bool or fp32");
    refuses(|v| attention(v.q, v.k, v.k, Some(v.b)), "attn_mask tensor<bool, [2, 3]> does not broadcast");
}

#[test]
fn indexing_ops_want_integer_indices_of_the_right_shape() {
    refuses(|v| Op::Gather { x: v.f, indices: v.v, axis: 0 }, "an integer type was expected");
    refuses(|v| Op::Gather { x: v.f, indices: v.b, axis: 0 }, "an integer type was expected");
    refuses(|v| Op::Gather { x: v.f, indices: v.n, axis: 2 }, "axis 2 is outside");
    refuses(
        |v| Op::GatherAlongAxis { x: v.f, indices: v.n, axis: 0 },
        "indices are tensor<int32, [2]>, the rank of tensor<fp32, [2, 3]> was expected",
    );
    refuses(|v| Op::GatherAlongAxis { x: v.k, indices: v.i, axis: 0 }, "the rank of");
    let scatter = |data, indices, updates, axis| {
        let mode = ScatterMode::Add;
        Op::Scatter { data, indices, updates, axis, mode }
    };
    refuses(|v| scatter(v.b, v.n, v.b, 0), "data is tensor<bool, [2, 3]>, a numeric type was expected");
    refuses(|v| scatter(v.f, v.i, v.f, 0), "indices are tensor<int32, [2, 3]>, rank 1 was expected");
    refuses(
        |v| scatter(v.f, v.n, v.f, 1),
        "updates are tensor<fp32, [2, 3]>, tensor<fp32, [2, 2]> was expected",
    );
    refuses(|v| scatter(v.f, v.n, v.h, 0), "updates are tensor<fp16, [2, 3]>");
    refuses(
        |v| Op::ScatterAlongAxis {
            data: v.f,
            indices: v.i,
            updates: v.v,
            axis: 0,
            mode: ScatterMode::Update,
        },
        "updates are tensor<fp32, [3]>, tensor<fp32, [2, 3]> was expected",
    );
}

#[test]
fn along_axis_indices_stay_inside_the_other_dimensions() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[2, 3]), Role::Batch);
    let wide = f.parameter("wide", TensorType::new(DType::I32, &[2, 9]), Role::Batch);
    let tall = f.parameter("tall", TensorType::new(DType::I32, &[9, 3]), Role::Batch);
    assert!(f.gather_along_axis(x, wide, 1).is_ok());
    assert!(f.gather_along_axis(x, tall, 1).unwrap_err().to_string().contains("reach beyond"));
}

#[test]
fn movement_ops_want_what_fits() {
    refuses(|v| Op::Reshape { x: v.f, shape: vec![4] }, "x tensor<fp32, [2, 3]> has 6 elements");
    refuses(|v| Op::Reshape { x: v.f, shape: vec![usize::MAX, 2] }, "has 6 elements");
    refuses(|v| Op::Transpose { x: v.f, perm: vec![0] }, "perm [0] is no permutation of the 2 dimensions");
    refuses(|v| Op::Transpose { x: v.f, perm: vec![1, 1] }, "perm [1, 1] is no permutation");
    refuses(|_| Op::Concat { values: vec![], axis: 0 }, "values is empty");
    refuses(|v| Op::Concat { values: vec![v.f, v.g], axis: 0 }, "cannot be joined along axis 0");
    refuses(|v| Op::Concat { values: vec![v.f, v.h], axis: 0 }, "cannot be joined along axis 0");
    refuses(|v| Op::Concat { values: vec![v.f, v.v], axis: 0 }, "cannot be joined along axis 0");
    refuses(|v| Op::Concat { values: vec![v.s], axis: 0 }, "axis 0 is outside");
    let split = |x, sizes: &[usize]| Op::Split { x, axis: 1, sizes: sizes.to_vec() };
    refuses(|v| split(v.f, &[1, 1]), "split sizes [1, 1] do not sum to dimension 1 of tensor<fp32, [2, 3]>");
    refuses(|v| split(v.f, &[3, 0]), "must be positive");
    refuses(|v| split(v.f, &[]), "must be positive");
    refuses(|v| split(v.f, &[usize::MAX, 4]), "do not sum to dimension 1");
    refuses(|v| Op::Tile { x: v.f, reps: vec![2] }, "reps [2] do not fit tensor<fp32, [2, 3]>");
    refuses(|v| Op::Tile { x: v.f, reps: vec![2, 0] }, "reps [2, 0] do not fit");
}

#[test]
fn gather_results_have_at_most_five_dimensions() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F32, &[1; 4]), Role::Batch);
    let indices = f.parameter("i", TensorType::new(DType::I32, &[1; 3]), Role::Batch);
    let error: BuildError = f.gather(x, indices, 0).unwrap_err();
    assert!(error.to_string().contains("has more than 5 dimensions"));
}

#[test]
fn shapes_broadcast_as_in_numpy() {
    assert_eq!(broadcast(&[], &[]), Some(vec![]));
    assert_eq!(broadcast(&[2, 1], &[3]), Some(vec![2, 3]));
    assert_eq!(broadcast(&[0], &[1]), Some(vec![0]));
    assert_eq!(broadcast(&[0], &[2]), None);
    assert_eq!(broadcast(&[2, 3], &[2]), None);
}
