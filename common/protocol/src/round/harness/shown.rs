//! What the members of a [`World`] were shown, and what a malicious one signs in the place of what
//! its honest machine says.

use std::collections::BTreeMap;

use crate::ids::{MemberIndex, MemberSet};
use crate::round::evidence::Joined;
use crate::secagg::Groups;
use crate::wire::messages::{
    Commitments, Deal, HeldShares, Keys, Open, Reveal, RevealedShare, RoundMessage,
    ShareCommitments, SurvivorList, ToMember, UpdateClaim, dealers_digest, keys_context,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_common::digest::Digest;

use super::World;

/// What members were shown last, of the attempt that they are in.
#[derive(Default)]
pub(crate) struct Shown {
    /// What the beacon comes from, where there is one.
    pub(crate) commitments: Option<Commitments>,
    /// Who takes part, once the keys are known.
    pub(crate) joined: Option<Joined>,
    /// The commitments to what each holder was dealt, by holder and dealer.
    dealt: BTreeMap<MemberIndex, BTreeMap<MemberIndex, ShareCommitments>>,
    dealers: MemberSet,
    list: Option<SurvivorList>,
}

impl Shown {
    pub(super) fn note(&mut self, open: &Open, member: MemberIndex, message: &ToMember) {
        match message {
            ToMember::Commitments(commitments) => self.commitments = Some(commitments.clone()),
            ToMember::PeerKeys(keys) => {
                let open = open.digest();
                let beacon = self.commitments.as_ref().map(|commitments| {
                    let beacon = commitments.beacon(&open, &keys.openings);
                    (commitments.digest(&open), beacon)
                });
                let cohort = keys.cohort.clone();
                self.joined = Some(Joined { cohort, beacon });
            }
            ToMember::PeerShares(shares) => {
                let commitments = shares.iter();
                let commitments = commitments.map(|(dealer, dealt)| (*dealer, dealt.commitments));
                self.dealt.insert(member, commitments.collect());
            }
            ToMember::Dealers(dealers) => self.dealers = dealers.clone(),
            ToMember::Survivors { list, .. } => self.list = Some(list.clone()),
            _ => {}
        }
    }

    /// The dealers that dealt to `holder`.
    pub(crate) fn dealers_of(&self, holder: MemberIndex) -> MemberSet {
        let dealt = self.dealt.get(&holder).into_iter().flatten();
        dealt.map(|(dealer, _)| *dealer).collect()
    }
}

impl World<'_> {
    /// What shares and masks are bound to, once the keys are known.
    pub(crate) fn transcript(&self) -> Digest {
        let joined = self.shown.joined.as_ref().expect("keys were shown");
        joined.transcript(&self.open.digest())
    }

    /// The places of a member's neighbours, ascending, once the keys are known.
    pub(crate) fn neighbours_of(&self, member: MemberIndex) -> Vec<u16> {
        let joined = self.shown.joined.as_ref().expect("keys were shown");
        let neighbours = self.federation.policy.neighbours();
        let graph = joined.graph(self.federation.len(), neighbours).unwrap();
        graph
            .neighbours(member)
            .into_iter()
            .map(|one| one.0)
            .collect()
    }

    /// The groups of the round, once the keys are known.
    pub(crate) fn groups(&self) -> Groups {
        let joined = self.shown.joined.as_ref().expect("keys were shown");
        let graph = joined.grouped(&self.federation.policy).unwrap();
        graph.groups().clone()
    }

    /// Keys under their member's signature.
    pub(crate) fn sign_keys(&self, keys: Keys) -> Unverified<Keys> {
        let open = self.open.digest();
        let commitments = self.shown.commitments.as_ref().map(|all| all.digest(&open));
        let context = keys_context(&open, commitments.as_ref());
        self.sign(keys.member, keys, &context).unverified().clone()
    }

    /// A deal under its dealer's signature.
    pub(crate) fn sign_deal(&self, deal: Deal) -> RoundMessage {
        let signed = self.sign(deal.member, deal, &self.transcript());
        RoundMessage::Shares(signed.unverified().clone())
    }

    /// What `member` may say of whose shares it holds: only of those that dealt to it.
    pub(crate) fn sign_held(&self, member: MemberIndex, dealers: MemberSet) -> RoundMessage {
        let signed = self.held(member, &dealers);
        RoundMessage::Held {
            dealers,
            signature: signed.signature(),
        }
    }

    /// Likewise, as it stands in evidence.
    pub(crate) fn signed_held(
        &self,
        member: MemberIndex,
        dealers: MemberSet,
    ) -> Unverified<HeldShares> {
        self.held(member, &dealers).unverified().clone()
    }

    fn held(&self, member: MemberIndex, dealers: &MemberSet) -> Verified<HeldShares> {
        let dealt = self.shown.dealt.get(&member).expect("shares were shown");
        let held = dealers.iter().map(|dealer| (dealer, dealt[&dealer]));
        let held = held.collect();
        self.sign(member, HeldShares { member, held }, &self.transcript())
    }

    /// A claim of `member`'s to have masked a vector among the dealers shown last, signed by the
    /// member at `signer`.
    pub(crate) fn claim(&self, member: MemberIndex, signer: u16) -> Unverified<UpdateClaim> {
        let claim = UpdateClaim {
            member,
            vector: Digest::of("test vector", &member.0.to_le_bytes()),
            dealers: match self.shown.joined {
                Some(_) => dealers_digest(&self.transcript(), &self.shown.dealers),
                None => Digest::of("test", b"no dealers yet"),
            },
        };
        let signed = self.sign(MemberIndex(signer), claim, &self.open.digest());
        signed.unverified().clone()
    }

    /// Shares that `member` reveals for the list shown last.
    pub(crate) fn sign_reveal(
        &self,
        member: MemberIndex,
        shares: BTreeMap<MemberIndex, RevealedShare>,
    ) -> RoundMessage {
        let signed = self.reveal(member, shares);
        let signature = signed.signature();
        let shares = signed.into_body().shares;
        RoundMessage::Reveal { shares, signature }
    }

    /// Likewise, as it stands in evidence.
    pub(crate) fn signed_reveal(
        &self,
        member: MemberIndex,
        shares: BTreeMap<MemberIndex, RevealedShare>,
    ) -> Unverified<Reveal> {
        self.reveal(member, shares).unverified().clone()
    }

    fn reveal(
        &self,
        member: MemberIndex,
        shares: BTreeMap<MemberIndex, RevealedShare>,
    ) -> Verified<Reveal> {
        let list = self.shown.list.as_ref().expect("a list was shown");
        let reveal = Reveal {
            member,
            list: list.digest(&self.transcript(), &self.shown.dealers),
            shares,
        };
        self.sign(member, reveal, &self.open.digest())
    }

    fn sign<T: Signable>(&self, member: MemberIndex, body: T, context: &Digest) -> Verified<T> {
        let key = &self.federation.identities[usize::from(member.0)];
        Verified::sign(body, key, context)
    }
}
