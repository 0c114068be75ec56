//! Values that are known while a text is read: shapes that a program computes from the shapes of its values, as exporters
//! write them, and what follows from inputs that are given.

use std::collections::HashMap;
use std::sync::Arc;

use arcane_tensor::Tensor;

use crate::evaluate::evaluate_op;
use crate::{Function, Operation, ValueId};

/// Most elements of an array that is followed.
const LIMIT: usize = 4096;

/// Values beside constants that are known.
#[derive(Default)]
pub(super) struct KnownValues {
    found: HashMap<ValueId, Known>,
}

struct Known {
    tensor: Arc<Tensor>,
    /// Whether it depends on given inputs.
    given: bool,
}

impl KnownValues {
    /// A parameter whose value is given.
    pub(super) fn give(&mut self, v: ValueId, tensor: &Tensor) {
        self.found.insert(v, Known { tensor: Arc::new(tensor.clone()), given: true });
    }

    /// A value; one that depends on given inputs only if `inputs` says so.
    pub(super) fn get(&self, v: ValueId, inputs: bool) -> Option<Arc<Tensor>> {
        self.found.get(&v).filter(|known| inputs || !known.given).map(|known| known.tensor.clone())
    }

    /// Computes the results of the function's last op, if its operands are known and all are small.
    pub(super) fn follow(&mut self, function: &Function, constants: &HashMap<ValueId, Arc<Tensor>>) {
        let Some(Operation { op, results }) = function.operations().last() else { return };
        let small = |&v: &ValueId| function.ty(v).len() <= LIMIT;
        if !results.iter().all(small) {
            return;
        }
        let mut given = false;
        let mut operands = HashMap::new();
        if !op.reads_only_types() {
            for v in op.operands() {
                let tensor = match (constants.get(&v), self.found.get(&v)) {
                    (Some(tensor), _) => tensor,
                    (None, Some(known)) => {
                        given |= known.given;
                        &known.tensor
                    }
                    (None, None) => return,
                };
                if !small(&v) {
                    return;
                }
                operands.insert(v, tensor.clone());
            }
        }
        let Some(tensors) = evaluate_op(function, op, results, &operands) else { return };
        for (&v, tensor) in results.iter().zip(tensors) {
            self.found.insert(v, Known { tensor: Arc::new(tensor), given });
        }
    }
}
