//! Examples as rows of tokens, one after another, with the rows whose next token counts.

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
    places: Vec<usize>,
    targets: Vec<u32>,
}

impl Batch {
    /// Takes `examples`, each cut at `max_tokens`.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, max_tokens: usize) -> Self {
        let (mut tokens, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let mut lengths = Vec::new();
        for example in examples {
            let length = example.tokens().len().min(max_tokens);
            // The last token only is a target: nothing is predicted from it.
            let rows = length.saturating_sub(1);
            for position in 0..rows {
                if example.loss()[position + 1] {
                    places.push(tokens.len() + position);
                    targets.push(example.tokens()[position + 1]);
                }
            }
            tokens.extend_from_slice(&example.tokens()[..rows]);
            lengths.push(rows);
        }
        Self {
            tokens,
            sequences: Sequences::of_lengths(lengths),
            places,
            targets,
        }
    }

    /// Tokens that go through the model as one sequence, none of which counts.
    pub fn of_tokens(tokens: &[u32]) -> Self {
        Self {
            tokens: tokens.to_vec(),
            sequences: Sequences::of_lengths([tokens.len()]),
            places: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The token of each row.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where each example's rows are.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Rows from which a counted token is predicted.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// The counted tokens, one a place.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Rows that are computed.
    pub fn positions(&self) -> usize {
        self.tokens.len()
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("rows", &self.tokens.len())
            .field("sequences", &self.sequences.len())
            .field("counted", &self.targets.len())
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
        assert_eq!(batch.places(), [1, 2, 3]);
        assert_eq!(batch.targets(), [7, 9, 10]);
        assert!(!format!("{batch:?}").contains('8'));
    }
}
