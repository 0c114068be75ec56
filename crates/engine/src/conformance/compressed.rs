//! Compressed weights, quantisation and states.

use std::collections::BTreeMap;

use arcane_mil::{Constexpr, NoWeights, Op, Quantization, read};
use arcane_tensor::{DType, Tensor};

use super::{Case, EXACT, SPREAD, Table, rounding};

const SUB_BYTE: [DType; 6] = [DType::U1, DType::U2, DType::U3, DType::U4, DType::U6, DType::U8];

pub(super) fn compressed(t: &mut Table, dtype: DType) {
    let integers = |dtype, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let (bits, low) =
            (DType::bits(dtype), if matches!(dtype, DType::I4 | DType::I8) { -8.0 } else { 0.0 });
        let values: Vec<f64> = (0..n).map(|i| (i * 37 % 251 % (1 << bits.min(8))) as f64 + low).collect();
        Tensor::from_f64s(dtype, shape, &values).expect("one value an element")
    };
    let floats = |dtype, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|i| (i * 29 % 97) as f64 / 64.0 - 0.7).collect();
        Tensor::from_f64s(dtype, shape, &values).expect("one value an element")
    };
    let mask = |shape: &[usize]| {
        let n: usize = shape.iter().product();
        let bits: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i * 7 % 3 == 1))).collect();
        let ones = bits.iter().filter(|&&b| b == 1.0).count();
        (Tensor::from_f64s(DType::U1, shape, &bits).expect("one bit an element"), ones)
    };
    for data in [DType::I4, DType::U4, DType::I8, DType::U8] {
        t.add(&format!("blocks of {data}"), EXACT, &[], |f, _| {
            let scale = f.constant("scale", floats(dtype, &[3, 1, 2]));
            let offset = Some(f.constant("offset", integers(data, &[3, 1, 2])));
            let dense = f.constant("data", integers(data, &[6, 5, 4]));
            let (bits, ones) = mask(&[6, 5, 4]);
            let (mask, sparse) = (f.constant("mask", bits), f.constant("sparse", integers(data, &[ones])));
            let all = Constexpr::BlockwiseShiftScale { data: dense, scale, offset };
            let some = Constexpr::SparseBlockwiseShiftScale { mask, data: sparse, scale, offset };
            let some = f.push(Op::Constexpr(some))?;
            let spread = Constexpr::SparseToDense { data: some[1], mask: some[0] };
            Ok(vec![f.push_one(Op::Constexpr(all))?, f.push_one(Op::Constexpr(spread))?])
        });
    }
    for indices in SUB_BYTE {
        t.add(&format!("tables of {indices} indices"), EXACT, &[], |f, _| {
            let entries = 1 << indices.bits();
            let dense = f.constant("indices", integers(indices, &[4, 6]));
            let scalar = f.constant("lut", floats(dtype, &[2, 3, entries, 1]));
            let vector = f.constant("vectors", floats(dtype, &[1, 2, entries, 3]));
            let (bits, ones) = mask(&[4, 6]);
            let (mask, sparse) = (f.constant("mask", bits), f.constant("sparse", integers(indices, &[ones])));
            let mut found = Vec::new();
            for (lut, axis) in [(scalar, None), (vector, Some(0)), (vector, Some(1))] {
                let looked_up = Constexpr::LutToDense { indices: dense, lut, vector_axis: axis };
                found.push(f.push_one(Op::Constexpr(looked_up))?);
                let some = Constexpr::LutToSparse { mask, indices: sparse, lut, vector_axis: axis };
                let some = f.push(Op::Constexpr(some))?;
                let spread = Constexpr::SparseToDense { data: some[1], mask: some[0] };
                found.push(f.push_one(Op::Constexpr(spread))?);
            }
            Ok(found)
        });
    }
    t.add("weights of ios16", EXACT, &[], |f, _| {
        let data = f.constant("data", integers(DType::U8, &[4, 6]));
        let (scale, zero_point) =
            (f.constant("scale", floats(dtype, &[6])), f.constant("zero", integers(DType::U8, &[])));
        let affine = Constexpr::AffineDequantize { data, zero_point, scale, axis: 1 };
        let mut found = vec![f.push_one(Op::Constexpr(affine))?];
        for entries in [2usize, 4, 16, 64, 256] {
            let bytes = (15 * entries.ilog2() as usize).div_ceil(8);
            let indices = f.constant("indices", integers(DType::U8, &[bytes]));
            let lut = f.constant("lut", floats(dtype, &[entries]));
            found.push(f.push_one(Op::Constexpr(Constexpr::PackedLutToDense {
                indices,
                lut,
                shape: vec![3, 5],
            }))?);
        }
        // 0b1010_0110, 0b0000_0001: five ones.
        let mask = Tensor::new(&[2], vec![0xA6u8, 0x01]).expect("two bytes");
        let (mask, data) = (f.constant("mask", mask), f.constant("values", floats(dtype, &[5])));
        found.push(f.push_one(Op::Constexpr(Constexpr::PackedSparseToDense {
            data,
            mask,
            shape: vec![3, 5],
        }))?);
        Ok(found)
    });
}

