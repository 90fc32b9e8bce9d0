//! Single phases of all members at once, for tests that play the malicious aggregator between
//! two phases. Whole rounds are the business of [`World`](super::World).

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::crypto::sign::Signature;
use crate::fixed::SumParts;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::evidence::Joined;
use crate::round::participant::{
    ExpectConfirmations, ExpectDealers, ExpectPeerKeys, ExpectPeerShares, ExpectResult,
    ExpectSurvivors, MemoryLedger, Opened as FirstAnswer,
};
use crate::secagg::NeighbourGraph;
use crate::wire::messages::{
    BeaconOpening, ClaimedVector, Cohort, Commitments, Confirmation, Confirmations, Deal,
    DealtShares, Keys, PeerKeys, RoundResult, Survivors,
};
use crate::wire::{Unverified, Verified};
use fedlora_common::digest::Digest;

use super::{Federation, class_of, sign_result};

impl Federation {
    /// The members' first answers with keys, all shown the same M0; where neighbours are drawn
    /// from a beacon, the first members contribute to it.
    pub(crate) fn opened(&self) -> Opened {
        if self.policy.needs_beacon() {
            let committed = self.committed();
            let commitments = committed.chosen(self, 0);
            return committed.opened(self, &commitments);
        }
        let mut rng = StdRng::seed_from_u64(77);
        let mut opened = Opened {
            open: self.open.digest(),
            size: self.len(),
            neighbours: self.policy.neighbours(),
            commitments: None,
            openings: BTreeMap::new(),
            members: Vec::new(),
            keys: Vec::new(),
            ledgers: Vec::new(),
        };
        for context in &self.contexts {
            let mut ledger = MemoryLedger::default();
            let first = context
                .open(self.open.clone(), &self.expected, &mut ledger, &mut rng)
                .unwrap();
            let FirstAnswer::Keys(member, keys) = first else {
                panic!("no beacon where all are neighbours of all");
            };
            opened.members.push(member);
            opened.keys.push(keys);
            opened.ledgers.push(ledger);
        }
        opened
    }

    /// The survivors of all members' claims, confirmed by the members at `places`.
    pub(crate) fn confirmations(
        &self,
        digest: Digest,
        places: impl IntoIterator<Item = u16>,
    ) -> BTreeMap<MemberIndex, Signature> {
        let sign = |place: u16| {
            let member = MemberIndex(place);
            let body = Confirmation {
                member,
                list: digest,
            };
            let key = &self.identities[usize::from(place)];
            (
                member,
                Verified::sign(body, key, &self.open.digest()).signature(),
            )
        };
        places.into_iter().map(sign).collect()
    }
}

