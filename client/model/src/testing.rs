//! Weights, seeds and GGUF files for tests. With the feature `testing` other crates' tests have
//! them too.

use crate::{BaseWeights, LlamaConfig, SplitMix};

pub use crate::gguf::test_file::{TestFile, TestTensor, golden, golden_path, smollm2};

/// A base of random values: normal with a standard deviation of 0.2, vectors around 1 (norms) and
/// matrices around 0. Equal seeds give equal values.
pub fn random_weights(config: LlamaConfig, seed: u64) -> BaseWeights {
    let mut random = SplitMix::new(seed, 0);
    let values = config
        .tensors()
        .iter()
        .map(|(_, shape)| {
            let centre = if shape.len() == 1 { 1.0 } else { 0.0 };
            let count = shape.iter().product::<usize>();
            (0..count)
                .map(|_| (centre + 0.2 * random.normal()) as f32)
                .collect()
        })
        .collect();
    BaseWeights::new(config, values)
}

/// A seed that differs in every run; a failing test's output shows it.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};

    // The standard library seeds each `RandomState` from the operating system.
    let seed = std::hash::RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    seed
}
