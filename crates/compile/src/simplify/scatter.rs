//! Sums of a value and of what is scattered into zeros.

use arcane_mil::{Binary, Function, Op, Rewriter, ScatterMode, ValueId};

/// Scatters into what is there: `a + scatter_add(0, i, u)` becomes `scatter_add(a, i, u)`, for `scatter` and
/// `scatter_along_axis`, where the shapes are equal and nothing else uses the scatter.
///
/// Where an index repeats, the updates are added to `a` one by one instead of to each other first, so the sum is rounded
/// otherwise; and a −0 of `a` that nothing is added to stays −0.
#[must_use]
pub fn scatter_into(f: &Function) -> Function {
    let uses = count_uses(f);
    let definitions = f.definitions();
    let definition = |v: ValueId| definitions[v.index()].map(|i| &f.operations()[i].op);
    let accumulated = |op: &Op| {
        let Op::Binary { kind: Binary::Add, x, y } = op else { return None };
        [(*x, *y), (*y, *x)].into_iter().find_map(|(a, scatter)| {
            let fits = uses[scatter.index()] == 1 && f.ty(a) == f.ty(scatter);
            if fits { into(definition(scatter)?, a, definition) } else { None }
        })
    };
    let mut rewriter = Rewriter::new(f);
    rewriter.copy_parameters();
    for operation in f.operations() {
        match accumulated(&operation.op) {
            Some(op) => {
                let op = op.map_operands(|v| rewriter.get(v));
                rewriter.replace(operation, op);
            }
            None => rewriter.copy(operation),
        }
    }
    rewriter.finish()
}

/// `scatter`, if it adds to zeros, with `a` in place of the zeros.
fn into<'a>(scatter: &Op, a: ValueId, definition: impl Fn(ValueId) -> Option<&'a Op>) -> Option<Op> {
    let (mut op, zeros) = match scatter {
        Op::Scatter { data, mode: ScatterMode::Add, .. }
        | Op::ScatterAlongAxis { data, mode: ScatterMode::Add, .. } => (scatter.clone(), *data),
        _ => return None,
    };
    if !matches!(definition(zeros)?, Op::Fill { value, .. } if *value == 0.0) {
        return None;
    }
    if let Op::Scatter { data, .. } | Op::ScatterAlongAxis { data, .. } = &mut op {
        *data = a;
    }
    Some(op)
}

/// How often each value is an operand or an output.
fn count_uses(f: &Function) -> Vec<usize> {
    let mut uses = vec![0; f.values().len()];
    for operation in f.operations() {
        for v in operation.op.operands() {
            uses[v.index()] += 1;
        }
    }
    for o in f.outputs() {
        uses[o.value.index()] += 1;
    }
    uses
}
