//! The Llama forward pass, generic over burn's backends.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use fedlora_adapter::Target;
use half::bf16;
use rayon::prelude::*;

use super::batch::Batch;
use super::config::LlamaConfig;
use super::dropout::Dropout;
use super::lora::Lora;
use super::ops::FusedOps;
use super::ops::arguments::{AttentionShape, Rotation, Turn};
use super::packed::{Packed, WeightKind};
use super::primitive::{ids, product, raw, wrap};
use super::reuse::Reuse;
use super::rope::{Ropes, Rotations};
use super::source::WeightsError;
use super::weights::BaseWeights;

/// A frozen weight on a device.
#[derive(Debug, Clone)]
pub enum Weight<B: Backend> {
    /// Values of the backend's float type, `[rows, columns]`; vectors are `[1, width]`.
    Dense(Tensor<B, 2>),
    /// A matrix in fewer bits.
    Packed(Packed<B>),
}

impl<B: Backend> Weight<B> {
    /// The values as a dense matrix.
    pub fn dense(&self) -> Tensor<B, 2> {
        match self {
            Self::Dense(tensor) => tensor.clone(),
            Self::Packed(packed) => packed.unpack(),
        }
    }
}

/// A Llama model on a device. Cloning shares the tensors.
#[derive(Debug, Clone)]
pub struct Llama<B: Backend> {
    config: Arc<LlamaConfig>,
    /// In the order of [`LlamaConfig::tensors`].
    weights: Vec<Weight<B>>,
    /// What activations and the matrices they are multiplied with are held in.
    float: FloatDType,
    ropes: Ropes<B>,
    /// What the backend's passes keep between calls, shared by all clones.
    pub(super) reuse: Reuse,
}

impl<B: Backend> Llama<B> {
    /// Reads the weights, one tensor at a time, and places them on the device as `f32`.
    ///
    /// # Errors
    /// A tensor that cannot be read, or that is not finite.
    pub fn new(weights: &BaseWeights, device: &B::Device) -> Result<Self, WeightsError> {
        Self::with_kind(weights, WeightKind::F32, device)
    }

    /// The same with the matrices held as `kind`; vectors always are `f32`. Computes in `f32`.
    ///
    /// # Errors
    /// As [`Llama::new`].
    pub fn with_kind(
        weights: &BaseWeights,
        kind: WeightKind,
        device: &B::Device,
    ) -> Result<Self, WeightsError> {
        Self::place(weights, kind, FloatDType::F32, device)
    }

    /// A model that computes in `bf16`, as GPUs do fastest: activations and what they are
    /// multiplied with. Norms, rotations, softmax, the loss and the adapter's factors stay `f32`.
    ///
    /// # Errors
    /// As [`Llama::new`].
    pub fn in_bf16(
        weights: &BaseWeights,
        kind: WeightKind,
        device: &B::Device,
    ) -> Result<Self, WeightsError> {
        Self::place(weights, kind, FloatDType::BF16, device)
    }

    /// The plain composition in double precision, which the others are tested against.
    #[cfg(test)]
    pub(super) fn in_f64(
        weights: &BaseWeights,
        kind: WeightKind,
        device: &B::Device,
    ) -> Result<Self, WeightsError> {
        Self::place(weights, kind, FloatDType::F64, device)
    }

