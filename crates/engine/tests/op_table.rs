//! The op table of `docs/mil.md`, which says what the code says. `UPDATE=1` writes it anew.
//!
//! An op is in the table once a golden text of `mil` has it. Each statement there is taken alone, with its operands as parameters, and
//! tried in every opset and with every element type: the reader says what it takes, the software engine what it runs, `grad` what has a
//! derivative.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arcane_engine::{Engine, LoadOptions, SoftwareEngine};
use arcane_grad::{GradError, gradients};
use arcane_mil::{Builder, Function, NoWeights, Program, check};

const OPSETS: [&str; 4] = ["ios15", "ios16", "ios17", "ios18"];
const TYPES: [&str; 8] = ["fp16", "fp32", "int32", "bool", "int8", "uint8", "int16", "uint16"];
const BEGIN: &str = "<!-- the op table, written by crates/engine/tests/op_table.rs -->\n";
const END: &str = "<!-- the end of the op table -->\n";

/// What is known of an op.
#[derive(Default)]
struct Row {
    since: Option<usize>,
    types: BTreeSet<usize>,
    runs: bool,
    derivative: Option<&'static str>,
}

/// A statement by itself.
struct Alone<'a> {
    op: &'a str,
    opset: &'a str,
    parameters: Vec<String>,
    constants: Vec<&'a str>,
    results: Vec<&'a str>,
    /// `T a, T b = `, or nothing.
    declaration: String,
    /// Parameters of ops on compressed weights may be attributes.
    attributes: &'a str,
    arguments: Vec<&'a str>,
    /// The element type of its first operand, or of its result.
    dtype: &'a str,
}

impl Alone<'_> {
    /// As a program of an opset, without the arguments of `left_out`.
    fn text(&self, opset: &str, left_out: usize) -> String {
        let kept = self.arguments.iter().enumerate().filter(|(i, _)| left_out >> i & 1 == 0);
        let arguments: Vec<&str> = kept.map(|(_, a)| *a).collect();
        let results: Vec<&str> = self.results.clone();
        format!(
            "program(1.3) {{ func main<{opset}>({}) {{ {} {}{}({}){}; }} -> ({}); }}",
            self.parameters.join(", "),
            self.constants.concat(),
            self.declaration,
            self.op,
            arguments.join(", "),
            self.attributes,
            results.join(", ")
        )
    }

    /// Whether it is taken in an opset, if need be without parameters that the opset does not have.
    fn taken(&self, opset: &str) -> bool {
        (0..1_usize << self.arguments.len()).any(|out| check(&self.text(opset, out), &NoWeights).is_ok())
    }

    /// The statement with another element type.
    fn with_type(&self, dtype: &str) -> String {
        let text = self.text("ios18", 0);
        let mut found = String::new();
        for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_').len();
            found.push_str(if &word[..end] == self.dtype { dtype } else { &word[..end] });
            found.push_str(&word[end..]);
        }
        found
    }
}

fn golden() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mil/tests/cases");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "mil"))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect()
}

/// The statements of a text, each alone.
fn statements(text: &str) -> Vec<Alone<'_>> {
    let (mut types, mut constants): (HashMap<&str, &str>, HashMap<&str, &str>) = Default::default();
    let (mut opset, mut found) = ("", Vec::new());
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("    func ") {
            (types, constants) = Default::default();
            opset = header.split(['<', '>']).nth(1).unwrap();
            let parameters = header.split_once('(').unwrap().1.rsplit_once(')').unwrap().0;
            types.extend(
                split(parameters).into_iter().filter_map(|p| p.rsplit_once(' ')).map(|(ty, name)| (name, ty)),
            );
        }
        let Some(statement) = line.strip_prefix("            ") else { continue };
        let has_results = statement.find(" = ") < statement.find('(');
        let (result_types, call) =
            if has_results { statement.split_once(" = ").unwrap() } else { ("", statement) };
        let declared: Vec<(&str, &str)> =
            split(result_types).into_iter().map(|r| r.rsplit_once(' ').unwrap()).collect();
        let (op, rest) = call.split_once('(').unwrap();
        if op == "const" {
            constants.insert(declared[0].1, line);
        } else {
            let (arguments, attributes) = rest.split_once(")[").unwrap();
            let arguments = split(arguments);
            let attributes =
                if op.starts_with("constexpr_") { &call[call.len() - attributes.len() - 1..] } else { "" };
            let names: Vec<&str> = arguments
                .iter()
                .flat_map(|a| a.split_once(" = ").unwrap().1.trim_matches(['(', ')']).split(", "))
                .collect();
            let mut parameters: BTreeMap<&str, &str> = BTreeMap::new();
            let mut used = Vec::new();
            for name in names {
                match constants.get(name) {
                    Some(line) if !used.contains(line) => used.push(*line),
                    Some(_) => {}
                    // A value that stands in place is no name.
                    None => drop(types.get(name).map(|ty| parameters.insert(name, ty))),
                }
            }
            let x = arguments.iter().find_map(|a| {
                let (parameter, value) = a.split_once(" = ").unwrap();
                let first = value.trim_matches(['(', ')']).split(", ").next().unwrap();
                ["x", "data", "query", "values", "input"]
                    .contains(&parameter)
                    .then(|| types.get(first))
                    .flatten()
            });
            found.push(Alone {
                op,
                opset,
                parameters: parameters.iter().map(|(name, ty)| format!("{ty} {name}")).collect(),
                constants: used,
                results: declared.iter().map(|(_, name)| *name).collect(),
                declaration: if has_results { format!("{result_types} = ") } else { String::new() },
                attributes: attributes.trim_end_matches(';'),
                dtype: x.or(declared.first().map(|(ty, _)| ty)).map_or("", |ty| element(ty)),
                arguments,
            });
        }
        types.extend(declared.iter().map(|(ty, name)| (*name, *ty)));
    }
    found
}

