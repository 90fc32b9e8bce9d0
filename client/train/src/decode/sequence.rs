//! A sequence that grows at its end on a model with kept keys and values.

use burn::tensor::Tensor;

use crate::decode::score::score;
use fedlora_model::ops::FusedOps;
use fedlora_model::{Cache, Llama, Lora};

/// What a backend does for a [`Decoder`].
pub(crate) trait Decode: Send {
    fn extend(&mut self, tokens: &[u32]) -> Vec<f32>;
    fn log_likelihoods(&mut self, tokens: &[u32]) -> Vec<f64>;
    fn fork(&self) -> Box<dyn Decode>;
    fn len(&self) -> usize;
}

/// A sequence of tokens on a base model, with or without an adapter. Made by
/// [`super::Engine::decoder`].
pub struct Decoder {
    inner: Box<dyn Decode>,
    vocab_size: usize,
    positions: usize,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("tokens", &self.len())
            .finish_non_exhaustive()
    }
}

impl Decoder {
    pub(crate) fn new(inner: Box<dyn Decode>, vocab_size: usize, positions: usize) -> Self {
        Self {
            inner,
            vocab_size,
            positions,
        }
    }

    /// Puts tokens at the end. Gives the logits of the token that would come next, `[vocab]`.
    ///
    /// # Errors
    /// [`DecodeError`]; then nothing was put.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>, DecodeError> {
        self.check(tokens)?;
        Ok(self.inner.extend(tokens))
    }

    /// Puts tokens at the end. Gives for each the natural logarithm of its probability after
    /// all that precede it.
    ///
    /// # Errors
    /// [`DecodeError`]; then nothing was put. [`DecodeError::Empty`] also where no token
    /// precedes them.
    pub fn log_likelihoods(&mut self, tokens: &[u32]) -> Result<Vec<f64>, DecodeError> {
        self.check(tokens)?;
        if self.is_empty() {
            return Err(DecodeError::Empty);
        }
        Ok(self.inner.log_likelihoods(tokens))
    }

    /// A second sequence with the same beginning, which is not computed again.
    pub fn fork(&self) -> Self {
        Self {
            inner: self.inner.fork(),
            ..*self
        }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more tokens the model's positions allow.
    pub fn room(&self) -> usize {
        self.positions - self.len()
    }

    fn check(&self, tokens: &[u32]) -> Result<(), DecodeError> {
        if tokens.is_empty() {
            return Err(DecodeError::Empty);
        }
        if tokens.len() > self.room() {
            return Err(DecodeError::Positions {
                got: self.len() + tokens.len(),
                positions: self.positions,
            });
        }
        match tokens.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(&got) => Err(DecodeError::Token {
                got,
                vocab: self.vocab_size,
            }),
        }
    }
}

/// A [`Decoder`]'s state on one backend.
pub(crate) struct Sequence<B: FusedOps> {
    pub(crate) model: Llama<B>,
    pub(crate) lora: Option<Lora<B>>,
    cache: Cache<B>,
    /// The hidden state of the last token, `[1, hidden]`.
    last: Option<Tensor<B, 2>>,
}

impl<B: FusedOps> Sequence<B> {
    pub(crate) fn new(model: Llama<B>, lora: Option<Lora<B>>) -> Self {
        Self {
            model,
            lora,
            cache: Cache::new(),
            last: None,
        }
    }

    fn advance(&mut self, tokens: &[u32]) -> Tensor<B, 2> {
        let hidden = self
            .model
            .extend(&mut self.cache, tokens, self.lora.as_ref());
        let [rows, width] = hidden.dims();
        self.last = Some(hidden.clone().slice([rows - 1..rows, 0..width]));
        hidden
    }
}

impl<B: FusedOps> Decode for Sequence<B> {
    fn extend(&mut self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.advance(tokens);
        let [rows, width] = hidden.dims();
        let last = hidden.slice([rows - 1..rows, 0..width]);
        self.model.logits(&last).into_data().iter::<f32>().collect()
    }

    fn log_likelihoods(&mut self, tokens: &[u32]) -> Vec<f64> {
        // A token is predicted from the row before it.
        let before = self.last.take();
        let hidden = self.advance(tokens);
        let [rows, width] = hidden.dims();
        let mut parts: Vec<_> = before.into_iter().collect();
        if rows > 1 {
            parts.push(hidden.slice([0..rows - 1, 0..width]));
        }
        score(&self.model, Tensor::cat(parts, 0), tokens)
            .iter()
            .map(|token| -f64::from(token.loss))
            .collect()
    }

    fn fork(&self) -> Box<dyn Decode> {
        Box::new(Self {
            model: self.model.clone(),
            lora: self.lora.clone(),
            cache: self.cache.clone(),
            last: self.last.clone(),
        })
    }

    fn len(&self) -> usize {
        self.cache.len()
    }
}

/// Tokens that cannot be put at the end of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No tokens, or nothing that they could be predicted from.
    #[error("there are no tokens to go on from: give a prompt")]
    Empty,
    /// More than the model can take.
    #[error("{got} tokens are more than the model's {positions} positions: shorten the prompt")]
    Positions {
        /// Tokens that there would be.
        got: usize,
        /// The model's positions.
        positions: usize,
    },
    /// A token that the model does not have.
    #[error(
        "the prompt holds token {got}, the model's vocabulary has {vocab}: is the tokenizer this model's?"
    )]
    Token {
        /// The token's id.
        got: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
