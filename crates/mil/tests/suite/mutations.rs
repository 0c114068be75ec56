//! The golden texts damaged in every way that a line allows: each has to be refused, at the line that was damaged.

use std::collections::BTreeSet;
use std::path::Path;

use arcane_mil::{NoWeights, ReadError, check, read};

use super::reading::without_open_linear;

/// Parameters that no op has a default for.
const REQUIRED: [&str; 22] = [
    "a", "b", "begin", "cond", "data", "dtype", "indices", "input", "key", "paddings", "perm", "query",
    "reps", "scale", "shape", "size", "updates", "values", "variance", "weight", "x", "y",
];

/// The golden texts by name, those that a strict reader takes.
pub(super) fn texts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "mil") {
            continue;
        }
        let text = without_open_linear(&std::fs::read_to_string(&path).unwrap());
        check(&text, &NoWeights).unwrap_or_else(|e| panic!("{}:{e}", path.display()));
        found.push((path.display().to_string(), text));
    }
    found.sort();
    assert!(found.len() > 4);
    found
}

/// A statement of a canonical text: `RESULTS = OP(ARGUMENTS)[ATTRIBUTES];`
struct Line<'a> {
    results: &'a str,
    op: &'a str,
    arguments: Vec<&'a str>,
    attributes: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (results, rest) = line.strip_prefix("            ")?.split_once(" = ")?;
        let (op, rest) = rest.split_once('(')?;
        let (arguments, attributes) = rest.split_once(")[")?;
        let attributes = attributes.strip_suffix("];")?;
        Some(Self { results, op, arguments: split(arguments), attributes })
    }

    fn with(&self, results: &str, arguments: &[&str]) -> String {
        format!("{results} = {}({})[{}];", self.op, arguments.join(", "), self.attributes)
    }
}

/// Arguments: at commas outside parentheses.
fn split(arguments: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = |c: char| {
        depth += i32::from(matches!(c, '(' | '[' | '<')) - i32::from(matches!(c, ')' | ']' | '>'));
        c == ',' && depth == 0
    };
    arguments.split(at_comma).map(str::trim).filter(|a| !a.is_empty()).collect()
}

/// The text with line `n` (from 0) replaced.
fn replaced(text: &str, n: usize, line: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines[n] = line;
    lines.join("\n") + "\n"
}

#[track_caller]
fn refused(name: &str, text: &str, what: &str) -> ReadError {
    let error = check(text, &NoWeights).map(drop).expect_err(&format!("{name}: accepted: {what}"));
    let lines = text.lines().count() + 1;
    assert!((1..=lines).contains(&error.line) && error.column > 0, "{name}: {what}: {error}");
    assert!(!error.what.is_empty(), "{name}: {what}");
    if !text.contains("BLOBFILE") {
        assert_eq!(read(text, &NoWeights).unwrap_err(), error, "{name}: {what}");
    }
    error
}

/// Line `n` becomes `line`, and is named by the refusal.
#[track_caller]
fn refused_there(name: &str, text: &str, n: usize, line: &str) {
    let error = refused(name, &replaced(text, n, line), line);
    assert!(error.line.abs_diff(n + 1) <= 1, "{name}: line {}: {line}: {error}", n + 1);
}

/// Every statement once: its line number, and what it says.
fn statements(text: &str) -> impl Iterator<Item = (usize, &str, Line<'_>)> {
    text.lines().enumerate().filter_map(|(n, line)| Line::of(line).map(|parts| (n, line, parts)))
}

#[test]
fn declared_results_are_those_of_the_op() {
    for (name, text) in texts() {
        for (n, _, line) in statements(&text) {
            let results = line.results;
            for (from, to) in [
                ("], ", "?"),
                ("fp16", "int32"),
                ("fp32", "int32"),
                ("int32", "fp16"),
                ("bool", "fp16"),
                ("string", "int32"),
            ] {
                let of_tensor =
                    to != "?" && results.starts_with("tensor<") && results.contains(&format!("<{from},"));
                if of_tensor || results.starts_with(&format!("{from} ")) {
                    let wrong = line.with(&results.replacen(from, to, 1), &line.arguments);
                    refused_there(&name, &text, n, &wrong);
                }
            }
            if let Some((before, after)) = results.split_once("]>") {
                let wrong_rank =
                    format!("{before}{}1]>{after}", if before.ends_with('[') { "" } else { ", " });
                refused_there(&name, &text, n, &line.with(&wrong_rank, &line.arguments));
                let wrong_dim = format!("{before}1]>{after}");
                if !before.ends_with('[') {
                    refused_there(&name, &text, n, &line.with(&wrong_dim, &line.arguments));
                }
            } else if let Some((ty, identifier)) = results.split_once(' ') {
                let wrong_rank = format!("tensor<{ty}, [1]> {identifier}");
                refused_there(&name, &text, n, &line.with(&wrong_rank, &line.arguments));
            }
            refused_there(&name, &text, n, &line.with(&format!("{results}, {results}_2"), &line.arguments));
            let none = format!("{}({})[{}];", line.op, line.arguments.join(", "), line.attributes);
            refused_there(&name, &text, n, &none);
        }
    }
}

