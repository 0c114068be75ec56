//! Which sequences an update takes.

use std::num::NonZeroU64;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::config::{Config, DataOrder};

/// The tag of the order of sequences; a pass over the data is a stream.
const DATA_ORDER: &[u8] = b"data order";

/// The order in which the sequences of a data set are taken: position 0, 1, 2, ... of the run to the sequence's number.
///
/// Update `k` with `n` sequences takes the positions `k·n .. (k+1)·n`, micro-batch after micro-batch. The position is all
/// that a checkpoint has to keep. At the end of the data both orders go on with the next pass (epoch), also in the middle of
/// a batch.
#[derive(Debug, Clone)]
pub struct Order {
    sequences: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Sequential { first: u64 },
    Shuffled { seed: u64, epoch: u64, permutation: Vec<u64> },
}

impl Order {
    /// The sequences as they stand in the file, from number `first` on (modulo their number), around and around.
    pub fn sequential(sequences: NonZeroU64, first: u64) -> Self {
        let sequences = sequences.get();
        Self { sequences, kind: Kind::Sequential { first: first % sequences } }
    }

    /// Each pass over the data in its own permutation, a function of the seed and the pass alone.
    pub fn shuffled(sequences: NonZeroU64, seed: u64) -> Self {
        let sequences = sequences.get();
        Self {
            sequences,
            kind: Kind::Shuffled { seed, epoch: 0, permutation: permutation(sequences, seed, DATA_ORDER, 0) },
        }
    }

    /// The order of a configuration over so many sequences.
    pub fn new(config: &Config, sequences: NonZeroU64) -> Self {
        match config.data.order {
            DataOrder::Sequential => Self::sequential(sequences, config.data.first_sequence),
            DataOrder::Shuffle => Self::shuffled(sequences, config.train.seed),
        }
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> u64 {
        self.sequences
    }

    /// The sequence at a position. Any position may be asked for; going from one epoch to another costs a shuffle.
    pub fn sequence(&mut self, position: u64) -> u64 {
        let (new_epoch, index) = (position / self.sequences, position % self.sequences);
        match &mut self.kind {
            Kind::Sequential { first } => {
                let room = self.sequences - *first;
                if index < room { *first + index } else { index - room }
            }
            Kind::Shuffled { seed, epoch, permutation: cached } => {
                if *epoch != new_epoch {
                    *epoch = new_epoch;
                    *cached = permutation(self.sequences, *seed, DATA_ORDER, new_epoch);
                }
                cached[index as usize]
            }
        }
    }
}

/// Fisher and Yates' shuffle of `0..n`, with `ChaCha8` keyed by the seed and a tag for what it is used for.
pub(crate) fn permutation(n: u64, seed: u64, tag: &[u8], stream: u64) -> Vec<u64> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..8 + tag.len()].copy_from_slice(tag);
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream);
    let mut order: Vec<u64> = (0..n).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, below(&mut rng, i as u64 + 1) as usize);
    }
    order
}

/// A number below `n > 0`, all of them equally likely (Lemire 2019: the high half of a product, rejecting the few low
/// halves that would favour some results).
pub(crate) fn below(rng: &mut impl Rng, n: u64) -> u64 {
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: u64) -> NonZeroU64 {
        NonZeroU64::new(n).unwrap()
    }

    fn take(order: &mut Order, positions: std::ops::Range<u64>) -> Vec<u64> {
        positions.map(|p| order.sequence(p)).collect()
    }

    #[test]
    fn sequential_starts_at_the_first_and_wraps() {
        let mut order = Order::sequential(count(5), 3);
        assert_eq!(take(&mut order, 0..8), [3, 4, 0, 1, 2, 3, 4, 0]);
        // 2^64 - 1 is a multiple of 5.
        assert_eq!(order.sequence(u64::MAX), 3);
        assert_eq!(Order::sequential(count(5), 8).sequence(0), 3);
        assert_eq!(Order::sequential(count(1), 0).sequence(7), 0);
    }

    #[test]
    fn every_epoch_is_another_permutation() {
        let mut order = Order::shuffled(count(100), 7);
        let epochs: Vec<Vec<u64>> = (0..3).map(|e| take(&mut order, e * 100..(e + 1) * 100)).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
        assert_ne!(epochs[0], take(&mut Order::shuffled(count(100), 8), 0..100));
    }

    #[test]
    fn a_position_alone_is_enough_to_resume() {
        let mut straight = Order::shuffled(count(17), 3);
        let all = take(&mut straight, 0..100);
        for start in [0, 16, 17, 40, 99] {
            let mut resumed = Order::shuffled(count(17), 3);
            assert_eq!(take(&mut resumed, start..100), all[start as usize..]);
        }
        // Also backwards.
        assert_eq!(straight.sequence(5), all[5]);
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        assert_eq!(permutation(8, 0, DATA_ORDER, 0), GOLDEN_0);
        assert_eq!(permutation(8, 1, DATA_ORDER, 2), GOLDEN_1);
    }

    const GOLDEN_0: [u64; 8] = [4, 6, 2, 1, 3, 7, 5, 0];
    const GOLDEN_1: [u64; 8] = [2, 3, 0, 5, 6, 1, 4, 7];

    #[test]
    fn all_permutations_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(permutation(3, 11, DATA_ORDER, epoch)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations of 6000 draws at 1/6.
        assert!(counts.values().all(|&n: &i32| (n - 1000).abs() < 145), "{counts:?}");
    }
}
