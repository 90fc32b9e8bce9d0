//! One tokenised training example.

/// A token sequence with a loss mask: it selects the target tokens, whose prediction is trained on
/// and scored.
///
/// `Debug` shows lengths only: tokens are private.
#[derive(Clone, PartialEq, Eq)]
pub struct Example {
    tokens: Vec<u32>,
    loss_mask: Vec<bool>,
}

impl Example {
    /// Joins token ids and their loss mask: where `loss_mask[i]` is set, `tokens[i]` is a target
    /// token, predicted from the tokens before it. The first token is never one: nothing precedes
    /// it, so `loss_mask[0]` is cleared.
    ///
    /// # Panics
    /// When the two differ in length: that is a bug of the caller, not of the data.
    pub fn new(tokens: Vec<u32>, mut loss_mask: Vec<bool>) -> Self {
        assert_eq!(tokens.len(), loss_mask.len(), "one mask value a token");
        if let Some(first) = loss_mask.first_mut() {
            *first = false;
        }
        Self { tokens, loss_mask }
    }

    /// The token ids, in the tokenizer's numbering.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The loss mask: one value a token, set for target tokens.
    pub fn loss_mask(&self) -> &[bool] {
        &self.loss_mask
    }

    /// Number of target tokens.
    pub fn target_tokens(&self) -> usize {
        self.loss_mask.iter().filter(|&&target| target).count()
    }
}

impl std::fmt::Debug for Example {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Example")
            .field("tokens", &self.tokens.len())
            .field("target_tokens", &self.target_tokens())
            .finish()
    }
}
