//! M4 to M6: the survivor list, the signatures on it, the reveal, and the result.

use std::collections::BTreeMap;

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::fixed::WeightClass;
use crate::ids::{MemberIndex, MemberSet};
use crate::wire::messages::{
    Confirmation, Confirmations, Open, Reveal, RevealedShare, RoundMessage, RoundResult,
    SurvivorList, UpdateClaim, dealers_digest,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_common::digest::Digest;

use super::context::{JoinedCohort, OpenRound};
use super::held::HeldSecrets;
use super::ledger::{LedgerRound, RoundLedger};
use super::refusal::Refusal;

/// This member's update is uploaded; it waits for the list of those whose are.
#[derive(Debug)]
pub struct ExpectSurvivors {
    pub(super) round: OpenRound,
    pub(super) cohort: JoinedCohort,
    pub(super) dealers: MemberSet,
    pub(super) held: BTreeMap<MemberIndex, HeldSecrets>,
    pub(super) vector: Digest,
}

impl ExpectSurvivors {
    /// Checks the list, notes it in the ledger, and signs it. `proof` shows that this member's own
    /// vector is on it.
    ///
    /// # Errors
    /// [`Refusal`] where the list lacks this member's own update, names somebody among whom no
    /// masks are, or is too short; or where the ledger knows of a list in another run.
    pub fn survivors(
        self,
        list: SurvivorList,
        proof: &[Digest],
        ledger: &mut dyn RoundLedger,
    ) -> Result<(ExpectConfirmations, Signature), Refusal> {
        let me = self.round.me();
        if !list.holds(me, &self.vector, proof) {
            return Err(Refusal::OwnUpdate);
        }
        let unknown = list
            .members
            .iter()
            .find(|member| !self.dealers.contains(*member));
        if let Some(member) = unknown {
            return Err(Refusal::UnknownSurvivor { member });
        }
        self.round.enough("survivors", list.members.len())?;
        if !self.cohort.graph.connects(&list.members) {
            return Err(Refusal::Split);
        }
        let groups = self.cohort.graph.groups();
        self.round.whole_groups(groups, &list.members)?;

        ledger.sign(&LedgerRound::from(&self.round.open))?;
        let digest = list.digest(&self.cohort.transcript, &self.dealers);
        let confirmation = Confirmation {
            member: me,
            list: digest,
        };
        let signature = self
            .round
            .context
            .identity
            .sign(&confirmation.signed_digest(&self.round.digest));
        let next = ExpectConfirmations {
            round: self.round,
            held: self.held,
            dealers: dealers_digest(&self.cohort.transcript, &self.dealers),
            survivors: list.members,
            digest,
            cohort: self.cohort,
        };
        Ok((next, signature))
    }
}

/// This member has signed the survivor list and waits for the others' signatures.
#[derive(Debug)]
pub struct ExpectConfirmations {
    round: OpenRound,
    cohort: JoinedCohort,
    held: BTreeMap<MemberIndex, HeldSecrets>,
    dealers: Digest,
    survivors: MemberSet,
    digest: Digest,
}

impl ExpectConfirmations {
    /// Checks the signatures, notes the reveal in the ledger, and reveals one share of each
    /// member: never both of one member.
    ///
    /// # Errors
    /// [`Refusal`] where a signature is not a survivor's over the list that this member signed,
    /// they are too few, a survivor whose share it holds has not signed whom it masked among, or
    /// the ledger knows of an earlier reveal.
    pub fn confirmations(
        self,
        confirmations: &Confirmations,
        ledger: &mut dyn RoundLedger,
    ) -> Result<(ExpectResult, RoundMessage), Refusal> {
        let message = "confirmations";
        let context = &self.round.context;
        let Confirmations { signatures, claims } = confirmations;
        for (&member, signature) in signatures {
            if !self.survivors.contains(member) {
                return Err(Refusal::Stranger { message, member });
            }
            let confirmation = Confirmation {
                member,
                list: self.digest,
            };
            // A signature of another list fails here too.
            if !self.is_signed(member, &confirmation, signature) {
                return Err(Refusal::Signature { message, member });
            }
        }
        // Its own it has given, and need not see again.
        let own = usize::from(!signatures.contains_key(&context.me));
        self.round.enough_signatures(signatures.len() + own)?;
        // Of a survivor that was told other dealers, the rest would reveal all masks.
        let owners = self.held.keys().filter(|owner| {
            self.survivors.contains(**owner)
                && **owner != context.me
                && !signatures.contains_key(owner)
        });
        for &member in owners {
            let claimed = claims.get(&member).ok_or(Refusal::Unclaimed { member })?;
            let claim = UpdateClaim {
                member,
                vector: claimed.vector,
                dealers: self.dealers,
            };
            if !self.is_signed(member, &claim, &claimed.signature) {
                return Err(Refusal::Dealers { member });
            }
        }
        ledger.reveal(&LedgerRound::from(&self.round.open), self.digest)?;

        let shares: BTreeMap<MemberIndex, RevealedShare> = self
            .held
            .into_iter()
            .map(|(owner, held)| (owner, held.reveal(self.survivors.contains(owner))))
            .collect();
        let reveal = Reveal {
            member: context.me,
            list: self.digest,
            shares,
        };
        let signed = Verified::sign(reveal, &context.identity, &self.round.digest);
        let signature = signed.signature();
        let survives = |member: &MemberIndex| self.survivors.contains(*member);
        let weights = self.cohort.weights.iter();
        let next = ExpectResult {
            transcript: RoundResult::transcript_of(&self.cohort.transcript, &self.digest),
            dropped: context
                .roster
                .indices()
                .filter(|member| !survives(member))
                .collect(),
            total_weight: weights
                .filter(|(member, _)| survives(member))
                .map(|(_, weight): (_, &WeightClass)| weight.weight())
                .sum(),
            open: self.round.open,
            survivors: self.survivors,
        };
        let message = RoundMessage::Reveal {
            shares: signed.into_body().shares,
            signature,
        };
        Ok((next, message))
    }

    fn is_signed(&self, member: MemberIndex, body: &impl Signable, signature: &Signature) -> bool {
        let digest = body.signed_digest(&self.round.digest);
        let entry = self.round.context.roster.get(member);
        entry.is_some_and(|entry| entry.identity.verify(&digest, signature).is_ok())
    }
}

/// This member has revealed its shares and waits for the result.
#[derive(Debug)]
pub struct ExpectResult {
    transcript: Digest,
    open: Open,
    survivors: MemberSet,
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
                result.survivors.iter().copied().eq(self.survivors.iter()),
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
