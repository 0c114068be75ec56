//! Compressed weights and quantisation: values by hand, text, and what is refused.

use arcane_mil::{
    Builder, Constexpr, NoWeights, Op, Opset, Program, Quantization, Strictness, ValueId, evaluate, print,
    read, verify,
};
use arcane_tensor::{DType, Tensor};

use super::golden::prints_family;
use super::reading::{comes_back, text};
use super::refusals::refuses_text;
use super::{NAN, f32s, gives, tensor};

/// What op `body` gives as `y`, of a function without parameters.
#[track_caller]
fn computes(opset: &str, body: &str, expected: &Tensor) {
    let text = text("", body, "y").replace("ios18", opset);
    let program = read(&text, &NoWeights).unwrap_or_else(|e| panic!("{e}"));
    let outputs = evaluate(&program.functions[0], &std::collections::BTreeMap::new()).unwrap();
    super::assert_same(&outputs["y"], expected);
    assert!(verify(&program.functions[0], Strictness::Strict).is_ok());
    comes_back(&print(&program).unwrap());
}

#[test]
fn affine_data_are_scaled_and_shifted_along_an_axis() {
    let data = "tensor<uint8, [2, 3]>([[1, 2, 3], [1, 2, 3]])";
    computes(
        "ios16",
        &format!(
            "tensor<fp32, [2, 3]> y = constexpr_affine_dequantize()[axis = int32(0), quantized_data = {data}, \
            scale = fp32(2), zero_point = uint8(1)];"
        ),
        &f32s(&[2, 3], &[0.0, 2.0, 4.0, 0.0, 2.0, 4.0]),
    );
    computes(
        "ios18",
        &format!(
            "tensor<fp16, [2, 3]> y = constexpr_affine_dequantize()[axis = int32(-1), quantized_data = {data}, \
            scale = tensor<fp16, [3]>([1, 2, 4]), zero_point = tensor<uint8, [3]>([0, 3, 1])];"
        ),
        &tensor(DType::F16, &[2, 3], &[1.0, -2.0, 8.0, 1.0, -2.0, 8.0]),
    );
}

#[test]
fn each_block_has_a_scale_and_an_offset() {
    computes(
        "ios18",
        "tensor<fp16, [1, 2, 4]> y = constexpr_blockwise_shift_scale(data = tensor<int4, [1, 2, 4]>([[[4, 0, -8, 7], \
         [-6, 0, -3, 0]]]), scale = tensor<fp16, [1, 1, 2]>([[[4, 8]]]), offset = tensor<int4, [1, 1, 2]>([[[1, -1]]]));",
        &tensor(DType::F16, &[1, 2, 4], &[12.0, -4.0, -56.0, 64.0, -28.0, -4.0, -16.0, 8.0]),
    );
}

#[test]
fn indices_are_replaced_by_entries() {
    // Two tables over the first axis.
    computes(
        "ios18",
        "tensor<fp32, [4, 1]> y = constexpr_lut_to_dense(indices = tensor<uint1, [4, 1]>([[0], [1], [1], [0]]), \
         lut = tensor<fp32, [2, 1, 2, 1]>([[[[1], [2]]], [[[3], [4]]]]));",
        &f32s(&[4, 1], &[1.0, 2.0, 4.0, 3.0]),
    );
    // Entries of two numbers, one below the other.
    computes(
        "ios18",
        "tensor<int8, [4, 2]> y = constexpr_lut_to_dense(indices = tensor<uint1, [2, 2]>([[0, 1], [1, 1]]), \
         lut = tensor<int8, [1, 1, 2, 2]>([[[[1, 2], [3, 4]]]]), vector_axis = int32(-2));",
        &tensor(DType::I8, &[4, 2], &[1.0, 3.0, 2.0, 4.0, 3.0, 3.0, 4.0, 4.0]),
    );
    // Three indices of two bits in a byte, the first in the lowest bits.
    computes(
        "ios16",
        "tensor<fp32, [3]> y = constexpr_lut_to_dense()[indices = tensor<uint8, [1]>([27]), \
         lut = tensor<fp32, [4]>([1, 2, 3, 4]), shape = tensor<uint32, [1]>([3])];",
        &f32s(&[3], &[4.0, 3.0, 2.0]),
    );
}

