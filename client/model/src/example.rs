//! One tokenised training example.

/// A token sequence with the positions whose prediction is trained on and scored.
///
/// `Debug` shows lengths only: tokens are private.
#[derive(Clone, PartialEq, Eq)]
pub struct Example {
    tokens: Vec<u32>,
    loss: Vec<bool>,
}

impl Example {
    /// `loss[i]` says whether predicting `tokens[i]` (from the tokens before it) counts.
    /// `loss[0]` never does: nothing precedes it.
    ///
    /// # Panics
    /// When the two differ in length: that is a bug of the caller, not of the data.
    pub fn new(tokens: Vec<u32>, mut loss: Vec<bool>) -> Self {
        assert_eq!(tokens.len(), loss.len(), "one loss flag a token");
        if let Some(first) = loss.first_mut() {
            *first = false;
        }
        Self { tokens, loss }
    }

    /// The token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Which tokens' predictions count, one flag a token.
    pub fn loss(&self) -> &[bool] {
        &self.loss
    }

    /// How many predictions count.
    pub fn counted(&self) -> usize {
        self.loss.iter().filter(|&&counts| counts).count()
    }
}

impl std::fmt::Debug for Example {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Example")
            .field("tokens", &self.tokens.len())
            .field("counted", &self.counted())
            .finish()
    }
}
