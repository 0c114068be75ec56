use std::fs;
use std::path::Path;

use arcane_models::{LlamaConfig, initialize, load, preset, read_config, save};
use arcane_tensor::{DType, Tensor, write_safetensors};
use serde_json::{Value, json};

use crate::tiny;

type Named = Vec<(String, Tensor)>;

fn borrowed(tensors: &Named) -> Vec<(String, &Tensor)> {
    tensors.iter().map(|(name, t)| (name.clone(), t)).collect()
}

/// What loading says after the weights were changed.
fn error_after(config: &LlamaConfig, change: impl FnOnce(&mut Named)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = initialize(config, 1);
    change(&mut tensors);
    save(folder.path(), config, &borrowed(&tensors)).unwrap();
    let error = load(folder.path(), config).unwrap_err().to_string();
    let path = folder.path().join("model.safetensors").display().to_string();
    error.strip_prefix(&path).expect("the message starts with the path").to_string()
}

fn set(tensors: &mut Named, name: &str, tensor: Tensor) {
    tensors.retain(|(n, _)| n != name);
    tensors.push((name.into(), tensor));
}

#[test]
fn what_is_saved_is_loaded() {
    for tied in [true, false] {
        let config = tiny(tied);
        let tensors = initialize(&config, 1);
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &config, &borrowed(&tensors)).unwrap();
        assert_eq!(read_config(folder.path()).unwrap(), config);
        assert_eq!(load(folder.path(), &config).unwrap(), tensors);
    }
}

#[test]
fn half_precision_weights_become_fp32() {
    let config = tiny(true);
    let tensors = initialize(&config, 1);
    for dtype in [DType::F16, DType::Bf16] {
        let halved: Named = tensors.iter().map(|(n, t)| (n.clone(), t.cast(dtype))).collect();
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &config, &borrowed(&halved)).unwrap();
        for ((_, loaded), (_, half)) in load(folder.path(), &config).unwrap().iter().zip(&halved) {
            assert_eq!(loaded.dtype(), DType::F32);
            assert_eq!(loaded.to_f64s(), half.to_f64s());
        }
    }
}

#[test]
fn tensors_that_are_missing_or_do_not_belong_are_listed() {
    let error = error_after(&tiny(false), |t| t.retain(|(n, _)| n != "lm_head.weight"));
    assert_eq!(error, ": tensors are missing: `lm_head.weight`");
    let error = error_after(&tiny(true), |t| {
        t.retain(|(n, _)| n != "model.norm.weight");
        for i in 0..10 {
            t.push((format!("model.extra.{i}"), Tensor::scalar(0.0f32)));
        }
    });
    assert!(
        error.starts_with(": tensors are missing: `model.norm.weight`; tensors do not belong"),
        "{error}"
    );
    assert!(error.ends_with("`model.extra.7` and 2 more"), "{error}");
    let error = error_after(&tiny(true), |t| {
        set(t, "model.layers.0.self_attn.q_proj.bias", Tensor::zeros(DType::F32, &[16]));
    });
    assert!(error.contains("do not belong to this model: `model.layers.0.self_attn.q_proj.bias`"), "{error}");
}

#[test]
fn a_wrong_shape_names_both_shapes() {
    let gate = "model.layers.1.mlp.gate_proj.weight";
    let error = error_after(&tiny(true), |t| set(t, gate, Tensor::zeros(DType::F32, &[12, 20])));
    assert_eq!(error, format!(": tensor `{gate}` has shape [12, 20], [20, 12] was expected"));
}

#[test]
fn integer_weights_are_refused() {
    let error = error_after(&tiny(true), |t| {
        set(t, "model.norm.weight", Tensor::zeros(DType::I8, &[12]));
    });
    assert_eq!(error, ": tensor `model.norm.weight` holds int8, fp32, fp16 or bf16 was expected");
}

#[test]
fn known_buffers_and_a_copy_of_the_tied_matrix_are_ignored() {
    let config = tiny(true);
    let tensors = initialize(&config, 1);
    let mut more = tensors.clone();
    set(&mut more, "lm_head.weight", tensors[0].1.clone());
    set(&mut more, "model.layers.0.self_attn.rotary_emb.inv_freq", Tensor::zeros(DType::F32, &[2]));
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &config, &borrowed(&more)).unwrap();
    assert_eq!(load(folder.path(), &config).unwrap(), tensors);

    let error = error_after(&config, |t| set(t, "lm_head.weight", Tensor::zeros(DType::F32, &[31, 12])));
    assert_eq!(error, ": tensor `lm_head.weight` has shape [31, 12], [32, 12] was expected");
}

