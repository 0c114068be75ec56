//! llama2.c and GGUF files that are damaged or made up: an error that names the file, never a panic or a huge allocation.

use std::fs;
use std::path::PathBuf;

use arcane_models::{Llama2cVersion, LlamaConfig, Source, initialize, save, write_gguf, write_llama2c};
use arcane_tensor::{GgufEntry, GgufValue, Tensor, write_gguf as write_gguf_file};
use tempfile::TempDir;

use crate::tiny;

struct Scratch {
    folder: TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn error(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        let error = Source::open(&path).unwrap_err().to_string();
        let rest = error.strip_prefix(&format!("{}: ", path.display()));
        rest.unwrap_or_else(|| panic!("{error}")).to_string()
    }
}

/// A model in each format: versions 0 and 1 of llama2.c, GGUF.
fn files() -> [Vec<u8>; 3] {
    let scratch = Scratch::new();
    let config = LlamaConfig { head_dim: 4, hidden_size: 16, ..tiny(false) };
    let tensors = initialize(&config, 1);
    let borrowed: Vec<(String, &Tensor)> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
    let folder = scratch.path("model");
    fs::create_dir(&folder).unwrap();
    save(&folder, &config, &borrowed).unwrap();
    let source = Source::open(&folder).unwrap();
    write_llama2c(&source, &scratch.path("0"), Llama2cVersion::V0).unwrap();
    write_llama2c(&source, &scratch.path("1"), Llama2cVersion::V1).unwrap();
    write_gguf(&source, &scratch.path("2"), None).unwrap();
    ["0", "1", "2"].map(|name| fs::read(scratch.path(name)).unwrap())
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let scratch = Scratch::new();
    for (bytes, name) in files().iter().zip(["a.bin", "b.bin", "c.gguf"]) {
        let cuts = (0..300).chain((300..bytes.len()).step_by(97)).chain([bytes.len() - 1]);
        for cut in cuts {
            scratch.error(name, &bytes[..cut]);
        }
    }
}

