//! The passes through the whole model on the CPU.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorPrimitive};
use burn_flex::{Flex, FlexTensor};
use fedlora_adapter::{Factor, Factors, Target};

use super::block::{Rows, TransformerBlock};
use super::frozen::Frozen;
use super::gradients::{PairGradients, Wanted};
use super::head::OutputHead;
use super::host::{HostWeight, flat, tensor, values};
use super::kept::Kept;
use super::pool::Pool;
use super::projection::{Pair, Projection};
use super::rope::Tables;
use super::rows::{Selected, divide};
use crate::batch::Batch;
use crate::dropout::{Dropout, DropoutMask};
use crate::gradients::{ActivationCheckpointing, Gradients, Score};
use crate::llama::{Llama, Weight};
use crate::lora::Lora;
use crate::rope::Rotations;

/// The model's tensors as slices on the host, shared with the model.
struct Host<'a> {
    model: &'a Llama<Flex>,
    /// Buffers that stay with the model from pass to pass.
    pool: Arc<Pool>,
    embedding: HostWeight,
    output: HostWeight,
    last_norm: FlexTensor,
    blocks: Vec<HostBlock>,
    scale: f32,
    tables: Rotations<FlexTensor>,
}

struct HostBlock {
    norms: [FlexTensor; 2],
    /// Those of queries and keys.
    qk_norms: Option<[FlexTensor; 2]>,
    /// Those of what attention and the feed-forward part give, times the factor of what is added to
    /// the residual stream.
    output_norms: Option<[FlexTensor; 2]>,
    weights: [HostWeight; 7],
    biases: [Option<FlexTensor>; 3],
    pairs: [Option<(FlexTensor, FlexTensor)>; 7],
    dropouts: [Option<DropoutMask>; 7],
}

impl<'a> Host<'a> {
    fn new(
        model: &'a Llama<Flex>,
        lora: Option<&Lora<Flex>>,
        dropout: &mut Option<Dropout>,
        longest: usize,
    ) -> Self {
        assert!(
            longest <= model.config().max_position_embeddings,
            "a sequence longer than the model's positions"
        );
        let blocks = (0..model.config().num_hidden_layers)
            .map(|layer| {
                let pairs = Target::ALL.map(|target| {
                    let pair = lora?.factors(layer, target)?;
                    Some((flat(pair.a.clone()), flat(pair.b.clone())))
                });
                let dropouts = std::array::from_fn(|at| {
                    let dropout = dropout.as_mut().filter(|_| pairs[at].is_some())?;
                    Some(dropout.draw())
                });
                HostBlock {
                    norms: [
                        flat(model.first_norm(layer)),
                        flat(model.second_norm(layer)),
                    ],
                    qk_norms: model.qk_norms(layer).map(|norms| norms.map(flat)),
                    output_norms: model.output_norms(layer).map(|norms| {
                        let residual = model.config().variation.multipliers.residual;
                        norms.map(|norm| flat(norm.mul_scalar(residual)))
                    }),
                    weights: Target::ALL.map(|target| host_weight(model.projection(layer, target))),
                    biases: [Target::Q, Target::K, Target::V]
                        .map(|target| model.bias(layer, target).map(flat)),
                    pairs,
                    dropouts,
                }
            })
            .collect();
        Self {
            model,
            pool: model.reuse.get(),
            embedding: host_weight(model.embedding()),
            output: host_weight(model.output()),
            last_norm: flat(model.last_norm()),
            blocks,
            scale: lora.map_or(0.0, |lora| lora.scale() as f32),
            tables: model.ropes().tables(longest).map(flat),
        }
    }

