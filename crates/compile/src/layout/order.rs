//! In which order the elements of a value lie in memory.

/// The order of a value's elements.
///
/// Each axis is a product of *atoms*, slowest first; axes of length 1 have none. Memory holds the atoms in some order. A
/// reshape regroups atoms, a transpose permutes axes: neither moves an element. Only what has to have its atoms elsewhere
/// does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Sizes of the atoms in the order of the axes; none is 1.
    atoms: Vec<usize>,
    /// The number of atoms of each axis.
    axes: Vec<usize>,
    /// The atoms, slowest in memory first.
    memory: Vec<usize>,
}

/// The finest factors that two lists of factors of one number have in common, if there are such.
fn refined(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let products = |list: &[usize]| -> Vec<usize> {
        list.iter()
            .rev()
            .scan(1, |p, &d| {
                *p *= d;
                Some(*p)
            })
            .collect()
    };
    let mut boundaries = [products(a), products(b)].concat();
    boundaries.sort_unstable();
    boundaries.dedup();
    let mut factors = Vec::with_capacity(boundaries.len());
    let mut before = 1;
    for product in boundaries {
        if product == 1 {
            continue;
        }
        if product % before != 0 {
            return None;
        }
        factors.push(product / before);
        before = product;
    }
    factors.reverse();
    Some(factors)
}

impl Order {
    /// Row-major.
    pub(super) fn natural(shape: &[usize]) -> Self {
        let atoms: Vec<usize> = shape.iter().copied().filter(|&d| d != 1).collect();
        let axes = shape.iter().map(|&d| usize::from(d != 1)).collect();
        let memory = (0..atoms.len()).collect();
        Self { atoms, axes, memory }
    }

    /// The last axis first: channels before positions.
    pub(super) fn channels_first(shape: &[usize]) -> Self {
        let mut order = Self::natural(shape);
        if shape.last().is_some_and(|&d| d != 1) {
            order.memory.rotate_right(1);
        }
        order
    }

    /// The number of axes.
    pub(super) fn rank(&self) -> usize {
        self.axes.len()
    }

    /// The range of an axis's atoms.
    pub(super) fn axis(&self, axis: usize) -> std::ops::Range<usize> {
        let start = self.axes[..axis].iter().sum();
        start..start + self.axes[axis]
    }

    /// The axis of an atom.
    pub(super) fn axis_of(&self, atom: usize) -> usize {
        (0..self.rank()).find(|&a| self.axis(a).contains(&atom)).expect("every atom has an axis")
    }

    /// The size of an atom.
    pub(super) fn size(&self, atom: usize) -> usize {
        self.atoms[atom]
    }

    /// The sizes of an axis's atoms.
    pub(super) fn sizes(&self, axis: usize) -> Vec<usize> {
        self.atoms[self.axis(axis)].to_vec()
    }

    /// The atoms, slowest in memory first.
    pub(super) fn memory(&self) -> &[usize] {
        &self.memory
    }

    /// The sizes of the atoms in memory.
    pub(super) fn memory_sizes(&self) -> Vec<usize> {
        self.memory.iter().map(|&a| self.atoms[a]).collect()
    }

    /// Replaces the order in memory.
    pub(super) fn set_memory(&mut self, memory: Vec<usize>) {
        debug_assert_eq!(memory.len(), self.atoms.len());
        self.memory = memory;
    }

    /// The same with leading axes of length 1, up to a rank.
    pub(super) fn with_rank(mut self, rank: usize) -> Self {
        while self.axes.len() < rank {
            self.axes.insert(0, 0);
        }
        self
    }

    /// Cuts the atoms of an axis into finer ones, which lie where the coarser one lay.
    fn refine_all(&mut self, finer: &[usize]) {
        let mut pieces = finer.iter().copied();
        let (mut atoms, mut starts) = (Vec::new(), Vec::new());
        for &atom in &self.atoms {
            starts.push(atoms.len());
            let mut left = atom;
            while left > 1 {
                let piece = pieces.next().expect("finer factors of the same number");
                atoms.push(piece);
                left /= piece;
            }
        }
        starts.push(atoms.len());
        let mut cut = 0;
        for axis in &mut self.axes {
            let old = cut;
            cut += *axis;
            *axis = starts[cut] - starts[old];
        }
        self.memory = self.memory.iter().flat_map(|&a| starts[a]..starts[a + 1]).collect();
        self.atoms = atoms;
    }

