//! The figures of a run so far, as its checkpoints hold them.

use serde::{Deserialize, Serialize};

/// A held-out loss and its step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// Optimizer steps done before it.
    pub step: usize,
    /// Mean loss in nats a target token.
    #[serde(with = "exact")]
    pub loss: f64,
}

/// Totals and scores of a run so far. Field names are those of checkpoint files.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Tokens computed, repetitions included.
    pub tokens: u64,
    /// Target tokens among them.
    #[serde(rename = "counted_tokens")]
    pub target_tokens: u64,
    /// Sum of the target tokens' losses in nats.
    #[serde(with = "exact")]
    pub loss_sum: f64,
    /// The last step's mean loss in nats a target token.
    #[serde(with = "exact")]
    pub last_loss: f64,
    /// Seconds spent in optimizer steps.
    #[serde(with = "exact")]
    pub step_seconds: f64,
    /// Seconds in all, evaluations and checkpoints included, interruptions excluded.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// The latest held-out score.
    pub scored: Option<Scored>,
    /// The best held-out score.
    pub best: Option<Scored>,
    /// Number of scores since the best.
    pub since_best: usize,
    /// Whether the last step ended an epoch.
    pub pass_ended: bool,
}

impl Figures {
    /// Notes a held-out score. Returns whether it is better than all before.
    pub(crate) fn note_score(&mut self, scored: Scored) -> bool {
        let better = self.best.is_none_or(|best| scored.loss < best.loss);
        self.scored = Some(scored);
        if better {
            self.best = Some(scored);
            self.since_best = 0;
        } else {
            self.since_best += 1;
        }
        better
    }
}

/// Numbers as text: they are read with the bits that were written, which JSON's own numbers do
/// not promise.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