#[test]
fn arguments_are_known_complete_and_defined() {
    for (name, text) in texts() {
        for (n, _, line) in statements(&text) {
            let unknown = [&line.arguments[..], &["bogus_param = nope"]].concat();
            refused_there(&name, &text, n, &line.with(line.results, &unknown));
            for (i, argument) in line.arguments.iter().enumerate() {
                let mut arguments = line.arguments.clone();
                arguments.push(argument);
                refused_there(&name, &text, n, &line.with(line.results, &arguments));
                let (parameter, value) = argument.split_once(" = ").unwrap();
                for wrong in
                    ["nope", "1", "string(\"x\")", "()", "(nope, nope)", "fp99(1)", "", "tensor<fp16, [2]>"]
                {
                    let spelled = format!("{parameter} = {wrong}");
                    let mut arguments = line.arguments.clone();
                    arguments[i] = &spelled;
                    if value != wrong && !(wrong.starts_with("string") && is_text(&text, value)) {
                        refused_there(&name, &text, n, &line.with(line.results, &arguments));
                    }
                }
                // Written as an unknown parameter, and left out.
                let renamed = format!("{parameter}_x = {value}");
                arguments = line.arguments.clone();
                arguments[i] = &renamed;
                refused_there(&name, &text, n, &line.with(line.results, &arguments));
                arguments.remove(i);
                if REQUIRED.contains(&parameter) {
                    refused_there(&name, &text, n, &line.with(line.results, &arguments));
                } else if let Err(e) =
                    check(&replaced(&text, n, &line.with(line.results, &arguments)), &NoWeights)
                {
                    assert!(e.line.abs_diff(n + 1) <= 1, "{name}: {e}");
                }
            }
        }
    }
}

/// Whether an identifier is that of a string.
fn is_text(text: &str, identifier: &str) -> bool {
    [format!("string {identifier} ="), format!("tensor<string, []> {identifier} =")]
        .iter()
        .any(|s| text.contains(s))
}

#[test]
fn names_are_defined_once_and_before_they_are_used() {
    for (name, text) in texts() {
        let lines: Vec<&str> = text.lines().collect();
        let mut defined = BTreeSet::new();
        let mut start = 0;
        for (n, whole) in lines.iter().enumerate() {
            if whole.starts_with("    func ") {
                (defined, start) = (BTreeSet::new(), n + 1);
            }
            let Some(line) = Line::of(whole) else { continue };
            let twice = [&lines[..=n], &lines[n..]].concat().join("\n");
            let error = refused(&name, &twice, whole);
            assert!(error.line.abs_diff(n + 2) <= 1, "{name}: {whole}: {error}");
            let uses =
                |argument: &&str| defined.iter().any(|d: &&str| argument.ends_with(&format!(" = {d}")));
            if line.arguments.iter().any(uses) {
                let moved =
                    [&lines[..start], &lines[n..=n], &lines[start..n], &lines[n + 1..]].concat().join("\n");
                let error = refused(&name, &moved, whole);
                assert!(error.line.abs_diff(start + 1) <= 1, "{name}: {whole}: {error}");
            }
            defined.insert(line.results.rsplit(' ').next().unwrap());
            let unknown = whole.replacen(&format!(" = {}(", line.op), &format!(" = {}_x(", line.op), 1);
            refused_there(&name, &text, n, &unknown);
        }
    }
}