    /// Cuts an axis into the common factors of its atoms and `sizes`; none if there are no such.
    pub(super) fn refine(&mut self, axis: usize, sizes: &[usize]) -> Option<()> {
        let range = self.axis(axis);
        let finer = refined(&self.atoms[range.clone()], sizes)?;
        let all = [&self.atoms[..range.start], &finer, &self.atoms[range.end..]].concat();
        self.refine_all(&all);
        Some(())
    }

    /// The order of the same elements under another shape.
    pub(super) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        let dims: Vec<usize> = shape.iter().copied().filter(|&d| d != 1).collect();
        let mut new = self.clone();
        new.refine_all(&refined(&self.atoms, &dims)?);
        let mut atoms = new.atoms.iter();
        new.axes = shape
            .iter()
            .map(|&d| {
                let (mut left, mut count) = (d, 0);
                while left > 1 {
                    left /= atoms.next().expect("as many elements as before");
                    count += 1;
                }
                count
            })
            .collect();
        Some(new)
    }

    /// The order of the transposed value: axis i of the result is axis `perm[i]`.
    pub(super) fn transpose(&self, perm: &[usize]) -> Self {
        let renamed: Vec<usize> = perm.iter().flat_map(|&a| self.axis(a)).collect();
        let position = |atom: usize| renamed.iter().position(|&r| r == atom).expect("a permutation");
        Self {
            atoms: renamed.iter().map(|&a| self.atoms[a]).collect(),
            axes: perm.iter().map(|&a| self.axes[a]).collect(),
            memory: self.memory.iter().map(|&a| position(a)).collect(),
        }
    }

    /// Merges the atoms of an axis into one, if they lie together and in order.
    pub(super) fn merge(&mut self, axis: usize) -> Option<()> {
        let range = self.axis(axis);
        if range.len() < 2 {
            return Some(());
        }
        let first = self.memory.iter().position(|&a| a == range.start)?;
        let together = self.memory.get(first..first + range.len())?;
        if !together.iter().copied().eq(range.clone()) {
            return None;
        }
        let size = self.atoms[range.clone()].iter().product();
        self.memory.drain(first + 1..first + range.len());
        for a in &mut self.memory {
            if *a >= range.end {
                *a -= range.len() - 1;
            }
        }
        self.atoms.splice(range, [size]);
        self.axes[axis] = 1;
        Some(())
    }

    /// Replaces the length of an axis of one atom, or of none, by another; a new atom lies right after the one that comes
    /// before it in the order of the axes.
    pub(super) fn resize(&mut self, axis: usize, size: usize) {
        let range = self.axis(axis);
        debug_assert!(range.len() < 2);
        match (range.is_empty(), size == 1) {
            (true, true) => {}
            (false, false) => self.atoms[range.start] = size,
            (false, true) => {
                self.memory.retain(|&a| a != range.start);
                self.memory.iter_mut().filter(|a| **a > range.start).for_each(|a| *a -= 1);
                self.atoms.remove(range.start);
                self.axes[axis] = 0;
            }
            (true, false) => {
                let at = range.start;
                self.memory.iter_mut().filter(|a| **a >= at).for_each(|a| *a += 1);
                let after = self.memory.iter().position(|&a| a + 1 == at).map_or(0, |p| p + 1);
                self.memory.insert(after, at);
                self.atoms.insert(at, size);
                self.axes[axis] = 1;
            }
        }
    }

    /// The order without the atoms of some axes: they have length 1 then.
    pub(super) fn without(&self, axes: &[usize]) -> Self {
        let kept: Vec<usize> = (0..self.atoms.len()).filter(|&a| !axes.contains(&self.axis_of(a))).collect();
        let position = |atom: usize| kept.iter().position(|&k| k == atom);
        Self {
            atoms: kept.iter().map(|&a| self.atoms[a]).collect(),
            axes: (0..self.rank()).map(|a| if axes.contains(&a) { 0 } else { self.axes[a] }).collect(),
            memory: self.memory.iter().filter_map(|&a| position(a)).collect(),
        }
    }

    /// The order without some axes, which have length 1.
    pub(super) fn drop_axes(mut self, axes: &[usize]) -> Self {
        let mut axis = 0;
        self.axes.retain(|&atoms| {
            let dropped = axes.contains(&axis);
            debug_assert!(!dropped || atoms == 0);
            axis += 1;
            !dropped
        });
        self
    }

    /// An order made of its parts.
    pub(super) fn from_parts(axes: &[Vec<usize>], memory: Vec<usize>) -> Self {
        let atoms: Vec<usize> = axes.concat();
        debug_assert_eq!(atoms.len(), memory.len());
        Self { atoms, axes: axes.iter().map(Vec::len).collect(), memory }
    }

    /// The lengths of the axes.
    pub(super) fn shape(&self) -> Vec<usize> {
        (0..self.rank()).map(|a| self.sizes(a).iter().product()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_that_splits_and_merges_moves_nothing() {
        let x = Order::channels_first(&[2, 32, 64]);
        assert_eq!(x.memory_sizes(), [64, 2, 32]);
        let heads = x.reshape(&[2, 32, 8, 8]).unwrap();
        assert_eq!((heads.memory_sizes(), heads.shape()), (vec![8, 8, 2, 32], vec![2, 32, 8, 8]));
        let swapped = heads.transpose(&[0, 2, 1, 3]);
        assert_eq!((swapped.memory_sizes(), swapped.shape()), (vec![8, 8, 2, 32], vec![2, 8, 32, 8]));
        let back = swapped.transpose(&[0, 2, 1, 3]).reshape(&[2, 32, 64]).unwrap();
        let mut merged = back.clone();
        merged.merge(2).unwrap();
        assert_eq!(merged, x);
    }

    #[test]
    fn groups_that_overlap_are_cut_at_common_factors() {
        let x = Order::natural(&[2, 8, 32, 8]).reshape(&[8, 2, 256]).unwrap();
        assert_eq!((x.sizes(0), x.sizes(1), x.sizes(2)), (vec![2, 4], vec![2], vec![32, 8]));
        assert_eq!(x.reshape(&[2, 4, 2, 32, 8]).unwrap(), Order::natural(&[2, 4, 2, 32, 8]));
        assert!(Order::natural(&[4, 6]).reshape(&[6, 4]).is_none());
        assert_eq!(Order::natural(&[4, 6]).reshape(&[8, 3]).unwrap().sizes(0), [4, 2]);
    }

    #[test]
    fn axes_grow_and_shrink_in_place() {
        let mut x = Order::channels_first(&[1, 4, 1, 8, 16]);
        assert_eq!(x.memory_sizes(), [16, 4, 8]);
        x.resize(2, 3);
        assert_eq!((x.memory_sizes(), x.shape()), (vec![16, 4, 3, 8], vec![1, 4, 3, 8, 16]));
        let mut heads = Order::channels_first(&[2, 8, 64]).reshape(&[2, 8, 4, 16]).unwrap();
        heads = heads.transpose(&[0, 2, 1, 3]).reshape(&[2, 4, 1, 8, 16]).unwrap();
        heads.resize(2, 3);
        assert_eq!((heads.memory_sizes(), heads.shape()), (vec![4, 3, 16, 2, 8], vec![2, 4, 3, 8, 16]));
        x.resize(2, 1);
        assert_eq!(x, Order::channels_first(&[1, 4, 1, 8, 16]));
        let less = x.without(&[1, 4]);
        assert_eq!((less.memory_sizes(), less.shape()), (vec![8], vec![1, 1, 1, 8, 1]));
    }
}
