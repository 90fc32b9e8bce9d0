//! Held-out loss, perplexity and token accuracy, and logits.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use fedlora_adapter::Adapter;
use fedlora_model::{Batch, Example, Llama, Lora, Passes};

use crate::step::error::TrainError;
use crate::step::examples::usable;

/// Held-out figures, over all target tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats a target token.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Target tokens scored.
    pub tokens: usize,
    /// Share of target tokens to which the model gives the highest probability, 0 to 1.
    pub token_accuracy: f64,
}

/// Tokens of a batch, unless one example has more.
pub(crate) const POSITIONS: usize = 2048;

/// `adapter` on the model's device.
///
/// # Errors
/// [`TrainError::Lora`] for an adapter made for another model.
pub(crate) fn place<B: Passes>(
    model: &Llama<B>,
    adapter: Option<&Adapter>,
) -> Result<Option<Lora<B>>, TrainError> {
    let device = model.device();
    adapter
        .map(|adapter| Lora::from_adapter(adapter, model.config(), &device))
        .transpose()
        .map_err(TrainError::from)
}

/// Scores the target tokens of `examples`, shortest examples first, so that batches need little
/// padding. `progress` receives the number of examples done and may stop the evaluation; the
/// figures are then of those.
///
/// # Errors
/// No usable example, an adapter made for another model, or a loss that is not finite.
pub(crate) fn evaluate<B: Passes>(
    model: &Llama<B>,
    adapter: Option<&Adapter>,
    examples: &[Example],
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Evaluation, TrainError> {
    let lora = place(model, adapter)?;
    let max_tokens = model.config().max_position_embeddings;
    let mut examples = usable(examples, model.config().vocab_size, max_tokens)?;
    examples.sort_by_key(|example| example.tokens().len());
    let (mut loss, mut correct, mut tokens) = (0.0, 0, 0);
    let mut rest = &examples[..];
    while !rest.is_empty() {
        // Sorted, so the last of a batch is its longest.
        let mut count = 1;
        while count < rest.len()
            && (count + 1) * rest[count].tokens().len().min(max_tokens) <= POSITIONS
        {
            count += 1;
        }
        let (part, later) = rest.split_at(count);
        rest = later;
        let batch = Batch::new(part.iter().copied(), max_tokens);
        tokens += batch.targets().len();
        let score = B::score(model, lora.as_ref(), &batch);
        loss += score.loss;
        correct += score.correct;
        if progress(examples.len() - rest.len()).is_break() {
            break;
        }
    }
    let loss = loss / tokens as f64;
    if !loss.is_finite() {
        return Err(TrainError::NotFinite);
    }
    Ok(Evaluation {
        loss,
        perplexity: loss.exp(),
        tokens,
        token_accuracy: correct as f64 / tokens as f64,
    })
}

/// The loss of one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExampleLoss {
    /// The sum over its target tokens, in nats.
    pub sum: f64,
    /// Its target tokens.
    pub tokens: usize,
}

/// The losses of `examples`, one by one, in their order; those without a target token are left out.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn losses<B: Passes>(
    model: &Llama<B>,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<Vec<ExampleLoss>, TrainError> {
    let lora = place(model, adapter)?;
    let max_tokens = model.config().max_position_embeddings;
    let examples = usable(examples, model.config().vocab_size, max_tokens)?;
    let losses = examples.into_iter().map(|example| {
        let batch = Batch::new([example], max_tokens);
        let sum = B::score(model, lora.as_ref(), &batch).loss;
        match sum.is_finite() {
            true => Ok(ExampleLoss {
                sum,
                tokens: batch.targets().len(),
            }),
            false => Err(TrainError::NotFinite),
        }
    });
    losses.collect()
}

/// The logits after each token, `[tokens, vocab]` row by row.
///
/// # Errors
/// [`TrainError::Token`], [`TrainError::Positions`], or an adapter made for another model.
pub(crate) fn logits<B: Passes>(
    model: &Llama<B>,
    adapter: Option<&Adapter>,
    tokens: &[u32],
) -> Result<Vec<f32>, TrainError> {
    let lora = place(model, adapter)?;
    let vocab = model.config().vocab_size;
    if let Some(&got) = tokens.iter().find(|&&id| id as usize >= vocab) {
        return Err(TrainError::Token { got, vocab });
    }
    let positions = model.config().max_position_embeddings;
    if tokens.is_empty() || tokens.len() > positions {
        return Err(TrainError::Positions {
            got: tokens.len(),
            positions,
        });
    }
    let hidden: Tensor<B, 2> = B::hidden(model, lora.as_ref(), &Batch::of_tokens(tokens));
    Ok(model.logits(&hidden).into_data().iter::<f32>().collect())
}
