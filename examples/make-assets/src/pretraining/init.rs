//! The first weights.

use fedlora_model::{BaseWeights, LlamaConfig, SplitMix};

/// Normal with deviation 0.02; the layers that write to the residual stream by
/// `1 / sqrt(2 * blocks)` less (Radford et al., 2019, section 2.3). Norms begin at one.
pub fn weights(config: LlamaConfig, seed: u64) -> BaseWeights {
    let mut random = SplitMix::new(seed, 1);
    let residual = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
    let values = config
        .tensors()
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            if shape.len() == 1 {
                return vec![1.0; count];
            }
            let writes = name.contains("o_proj") || name.contains("down_proj");
            let deviation = 0.02 * if writes { residual } else { 1.0 };
            (0..count)
                .map(|_| (random.normal() * deviation) as f32)
                .collect()
        })
        .collect();
    BaseWeights::new(config, values)
}
