//! A sequence of tokens that grows at its end, on a model that caches keys and values.

use burn::tensor::Tensor;
use fedlora_model::ops::FusedOps;
use fedlora_model::{Cache, Llama, Lora};

use crate::decode::score::score;

/// What a [`Decoder`] needs of a backend; see its methods.
pub(crate) trait Decode: Send {
    fn extend(&mut self, tokens: &[u32]) -> Vec<f32>;
    fn log_likelihoods(&mut self, tokens: &[u32]) -> Vec<f64>;
    fn next(&self) -> Option<Vec<f64>>;
    fn fork(&self) -> Box<dyn Decode>;
    fn len(&self) -> usize;
}

/// A sequence of tokens on a base model, with or without an adapter. Made by
/// [`Engine::decoder`](crate::Engine::decoder).
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

    /// Appends tokens. Returns the logits of the next token, `[vocab]`.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is appended then.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>, DecodeError> {
        self.check(tokens)?;
        Ok(self.inner.extend(tokens))
    }

    /// Appends tokens. Returns for each the natural logarithm of its probability, given all
    /// tokens before it.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is appended then. [`DecodeError::Empty`] also where no token
    /// is before them.
    pub fn log_likelihoods(&mut self, tokens: &[u32]) -> Result<Vec<f64>, DecodeError> {
        self.check(tokens)?;
        if self.is_empty() {
            return Err(DecodeError::Empty);
        }
        Ok(self.inner.log_likelihoods(tokens))
    }

    /// For each token of the vocabulary the natural logarithm of the probability that it is the
    /// next, `[vocab]`. Nothing is appended.
    ///
    /// # Errors
    /// [`DecodeError::Empty`] where no token is there to predict from.
    pub fn next_log_likelihoods(&self) -> Result<Vec<f64>, DecodeError> {
        self.inner.next().ok_or(DecodeError::Empty)
    }

    /// A copy that grows on its own; what the two share is not computed again.
    pub fn fork(&self) -> Self {
        Self {
            inner: self.inner.fork(),
            ..*self
        }
    }

    /// Tokens appended so far.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether no token is appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens that can still be appended: the model's positions less [`len`](Self::len).
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

/// The state of a [`Decoder`] on one of burn's backends.
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

    fn next(&self) -> Option<Vec<f64>> {
        let logits = self.model.logits(self.last.as_ref()?).into_data();
        let logits: Vec<f64> = logits.iter::<f32>().map(f64::from).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        let normaliser = largest + sum.ln();
        Some(logits.iter().map(|logit| logit - normaliser).collect())
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

/// Tokens that cannot be appended to a sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No tokens given, or none to predict them from.
    #[error("there are no tokens to continue: give a prompt")]
    Empty,
    /// More tokens than the model has positions.
    #[error("{got} tokens are more than the model's {positions} positions: shorten the prompt")]
    Positions {
        /// Length that the sequence would have.
        got: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// A token outside the model's vocabulary.
    #[error(
        "the prompt holds token {got}, the model's vocabulary has {vocab}: is the tokenizer this \
         model's?"
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
