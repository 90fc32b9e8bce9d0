//! M0: the aggregator opens an attempt at a round.

use serde::{Deserialize, Serialize};

use crate::fixed::LaneBits;
use crate::ids::{Attempt, RoundNumber, RunId};
use fedlora_adapter::Factors;
use fedlora_common::digest::{Digest, DigestWriter};

/// M0: the aggregator opens an attempt at a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The number of the suite of algorithms:
    /// [`Suite::code`](crate::crypto::agreement::Suite::code).
    pub suite: u16,
    /// The run that the round belongs to.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The attempt's number within the round, from 1.
    pub attempt: Attempt,
    /// The digest of the previous round's result; of the run's start for the first round.
    pub previous: Digest,
    /// The digest of the roster.
    pub roster: Digest,
    /// The digest of the global adapter that training starts from.
    pub adapter: Digest,
    /// The digest of the run plan.
    pub plan: Digest,
    /// The digest of the layout of what this round trains.
    pub layout: Digest,
    /// The factors that this round trains.
    pub factors: Factors,
    /// The largest L2 norm of a delta; members scale theirs down to it.
    pub clip: f32,
    /// Bits a lane.
    pub bits: LaneBits,
    /// How many others each member shares secrets and masks with.
    pub neighbours: u16,
    /// How many shares recover a secret.
    pub threshold: u16,
    /// How many signatures confirm a survivor list.
    pub confirmations: u16,
    /// The fewest contributors in the sum.
    pub minimum: u16,
}

impl Open {
    /// What every signature, seal and mask of this round is bound to.
    pub fn digest(&self) -> Digest {
        let factors = match self.factors {
            Factors::Both => 0,
            Factors::A => 1,
            Factors::B => 2,
            Factors::Core => 3,
        };
        DigestWriter::new("fedlora 2 M0 open")
            .number(self.suite.into())
            .raw(&self.run.0)
            .number(self.round.0.into())
            .number(self.attempt.0.into())
            .digest(&self.previous)
            .digest(&self.roster)
            .digest(&self.adapter)
            .digest(&self.plan)
            .digest(&self.layout)
            .number(factors)
            .number(self.clip.to_bits().into())
            .number(self.bits.bits().into())
            .number(self.neighbours.into())
            .number(self.threshold.into())
            .number(self.confirmations.into())
            .number(self.minimum.into())
            .finish()
    }
}

/// Which M0 a member's message answers: the first four bytes of its digest. It tells a message that
/// is late from one of the open attempt; that none is valid for another is the signatures' part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpenTag([u8; 4]);

impl From<Digest> for OpenTag {
    fn from(open: Digest) -> Self {
        let [a, b, c, d, ..] = *open.as_bytes();
        Self([a, b, c, d])
    }
}
