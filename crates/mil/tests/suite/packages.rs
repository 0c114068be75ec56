//! Programs in packages: what is written is read as it was, and what is wrong is refused.

use std::fmt::Write;
use std::path::Path;

use arcane_mil::{
    BlobFile, Builder, EmittedPackage, NoWeights, Opset, Package, PackageError, Program, Role, TensorType,
    print, print_package, read, write_package,
};
use arcane_tensor::DType;
use proptest::prelude::*;

use super::reading::text;

/// The program in what was written.
fn program_of(package: &EmittedPackage) -> Result<Program, PackageError> {
    let decoded = Package::decode(Path::new("model.mlmodel"), &package.model)?;
    if package.weights.is_empty() {
        return decoded.read(&NoWeights);
    }
    decoded.read(&BlobFile::from_bytes(Path::new("weight.bin"), package.weights.clone()).unwrap())
}

/// Writes a text's program into a package and reads it back: the same text.
#[track_caller]
pub(super) fn comes_back(program: &Program) -> EmittedPackage {
    let package = print_package(program).unwrap();
    assert_eq!(print_package(program).unwrap(), package, "the same program gives the same bytes");
    let back = program_of(&package).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(print(&back).unwrap(), print(program).unwrap());
    assert_eq!(print_package(&back).unwrap(), package);
    package
}

fn program(parameters: &str, body: &str, outputs: &str) -> Program {
    read(&text(parameters, body, outputs), &NoWeights).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_golden_program_with_core_ml_ports_comes_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = super::reading::without_open_linear(&std::fs::read_to_string(&path).unwrap());
        // Those with weight files come back in the tests of the writer.
        let Ok(program) = read(&text, &NoWeights) else { continue };
        match print_package(&program) {
            Ok(_) => drop(comes_back(&program)),
            Err(e) => {
                assert!(e.to_string().contains("Core ML has no input or output"), "{}: {e}", path.display());
                continue;
            }
        }
        count += 1;
    }
    assert!(count >= 2, "{count}");
}

#[test]
fn constants_of_every_type_come_back() {
    let mut body = String::new();
    for (i, (ty, value)) in [
        ("fp16", "0x1.8p-3"),
        ("fp32", "-0x0p+0"),
        ("bf16", "0x1p+0"),
        ("int8", "-128"),
        ("uint8", "255"),
        ("int16", "-32768"),
        ("uint16", "65535"),
        ("int32", "-7"),
        ("uint32", "4294967295"),
        ("int64", "-9223372036854775808"),
        ("uint64", "18446744073709551615"),
        ("bool", "true"),
    ]
    .iter()
    .enumerate()
    {
        writeln!(body, "{ty} a{i} = const()[val = {ty}({value})];").unwrap();
        let twelve = [*value; 12].join(", ");
        writeln!(body, "tensor<{ty}, [12]> b{i} = const()[val = tensor<{ty}, [12]>([{twelve}])];").unwrap();
    }
    body += "fp16 inf = const()[val = fp16(inf)]; tensor<fp32, [0]> empty = const()[val = tensor<fp32, [0]>([])];";
    body += "tensor<fp16, [2]> y = square(x = x);";
    let package = comes_back(&program("tensor<fp16, [2]> x", &body, "y"));
    assert_eq!(package.weights[0], 9, "those that a weight file holds are there");
}

#[test]
fn several_functions_share_a_weight_file_and_the_default_comes_first() {
    let make = |name: &str, opset| {
        let mut f = Builder::new(name, opset);
        let x = f.parameter("x", TensorType::new(DType::F16, &[1, 16]), Role::Batch);
        let w = f.constant("w", super::iota(&[16]).cast(DType::F16));
        let y = f.mul(x, w).unwrap();
        f.output("y", y);
        f.finish()
    };
    let functions = vec![make("main", Opset::Ios18), make("also", Opset::Ios16)];
    let package = comes_back(&Program::new(functions));
    assert_eq!(package.weights[0], 1);
}

#[test]
fn ports_that_core_ml_does_not_have_are_refused() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::Bool, &[2]), Role::Batch);
    f.output("y", x);
    let error = print_package(&Program::new(vec![f.finish()])).unwrap_err().to_string();
    assert_eq!(
        error,
        "main: parameter `x`: Core ML has no input or output of type tensor<bool, [2]> in ios18"
    );
    let mut f = Builder::new("main", Opset::Ios15);
    let x = f.parameter("x", TensorType::new(DType::F16, &[2]), Role::Batch);
    f.output("y", x);
    let error = print_package(&Program::new(vec![f.finish()])).unwrap_err().to_string();
    assert!(error.ends_with("of type tensor<fp16, [2]> in ios15"), "{error}");
    // A run-time weight of `linear` is for memory only.
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F16, &[2, 2]), Role::Batch);
    let y = f.linear(x, x, None).unwrap();
    f.output("y", y);
    let error = print_package(&Program::new(vec![f.finish()])).unwrap_err().to_string();
    assert!(error.contains("weight is a run-time value"), "{error}");
}

