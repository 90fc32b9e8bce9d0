//! What stays the same over the phases of one attempt at a round.

use std::sync::Arc;
use std::time::Duration;

use crate::fixed::WeightClass;
use crate::plan::{Roster, Timeouts};
use crate::secagg::CohortPolicy;
use crate::wire::messages::{Open, PhaseName};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

/// What stays the same over the phases of one attempt at a round.
#[derive(Debug)]
pub struct RoundSetup {
    pub(super) open: Open,
    pub(super) digest: Digest,
    pub(super) roster: Arc<Roster>,
    pub(super) policy: CohortPolicy,
    pub(super) highest_class: WeightClass,
    timeouts: Timeouts,
}

impl RoundSetup {
    /// Puts a round together. `open` holds the threshold and minimum of `policy`; no member may
    /// weigh more than `highest_class`.
    pub fn new(
        open: Open,
        roster: Arc<Roster>,
        policy: CohortPolicy,
        highest_class: WeightClass,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            digest: open.digest(),
            open,
            roster,
            policy,
            highest_class,
            timeouts,
        }
    }

    /// The round's M0.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// The digest of M0, which every answer names.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// When a phase that began at `from` closes at the latest.
    pub(super) fn deadline(&self, phase: PhaseName, from: Timestamp) -> Timestamp {
        let seconds = match phase {
            PhaseName::Keys => self.timeouts.keys,
            PhaseName::Shares => self.timeouts.shares,
            PhaseName::Updates => self.timeouts.update,
            PhaseName::Confirm => self.timeouts.confirm,
            PhaseName::Reveal => self.timeouts.reveal,
        };
        from.after(Duration::from_secs(seconds))
    }
}
