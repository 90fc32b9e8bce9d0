//! For tests: a federation in memory. [`Federation`] holds keys, roster and M0, and steps
//! honest members phase by phase, so that a test can play the malicious aggregator between
//! them; [`World`] drives whole rounds with the true [`Coordinator`] over simulated time.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::crypto::sign::{IdentityKey, Signature};
use crate::fixed::{AUXILIARY_LANES, Contribution, EncodedUpdate, FixedPoint, LaneBits, RingSum};
use crate::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use crate::plan::{Roster, RosterEntry, Timeouts};
use crate::secagg::CohortPolicy;
use crate::wire::messages::{
    Confirmation, Keys, Open, RevealedShare, RoundResult, SUITE, SealedShares, Survivors,
    UpdateClaim,
};
use crate::wire::{Signable, Unverified, Verified};
use fedlora_adapter::Factors;
use fedlora_common::digest::Digest;

use super::coordinator::RoundSetup;
use super::participant::{
    ExpectConfirmations, ExpectPeerKeys, ExpectPeerShares, ExpectSurvivors, Expectation,
    MemoryLedger, RoundContext,
};
pub(crate) use world::{Outcome, Stage, World, phase_of};

/// Coordinates of a delta in tests: odd, so that the last 20-bit lane is half a pair.
pub(crate) const DELTA: usize = 17;

/// What stays the same over the rounds of a test.
pub(crate) struct Federation {
    pub(crate) roster: Arc<Roster>,
    pub(crate) identities: Vec<Arc<IdentityKey>>,
    pub(crate) contexts: Vec<Arc<RoundContext>>,
    pub(crate) aggregator: IdentityKey,
    pub(crate) policy: CohortPolicy,
    pub(crate) expected: Expectation,
    pub(crate) open: Open,
    pub(crate) format: FixedPoint,
    pub(crate) previous: Digest,
}

impl Federation {
    /// `members` members with 24-bit lanes and the lowest minimum.
    pub(crate) fn new(members: usize) -> Self {
        Self::with_bits(members, LaneBits::B24)
    }

    pub(crate) fn with_bits(members: usize, bits: LaneBits) -> Self {
        let mut rng = StdRng::seed_from_u64(members as u64);
        let identities: Vec<_> = (0..members)
            .map(|_| Arc::new(IdentityKey::random(&mut rng)))
            .collect();
        let entries = identities
            .iter()
            .enumerate()
            .map(|(place, key)| RosterEntry {
                name: format!("member-{place:02}").parse().unwrap(),
                identity: key.public(),
                certificate_key: Digest::of("test certificate key", &[place as u8]),
            });
        let roster = Arc::new(Roster::new(entries.collect()).unwrap());
        let policy = CohortPolicy::lowest(members).unwrap();
        let plan = Digest::of("test plan", b"");
        let run = RunId([7; 16]);
        let expected = Expectation {
            adapter: Digest::of("test adapter", b""),
            layout: Digest::of("test layout", b""),
            factors: Factors::Both,
            clip: 1.0,
            max_weight: 100,
            bits,
        };
        let open = Open {
            suite: SUITE,
            run,
            round: RoundNumber(1),
            attempt: Attempt(1),
            roster: roster.digest(),
            adapter: expected.adapter,
            plan,
            layout: expected.layout,
            factors: expected.factors,
            clip: expected.clip,
            max_weight: expected.max_weight,
            bits,
            threshold: policy.threshold() as u16,
            minimum: policy.minimum() as u16,
        };
        let contexts = identities
            .iter()
            .enumerate()
            .map(|(place, identity)| {
                Arc::new(RoundContext {
                    run,
                    roster: Roster::clone(&roster),
                    me: MemberIndex(place as u16),
                    identity: Arc::clone(identity),
                    plan,
                    contributors: policy.quorum(),
                })
            })
            .collect();
        Self {
            previous: RoundResult::chain_start(run, &plan, &roster.digest(), &expected.adapter),
            format: FixedPoint::new(bits, members, expected.clip, expected.max_weight).unwrap(),
            aggregator: IdentityKey::random(&mut rng),
            roster,
            identities,
            contexts,
            policy,
            expected,
            open,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.roster.len()
    }

    pub(crate) fn setup(&self) -> Arc<RoundSetup> {
        Arc::new(RoundSetup::new(
            self.open.clone(),
            Arc::clone(&self.roster),
            self.policy,
            Timeouts::default(),
        ))
    }

    /// A member's update for a test: each member's is different.
    pub(crate) fn update(&self, place: usize) -> EncodedUpdate {
        let delta: Vec<f32> = (0..DELTA)
            .map(|k| ((k * 7 + place * 13) % 19) as f32 / 19.0 - 0.5)
            .collect();
        let contribution = Contribution {
            weight: 10 + place as u32,
            train_loss: 1.0,
            eval_loss: place.is_multiple_of(2).then_some(2.0),
        };
        let mut rng = StdRng::seed_from_u64(1000 + place as u64);
        self.format.encode(&delta, contribution, &mut rng).unwrap()
    }

    /// The sum that the named members' updates must come to.
    pub(crate) fn plain_sum<'a>(
        &self,
        members: impl IntoIterator<Item = &'a MemberIndex>,
    ) -> RingSum {
        let mut sum = vec![0_u32; DELTA + AUXILIARY_LANES];
        for member in members {
            for (sum, lane) in sum
                .iter_mut()
                .zip(self.update(usize::from(member.0)).lanes())
            {
                *sum = sum.wrapping_add(*lane) & self.open.bits.mask();
            }
        }
        RingSum(sum)
    }

