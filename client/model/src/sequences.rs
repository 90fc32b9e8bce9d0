//! Sequences that lie one after another as rows, without padding.

use std::ops::Range;
use std::sync::Arc;

/// Where each sequence begins and ends among the rows of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    offsets: Arc<[usize]>,
}

impl Sequences {
    /// Sequences of these lengths in rows, one after another.
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0;
        let offsets = std::iter::once(0)
            .chain(lengths.into_iter().map(|length| {
                end += length;
                end
            }))
            .collect();
        Self { offsets }
    }

    /// Number of rows of all sequences together.
    pub fn rows(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The range of rows of each sequence, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        self.offsets.windows(2).map(|two| two[0]..two[1])
    }

    /// Number of rows of the longest sequence; 0 without sequences.
    pub fn longest(&self) -> usize {
        self.iter().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// Each row's position in its sequence, from 0.
    pub fn positions(&self) -> Vec<u32> {
        self.iter().flat_map(|rows| 0..rows.len() as u32).collect()
    }

    /// The first row of each row's sequence.
    pub fn starts(&self) -> Vec<u32> {
        self.iter()
            .flat_map(|rows| std::iter::repeat_n(rows.start as u32, rows.len()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_restart_with_each_sequence() {
        let sequences = Sequences::of_lengths([2, 3, 1]);
        assert_eq!(
            (sequences.rows(), sequences.len(), sequences.longest()),
            (6, 3, 3)
        );
        assert_eq!(sequences.positions(), [0, 1, 0, 1, 2, 0]);
        assert_eq!(sequences.starts(), [0, 0, 2, 2, 2, 5]);
        assert!(Sequences::of_lengths([]).is_empty());
    }
}