#[test]
fn headers_of_llama2c_name_the_field() {
    let scratch = Scratch::new();
    let [v0, v1, _] = files();
    let with = |bytes: &[u8], at: usize, value: i32| {
        let mut bytes = bytes.to_vec();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for (bytes, start) in [(&v0, 0), (&v1, 8)] {
        for value in [0, i32::MIN, i32::MAX] {
            let error = scratch.error("a.bin", &with(bytes, start + 8, value));
            let expected = format!("byte {}: n_layers is {value}, 1 to 4096 was expected", start + 8);
            assert!(error.contains(&expected), "{error}");
        }
        let error = scratch.error("a.bin", &with(bytes, start + 12, 3));
        assert!(error.contains("dim is 16 and n_heads is 3"), "{error}");
        let error = scratch.error("a.bin", &with(bytes, start, 1 << 10));
        assert!(error.contains("the file should have"), "{error}");
        let error = scratch.error("a.bin", &[&bytes[..], &[0]].concat());
        assert!(error.contains("the file should have"), "{error}");
    }
    let error = scratch.error("a.bin", &with(&v1, 4, 2));
    assert!(error.contains("byte 4: version 2, 1 or a file without a version was expected"), "{error}");
    let error = scratch.error("a.bin", &with(&v0, 20, i32::MIN));
    assert!(error.contains("vocab_size is -2147483648"), "{error}");
    // The flag of the tied output matrix decides about the length.
    assert!(scratch.error("a.bin", &with(&v0, 20, 32)).contains("the file should have"));
}

/// What opening a GGUF file with changed metadata says.
fn gguf_error(change: impl FnOnce(&mut Vec<(String, GgufValue)>, &mut Vec<GgufEntry>)) -> String {
    let scratch = Scratch::new();
    let [_, _, bytes] = files();
    let path = scratch.path("a.gguf");
    fs::write(&path, bytes).unwrap();
    let file = arcane_tensor::GgufFile::open(&path).unwrap();
    let mut metadata: Vec<_> = file.metadata().clone().into_iter().collect();
    let entry = |(name, t): (&String, &arcane_tensor::GgufTensor)| GgufEntry {
        name: name.clone(),
        encoding: t.encoding,
        shape: t.shape.clone(),
    };
    let mut entries: Vec<GgufEntry> = file.tensors().iter().map(entry).collect();
    change(&mut metadata, &mut entries);
    let path = scratch.path("b.gguf");
    write_gguf_file(&path, &metadata, &entries, |i| {
        Ok(vec![0; entries[i].encoding.byte_len(&entries[i].shape).unwrap()].into())
    })
    .unwrap();
    let error = Source::open(&path).unwrap_err().to_string();
    error.strip_prefix(&format!("{}: ", path.display())).unwrap_or_else(|| panic!("{error}")).to_string()
}

#[test]
fn metadata_that_means_another_model_is_refused_by_key() {
    let set = |key: &'static str, value: GgufValue| {
        gguf_error(move |metadata, _| {
            metadata.retain(|(k, _)| k != key);
            metadata.push((key.into(), value));
        })
    };
    let text = |text: &str| GgufValue::String(text.into());
    for (key, value, expected) in [
        (
            "general.architecture",
            text("gemma"),
            "`general.architecture` is \"gemma\", \"llama\" or \"qwen3\" was expected",
        ),
        // Its other keys are not there then.
        ("general.architecture", text("qwen3"), "`qwen3.embedding_length` is missing"),
        ("split.count", GgufValue::U32(2), "`split.count` is 2, 1 was expected"),
        ("llama.rope.scaling.type", text("yarn"), "`llama.rope.scaling.type` is \"yarn\", \"none\""),
        ("llama.expert_count", GgufValue::U32(8), "`llama.expert_count` is 8, 0 was expected"),
        ("llama.attention.sliding_window", GgufValue::U32(4096), "is 4096, 0 was expected"),
        ("llama.block_count", GgufValue::U32(0), "`llama.block_count` is 0, a whole number from 1 to 4096"),
        ("llama.block_count", GgufValue::I32(-1), "`llama.block_count` is -1, a whole number"),
        ("llama.block_count", GgufValue::U64(u64::MAX), "a whole number from 1 to 4096"),
        ("llama.block_count", text("2"), "`llama.block_count` is \"2\", a whole number"),
        ("llama.attention.head_count_kv", GgufValue::I32s(vec![2, 2]), "is an array of 2, a whole number"),
        ("llama.attention.head_count_kv", GgufValue::U32(3), "a multiple was expected"),
        ("llama.rope.dimension_count", GgufValue::U32(2), "is 2, 4, the width of a head, was expected"),
        (
            "llama.attention.layer_norm_rms_epsilon",
            GgufValue::F32(f32::NAN),
            "a positive number was expected",
        ),
        ("llama.embedding_length", GgufValue::U32(32), "has shape"),
        ("llama.vocab_size", GgufValue::U32(31), "has shape [32, 16], [31, 16] was expected"),
        ("llama.block_count", GgufValue::U32(3), "tensors are missing: `blk.2.attn_norm.weight`"),
        (
            "llama.block_count",
            GgufValue::U32(1),
            "tensors do not belong to this model: `blk.1.attn_k.weight`",
        ),
    ] {
        let error = set(key, value);
        assert!(error.contains(expected), "{error}");
    }
    let error = gguf_error(|metadata, _| metadata.retain(|(k, _)| k != "llama.block_count"));
    assert!(error.contains("`llama.block_count` is missing"), "{error}");
    let error = gguf_error(|_, entries| entries[0].name = "rope_freqs.weight".into());
    assert!(error.contains("do not belong to this model: `rope_freqs.weight`"), "{error}");
}

#[test]
fn damaged_bytes_never_panic() {
    let scratch = Scratch::new();
    for (bytes, name) in files().iter().zip(["a.bin", "b.bin", "c.gguf"]) {
        let path = scratch.path(name);
        // Headers only: data may be anything.
        for at in (0..bytes.len().min(1200)).step_by(3) {
            for value in [0, 255] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                fs::write(&path, damaged).unwrap();
                if let Some(last) = Source::open(&path).ok().as_ref().and_then(|s| s.parameters().last()) {
                    assert_eq!(last.to_f32().shape(), last.shape());
                }
            }
        }
    }
}
