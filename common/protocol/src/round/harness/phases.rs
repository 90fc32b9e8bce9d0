//! Single phases of all members at once, for tests that play the malicious aggregator between
//! two phases. Whole rounds are the business of [`World`](super::World).

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fixed::SumParts;
use crate::ids::MemberIndex;
use crate::round::participant::{
    ExpectConfirmations, ExpectPeerKeys, ExpectPeerShares, ExpectResult, ExpectSurvivors,
    MemoryLedger,
};
use crate::wire::Unverified;
use crate::wire::messages::{
    Confirmation, Keys, RoundResult, SealedShares, Survivors, keys_digest,
};
use fedlora_common::digest::Digest;

use super::{Federation, class_of, sign_result};

impl Federation {
    /// The members' first step, all shown the same M0.
    pub(crate) fn opened(&self) -> Opened {
        let mut rng = StdRng::seed_from_u64(77);
        let mut opened = Opened {
            open: self.open.digest(),
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
    open: Digest,
    pub(crate) members: Vec<ExpectPeerKeys>,
    pub(crate) keys: Vec<Unverified<Keys>>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Opened {
    /// All members get all keys.
    pub(crate) fn shared(self) -> Shared {
        let mut rng = StdRng::seed_from_u64(78);
        let transcript = keys_digest(&self.open, self.keys.iter().map(Unverified::claimed));
        let mut members = Vec::new();
        let mut sealed = Vec::new();
        for member in self.members {
            let (member, shares) = member.peer_keys(self.keys.clone(), &mut rng).unwrap();
            members.push(member);
            sealed.push(shares);
        }
        Shared {
            transcript,
            members,
            sealed,
            ledgers: self.ledgers,
        }
    }
}

/// All members wait for the others' shares.
pub(crate) struct Shared {
    /// The digest of all keys.
    transcript: Digest,
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
            transcript: self.transcript,
            members,
            list,
            ledgers: self.ledgers,
        }
    }
}

/// All members have uploaded and wait for the survivor list.
pub(crate) struct Uploaded {
    /// The digest of all keys.
    transcript: Digest,
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
            transcript: self.transcript,
            members,
            confirmations,
            list: self.list,
            ledgers: self.ledgers,
        }
    }
}

/// All members have signed the survivor list.
pub(crate) struct Signed {
    /// The digest of all keys.
    transcript: Digest,
    pub(crate) members: Vec<ExpectConfirmations>,
    pub(crate) confirmations: Vec<Unverified<Confirmation>>,
    pub(crate) list: Survivors,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Signed {
    /// All members reveal, and the aggregator signs the result of the sum of all.
    pub(crate) fn revealed(self, federation: &Federation) -> AllRevealed {
        let open = &federation.open;
        let mut members = Vec::new();
        for (member, mut ledger) in self.members.into_iter().zip(self.ledgers) {
            let (member, _) = member
                .confirmations(self.confirmations.clone(), &mut ledger)
                .unwrap();
            members.push(member);
        }
        let survivors: Vec<_> = self.list.0.keys().copied().collect();
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
            total_weight: parts.weight,
            transcript: RoundResult::transcript_of(
                &self.transcript,
                &self.list.digest(&open.digest()),
            ),
            previous: federation.previous,
            survivors,
            dropped: Vec::new(),
            train_loss: mean.train_loss,
            eval_loss: mean.eval_loss,
            clipped: mean.clipped,
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
