//! Random numbers that are a function of a seed.

use arcane_tensor::DType;

/// How random numbers are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// `random_uniform`: evenly from `low` up to `high`.
    Uniform {
        /// The lowest number.
        low: f64,
        /// What no number reaches, before it is rounded.
        high: f64,
    },
    /// `random_normal`.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
    /// `random_bernoulli`: 1 with a probability, else 0.
    Bernoulli {
        /// The probability of 1.
        probability: f64,
    },
}

/// A tensor of random numbers.
///
/// MIL defines the distribution only. Here element i is a function of the seed and i, the same on every engine: with u(k) the
/// upper 53 bits of output k of `SplitMix64` (Steele, Lea and Flood 2014), which starts at the seed's own output, as a fraction,
/// it is low + (high − low)·u(i); mean + deviation·√(−2 ln(1 − u(2i)))·cos(2π·u(2i + 1)) (Box and Muller 1958); or whether
/// u(i) is below the probability. A seed of −1, which MIL takes for none, is a seed like any other.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// How the numbers are distributed.
    pub distribution: Distribution,
    /// The seed.
    pub seed: i32,
    /// The shape.
    pub shape: Vec<usize>,
    /// The dtype, a float type.
    pub dtype: DType,
}

/// The step of `SplitMix64`: 2⁶⁴ divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The name in MIL.
    pub(super) const fn name(&self) -> &'static str {
        match self.distribution {
            Distribution::Uniform { .. } => "random_uniform",
            Distribution::Normal { .. } => "random_normal",
            Distribution::Bernoulli { .. } => "random_bernoulli",
        }
    }

    /// Its numbers by their names in MIL.
    pub(crate) fn numbers(&self) -> Vec<(&'static str, f64)> {
        match self.distribution {
            Distribution::Uniform { low, high } => vec![("low", low), ("high", high)],
            Distribution::Normal { mean, deviation } => vec![("mean", mean), ("stddev", deviation)],
            Distribution::Bernoulli { probability } => vec![("prob", probability)],
        }
    }

    /// Element i in row-major order, before it is rounded.
    pub fn element(&self, i: usize) -> f64 {
        let i = i as u64;
        match self.distribution {
            Distribution::Uniform { low, high } => low + (high - low) * self.fraction(i),
            Distribution::Normal { mean, deviation } => {
                let radius = (-2.0 * (1.0 - self.fraction(2 * i)).ln()).sqrt();
                let angle = 2.0 * std::f64::consts::PI * self.fraction(2 * i + 1);
                mean + deviation * radius * angle.cos()
            }
            Distribution::Bernoulli { probability } => {
                if self.fraction(i) < probability {
                    1.0
                } else {
                    0.0
                }
            }
        }
    }

    /// u(k), below 1.
    fn fraction(&self, k: u64) -> f64 {
        let start = mixed((self.seed as u64).wrapping_add(STEP));
        let bits = mixed(start.wrapping_add(k.wrapping_add(1).wrapping_mul(STEP)));
        (bits >> 11) as f64 * 2f64.powi(-53)
    }
}

/// The output function of `SplitMix64`.
fn mixed(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use arcane_tensor::DType;

    use super::{Distribution, Random, STEP, mixed};

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs of the authors' code for the seed 1234567.
        let outputs = [1u64, 2, 3].map(|k| mixed(1_234_567u64.wrapping_add(k.wrapping_mul(STEP))));
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    /// Mean and variance of many elements.
    fn moments(distribution: Distribution, seed: i32) -> (f64, f64) {
        let random = Random { distribution, seed, shape: vec![], dtype: DType::F32 };
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| random.element(i)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        (mean, values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64)
    }

    #[test]
    fn elements_have_the_moments_of_their_distribution() {
        let close = |(mean, variance): (f64, f64), wanted: (f64, f64)| {
            assert!(
                (mean - wanted.0).abs() < 0.03 && (variance - wanted.1).abs() < 0.05,
                "{mean} {variance}"
            );
        };
        for seed in [0, 1, -1, i32::MAX] {
            close(moments(Distribution::Uniform { low: -1.0, high: 2.0 }, seed), (0.5, 0.75));
            close(moments(Distribution::Normal { mean: 3.0, deviation: 0.5 }, seed), (3.0, 0.25));
            close(moments(Distribution::Bernoulli { probability: 0.25 }, seed), (0.25, 0.1875));
        }
    }

    #[test]
    fn seeds_and_elements_differ() {
        let of = |seed, i| {
            let distribution = Distribution::Uniform { low: 0.0, high: 1.0 };
            Random { distribution, seed, shape: vec![], dtype: DType::F32 }.element(i)
        };
        assert_ne!(of(0, 0), of(0, 1));
        assert_ne!(of(0, 0), of(1, 0));
        // Neighbouring seeds are no shifted copies of each other.
        assert_ne!(of(0, 1), of(1, 0));
        assert_eq!(of(7, 9), of(7, 9));
    }
}
