//! M0: the member checks the round that the aggregator opens, and makes its keys.

use std::sync::Arc;

use rand::CryptoRng;

use crate::crypto::keys::{AgreementSecret, Seed};
use crate::ids::RoundNumber;
use crate::secagg::CohortPolicy;
use crate::wire::messages::{Keys, Open, SUITE};
use crate::wire::{Unverified, Verified};

use super::context::{Expectation, OpenRound, RoundContext};
use super::keys::ExpectPeerKeys;
use super::ledger::{LedgerRound, RoundLedger};
use super::refusal::Refusal;

impl RoundContext {
    /// Checks M0 and makes fresh keys for the round: M1.
    ///
    /// # Errors
    /// [`Refusal`] where M0 is not the round that this member would take part in.
    pub fn open(
        self: &Arc<Self>,
        open: Open,
        expected: &Expectation,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Result<(ExpectPeerKeys, Unverified<Keys>), Refusal> {
        let policy = self.check(&open, expected)?;
        let revealed = ledger.open(&LedgerRound::from(&open))?;

        let (sealing, masking) = (AgreementSecret::random(rng), AgreementSecret::random(rng));
        let self_mask = Seed::random(rng);
        let keys = Keys {
            member: self.me,
            sealing: sealing.public(),
            masking: masking.public(),
            self_mask: self_mask.commitment(),
            weight: self.weight,
            revealed: revealed.unwrap_or(RoundNumber(0)),
        };
        let digest = open.digest();
        let signed = Verified::sign(keys, &self.identity, &digest);
        let m1 = signed.unverified().clone();
        let round = OpenRound {
            context: Arc::clone(self),
            policy,
            threshold: usize::from(open.threshold),
            digest,
            open,
        };
        Ok((
            ExpectPeerKeys {
                round,
                own: keys,
                sealing,
                masking,
                self_mask,
            },
            m1,
        ))
    }

    fn check(&self, open: &Open, expected: &Expectation) -> Result<CohortPolicy, Refusal> {
        if open.suite != SUITE {
            return Err(Refusal::Suite {
                got: open.suite,
                own: SUITE,
            });
        }
        if open.run != self.run {
            return Err(Refusal::Run);
        }
        let pinned = self.roster.digest();
        if open.roster != pinned {
            return Err(Refusal::Roster {
                got: open.roster,
                pinned,
            });
        }
        if open.plan != self.plan {
            return Err(Refusal::Plan {
                got: open.plan,
                accepted: self.plan,
            });
        }
        if open.adapter != expected.adapter {
            return Err(Refusal::Adapter {
                got: open.adapter,
                own: expected.adapter,
            });
        }
        // Only the round that follows the chain's head: an aggregator that skips rounds, or tells
        // of no result, could have two sums on one adapter.
        if open.round != expected.round || open.round > self.rounds {
            return Err(Refusal::Round {
                got: open.round,
                expected: expected.round,
                last: self.rounds,
            });
        }
        if open.previous != expected.previous {
            return Err(Refusal::Previous {
                got: open.previous,
                own: expected.previous,
            });
        }
        let parameters = [
            ("layout", open.layout == expected.layout),
            ("factors", open.factors == expected.factors),
            ("clip norm", open.clip == expected.clip),
            ("bits a lane", open.bits == expected.bits),
        ];
        if let Some((what, _)) = parameters.into_iter().find(|(_, same)| !same) {
            return Err(Refusal::Parameter {
                what,
                round: open.round,
            });
        }
        if open.attempt.0 == 0 {
            return Err(Refusal::Parameter {
                what: "number",
                round: open.round,
            });
        }
        let members = self.roster.len();
        let lowest = CohortPolicy::lowest(members)?;
        let threshold = usize::from(open.threshold);
        if threshold < lowest.threshold() || threshold > members {
            return Err(Refusal::Threshold {
                got: threshold,
                floor: lowest.threshold(),
                members,
            });
        }
        let minimum = usize::from(open.minimum);
        // No phase closes below the threshold, so that counts towards this member's own floor.
        let floor = if threshold >= self.contributors {
            lowest.minimum()
        } else {
            lowest.minimum().max(self.contributors)
        };
        if minimum < floor || minimum > members {
            return Err(Refusal::Minimum {
                got: minimum,
                floor,
                members,
            });
        }
        Ok(CohortPolicy::new(members, minimum)?)
    }
}
