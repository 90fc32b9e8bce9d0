//! Early stopping: a run ends when its held-out loss has not improved for a while.

use std::num::NonZeroUsize;

use crate::run::figures::{Figures, Scored};

/// Held-out scores in a row without a better one after which a run ends. A small number saves
/// time; a large one tolerates noisy scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(NonZeroUsize);

impl Patience {
    /// A patience of `scores` held-out scores.
    pub fn new(scores: NonZeroUsize) -> Self {
        Self(scores)
    }

    /// The best score, where the patience is over.
    pub(crate) fn exhausted(self, figures: &Figures) -> Option<Scored> {
        figures.best.filter(|_| figures.since_best >= self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_scores_since_the_best() {
        let patience = Patience::new(NonZeroUsize::new(2).unwrap());
        let mut figures = Figures::default();
        assert_eq!(patience.exhausted(&figures), None);
        let score = |step, loss| Scored { step, loss };
        // An equal score is not a better one.
        for (step, loss, better, over) in [
            (1, 3.0, true, false),
            (2, 2.0, true, false),
            (3, 2.0, false, false),
            (4, 1.5, true, false),
            (5, 1.6, false, false),
            (6, 1.7, false, true),
            (7, 1.0, true, false),
        ] {
            assert_eq!(figures.note_score(score(step, loss)), better, "{step}");
            assert_eq!(patience.exhausted(&figures).is_some(), over, "{step}");
        }
        assert_eq!(figures.best, Some(score(7, 1.0)));
    }
}
