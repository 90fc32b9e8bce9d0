//! One round at one member: M1 to M5, and the repetition of each answer after a broken
//! connection. Each phase owns the answer that it may have to repeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::CryptoRng;

use fedlora_common::digest::Digest;

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::fixed::{EncodedUpdate, RoundEncoding};
use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::round::participant::{
    ExpectConfirmations, ExpectPeerKeys, ExpectPeerShares, ExpectResult, ExpectSurvivors,
    Expectation, ReadyToMask, Refusal, RoundContext, RoundLedger, check_result,
};
use crate::wire::Unverified;
use crate::wire::messages::{
    Keys, Open, RevealedShare, RoundMessage, RoundResult, SealedShares, ToAggregator, ToMember,
};

use super::effect::Upload;

/// A round that this member opened.
#[derive(Debug)]
pub struct MemberRound {
    open: Open,
    digest: Digest,
    phase: RoundPhase,
}

type Sealed = BTreeMap<MemberIndex, SealedShares>;

/// The phase, with the answer given in it.
#[derive(Debug)]
enum RoundPhase {
    PeerKeys(ExpectPeerKeys, Unverified<Keys>),
    PeerShares(ExpectPeerShares, Sealed),
    Update(ReadyToMask, Sealed),
    Survivors(ExpectSurvivors, Sealed, Upload),
    Confirmations(ExpectConfirmations, Signature),
    Result(ExpectResult, BTreeMap<MemberIndex, RevealedShare>),
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
        let (phase, keys) = context.open(open.clone(), expected, ledger, rng)?;
        let round = Self {
            digest: open.digest(),
            open,
            phase: RoundPhase::PeerKeys(phase, keys.clone()),
        };
        let message = round.wrap(RoundMessage::Keys(keys));
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
            RoundPhase::Update(phase, _) => Some(phase.encoding()),
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
            (P::PeerKeys(phase, keys), ToMember::Open(open)) if open == self.open => {
                let again = RoundMessage::Keys(keys.clone());
                (P::PeerKeys(phase, keys), Answer::Send(again))
            }
            (P::PeerKeys(phase, _), ToMember::PeerKeys(keys)) => {
                let (next, shares) = phase.peer_keys(keys, rng)?;
                let answer = RoundMessage::Shares(shares.clone());
                (P::PeerShares(next, shares), Answer::Send(answer))
            }
            (P::PeerShares(phase, sealed), ToMember::PeerKeys(_)) => {
                let again = RoundMessage::Shares(sealed.clone());
                (P::PeerShares(phase, sealed), Answer::Send(again))
            }
            (P::Update(phase, sealed), ToMember::PeerKeys(_)) => {
                let again = RoundMessage::Shares(sealed.clone());
                (P::Update(phase, sealed), Answer::Send(again))
            }
            (P::Survivors(phase, sealed, upload), ToMember::PeerKeys(_)) => {
                let again = RoundMessage::Shares(sealed.clone());
                (P::Survivors(phase, sealed, upload), Answer::Send(again))
            }
            (P::PeerShares(phase, sealed), ToMember::PeerShares(shares)) => {
                let next = phase.peer_shares(shares)?;
                (P::Update(next, sealed), Answer::WantsUpdate)
            }
            (P::Update(phase, sealed), ToMember::PeerShares(_)) => {
                (P::Update(phase, sealed), Answer::WantsUpdate)
            }
            (P::Survivors(phase, sealed, upload), ToMember::PeerShares(_)) => {
                let again = Answer::Upload(upload.clone());
                (P::Survivors(phase, sealed, upload), again)
            }
            (P::Survivors(phase, ..), ToMember::Survivors(list)) => {
                let (next, signature) = phase.survivors(list)?;
                let answer = RoundMessage::Confirm(signature);
                (P::Confirmations(next, signature), Answer::Send(answer))
            }
            (P::Confirmations(phase, signature), ToMember::Survivors(_)) => {
                let again = RoundMessage::Confirm(signature);
                (P::Confirmations(phase, signature), Answer::Send(again))
            }
            (P::Confirmations(phase, _), ToMember::Confirmations(confirmations)) => {
                let (next, shares) = phase.confirmations(confirmations, ledger)?;
                let answer = RoundMessage::Reveal(shares.clone());
                (P::Result(next, shares), Answer::Send(answer))
            }
            (P::Result(phase, shares), ToMember::Confirmations(_)) => {
                let again = RoundMessage::Reveal(shares.clone());
                (P::Result(phase, shares), Answer::Send(again))
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
            RoundPhase::Update(phase, sealed) => {
                let (next, masked, claim) = phase.mask(update);
                let upload = Upload {
                    open: self.digest,
                    masked: Arc::new(masked),
                    claim,
                };
                self.phase = RoundPhase::Survivors(next, sealed, upload.clone());
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
            open: self.digest,
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
