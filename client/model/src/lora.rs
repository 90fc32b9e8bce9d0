//! Low-rank adaptation (Hu et al., 2021), always factored: `x W^T + s (x A^T) B^T`. The dense
//! `B A` is never built.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use fedlora_adapter::{Adapter, Factor, ProjectionTensor, Target};

use super::config::LlamaConfig;
use super::dropout::Dropout;
use super::ops::FusedOps;
use super::primitive::{product, wrap};

/// The factors of one projection: `a` `[rank, in]`, `b` `[out, rank]`.
#[derive(Debug, Clone)]
pub struct LowRank<B: Backend> {
    /// The inner factor, `[rank, in]`.
    pub a: Tensor<B, 2>,
    /// The outer factor, `[out, rank]`.
    pub b: Tensor<B, 2>,
}

/// An adapter on a device.
#[derive(Debug, Clone)]
pub struct Lora<B: Backend> {
    scale: f64,
    /// By block, then by [`Target`] as a number.
    blocks: Vec<[Option<LowRank<B>>; 7]>,
}

impl<B: Backend> Lora<B> {
    /// Copies an adapter to the device.
    ///
    /// # Errors
    /// The first tensor that does not fit the model, with the shape that would.
    pub fn from_adapter(
        adapter: &Adapter,
        config: &LlamaConfig,
        device: &B::Device,
    ) -> Result<Self, LoraError> {
        let expected = Adapter::layout_for(adapter.config(), config.num_hidden_layers, |_, t| {
            config.projection(t)
        });
        if expected.as_ref() != Ok(adapter.layout()) {
            return Err(misfit(adapter, config));
        }
        let mut blocks: Vec<[Option<LowRank<B>>; 7]> =
            vec![Default::default(); config.num_hidden_layers];
        let mut inner = None;
        for (spec, range) in adapter.layout().iter() {
            let Some(place) = ProjectionTensor::parse(&spec.name) else {
                unreachable!("the layout was compared just above");
            };
            let data = TensorData::new(adapter.values()[range].to_vec(), spec.shape.clone());
            let tensor = Tensor::from_data(data, device);
            match place.factor {
                Factor::A => inner = Some(tensor),
                Factor::B => {
                    blocks[place.layer][place.target as usize] =
                        inner.take().map(|a| LowRank { a, b: tensor });
                }
            }
        }
        Ok(Self {
            scale: adapter.config().scale(),
            blocks,
        })
    }

    /// The same adapter with each factor passed through `change`, in layout order, which may
    /// move it to another backend.
    pub fn map<C: Backend>(
        &self,
        mut change: impl FnMut(Factor, Tensor<B, 2>) -> Tensor<C, 2>,
    ) -> Lora<C> {
        let mut pair = |pair: &Option<LowRank<B>>| {
            pair.as_ref().map(|pair| LowRank {
                a: change(Factor::A, pair.a.clone()),
                b: change(Factor::B, pair.b.clone()),
            })
        };
        Lora {
            scale: self.scale,
            blocks: self
                .blocks
                .iter()
                .map(|block| std::array::from_fn(|target| pair(&block[target])))
                .collect(),
        }
    }

    /// The scaling factor `s`: `alpha / rank`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The factors on one projection, if it is adapted.
    pub fn factors(&self, layer: usize, target: Target) -> Option<&LowRank<B>> {
        self.blocks.get(layer)?[target as usize].as_ref()
    }
}

impl<B: FusedOps> Lora<B> {
    /// What the pair adds to the projection of `x`, `[rows, in]` to `[rows, out]`, in `x`'s type.
    pub(super) fn apply(
        &self,
        layer: usize,
        target: Target,
        x: &Tensor<B, 2>,
        dropout: &mut Option<Dropout>,
    ) -> Option<Tensor<B, 2>> {
        let pair = self.factors(layer, target)?;
        let x = match dropout {
            Some(dropout) => dropped_out(x, dropout),
            None => x.clone(),
        };
        let factor = |tensor: &Tensor<B, 2>| tensor.clone().cast(x.dtype()).transpose();
        let (a, b) = (factor(&pair.a), factor(&pair.b));
        let inner = product(x, a).mul_scalar(self.scale);
        Some(product(inner, b))
    }
}

/// `x` with its next dropout mask applied, `[rows, in]`.
fn dropped_out<B: FusedOps>(x: &Tensor<B, 2>, dropout: &mut Dropout) -> Tensor<B, 2> {
    let factors = B::dropout_factors(&dropout.draw(), x.dims(), &x.device());
    x.clone() * wrap::<B, 2>(factors).cast(x.dtype())
}

/// Names the first tensor that keeps an adapter from fitting a model.
fn misfit(adapter: &Adapter, config: &LlamaConfig) -> LoraError {
    for spec in adapter.layout().tensors() {
        if let Some(place) = ProjectionTensor::parse(&spec.name) {
            let (input, output) = config.projection(place.target);
            let rank = adapter.config().rank();
            let expected = match place.factor {
                Factor::A => vec![rank, input],
                Factor::B => vec![output, rank],
            };
            if spec.shape != expected {
                return LoraError::Shape {
                    name: spec.name.clone(),
                    got: spec.shape.clone(),
                    expected,
                };
            }
        }
    }
    let each = adapter.config().targets().len() * 2;
    LoraError::Blocks {
        got: adapter.layout().tensors().len() / each,
        expected: config.num_hidden_layers,
    }
}

/// An adapter made for another model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoraError {
    /// A tensor of the wrong shape.
    #[error("adapter tensor '{name}' has shape {got:?}, this base model calls for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// Another number of blocks.
    #[error("the adapter has {got} blocks, this base model {expected}")]
    Blocks {
        /// Blocks of the adapter.
        got: usize,
        /// Blocks of the model.
        expected: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;
    use burn_flex::Flex;

    #[test]
    fn dropout_keeps_the_mean_and_repeats() {
        let ones = Tensor::<Flex, 2>::ones([200, 100], &Default::default());
        let draw = || {
            let mut dropout = Dropout::new(0.1, SplitMix::new(1, 2)).unwrap();
            dropped_out(&ones, &mut dropout)
                .into_data()
                .to_vec::<f32>()
                .unwrap()
        };
        let values = draw();
        assert_eq!(values, draw());
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!(Dropout::new(0.0, SplitMix::new(1, 2)).is_none());
    }
}
