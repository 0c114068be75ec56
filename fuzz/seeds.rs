//! Writes the seeds of the corpora: small valid files, made by the project's own writers.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --bin seeds`. Inputs that once failed stand beside them as `found-*`.

use std::fs;
use std::io;
use std::path::Path;

use arcane_mil::{BlobWriter, NoWeights, print_package, read};
use arcane_models::{
    Llama2cVersion, LlamaConfig, Source, initialize, preset, save, write_gguf, write_llama2c,
};
use arcane_tensor::{DType, Encoding, GgufEntry, GgufValue, Tensor, write_safetensors};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn main() -> Result {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in ["mil_text", "mlpackage", "random_program", "blob", "safetensors", "gguf", "llama2c_bin", "tokenizer_bin"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    for case in ["constants.mil", "names.mil", "two_functions.mil"] {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/mil/tests/cases");
        fs::copy(cases.join(case), corpus.join("mil_text").join(case))?;
    }
    packages(&corpus.join("mlpackage"))?;
    random(&corpus.join("random_program"))?;
    arrays(&corpus)?;
    models(&corpus)?;
    tokenizer(&corpus.join("tokenizer_bin"))?;
    Ok(())
}

/// A few ops with constants in place, in one function and in two.
fn packages(folder: &Path) -> Result {
    let f = |name: &str, opset: &str| {
        format!(
            "func {name}<{opset}>(tensor<fp16, [2, 3]> x, tensor<int32, [2]> i) {{\
             tensor<fp16, [2, 3]> w = const()[val = tensor<fp16, [2, 3]>([1, 2, 3, 4, 5, inf])];\
             tensor<fp16, [2, 3]> h = softmax(axis = int32(-1), x = x);\
             tensor<fp16, [2, 6]> k = concat(axis = int32(1), values = (h, w));\
             tensor<fp16, [2, 3]> p, tensor<fp16, [2, 3]> q = split(axis = int32(1), num_splits = int32(2), x = k);\
             tensor<fp32, [2, 3]> r = cast(dtype = string(\"fp32\"), x = p);\
             tensor<fp16, [2, 3]> s = gather(axis = int32(0), indices = i, x = q); }} -> (r, s);"
        )
    };
    for (name, functions) in [("one", f("main", "ios17")), ("two", f("main", "ios18") + &f("other", "ios18"))] {
        let program = read(&format!("program(1.3) {{ {functions} }}"), &NoWeights)?;
        fs::write(folder.join(name), print_package(&program)?.model)?;
    }
    Ok(())
}

/// Bytes of which each picks an op or an operand.
fn random(folder: &Path) -> Result {
    let mut state = 1_u64;
    for i in 0..24 {
        let bytes: Vec<u8> = (0..240)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        fs::write(folder.join(format!("bytes-{i:02}")), bytes)?;
    }
    Ok(())
}

fn arrays(corpus: &Path) -> Result {
    let tensors = [DType::F16, DType::F32, DType::I8, DType::Bool, DType::Bf16]
        .map(|dtype| (dtype.name().to_string(), Tensor::from_f64s(dtype, &[2, 2], &[0.0, 1.0, 1.0, 0.0])));
    let mut blob = BlobWriter::new();
    let mut named = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor?;
        blob.add(&tensor);
        named.push((name, tensor));
    }
    fs::write(corpus.join("blob/arrays"), blob.finish())?;
    let borrowed: Vec<(String, &Tensor)> = named.iter().map(|(name, t)| (name.clone(), t)).collect();
    write_safetensors(&corpus.join("safetensors/arrays"), &borrowed, None)?;

    let encodings =
        [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Q4_0, Encoding::Q4_1, Encoding::Q8_0];
    let entries = encodings.map(|e| GgufEntry { name: e.to_string(), encoding: e, shape: vec![2, 32] });
    let metadata = [
        ("general.architecture".to_string(), GgufValue::String("llama".into())),
        ("tokens".to_string(), GgufValue::Strings(vec!["a".into(), "bc".into()])),
        ("scores".to_string(), GgufValue::F32s(vec![0.0, -1.0])),
        ("kinds".to_string(), GgufValue::I32s(vec![1, 3])),
        ("big".to_string(), GgufValue::U64(1 << 40)),
        ("flag".to_string(), GgufValue::Bool(true)),
    ];
    arcane_tensor::write_gguf(&corpus.join("gguf/encodings"), &metadata, &entries, |i| {
        let bytes = entries[i].encoding.byte_len(&entries[i].shape);
        bytes.map(|n| (0..n).map(|k| k as u8).collect()).ok_or_else(|| io::Error::other("partial blocks"))
    })?;
    Ok(())
}

fn models(corpus: &Path) -> Result {
    let config = LlamaConfig {
        hidden_size: 8,
        intermediate_size: 6,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        vocab_size: 8,
        max_position_embeddings: 4,
        ..preset("stories260k").ok_or("the preset is gone")?
    };
    for (name, tied) in [("tied", true), ("untied", false)] {
        let config = LlamaConfig { tie_word_embeddings: tied, ..config.clone() };
        let tensors = initialize(&config, 1);
        let borrowed: Vec<(String, &Tensor)> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
        let folder = tempfile::tempdir()?;
        save(folder.path(), &config, &borrowed)?;
        fs::copy(folder.path().join("model.safetensors"), corpus.join("safetensors").join(name))?;
        let source = Source::open(folder.path())?;
        for (form, version) in [("0", Llama2cVersion::V0), ("1", Llama2cVersion::V1)] {
            let path = corpus.join("llama2c_bin").join(format!("{name}-{form}"));
            replace(&path, |path| Ok(drop(write_llama2c(&source, path, version)?)))?;
        }
        replace(&corpus.join("gguf").join(name), |path| Ok(drop(write_gguf(&source, path, None)?)))?;
    }
    Ok(())
}

/// The writers of models overwrite nothing.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result) -> Result {
    if path.exists() {
        fs::remove_file(path)?;
    }
    write(path)
}

/// Five pieces after the three special and the 256 byte tokens.
fn tokenizer(folder: &Path) -> Result {
    let mut pieces: Vec<String> = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from).to_vec();
    pieces.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend([" ", "a", "b", " a", "ab"].map(String::from));
    let longest = pieces.iter().map(String::len).max().unwrap_or(0);
    let mut bytes = (longest as u32).to_le_bytes().to_vec();
    for (i, piece) in pieces.iter().enumerate() {
        bytes.extend((259.0 - i as f32).min(0.0).to_le_bytes());
        bytes.extend((piece.len() as u32).to_le_bytes());
        bytes.extend(piece.as_bytes());
    }
    fs::write(folder.join("pieces"), bytes)?;
    Ok(())
}
