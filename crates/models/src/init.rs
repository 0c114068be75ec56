//! Random weights.

use arcane_tensor::Tensor;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{Init, LlamaConfig, ParameterSpec, parameters};

/// Random weights of a model, in the order of [`parameters`].
///
/// Each tensor has a generator of its own, keyed by the seed and the tensor's name, so that a tensor depends neither on the
/// others nor on their order.
pub fn initialize(config: &LlamaConfig, seed: u64) -> Vec<(String, Tensor)> {
    let draw = |spec: ParameterSpec| {
        let tensor = initialize_parameter(&spec, seed);
        (spec.name, tensor)
    };
    parameters(config).into_iter().map(draw).collect()
}

/// The random start of one parameter, fp32.
///
/// # Panics
/// If the shape has more elements than can be addressed.
pub fn initialize_parameter(spec: &ParameterSpec, seed: u64) -> Tensor {
    let n = arcane_tensor::element_count(&spec.shape).expect("the shape can be addressed");
    let values = match spec.init {
        Init::Ones => vec![1.0; n],
        Init::Normal { std } => normal(&mut generator(seed, &spec.name), n, std),
    };
    Tensor::new(&spec.shape, values).expect("as many values as the shape takes")
}

/// Keyed by seed and name; the rest of the key keeps this use apart from others of the same seed.
fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv1a(name.as_bytes()).to_le_bytes());
    key[16..].copy_from_slice(b"initial weights\0");
    ChaCha8Rng::from_seed(key)
}

/// FNV-1a of 64 bits (Fowler, Noll & Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Box & Muller 1958 in f64: two values from each pair of uniform ones.
fn normal(random: &mut ChaCha8Rng, n: usize, std: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(n + 1);
    while values.len() < n {
        let radius = std * (-2.0 * uniform(random).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform(random)).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(n);
    values
}

/// A multiple of 2⁻⁵³ in (0, 1].
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    ((random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::fnv1a;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
