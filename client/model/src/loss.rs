//! The training loss: cross-entropy of the counted tokens, in nats, from the hidden states.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

use super::batch::Batch;
use super::dropout::Dropout;
use super::llama::Llama;
use super::lora::Lora;
use super::ops::FusedOps;

/// The sum over the batch's counted tokens, `[1]`. Only rows whose next token counts reach
/// the output layer.
///
/// # Panics
/// When the batch counts no token: the caller leaves such batches out.
pub fn loss_sum<B: FusedOps>(
    model: &Llama<B>,
    lora: Option<&Lora<B>>,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
) -> Tensor<B, 1> {
    assert!(
        !batch.targets().is_empty(),
        "a batch without a counted token"
    );
    let hidden = counted(model.hidden(batch, lora, dropout), batch);
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

/// The rows of the hidden states from which a counted token is predicted.
pub(super) fn counted<B: FusedOps>(hidden: Tensor<B, 2>, batch: &Batch) -> Tensor<B, 2> {
    let places = batch.places();
    if places.len() == hidden.dims()[0] {
        return hidden;
    }
    let ids: Vec<i32> = places.iter().map(|&row| row as i32).collect();
    let data = TensorData::new(ids, [places.len()]);
    let ids = Tensor::<B, 1, Int>::from_data(data, &hidden.device());
    hidden.select(0, ids)
}
