//! M0: the member checks the round that the aggregator opens, and makes its keys; where neighbours
//! or groups are drawn from a beacon, it commits to its part first.

use std::sync::Arc;

use rand::CryptoRng;

use crate::crypto::agreement::{AgreementRoot, AgreementSecret};
use crate::crypto::keys::Seed;
use crate::ids::RoundNumber;
use crate::secagg::{CohortPolicy, MAX_ATTEMPTS};
use crate::wire::messages::{
    BeaconOpening, Commitments, Keys, NONCE_LEN, Open, OpenedCommitment, commitment_to,
    keys_context,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_common::digest::Digest;

use super::context::{Expectation, OpenRound, RoundContext};
use super::keys::ExpectPeerKeys;
use super::ledger::{LedgerRound, RoundLedger};
use super::refusal::Refusal;

/// A round that this member agreed to, with its first answer.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made and consumed within one call"
)]
pub enum Opened {
    /// Neighbours or groups are drawn from a beacon: the commitment to this member's part of it.
    Commit(ExpectCommitments, Digest),
    /// Nothing is drawn: M1.
    Keys(ExpectPeerKeys, Unverified<Keys>),
}

/// This member's secrets of one attempt.
#[derive(Debug)]
pub(super) struct RoundSecrets {
    pub(super) sealing: AgreementSecret,
    pub(super) masking: AgreementSecret,
    pub(super) self_mask: Seed,
}

impl RoundContext {
    /// Checks M0, and makes fresh keys for the round: M1, or the commitment before it.
    ///
    /// # Errors
    /// [`Refusal`] where M0 is not the round that this member would take part in.
    pub fn open(
        self: &Arc<Self>,
        open: Open,
        expected: &Expectation,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Result<Opened, Refusal> {
        let policy = self.check(&open, expected)?;
        let revealed = ledger.open(&LedgerRound::from(&open))?.unwrap_or_default();
        let digest = open.digest();
        let round = OpenRound {
            context: Arc::clone(self),
            policy,
            digest,
            open,
        };
        if !policy.needs_beacon() {
            let (next, keys) = ExpectPeerKeys::new(round, revealed, None, rng);
            return Ok(Opened::Keys(next, keys));
        }
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let commitment = commitment_to(&digest, self.me, &nonce);
        let next = ExpectCommitments {
            round,
            revealed,
            nonce,
        };
        Ok(Opened::Commit(next, commitment))
    }

    fn check(&self, open: &Open, expected: &Expectation) -> Result<CohortPolicy, Refusal> {
        let own = self.suite.code();
        if open.suite != own {
            let got = open.suite;
            return Err(Refusal::Suite { got, own });
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
        if open.attempt.0 == 0 || open.attempt.0 > MAX_ATTEMPTS {
            return Err(Refusal::Attempt {
                round: open.round,
                got: open.attempt,
            });
        }
        let members = self.roster.len();
        if usize::from(open.neighbours) != self.policy.neighbours() {
            return Err(Refusal::Parameter {
                what: "number of neighbours",
                round: open.round,
            });
        }
        for (got, floor, most) in [
            (
                open.threshold,
                self.policy.threshold(),
                self.policy.neighbours() + 1,
            ),
            (open.confirmations, self.policy.confirmations(), members),
        ] {
            let got = usize::from(got);
            if got < floor || got > most {
                return Err(Refusal::Threshold { got, floor, most });
            }
        }
        let minimum = usize::from(open.minimum);
        // No phase closes below the quorum, so that counts towards this member's own floor.
        let lowest = self.policy.lowest_minimum();
        let floor = if usize::from(open.confirmations) >= self.contributors {
            lowest
        } else {
            lowest.max(self.contributors)
        };
        if minimum < floor || minimum > members {
            return Err(Refusal::Minimum {
                got: minimum,
                floor,
                members,
            });
        }
        Ok(self.policy.raised(open.threshold.into(), minimum)?)
    }
}

/// This member has committed to its part of the beacon, and waits for the others' commitments.
#[derive(Debug)]
pub struct ExpectCommitments {
    round: OpenRound,
    revealed: RoundNumber,
    nonce: [u8; NONCE_LEN],
}

impl ExpectCommitments {
    /// Checks that the beacon has enough contributors, and makes M1. A contributor opens its
    /// commitment with it: all are fixed by now.
    ///
    /// # Errors
    /// [`Refusal`] where contributors are too few or many, not on the roster, or this member's own
    /// commitment is another.
    pub fn commitments(
        self,
        commitments: Commitments,
        rng: &mut impl CryptoRng,
    ) -> Result<(ExpectPeerKeys, Unverified<Keys>, Option<BeaconOpening>), Refusal> {
        let message = "commitments";
        let round = self.round;
        let needed = round.policy.colluders() + 1;
        if commitments.0.len() != needed {
            return Err(Refusal::Contributors {
                got: commitments.0.len(),
                needed,
            });
        }
        let roster = &round.context.roster;
        if let Some(&member) = commitments
            .0
            .keys()
            .find(|member| roster.get(**member).is_none())
        {
            return Err(Refusal::Stranger { message, member });
        }
        let me = round.me();
        let own = commitment_to(&round.digest, me, &self.nonce);
        let opening = match commitments.0.get(&me) {
            None => None,
            Some(commitment) if *commitment == own => {
                let opened = OpenedCommitment {
                    member: me,
                    commitments: commitments.digest(&round.digest),
                    nonce: self.nonce,
                };
                let digest = opened.signed_digest(&round.digest);
                Some(BeaconOpening {
                    nonce: self.nonce,
                    signature: round.context.identity.sign(&digest),
                })
            }
            Some(_) => return Err(Refusal::OwnCommitment),
        };
        let (next, keys) = ExpectPeerKeys::new(round, self.revealed, Some(commitments), rng);
        Ok((next, keys, opening))
    }
}

impl ExpectPeerKeys {
    fn new(
        round: OpenRound,
        revealed: RoundNumber,
        commitments: Option<Commitments>,
        rng: &mut impl CryptoRng,
    ) -> (Self, Unverified<Keys>) {
        let suite = round.context.suite;
        let secrets = RoundSecrets {
            sealing: AgreementRoot::random(rng).key_pair(suite),
            masking: AgreementRoot::random(rng).key_pair(suite),
            self_mask: Seed::random(rng),
        };
        let keys = Keys {
            member: round.me(),
            sealing: secrets.sealing.public().clone(),
            masking: secrets.masking.public().clone(),
            weight: round.context.weight,
            revealed,
        };
        let commitments_digest = commitments.as_ref().map(|all| all.digest(&round.digest));
        let context = keys_context(&round.digest, commitments_digest.as_ref());
        let signed = Verified::sign(keys, &round.context.identity, &context);
        let next = Self {
            own: signed.body().signed_digest(&context),
            round,
            commitments,
            context,
            secrets,
        };
        (next, signed.unverified().clone())
    }
}
