//! Models from one format to another and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arcane_models::{
    ExportError, Llama2cVersion, LlamaConfig, LoadError, Source, initialize, save, write_gguf,
    write_hugging_face, write_llama2c,
};
use arcane_tensor::{DType, Encoding, FileError, GgufEntry, GgufFile, GgufValue, SafetensorsFile, Tensor};
use tempfile::TempDir;

use crate::{tiny, tiny_qwen3};

/// Rows of whole blocks, grouped heads, heads that share the width evenly.
fn even(tied: bool) -> LlamaConfig {
    LlamaConfig { hidden_size: 32, intermediate_size: 64, head_dim: 8, ..tiny(tied) }
}

struct Place {
    folder: TempDir,
}

impl Place {
    /// A Hugging Face folder `model` with weights of a type.
    fn new(config: &LlamaConfig, dtype: DType) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("model")).unwrap();
        let tensors: Vec<(String, Tensor)> =
            initialize(config, 7).into_iter().map(|(name, t)| (name, t.cast(dtype))).collect();
        let tensors: Vec<(String, &Tensor)> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
        save(&place.path("model"), config, &tensors).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Source {
        Source::open(&self.path(name)).unwrap()
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name).join("model.safetensors")).unwrap()
    }
}

#[test]
fn llama2c_files_keep_every_bit() {
    for tied in [true, false] {
        for version in [Llama2cVersion::V0, Llama2cVersion::V1] {
            let config = even(tied);
            let place = Place::new(&config, DType::F32);
            write_llama2c(&place.open("model"), &place.path("a.bin"), version).unwrap();
            let source = place.open("a.bin");
            assert_eq!(source.config(), &config);
            write_hugging_face(&source, &place.path("back"), None).unwrap();
            assert_eq!(place.weights("back"), place.weights("model"));
            assert_eq!(
                fs::read(place.path("back/config.json")).unwrap(),
                fs::read(place.path("model/config.json")).unwrap()
            );
            write_llama2c(&place.open("back"), &place.path("b.bin"), version).unwrap();
            assert_eq!(fs::read(place.path("a.bin")).unwrap(), fs::read(place.path("b.bin")).unwrap());
        }
    }
}

#[test]
fn gguf_files_keep_every_bit() {
    for config in [tiny(true), tiny(false), even(true), tiny_qwen3()] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let place = Place::new(&config, dtype);
            write_gguf(&place.open("model"), &place.path("a.gguf"), None).unwrap();
            let source = place.open("a.gguf");
            assert_eq!(source.config(), &config);
            write_hugging_face(&source, &place.path("back"), None).unwrap();
            assert_eq!(place.weights("back"), place.weights("model"), "{dtype}");
        }
    }
}

/// llama.cpp rotates neighbours of Llama's heads, but halves of Qwen3's.
#[test]
fn gguf_files_have_the_rows_and_names_of_their_architecture() {
    for (config, architecture) in [(tiny(true), "llama"), (tiny_qwen3(), "qwen3")] {
        let place = Place::new(&config, DType::F32);
        write_gguf(&place.open("model"), &place.path("a.gguf"), None).unwrap();
        let file = GgufFile::open(&place.path("a.gguf")).unwrap();
        let name = file.metadata()["general.architecture"].clone();
        assert_eq!(name, GgufValue::String(architecture.into()));
        let key = format!("{architecture}.attention.key_length");
        assert_eq!(file.metadata()[&key], GgufValue::U32(config.head_dim as u32));
        let bytes = fs::read(place.path("a.gguf")).unwrap();
        let model = place.open("model");
        for part in ["q", "k"] {
            let name = format!("model.layers.1.self_attn.{part}_proj.weight");
            let rows = model.parameters().find(|p| p.name() == name).unwrap().to_f32();
            let stored = &file.tensors()[&format!("blk.1.attn_{part}.weight")];
            let same = bytes[stored.range.clone()] == *rows.bytes();
            assert_eq!(same, architecture == "qwen3", "{part}");
            let norm = file.tensors().contains_key(&format!("blk.1.attn_{part}_norm.weight"));
            assert_eq!(norm, architecture == "qwen3", "{part}");
        }
    }
}

