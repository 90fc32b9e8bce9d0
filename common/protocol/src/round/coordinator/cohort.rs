//! What is publicly known of a round's members once all shares are exchanged.

use std::collections::BTreeMap;

use crate::fixed::{CohortWeight, SumParts, WeightClass};
use crate::ids::MemberIndex;
use crate::secagg::Committed;
use crate::wire::messages::Survivors;
use fedlora_common::digest::Digest;

/// Keys, weights and transcript of a round.
#[derive(Debug)]
pub(super) struct CohortMasks {
    /// Every member that shared its secrets: those whose masks are in play (U2).
    pub(super) committed: BTreeMap<MemberIndex, Committed>,
    /// Of every member that sent keys (U1).
    pub(super) weights: BTreeMap<MemberIndex, WeightClass>,
    /// The digest of all keys.
    pub(super) transcript: Digest,
}

impl CohortMasks {
    /// Those for whom the round's fixed-point format is made.
    pub(super) fn cohort(&self) -> CohortWeight {
        CohortWeight::of(self.weights.values().copied())
    }

    /// How many and how heavy the survivors are.
    pub(super) fn parts(&self, survivors: &Survivors) -> SumParts {
        let weights = self.weights.iter();
        SumParts {
            survivors: survivors.0.len(),
            weight: weights
                .filter(|(member, _)| survivors.0.contains_key(member))
                .map(|(_, weight)| weight.weight())
                .sum(),
        }
    }
}