    /// What a block turns its queries and keys by, if it does.
    fn tables(&self, layer: usize) -> Option<Tables<'_>> {
        let windowed = self.model.config().window(layer).is_some();
        let rotation = self.tables.of(windowed);
        self.model.rotates(layer).then(|| Tables {
            cos: values(&rotation.cos),
            sin: values(&rotation.sin),
        })
    }

    fn block(&self, layer: usize) -> TransformerBlock<'_> {
        let config = self.model.config();
        let block = &self.blocks[layer];
        let projections = std::array::from_fn(|at| {
            let (input, output) = config.projection(Target::ALL[at]);
            // What these two give is added to the residual stream, unless a norm comes between.
            let scale = match Target::ALL[at] {
                Target::O | Target::Down if block.output_norms.is_none() => {
                    config.variation.multipliers.residual as f32
                }
                _ => 1.0,
            };
            Projection {
                input,
                output,
                weight: block.weights[at].frozen(),
                scale,
                bias: block.biases.get(at).and_then(Option::as_ref).map(values),
                pair: block.pairs[at].as_ref().map(|(a, b)| Pair {
                    a: values(a),
                    b: values(b),
                    rank: values(a).len() / input,
                    scale: self.scale * scale,
                    dropout: block.dropouts[at],
                }),
            }
        });
        TransformerBlock {
            projections,
            first_norm: values(&block.norms[0]),
            second_norm: values(&block.norms[1]),
            eps: config.rms_norm_eps as f32,
            qk_norms: block
                .qk_norms
                .as_ref()
                .map(|norms| norms.each_ref().map(values)),
            output_norms: block
                .output_norms
                .as_ref()
                .map(|norms| norms.each_ref().map(values)),
            activation: config.variation.activation,
            tables: self.tables(layer),
            shape: self.model.attention_shape(layer),
        }
    }

    fn head(&self) -> OutputHead<'_> {
        OutputHead {
            norm: values(&self.last_norm),
            eps: self.model.config().rms_norm_eps as f32,
            weight: self.output.frozen(),
            vocab: self.model.config().vocab_size,
            scale: self
                .model
                .config()
                .variation
                .multipliers
                .logits_scaling
                .recip() as f32,
        }
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let width = self.model.config().hidden_size;
        let mut x = self.pool.take(tokens.len() * width);
        for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
            let token = token as usize;
            match self.embedding.frozen() {
                Frozen::Dense(table) => {
                    row.copy_from_slice(&table[token * width..(token + 1) * width]);
                }
                Frozen::Packed(packed) => packed.unpack_rows(token..token + 1, row),
            }
        }
        let factor = self.model.config().variation.multipliers.embedding as f32;
        if factor != 1.0 {
            x.iter_mut().for_each(|value| *value *= factor);
        }
        x
    }
}

fn host_weight(weight: &Weight<Flex>) -> HostWeight {
    match weight {
        Weight::Dense(tensor) => HostWeight::Dense(flat(tensor.clone())),
        Weight::Packed(packed) => HostWeight::packed(packed),
    }
}

/// Positions of a batch's rows, and how the rows are divided among threads.
struct BatchRows {
    positions: Vec<u32>,
    ranges: Vec<Range<usize>>,
}

impl BatchRows {
    fn of(batch: &Batch) -> Self {
        Self {
            positions: batch.sequences().positions(),
            ranges: divide(batch.positions(), rayon::current_num_threads()),
        }
    }

    fn rows<'a>(&'a self, host: &'a Host<'_>, batch: &'a Batch) -> Rows<'a> {
        Rows {
            sequences: batch.sequences(),
            positions: &self.positions,
            ranges: &self.ranges,
            pool: &host.pool,
        }
    }
}

/// The rows that the last block computes after attention, where those are not all: those of
/// targets, since nothing reads the others.
fn selected<'a>(host: &Host<'_>, batch: &'a Batch) -> Option<Selected<'a>> {
    let last = host.blocks.len().checked_sub(1)?;
    let some = (1..batch.positions()).contains(&batch.target_rows().len());
    (some && host.block(last).may_select())
        .then(|| Selected::new(batch.target_rows(), rayon::current_num_threads()))
}

/// The residual stream after the last block; of the `only` rows, where they are given.
fn forward(
    host: &Host<'_>,
    batch: &Batch,
    rows: &Rows<'_>,
    only: Option<&Selected<'_>>,
) -> Vec<f32> {
    let mut x = host.embed(batch.tokens());
    let last = host.blocks.len().saturating_sub(1);
    for layer in 0..host.blocks.len() {
        let only = only.filter(|_| layer == last);
        let (y, used) = host.block(layer).output(x, rows, only);
        rows.pool.give(used);
        x = y;
    }
    x
}

pub(crate) fn hidden(
    model: &Llama<Flex>,
    lora: Option<&Lora<Flex>>,
    batch: &Batch,
) -> Tensor<Flex, 2> {
    let host = Host::new(model, lora, &mut None, batch.sequences().longest());
    let batch_rows = BatchRows::of(batch);
    let rows = batch_rows.rows(&host, batch);
    let x = forward(&host, batch, &rows, None);
    let width = model.config().hidden_size;
    let mut normed = vec![0.0; x.len()];
    let (norm, eps) = (values(&host.last_norm), model.config().rms_norm_eps as f32);
    super::elementwise::rms_norm(&x, norm, eps, &mut normed);
    rows.pool.give(x);
    let normed = tensor(normed, [batch.positions(), width]);
    Tensor::from_primitive(TensorPrimitive::Float(normed))
}

