//! Examples as rows of tokens, one after another, with the rows whose next token is a target.

use super::sequences::Sequences;
use crate::Example;

/// A batch without padding: each example is a sequence of rows of its own, with positions
/// from 0 and attention within it. Packing is putting more examples into a batch.
///
/// `Debug` shows sizes only: tokens are private.
#[derive(Clone)]
pub struct Batch {
    tokens: Vec<u32>,
    sequences: Sequences,
    target_rows: Vec<usize>,
    targets: Vec<u32>,
}

impl Batch {
    /// Takes `examples`, each cut at `max_tokens`.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, max_tokens: usize) -> Self {
        let (mut tokens, mut target_rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut lengths = Vec::new();
        for example in examples {
            let length = example.tokens().len().min(max_tokens);
            // The last token only is a target: nothing is predicted from it.
            let rows = length.saturating_sub(1);
            for position in 0..rows {
                if example.loss_mask()[position + 1] {
                    target_rows.push(tokens.len() + position);
                    targets.push(example.tokens()[position + 1]);
                }
            }
            tokens.extend_from_slice(&example.tokens()[..rows]);
            lengths.push(rows);
        }
        Self {
            tokens,
            sequences: Sequences::of_lengths(lengths),
            target_rows,
            targets,
        }
    }

    /// Tokens that go through the model as one sequence, without target tokens.
    pub fn of_tokens(tokens: &[u32]) -> Self {
        Self {
            tokens: tokens.to_vec(),
            sequences: Sequences::of_lengths([tokens.len()]),
            target_rows: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The token id of each row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The range of rows of each example.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Rows from which a target token is predicted, in ascending order.
    pub fn target_rows(&self) -> &[usize] {
        &self.target_rows
    }

    /// Ids of the target tokens, one for each of [`Batch::target_rows`].
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Number of rows: the tokens that go through the model.
    pub fn positions(&self) -> usize {
        self.tokens.len()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("rows", &self.tokens.len())
            .field("sequences", &self.sequences.len())
            .field("target_tokens", &self.targets.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_each_other_and_the_last_token_is_only_a_target() {
        let first = Example::new(vec![5, 6, 7], vec![false, false, true]);
        let second = Example::new(vec![8, 9, 10, 11], vec![true; 4]);
        let short = Example::new(vec![1], vec![true]);
        let batch = Batch::new([&first, &short, &second], 3);
        assert_eq!(batch.tokens(), [5, 6, 8, 9]);
        assert_eq!(batch.sequences(), &Sequences::of_lengths([2, 0, 2]));
        assert_eq!(batch.target_rows(), [1, 2, 3]);
        assert_eq!(batch.targets(), [7, 9, 10]);
        assert!(!format!("{batch:?}").contains('8'));
    }
}
