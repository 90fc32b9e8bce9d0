//! The training loss: cross-entropy of the target tokens, in nats, from the hidden states.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

use super::batch::Batch;
use super::dropout::Dropout;
use super::llama::Llama;
use super::lora::Lora;
use super::ops::FusedOps;

/// Sums the cross-entropies of the batch's target tokens, in nats, `[1]`. Only rows whose next
/// token is a target reach the output layer.
///
/// # Panics
/// When the batch has no target token: the caller leaves such batches out.
pub fn loss_sum<B: FusedOps>(
    model: &Llama<B>,
    lora: Option<&Lora<B>>,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
) -> Tensor<B, 1> {
    assert!(
        !batch.targets().is_empty(),
        "a batch without a target token"
    );
    let hidden = target_rows(model.hidden(batch, lora, dropout), batch);
    let hidden = model.before_output(hidden);
    let targets: Arc<[u32]> = batch.targets().into();
    let loss = B::head_loss(
        hidden.into_primitive().tensor(),
        model.output_weight().into_primitive().tensor(),
        targets,
        false,
        false,
    );
    Tensor::from_primitive(TensorPrimitive::Float(loss.loss))
}

/// The rows of the hidden states from which a target token is predicted.
pub(super) fn target_rows<B: FusedOps>(hidden: Tensor<B, 2>, batch: &Batch) -> Tensor<B, 2> {
    let target_rows = batch.target_rows();
    if target_rows.len() == hidden.dims()[0] {
        return hidden;
    }
    let ids: Vec<i32> = target_rows.iter().map(|&row| row as i32).collect();
    let data = TensorData::new(ids, [target_rows.len()]);
    let ids = Tensor::<B, 1, Int>::from_data(data, &hidden.device());
    hidden.select(0, ids)
}