#[test]
fn broken_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let check = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let error = load(folder.path(), &tiny(true)).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    };
    check(None);
    check(Some(b""));
    check(Some(&u64::MAX.to_le_bytes()));
    check(Some(b"\x02\0\0\0\0\0\0\0{}"));
    let tensors = initialize(&tiny(true), 1);
    write_safetensors(&path, &borrowed(&tensors), None).unwrap();
    let whole = fs::read(&path).unwrap();
    check(Some(&whole[..whole.len() - 1]));
    check(Some(&whole[..100]));
}

/// A folder whose weights are in two files, after the index and the files were changed.
fn sharded(change: impl FnOnce(&mut Value, &mut [Named; 2])) -> tempfile::TempDir {
    let config = tiny(false);
    let folder = tempfile::tempdir().unwrap();
    let mut first = initialize(&config, 1);
    let second = first.split_off(9);
    let mut shards = [first, second];
    let mut index = json!({ "weight_map": {} });
    for (tensors, file) in shards.iter().zip(["a.safetensors", "b.safetensors"]) {
        for (name, _) in tensors {
            index["weight_map"][name] = file.into();
        }
    }
    change(&mut index, &mut shards);
    for (tensors, file) in shards.iter().zip(["a.safetensors", "b.safetensors"]) {
        write_safetensors(&folder.path().join(file), &borrowed(tensors), None).unwrap();
    }
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

#[test]
fn weights_in_several_files_are_those_of_one() {
    let folder = sharded(|_, _| {});
    assert_eq!(load(folder.path(), &tiny(false)).unwrap(), initialize(&tiny(false), 1));
}

#[test]
fn an_index_that_does_not_fit_names_the_tensor() {
    let check = |change: &dyn Fn(&mut Value, &mut [Named; 2]), expected: &str| {
        let folder = sharded(|index, shards| change(index, shards));
        let error = load(folder.path(), &tiny(false)).unwrap_err().to_string();
        let path = folder.path().join("model.safetensors.index.json").display().to_string();
        let error = error.strip_prefix(&path).unwrap_or_else(|| panic!("{error}"));
        assert!(error.contains(expected), "{error}");
    };
    for name in ["../a.safetensors", "/etc/passwd", "..", "", "a/../a.safetensors", "a.safetensors/", "x\\y"]
    {
        check(
            &|index, _| index["weight_map"]["model.norm.weight"] = name.into(),
            "`model.norm.weight` is in \"",
        );
    }
    check(
        &|index, _| index["weight_map"]["model.norm.weight"] = 3.into(),
        "the name of a file in the folder",
    );
    check(
        &|index, _| index["weight_map"]["model.norm.weight"] = "a.safetensors".into(),
        "`model.norm.weight` is not in a.safetensors, where it was expected",
    );
    check(
        &|_, shards| {
            let copy = shards[0][0].clone();
            shards[1].push(copy);
        },
        "`model.embed_tokens.weight` is in b.safetensors, a.safetensors alone was expected",
    );
    check(
        &|_, shards| shards[1].push(("extra".into(), Tensor::scalar(1.0f32))),
        "`extra` is in b.safetensors, but not in `weight_map`",
    );
    check(
        &|index, shards| {
            let (name, _) = shards[1].pop().unwrap();
            index["weight_map"].as_object_mut().unwrap().remove(&name);
        },
        "tensors are missing: `lm_head.weight`",
    );
    check(&|index, _| *index = json!([]), "`weight_map` is missing");
}

#[test]
fn a_file_that_the_index_names_has_to_be_there() {
    let folder = sharded(|_, _| {});
    let path = folder.path().join("b.safetensors");
    fs::remove_file(&path).unwrap();
    let error = load(folder.path(), &tiny(false)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot open", path.display())), "{error}");
}

#[test]
fn a_configuration_that_cannot_be_read_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let error = || read_config(folder.path()).unwrap_err().to_string();
    let name = path.display().to_string();
    assert!(error().starts_with(&format!("{name}: cannot open: ")), "{}", error());
    fs::write(&path, b"\xff\xfe").unwrap();
    assert_eq!(error(), format!("{name}: the file is not UTF-8, JSON was expected"));
    fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    assert!(error().contains("more than 1048576 bytes"), "{}", error());
    fs::write(&path, "{").unwrap();
    assert!(error().starts_with(&format!("{name}:1:1: ")), "{}", error());
    assert!(read_config(Path::new("/nonexistent")).is_err());
}

#[test]
#[ignore = "needs ../shared"]
fn the_published_weights_load() {
    let folder = crate::shared().join("data/stories260k");
    let config = read_config(&folder).unwrap();
    assert_eq!(preset("stories260k"), Some(config.clone()));
    let tensors = load(&folder, &config).unwrap();
    let count: usize = tensors.iter().map(|(_, t)| t.len()).sum();
    assert_eq!(count as u64, config.parameter_count());
}
