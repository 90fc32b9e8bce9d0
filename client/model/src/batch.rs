//! Examples as rows of tokens, one after another, with the rows whose next token is a target.

use std::borrow::Cow;

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

    /// The same with sequences lengthened to a multiple of `alignment` rows, where that is at most
    /// `longest`. What is added comes after a sequence's own rows, which do not see it, and nothing
    /// is predicted from it.
    pub(crate) fn aligned(&self, alignment: usize, longest: usize) -> Cow<'_, Self> {
        let wanted = |length: usize| {
            let aligned = length.next_multiple_of(alignment);
            if aligned <= longest { aligned } else { length }
        };
        if self
            .sequences
            .iter()
            .all(|rows| wanted(rows.len()) == rows.len())
        {
            return Cow::Borrowed(self);
        }
        let mut tokens = Vec::with_capacity(self.tokens.len());
        // Where each row comes to lie.
        let mut places = Vec::with_capacity(self.tokens.len());
        let mut lengths = Vec::with_capacity(self.sequences.len());
        for rows in self.sequences.iter() {
            let (start, length) = (tokens.len(), wanted(rows.len()));
            places.extend(start..start + rows.len());
            tokens.extend_from_slice(&self.tokens[rows]);
            tokens.resize(start + length, 0);
            lengths.push(length);
        }
        Cow::Owned(Self {
            tokens,
            sequences: Sequences::of_lengths(lengths),
            target_rows: self.target_rows.iter().map(|&row| places[row]).collect(),
            targets: self.targets.clone(),
        })
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

    #[test]
    fn aligned_sequences_keep_their_rows_and_targets() {
        let first = Example::new(vec![5, 6, 7], vec![false, false, true]);
        let second = Example::new(vec![8, 9, 10, 11, 12], vec![true; 5]);
        let third = Example::new(
            vec![13, 14, 15, 16, 17, 18],
            vec![false, true, false, false, true, true],
        );
        let batch = Batch::new([&first, &second, &third], 10);
        let aligned = batch.aligned(4, 7);
        assert_eq!(
            aligned.tokens(),
            [5, 6, 0, 0, 8, 9, 10, 11, 13, 14, 15, 16, 17]
        );
        // The third would be longer than seven.
        assert_eq!(aligned.sequences(), &Sequences::of_lengths([4, 4, 5]));
        assert_eq!(aligned.target_rows(), [1, 4, 5, 6, 7, 8, 11, 12]);
        assert_eq!(aligned.targets(), batch.targets());
        assert!(matches!(batch.aligned(1, 7), Cow::Borrowed(_)));
        assert!(matches!(aligned.aligned(4, 7), Cow::Borrowed(_)));
    }
}
