//! The plan's section on aggregation: how updates are encoded, masked, weighed and applied.

use serde::{Deserialize, Serialize};

use super::robust::RobustPlan;
use crate::crypto::agreement::Suite;
use crate::fixed::{LaneBits, WeightClass};
use crate::secagg::Assumptions;

/// Secure FedAvg's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AggregationPlan {
    /// Bits of each lane: 20, 24 or 32.
    pub bits: LaneBits,
    /// The greatest L2 norm of a member's delta in the first round; larger ones are scaled down.
    pub clip: f32,
    /// Whether the clip follows the members' norms from round to round. Rounds with fewer than
    /// five survivors do not tell their norms and leave it as it is.
    pub adaptive_clip: bool,
    /// The share of members whose norm the clip aims not to exceed, above 0 and below 1.
    pub clip_quantile: f64,
    /// The greatest value that the clip may grow to; without it eight times `clip`.
    pub max_clip: Option<f32>,
    /// How much each member's delta counts for in the mean.
    pub weights: Weighting,
    /// The highest weight class of a member, 0 to 20; larger ones count as this. Only where
    /// `weights` is `classes`.
    pub max_class: WeightClass,
    /// The fewest contributors in a sum; without it the lowest that the roster's size allows.
    pub minimum: Option<usize>,
    /// The server's rate: what the mean delta, or the direction that the server's optimizer makes
    /// of it, is multiplied by before it is added.
    pub server_learning_rate: f32,
    /// The algorithms that members agree on keys with: `hybrid` is X25519 with ML-KEM-768,
    /// `classical` X25519 alone.
    pub suite: Suite,
    /// The share of members that may collude with the aggregator, from 0 to below 1/3. Only of
    /// rosters above 64; below that a third may.
    pub colluding: f64,
    /// The share of members that may drop out of a round, from 0 to below 1/3. Only of rosters
    /// above 64, which share each secret among some members and not all, and of robust plans.
    pub dropping: f64,
    /// Groups with a sum of their own, whose means a robust rule combines; without it all are in
    /// one sum.
    pub robust: Option<RobustPlan>,
}

impl Default for AggregationPlan {
    fn default() -> Self {
        Self {
            bits: LaneBits::B24,
            clip: 10.0,
            adaptive_clip: true,
            clip_quantile: 0.9,
            max_clip: None,
            weights: Weighting::Equal,
            max_class: DEFAULT_MAX_CLASS.try_into().expect("a class"),
            minimum: None,
            server_learning_rate: 1.0,
            suite: Suite::default(),
            colluding: Assumptions::default().colluding,
            dropping: Assumptions::default().dropping,
            robust: None,
        }
    }
}

/// How many times the plan's clip the clip may grow to, where the plan does not say.
const MAX_GROWTH: f32 = 8.0;

/// The class of 4,096 to 8,191 examples.
const DEFAULT_MAX_CLASS: u8 = 12;

/// How much each member's delta counts for. Weights are public: an exact number of examples would
/// be told by two sums whose survivors differ in one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// All members weigh the same.
    #[default]
    Equal,
    /// A member weighs 2^k, with the class k that it has agreed to.
    Classes,
}

impl AggregationPlan {
    /// The greatest clip norm of any round.
    pub fn max_clip(&self) -> f32 {
        self.max_clip.unwrap_or(self.clip * MAX_GROWTH)
    }

    /// The class that a member may have.
    pub fn highest_class(&self) -> WeightClass {
        match self.weights {
            Weighting::Equal => WeightClass::ONE,
            Weighting::Classes => self.max_class,
        }
    }
}