#[test]
fn sparse_data_fill_the_ones_of_their_mask() {
    let expected = f32s(&[2, 3], &[3.0, 0.0, 5.0, 0.0, 4.0, 0.0]);
    computes(
        "ios18",
        "tensor<fp32, [2, 3]> y = constexpr_sparse_to_dense(mask = tensor<uint1, [2, 3]>([[1, 0, 1], [0, 1, 0]]), \
         nonzero_data = tensor<fp32, [3]>([3, 5, 4]));",
        &expected,
    );
    computes(
        "ios16",
        "tensor<fp32, [2, 3]> y = constexpr_sparse_to_dense()[mask = tensor<uint8, [1]>([21]), \
         nonzero_data = tensor<fp32, [3]>([3, 5, 4]), shape = tensor<uint32, [2]>([2, 3])];",
        &expected,
    );
    computes(
        "ios18",
        "tensor<uint1, [4]> m, tensor<fp32, [2]> v = constexpr_lut_to_sparse(\
         indices_mask = tensor<uint1, [2]>([0, 1]), indices_nonzero_data = tensor<uint1, [1]>([1]), \
         lut = tensor<fp32, [1, 2, 2]>([[[1, 2], [3, 4]]]), vector_axis = int32(0));\n\
         tensor<fp32, [4]> y = constexpr_sparse_to_dense(mask = m, nonzero_data = v);",
        &f32s(&[4], &[0.0, 0.0, 3.0, 4.0]),
    );
    computes(
        "ios18",
        "tensor<uint1, [1, 4]> m, tensor<fp32, [2]> v = constexpr_sparse_blockwise_shift_scale(\
         data_mask = tensor<uint1, [1, 4]>([[0, 1, 0, 1]]), nonzero_data = tensor<uint4, [2]>([5, 7]), \
         scale = tensor<fp32, [1, 2]>([[2, 10]]), offset = tensor<uint4, [1, 2]>([[1, 2]]));\n\
         tensor<fp32, [1, 4]> y = constexpr_sparse_to_dense(mask = m, nonzero_data = v);",
        &f32s(&[1, 4], &[0.0, 8.0, 0.0, 50.0]),
    );
}

#[test]
fn compressed_weights_are_refused_where_they_do_not_fit() {
    let y = |op: &str| text("tensor<fp16, [2]> x", &format!("tensor<fp32, [2]> y = {op};"), "y");
    refuses_text(
        &y(
            "constexpr_sparse_to_dense(mask = tensor<uint1, [2]>([1, 1]), nonzero_data = tensor<fp32, [1]>([3]))",
        ),
        "4:23: constexpr_sparse_to_dense: the mask has 2 ones, expected 1, one for each nonzero value",
    );
    refuses_text(
        &y("constexpr_cast(output_dtype = string(\"fp32\"), source_val = x)"),
        "4:82: source_val is a run-time value, expected a constant",
    );
    refuses_text(
        &y("constexpr_cast(output_dtype = string(\"fp16\"), source_val = tensor<fp16, [2]>([1, 2]))"),
        "4:53: output_dtype is `fp16`, expected fp32",
    );
    refuses_text(
        &y(
            "constexpr_blockwise_shift_scale(data = tensor<int4, [2]>([8, 0]), scale = tensor<fp32, [1]>([1]))",
        ),
        "4:81: found `8`, expected an integer that int4 holds",
    );
    refuses_text(
        &y(
            "constexpr_blockwise_shift_scale(data = tensor<int4, [2]>([7, 0]), scale = tensor<fp32, [3]>([1, 1, 1]))",
        ),
        "4:23: constexpr_blockwise_shift_scale: scale [3] does not divide the dimensions [2] of data",
    );
    refuses_text(
        &y(
            "constexpr_lut_to_dense(indices = tensor<uint2, [2]>([1, 0]), lut = tensor<fp32, [1, 2, 1]>([[[1], [2]]]))",
        ),
        "4:23: constexpr_lut_to_dense: lut is tensor<fp32, [1, 2, 1]>, 3 dimensions were expected, the last but one of 4, \
         for indices uint2 [2]",
    );
    refuses_text(
        &y("constexpr_blockwise_shift_scale(data = tensor<int4, [2]>([7, 0]), scale = tensor<fp32, [1]>([1]))")
            .replace("ios18", "ios17"),
        "4:23: constexpr_blockwise_shift_scale: the function is ios17, expected ios18 or later",
    );
    refuses_text(
        &text("tensor<int4, [2]> x", "tensor<int4, [2]> y = identity(x = x);", "y"),
        "3:18: the parameter `x` is tensor<int4, [2]>, expected a type of a byte or more",
    );
    let outside = text(
        "",
        "tensor<uint4, [2]> y = constexpr_sparse_to_dense(mask = tensor<uint1, [2]>([1, 0]), \
         nonzero_data = tensor<uint4, [1]>([3]));",
        "y",
    );
    let error = read(&outside, &NoWeights).unwrap_err().to_string();
    assert!(error.contains("the output `y` is tensor<uint4, [2]>"), "{error}");
}