/// All members wait for the others' keys.
pub(crate) struct Opened {
    /// The digest of M0.
    pub(crate) open: Digest,
    /// Members in the roster.
    pub(crate) size: usize,
    /// Neighbours of each.
    pub(crate) neighbours: usize,
    /// What the beacon comes from, where there is one.
    pub(crate) commitments: Option<Commitments>,
    pub(crate) openings: BTreeMap<MemberIndex, BeaconOpening>,
    pub(crate) members: Vec<ExpectPeerKeys>,
    pub(crate) keys: Vec<Unverified<Keys>>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Opened {
    /// Who takes part, by the keys.
    pub(crate) fn joined(&self) -> Joined {
        let weights = self
            .keys
            .iter()
            .map(|keys| (keys.claimed().member, keys.claimed().weight));
        let beacon = self.commitments.as_ref().map(|all| {
            let beacon = all.beacon(&self.open, &self.openings);
            (all.digest(&self.open), beacon)
        });
        Joined {
            cohort: Cohort::new(&weights.collect()),
            beacon,
        }
    }

    /// Who is whose neighbour.
    pub(crate) fn graph(&self) -> NeighbourGraph {
        self.joined().graph(self.size, self.neighbours).unwrap()
    }

    /// M1 of one member's neighbours, to that one.
    pub(crate) fn for_member(&self, me: u16) -> PeerKeys {
        let graph = self.graph();
        let neighbours = self
            .keys
            .iter()
            .filter(|keys| graph.are_neighbours(MemberIndex(me), keys.claimed().member));
        PeerKeys {
            cohort: self.joined().cohort,
            openings: self.openings.clone(),
            keys: neighbours.cloned().collect(),
        }
    }

    /// All members get all keys.
    pub(crate) fn shared(self) -> Shared {
        self.shared_with(78)
    }

    /// Likewise, with shares drawn from another seed.
    pub(crate) fn shared_with(self, seed: u64) -> Shared {
        let mut rng = StdRng::seed_from_u64(seed);
        let messages: Vec<_> = (0..self.members.len())
            .map(|place| self.for_member(place as u16))
            .collect();
        let transcript = self.joined().transcript(&self.open);
        let mut members = Vec::new();
        let mut deals = Vec::new();
        for (member, message) in self.members.into_iter().zip(messages) {
            let (member, deal) = member.peer_keys(message, &mut rng).unwrap();
            members.push(member);
            deals.push(deal);
        }
        Shared {
            transcript,
            members,
            deals,
            ledgers: self.ledgers,
        }
    }
}

/// All members wait for the others' shares.
pub(crate) struct Shared {
    /// What shares and masks are bound to.
    pub(crate) transcript: Digest,
    pub(crate) members: Vec<ExpectPeerShares>,
    pub(crate) deals: Vec<Unverified<Deal>>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Shared {
    /// What the others dealt to `holder`.
    pub(crate) fn for_holder(&self, holder: usize) -> BTreeMap<MemberIndex, DealtShares> {
        let holder = MemberIndex(holder as u16);
        self.deals
            .iter()
            .filter_map(|deal| {
                let deal = deal.claimed();
                Some((deal.member, deal.shares.get(&holder)?.clone()))
            })
            .collect()
    }

    /// All members get all shares, and say whose they hold.
    pub(crate) fn held(self) -> Held {
        let shares: Vec<_> = (0..self.members.len())
            .map(|holder| self.for_holder(holder))
            .collect();
        let mut members = Vec::new();
        for (member, shares) in self.members.into_iter().zip(shares) {
            let (member, _) = member.peer_shares(shares).unwrap();
            members.push(member);
        }
        Held {
            transcript: self.transcript,
            members,
            ledgers: self.ledgers,
        }
    }

    /// All members get all shares and upload.
    pub(crate) fn uploaded(self, federation: &Federation) -> Uploaded {
        self.held().uploaded(federation)
    }
}

/// All members wait to hear among whom masks are.
pub(crate) struct Held {
    transcript: Digest,
    pub(crate) members: Vec<ExpectDealers>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Held {
    /// Masks are among all, and all upload.
    pub(crate) fn uploaded(self, federation: &Federation) -> Uploaded {
        let all: MemberSet = federation.roster.indices().collect();
        self.told(federation, |_| all.clone())
    }

    /// All upload; each is told its own dealers by its place.
    pub(crate) fn told(
        self,
        federation: &Federation,
        dealers: impl Fn(usize) -> MemberSet,
    ) -> Uploaded {
        let mut members = Vec::new();
        let mut claims = Survivors::default();
        let mut claimed = BTreeMap::new();
        for (place, member) in self.members.into_iter().enumerate() {
            let ready = member.dealers(dealers(place)).unwrap();
            let (member, _, claim) = ready.mask(federation.update(place));
            let (me, of_vector) = (claim.claimed().member, ClaimedVector::from(&claim));
            claims.0.insert(me, of_vector.vector);
            claimed.insert(me, of_vector);
            members.push(member);
        }
        Uploaded {
            transcript: self.transcript,
            dealers: federation.roster.indices().collect(),
            members,
            claims,
            claimed,
            ledgers: self.ledgers,
        }
    }
}

/// All members have uploaded and wait for the survivor list.
pub(crate) struct Uploaded {
    pub(crate) transcript: Digest,
    pub(crate) dealers: MemberSet,
    pub(crate) members: Vec<ExpectSurvivors>,
    pub(crate) claims: Survivors,
    /// What all members signed of their vectors.
    pub(crate) claimed: BTreeMap<MemberIndex, ClaimedVector>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Uploaded {
    /// The digest that members sign for a list.
    pub(crate) fn digest(&self, claims: &Survivors) -> Digest {
        claims.list().digest(&self.transcript, &self.dealers)
    }

    /// All members sign the list of all.
    pub(crate) fn signed(mut self) -> Signed {
        let digest = self.digest(&self.claims);
        let list = self.claims.list();
        let mut members = Vec::new();
        let mut signatures = BTreeMap::new();
        for (place, member) in self.members.into_iter().enumerate() {
            let me = MemberIndex(place as u16);
            let proof = self.claims.proof(me);
            let ledger = &mut self.ledgers[place];
            let (member, signature) = member.survivors(list.clone(), &proof, ledger).unwrap();
            signatures.insert(me, signature);
            members.push(member);
        }
        Signed {
            transcript: self.transcript,
            digest,
            members,
            confirmations: Confirmations {
                signatures,
                claims: self.claimed,
            },
            claims: self.claims,
            ledgers: self.ledgers,
        }
    }
}

/// All members have signed the survivor list.
pub(crate) struct Signed {
    transcript: Digest,
    /// The digest that they signed.
    pub(crate) digest: Digest,
    pub(crate) members: Vec<ExpectConfirmations>,
    pub(crate) confirmations: Confirmations,
    pub(crate) claims: Survivors,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Signed {
    /// All members reveal, and the aggregator signs the result of the sum of all.
    pub(crate) fn revealed(self, federation: &Federation) -> AllRevealed {
        let open = &federation.open;
        let mut members = Vec::new();
        for (member, mut ledger) in self.members.into_iter().zip(self.ledgers) {
            let (member, _) = member
                .confirmations(&self.confirmations, &mut ledger)
                .unwrap();
            members.push(member);
        }
        let survivors: Vec<_> = self.claims.0.keys().copied().collect();
        let sum = federation.plain_sum(&survivors);
        let parts = SumParts {
            survivors: survivors.len(),
            weight: survivors
                .iter()
                .map(|member| class_of(usize::from(member.0)).weight())
                .sum(),
        };
        let mean = federation.format.decode(&sum, parts).unwrap();
        let result = RoundResult {
            run: open.run,
            round: open.round,
            attempt: open.attempt,
            adapter: Digest::of("test adapter", b"next"),
            sum: sum.digest(),
            total_weight: parts.weight,
            transcript: RoundResult::transcript_of(&self.transcript, &self.digest),
            previous: federation.previous,
            survivors,
            dropped: Vec::new(),
            train_loss: mean.train_loss,
            eval_loss: mean.eval_loss,
            clipped: mean.clipped,
            votes: mean.votes,
        };
        AllRevealed {
            members,
            result: sign_result(federation, result),
        }
    }
}

/// All members have revealed their shares and wait for the result.
pub(crate) struct AllRevealed {
    pub(crate) members: Vec<ExpectResult>,
    /// The result that follows from the round.
    pub(crate) result: Unverified<RoundResult>,
}