pub(super) fn quantisation(t: &mut Table, dtype: DType) {
    for to in [DType::I8, DType::U8] {
        for axis in [None, Some(0), Some(1)] {
            let shape = axis.map_or(vec![], |a: usize| vec![[5, 7][a]]);
            let parameters = [(dtype, &[5, 7, 3][..], (-30.0, 60.0))];
            t.add(&format!("quantize to {to} along {axis:?}"), EXACT, &parameters, |f, v| {
                let n: usize = shape.iter().product();
                let steps: Vec<f64> = (0..n).map(|i| 0.25 * 2f64.powi(i as i32 % 3)).collect();
                let zeros: Vec<f64> = (0..n).map(|i| 3.0 + i as f64).collect();
                let tensor =
                    |dtype, values: &[f64]| Tensor::from_f64s(dtype, &shape, values).expect("one a slice");
                let scale = f.constant("scale", tensor(dtype, &steps));
                let zero_point = Some(f.constant("zero", tensor(to, &zeros)));
                let quantize = Quantization::Quantize { x: v[0], scale, zero_point, axis, dtype: to };
                let quantized = f.push_one(Op::Quantization(quantize))?;
                let back = Quantization::Dequantize { x: quantized, scale, zero_point, axis };
                let plain = Quantization::Quantize { x: v[0], scale, zero_point: None, axis, dtype: to };
                Ok(vec![quantized, f.push_one(Op::Quantization(back))?, f.push_one(Op::Quantization(plain))?])
            });
        }
    }
}

/// A state that is read, written and read again, and one that is left as it is.
pub(super) fn states(t: &mut Table) {
    let text = "program(1.3) { func main<ios18>(state<tensor<fp16, [2, 3]>> kv, state<tensor<fp16, [3]>> kept, \
        tensor<fp16, [2, 3]> x) {\n\
        tensor<fp16, [2, 3]> old = read_state(input = kv);\n\
        tensor<fp16, [3]> same = read_state(input = kept);\n\
        tensor<fp16, [2, 3]> sum = add(x = old, y = x);\n\
        write_state(data = sum, input = kv);\n\
        tensor<fp16, [2, 3]> again = read_state(input = kv);\n\
        tensor<fp16, [2, 3]> y = mul(x = again, y = same);\n\
        write_state(data = x, input = kv);\n\
        } -> (old, y, again, same); }";
    let program = read(text, &NoWeights).expect("the text is well-formed");
    let f = &program.functions[0];
    let inputs: BTreeMap<String, Tensor> =
        f.parameters().iter().map(|p| (p.name.clone(), t.numbers.tensor(f.ty(p.value), SPREAD))).collect();
    let allowed = rounding(DType::F16);
    t.cases.push(Case { name: "states".into(), program, inputs, allowed });
}