#[test]
fn an_asked_for_encoding_is_that_of_all_matrices() {
    let config = even(true);
    let place = Place::new(&config, DType::F32);
    write_gguf(&place.open("model"), &place.path("a.gguf"), Some(Encoding::Q8_0)).unwrap();
    let (exact, stored) = (place.open("model"), place.open("a.gguf"));
    for (exact, stored) in exact.parameters().zip(stored.parameters()) {
        let is_matrix = exact.shape().len() == 2;
        assert_eq!(stored.encoding(), if is_matrix { Encoding::Q8_0 } else { Encoding::F32 });
        let (exact, stored) = (exact.to_f32().to_f64s(), stored.to_f32().to_f64s());
        for (block, stored) in exact.chunks(32).zip(stored.chunks(32)) {
            // Half a step of the block's scale, and what its rounding to fp16 adds.
            let largest = block.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let allowed = largest / 127.0 * 0.5 + largest * 2f64.powi(-11) * 1.01;
            assert!(block.iter().zip(stored).all(|(x, y)| (x - y).abs() <= allowed));
        }
    }
    // Quantised weights become fp32; the blocks stay as they are from GGUF to GGUF.
    write_hugging_face(&stored, &place.path("back"), None).unwrap();
    let back = SafetensorsFile::open(&place.path("back/model.safetensors")).unwrap();
    assert!(back.names().all(|name| back.info(name).unwrap().0 == DType::F32));
    write_gguf(&stored, &place.path("b.gguf"), None).unwrap();
    assert_eq!(fs::read(place.path("a.gguf")).unwrap(), fs::read(place.path("b.gguf")).unwrap());
}

#[test]
fn a_folder_is_written_in_the_type_that_is_asked_for() {
    let place = Place::new(&tiny(true), DType::F32);
    write_hugging_face(&place.open("model"), &place.path("half"), Some(DType::F16)).unwrap();
    let json = fs::read_to_string(place.path("half/config.json")).unwrap();
    assert!(json.contains("\"torch_dtype\": \"float16\""), "{json}");
    let (model, half) = (place.open("model"), place.open("half"));
    for (exact, half) in model.parameters().zip(half.parameters()) {
        assert_eq!(half.encoding(), Encoding::F16);
        assert_eq!(half.to_f32(), exact.to_f32().cast(DType::F16).cast(DType::F32));
    }
}