pub(crate) fn score(model: &Llama<Flex>, lora: Option<&Lora<Flex>>, batch: &Batch) -> Score {
    let host = Host::new(model, lora, &mut None, batch.sequences().longest());
    let batch_rows = BatchRows::of(batch);
    let rows = batch_rows.rows(&host, batch);
    let only = selected(&host, batch);
    let x = forward(&host, batch, &rows, only.as_ref());
    let (score, x) = score_targets(&host, x, batch, only.is_some(), false);
    rows.pool.give(x);
    score
}

/// Scores the target rows of the residual stream, which has those alone where `selected`; with
/// `gradient`, the second value is the gradient by all rows that it has.
fn score_targets(
    host: &Host<'_>,
    mut x: Vec<f32>,
    batch: &Batch,
    selected: bool,
    gradient: bool,
) -> (Score, Vec<f32>) {
    let pool = &host.pool;
    let head = host.head();
    if selected || batch.target_rows().len() == batch.positions() {
        let score = head.score(&mut x, batch.targets(), gradient, pool);
        return (score, x);
    }
    let width = host.model.config().hidden_size;
    let targets = Selected::new(batch.target_rows(), 1);
    let mut chosen = targets.gather(&x, width, pool);
    let score = head.score(&mut chosen, batch.targets(), gradient, pool);
    if gradient {
        pool.give(x);
        return (
            score,
            targets.scatter(chosen, width, batch.positions(), pool),
        );
    }
    pool.give(chosen);
    (score, x)
}

pub(crate) fn loss_and_gradients(
    model: &Llama<Flex>,
    lora: &Lora<Flex>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
) -> Gradients<Flex> {
    /// The activations of a block that are held until its backward pass.
    enum HeldBlock {
        All(Box<Kept>),
        Input(Vec<f32>),
    }

    let host = Host::new(model, Some(lora), dropout, batch.sequences().longest());
    let batch_rows = BatchRows::of(batch);
    let rows = batch_rows.rows(&host, batch);
    let only = selected(&host, batch);
    // Whose output nothing but the head reads.
    let only_of = |layer: usize| only.as_ref().filter(|_| layer + 1 == host.blocks.len());
    let mut held = Vec::with_capacity(host.blocks.len());
    let mut x = host.embed(batch.tokens());
    for layer in 0..host.blocks.len() {
        let block = host.block(layer);
        x = match checkpointing {
            ActivationCheckpointing::Off => {
                let (y, kept) = block.forward(x, &rows, only_of(layer));
                held.push(HeldBlock::All(Box::new(kept)));
                y
            }
            ActivationCheckpointing::PerBlock => {
                let (y, input) = block.output(x, &rows, only_of(layer));
                held.push(HeldBlock::Input(input));
                y
            }
        };
    }
    let (score, mut by_y) = score_targets(&host, x, batch, only.is_some(), true);
    let wanted = Wanted {
        a: factors.contains(Factor::A),
        b: factors.contains(Factor::B),
    };
    let mut found: Vec<PairGradients> = Vec::with_capacity(held.len());
    while let Some(held_block) = held.pop() {
        let layer = held.len();
        let block = host.block(layer);
        let kept = match held_block {
            HeldBlock::All(kept) => *kept,
            HeldBlock::Input(x) => {
                let (y, kept) = block.forward(x, &rows, only_of(layer));
                rows.pool.give(y);
                kept
            }
        };
        let (by_x, gradients) =
            block.backward(kept, by_y, (&rows, only_of(layer)), wanted, layer > 0);
        found.push(gradients);
        by_y = by_x.unwrap_or_default();
    }
    found.reverse();
    Gradients {
        loss: Tensor::from_primitive(TensorPrimitive::Float(tensor(vec![score.loss as f32], [1]))),
        factors: collect(&host, found),
    }
}

/// The gradients in layout order: by block, by projection, A before B.
fn collect(host: &Host<'_>, found: Vec<PairGradients>) -> Vec<Tensor<Flex, 2>> {
    let mut factors = Vec::new();
    for (layer, gradients) in found.into_iter().enumerate() {
        for (at, gradient) in gradients.into_iter().enumerate() {
            let (input, output) = host.model.config().projection(Target::ALL[at]);
            let Some((a, _)) = &host.blocks[layer].pairs[at] else {
                continue;
            };
            let rank = values(a).len() / input;
            let shapes = [(gradient.a, [rank, input]), (gradient.b, [output, rank])];
            for (gradient, shape) in shapes {
                if let Some(gradient) = gradient {
                    let gradient = tensor(gradient, shape);
                    factors.push(Tensor::from_primitive(TensorPrimitive::Float(gradient)));
                }
            }
        }
    }
    factors
}
