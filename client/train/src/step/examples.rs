//! The examples of a list that can be trained on or scored.

use fedlora_model::Example;

use crate::step::error::TrainError;

/// The examples that have a target token among their first `max_tokens` tokens.
///
/// # Errors
/// [`TrainError::Token`] for a token outside the vocabulary, [`TrainError::NoTokens`] where no
/// example is left.
pub(crate) fn usable(
    examples: &[Example],
    vocab: usize,
    max_tokens: usize,
) -> Result<Vec<&Example>, TrainError> {
    for example in examples {
        if let Some(&got) = example.tokens().iter().find(|&&id| id as usize >= vocab) {
            return Err(TrainError::Token { got, vocab });
        }
    }
    let usable: Vec<_> = examples
        .iter()
        .filter(|example| {
            example
                .loss_mask()
                .iter()
                .take(max_tokens)
                .any(|&target| target)
        })
        .collect();
    if usable.is_empty() {
        return Err(TrainError::NoTokens {
            examples: examples.len(),
            max_tokens,
        });
    }
    Ok(usable)
}