#[test]
fn quantize_rounds_to_even_and_clips() {
    let quantize = |dtype, axis| {
        move |f: &mut Builder, v: &[ValueId]| {
            let q =
                Quantization::Quantize { x: v[0], scale: v[1], zero_point: v.get(2).copied(), axis, dtype };
            f.push_one(Op::Quantization(q))
        }
    };
    let one = f32s(&[], &[1.0]);
    let x = f32s(&[5], &[0.5, 1.5, 2.5, -300.0, NAN]);
    gives(
        &[x, one.clone()],
        quantize(DType::I8, None),
        &tensor(DType::I8, &[5], &[0.0, 2.0, 2.0, -128.0, 0.0]),
    );
    let zero = tensor(DType::U8, &[], &[3.0]);
    let x = f32s(&[3], &[0.5, 1.5, -3.0]);
    gives(&[x, one, zero], quantize(DType::U8, None), &tensor(DType::U8, &[3], &[3.0, 5.0, 0.0]));
    let x = f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let scale = f32s(&[2], &[1.0, 0.5]);
    gives(&[x, scale], quantize(DType::I8, Some(1)), &tensor(DType::I8, &[2, 2], &[1.0, 4.0, 3.0, 8.0]));
    let x = tensor(DType::I8, &[2], &[-128.0, 127.0]);
    let scale = tensor(DType::F16, &[2], &[0.5, 2.0]);
    let zero = tensor(DType::I8, &[2], &[127.0, -128.0]);
    let dequantize = |f: &mut Builder, v: &[ValueId]| {
        let q = Quantization::Dequantize { x: v[0], scale: v[1], zero_point: Some(v[2]), axis: Some(0) };
        f.push_one(Op::Quantization(q))
    };
    gives(&[x, scale, zero], dequantize, &tensor(DType::F16, &[2], &[-127.5, 510.0]));
}

#[test]
fn quantisation_in_text_is_checked() {
    let y = |arguments: &str| {
        text("tensor<fp16, [2]> x", &format!("tensor<int8, [2]> y = quantize(input = x, {arguments});"), "y")
    };
    let to = "output_dtype = string(\"int8\")";
    refuses_text(
        &y(&format!("{to}, scale = fp16(1), axis = int32(0)")),
        "4:98: axis is given and scale is one number, expected no axis",
    );
    refuses_text(
        &y(&format!("{to}, scale = tensor<fp16, [2]>([1, 2])")),
        "4:23: quantize: scale is a vector and there is no axis, expected an axis",
    );
    refuses_text(
        &y(&format!("{to}, scale = fp16(0)")),
        "4:23: quantize: scale is 0, expected another number",
    );
    refuses_text(
        &y(&format!("{to}, scale = fp16(1), zero_point = uint8(1)")),
        "4:23: quantize: zero_point is uint8, int8 was expected",
    );
}

