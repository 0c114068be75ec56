//! The corpora of the fuzz targets, among them every input that once failed, through the functions of the targets.

use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/checks/files.rs"]
mod files;
#[path = "../../../../fuzz/checks/programs.rs"]
mod programs;
#[path = "../../../../fuzz/checks/tokenizer.rs"]
mod tokenizer;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(std::panic::catch_unwind(|| check(&bytes)).is_ok(), "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is empty");
}

#[test]
fn mil_text() {
    replay("mil_text", files::mil_text);
}

#[test]
fn mlpackage() {
    replay("mlpackage", files::mlpackage);
}

#[test]
fn random_program() {
    replay("random_program", programs::random_program);
}

#[test]
fn blob() {
    replay("blob", files::blob);
}

#[test]
fn safetensors() {
    replay("safetensors", files::safetensors);
}

#[test]
fn gguf() {
    replay("gguf", files::gguf);
}

#[test]
fn llama2c_bin() {
    replay("llama2c_bin", files::llama2c_bin);
}

#[test]
fn tokenizer_bin() {
    replay("tokenizer_bin", tokenizer::tokenizer_bin);
}