    /// The members' first step, all shown the same M0.
    pub(crate) fn opened(&self) -> Opened {
        let mut rng = StdRng::seed_from_u64(77);
        let mut opened = Opened {
            members: Vec::new(),
            keys: Vec::new(),
            ledgers: Vec::new(),
        };
        for context in &self.contexts {
            let mut ledger = MemoryLedger::default();
            let (member, keys) = context
                .open(self.open.clone(), &self.expected, &mut ledger, &mut rng)
                .unwrap();
            opened.members.push(member);
            opened.keys.push(keys);
            opened.ledgers.push(ledger);
        }
        opened
    }
}

/// All members wait for the others' keys.
pub(crate) struct Opened {
    pub(crate) members: Vec<ExpectPeerKeys>,
    pub(crate) keys: Vec<Unverified<Keys>>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Opened {
    /// All members get all keys.
    pub(crate) fn shared(self) -> Shared {
        let mut rng = StdRng::seed_from_u64(78);
        let mut members = Vec::new();
        let mut sealed = Vec::new();
        for member in self.members {
            let (member, shares) = member.peer_keys(self.keys.clone(), &mut rng).unwrap();
            members.push(member);
            sealed.push(shares);
        }
        Shared {
            members,
            sealed,
            ledgers: self.ledgers,
        }
    }
}

/// All members wait for the others' shares.
pub(crate) struct Shared {
    pub(crate) members: Vec<ExpectPeerShares>,
    pub(crate) sealed: Vec<BTreeMap<MemberIndex, SealedShares>>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Shared {
    /// What the others sealed for `holder`.
    pub(crate) fn for_holder(&self, holder: usize) -> BTreeMap<MemberIndex, SealedShares> {
        let holder = MemberIndex(holder as u16);
        self.sealed
            .iter()
            .enumerate()
            .filter_map(|(sender, sealed)| {
                Some((MemberIndex(sender as u16), sealed.get(&holder)?.clone()))
            })
            .collect()
    }

    /// All members get all shares and upload.
    pub(crate) fn uploaded(self, federation: &Federation) -> Uploaded {
        let shares: Vec<_> = (0..self.members.len())
            .map(|holder| self.for_holder(holder))
            .collect();
        let mut members = Vec::new();
        let mut list = Survivors::default();
        for (place, (member, shares)) in self.members.into_iter().zip(shares).enumerate() {
            let ready = member.peer_shares(shares).unwrap();
            let (member, _, claim) = ready.mask(federation.update(place));
            list.0
                .insert(claim.claimed().member, claim.claimed().vector);
            members.push(member);
        }
        Uploaded {
            members,
            list,
            ledgers: self.ledgers,
        }
    }
}

/// All members have uploaded and wait for the survivor list.
pub(crate) struct Uploaded {
    pub(crate) members: Vec<ExpectSurvivors>,
    pub(crate) list: Survivors,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Uploaded {
    /// All members sign the list of all.
    pub(crate) fn signed(self, federation: &Federation) -> Signed {
        let open = federation.open.digest();
        let digest = self.list.digest(&open);
        let mut members = Vec::new();
        let mut confirmations = Vec::new();
        for (place, member) in self.members.into_iter().enumerate() {
            let (member, signature) = member.survivors(self.list.clone()).unwrap();
            let confirmation = Confirmation {
                member: MemberIndex(place as u16),
                list: digest,
            };
            confirmations.push(Unverified::from_parts(confirmation, signature));
            members.push(member);
        }
        Signed {
            members,
            confirmations,
            list: self.list,
            ledgers: self.ledgers,
        }
    }
}

/// All members have signed the survivor list.
pub(crate) struct Signed {
    pub(crate) members: Vec<ExpectConfirmations>,
    pub(crate) confirmations: Vec<Unverified<Confirmation>>,
    pub(crate) list: Survivors,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

/// Signs a result as the aggregator does.
pub(crate) fn sign_result(federation: &Federation, result: RoundResult) -> Unverified<RoundResult> {
    let previous = result.previous;
    Verified::sign(result, &federation.aggregator, &previous)
        .unverified()
        .clone()
}

/// A body under a signature that is not its signer's.
pub(crate) fn forged<T: Signable>(body: T) -> Unverified<T> {
    Unverified::from_parts(body, Signature::from_bytes([1; 64]))
}

/// A claim of `member` signed by the holder of `key`.
pub(crate) fn claim(
    federation: &Federation,
    member: MemberIndex,
    key: &IdentityKey,
) -> Unverified<UpdateClaim> {
    let body = UpdateClaim {
        member,
        vector: Digest::of("test vector", &member.0.to_le_bytes()),
    };
    Verified::sign(body, key, &federation.open.digest())
        .unverified()
        .clone()
}

/// Shares of `owners` as a member may reveal them, with meaningless bytes.
pub(crate) fn meaningless_shares(owners: &[u16]) -> BTreeMap<MemberIndex, RevealedShare> {
    owners
        .iter()
        .map(|&owner| (MemberIndex(owner), RevealedShare::SelfMask([9; 32])))
        .collect()
}