/// A weight of each kind; the named ones have only constants as operands.
fn weights(f: &mut Builder) -> Result<Vec<ValueId>, arcane_mil::BuildError> {
    let mut constant = |name: &str, dtype, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|i| (i % 2) as f64).collect();
        f.constant(name, tensor(dtype, shape, &values))
    };
    let (data, zero) = (constant("data", DType::I8, &[2, 6]), constant("zero", DType::I8, &[2]));
    let (scale, half) = (constant("scale", DType::F16, &[2]), constant("half", DType::F16, &[12]));
    let (packed, lut) = (constant("packed", DType::U8, &[2]), constant("lut", DType::F16, &[2]));
    let (mask, values) = (constant("bits", DType::U8, &[2]), constant("values", DType::F16, &[1]));
    let four = constant("four", DType::I4, &[2, 12]);
    let scales = constant("scales", DType::F16, &[1, 3]);
    let (indices, table) =
        (constant("indices", DType::U1, &[2, 3]), constant("table", DType::F16, &[1, 3, 2, 2]));
    let (ones, sparse) = (constant("ones", DType::U1, &[3, 4]), constant("sparse", DType::U2, &[6]));
    let tables = constant("tables", DType::I8, &[3, 1, 4, 1]);
    let by_row = constant("by_row", DType::F16, &[3, 1]);
    let mut push = |op| f.push(Op::Constexpr(op));
    let mut found = push(Constexpr::AffineDequantize { data, zero_point: zero, scale, axis: 0 })?;
    found.extend(push(Constexpr::Cast { source: half })?);
    found.extend(push(Constexpr::PackedLutToDense { indices: packed, lut, shape: vec![3, 5] })?);
    found.extend(push(Constexpr::PackedSparseToDense { data: values, mask, shape: vec![2, 5] })?);
    found.extend(push(Constexpr::BlockwiseShiftScale { data: four, scale: scales, offset: None })?);
    found.extend(push(Constexpr::LutToDense { indices, lut: table, vector_axis: Some(1) })?);
    let looked_up =
        push(Constexpr::LutToSparse { mask: ones, indices: sparse, lut: tables, vector_axis: None })?;
    let (mask, data) = (looked_up[0], looked_up[1]);
    let scaled = push(Constexpr::SparseBlockwiseShiftScale { mask, data, scale: by_row, offset: None })?;
    found.extend(push(Constexpr::SparseToDense { data: scaled[1], mask: scaled[0] })?);
    Ok(found)
}

#[test]
fn their_text_is_canonical() {
    prints_family("compressed", |f, x| {
        let mut outputs = weights(f)?;
        let scale = f.constant("step", tensor(DType::F16, &[], &[0.5]));
        let zero_point = Some(f.constant("zero", tensor(DType::U8, &[], &[7.0])));
        let q = Quantization::Quantize { x, scale, zero_point, axis: None, dtype: DType::U8 };
        let quantized = f.push_one(Op::Quantization(q))?;
        let back = Quantization::Dequantize { x: quantized, scale, zero_point: None, axis: None };
        outputs.extend([quantized, f.push_one(Op::Quantization(back))?]);
        Ok(outputs)
    });
}

#[test]
fn a_constant_that_others_read_too_stands_by_itself() {
    let mut f = Builder::new("main", Opset::Ios18);
    let shared = f.constant("shared", tensor(DType::F16, &[2], &[1.0, 2.0]));
    let wide = f.push_one(Op::Constexpr(Constexpr::Cast { source: shared })).unwrap();
    let copy = f.identity(shared);
    f.output("wide", wide);
    f.output("copy", copy);
    let emitted = print(&Program::new(vec![f.finish()])).unwrap();
    assert!(emitted.text.contains("shared = const()"), "{}", emitted.text);
    assert!(emitted.text.contains("source_val = tensor<fp16, [2]>([0x1p+0, 0x1p+1])"), "{}", emitted.text);
    comes_back(&emitted);
}
