//! Low-rank adaptation (Hu et al., 2021), always factored: `x W^T + s (x A^T) B^T`. The dense
//! `B A` is never built.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use fedlora_adapter::{Adapter, Factor, ProjectionTensor, Target};

use super::config::LlamaConfig;
use super::llama::wrap;
use super::ops::FusedOps;
use super::random::SplitMix;

/// The factors of one projection: `a` `[rank, in]`, `b` `[out, rank]`.
#[derive(Debug, Clone)]
pub struct LowRank<B: Backend> {
    /// The inner factor.
    pub a: Tensor<B, 2>,
    /// The outer factor.
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

    /// What the pairs' products are multiplied with.
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
            Some(dropout) => dropout.apply(x.clone()),
            None => x.clone(),
        };
        let factor = |tensor: &Tensor<B, 2>| tensor.clone().cast(x.dtype()).transpose();
        let (a, b) = (factor(&pair.a), factor(&pair.b));
        Some(x.matmul(a).mul_scalar(self.scale).matmul(b))
    }
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

/// Zeroes inputs of A with probability `p` and scales the rest by `1 / (1 - p)`. Draws its
/// own masks: one seed gives one training, whatever else runs in the process.
#[derive(Debug, Clone)]
pub struct Dropout {
    threshold: u16,
    keep_scale: f32,
    random: SplitMix,
}

impl Dropout {
    /// `None` where `probability` is 0. Resolution is 1/65536.
    pub fn new(probability: f64, random: SplitMix) -> Option<Self> {
        (probability > 0.0).then(|| Self {
            threshold: (probability * 65_536.0) as u16,
            keep_scale: (1.0 / (1.0 - probability)) as f32,
            random,
        })
    }

    /// The next mask.
    pub(super) fn draw(&mut self) -> DropoutMask {
        DropoutMask {
            seed: self.random.next(),
            threshold: self.threshold,
            keep_scale: self.keep_scale,
        }
    }

    fn apply<B: FusedOps>(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let mask = B::dropout_factors(&self.draw(), x.dims(), &x.device());
        x.clone() * wrap::<B, 2>(mask).cast(x.dtype())
    }
}

/// A mask that is never held: each element's fate follows from its number, so that the
/// backward pass finds the same again.
#[derive(Debug, Clone, Copy)]
pub struct DropoutMask {
    pub(super) seed: u64,
    /// Of 65536 elements, so many are dropped.
    pub(super) threshold: u16,
    pub(super) keep_scale: f32,
}

impl DropoutMask {
    /// Four draws of 16 bits from one of 64 (the output function of SplitMix64).
    #[inline(always)]
    fn factors(&self, four: u64) -> [f32; 4] {
        let mut bits = self
            .seed
            .wrapping_add(four.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        std::array::from_fn(|at| {
            if (bits >> (16 * at)) as u16 >= self.threshold {
                self.keep_scale
            } else {
                0.0
            }
        })
    }

    /// The factor of each element from number `first` on, to `each` with its place.
    #[inline(always)]
    fn for_each(&self, count: usize, first: usize, mut each: impl FnMut(usize, f32)) {
        let mut at = 0;
        while at < count {
            let number = first + at;
            let factors = self.factors(number as u64 / 4);
            for &factor in &factors[number % 4..] {
                if at == count {
                    return;
                }
                each(at, factor);
                at += 1;
            }
        }
    }

    /// `values * mask`, in place; `first` is the number of the first.
    pub(super) fn scale(&self, values: &mut [f32], first: usize) {
        self.for_each(values.len(), first, |at, factor| values[at] *= factor);
    }

    /// `to = from * mask`.
    pub(super) fn copy(&self, from: &[f32], to: &mut [f32], first: usize) {
        self.for_each(from.len(), first, |at, factor| to[at] = from[at] * factor);
    }

    /// `to += from * mask`.
    pub(super) fn add(&self, from: &[f32], to: &mut [f32], first: usize) {
        self.for_each(from.len(), first, |at, factor| to[at] += from[at] * factor);
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
    use burn_flex::Flex;

    #[test]
    fn dropout_keeps_the_mean_and_repeats() {
        let ones = Tensor::<Flex, 2>::ones([200, 100], &Default::default());
        let draw = || {
            let mut dropout = Dropout::new(0.1, SplitMix::new(1, 2)).unwrap();
            dropout
                .apply(ones.clone())
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

    #[test]
    fn a_part_of_a_mask_is_that_part_of_the_whole() {
        let mask = Dropout::new(0.3, SplitMix::new(1, 2)).unwrap().draw();
        let mut whole = vec![1.0; 50];
        mask.scale(&mut whole, 0);
        assert!(whole.contains(&0.0) && whole.iter().any(|&value| value > 1.0));
        for first in 0..50 {
            let ones = vec![1.0; 50 - first];
            let mut part = vec![0.0; 50 - first];
            mask.copy(&ones, &mut part, first);
            assert_eq!(part, whole[first..]);
            mask.add(&ones, &mut part, first);
            assert!(part.iter().zip(&whole[first..]).all(|(p, w)| *p == 2.0 * w));
        }
    }
}
