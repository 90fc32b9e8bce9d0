//! M6: what a round came to.

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;

/// M6: a round's result, signed by the aggregator and chained to the result before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundResult {
    /// The run that the round belongs to.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The attempt that reached this result.
    pub attempt: Attempt,
    /// The digest of the new global adapter.
    pub adapter: Digest,
    /// The digest of the unmasked sum, of [`RingSum::digest`](crate::fixed::RingSum::digest): who
    /// has the uploads and the revealed shares can compute it again.
    pub sum: Digest,
    /// The sum of the survivors' weights.
    pub total_weight: u64,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
    /// The digest of the previous round's result; of the run's start for the first.
    pub previous: Digest,
    /// The members in the sum, ascending.
    pub survivors: Vec<MemberIndex>,
    /// All other members of the roster, ascending.
    pub dropped: Vec<MemberIndex>,
    /// Mean training loss over the survivors in nats a token, from the masked sum; none where
    /// they are fewer than five.
    pub train_loss: Option<f32>,
    /// Mean loss of the round's starting adapter on the survivors' own records, likewise.
    pub eval_loss: Option<f32>,
    /// How many survivors' deltas exceeded the clip, likewise.
    pub clipped: Option<u16>,
    /// How many survivors found the round's starting adapter worse than the one before, likewise.
    /// Where they are enough by the plan, the step before is taken back in place of a new one.
    pub votes: Option<u16>,
}

impl RoundResult {
    /// What the next round's result is chained to.
    pub fn digest(&self) -> Digest {
        let members = |list: &[MemberIndex]| {
            list.iter()
                .flat_map(|member| member.0.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let loss = |loss: Option<f32>| loss.map_or(u64::MAX, |value| value.to_bits().into());
        let count = |count: Option<u16>| count.map_or(u64::MAX, u64::from);
        DigestWriter::new("fedlora 3 M6 result")
            .raw(&self.run.0)
            .number(self.round.0.into())
            .number(self.attempt.0.into())
            .digest(&self.adapter)
            .digest(&self.sum)
            .number(self.total_weight)
            .digest(&self.transcript)
            .digest(&self.previous)
            .bytes(&members(&self.survivors))
            .bytes(&members(&self.dropped))
            .number(loss(self.train_loss))
            .number(loss(self.eval_loss))
            .number(count(self.clipped))
            .number(count(self.votes))
            .finish()
    }

    /// What the first round's result is chained to.
    pub fn chain_start(run: RunId, plan: &Digest, roster: &Digest, adapter: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 result chain")
            .raw(&run.0)
            .digest(plan)
            .digest(roster)
            .digest(adapter)
            .finish()
    }

    /// The transcript digest of a round: of its cohort and its survivor list.
    pub fn transcript_of(cohort: &Digest, list: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 round transcript")
            .digest(cohort)
            .digest(list)
            .finish()
    }
}

impl Signable for RoundResult {
    fn signed_digest(&self, context: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 M6 signature")
            .digest(context)
            .digest(&self.digest())
            .finish()
    }
}
