//! A round as a malicious aggregator runs it: every message that members send is kept, each step
//! goes to whom the attacker chooses, and nothing is checked for the members' sake.

use std::collections::{BTreeMap, BTreeSet};

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::agreement::Suite;
use fedlora_protocol::crypto::shamir::Share;
use fedlora_protocol::crypto::sign::Signature;
use fedlora_protocol::fixed::{
    AUXILIARY_LANES, CohortWeight, FixedPoint, RingSum, SumParts, WeightClass, WeightedMean,
};
use fedlora_protocol::ids::{MemberIndex, MemberSet};
use fedlora_protocol::round::dealt_by;
use fedlora_protocol::secagg::{Dealt, DealtSecrets, NeighbourGraph, RunningSum, Unmasking};
use fedlora_protocol::wire::messages::{
    ClaimedVector, Cohort, Confirmation, Confirmations, Deal, Keys, Open, PeerKeys, RevealedShare,
    RoundMessage, RoundResult, Survivors, ToMember,
};
use fedlora_protocol::wire::{Signable, Unverified};

use super::federation::{TargetFederation, round_message};
use super::member::Sent;
use super::unmask::Bare;

/// Shares of one kind, by owner and holder.
pub(super) type Shares = BTreeMap<MemberIndex, BTreeMap<MemberIndex, Share>>;

/// Everything that the attacker has of one round.
pub(super) struct AttackedRound {
    pub(super) open: Open,
    pub(super) keys: BTreeMap<MemberIndex, Unverified<Keys>>,
    pub(super) deals: BTreeMap<MemberIndex, Unverified<Deal>>,
    /// Packed masked vectors with what their members signed of them.
    uploads: BTreeMap<MemberIndex, (Vec<u8>, ClaimedVector)>,
    signatures: BTreeMap<MemberIndex, BTreeSet<[u8; 64]>>,
    /// Shares of self-mask seeds.
    self_masks: Shares,
    /// Shares of mask keys' roots.
    roots: Shares,
}

/// An unmasked sum.
pub(super) struct SumOfRound {
    pub(super) mean: WeightedMean,
    pub(super) parts: SumParts,
    /// The digest of the unmasked lanes.
    pub(super) sum: Digest,
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
            deals: BTreeMap::new(),
            uploads: BTreeMap::new(),
            signatures: BTreeMap::new(),
            self_masks: BTreeMap::new(),
            roots: BTreeMap::new(),
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

    /// M1 of all to some members; keeps what they deal.
    pub(super) fn exchange_keys(
        &mut self,
        federation: &mut TargetFederation,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        for &member in to {
            let others = self.keys.iter().filter(|(other, _)| **other != member);
            let message = PeerKeys {
                cohort: self.cohort(),
                openings: BTreeMap::new(),
                keys: others.map(|(_, keys)| keys.clone()).collect(),
            };
            self.tell(federation, &ToMember::PeerKeys(message), &[member])?;
        }
        Ok(())
    }

    /// M2 to some members, and among whom masks are: all that dealt. Keeps their masked updates.
    pub(super) fn exchange_shares(
        &mut self,
        federation: &mut TargetFederation,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        for &holder in to {
            let shares = self.deals.values().filter_map(|deal| {
                let deal = deal.claimed();
                Some((deal.member, deal.shares.get(&holder)?.clone()))
            });
            let message = ToMember::PeerShares(shares.collect());
            self.tell(federation, &message, &[holder])?;
        }
        let dealers = ToMember::Dealers(self.dealers());
        self.tell(federation, &dealers, to)
    }

