//! M3: the one masked update of the round.

use std::collections::{BTreeMap, BTreeSet};

use crate::fixed::{EncodedUpdate, RoundEncoding, WeightClass};
use crate::ids::MemberIndex;
use crate::secagg::{MaskedUpdate, Masker};
use crate::wire::messages::{Open, UpdateClaim, vector_digest};
use crate::wire::{Unverified, Verified};
use fedlora_common::digest::Digest;

use super::context::OpenRound;
use super::held::HeldShares;
use super::reveal::ExpectSurvivors;

/// All shares are exchanged; this member waits for its own training to end.
#[derive(Debug)]
pub struct ReadyToMask {
    pub(super) round: OpenRound,
    pub(super) transcript: Digest,
    pub(super) sharing: BTreeSet<MemberIndex>,
    pub(super) held: BTreeMap<MemberIndex, HeldShares>,
    pub(super) weights: BTreeMap<MemberIndex, WeightClass>,
    pub(super) encoding: RoundEncoding,
    pub(super) masker: Masker,
}

impl ReadyToMask {
    /// The M0 that opened the round.
    pub fn open(&self) -> &Open {
        &self.round.open
    }

    /// How this member must encode its update.
    pub fn encoding(&self) -> RoundEncoding {
        self.encoding
    }

    /// Masks the update, consuming masker and update both.
    pub fn mask(
        self,
        update: EncodedUpdate,
    ) -> (ExpectSurvivors, MaskedUpdate, Unverified<UpdateClaim>) {
        let masked = self.masker.mask(update);
        let vector = vector_digest(masked.as_bytes());
        let claim = UpdateClaim {
            member: self.round.me(),
            vector,
        };
        let signed = Verified::sign(claim, &self.round.context.identity, &self.round.digest);
        let next = ExpectSurvivors {
            round: self.round,
            transcript: self.transcript,
            sharing: self.sharing,
            held: self.held,
            weights: self.weights,
            vector,
        };
        (next, masked, signed.unverified().clone())
    }
}
