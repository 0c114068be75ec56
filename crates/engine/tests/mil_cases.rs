//! The MIL conformance cases of `../shared/mil-cases` (its README gives format and acceptance rule), in this process: reader,
//! reference evaluator, and software engine fused and unfused. Refusals are read without weights, as `arcane check` does.
//!
//! `ONLY=conv/` restricts it to cases whose `FAMILY/ID` contains that, `FOLDER=...` to the cases of another folder. Each failing
//! case is a line, and then comes a table; the test fails where a case of a family in [`COMPLETE`] does.
#![expect(clippy::print_stderr, reason = "the table is for whoever runs it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arcane_engine::{LoadOptions, SoftwareEngine, conformance};
use arcane_mil::{BlobFolder, NoWeights, Program, check, evaluate, print, read, read_for};
use arcane_tensor::{DType, Tensor, read_npz, round_to};
use serde_json::Value;

/// Families of which every public case has to pass.
const COMPLETE: [&str; 20] = [
    "activation",
    "binary",
    "cast",
    "concat_split",
    "depth_space",
    "gather",
    "linear",
    "logic",
    "matmul",
    "norm",
    "pad_tile",
    "reduce",
    "refuse",
    "resize",
    "scatter",
    "sdpa",
    "shape",
    "slice",
    "softmax",
    "unary",
];

/// A case and where it stands.
struct Case {
    folder: PathBuf,
    family: String,
    id: String,
    about: Value,
}

#[test]
#[ignore = "needs ../shared"]
fn public_cases_pass() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let top = std::env::var("FOLDER").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/mil-cases"),
        PathBuf::from,
    );
    let cases: Vec<Case> =
        cases(&top).into_iter().filter(|c| format!("{}/{}", c.family, c.id).contains(&only)).collect();
    assert!(!cases.is_empty(), "no cases in {}", top.display());
    let engine = SoftwareEngine::new(2).expect("threads start");
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut broken = Vec::new();
    for case in &cases {
        let counts = table.entry(&case.family).or_default();
        counts.0 += 1;
        let Err(why) = outcome(case, &engine) else {
            counts.1 += 1;
            continue;
        };
        eprintln!("FAIL {}/{}: {why}", case.family, case.id);
        if COMPLETE.contains(&case.family.as_str()) {
            broken.push(format!("{}/{}", case.family, case.id));
        }
    }
    eprintln!("{:<20} {:>6} {:>6}", "family", "cases", "passed");
    for (family, (n, passed)) in &table {
        eprintln!("{family:<20} {n:>6} {passed:>6}");
    }
    let (n, passed) = table.values().fold((0, 0), |(n, p), (a, b)| (n + a, p + b));
    eprintln!("{:<20} {n:>6} {passed:>6}", "total");
    assert!(broken.is_empty(), "{} cases of complete families fail: {}", broken.len(), broken.join(", "));
}

/// The cases below a folder, by family and id.
fn cases(top: &Path) -> Vec<Case> {
    let entries = |folder: &Path| {
        let listed = std::fs::read_dir(folder).expect("the folder can be read");
        let mut paths: Vec<PathBuf> = listed.map(|e| e.expect("an entry").path()).collect();
        paths.retain(|p| p.is_dir());
        paths.sort();
        paths
    };
    let mut found = Vec::new();
    for folder in entries(top).iter().flat_map(|family| entries(family)) {
        let Ok(text) = std::fs::read_to_string(folder.join("case.json")) else { continue };
        let about: Value = serde_json::from_str(&text).expect("case.json is JSON");
        let text = |key: &str| about[key].as_str().expect("a string").to_string();
        found.push(Case { family: text("family"), id: text("id"), folder, about });
    }
    found
}

