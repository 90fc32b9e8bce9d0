//! One round at one member: M1 to M5, and the repetition of each answer after a broken
//! connection. Each phase owns the answer that it may have to repeat.

use std::sync::Arc;

use rand::CryptoRng;

use fedlora_common::digest::Digest;

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::fixed::{EncodedUpdate, RoundEncoding};
use crate::ids::{Attempt, RoundNumber};
use crate::round::participant::{
    ExpectCommitments, ExpectConfirmations, ExpectDealers, ExpectPeerKeys, ExpectPeerShares,
    ExpectResult, ExpectSurvivors, Expectation, Opened, ReadyToMask, Refusal, RoundContext,
    RoundLedger, check_result,
};
use crate::wire::Unverified;
use crate::wire::messages::{Open, RoundMessage, RoundResult, ToAggregator, ToMember};

use super::effect::Upload;

/// A round that this member opened.
#[derive(Debug)]
pub struct MemberRound {
    open: Open,
    digest: Digest,
    phase: RoundPhase,
}

/// The phase, with the answers given that may have to be repeated in it.
#[derive(Debug)]
enum RoundPhase {
    Commitments(ExpectCommitments, RoundMessage),
    PeerKeys(ExpectPeerKeys, RoundMessage),
    PeerShares(ExpectPeerShares, RoundMessage),
    Dealers(ExpectDealers, RoundMessage),
    Update(ReadyToMask),
    Survivors(ExpectSurvivors, Upload),
    Confirmations(ExpectConfirmations, Signature),
    Result(ExpectResult, RoundMessage),
}

/// What a message of the round leads to.
#[derive(Debug)]
pub enum RoundAnswer {
    /// Nothing: the message is not for this phase.
    Nothing,
    /// A message for the aggregator, for the first time or again.
    Send(ToAggregator),
    /// The masks are ready, and the update is wanted.
    WantsUpdate,
    /// A masked update to upload, for the first time or again.
    Upload(Upload),
}

impl MemberRound {
    /// Checks M0 and makes this member's keys.
    ///
    /// # Errors
    /// [`Refusal`] where M0 is not the round that this member would take part in.
    pub fn open(
        context: &Arc<RoundContext>,
        open: Open,
        expected: &Expectation,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, ToAggregator), Refusal> {
        let (phase, answer) = match context.open(open.clone(), expected, ledger, rng)? {
            Opened::Commit(phase, commitment) => {
                let answer = RoundMessage::Commit(commitment);
                (RoundPhase::Commitments(phase, answer.clone()), answer)
            }
            Opened::Keys(phase, keys) => {
                let answer = RoundMessage::Keys {
                    keys,
                    opening: None,
                };
                (RoundPhase::PeerKeys(phase, answer.clone()), answer)
            }
        };
        let round = Self {
            digest: open.digest(),
            open,
            phase,
        };
        let message = round.wrap(answer);
        Ok((round, message))
    }

    /// The M0 that opened the round.
    pub fn opened(&self) -> &Open {
        &self.open
    }

    /// The digest of the round's M0.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The round's number, from 1.
    pub fn number(&self) -> RoundNumber {
        self.open.round
    }

    /// Whether this is that attempt at that round.
    pub fn is(&self, round: RoundNumber, attempt: Attempt) -> bool {
        (self.open.round, self.open.attempt) == (round, attempt)
    }

    /// How to encode the update, once the masks are ready and it is wanted.
    pub fn wants_update(&self) -> Option<RoundEncoding> {
        match &self.phase {
            RoundPhase::Update(phase) => Some(phase.encoding()),
            _ => None,
        }
    }

