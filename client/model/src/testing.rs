//! Weights, seeds and GGUF files for tests. With the feature `testing` other crates' tests have
//! them too.

use crate::{Activation, BaseWeights, LlamaConfig, Multipliers, SplitMix, Variation};

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

/// All that blocks can compute otherwise than Llama's at once, for a model of at least two blocks
/// and with a window.
pub fn varied() -> Variation {
    Variation {
        qk_norm: true,
        unrotated: [1].into(),
        unwindowed: [0].into(),
        local_theta: Some(100.0),
        output_norms: true,
        activation: Activation::GeluTanh,
        multipliers: Multipliers {
            embedding: 3.0,
            attention: Some(0.7),
            residual: 0.4,
            logits_scaling: 1.7,
        },
    }
}

/// A seed that differs in every run; a failing test's output shows it.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};

    // The standard library seeds each `RandomState` from the operating system.
    let seed = std::hash::RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    seed
}