#[track_caller]
fn assert_inexpressible(result: Result<Vec<String>, ExportError>, expected: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, ExportError::Inexpressible { .. } | ExportError::Encode { .. }), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn what_a_format_cannot_say_is_refused_by_name() {
    let to_bin = |config: LlamaConfig| {
        let place = Place::new(&config, DType::F32);
        let result = write_llama2c(&place.open("model"), &place.path("a.bin"), Llama2cVersion::V0);
        assert!(!place.path("a.bin").exists());
        result
    };
    assert_inexpressible(to_bin(LlamaConfig { rope_theta: 5e5, ..even(true) }), "`rope_theta` is 500000");
    assert_inexpressible(to_bin(LlamaConfig { rms_norm_eps: 1e-6, ..even(true) }), "`rms_norm_eps` is 1e-6");
    assert_inexpressible(to_bin(tiny_qwen3()), "`model_type` is qwen3, a llama2.c file can only mean llama");
    assert_inexpressible(to_bin(tiny(true)), "`num_attention_heads times head_dim` is 16, a llama2.c file");

    let place = Place::new(&tiny(true), DType::F32);
    let to_gguf = |encoding| write_gguf(&place.open("model"), &place.path("a.gguf"), Some(encoding));
    assert_inexpressible(to_gguf(Encoding::Q8_0), "has rows of 12 numbers, Q8_0 takes multiples of 32");

    let mut tensors = initialize(&tiny(true), 1);
    tensors[0].1.as_slice_mut::<f32>().unwrap()[5] = 1e6;
    let borrowed: Vec<(String, &Tensor)> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
    save(&place.path("model"), &tiny(true), &borrowed).unwrap();
    assert_inexpressible(to_gguf(Encoding::F16), "`model.embed_tokens.weight`: element 5 is 1e6");
    let result = write_hugging_face(&place.open("model"), &place.path("half"), Some(DType::F16));
    assert_inexpressible(result, "element 5 is 1e6");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let place = Place::new(&even(true), DType::F32);
    let source = place.open("model");
    fs::write(place.path("file"), "old").unwrap();
    for result in [
        write_hugging_face(&source, &place.path("file"), None),
        write_hugging_face(&source, &place.path("model"), None),
        write_llama2c(&source, &place.path("file"), Llama2cVersion::V0),
        write_gguf(&source, &place.path("file"), None),
        write_gguf(&source, &place.path("model"), None),
    ] {
        assert!(matches!(result, Err(ExportError::File(FileError::Exists { .. }))), "{result:?}");
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"old");
    fs::create_dir(place.path("empty")).unwrap();
    write_hugging_face(&source, &place.path("empty"), None).unwrap();
    assert_eq!(place.weights("empty"), place.weights("model"));
}

#[test]
fn the_tokenizer_goes_along() {
    let place = Place::new(&even(true), DType::F32);
    assert_eq!(place.open("model").tokenizer_path(), None);
    let remarks = write_gguf(&place.open("model"), &place.path("bare.gguf"), None).unwrap();
    assert!(
        remarks[0].starts_with("no tokenizer was found beside the weights; the file holds"),
        "{remarks:?}"
    );

    let json = r#"{"model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x41>": 3, "a": 4, "b": 5, "ab": 6, "abab": 7},
        "merges": [["a", "b"], ["ab", "ab"]]},
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}]}}"#;
    fs::write(place.path("model/tokenizer.json"), json).unwrap();
    let source = place.open("model");
    assert_eq!(source.tokenizer_path(), Some(place.path("model/tokenizer.json").as_path()));
    write_hugging_face(&source, &place.path("copy"), None).unwrap();
    assert_eq!(fs::read_to_string(place.path("copy/tokenizer.json")).unwrap(), json);

    assert_eq!(write_gguf(&source, &place.path("a.gguf"), None).unwrap(), [""; 0]);
    let file = GgufFile::open(&place.path("a.gguf")).unwrap();
    let get = |key: &str| file.metadata()[&format!("tokenizer.ggml.{key}")].clone();
    assert_eq!(get("model"), GgufValue::String("llama".into()));
    assert_eq!(get("add_space_prefix"), GgufValue::Bool(true));
    let GgufValue::Strings(tokens) = get("tokens") else { panic!() };
    assert_eq!(tokens[..8], ["<unk>", "<s>", "</s>", "<0x41>", "a", "b", "ab", "abab"]);
    assert_eq!((tokens.len(), tokens[31].as_str()), (32, "[PAD31]"));
    let GgufValue::I32s(kinds) = get("token_type") else { panic!() };
    assert_eq!(kinds[..9], [2, 3, 1, 6, 1, 1, 1, 1, 5]);
    let GgufValue::F32s(scores) = get("scores") else { panic!() };
    assert_eq!(scores[..8], [0.0, 0.0, -2.0, 0.0, -2.0, -2.0, 0.0, -1.0]);

    fs::write(place.path("tok32.bin"), "tokens").unwrap();
    write_llama2c(&source, &place.path("a.bin"), Llama2cVersion::V0).unwrap();
    assert_eq!(place.open("a.bin").tokenizer_path(), Some(place.path("tok32.bin").as_path()));
    write_hugging_face(&place.open("a.bin"), &place.path("from_bin"), None).unwrap();
    assert_eq!(fs::read(place.path("from_bin/tokenizer.bin")).unwrap(), b"tokens");
}

