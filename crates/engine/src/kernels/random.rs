//! Random numbers, each a function of the op's seed and its place.

use arcane_mil::Random;
use arcane_tensor::round_to;

use super::lines::store;
use super::{Access, Bytes, Context, for_each_task};

/// Elements of a task.
const TASK: usize = 4 * 1024;

/// A tensor of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub random: Random,
    /// Dense.
    pub out: Access,
}

impl Numbers {
    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (out, n) = (Bytes(context.pointer(&self.out)), self.out.len());
        for_each_task(n.div_ceil(TASK), &|t| {
            for i in t * TASK..((t + 1) * TASK).min(n) {
                let element = round_to(self.out.dtype, self.random.element(i));
                // SAFETY: the result has n elements; tasks write disjoint ones.
                unsafe { store(self.out.dtype, out.get(), i, element) };
            }
        });
    }
}
