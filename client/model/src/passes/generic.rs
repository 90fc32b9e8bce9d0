//! The passes on any backend: burn's autodiff over single operations, for the whole model at
//! a time or for one block at a time.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use fedlora_adapter::Factors;

use crate::batch::Batch;
use crate::dropout::Dropout;
use crate::gradients::{ActivationCheckpointing, Gradients, Score};
use crate::llama::{Llama, Weight};
use crate::lora::Lora;
use crate::loss::{loss_sum, target_rows};
use crate::ops::FusedOps;
use crate::primitive::{product, raw, wrap};

/// Rows whose logits are held at a time.
const ROWS: usize = 256;

pub(crate) fn score<B: FusedOps>(model: &Llama<B>, lora: Option<&Lora<B>>, batch: &Batch) -> Score {
    let batch = &*batch.aligned(B::ALIGNMENT, model.config().max_position_embeddings);
    let hidden = target_rows(model.hidden(batch, lora, &mut None), batch);
    let hidden = model.before_output(hidden);
    let weight = model.output_weight().transpose();
    let width = hidden.dims()[1];
    let mut score = Score::default();
    for (index, targets) in batch.targets().chunks(ROWS).enumerate() {
        let start = index * ROWS;
        let rows = hidden
            .clone()
            .slice([start..start + targets.len(), 0..width]);
        let logits = product(rows, weight.clone());
        let best = logits.clone().argmax(1).into_data();
        score.correct += best
            .iter::<i64>()
            .zip(targets)
            .filter(|(got, target)| *got == i64::from(**target))
            .count();
        let (loss, _) = B::cross_entropy(raw(logits), targets);
        score.loss += wrap::<B, 1>(loss).into_data().iter::<f64>().sum::<f64>();
    }
    score
}

pub(crate) fn loss_and_gradients<B: FusedOps>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
) -> Gradients<B> {
    let batch = &*batch.aligned(B::ALIGNMENT, model.config().max_position_embeddings);
    let packed = matches!(model.embedding(), Weight::Packed(_));
    // Autodiff would hold every unpacked weight until the end.
    match checkpointing {
        ActivationCheckpointing::Off if !packed => whole(model, lora, factors, dropout, batch),
        _ => block_by_block(model, lora, factors, dropout, batch),
    }
}

fn lift<B: FusedOps>(model: &Llama<B>) -> Llama<Autodiff<B>> {
    model.map(
        Tensor::from_inner,
        |packed| packed.lift(),
        Tensor::from_inner,
        &model.device(),
    )
}

/// The adapter under autodiff, and the leaves of the selected factors.
fn leaves<B: FusedOps>(
    lora: &Lora<B>,
    factors: Factors,
) -> (Lora<Autodiff<B>>, Vec<Tensor<Autodiff<B>, 2>>) {
    let mut leaves = Vec::new();
    let lora = lora.map(|factor, tensor| {
        let tensor = Tensor::from_inner(tensor);
        if !factors.contains(factor) {
            return tensor;
        }
        let leaf = tensor.require_grad();
        leaves.push(leaf.clone());
        leaf
    });
    (lora, leaves)
}

fn whole<B: FusedOps>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
) -> Gradients<B> {
    model.ropes().tables(batch.sequences().longest());
    let (lora, leaves) = leaves(lora, factors);
    let loss = loss_sum(&lift(model), Some(&lora), dropout, batch);
    let found = loss.backward();
    Gradients {
        loss: loss.inner(),
        factors: leaves
            .iter()
            .map(|leaf| {
                leaf.grad(&found)
                    .unwrap_or_else(|| leaf.clone().inner().zeros_like())
            })
            .collect(),
    }
}

/// Activation checkpointing (Chen et al., 2016): keeps each block's input alone and recomputes the
/// block for its gradients, so that one block's activations are held at a time.
fn block_by_block<B: FusedOps>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
) -> Gradients<B> {
    let layers = model.config().num_hidden_layers;
    let rotations = model.rotations(batch);
    let mut inputs = Vec::with_capacity(layers);
    let mut dropouts = Vec::with_capacity(layers);
    let mut x = model.embed(batch.tokens());
    for layer in 0..layers {
        inputs.push(x.clone());
        dropouts.push(dropout.clone());
        x = model.block(layer, x, batch, &rotations, Some(lora), dropout);
    }

    let lifted = lift(model);
    let rotations = rotations.map(Tensor::from_inner);
    let last: Tensor<Autodiff<B>, 2> = Tensor::from_inner(x).require_grad();
    let hidden = target_rows(lifted.norm(last.clone(), lifted.last_norm()), batch);
    let hidden = lifted.before_output(hidden);
    let loss = B::head_loss(
        raw(hidden.clone().inner()),
        raw(model.output_weight()),
        batch.targets().into(),
        true,
        false,
    );
    let by_rows: Tensor<B, 2> = match loss.rows_gradient {
        Some(gradient) => wrap(gradient),
        None => hidden.clone().inner().zeros_like(),
    };
    let mut by_y = pull(&hidden, by_rows, &last);

    let (adapter, all) = leaves(lora, factors);
    let mut found: Vec<Option<Tensor<B, 2>>> = vec![None; all.len()];
    // Number of leaves before each block.
    let mut end = all.len();
    for layer in (0..layers).rev() {
        let input = inputs.pop().map(Tensor::from_inner);
        let (Some(input), Some(mut dropout)) = (input, dropouts.pop()) else {
            break;
        };
        let x: Tensor<Autodiff<B>, 2> = input.require_grad();
        let y = lifted.block(
            layer,
            x.clone(),
            batch,
            &rotations,
            Some(&adapter),
            &mut dropout,
        );
        let loss = (y * Tensor::from_inner(by_y)).sum();
        let gradients = loss.backward();
        let each = all.len() / layers;
        let start = end - each;
        for index in start..end {
            found[index] = all[index].grad(&gradients);
        }
        end = start;
        by_y = match x.grad(&gradients) {
            Some(gradient) => gradient,
            None => x.inner().zeros_like(),
        };
    }
    Gradients {
        loss: wrap(loss.loss),
        factors: found
            .into_iter()
            .zip(all)
            .map(|(gradient, leaf)| gradient.unwrap_or_else(|| leaf.inner().zeros_like()))
            .collect(),
    }
}

/// The gradient by `input` of the sum of `output * gradient`.
fn pull<B: FusedOps>(
    output: &Tensor<Autodiff<B>, 2>,
    gradient: Tensor<B, 2>,
    input: &Tensor<Autodiff<B>, 2>,
) -> Tensor<B, 2> {
    let found = (output.clone() * Tensor::from_inner(gradient))
        .sum()
        .backward();
    input
        .grad(&found)
        .unwrap_or_else(|| input.clone().inner().zeros_like())
}
