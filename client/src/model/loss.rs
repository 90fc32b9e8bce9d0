//! The training loss: cross-entropy of the counted tokens, in nats, from the hidden states.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, TensorPrimitive};

use super::batch::Batch;
use super::llama::Llama;
use super::lora::{Dropout, Lora};
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
    let hidden = model.hidden(batch, lora, dropout);
    let device = hidden.device();
    let places: Vec<i32> = batch.places().iter().map(|&row| row as i32).collect();
    let hidden = if places.len() == hidden.dims()[0] {
        hidden
    } else {
        let count = places.len();
        let places = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [count]), &device);
        hidden.select(0, places)
    };
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