/// Writes `b.gguf` with the tensors of `a.gguf` and other metadata.
fn edit_metadata(place: &Place, edit: &dyn Fn(&mut BTreeMap<String, GgufValue>)) {
    let (file, bytes) =
        (GgufFile::open(&place.path("a.gguf")).unwrap(), fs::read(place.path("a.gguf")).unwrap());
    let mut metadata = file.metadata().clone();
    edit(&mut metadata);
    let metadata: Vec<(String, GgufValue)> = metadata.into_iter().collect();
    let (entries, ranges): (Vec<GgufEntry>, Vec<_>) = file
        .tensors()
        .iter()
        .map(|(name, t)| {
            (GgufEntry { name: name.clone(), encoding: t.encoding, shape: t.shape.clone() }, t.range.clone())
        })
        .unzip();
    let tensor = |i: usize| Ok(bytes[ranges[i].clone()].into());
    arcane_tensor::write_gguf(&place.path("b.gguf"), &metadata, &entries, tensor).unwrap();
}

/// The `tokenizer.json` that `b.gguf` becomes in a folder, or the remark about it.
fn tokenizer_of_b(place: &Place) -> Result<serde_json::Value, String> {
    let folder = place.folder.path().join("from_b");
    let remarks = write_hugging_face(&place.open("b.gguf"), &folder, None).unwrap();
    let json = fs::read_to_string(folder.join("tokenizer.json"));
    fs::remove_dir_all(&folder).unwrap();
    match (json, remarks.as_slice()) {
        (Ok(json), []) => Ok(serde_json::from_str(&json).unwrap()),
        (Err(_), [remark]) => Err(remark.clone()),
        other => panic!("{other:?}"),
    }
}

fn set(key: &str, value: GgufValue) -> impl Fn(&mut BTreeMap<String, GgufValue>) {
    let key = format!("tokenizer.ggml.{key}");
    move |metadata| {
        metadata.insert(key.clone(), value.clone());
    }
}

fn strings(values: &[&str]) -> GgufValue {
    GgufValue::Strings(values.iter().map(ToString::to_string).collect())
}

