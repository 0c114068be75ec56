//! The adjoints that are known so far.

use arcane_mil::{BuildError, Builder, ValueId};

use crate::broadcast;

/// What a rule reads adjoints from and gives adjoints to.
pub(crate) struct Adjoints<'a> {
    /// The function that the derivative is appended to.
    pub(crate) f: &'a mut Builder,
    /// For each value of the forward function whether its adjoint is of use.
    pub(crate) on_way: &'a [bool],
    /// The adjoint of each such value; its shape broadcasts to the value's.
    pub(crate) found: &'a mut [Option<ValueId>],
}

impl Adjoints<'_> {
    /// Whether the adjoint of a value is of use.
    pub(crate) fn needs(&self, v: ValueId) -> bool {
        self.on_way[v.index()]
    }

    /// The adjoint of the single result of the op that is being differentiated, of a shape that broadcasts to the result's.
    pub(crate) fn of(&self, result: ValueId) -> ValueId {
        self.found[result.index()].expect("an op is differentiated once its result has an adjoint")
    }

    /// As [`Self::of`], of the result's own shape.
    pub(crate) fn full(&mut self, result: ValueId) -> Result<ValueId, BuildError> {
        let g = self.of(result);
        let shape = self.f.shape(result);
        let full = broadcast::materialise(self.f, g, &shape)?;
        self.found[result.index()] = Some(full);
        Ok(full)
    }

    /// Adds to the adjoint of `v` what `build` builds, of a shape that broadcasts to v's. Nothing is built where the adjoint
    /// is of no use.
    pub(crate) fn give(
        &mut self,
        v: ValueId,
        build: impl FnOnce(&mut Builder) -> Result<ValueId, BuildError>,
    ) -> Result<(), BuildError> {
        if self.needs(v) {
            let new = build(self.f)?;
            let sum = match self.found[v.index()] {
                Some(old) => self.f.add(old, new)?,
                None => new,
            };
            self.found[v.index()] = Some(sum);
        }
        Ok(())
    }

    /// As [`Self::give`] for an operand that was broadcast to `shape`: what is built broadcasts to `shape` and is summed over
    /// the dimensions that `v` has not.
    pub(crate) fn give_reduced(
        &mut self,
        v: ValueId,
        shape: &[usize],
        build: impl FnOnce(&mut Builder) -> Result<ValueId, BuildError>,
    ) -> Result<(), BuildError> {
        self.give(v, |f| {
            let g = build(f)?;
            let target = f.shape(v);
            broadcast::reduce_to(f, g, shape, &target)
        })
    }
}