#[test]
fn a_package_is_a_folder_with_a_manifest() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.mlpackage");
    let body = "tensor<fp16, [16]> w = const()[val = tensor<fp16, [16]>(0.5)];\
                tensor<fp16, [2, 16]> y = mul(x = x, y = w);";
    let program = program("tensor<fp16, [2, 16]> x", body, "y");
    assert!(!Package::is_at(&path));
    write_package(&program, &path).unwrap();
    assert!(Package::is_at(&path));
    let package = Package::open(&path).unwrap();
    assert_eq!(package.path(), path.join("Data/com.apple.CoreML/model.mlmodel"));
    let back = package.read(&package.weights()).unwrap();
    assert_eq!(print(&back).unwrap(), print(&program).unwrap());
    assert_eq!(package.check(&NoWeights).unwrap().functions[0].parameters().len(), 2);
    let error = write_package(&program, &path).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");

    let weights = path.join("Data/com.apple.CoreML/weights/weight.bin");
    std::fs::write(&weights, &std::fs::read(&weights).unwrap()[..140]).unwrap();
    let error = package.read(&package.weights()).unwrap_err().to_string();
    assert!(
        error.contains("model.mlmodel: main: operation 1, `const` `w`: ") && error.contains("140"),
        "{error}"
    );
    std::fs::write(package.path(), b"\x08\x09\xa2\x1f\x00").unwrap();
    let error = Package::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("it is a neuralNetwork, an mlProgram was expected"), "{error}");
    std::fs::remove_file(package.path()).unwrap();
    assert!(matches!(Package::open(&path), Err(PackageError::Io { .. })));
    std::fs::write(path.join("Manifest.json"), "{}").unwrap();
    assert!(matches!(Package::open(&path), Err(PackageError::Manifest { .. })));
}

#[test]
fn faults_name_function_and_operation() {
    let good = print_package(&program("tensor<fp16, [2]> x", "tensor<fp16, [2]> yy = square(x = x);", "yy"))
        .unwrap();
    let damaged = |from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = good.model.windows(from.len()).rposition(|w| w == from).unwrap();
        let model = [&good.model[..at], to, &good.model[at + from.len()..]].concat();
        let error = program_of(&EmittedPackage { model, weights: Vec::new() }).unwrap_err();
        error.to_string().replace("model.mlmodel: ", "")
    };
    assert_eq!(
        damaged(b"square", b"sqlare"),
        "main: operation 1, `sqlare` `yy`: unknown op `sqlare`, expected an op of MIL"
    );
    assert_eq!(
        damaged(b"CoreML8", b"CoreML4"),
        "main: there is no block for the opset CoreML8, expected one among [`CoreML4`]"
    );
    // The number of the field of the ML Program, 502, made 500.
    assert!(damaged(b"\xb2\x1f", b"\xa2\x1f").ends_with("it is a neuralNetwork, an mlProgram was expected"));
}

/// A model with most of the messages.
fn sample() -> EmittedPackage {
    let body = "int32 a = const()[name = string(\"a\"), val = int32(-1)];\n\
         tensor<fp16, [2, 6]> w = const()[val = tensor<fp16, [2, 6]>(0.5)];\n\
         tensor<fp16, [2, 3]> h = softmax(axis = a, x = x);\n\
         tensor<fp16, [2, 9]> k = concat(axis = a, values = (h, w));\n\
         tensor<fp16, [2, 4]> p, tensor<fp16, [2, 5]> q = split(axis = a, split_sizes = tensor<int32, [2]>([4, 5]), x = k);\n\
         tensor<fp32, [2, 4]> r = cast(dtype = string(\"fp32\"), x = p);";
    print_package(&program("tensor<fp16, [2, 3]> x, tensor<fp32, [2]> s", body, "q, r")).unwrap()
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let package = sample();
    program_of(&package).unwrap();
    for n in 0..package.model.len() {
        let cut = EmittedPackage { model: package.model[..n].to_vec(), weights: package.weights.clone() };
        assert!(program_of(&cut).is_err(), "{n} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_models_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6)
    ) {
        let mut package = sample();
        for (at, with, how) in &changes {
            let at = at.index(package.model.len());
            match how {
                0 => drop(package.model.remove(at)),
                1 => package.model.insert(at, *with),
                2 => package.model[at] ^= 1 << (with % 8),
                _ => package.model[at] = *with,
            }
        }
        let Ok(program) = program_of(&package) else { return Ok(()) };
        if let Ok(again) = print_package(&program) {
            prop_assert!(program_of(&again).is_ok());
        }
    }
}
