//! A round as a malicious aggregator runs it: every message that members send is kept, each step
//! goes to whom the attacker chooses, and nothing is checked for the members' sake.

use std::collections::{BTreeMap, BTreeSet};

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::shamir::{Coordinate, Share};
use fedlora_protocol::crypto::sign::Signature;
use fedlora_protocol::fixed::{
    AUXILIARY_LANES, CohortWeight, FixedPoint, SumParts, WeightClass, WeightedMean,
};
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::secagg::{Committed, Revealed, RunningSum, Unmasking};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    Confirmation, Keys, Open, RevealedShare, RoundMessage, RoundResult, SealedShares, Survivors,
    ToMember, keys_digest,
};

use super::federation::{TargetFederation, round_message};
use super::member::Sent;
use super::unmask::Bare;

/// Everything that the attacker has of one round.
pub(super) struct AttackedRound {
    pub(super) open: Open,
    pub(super) keys: BTreeMap<MemberIndex, Unverified<Keys>>,
    pub(super) sealed: BTreeMap<MemberIndex, BTreeMap<MemberIndex, SealedShares>>,
    /// Packed masked vectors with their digests.
    uploads: BTreeMap<MemberIndex, (Vec<u8>, Digest)>,
    signatures: BTreeMap<MemberIndex, BTreeSet<[u8; 64]>>,
    /// Shares of self-mask seeds, by owner.
    self_masks: BTreeMap<MemberIndex, Revealed>,
    /// Shares of mask secrets, by owner.
    secrets: BTreeMap<MemberIndex, Revealed>,
}

/// An unmasked sum.
pub(super) struct SumOfRound {
    pub(super) mean: WeightedMean,
    pub(super) parts: SumParts,
    pub(super) survivors: Vec<MemberIndex>,
}

impl SumOfRound {
    /// The sum of the weighted deltas.
    pub(super) fn total(&self) -> Vec<f64> {
        let weight = self.parts.weight as f64;
        let mean = self.mean.delta.iter();
        mean.map(|&x| f64::from(x) * weight).collect()
    }
}

