//! Rotary position embedding (Su et al., 2021), the half-split kind of Hugging Face
//! checkpoints: feature `i` turns with feature `i + head_dim / 2`.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::config::LlamaConfig;
use super::ops::Rotation;

/// Tables hold at least this many positions.
const FEWEST: usize = 256;

/// A model's rotary tables: computed when they are first needed, as far as they are needed,
/// for a model may have many more positions than any sequence.
#[derive(Debug, Clone)]
pub(crate) struct Rope<B: Backend> {
    frequencies: Arc<[f32]>,
    most: usize,
    tables: Arc<Mutex<Option<Rotation<Tensor<B, 2>>>>>,
    device: B::Device,
}

impl<B: Backend> Rope<B> {
    pub(crate) fn new(config: &LlamaConfig, device: &B::Device) -> Self {
        Self {
            frequencies: inverse_frequencies(config).into(),
            most: config.max_position_embeddings,
            tables: Arc::default(),
            device: device.clone(),
        }
    }

    /// Cosines and sines of positions from 0 to at least `length`, each
    /// `[positions, head_dim / 2]`.
    pub(crate) fn tables(&self, length: usize) -> Rotation<Tensor<B, 2>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*tables
            && found.cos.dims()[0] >= length
        {
            return found.clone();
        }
        let positions = length
            .next_power_of_two()
            .max(FEWEST)
            .min(self.most)
            .max(length);
        let half = self.frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..positions {
            for frequency in self.frequencies.iter() {
                // Rounded to `f32` where Transformers rounds it.
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let table =
            |values| Tensor::from_data(TensorData::new(values, [positions, half]), &self.device);
        let made = Rotation {
            cos: table(cos),
            sin: table(sin),
        };
        *tables = Some(made.clone());
        made
    }

    /// The same with the tables that there are passed through `change`.
    pub(crate) fn map<C: Backend>(
        &self,
        change: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
        device: &C::Device,
    ) -> Rope<C> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().map(|tables| Rotation {
            cos: change(tables.cos.clone()),
            sin: change(tables.sin.clone()),
        });
        Rope {
            frequencies: self.frequencies.clone(),
            most: self.most,
            tables: Arc::new(Mutex::new(tables)),
            device: device.clone(),
        }
    }
}

/// The angle by which each pair turns from one position to the next: `theta^(-2 i / dim)`,
/// rounded to `f32` where Transformers rounds it.
pub(crate) fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    (0..config.head_dim / 2)
        .map(|pair| {
            let exponent = 2.0 * pair as f64 / config.head_dim as f64;
            (1.0 / config.rope_theta.powf(exponent)) as f32
        })
        .collect()
}