fn outcome(case: &Case, engine: &SoftwareEngine) -> Result<(), String> {
    let text = std::fs::read(case.folder.join("model.mil")).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&text);
    let checked = check(&text, &NoWeights);
    match case.about["kind"].as_str() {
        Some("reject") => return checked.map_or(Ok(()), |_| Err("accepted".into())),
        Some("accept") => return checked.map(drop).map_err(|e| format!("check: {e}")),
        _ => checked.map_err(|e| format!("check: {e}"))?,
    };
    let weights = case.folder.join(case.about["weights"].as_str().unwrap_or(""));
    let arrays = read_npz(&case.folder.join("io.npz")).map_err(|e| e.to_string())?;
    let inputs = arrays.iter().filter_map(|(n, t)| Some((n.strip_prefix("in.")?.to_string(), t.clone())));
    let inputs: BTreeMap<String, Tensor> = inputs.collect();
    let program = read_for(&text, &BlobFolder::new(&weights), &inputs).map_err(|e| format!("read: {e}"))?;
    comes_back(&program, &case.folder)?;
    let got = evaluate(&program.functions[0], &inputs).map_err(|e| format!("reference: {e}"))?;
    accept(case, &arrays, &got).map_err(|e| format!("reference: {e}"))?;
    for fuse in [true, false] {
        let run =
            conformance::run(engine, &program, program.functions[0].name(), &inputs, LoadOptions { fuse });
        let got = run.map_err(|e| format!("engine: {e}"))?;
        accept(case, &arrays, &got).map_err(|e| format!("engine (fuse: {fuse}): {e}"))?;
    }
    Ok(())
}

/// The canonical text of a program has to read back as that text.
fn comes_back(program: &Program, folder: &Path) -> Result<(), String> {
    let printed = print(program).map_err(|e| format!("print: {e}"))?;
    let scratch = std::env::temp_dir().join(format!("arcane-mil-cases-{}", std::process::id()));
    let result = (|| {
        std::fs::create_dir_all(scratch.join("weights")).map_err(|e| e.to_string())?;
        std::fs::write(scratch.join("weights/weight.bin"), &printed.weights).map_err(|e| e.to_string())?;
        let again = read(&printed.text, &BlobFolder::new(&scratch))
            .map_err(|e| format!("read of the canonical text: {e}"))?;
        let text = print(&again).map_err(|e| format!("second print: {e}"))?.text;
        if text == printed.text {
            Ok(())
        } else {
            Err(format!("{} prints otherwise twice", folder.display()))
        }
    })();
    std::fs::remove_dir_all(&scratch).map_err(|e| e.to_string())?;
    result
}

fn accept(case: &Case, arrays: &[(String, Tensor)], got: &BTreeMap<String, Tensor>) -> Result<(), String> {
    let wanted = |prefix: &str, name: &str| {
        let full = format!("{prefix}{name}");
        arrays.iter().find(|(n, _)| *n == full).map(|(_, t)| t).ok_or(format!("io.npz lacks {full}"))
    };
    let object = |key: &str| case.about[key].as_object().cloned().unwrap_or_default();
    for (name, ty) in &object("outputs") {
        let tensor = got.get(name).ok_or(format!("no output {name}"))?;
        let want = wanted("out.", name)?;
        close(case, name, ty, tensor, want)?;
    }
    for (name, ty) in &object("states") {
        if let Some(tensor) = got.get(name) {
            close(case, name, ty, tensor, wanted("state.", name)?)?;
        }
    }
    Ok(())
}

/// The acceptance rule of the README.
fn close(case: &Case, name: &str, ty: &Value, got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.dtype().name() != ty[0].as_str().unwrap_or("") || got.shape() != want.shape() {
        return Err(format!(
            "{name} is {} {:?}, wanted {} {:?}",
            got.dtype(),
            got.shape(),
            ty[0],
            want.shape()
        ));
    }
    let own = &case.about["tolerances"][name];
    let tolerance = if own.is_object() { own } else { &case.about["tolerance"] };
    let number = |key: &str| tolerance[key].as_f64().expect("a number");
    let (atol, rtol) = (number("atol"), number("rtol"));
    let exact = atol == 0.0 && rtol == 0.0;
    let mut off = Vec::new();
    for i in 0..want.len() {
        let (g, mut w) = (got.get(i), want.get(i));
        let rounded = round_to(DType::F16, w);
        if got.dtype() == DType::F16 && (exact || rounded.is_infinite()) {
            w = rounded;
        }
        let both = g.is_finite() && w.is_finite();
        let ok = g == w || g.is_nan() && w.is_nan() || both && (g - w).abs() <= atol + rtol * w.abs();
        if !ok {
            off.push((i, g, w));
        }
    }
    match off.first() {
        None => Ok(()),
        Some((i, g, w)) => {
            Err(format!("{name}: {} of {} off, first {i}: got {g:e}, want {w:e}", off.len(), want.len()))
        }
    }
}
