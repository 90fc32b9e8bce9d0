//! M3: the one masked update of the round.

use std::collections::BTreeMap;

use crate::fixed::{EncodedUpdate, RoundEncoding};
use crate::ids::{MemberIndex, MemberSet};
use crate::secagg::{MaskedUpdate, Masker};
use crate::wire::messages::{Open, UpdateClaim, dealers_digest, vector_digest};
use crate::wire::{Unverified, Verified};

use super::context::{JoinedCohort, OpenRound};
use super::held::HeldSecrets;
use super::reveal::ExpectSurvivors;

/// All shares are exchanged; this member waits for its own training to end.
#[derive(Debug)]
pub struct ReadyToMask {
    pub(super) round: OpenRound,
    pub(super) cohort: JoinedCohort,
    pub(super) dealers: MemberSet,
    pub(super) held: BTreeMap<MemberIndex, HeldSecrets>,
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
            dealers: dealers_digest(&self.cohort.transcript, &self.dealers),
        };
        let signed = Verified::sign(claim, &self.round.context.identity, &self.round.digest);
        let next = ExpectSurvivors {
            round: self.round,
            cohort: self.cohort,
            dealers: self.dealers,
            held: self.held,
            vector,
        };
        (next, masked, signed.unverified().clone())
    }
}
