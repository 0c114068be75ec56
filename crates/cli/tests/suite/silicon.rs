//! `--numerics`: programs in the Neural Engine's arithmetic.

use std::path::Path;

use arcane_mil::{Binary, Builder, Convolution, Function, Op, Opset, Program, Role, TensorType, print};
use arcane_tensor::{DType, Tensor, read_npz, write_npz};
use serde_json::Value;

use crate::support::{Place, text};

/// Positions of a case; each has to give the value that was read.
const WIDTH: usize = 32;

fn fp16(shape: &[usize], bits: &[u16]) -> Tensor {
    let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    Tensor::from_bytes(DType::F16, shape, &bytes).unwrap()
}

fn halves(numbers: &[f64]) -> Vec<u16> {
    let tensor = Tensor::from_f64s(DType::F16, &[numbers.len()], numbers).unwrap();
    tensor.bytes().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

fn program(build: impl FnOnce(&mut Builder)) -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    build(&mut f);
    f.finish()
}

/// Writes a program and its inputs, runs it with flags, and gives its output and what it said.
fn run(place: &Place, function: Function, inputs: &[(&str, Tensor)], flags: &[&str]) -> (Vec<f64>, String) {
    let emitted = print(&Program::new(vec![function])).unwrap();
    place.write("case.mil", emitted.text.as_bytes());
    std::fs::create_dir_all(place.path("weights")).unwrap();
    place.write("weights/weight.bin", &emitted.weights);
    let arrays: Vec<(String, &Tensor)> = inputs.iter().map(|(name, t)| ((*name).into(), t)).collect();
    write_npz(&place.path("in.npz"), &arrays).unwrap();
    let arguments = ["run", "case.mil", "--inputs", "in.npz", "--outputs", "out.npz", "--threads", "1"];
    let output = place.arcane(&[&arguments[..], flags].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    (read_npz(&place.path("out.npz")).unwrap()[0].1.to_f64s(), text(&output.stderr))
}

const SILICON: [&str; 4] = ["--numerics", "chip", "--chip", "m4"];

/// `x` at every position through a 1x1 convolution with constant weights.
fn convolution(place: &Place, x: &[u16], weights: &[u16], bias: Option<u16>) -> Vec<f64> {
    let channels = x.len();
    let function = program(|f| {
        let input = f.parameter("x", TensorType::new(DType::F16, &[1, channels, 1, WIDTH]), Role::Batch);
        let weight = f.constant("w", fp16(&[1, channels, 1, 1], weights));
        let bias = bias.map(|b| f.constant("b", fp16(&[1], &[b])));
        let conv = Convolution::pointwise(input, weight, bias, 4);
        let y = f.push_one(Op::Convolution(conv)).unwrap();
        f.output("y", y);
    });
    let repeated: Vec<u16> = x.iter().flat_map(|&b| [b; WIDTH]).collect();
    run(place, function, &[("x", fp16(&[1, channels, 1, WIDTH], &repeated))], &SILICON).0
}

/// The same product with weights that come at run time.
fn product(place: &Place, x: &[u16], weights: &[u16]) -> Vec<f64> {
    let k = x.len();
    let function = program(|f| {
        let ty = |shape: &[usize]| TensorType::new(DType::F16, shape);
        let input = f.parameter("a", ty(&[WIDTH, k]), Role::Batch);
        let weight = f.parameter("w", ty(&[k, 1]), Role::Batch);
        let y = f.matmul(input, weight, false, false).unwrap();
        f.output("y", y);
    });
    let rows: Vec<u16> = (0..WIDTH).flat_map(|_| x.iter().copied()).collect();
    run(place, function, &[("a", fp16(&[WIDTH, k], &rows)), ("w", fp16(&[k, 1], weights))], &SILICON).0
}

fn elementwise(place: &Place, kind: Binary, [a, b]: [f64; 2]) -> Vec<f64> {
    let shape = [1, 1, 1, WIDTH];
    let function = program(|f| {
        let [a, b] = ["a", "b"].map(|n| f.parameter(n, TensorType::new(DType::F16, &shape), Role::Batch));
        let y = f.binary(kind, a, b).unwrap();
        f.output("y", y);
    });
    let of = |x: f64| Tensor::from_f64s(DType::F16, &shape, &[x; WIDTH]).unwrap();
    run(place, function, &[("a", of(a)), ("b", of(b))], &SILICON).0
}

#[test]
fn a_program_is_run_in_the_arithmetic_of_a_chip() {
    let place = Place::new();
    assert_eq!(elementwise(&place, Binary::Add, [2048.0, 1.0]), [2050.0; WIDTH]);
    let (x, w) = (halves(&[16384.0, 16384.0, -16384.0]), halves(&[1.0; 3]));
    assert_eq!(convolution(&place, &x, &w, None), [f64::INFINITY; WIDTH]);
    assert_eq!(product(&place, &x, &w), [f64::INFINITY; WIDTH]);
    assert_eq!(convolution(&place, &x, &w, Some(halves(&[-1.0])[0])), [16384.0; WIDTH], "an initial value");
    assert_eq!(product(&place, &halves(&[2f64.powi(-9)]), &halves(&[2f64.powi(-8)])), [0.0; WIDTH]);
}

#[test]
fn what_is_not_modelled_is_listed_and_unknown_arithmetic_refused() {
    let place = Place::new();
    let softmax = program(|f| {
        let x = f.parameter("x", TensorType::new(DType::F16, &[2, 4]), Role::Batch);
        let y = f.softmax(x, 1).unwrap();
        f.output("y", y);
    });
    let inputs = [("x", Tensor::zeros(DType::F16, &[2, 4]))];
    let (y, said) = run(&place, softmax.clone(), &inputs, &SILICON);
    assert_eq!(y, [0.25; 8]);
    assert!(said.contains("no model of softmax;") && said.lines().count() == 1, "{said}");
    let (_, said) = run(&place, softmax, &inputs, &["--numerics", "fp32"]);
    assert_eq!(said, "");
    let flags = ["--numerics", "chip", "--chip", "m1"];
    let output = place
        .arcane(&[&["run", "case.mil", "--inputs", "in.npz", "--outputs", "out.npz"], &flags[..]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the arithmetic of m1 is not known") && said.lines().count() == 1, "{said}");
}

/// fp16 bits of a number of the file; 65536 and more is what infinities and NaN are decoded as.
fn bits(number: &Value) -> u16 {
    let x = number.as_f64().unwrap();
    if (65536.0..=131_008.0).contains(&x.abs()) {
        let bits = 0x7c00 | ((x.abs() - 65536.0) / 64.0) as u16;
        return if x < 0.0 { bits | 0x8000 } else { bits };
    }
    halves(&[x])[0]
}

#[test]
#[ignore = "needs ../shared"]
fn captured_outputs_are_computed_exactly() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/hw-vectors/captured.json");
    let json = std::fs::read_to_string(file).unwrap().replace("Infinity", "1e300");
    let captured: Value = serde_json::from_str(&json).unwrap();
    let place = Place::new();
    let expected = |case: &Value| {
        [Tensor::from_f64s(DType::F16, &[1], &[case["ane"].as_f64().unwrap()]).unwrap().get(0); WIDTH]
    };
    let mut cases = 0;
    for case in captured["mac"].as_array().unwrap() {
        let terms = case["terms"].as_array().unwrap();
        let of = |i: usize| terms.iter().map(|t| bits(&t[i])).collect::<Vec<u16>>();
        let bias = Some(bits(&case["bias"])).filter(|b| *b != 0);
        assert_eq!(convolution(&place, &of(0), &of(1), bias), expected(case), "{case}");
        if bias.is_none() {
            assert_eq!(product(&place, &of(0), &of(1)), expected(case), "{case}");
        }
        cases += 1;
    }
    for case in captured["elementwise"].as_array().unwrap() {
        let kind = match case["op"].as_str().unwrap() {
            "add" => Binary::Add,
            "sub" => Binary::Sub,
            "mul" => Binary::Mul,
            other => panic!("{other}"),
        };
        let operands = ["a", "b"].map(|key| case[key].as_f64().unwrap());
        assert_eq!(elementwise(&place, kind, operands), expected(case), "{case}");
        cases += 1;
    }
    assert!(cases >= 142, "{cases} cases");
}