    fn place(
        weights: &BaseWeights,
        kind: WeightKind,
        float: FloatDType,
        device: &B::Device,
    ) -> Result<Self, WeightsError> {
        let config = weights.config();
        let placed = (0..config.tensors().len())
            .map(|index| {
                let tensor = weights.read(index)?;
                let (shape, vector) = match tensor.shape[..] {
                    [rows, columns] => ([rows, columns], false),
                    _ => ([1, tensor.values.len()], true),
                };
                Ok(if vector || kind == WeightKind::F32 {
                    let data = TensorData::new(tensor.values, shape);
                    Weight::Dense(Tensor::from_data(data, device))
                } else if kind == WeightKind::Bf16 && float == FloatDType::BF16 {
                    let values = tensor.values.into_par_iter().map(bf16::from_f32);
                    let values: Vec<_> = values.collect();
                    let data = TensorData::new(values, shape);
                    Weight::Dense(Tensor::from_data(data, (device, DType::BF16)))
                } else {
                    Weight::Packed(Packed::new(kind, &tensor.values, shape, device))
                })
            })
            .collect::<Result<_, WeightsError>>()?;
        Ok(Self {
            ropes: Ropes::new(config, device),
            config: Arc::new(config.clone()),
            weights: placed,
            float,
            reuse: Reuse::default(),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The device that holds the model.
    pub fn device(&self) -> B::Device {
        // Norms are never packed.
        match &self.weights[self.index(0, FIRST_NORM)] {
            Weight::Dense(tensor) => tensor.device(),
            Weight::Packed(packed) => packed.words.device(),
        }
    }

    /// All weights, dense, in the order of [`LlamaConfig::tensors`].
    pub fn tensors(&self) -> Vec<Tensor<B, 2>> {
        self.weights.iter().map(Weight::dense).collect()
    }

    /// The same model with each weight and table passed through, which may move it to another
    /// backend.
    pub fn map<C: Backend>(
        &self,
        mut dense: impl FnMut(Tensor<B, 2>) -> Tensor<C, 2>,
        packed: impl Fn(&Packed<B>) -> Packed<C>,
        table: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
        device: &C::Device,
    ) -> Llama<C> {
        Llama {
            config: self.config.clone(),
            weights: self
                .weights
                .iter()
                .map(|weight| match weight {
                    Weight::Dense(tensor) => Weight::Dense(dense(tensor.clone())),
                    Weight::Packed(found) => Weight::Packed(packed(found)),
                })
                .collect(),
            float: self.float,
            ropes: self.ropes.map(table, device),
            reuse: Reuse::default(),
        }
    }

    /// A matrix as activations are multiplied with it.
    fn matrix(&self, weight: &Weight<B>) -> Tensor<B, 2> {
        match weight {
            Weight::Dense(tensor) => tensor.clone().cast(self.float),
            Weight::Packed(packed) => packed.unpack_as(self.float),
        }
    }

    /// The output layer, `[vocab, hidden]`.
    pub fn output_weight(&self) -> Tensor<B, 2> {
        self.matrix(self.output())
    }

    pub(super) fn output(&self) -> &Weight<B> {
        if self.config.tie_word_embeddings {
            &self.weights[0]
        } else {
            &self.weights[self.weights.len() - 1]
        }
    }

    pub(super) fn embedding(&self) -> &Weight<B> {
        &self.weights[0]
    }

    pub(super) fn last_norm(&self) -> Tensor<B, 2> {
        self.weights[self.index(self.config.num_hidden_layers, 0)].dense()
    }

    /// The norm before attention.
    pub(super) fn first_norm(&self, layer: usize) -> Tensor<B, 2> {
        self.weights[self.index(layer, FIRST_NORM)].dense()
    }

    /// The norm before the feed-forward part.
    pub(super) fn second_norm(&self, layer: usize) -> Tensor<B, 2> {
        self.weights[self.index(layer, SECOND_NORM)].dense()
    }

    pub(super) fn projection(&self, layer: usize, target: Target) -> &Weight<B> {
        // The first norm precedes the projections, the second lies between O and Gate.
        let offset = 1 + target as usize + usize::from(target >= Target::Gate);
        &self.weights[self.index(layer, offset)]
    }

    /// The bias of a projection, `[1, out]`, if it has one.
    pub(super) fn bias(&self, layer: usize, target: Target) -> Option<Tensor<B, 2>> {
        (self.config.qkv_bias && target <= Target::V)
            .then(|| self.weights[self.index(layer, FIRST_BIAS + target as usize)].dense())
    }

    /// The norms of queries and keys, `[1, head_dim]` each, if the model has them.
    pub(super) fn qk_norms(&self, layer: usize) -> Option<[Tensor<B, 2>; 2]> {
        let first = FIRST_BIAS + self.biases();
        let norm = |place| self.weights[self.index(layer, first + place)].dense();
        self.config.variation.qk_norm.then(|| [norm(0), norm(1)])
    }

    /// The norms of what attention and the feed-forward part give, if the model has them.
    pub(super) fn output_norms(&self, layer: usize) -> Option<[Tensor<B, 2>; 2]> {
        let first = FIRST_BIAS + self.biases() + self.head_norms();
        let norm = |place| self.weights[self.index(layer, first + place)].dense();
        let has = self.config.variation.output_norms;
        has.then(|| [norm(0), norm(1)])
    }

    /// Norms of a block's queries and keys.
    fn head_norms(&self) -> usize {
        if self.config.variation.qk_norm { 2 } else { 0 }
    }

    /// Biases of a block.
    fn biases(&self) -> usize {
        if self.config.qkv_bias { 3 } else { 0 }
    }

    fn index(&self, layer: usize, offset: usize) -> usize {
        let output_norms = if self.config.variation.output_norms {
            2
        } else {
            0
        };
        let each = FIRST_BIAS + self.biases() + self.head_norms() + output_norms;
        1 + layer * each + offset
    }

    /// Whether a block turns its queries and keys.
    pub(super) fn rotates(&self, layer: usize) -> bool {
        !self.config.variation.unrotated.contains(&layer)
    }

    pub(super) fn ropes(&self) -> &Ropes<B> {
        &self.ropes
    }

    /// The heads of a block's attention.
    pub fn attention_shape(&self, layer: usize) -> AttentionShape {
        let config = &self.config;
        let attention = config.variation.multipliers.attention;
        AttentionShape {
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            dim: config.head_dim,
            window: config.window(layer),
            scale: attention.unwrap_or_else(|| AttentionShape::usual_scale(config.head_dim)),
        }
    }
}

/// Places in a block's tensors.
const FIRST_NORM: usize = 0;
const SECOND_NORM: usize = 5;
const FIRST_BIAS: usize = 9;

impl<B: FusedOps> Llama<B> {
    /// The embeddings of a batch's tokens, `[rows, hidden]`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Tensor<B, 2> {
        let rows = match self.embedding() {
            Weight::Dense(tensor) => tensor.clone().select(0, ids(tokens, &self.device())),
            Weight::Packed(packed) => wrap(B::packed_rows(packed, tokens)),
        };
        let rows: Tensor<B, 2> = rows.cast(self.float);
        times(rows, self.config.variation.multipliers.embedding)
    }

    /// Hidden states after the last norm, `[rows, hidden]`, composed of single operations.
    ///
    /// # Panics
    /// When a sequence is longer than the model's positions: callers cut examples.
    pub fn hidden(
        &self,
        batch: &Batch,
        lora: Option<&Lora<B>>,
        dropout: &mut Option<Dropout>,
    ) -> Tensor<B, 2> {
        let mut x = self.embed(batch.tokens());
        let rotations = self.rotations(batch);
        for layer in 0..self.config.num_hidden_layers {
            x = self.block(layer, x, batch, &rotations, lora, dropout);
        }
        self.norm(x, self.last_norm())
    }

    /// The rotary tables' lines for the rows of a batch.
    pub(super) fn rotations(&self, batch: &Batch) -> Rotations<Tensor<B, 2>> {
        let sequences = batch.sequences();
        assert!(
            sequences.longest() <= self.config.max_position_embeddings,
            "a sequence longer than the model's positions"
        );
        let positions = ids(&sequences.positions(), &self.device());
        let tables = self.ropes.tables(sequences.longest());
        tables.map(|table| table.select(0, positions.clone()))
    }

    /// One block, `[rows, hidden]` to the same, with attention within the batch's sequences.
    pub(super) fn block(
        &self,
        layer: usize,
        x: Tensor<B, 2>,
        batch: &Batch,
        rotations: &Rotations<Tensor<B, 2>>,
        lora: Option<&Lora<B>>,
        dropout: &mut Option<Dropout>,
    ) -> Tensor<B, 2> {
        let shape = self.attention_shape(layer);
        self.block_with(layer, x, rotations, lora, dropout, |q, k, v| {
            let (q, k, v) = (raw(q), raw(k), raw(v));
            wrap(B::causal_attention(q, k, v, &shape, batch.sequences()).context)
        })
    }

    /// One block, `[rows, hidden]` to the same. `attend` makes the context,
    /// `[rows, heads * dim]`, of rotated queries and keys, and values.
    pub(super) fn block_with(
        &self,
        layer: usize,
        x: Tensor<B, 2>,
        rotations: &Rotations<Tensor<B, 2>>,
        lora: Option<&Lora<B>>,
        dropout: &mut Option<Dropout>,
        attend: impl FnOnce(Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let mut project = |target, x: &Tensor<B, 2>| self.project(layer, target, x, lora, dropout);
        let normed = self.norm(x.clone(), self.first_norm(layer));
        let (mut q, mut k) = (project(Target::Q, &normed), project(Target::K, &normed));
        if let Some([by_query, by_key]) = self.qk_norms(layer) {
            (q, k) = (self.norm_heads(q, by_query), self.norm_heads(k, by_key));
        }
        if self.rotates(layer) {
            let rotation = rotations.of(self.config.window(layer).is_some());
            (q, k) = (self.rotate(q, rotation), self.rotate(k, rotation));
        }
        let v = project(Target::V, &normed);
        let [by_attention, by_inner] = match self.output_norms(layer) {
            Some(norms) => norms.map(Some),
            None => [None, None],
        };
        let x = x + self.added(project(Target::O, &attend(q, k, v)), by_attention);
        let normed = self.norm(x.clone(), self.second_norm(layer));
        let (gate, up) = (project(Target::Gate, &normed), project(Target::Up, &normed));
        let activation = self.config.variation.activation;
        let inner: Tensor<B, 2> = wrap(B::gated(activation, raw(gate), raw(up)));
        x + self.added(project(Target::Down, &inner), by_inner)
    }

    /// What is added to the residual stream of what attention or the feed-forward part give.
    fn added(&self, given: Tensor<B, 2>, norm: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        let given = match norm {
            Some(norm) => self.norm(given, norm),
            None => given,
        };
        times(given, self.config.variation.multipliers.residual)
    }

    /// A projection with its bias and its low-rank pair, `[rows, in]` to `[rows, out]`.
    pub(super) fn project(
        &self,
        layer: usize,
        target: Target,
        x: &Tensor<B, 2>,
        lora: Option<&Lora<B>>,
        dropout: &mut Option<Dropout>,
    ) -> Tensor<B, 2> {
        let mut y = self.product(x, self.projection(layer, target));
        if let Some(bias) = self.bias(layer, target) {
            let shape = y.dims();
            y = y + bias.cast(self.float).expand(shape);
        }
        match lora.and_then(|lora| lora.apply(layer, target, x, dropout)) {
            Some(low_rank) => y + low_rank,
            None => y,
        }
    }

    /// The logits of rows of hidden states, `[rows, hidden]` to `[rows, vocab]`, in `f32`.
    pub fn logits(&self, hidden: &Tensor<B, 2>) -> Tensor<B, 2> {
        let hidden = self.before_output(hidden.clone());
        self.product(&hidden, self.output()).cast(FloatDType::F32)
    }

    /// Rows of hidden states as the output layer takes them.
    pub(super) fn before_output(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        times(
            hidden,
            self.config.variation.multipliers.logits_scaling.recip(),
        )
    }

    /// `x weight^T`.
    fn product(&self, x: &Tensor<B, 2>, weight: &Weight<B>) -> Tensor<B, 2> {
        match weight {
            Weight::Dense(tensor) => {
                product(x.clone(), tensor.clone().cast(self.float).transpose())
            }
            Weight::Packed(packed) => wrap(B::packed_product(raw(x.clone()), packed)),
        }
    }

    /// The root-mean-square norm of each row.
    pub(super) fn norm(&self, x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        wrap(B::rms_norm(raw(x), raw(weight), self.config.rms_norm_eps))
    }

    /// The norm of each head of queries or keys, `[rows, heads * dim]`.
    fn norm_heads(&self, x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        let [rows, width] = x.dims();
        let dim = self.config.head_dim;
        let heads = x.reshape([rows * width / dim, dim]);
        self.norm(heads, weight).reshape([rows, width])
    }

    /// Queries or keys turned by their positions.
    pub(super) fn rotate(
        &self,
        x: Tensor<B, 2>,
        rotation: &Rotation<Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let rotation = Rotation {
            cos: raw(rotation.cos.clone()),
            sin: raw(rotation.sin.clone()),
        };
        wrap(B::rotate(
            raw(x),
            self.config.head_dim,
            rotation,
            Turn::Forward,
        ))
    }
}

/// `x` multiplied, unless by 1.
fn times<B: Backend>(x: Tensor<B, 2>, factor: f64) -> Tensor<B, 2> {
    if factor == 1.0 {
        x
    } else {
        x.mul_scalar(factor)
    }
}
