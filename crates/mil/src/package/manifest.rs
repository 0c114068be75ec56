//! `Manifest.json`: what a package holds, and which of it is the model.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::{AUTHOR, PackageError, read_file};

/// The manifest's name.
pub(super) const FILE: &str = "Manifest.json";
/// The folder that items' paths start from.
pub(super) const DATA: &str = "Data";
/// The model's name.
pub(super) const MODEL: &str = "model.mlmodel";
/// The name of the folder of weights.
pub(super) const WEIGHTS: &str = "weights";

/// Identifiers need only differ within a package; drawn ones would make the same program other bytes.
const MODEL_ID: &str = "A5CA9E00-0000-4000-8000-000000000001";
const WEIGHTS_ID: &str = "A5CA9E00-0000-4000-8000-000000000002";

const BYTES: u64 = 1 << 20;
/// The newest version that is understood.
const VERSION: [u64; 3] = [1, 0, 0];

/// The path of a package's model.
pub(super) fn model_of(folder: &Path) -> Result<PathBuf, PackageError> {
    let path = folder.join(FILE);
    let bytes = read_file(&path, BYTES)?;
    let below = model_in(&bytes).map_err(|what| PackageError::Manifest { path, what })?;
    Ok(folder.join(DATA).join(below))
}

/// The path of the model below `Data`.
fn model_in(manifest: &[u8]) -> Result<PathBuf, String> {
    let manifest: Value = serde_json::from_slice(manifest).map_err(|e| e.to_string())?;
    let version = text(&manifest, "fileFormatVersion")?;
    let parts: Vec<u64> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    if parts.len() != 3 || version.split('.').count() != 3 || parts.as_slice() > &VERSION {
        return Err(format!("its version is {version:?}, 1.0.0 was expected"));
    }
    let items = manifest.get("itemInfoEntries").and_then(Value::as_object);
    let items = items.ok_or("it has no object `itemInfoEntries`")?;
    for item in items.values() {
        for key in ["author", "description", "name", "path"] {
            text(item, key)?;
        }
    }
    let root = text(&manifest, "rootModelIdentifier")?;
    let item = items.get(root).ok_or_else(|| format!("the root model {root:?} is not among its items"))?;
    let below = Path::new(text(item, "path")?);
    let plain = below.components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || below.as_os_str().is_empty() {
        return Err(format!("the path {:?} of the root model is not below `{DATA}`", below.display()));
    }
    Ok(below.into())
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, String> {
    object.get(key).and_then(Value::as_str).ok_or_else(|| format!("a string `{key}` is missing"))
}

/// The manifest of a package with a model and weights.
pub(super) fn text_of() -> String {
    let item = |description: &str, name: &str| {
        let path = format!("{AUTHOR}/{name}");
        json!({ "author": AUTHOR, "description": description, "name": name, "path": path })
    };
    let manifest = json!({
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            MODEL_ID: item("CoreML Model Specification", MODEL),
            WEIGHTS_ID: item("CoreML Model Weights", WEIGHTS),
        },
        "rootModelIdentifier": MODEL_ID,
    });
    format!("{manifest:#}\n")
}

#[cfg(test)]
mod tests {
    use super::{MODEL_ID, model_in, text_of};

    #[test]
    fn the_model_is_found_through_its_identifier() {
        let text = text_of();
        assert_eq!(model_in(text.as_bytes()).unwrap().to_str(), Some("com.apple.CoreML/model.mlmodel"));
        let moved = text.replace("com.apple.CoreML/model.mlmodel", "x/spec.bin");
        assert_eq!(model_in(moved.as_bytes()).unwrap().to_str(), Some("x/spec.bin"));
    }

    #[test]
    fn manifests_that_are_wrong_are_refused() {
        for (from, to, what) in [
            ("{", "", "trailing characters"),
            ("1.0.0", "1.0.1", "its version is \"1.0.1\""),
            ("1.0.0", "2", "its version is \"2\""),
            ("\"author\"", "\"who\"", "a string `author` is missing"),
            ("itemInfoEntries", "items", "no object `itemInfoEntries`"),
            ("\"rootModelIdentifier\"", "\"root\"", "`rootModelIdentifier` is missing"),
            ("com.apple.CoreML/model", "../model", "is not below `Data`"),
            ("com.apple.CoreML/model", "/model", "is not below `Data`"),
        ] {
            let error = model_in(text_of().replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let other = text_of().replacen(MODEL_ID, "B", 1);
        assert!(model_in(other.as_bytes()).unwrap_err().contains("is not among its items"));
    }
}