#[test]
fn statements_are_spelled_as_the_grammar_has_it() {
    for (name, text) in texts() {
        for (n, whole, line) in statements(&text) {
            let cut = &whole[..whole.len() / 2];
            let until: Vec<&str> = text.lines().take(n).chain([cut]).collect();
            refused(&name, &until.join("\n"), cut);
            for (from, to) in [
                (";", ""),
                ("(", " "),
                (")", " "),
                ("[", " "),
                (" = ", " $ "),
                (" = ", " "),
                ("\")", ")"),
                ("string", "strong"),
                ("];", "]];"),
                ("];", ", name = string(\"x\")];"),
                ("name = string(\"", "name = int32(\""),
                ("name = string(\"", "name = string(1\""),
                ("fp16", "fp17"),
                ("fp16, [", "fp16, "),
                ("fp16, [", "fp16, [-"),
                ("fp16, [", "fp16, [99999999999999999999, "),
                ("int32(", "int32(1x"),
                ("int32(", "int32(0.5, "),
                ("int32(", "int32(99999999999"),
                ("bool(", "bool(1"),
                ("([", "([1, 1, 1, 1, 1, 1, 1, 1, 1, "),
                (", val = ", ", vel = "),
                ("BLOBFILE(", "BLOB("),
                ("(path = ", "(pith = "),
                ("(path = ", "(path = int32(1), path = "),
                ("offset = uint64(", "offset = int64(-"),
                ("offset = uint64(", "offset = string(\"1\"), x = uint64("),
            ] {
                if whole.contains(from) && !(from == "fp16" && line.attributes.contains("fp16\"")) {
                    refused_there(&name, &text, n, &whole.replacen(from, to, 1));
                }
            }
        }
    }
}

#[test]
fn functions_are_framed_as_the_grammar_has_it() {
    for (name, text) in texts() {
        for (n, whole) in text.lines().enumerate() {
            let changes: &[(&str, &str)] = if whole.starts_with("program(") {
                &[("1.", ""), ("(1.", "(7."), ("program", "programme"), (")", "")]
            } else if whole.starts_with("[buildInfo") {
                &[("]", ""), ("= ", ""), ("dict<", "dict"), ("\"", ""), ("}", "")]
            } else if whole.starts_with("    func ") {
                &[
                    ("<ios1", "<ias1"),
                    ("func ", "fun "),
                    (" {", ""),
                    ("main<", "main("),
                    ("(", "(fp16 same, fp16 same, "),
                ]
            } else if whole.starts_with("        } -> ") {
                &[("-> (", "-> (nope, "), (" -> ", " "), (";", ""), ("(", ""), ("}", "")]
            } else {
                &[]
            };
            for (from, to) in changes.iter().filter(|(from, _)| whole.contains(from)) {
                refused_there(&name, &text, n, &whole.replacen(from, to, 1));
            }
        }
        let end = text.trim_end();
        for cut in [&end[..end.len() - 1], &format!("{end}}}"), &format!("{end} x"), ""] {
            refused(&name, cut, "the end");
        }
    }
}

/// A parameter of another type or outside its range.
#[test]
fn parameters_have_the_types_of_their_definitions() {
    for (name, text) in texts() {
        for (n, whole, line) in statements(&text) {
            let Some((ty, identifier)) = line.results.split_once(' ').filter(|_| line.op == "const") else {
                continue;
            };
            // Those that the writer makes are named by op and parameter.
            let used_as_parameter = text.lines().filter_map(Line::of).any(|user| {
                user.op != "const"
                    && user.arguments.iter().any(|a| {
                        let (parameter, value) = a.split_once(" = ").unwrap();
                        value == identifier && identifier.ends_with(&format!("_{parameter}"))
                    })
            });
            if !used_as_parameter {
                continue;
            }
            let others: &[&str] = match ty.trim_end_matches(", []>").trim_start_matches("tensor<") {
                "int32" => &["fp32(0.5)", "bool(true)", "string(\"1\")", "tensor<int32, [2]>([0, 1])"],
                "bool" => &["int32(0)", "fp16(0)", "string(\"true\")", "tensor<bool, [1]>([true])"],
                "string" => &["int32(1)", "string(\"nothing of this kind\")"],
                _ => &[],
            };
            let far: &[&str] = if identifier.ends_with("_axis") { &["int32(-99)", "int32(5)"] } else { &[] };
            for other in others.iter().chain(far) {
                let ty = other.split('(').next().unwrap();
                let line = format!("{ty} {identifier} = const()[name = string(\"c\"), val = {other}];");
                let error = refused(&name, &replaced(&text, n, &line), &line);
                assert!(error.line > n, "{name}: {whole}: {error}");
            }
        }
    }
}