    /// Takes a message of this round. One that was answered before is answered the same way:
    /// a repetition reveals nothing more.
    ///
    /// # Errors
    /// [`Refusal`], with which the round ends for this member and its keys are wiped.
    pub fn message(
        mut self,
        message: ToMember,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, RoundAnswer), Refusal> {
        use RoundPhase as P;
        let (phase, answer) = match (self.phase, message) {
            (P::Commitments(phase, sent), ToMember::Open(open)) if open == self.open => {
                let again = Answer::Send(sent.clone());
                (P::Commitments(phase, sent), again)
            }
            (P::PeerKeys(phase, sent), ToMember::Open(open)) if open == self.open => {
                let again = Answer::Send(sent.clone());
                (P::PeerKeys(phase, sent), again)
            }
            (P::Commitments(phase, _), ToMember::Commitments(commitments)) => {
                let (next, keys, opening) = phase.commitments(commitments, rng)?;
                let answer = RoundMessage::Keys { keys, opening };
                (P::PeerKeys(next, answer.clone()), Answer::Send(answer))
            }
            (P::PeerKeys(phase, sent), ToMember::Commitments(_)) => {
                let again = Answer::Send(sent.clone());
                (P::PeerKeys(phase, sent), again)
            }
            (P::PeerKeys(phase, _), ToMember::PeerKeys(keys)) => {
                let (next, deal) = phase.peer_keys(keys, rng)?;
                let answer = RoundMessage::Shares(deal);
                (P::PeerShares(next, answer.clone()), Answer::Send(answer))
            }
            (P::PeerShares(phase, sent), ToMember::PeerKeys(_)) => {
                let again = Answer::Send(sent.clone());
                (P::PeerShares(phase, sent), again)
            }
            (P::PeerShares(phase, _), ToMember::PeerShares(shares)) => {
                let (next, answer) = phase.peer_shares(shares)?;
                (P::Dealers(next, answer.clone()), Answer::Send(answer))
            }
            (P::Dealers(phase, sent), ToMember::PeerShares(_)) => {
                let again = Answer::Send(sent.clone());
                (P::Dealers(phase, sent), again)
            }
            (P::Dealers(phase, _), ToMember::Dealers(dealers)) => {
                let next = phase.dealers(dealers)?;
                (P::Update(next), Answer::WantsUpdate)
            }
            (P::Update(phase), ToMember::Dealers(_)) => (P::Update(phase), Answer::WantsUpdate),
            (P::Survivors(phase, upload), ToMember::Dealers(_)) => {
                let again = Answer::Upload(upload.clone());
                (P::Survivors(phase, upload), again)
            }
            (P::Survivors(phase, ..), ToMember::Survivors { list, proof }) => {
                let (next, signature) = phase.survivors(list, &proof, ledger)?;
                let answer = RoundMessage::Confirm(signature);
                (P::Confirmations(next, signature), Answer::Send(answer))
            }
            (P::Confirmations(phase, signature), ToMember::Survivors { .. }) => {
                let again = RoundMessage::Confirm(signature);
                (P::Confirmations(phase, signature), Answer::Send(again))
            }
            (P::Confirmations(phase, _), ToMember::Confirmations(confirmations)) => {
                let (next, answer) = phase.confirmations(&confirmations, ledger)?;
                (P::Result(next, answer.clone()), Answer::Send(answer))
            }
            (P::Result(phase, sent), ToMember::Confirmations(_)) => {
                let again = Answer::Send(sent.clone());
                (P::Result(phase, sent), again)
            }
            (phase, _) => (phase, Answer::Nothing),
        };
        self.phase = phase;
        let answer = match answer {
            Answer::Nothing => RoundAnswer::Nothing,
            Answer::Send(message) => RoundAnswer::Send(self.wrap(message)),
            Answer::WantsUpdate => RoundAnswer::WantsUpdate,
            Answer::Upload(upload) => RoundAnswer::Upload(upload),
        };
        Ok((self, answer))
    }

    /// Masks the update, where this round wants one. Masker and update are consumed.
    pub fn mask(mut self, update: EncodedUpdate) -> (Self, Option<Upload>) {
        match self.phase {
            RoundPhase::Update(phase) => {
                let (next, masked, claim) = phase.mask(update);
                let upload = Upload {
                    open: self.digest,
                    masked: Arc::new(masked),
                    claim,
                };
                self.phase = RoundPhase::Survivors(next, upload.clone());
                (self, Some(upload))
            }
            other => {
                self.phase = other;
                (self, None)
            }
        }
    }

    /// Checks a result: against all that this member saw of the round, where it saw the round
    /// through; otherwise signature and chain.
    ///
    /// # Errors
    /// [`Refusal`] where the result does not follow.
    pub fn result(
        self,
        result: Unverified<RoundResult>,
        aggregator: &IdentityPublic,
        previous: &Digest,
    ) -> Result<RoundResult, Refusal> {
        match self.phase {
            RoundPhase::Result(phase, _) if self.open.round == result.claimed().round => {
                phase.result(result, aggregator, previous)
            }
            _ => check_result(result, aggregator, previous),
        }
    }

    fn wrap(&self, message: RoundMessage) -> ToAggregator {
        ToAggregator::Round {
            open: self.digest.into(),
            message,
        }
    }
}

/// An answer, not yet bound to the round.
enum Answer {
    Nothing,
    Send(RoundMessage),
    WantsUpdate,
    Upload(Upload),
}