#[test]
fn scored_tokens_in_metadata_become_merges() {
    let place = Place::new(&even(true), DType::F32);
    write_gguf(&place.open("model"), &place.path("a.gguf"), None).unwrap();
    let tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁ab", "bab", "<user>", "[PAD11]"];
    let scores = [0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -2.0, -1.0, -3.0, 0.0, 0.0];
    let write = |more: &dyn Fn(&mut BTreeMap<String, GgufValue>)| {
        edit_metadata(&place, &|metadata| {
            set("model", GgufValue::String("llama".into()))(metadata);
            set("tokens", strings(&tokens))(metadata);
            set("scores", GgufValue::F32s(scores.to_vec()))(metadata);
            set("token_type", GgufValue::I32s(vec![2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4, 5]))(metadata);
            more(metadata);
        });
        tokenizer_of_b(&place)
    };
    let json = write(&|_| {}).unwrap();
    let model = &json["model"];
    let merges = [["▁", "ab"], ["a", "b"], ["b", "ab"]];
    assert_eq!(model["merges"], serde_json::json!(merges));
    assert_eq!((&model["unk_token"], &model["byte_fallback"]), (&"<unk>".into(), &true.into()));
    assert_eq!((&model["vocab"]["▁ab"], model["vocab"].get("[PAD11]")), (&8.into(), None));
    let added = json["added_tokens"].as_array().unwrap();
    let added: Vec<_> =
        added.iter().map(|t| (t["content"].as_str().unwrap(), t["special"] == true)).collect();
    assert_eq!(added, [("<unk>", true), ("<s>", true), ("</s>", true), ("<user>", false)]);
    // llama.cpp's defaults: a token before each text, and a space.
    assert_eq!(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
    assert_eq!(json["normalizer"]["normalizers"][0]["type"], "Prepend");
    let json = write(&|metadata| {
        set("add_bos_token", GgufValue::Bool(false))(metadata);
        set("add_eos_token", GgufValue::Bool(true))(metadata);
        set("add_space_prefix", GgufValue::Bool(false))(metadata);
    });
    let json = json.unwrap();
    assert_eq!(json["post_processor"]["single"][1]["SpecialToken"]["id"], "</s>");
    assert_eq!(json["normalizer"]["normalizers"][0]["type"], "Replace");
    for (more, expected) in [
        (
            set("scores", GgufValue::F32s(vec![0.0; 11])),
            "tokenizer.ggml.scores has 11 elements, 12 were expected",
        ),
        (set("scores", GgufValue::F32s(vec![f32::NAN; 12])), "token 0 has the score NaN"),
        (set("token_type", GgufValue::I32s(vec![7; 12])), "token 0 is of kind 7, 1 to 6 were expected"),
        (set("bos_token_id", GgufValue::U32(12)), "no token has the id 12"),
        (set("add_bos_token", GgufValue::U32(1)), "tokenizer.ggml.add_bos_token is neither true nor false"),
        (set("tokens", GgufValue::Bool(true)), "tokenizer.ggml.tokens is no array of strings"),
    ] {
        let remark = write(&more).unwrap_err();
        assert!(remark.starts_with("the tokenizer in the file's metadata cannot be used: "), "{remark}");
        assert!(remark.contains(expected), "{remark}");
    }
}

#[test]
fn byte_level_tokens_in_metadata_are_cut_as_their_name_says() {
    let place = Place::new(&even(true), DType::F32);
    write_gguf(&place.open("model"), &place.path("a.gguf"), None).unwrap();
    let write = |pre: &str, more: &dyn Fn(&mut BTreeMap<String, GgufValue>)| {
        edit_metadata(&place, &|metadata| {
            set("model", GgufValue::String("gpt2".into()))(metadata);
            set("pre", GgufValue::String(pre.into()))(metadata);
            set("tokens", strings(&["<|begin|>", "Ġ", "a", "Ġa"]))(metadata);
            set("token_type", GgufValue::I32s(vec![3, 1, 1, 1]))(metadata);
            set("merges", strings(&["Ġ a"]))(metadata);
            set("bos_token_id", GgufValue::U32(0))(metadata);
            more(metadata);
        });
        tokenizer_of_b(&place)
    };
    let json = write("gpt-2", &|_| {}).unwrap();
    assert_eq!(json["pre_tokenizer"]["use_regex"], true);
    assert_eq!(json["model"]["merges"], serde_json::json!([["Ġ", "a"]]));
    assert!(json["post_processor"].is_null() && json["normalizer"].is_null());
    assert_eq!(write("smollm", &|_| {}).unwrap()["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
    let llama = write("llama-bpe", &|_| {}).unwrap();
    assert_eq!(llama["model"]["ignore_merges"], true);
    assert_eq!(llama["post_processor"]["single"][0]["SpecialToken"]["id"], "<|begin|>");
    assert_eq!(write("qwen2", &|_| {}).unwrap()["normalizer"]["type"], "NFC");

    let unknown = write("deepseek-coder", &|_| {}).unwrap_err();
    assert!(
        unknown.contains("tokenizer.ggml.pre is \"deepseek-coder\", one of gpt-2, smollm, "),
        "{unknown}"
    );
    for (more, expected) in [
        (set("pre", GgufValue::U32(1)), "tokenizer.ggml.pre is no string"),
        (
            set("model", GgufValue::String("bert".into())),
            "tokenizer.ggml.model is \"bert\", \"llama\" or \"gpt2\"",
        ),
        (set("merges", strings(&["Ġa"])), "merge 0 is \"Ġa\", two tokens were expected"),
        (set("merges", strings(&["Ġ a", "a a"])), "merge 1 has \"aa\", which is not a token"),
    ] {
        let remark = write("gpt-2", &more).unwrap_err();
        assert!(remark.contains(expected), "{remark}");
    }
    // From GGUF to GGUF the tokenizer stays.
    write("gpt-2", &|_| {}).unwrap();
    assert_eq!(write_gguf(&place.open("b.gguf"), &place.path("c.gguf"), None).unwrap(), [""; 0]);
    let get = |name: &str, key: &str| GgufFile::open(&place.path(name)).unwrap().metadata()[key].clone();
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.merges"] {
        assert_eq!(get("b.gguf", key), get("c.gguf", key));
    }
}

#[test]
fn a_tokenizer_that_does_not_fit_is_left_out_with_a_remark() {
    let place = Place::new(&even(true), DType::F32);
    for (json, expected) in [
        ("[]", "not a JSON object"),
        (r#"{"model": {"type": "Unigram"}}"#, "only BPE"),
        (r#"{"model": {"vocab": {"a": 32}, "merges": []}}"#, "token `a` has no id below the model's 32"),
        (r#"{"model": {"vocab": {"a": 3}, "merges": [["a"]]}}"#, "merge 0 is not a pair"),
        (r#"{"model": {"vocab": {"a": 3}, "merges": []}}"#, "neither byte-level BPE"),
        (
            r#"{"model": {"vocab": {}, "merges": []}, "pre_tokenizer": {"type": "ByteLevel", "use_regex": false}}"#,
            "no name for this `pre_tokenizer`",
        ),
    ] {
        fs::write(place.path("model/tokenizer.json"), json).unwrap();
        let path = place.path("a.gguf");
        let remarks = write_gguf(&place.open("model"), &path, None).unwrap();
        assert!(remarks[0].contains(expected), "{remarks:?}");
        Source::open(&path).unwrap();
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_part_of_a_model_is_not_one() {
    let place = Place::new(&even(true), DType::F32);
    for name in ["model/config.json", "model/model.safetensors"] {
        let error = Source::open(&place.path(name)).unwrap_err();
        assert!(matches!(error, LoadError::NotModel { .. }), "{error}");
    }
}

fn published() -> PathBuf {
    crate::shared().join("data/stories260k")
}

#[test]
#[ignore = "needs ../shared"]
fn the_published_bin_is_the_published_folder() {
    let source = Source::open(&published().join("stories260K.bin")).unwrap();
    let folder = Source::open(&published()).unwrap();
    assert_eq!(source.config(), folder.config());
    for (a, b) in source.parameters().zip(folder.parameters()) {
        assert_eq!((a.name(), a.to_f32()), (b.name(), b.to_f32()));
    }
    assert_eq!(source.tokenizer_path(), Some(published().join("tokenizer.json").as_path()));
}

/// All but the tables of the rotary embedding, which `PyTorch` computed in fp32.
#[test]
#[ignore = "needs ../shared"]
fn the_published_folder_gives_the_published_bin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    let source = Source::open(&published()).unwrap();
    write_llama2c(&source, &path, Llama2cVersion::V0).unwrap();
    let (ours, theirs) = (fs::read(&path).unwrap(), read(&published().join("stories260K.bin")));
    let config = source.config();
    let tables = 4 * config.max_position_embeddings * config.head_dim;
    let before = ours.len() - tables;
    assert_eq!(ours.len(), theirs.len());
    assert_eq!(ours[..before], theirs[..before]);
    let floats = |bytes: &[u8]| Encoding::F32.decode(bytes);
    for (a, b) in floats(&ours[before..]).iter().zip(floats(&theirs[before..])) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
