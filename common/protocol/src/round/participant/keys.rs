//! M1 of the neighbours, answered by M2: this member's secrets, shared, committed to and sealed.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::context::{JoinedCohort, OpenRound};
use super::held::HeldSecrets;
use super::open::RoundSecrets;
use super::refusal::Refusal;
use super::shares::{ExpectPeerShares, Neighbour};
use crate::crypto::agreement::Encapsulation;
use crate::crypto::shamir::{self, Share};
use crate::fixed::WeightClass;
use crate::ids::MemberIndex;
use crate::round::joined::Joined;
use crate::secagg::PairContext;
use crate::wire::messages::{
    BeaconOpening, Commitments, Deal, DealtShares, Keys, PeerKeys, SealedShares, ShareCommitments,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_common::digest::Digest;

const MESSAGE: &str = "keys";

/// This member has sent its keys and waits for its neighbours'.
#[derive(Debug)]
pub struct ExpectPeerKeys {
    pub(super) round: OpenRound,
    /// What the beacon comes from, where there is one.
    pub(super) commitments: Option<Commitments>,
    /// What keys are signed for.
    pub(super) context: Digest,
    /// The signed digest of this member's own keys.
    pub(super) own: Digest,
    pub(super) secrets: RoundSecrets,
}

impl ExpectPeerKeys {
    /// Checks cohort, beacon and the neighbours' keys, and deals this member's shares to them.
    ///
    /// # Errors
    /// [`Refusal`] where a signature does not verify, a key repeats or is weak, a neighbour's keys
    /// are missing, this member is not in the cohort as it is, or the members are too few.
    pub fn peer_keys(
        self,
        message: PeerKeys,
        rng: &mut impl CryptoRng,
    ) -> Result<(ExpectPeerShares, Unverified<Deal>), Refusal> {
        let cohort = self.cohort(&message)?;
        let keys = self.keys(&cohort, message.keys)?;
        let me = self.round.me();

        let holders = cohort.graph.holders(me);
        let threshold = self.round.policy.threshold();
        let RoundSecrets {
            sealing,
            masking,
            self_mask,
        } = &self.secrets;
        let seed_shares = shamir::split(self_mask.expose(), threshold, holders.len(), rng)?;
        let root_shares = shamir::split(masking.root().expose(), threshold, holders.len(), rng)?;
        let share_of = |holder: MemberIndex| -> (&Share, &Share) {
            let place = holders.iter().position(|other| *other == holder);
            let place = place.expect("a neighbour, or this member, holds a share");
            (&seed_shares[place], &root_shares[place])
        };

        let mut shares = BTreeMap::new();
        let mut neighbours = BTreeMap::new();
        for (peer, keys) in keys {
            let pair = PairContext::new(
                &cohort.transcript,
                (me, &self.own),
                (peer, &keys.signed_digest(&self.context)),
            );
            let weak = |_| Refusal::WeakKey { member: peer };
            let (mask, seed) = if pair.initiates() {
                let (mask, seed) = pair.initiate_mask(masking, &keys.masking).map_err(weak)?;
                (mask, Some(seed))
            } else {
                (Encapsulation::default(), None)
            };
            let (seal, key) = pair
                .initiate_seal(sealing, &keys.sealing, seed.as_ref())
                .map_err(weak)?;
            let (seed_share, root_share) = share_of(peer);
            let commitments =
                ShareCommitments::new(&cohort.transcript, (me, peer), seed_share, root_share);
            let mut plain = Zeroizing::new([0; 64]);
            plain[..32].copy_from_slice(seed_share.expose());
            plain[32..].copy_from_slice(root_share.expose());
            let bound = pair.sent(&commitments.beside(&mask));
            let dealt = DealtShares {
                sealed: SealedShares::new(&key.seal(plain.as_slice(), bound.as_bytes()))
                    .expect("two shares and a tag"),
                commitments,
                seal,
                mask,
            };
            shares.insert(peer, dealt);
            neighbours.insert(peer, Neighbour { keys, pair, seed });
        }
        let (seed_share, root_share) = share_of(me);
        let deal = Deal {
            member: me,
            self_mask: self_mask.commitment(),
            own: ShareCommitments::new(&cohort.transcript, (me, me), seed_share, root_share),
            shares,
        };
        let own = HeldSecrets::new(seed_share.clone(), root_share.clone());
        let signed = Verified::sign(deal, &self.round.context.identity, &cohort.transcript);
        let next = ExpectPeerShares {
            round: self.round,
            cohort,
            neighbours,
            secrets: self.secrets,
            held: BTreeMap::from([(me, own)]),
        };
        Ok((next, signed.unverified().clone()))
    }

    /// Who takes part, and who is whose neighbour.
    fn cohort(&self, message: &PeerKeys) -> Result<JoinedCohort, Refusal> {
        let roster = &self.round.context.roster;
        let strange = message
            .cohort
            .members
            .iter()
            .find(|member| roster.get(*member).is_none());
        if let Some(member) = strange {
            return Err(Refusal::Stranger {
                message: MESSAGE,
                member,
            });
        }
        let weights = message.cohort.weights().ok_or(Refusal::Classes)?;
        if let Some((&member, weight)) = weights.iter().find(|(_, weight)| !self.allows(**weight)) {
            return Err(self.too_heavy(member, *weight));
        }
        if weights.get(&self.round.me()) != Some(&self.round.context.weight) {
            return Err(Refusal::OwnKeys);
        }
        self.round.enough(MESSAGE, weights.len())?;
        let beacon = match &self.commitments {
            None => None,
            Some(commitments) => Some(self.beacon(commitments, &message.openings)?),
        };
        let joined = Joined {
            cohort: message.cohort.clone(),
            beacon,
        };
        Ok(JoinedCohort {
            transcript: joined.transcript(&self.round.digest),
            graph: joined.grouped(&self.round.policy)?,
            weights,
        })
    }

    /// The digest of the commitments, and the beacon, where every contributor has opened its own.
    fn beacon(
        &self,
        commitments: &Commitments,
        openings: &BTreeMap<MemberIndex, BeaconOpening>,
    ) -> Result<(Digest, Digest), Refusal> {
        let open = &self.round.digest;
        for &member in commitments.0.keys() {
            let opening = openings.get(&member).ok_or(Refusal::Beacon { member })?;
            let entry = self.round.context.roster.get(member);
            let opens = entry
                .is_some_and(|entry| commitments.is_opened(open, member, &entry.identity, opening));
            if !opens {
                return Err(Refusal::Beacon { member });
            }
        }
        if openings.len() != commitments.0.len() {
            return Err(Refusal::Contributors {
                got: openings.len(),
                needed: commitments.0.len(),
            });
        }
        Ok((commitments.digest(open), commitments.beacon(open, openings)))
    }

    /// The keys of this member's neighbours in the cohort: of all of them, and of nobody else.
    fn keys(
        &self,
        cohort: &JoinedCohort,
        keys: Vec<Unverified<Keys>>,
    ) -> Result<BTreeMap<MemberIndex, Keys>, Refusal> {
        let context = &self.round.context;
        let mut peers = BTreeMap::new();
        let mut seen = BTreeSet::from([
            self.secrets.sealing.public().clone(),
            self.secrets.masking.public().clone(),
        ]);
        for unverified in keys {
            let member = unverified.claimed().member;
            let entry = context
                .roster
                .get(member)
                .filter(|_| cohort.graph.are_neighbours(context.me, member))
                .ok_or(Refusal::Stranger {
                    message: MESSAGE,
                    member,
                })?;
            let verified = unverified
                .verify(&entry.identity, &self.context)
                .map_err(|_| Refusal::Signature {
                    message: MESSAGE,
                    member,
                })?
                .into_body();
            if peers.contains_key(&member) {
                return Err(Refusal::Repeated {
                    message: MESSAGE,
                    member,
                });
            }
            if !self.allows(verified.weight) {
                return Err(self.too_heavy(member, verified.weight));
            }
            if cohort.weights.get(&member) != Some(&verified.weight) {
                return Err(Refusal::Cohort { member });
            }
            if verified.revealed >= self.round.open.round {
                return Err(Refusal::RevealedBefore {
                    member,
                    revealed: verified.revealed,
                    round: self.round.open.round,
                });
            }
            let sound =
                |key: &crate::crypto::agreement::AgreementPublic| key.is_sound(context.suite);
            if !sound(&verified.sealing) || !sound(&verified.masking) {
                return Err(Refusal::WeakKey { member });
            }
            if !seen.insert(verified.sealing.clone()) || !seen.insert(verified.masking.clone()) {
                return Err(Refusal::RepeatedKey { member });
            }
            peers.insert(member, verified);
        }
        let mut neighbours = cohort.graph.neighbours(context.me).into_iter();
        let missing = neighbours
            .find(|member| cohort.weights.contains_key(member) && !peers.contains_key(member));
        if let Some(member) = missing {
            return Err(Refusal::Cohort { member });
        }
        self.round.enough_holders(MESSAGE, peers.len() + 1)?;
        Ok(peers)
    }

    fn allows(&self, weight: WeightClass) -> bool {
        weight <= self.round.context.highest_class
    }

    fn too_heavy(&self, member: MemberIndex, weight: WeightClass) -> Refusal {
        Refusal::Weight {
            member,
            got: weight.class(),
            most: self.round.context.highest_class.class(),
        }
    }
}
