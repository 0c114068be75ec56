//! Where intermediate values live: offsets in one arena, shared by values that are never alive together.

use crate::kernels::memory::ALIGNMENT;

/// A value's size and the first and last instruction that touches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Bytes.
    pub bytes: usize,
    /// First instruction.
    pub first: usize,
    /// Last instruction.
    pub last: usize,
}

/// An offset for each value, and the size of the arena: largest first, each at the lowest place where nothing that is
/// alive with it lies.
pub(super) fn place(lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lifetimes[i].bytes), i));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for i in order {
        let me = lifetimes[i];
        let bytes = me.bytes.next_multiple_of(ALIGNMENT);
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| lifetimes[j].first <= me.last && me.first <= lifetimes[j].last)
            .map(|&j| (offsets[j], offsets[j] + lifetimes[j].bytes.next_multiple_of(ALIGNMENT)))
            .collect();
        busy.sort_unstable();
        let mut at = 0;
        for (start, end) in busy {
            if at + bytes <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        size = size.max(at + bytes);
        placed.push(i);
    }
    (offsets, size)
}

#[cfg(test)]
mod tests {
    use super::{Lifetime, place};

    #[test]
    fn values_alive_together_do_not_overlap_and_others_share() {
        let lifetimes: Vec<Lifetime> = (0..60)
            .map(|i| Lifetime { bytes: 64 * (1 + i * 7 % 13), first: i * 5 % 40, last: i * 5 % 40 + i % 9 })
            .collect();
        let (offsets, size) = place(&lifetimes);
        for i in 0..lifetimes.len() {
            for j in 0..i {
                let (a, b) = (lifetimes[i], lifetimes[j]);
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(!together || apart, "{i} and {j} overlap");
            }
        }
        assert!(size < lifetimes.iter().map(|l| l.bytes).sum());
        let chain: Vec<Lifetime> = (0..10).map(|i| Lifetime { bytes: 640, first: i, last: i + 1 }).collect();
        assert_eq!(place(&chain).1, 2 * 640);
    }
}