fn element(ty: &str) -> &str {
    ty.trim_start_matches("state<").trim_start_matches("tensor<").split([',', '>']).next().unwrap()
}

/// At commas outside brackets.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = |c: char| {
        depth += i32::from(matches!(c, '(' | '[' | '<')) - i32::from(matches!(c, ')' | ']' | '>'));
        c == ',' && depth == 0
    };
    list.split(at_comma).map(str::trim).filter(|a| !a.is_empty()).collect()
}

fn runs(engine: &dyn Engine, function: &Function) -> bool {
    engine.load(&Program::new(vec![function.clone()]), "main", LoadOptions::default()).is_ok()
}

/// What becomes of the derivative with respect to the first operand that can have one.
fn derivative(function: &Function) -> &'static str {
    let float = |v: arcane_mil::ValueId| function.ty(v).dtype.is_float();
    let Some(x) = function.parameters().iter().map(|p| p.value).find(|&v| float(v)) else { return "" };
    let Some(y) = function.outputs().iter().map(|o| o.value).find(|&v| float(v)) else { return "zero" };
    let mut f = Builder::extend(function);
    let ty = f.ty(y).clone();
    let seed = f.fill(ty.dtype, &ty.shape, 1.0);
    match gradients(&mut f, &[(y, seed)], &[x]) {
        Ok(_) => "yes",
        Err(GradError::NotDifferentiable { .. }) => "no",
        Err(e) => panic!("{}: {e}", function.operations().last().unwrap().op.name()),
    }
}

fn rows() -> BTreeMap<String, Row> {
    let engine = SoftwareEngine::new(1).expect("a thread starts");
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for text in &golden() {
        for one in statements(text) {
            let row = rows.entry(one.op.into()).or_default();
            let first = OPSETS.iter().position(|opset| one.taken(opset));
            row.since = [row.since, first].into_iter().flatten().min();
            for (i, dtype) in TYPES.iter().enumerate() {
                if check(&one.with_type(dtype), &NoWeights).is_ok() {
                    row.types.insert(i);
                }
            }
            let Ok(program) = check(&one.text(one.opset, 0), &NoWeights) else { continue };
            let function = &program.functions[0];
            row.runs |= runs(&engine, function);
            let found = derivative(function);
            let rank = |d: &str| ["", "no", "zero", "yes"].iter().position(|r| *r == d);
            if row.derivative.is_none_or(|d| rank(d) < rank(found)) {
                row.derivative = Some(found);
            }
        }
    }
    rows
}

#[test]
fn the_op_table_is_current() {
    let mut table = String::from("| op | since | x is | runs | derivative |\n|---|---|---|---|---|\n");
    for (op, row) in rows() {
        let since = row.since.map_or("", |i| OPSETS[i]);
        let types: Vec<&str> = row.types.iter().map(|&i| TYPES[i]).collect();
        let runs = if row.runs { "yes" } else { "no" };
        let derivative = row.derivative.unwrap_or("");
        // Writing into a string does not fail.
        let _ = writeln!(table, "| `{op}` | {since} | {} | {runs} | {derivative} |", types.join(", "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mil.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (old, after) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(old, table, "UPDATE=1 writes the table of docs/mil.md anew");
}
