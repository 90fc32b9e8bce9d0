//! M2 of the neighbours: the shares that this member holds for them, and the masker.

use std::collections::BTreeMap;

use crate::crypto::keys::Seed;
use crate::crypto::shamir::Share;
use crate::fixed::{FixedPoint, RoundEncoding};
use crate::ids::{MemberIndex, MemberSet};
use crate::secagg::{Masker, PairContext};
use crate::wire::Verified;
use crate::wire::messages::{DealtShares, HeldShares, Keys, RoundMessage, ShareCommitments};

use super::context::{JoinedCohort, OpenRound};
use super::held::HeldSecrets;
use super::open::RoundSecrets;
use super::refusal::Refusal;
use super::update::ReadyToMask;

/// A neighbour of this round, and what this member has in common with it.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) keys: Keys,
    pub(super) pair: PairContext,
    /// The seed of the pair's mask, once it is known.
    pub(super) seed: Option<Seed>,
}

/// This member has dealt its shares and waits for its neighbours'.
#[derive(Debug)]
pub struct ExpectPeerShares {
    pub(super) round: OpenRound,
    pub(super) cohort: JoinedCohort,
    pub(super) neighbours: BTreeMap<MemberIndex, Neighbour>,
    pub(super) secrets: RoundSecrets,
    pub(super) held: BTreeMap<MemberIndex, HeldSecrets>,
}

impl ExpectPeerShares {
    /// Opens the shares that the neighbours dealt to this member, and says whose it holds.
    ///
    /// Shares that do not open, or are not what their dealer committed to, are left out: one bad
    /// dealer must not put an honest member out of the round, and a share that is not held is
    /// never revealed.
    ///
    /// # Errors
    /// [`Refusal`] where a dealer is not a neighbour that sent keys, or dealers are too few.
    pub fn peer_shares(
        mut self,
        shares: BTreeMap<MemberIndex, DealtShares>,
    ) -> Result<(ExpectDealers, RoundMessage), Refusal> {
        let message = "shares";
        let mut statement = HeldShares {
            member: self.round.me(),
            held: BTreeMap::new(),
        };
        for (dealer, dealt) in &shares {
            let neighbour = self.neighbours.get_mut(dealer).ok_or(Refusal::Stranger {
                message,
                member: *dealer,
            })?;
            if !neighbour.pair.initiates() {
                let masking = &self.secrets.masking;
                let theirs = &neighbour.keys.masking;
                neighbour.seed = neighbour
                    .pair
                    .respond_mask(masking, theirs, &dealt.mask)
                    .ok();
            }
            let held = neighbour.open(&self.secrets, dealt);
            if held.is_none() && !neighbour.pair.initiates() {
                // Shares that open prove that both have one mask. These do not.
                neighbour.seed = None;
            }
            let pair = (*dealer, self.round.me());
            let commitments = held.as_ref().map(|(seed, root)| {
                ShareCommitments::new(&self.cohort.transcript, pair, seed, root)
            });
            if let Some((seed, root)) = held
                && commitments == Some(dealt.commitments)
            {
                statement.held.insert(*dealer, dealt.commitments);
                self.held.insert(*dealer, HeldSecrets::new(seed, root));
            }
        }
        self.round.enough_holders(message, shares.len() + 1)?;
        let dealers: MemberSet = statement.held.keys().copied().collect();
        let identity = &self.round.context.identity;
        let signature = Verified::sign(statement, identity, &self.cohort.transcript).signature();
        // Who has not dealt has no part in the masks.
        self.neighbours
            .retain(|member, _| shares.contains_key(member));
        let next = ExpectDealers {
            round: self.round,
            cohort: self.cohort,
            neighbours: self.neighbours,
            self_mask: self.secrets.self_mask,
            held: self.held,
        };
        Ok((next, RoundMessage::Held { dealers, signature }))
    }
}

impl Neighbour {
    /// Opens the two shares that this neighbour sealed; `None` where they do not open.
    fn open(&self, secrets: &RoundSecrets, dealt: &DealtShares) -> Option<(Share, Share)> {
        let mask = if self.pair.initiates() {
            None
        } else {
            Some(self.seed.as_ref()?)
        };
        let key = self
            .pair
            .respond_seal(&secrets.sealing, &self.keys.sealing, &dealt.seal, mask)
            .ok()?;
        let bound = self.pair.received(&dealt.commitments.beside(&dealt.mask));
        let plain = key.open(dealt.sealed.as_bytes(), bound.as_bytes()).ok()?;
        let plain = <&[u8; 64]>::try_from(plain.as_slice()).ok()?;
        let (seed, root) = plain.split_at(32);
        Some((
            Share::from_bytes(seed.try_into().ok()?),
            Share::from_bytes(root.try_into().ok()?),
        ))
    }
}

/// This member has said whose shares it holds, and waits to hear among whom masks are.
#[derive(Debug)]
pub struct ExpectDealers {
    round: OpenRound,
    cohort: JoinedCohort,
    neighbours: BTreeMap<MemberIndex, Neighbour>,
    self_mask: Seed,
    held: BTreeMap<MemberIndex, HeldSecrets>,
}

impl ExpectDealers {
    /// Makes the masker: masks are among those members whose shares enough holders have.
    ///
    /// # Errors
    /// [`Refusal`] where this member is not among them, or somebody is whose keys or shares it has
    /// not seen, or they are too few.
    pub fn dealers(self, dealers: MemberSet) -> Result<ReadyToMask, Refusal> {
        let message = "dealers";
        let me = self.round.me();
        let cohort = &self.cohort;
        if let Some(member) = dealers.iter().find(|one| !cohort.weights.contains_key(one)) {
            return Err(Refusal::Stranger { message, member });
        }
        if !dealers.contains(me) {
            return Err(Refusal::LeftOut);
        }
        self.round.enough(message, dealers.len())?;
        let mut pairs = Vec::new();
        for peer in cohort.graph.mask_partners(me) {
            if !dealers.contains(peer) {
                continue;
            }
            // Without the pair's mask the sum of the others would be told from this member's.
            let seed = self.neighbours.get(&peer).and_then(|one| one.seed.clone());
            pairs.push((peer, seed.ok_or(Refusal::Undealt { member: peer })?));
        }
        let holders = cohort.graph.neighbours(me).into_iter();
        let holders = holders.filter(|one| dealers.contains(*one)).count();
        self.round.enough_holders(message, holders + 1)?;
        self.round.enough_in_group(pairs.len() + 1)?;

        let open = &self.round.open;
        let encoding = RoundEncoding {
            format: FixedPoint::new(
                open.bits,
                open.clip,
                cohort.weight_of_group(me),
                &self.round.digest,
            )?,
            weight: self.round.context.weight,
        };
        let mut held = self.held;
        held.retain(|owner, _| dealers.contains(*owner));
        Ok(ReadyToMask {
            masker: Masker::new(me, self.self_mask, pairs),
            round: self.round,
            cohort: self.cohort,
            dealers,
            held,
            encoding,
        })
    }
}