impl AttackedRound {
    /// Sends M0 to some members and keeps their keys.
    pub(super) fn open(
        federation: &mut TargetFederation,
        open: Open,
        to: &[MemberIndex],
    ) -> anyhow::Result<Self> {
        let mut round = Self {
            open: open.clone(),
            keys: BTreeMap::new(),
            sealed: BTreeMap::new(),
            uploads: BTreeMap::new(),
            signatures: BTreeMap::new(),
            self_masks: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        round.tell(federation, &ToMember::Open(open), to)?;
        Ok(round)
    }

    /// A whole round with the members `to`, on the list of all whose updates came.
    pub(super) fn whole(
        federation: &mut TargetFederation,
        open: Open,
        to: &[MemberIndex],
    ) -> anyhow::Result<Self> {
        let mut round = Self::open(federation, open, to)?;
        round.finish(federation, to)?;
        Ok(round)
    }

    /// The steps after M1.
    pub(super) fn finish(
        &mut self,
        federation: &mut TargetFederation,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        self.exchange_keys(federation, to)?;
        self.exchange_shares(federation, to)?;
        let list = self.list(|_| true);
        self.show_list(federation, &list, to)?;
        let signed = self.confirmations(federation, &list);
        self.show_confirmations(federation, signed, to)
    }

    /// M1 of all to some members; keeps their sealed shares.
    pub(super) fn exchange_keys(
        &mut self,
        federation: &mut TargetFederation,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        let keys = self.keys.values().cloned().collect();
        self.tell(federation, &ToMember::PeerKeys(keys), to)
    }

    /// M2 to some members; keeps their masked updates.
    pub(super) fn exchange_shares(
        &mut self,
        federation: &mut TargetFederation,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        for &holder in to {
            let shares = self
                .sealed
                .iter()
                .filter_map(|(sender, sealed)| Some((*sender, sealed.get(&holder)?.clone())))
                .collect();
            self.tell(federation, &ToMember::PeerShares(shares), &[holder])?;
        }
        Ok(())
    }

    /// The list of those whose updates came and whom `chosen` takes.
    pub(super) fn list(&self, chosen: impl Fn(MemberIndex) -> bool) -> Survivors {
        let uploads = self.uploads.iter().filter(|(member, _)| chosen(**member));
        Survivors(
            uploads
                .map(|(member, (_, vector))| (*member, *vector))
                .collect(),
        )
    }

    /// M4 to some members; keeps their signatures.
    pub(super) fn show_list(
        &mut self,
        federation: &mut TargetFederation,
        list: &Survivors,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        self.tell(federation, &ToMember::Survivors(list.clone()), to)
    }

    /// The signatures that were given on a list.
    pub(super) fn confirmations(
        &self,
        federation: &TargetFederation,
        list: &Survivors,
    ) -> Vec<Unverified<Confirmation>> {
        let open = self.open.digest();
        let digest = list.digest(&open);
        let mut given = Vec::new();
        for (&member, signatures) in &self.signatures {
            let identity = federation.identities[usize::from(member.0)].public();
            for signature in signatures {
                let body = Confirmation {
                    member,
                    list: digest,
                };
                let signed = Unverified::from_parts(body, Signature::from_bytes(*signature));
                if signed.clone().verify(&identity, &open).is_ok() {
                    given.push(signed);
                }
            }
        }
        given
    }

    /// Signatures to some members; keeps the shares that they reveal.
    pub(super) fn show_confirmations(
        &mut self,
        federation: &mut TargetFederation,
        signed: Vec<Unverified<Confirmation>>,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        self.tell(federation, &ToMember::Confirmations(signed), to)
    }

    /// How many different lists a member signed.
    pub(super) fn signed_by(&self, member: MemberIndex) -> usize {
        self.signatures.get(&member).map_or(0, BTreeSet::len)
    }

    /// Holders that revealed a share of this member's self-mask seed, and of its mask secret.
    pub(super) fn revealed_of(&self, owner: MemberIndex) -> (usize, usize) {
        let count =
            |shares: &BTreeMap<MemberIndex, Revealed>| shares.get(&owner).map_or(0, BTreeMap::len);
        (count(&self.self_masks), count(&self.secrets))
    }

    /// The sum over a list, where enough shares for it were revealed and it is one.
    pub(super) fn sum(
        &self,
        federation: &TargetFederation,
        list: &Survivors,
    ) -> anyhow::Result<Option<SumOfRound>> {
        let survivors: BTreeSet<_> = list.0.keys().copied().collect();
        if survivors.is_empty() {
            return Ok(None);
        }
        let owners = |owner: &MemberIndex| match survivors.contains(owner) {
            true => self.self_masks.get(owner).cloned(),
            false => self.secrets.get(owner).cloned(),
        };
        let committed = self.committed();
        let revealed = committed
            .keys()
            .filter_map(|owner| Some((*owner, owners(owner)?)))
            .collect();
        let threshold = usize::from(self.open.threshold);
        let transcript = self.transcript();
        let Ok(unmasking) =
            Unmasking::recover(&committed, &survivors, &revealed, threshold, &transcript)
        else {
            return Ok(None);
        };
        let lanes = federation.part(&self.open)?.len() + AUXILIARY_LANES;
        let mut sum = RunningSum::new(self.open.bits, lanes);
        for member in &survivors {
            sum.add(&self.uploads[member].0)?;
        }
        let parts = SumParts {
            survivors: survivors.len(),
            weight: survivors.iter().map(|member| self.weight(*member)).sum(),
        };
        let decoded = self.format()?.decode(&sum.unmask(unmasking), parts);
        Ok(decoded.ok().map(|mean| SumOfRound {
            mean,
            parts,
            survivors: survivors.into_iter().collect(),
        }))
    }

    /// The sum over all whose updates came.
    pub(super) fn sum_of_all(
        &self,
        federation: &TargetFederation,
    ) -> anyhow::Result<Option<SumOfRound>> {
        self.sum(federation, &self.list(|_| true))
    }

    /// One member's own update, where the attacker has both of its secrets.
    pub(super) fn bare_update(&self, member: MemberIndex) -> anyhow::Result<Option<Vec<f64>>> {
        let (Some((packed, _)), Some(seed), Some(secret)) = (
            self.uploads.get(&member),
            self.self_masks.get(&member),
            self.secrets.get(&member),
        ) else {
            return Ok(None);
        };
        let bare = Bare {
            member,
            packed,
            committed: &self.committed(),
            transcript: &self.transcript(),
            threshold: usize::from(self.open.threshold),
            bits: self.open.bits,
        };
        let parts = SumParts {
            survivors: 1,
            weight: self.weight(member),
        };
        let Some(lanes) = bare.strip(seed, secret) else {
            return Ok(None);
        };
        let decoded = self.format()?.decode(&lanes, parts).ok();
        Ok(decoded.map(|mean| mean.delta.iter().map(|&x| f64::from(x)).collect()))
    }

    /// The result that the round leads to, with this adapter.
    pub(super) fn result(
        &self,
        federation: &TargetFederation,
        sum: &SumOfRound,
        adapter: &Adapter,
    ) -> RoundResult {
        let list = self.list(|member| sum.survivors.contains(&member));
        let open = self.open.digest();
        let all = federation.roster.indices();
        RoundResult {
            run: self.open.run,
            round: self.open.round,
            attempt: self.open.attempt,
            adapter: adapter.digest(),
            total_weight: sum.parts.weight,
            transcript: RoundResult::transcript_of(&self.transcript(), &list.digest(&open)),
            previous: federation.previous(),
            dropped: all.filter(|member| !list.0.contains_key(member)).collect(),
            survivors: sum.survivors.clone(),
            train_loss: sum.mean.train_loss,
            eval_loss: sum.mean.eval_loss,
            clipped: sum.mean.clipped,
        }
    }

    /// A member's public weight.
    pub(super) fn weight(&self, member: MemberIndex) -> u64 {
        let keys = self.keys.get(&member);
        keys.map_or(WeightClass::ONE, |keys| keys.claimed().weight)
            .weight()
    }

    fn format(&self) -> anyhow::Result<FixedPoint> {
        let weights = self.keys.values().map(|keys| keys.claimed().weight);
        Ok(FixedPoint::new(
            self.open.bits,
            self.open.clip,
            CohortWeight::of(weights),
            &self.open.digest(),
        )?)
    }

    fn transcript(&self) -> Digest {
        let keys = self.keys.values().map(Unverified::claimed);
        keys_digest(&self.open.digest(), keys)
    }

    /// Those that shared their secrets.
    fn committed(&self) -> BTreeMap<MemberIndex, Committed> {
        let sharing = self
            .keys
            .iter()
            .filter(|(member, _)| self.sealed.contains_key(member));
        let committed = sharing.map(|(member, keys)| {
            let keys = keys.claimed();
            let committed = Committed {
                mask_key: keys.masking,
                self_mask: keys.self_mask,
            };
            (*member, committed)
        });
        committed.collect()
    }

    fn tell(
        &mut self,
        federation: &mut TargetFederation,
        message: &ToMember,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        for &member in to {
            for sent in federation.tell(member, message)? {
                self.keep(member, sent)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, from: MemberIndex, sent: Sent) -> anyhow::Result<()> {
        let message = match sent {
            Sent::Upload(upload) => {
                let packed = upload.masked.as_bytes().to_vec();
                let vector = upload.claim.claimed().vector;
                self.uploads.insert(from, (packed, vector));
                return Ok(());
            }
            Sent::Message(message) => round_message(message),
        };
        match message {
            Some((_, RoundMessage::Keys(keys))) => {
                self.keys.insert(from, keys);
            }
            Some((_, RoundMessage::Shares(sealed))) => {
                self.sealed.insert(from, sealed);
            }
            Some((_, RoundMessage::Confirm(signature))) => {
                let given = self.signatures.entry(from).or_default();
                given.insert(*signature.as_bytes());
            }
            Some((_, RoundMessage::Reveal(shares))) => {
                let holder = Coordinate::of_place(usize::from(from.0))?;
                for (owner, share) in &shares {
                    let (kept, bytes) = match share {
                        RevealedShare::SelfMask(bytes) => (&mut self.self_masks, bytes),
                        RevealedShare::MaskSecret(bytes) => (&mut self.secrets, bytes),
                    };
                    let of_owner = kept.entry(*owner).or_default();
                    of_owner.insert(holder, Share::from_bytes(*bytes));
                }
            }
            Some((_, RoundMessage::Abstain)) | None => {}
        }
        Ok(())
    }
}
