//! Writes `crates/mil/src/package/proto.rs` from `model.proto`:
//! `cargo run --manifest-path crates/mil/proto/generate/Cargo.toml`.

use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let descriptors = protox::compile(["model.proto"], [&folder])?;
    let out = tempfile::tempdir()?;
    prost_build::Config::new()
        // Maps in the order of their keys: the same program gives the same bytes.
        .btree_map(["."])
        // Their owner is small then: most bindings are names.
        .boxed("arcane.Binding.kind.value")
        .out_dir(out.path())
        .compile_fds(descriptors)?;
    let generated = fs::read_to_string(out.path().join("arcane.rs"))?;
    let header = "// Made of proto/model.proto by proto/generate.\n";
    let path = folder.join("../src/package/proto.rs");
    let target = fs::canonicalize(path.parent().ok_or("no folder")?)?.join("proto.rs");
    fs::write(target, format!("{header}{generated}"))?;
    Ok(())
}
