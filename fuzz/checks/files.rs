//! What each fuzz target does with its bytes: they give an error or a result, never a panic. The tests of `crates/cli` run
//! the corpora through the same functions.

#![allow(dead_code, reason = "each target takes one of these")]

use std::path::Path;

use arcane_mil::{BlobFile, NoWeights, Package, TensorType, check, print, print_package, read};
use arcane_models::Source;
use arcane_tensor::{DType, GgufFile, SafetensorsFile};

/// MIL text. What can be read and printed is read as the same program again.
pub(crate) fn mil_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = check(text, &NoWeights);
    let Ok(program) = read(text, &NoWeights) else { return };
    let Ok(printed) = print(&program) else { return };
    if !printed.weights.is_empty() {
        return;
    }
    let again = match read(&printed.text, &NoWeights) {
        Ok(again) => again,
        Err(e) => panic!("the canonical text is refused: {e}\n{}", printed.text),
    };
    let again = print(&again).expect("what was printed once is printed again");
    assert_eq!(again.text, printed.text);
}

/// The model of a package. What can be read and written is read as the same program again.
pub(crate) fn mlpackage(data: &[u8]) {
    let Ok(package) = Package::decode(Path::new("model.mlmodel"), data) else { return };
    let _ = package.check(&NoWeights);
    let Ok(program) = package.read(&NoWeights) else { return };
    let Ok(written) = print_package(&program) else { return };
    if !written.weights.is_empty() {
        return;
    }
    let again =
        Package::decode(Path::new("again.mlmodel"), &written.model).expect("what was written is a package");
    let again = match again.read(&NoWeights) {
        Ok(again) => again,
        Err(e) => panic!("the package that was written is refused: {e}"),
    };
    let again = print_package(&again).expect("what was written once is written again");
    assert_eq!(again, written);
}

/// A weight file: every array that a record could be.
pub(crate) fn blob(data: &[u8]) {
    with_file("weight.bin", data, |path| {
        let Ok(file) = BlobFile::open(path) else { return };
        for offset in (0..data.len()).step_by(32) {
            let size =
                data.get(offset + 8..offset + 16).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
            for dtype in [DType::F16, DType::F32, DType::I8, DType::Bool] {
                let len = usize::try_from(size).unwrap_or(usize::MAX) / dtype.size();
                let _ = file.tensor(offset as u64, &TensorType::new(dtype, &[len]));
            }
        }
    });
}

/// A safetensors file: the header, then every tensor.
pub(crate) fn safetensors(data: &[u8]) {
    with_file("model.safetensors", data, |path| {
        let Ok(file) = SafetensorsFile::open(path) else { return };
        for name in file.names() {
            if let Ok(tensor) = file.tensor(name) {
                assert_eq!(file.info(name), Some((tensor.dtype(), tensor.shape())));
            }
        }
    });
}

/// A GGUF file: the container, then every tensor, then the model.
pub(crate) fn gguf(data: &[u8]) {
    with_file("model.gguf", data, |path| {
        let Ok(file) = GgufFile::open(path) else { return };
        for tensor in file.tensors().values() {
            let values = tensor.encoding.decode(&data[tensor.range.clone()]);
            assert_eq!(values.len(), tensor.shape.iter().product::<usize>());
        }
        model(path);
    });
}

/// A llama2.c model.
pub(crate) fn llama2c_bin(data: &[u8]) {
    with_file("model.bin", data, model);
}

fn model(path: &Path) {
    let Ok(source) = Source::open(path) else { return };
    for parameter in source.parameters() {
        assert_eq!(parameter.to_f32().shape(), parameter.shape());
    }
    let _ = source.tokenizer_in_file();
}

fn with_file(name: &str, data: &[u8], f: impl FnOnce(&Path)) {
    thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder"));
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("a temporary file");
        f(&path);
    });
}
