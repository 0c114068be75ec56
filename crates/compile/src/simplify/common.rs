//! Equal ops of equal operands, computed once.

use std::collections::HashMap;
use std::sync::Arc;

use arcane_mil::{Binary, Function, Op, Rewriter, Unary, ValueId};

use crate::canonical;

/// Constants up to this many bytes are compared by their elements, larger ones by identity.
const CONST_BYTES: usize = 1 << 16;

/// Computes equal ops of equal operands once, where they first occur. The operands of commutative ops may be swapped.
#[must_use]
pub fn common_subexpressions(f: &Function) -> Function {
    let mut rewriter = Rewriter::new(f);
    rewriter.copy_parameters();
    let mut seen: HashMap<Vec<u8>, Vec<ValueId>> = HashMap::new();
    for operation in f.operations() {
        let op = operation.op.map_operands(|v| rewriter.get(v));
        // An identity is there to be a value of its own: an output.
        if matches!(op, Op::Unary { kind: Unary::Identity, .. }) {
            rewriter.replace(operation, op);
            continue;
        }
        let key = key(&op);
        if let Some(results) = seen.get(&key) {
            for (&old, &new) in operation.results.iter().zip(results) {
                rewriter.set(old, new);
            }
        } else {
            rewriter.replace(operation, op);
            seen.insert(key, operation.results.iter().map(|&r| rewriter.get(r)).collect());
        }
    }
    rewriter.finish()
}

fn key(op: &Op) -> Vec<u8> {
    let mut key = Vec::new();
    match op {
        Op::Const(t) if t.bytes().len() > CONST_BYTES => {
            canonical::text(&mut key, "large const");
            canonical::number(&mut key, Arc::as_ptr(t).addr());
        }
        Op::Binary { kind: kind @ (Binary::Add | Binary::Mul), x, y } if y < x => {
            canonical::op(&mut key, &Op::Binary { kind: *kind, x: *y, y: *x });
        }
        Op::Logical { kind, x, y } if y < x => {
            canonical::op(&mut key, &Op::Logical { kind: *kind, x: *y, y: *x });
        }
        _ => canonical::op(&mut key, op),
    }
    key
}