    /// The list of those whose updates came and whom `chosen` takes.
    pub(super) fn list(&self, chosen: impl Fn(MemberIndex) -> bool) -> Survivors {
        let uploads = self.uploads.iter().filter(|(member, _)| chosen(**member));
        Survivors(
            uploads
                .map(|(member, (_, claim))| (*member, claim.vector))
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
        for &member in to {
            let message = ToMember::Survivors {
                list: list.list(),
                proof: list.proof(member),
            };
            self.tell(federation, &message, &[member])?;
        }
        Ok(())
    }

    /// The signatures that were given on a list.
    pub(super) fn confirmations(
        &self,
        federation: &TargetFederation,
        list: &Survivors,
    ) -> BTreeMap<MemberIndex, Signature> {
        let open = self.open.digest();
        let digest = self.list_digest(list);
        let mut given = BTreeMap::new();
        for (&member, signatures) in &self.signatures {
            let identity = federation.identities[usize::from(member.0)].public();
            for signature in signatures {
                let body = Confirmation {
                    member,
                    list: digest,
                };
                let signature = Signature::from_bytes(*signature);
                if identity
                    .verify(&body.signed_digest(&open), &signature)
                    .is_ok()
                {
                    given.insert(member, signature);
                }
            }
        }
        given
    }

    /// Signatures to some members, with all claims; keeps the shares that they reveal.
    pub(super) fn show_confirmations(
        &mut self,
        federation: &mut TargetFederation,
        signatures: BTreeMap<MemberIndex, Signature>,
        to: &[MemberIndex],
    ) -> anyhow::Result<()> {
        let claims = self.uploads.iter();
        let message = ToMember::Confirmations(Confirmations {
            signatures,
            claims: claims
                .map(|(member, (_, claim))| (*member, *claim))
                .collect(),
        });
        self.tell(federation, &message, to)
    }

    /// How many different lists a member signed.
    pub(super) fn signed_by(&self, member: MemberIndex) -> usize {
        self.signatures.get(&member).map_or(0, BTreeSet::len)
    }

    /// Holders that revealed a share of this member's self-mask seed, and of its mask root.
    pub(super) fn revealed_of(&self, owner: MemberIndex) -> (usize, usize) {
        let count = |shares: &Shares| shares.get(&owner).map_or(0, BTreeMap::len);
        (count(&self.self_masks), count(&self.roots))
    }

    /// The sum over a list, where enough shares for it were revealed and it is one.
    pub(super) fn sum(
        &self,
        federation: &TargetFederation,
        list: &Survivors,
    ) -> anyhow::Result<Option<SumOfRound>> {
        let Some((sum, parts)) = self.ring_sum(federation, list)? else {
            return Ok(None);
        };
        let decoded = self.format()?.decode(&sum, parts);
        Ok(decoded.ok().map(|mean| SumOfRound {
            mean,
            parts,
            sum: sum.digest(),
            survivors: list.0.keys().copied().collect(),
        }))
    }

    fn ring_sum(
        &self,
        federation: &TargetFederation,
        list: &Survivors,
    ) -> anyhow::Result<Option<(RingSum, SumParts)>> {
        let survivors: MemberSet = list.0.keys().copied().collect();
        if survivors.is_empty() {
            return Ok(None);
        }
        let owners = |owner: &MemberIndex| match survivors.contains(*owner) {
            true => self.self_masks.get(owner).cloned(),
            false => self.roots.get(owner).cloned(),
        };
        let dealt = self.dealt();
        let revealed = dealt
            .keys()
            .filter_map(|owner| Some((*owner, owners(owner)?)))
            .collect();
        let recovered = Unmasking::recover(DealtSecrets {
            suite: self.suite()?,
            graph: &NeighbourGraph::complete(federation.roster.len()),
            transcript: &self.transcript(),
            threshold: self.open.threshold.into(),
            dealt: &dealt,
            survivors: &survivors,
            revealed: &revealed,
        });
        let Ok(unmasking) = recovered else {
            return Ok(None);
        };
        let lanes = federation.part(&self.open)?.len() + AUXILIARY_LANES;
        let mut sum = RunningSum::new(self.open.bits, lanes);
        for member in survivors.iter() {
            sum.add(&self.uploads[&member].0)?;
        }
        let parts = SumParts {
            survivors: survivors.len(),
            weight: survivors.iter().map(|member| self.weight(member)).sum(),
        };
        Ok(Some((sum.unmask(unmasking), parts)))
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
        let (Some((packed, _)), Some(seed), Some(root)) = (
            self.uploads.get(&member),
            self.self_masks.get(&member),
            self.roots.get(&member),
        ) else {
            return Ok(None);
        };
        let bare = Bare {
            member,
            packed,
            suite: self.suite()?,
            dealt: &self.dealt(),
            transcript: &self.transcript(),
            threshold: usize::from(self.open.threshold),
            bits: self.open.bits,
        };
        let parts = SumParts {
            survivors: 1,
            weight: self.weight(member),
        };
        let Some(lanes) = bare.strip(seed, root) else {
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
        let all = federation.roster.indices();
        RoundResult {
            run: self.open.run,
            round: self.open.round,
            attempt: self.open.attempt,
            adapter: adapter.digest(),
            sum: sum.sum,
            total_weight: sum.parts.weight,
            transcript: RoundResult::transcript_of(&self.transcript(), &self.list_digest(&list)),
            previous: federation.previous(),
            dropped: all.filter(|member| !list.0.contains_key(member)).collect(),
            survivors: sum.survivors.clone(),
            train_loss: sum.mean.train_loss,
            eval_loss: sum.mean.eval_loss,
            clipped: sum.mean.clipped,
            votes: sum.mean.votes,
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

    fn suite(&self) -> anyhow::Result<Suite> {
        Ok(Suite::try_from(self.open.suite)?)
    }

    /// Those that sent keys.
    fn cohort(&self) -> Cohort {
        let weights = self
            .keys
            .iter()
            .map(|(member, keys)| (*member, keys.claimed().weight));
        Cohort::new(&weights.collect())
    }

    fn transcript(&self) -> Digest {
        self.cohort().transcript(&self.open.digest(), None)
    }

    /// Those that dealt their secrets.
    fn dealers(&self) -> MemberSet {
        self.deals.keys().copied().collect()
    }

    /// What members sign for a list.
    fn list_digest(&self, list: &Survivors) -> Digest {
        list.list().digest(&self.transcript(), &self.dealers())
    }

    fn dealt(&self) -> BTreeMap<MemberIndex, Dealt> {
        let context = self.open.digest();
        let dealt = self.deals.iter().filter_map(|(member, deal)| {
            let keys = self.keys.get(member)?.claimed();
            Some((*member, dealt_by(keys, &context, deal.claimed())))
        });
        dealt.collect()
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
                let claim = ClaimedVector::from(&upload.claim);
                self.uploads.insert(from, (packed, claim));
                return Ok(());
            }
            Sent::Message(message) => round_message(message),
        };
        match message {
            Some((_, RoundMessage::Keys { keys, .. })) => {
                self.keys.insert(from, keys);
            }
            Some((_, RoundMessage::Shares(deal))) => {
                self.deals.insert(from, deal);
            }
            Some((_, RoundMessage::Confirm(signature))) => {
                let given = self.signatures.entry(from).or_default();
                given.insert(*signature.as_bytes());
            }
            Some((_, RoundMessage::Reveal { shares, .. })) => {
                for (owner, share) in &shares {
                    let kept = match share {
                        RevealedShare::SelfMask(_) => &mut self.self_masks,
                        RevealedShare::MaskRoot(_) => &mut self.roots,
                    };
                    kept.entry(*owner).or_default().insert(from, share.share());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
