//! Functions as short text, and such text against files in `tests/cases`. `UPDATE=1` writes the files anew; read the
//! difference.

use std::fmt::Write;
use std::path::Path;

use arcane_mil::{Function, Op, TensorType, Unary, ValueId};

/// The most elements of a constant that are listed.
const LISTED: usize = 16;

/// A line for each op, with a note before it. Constants of one number stand where they are used.
pub(crate) fn listing(f: &Function, note: impl Fn(usize) -> String) -> String {
    let mut names: Vec<String> = (0..f.values().len()).map(|v| format!("%{v}")).collect();
    let mut text = String::new();
    for p in f.parameters() {
        names[p.value.index()].clone_from(&p.name);
        writeln!(text, "  {}: {} {:?}", p.name, ty(f.ty(p.value)), p.role).unwrap();
    }
    for (i, operation) in f.operations().iter().enumerate() {
        let number = match &operation.op {
            Op::Const(t) if t.len() == 1 => Some(t.get(0)),
            Op::Fill { shape, value, .. } if shape.iter().all(|&d| d == 1) => Some(*value),
            _ => None,
        };
        let results = &operation.results;
        if let Some(number) = number {
            names[results[0].index()] = format!("{number}");
            continue;
        }
        let typed = |v: &ValueId| format!("{} {}", names[v.index()], ty(f.ty(*v)));
        let results: Vec<String> = results.iter().map(typed).collect();
        let operands = operation.op.operands().into_iter().map(|v| names[v.index()].clone());
        let arguments: Vec<String> = operands.chain(parameters(&operation.op)).collect();
        let (name, note) = (operation.op.name(), note(i));
        writeln!(text, "  {note}{} = {name}({})", results.join(", "), arguments.join(", ")).unwrap();
    }
    for (i, o) in f.outputs().iter().enumerate() {
        let over = f.aliases().iter().find(|a| a.output == i).map(|a| &f.parameters()[a.parameter].name);
        let over = over.map_or(String::new(), |p| format!(", overwrites {p}"));
        writeln!(text, "  {}: {}{over}", o.name, names[o.value.index()]).unwrap();
    }
    text
}

fn ty(ty: &TensorType) -> String {
    if ty.shape.is_empty() { ty.dtype.name().into() } else { format!("{}{:?}", ty.dtype.name(), ty.shape) }
}

/// What an op has beside its operands and the types of its results.
fn parameters(op: &Op) -> Vec<String> {
    match op {
        Op::Const(t) if t.len() <= LISTED => vec![format!("{:?}", t.to_f64s())],
        Op::Fill { value, .. } => vec![value.to_string()],
        Op::Unary { kind: Unary::Rsqrt { epsilon } | Unary::Log { epsilon }, .. } => {
            vec![epsilon.to_string()]
        }
        Op::Reduce { axes, .. } => vec![format!("axes {axes:?}")],
        Op::Softmax { axis, .. } | Op::Concat { axis, .. } | Op::Split { axis, .. } => {
            vec![format!("axis {axis}")]
        }
        Op::Gather { axis, .. } | Op::GatherAlongAxis { axis, .. } => vec![format!("axis {axis}")],
        Op::Scatter { axis, mode, .. } | Op::ScatterAlongAxis { axis, mode, .. } => {
            vec![format!("axis {axis}"), mode.name().into()]
        }
        Op::Matmul { transpose_x, transpose_y, .. } => [(transpose_x, "xᵀ"), (transpose_y, "yᵀ")]
            .into_iter()
            .filter(|(is, _)| **is)
            .map(|(_, name)| name.to_string())
            .collect(),
        Op::Transpose { perm, .. } => vec![format!("{perm:?}")],
        Op::Tile { reps, .. } => vec![format!("{reps:?}")],
        _ => Vec::new(),
    }
}

/// Compares a text with `tests/cases/CASE.txt`.
#[track_caller]
pub(crate) fn check(case: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{case}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some((n, (found, wanted))) =
        text.lines().zip(expected.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("{case}.txt:{}: found\n{found}\nexpected\n{wanted}", n + 1);
    }
    assert_eq!(text.len(), expected.len(), "{case}.txt has another length");
}
