//! How a run ended without a failure.

use crate::ids::RoundNumber;

/// How far a run came, and which of its adapters is the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    /// Rounds of the plan.
    pub planned: u32,
    /// Rounds that were done.
    pub rounds: u32,
    /// The round whose adapter is the result; 0 for the first adapter.
    pub best: RoundNumber,
}

impl RunEnd {
    /// Whether the plan's patience ended the run before its last round.
    pub fn stopped_early(&self) -> bool {
        self.rounds < self.planned
    }

    /// What people should know of it, a sentence each; nothing where all rounds were done and the
    /// result is the last one's.
    pub fn notes(&self) -> Vec<String> {
        let Self {
            planned,
            rounds,
            best,
        } = self;
        let mut notes = Vec::new();
        if self.stopped_early() {
            notes.push(format!(
                "the run ended after round {rounds} of {planned}: the pooled validation loss no \
                 longer improved"
            ));
        }
        if best.0 == 0 {
            notes.push(
                "the run's result is the first adapter: no round lowered the pooled validation loss"
                    .to_owned(),
            );
        } else if best.0 < *rounds {
            notes.push(format!(
                "the run's result is the adapter of round {best}: later ones had a higher pooled \
                 validation loss"
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_as_planned_is_told() {
        let notes = |rounds, best| {
            let best = RoundNumber(best);
            let end = RunEnd {
                planned: 9,
                rounds,
                best,
            };
            end.notes().join("\n")
        };
        assert_eq!(notes(9, 9), "");
        let early = notes(5, 3);
        assert!(early.contains("after round 5 of 9") && early.contains("adapter of round 3"));
        assert!(notes(9, 0).contains("is the first adapter"));
        assert_eq!(notes(5, 5).lines().count(), 1);
    }
}
