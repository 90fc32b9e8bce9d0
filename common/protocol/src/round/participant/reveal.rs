//! M4 to M6: the survivor list, the signatures on it, the reveal, and the result.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::fixed::WeightClass;
use crate::ids::MemberIndex;
use crate::wire::messages::{Confirmation, Open, RevealedShare, RoundResult, Survivors};
use crate::wire::{Signable, Unverified};
use fedlora_common::digest::Digest;

use super::context::OpenRound;
use super::held::HeldShares;
use super::ledger::{LedgerRound, RoundLedger};
use super::refusal::Refusal;

/// This member's update is uploaded; it waits for the list of those whose are.
#[derive(Debug)]
pub struct ExpectSurvivors {
    pub(super) round: OpenRound,
    pub(super) transcript: Digest,
    pub(super) sharing: BTreeSet<MemberIndex>,
    pub(super) held: BTreeMap<MemberIndex, HeldShares>,
    pub(super) weights: BTreeMap<MemberIndex, WeightClass>,
    pub(super) vector: Digest,
}

impl ExpectSurvivors {
    /// Checks the list and signs it.
    ///
    /// # Errors
    /// [`Refusal`] where the list lacks this member's own update, names somebody that this
    /// member shares no masks with, or is too short.
    pub fn survivors(self, list: Survivors) -> Result<(ExpectConfirmations, Signature), Refusal> {
        if list.0.get(&self.round.me()) != Some(&self.vector) {
            return Err(Refusal::OwnUpdate);
        }
        if let Some(&member) = list.0.keys().find(|member| !self.sharing.contains(member)) {
            return Err(Refusal::UnknownSurvivor { member });
        }
        self.round.enough("survivors", list.0.len())?;

        let digest = list.digest(&self.round.digest);
        let confirmation = Confirmation {
            member: self.round.me(),
            list: digest,
        };
        let signature = self
            .round
            .context
            .identity
            .sign(&confirmation.signed_digest(&self.round.digest));
        let next = ExpectConfirmations {
            round: self.round,
            transcript: self.transcript,
            sharing: self.sharing,
            held: self.held,
            weights: self.weights,
            list,
            digest,
        };
        Ok((next, signature))
    }
}

/// This member has signed the survivor list and waits for the others' signatures.
#[derive(Debug)]
pub struct ExpectConfirmations {
    round: OpenRound,
    transcript: Digest,
    sharing: BTreeSet<MemberIndex>,
    held: BTreeMap<MemberIndex, HeldShares>,
    weights: BTreeMap<MemberIndex, WeightClass>,
    list: Survivors,
    digest: Digest,
}

impl ExpectConfirmations {
    /// Checks the signatures, notes the reveal in the ledger, and reveals one share of each
    /// member: never both of one member.
    ///
    /// # Errors
    /// [`Refusal`] where a signature is not a survivor's over the list that this member signed,
    /// they are too few, or the ledger knows of an earlier reveal.
    pub fn confirmations(
        self,
        confirmations: Vec<Unverified<Confirmation>>,
        ledger: &mut dyn RoundLedger,
    ) -> Result<(ExpectResult, BTreeMap<MemberIndex, RevealedShare>), Refusal> {
        let message = "confirmations";
        let roster = &self.round.context.roster;
        let mut signers = BTreeSet::new();
        for unverified in confirmations {
            let Confirmation { member, list } = *unverified.claimed();
            let entry = match roster.get(member) {
                Some(entry) if self.list.0.contains_key(&member) => entry,
                _ => return Err(Refusal::Stranger { message, member }),
            };
            unverified
                .verify(&entry.identity, &self.round.digest)
                .map_err(|_| Refusal::Signature { message, member })?;
            if list != self.digest {
                return Err(Refusal::OtherList { member });
            }
            if !signers.insert(member) {
                return Err(Refusal::Repeated { message, member });
            }
        }
        self.round.enough_signatures(signers.len())?;
        ledger.reveal(&LedgerRound::from(&self.round.open), self.digest)?;

        let revealed = self
            .held
            .into_iter()
            .filter(|(owner, _)| self.sharing.contains(owner))
            .map(|(owner, held)| {
                let share = if self.list.0.contains_key(&owner) {
                    RevealedShare::SelfMask(*held.self_mask.expose())
                } else {
                    RevealedShare::MaskSecret(*held.mask_secret.expose())
                };
                (owner, share)
            })
            .collect();
        let next = ExpectResult {
            transcript: RoundResult::transcript_of(&self.transcript, &self.digest),
            dropped: roster
                .indices()
                .filter(|member| !self.list.0.contains_key(member))
                .collect(),
            total_weight: self
                .weights
                .iter()
                .filter(|(member, _)| self.list.0.contains_key(member))
                .map(|(_, weight)| weight.weight())
                .sum(),
            open: self.round.open,
            list: self.list,
        };
        Ok((next, revealed))
    }
}

impl OpenRound {
    /// More than (n + c) / 2 signatures: with fewer, two lists could both have them.
    fn enough_signatures(&self, got: usize) -> Result<(), Refusal> {
        if got < self.threshold {
            return Err(Refusal::TooFew {
                message: "confirmations",
                got,
                needed: self.threshold,
            });
        }
        Ok(())
    }
}

/// This member has revealed its shares and waits for the result.
#[derive(Debug)]
pub struct ExpectResult {
    transcript: Digest,
    open: Open,
    list: Survivors,
    dropped: Vec<MemberIndex>,
    total_weight: u64,
}

impl ExpectResult {
    /// The M0 that opened the round.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// Checks that the result follows from this round.
    ///
    /// # Errors
    /// [`Refusal`] where the signature, chain, round, transcript or survivors differ.
    pub fn result(
        self,
        result: Unverified<RoundResult>,
        aggregator: &IdentityPublic,
        previous: &Digest,
    ) -> Result<RoundResult, Refusal> {
        let result = check_result(result, aggregator, previous)?;
        let fields = [
            ("run", result.run == self.open.run),
            ("round", result.round == self.open.round),
            ("attempt", result.attempt == self.open.attempt),
            ("transcript", result.transcript == self.transcript),
            (
                "list of survivors",
                result.survivors.iter().eq(self.list.0.keys()),
            ),
            ("list of dropped members", result.dropped == self.dropped),
            ("total weight", result.total_weight == self.total_weight),
        ];
        match fields.into_iter().find(|(_, same)| !same) {
            Some((what, _)) => Err(Refusal::Result { what }),
            None => Ok(result),
        }
    }
}

/// Checks a result's signature and its place in the chain: all that a member can check that
/// did not see the round through.
///
/// # Errors
/// [`Refusal`] where the aggregator did not sign it, or it does not follow the result before.
pub fn check_result(
    result: Unverified<RoundResult>,
    aggregator: &IdentityPublic,
    previous: &Digest,
) -> Result<RoundResult, Refusal> {
    let result = result
        .verify(aggregator, previous)
        .map_err(|_| Refusal::ResultSignature)?
        .into_body();
    if result.previous != *previous {
        return Err(Refusal::Result { what: "chain" });
    }
    Ok(result)
}
