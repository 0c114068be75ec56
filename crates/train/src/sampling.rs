//! From logits to the next token.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// What the logits are divided by; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the K most likely tokens are candidates; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability are candidates (nucleus sampling, Holtzman et al.
    /// 2020); 1 for all.
    pub top_p: f64,
    /// What the positive logits of tokens that have occurred are divided by, and the negative ones multiplied with (Keskar
    /// et al. 2019); 1 for no penalty.
    pub repetition_penalty: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 0, top_p: 0.95, repetition_penalty: 1.0, seed: 0 }
    }
}

/// Draws tokens; what it draws is a function of the seed, the logits and the tokens that have occurred.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    occurred: Vec<bool>,
    /// Logits and tokens that may be drawn; kept for its memory.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler over `vocab` tokens, none of which has occurred.
    pub fn new(sampling: Sampling, vocab: usize) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&sampling.seed.to_le_bytes());
        key[8..16].copy_from_slice(b"sampling");
        let candidates = Vec::with_capacity(vocab);
        Self { sampling, rng: ChaCha8Rng::from_seed(key), occurred: vec![false; vocab], candidates }
    }

    /// Takes note of a token of the text.
    pub fn note(&mut self, token: u32) {
        if let Some(occurred) = self.occurred.get_mut(token as usize) {
            *occurred = true;
        }
    }

    /// The next token. Of equal logits the lower token counts as the more likely one.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let penalty = self.sampling.repetition_penalty as f32;
        let occurred = &self.occurred;
        let penalised = logits.iter().enumerate().map(|(i, &logit)| {
            let has_occurred = penalty != 1.0 && occurred.get(i).is_some_and(|&o| o);
            let logit = match logit {
                logit if !has_occurred => logit,
                logit if logit > 0.0 => logit / penalty,
                logit => logit * penalty,
            };
            (logit, i as u32)
        });
        if self.sampling.temperature == 0.0 {
            let more = |a: (f32, u32), b: (f32, u32)| if b.0 > a.0 { b } else { a };
            return penalised.reduce(more).expect("a model has a vocabulary").1;
        }
        self.candidates.clear();
        self.candidates.extend(penalised);
        self.keep_likeliest();
        self.draw()
    }

    /// Leaves the `top_k` candidates, and turns their logits into unnormalised probabilities, the largest of which is 1.
    fn keep_likeliest(&mut self) {
        let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, descending);
            self.candidates.truncate(k);
            self.candidates.sort_unstable_by(descending);
        }
        let largest = self.candidates.iter().map(|c| c.0).fold(f32::NEG_INFINITY, f32::max);
        let factor = 1.0 / self.sampling.temperature;
        for (logit, _) in &mut self.candidates {
            *logit = (f64::from(*logit - largest) * factor).exp() as f32;
        }
        if self.sampling.top_p < 1.0 {
            // What is below an equal share of the mass to be left out cannot be among the likeliest.
            let total = self.total();
            let floor = (total * (1.0 - self.sampling.top_p) / self.candidates.len() as f64) as f32;
            self.candidates.retain(|c| c.0 >= floor);
            self.candidates.sort_unstable_by(descending);
            let wanted = total * self.sampling.top_p;
            let mut sum = 0.0;
            let kept = self.candidates.iter().position(|c| {
                sum += f64::from(c.0);
                sum >= wanted
            });
            self.candidates.truncate(kept.map_or(self.candidates.len(), |i| i + 1));
        }
    }

    fn total(&self) -> f64 {
        self.candidates.iter().map(|c| f64::from(c.0)).sum()
    }

    /// A candidate by its probability.
    fn draw(&mut self) -> u32 {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * self.total();
        let drawn = self.candidates.iter().find(|c| {
            left -= f64::from(c.0);
            left < 0.0
        });
        // Rounding may leave a rest after the last.
        drawn.or(self.candidates.last()).expect("the likeliest token is a candidate").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampling =
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };

    /// How often each token is drawn.
    fn histogram(sampling: Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(sampling, logits.len());
        let mut counts = vec![0; logits.len()];
        for _ in 0..draws {
            counts[sampler.next(logits) as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..PLAIN }, 4);
        assert_eq!(sampler.next(&[0.5, 2.0, 2.0, -1.0]), 1);
        assert_eq!(sampler.next(&[f32::NEG_INFINITY; 4]), 0);
    }

    #[test]
    fn frequencies_are_the_softmax_at_the_temperature() {
        let logits = [1.0f32, 0.0, -1.0, 3.0];
        for temperature in [0.5, 1.0, 2.0] {
            let counts = histogram(Sampling { temperature, ..PLAIN }, &logits, 40_000);
            let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                assert!((*count as f64 / 40_000.0 - weight / total).abs() < 0.01, "{counts:?}");
            }
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        let logits = [0.0f32, 2.0, 1.0, 1.9, -5.0];
        let drawn = |sampling| -> Vec<usize> {
            let counts = histogram(sampling, &logits, 2000);
            (0..5).filter(|&i| counts[i] > 0).collect()
        };
        assert_eq!(drawn(Sampling { top_k: 1, ..PLAIN }), [1]);
        assert_eq!(drawn(Sampling { top_k: 2, ..PLAIN }), [1, 3]);
        assert_eq!(drawn(Sampling { top_p: 1e-9, ..PLAIN }), [1]);
        // The probabilities are 0.05, 0.40, 0.15, 0.36 and 0.0004.
        assert_eq!(drawn(Sampling { top_p: 0.7, ..PLAIN }), [1, 3]);
        assert_eq!(drawn(Sampling { top_p: 0.8, ..PLAIN }), [1, 2, 3]);
        assert_eq!(drawn(Sampling { top_k: 9, top_p: 0.999, ..PLAIN }), [0, 1, 2, 3]);
    }

    #[test]
    fn what_has_occurred_is_penalised_on_both_sides_of_zero() {
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, repetition_penalty: 2.0, ..PLAIN }, 3);
        assert_eq!(sampler.next(&[1.0, 1.5, -4.0]), 1);
        sampler.note(1);
        assert_eq!(sampler.next(&[1.0, 1.5, -4.0]), 0);
        sampler.note(0);
        assert_eq!(sampler.next(&[-2.0, -3.0, -3.5]), 2);
    }

    #[test]
    fn draws_are_a_function_of_the_seed() {
        let draws = |seed| {
            let mut sampler = Sampler::new(Sampling { seed, ..PLAIN }, 50);
            (0..50).map(|_| sampler.next(&[0.0; 50])).collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }
}
