//! Rotary position embedding (Su et al., 2021), the half-split kind of Hugging Face
//! checkpoints: feature `i` turns with feature `i + head_dim / 2`.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Cosines and sines for positions `0..length`, each `[length, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct RopeTables<B: Backend> {
    pub(crate) cos: Tensor<B, 2>,
    pub(crate) sin: Tensor<B, 2>,
}

impl<B: Backend> RopeTables<B> {
    /// Angle of position `p` and pair `i`: `p * theta^(-2 i / head_dim)`. Angles are rounded
    /// to `f32` where Transformers rounds them.
    pub(crate) fn new(length: usize, head_dim: usize, theta: f64, device: &B::Device) -> Self {
        let half = head_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|pair| (1.0 / theta.powf(2.0 * pair as f64 / head_dim as f64)) as f32)
            .collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..length {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let table = |values| Tensor::from_data(TensorData::new(values, [length, half]), device);
        Self {
            cos: table(cos),
            sin: table(sin),
        }
    }
}
