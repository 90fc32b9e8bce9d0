//! The step before the keys, where neighbours are drawn from a beacon.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::ids::MemberIndex;
use crate::round::participant::{ExpectCommitments, MemoryLedger, Opened as FirstAnswer};
use crate::wire::messages::Commitments;
use fedlora_common::digest::Digest;

use super::{Federation, Opened};

impl Federation {
    /// The members' first step, all shown the same M0; neighbours are drawn from a beacon.
    pub(crate) fn committed(&self) -> Committed {
        let mut rng = StdRng::seed_from_u64(76);
        let mut committed = Committed {
            open: self.open.digest(),
            members: Vec::new(),
            commitments: BTreeMap::new(),
            ledgers: Vec::new(),
        };
        for context in &self.contexts {
            let mut ledger = MemoryLedger::default();
            let first = context
                .open(self.open.clone(), &self.expected, &mut ledger, &mut rng)
                .unwrap();
            let FirstAnswer::Commit(member, commitment) = first else {
                panic!("a beacon where not all are neighbours of all");
            };
            committed.members.push(member);
            committed.commitments.insert(context.me, commitment);
            committed.ledgers.push(ledger);
        }
        committed
    }
}

/// All members have committed to their part of the beacon.
pub(crate) struct Committed {
    /// The digest of M0.
    pub(crate) open: Digest,
    pub(crate) members: Vec<ExpectCommitments>,
    pub(crate) commitments: BTreeMap<MemberIndex, Digest>,
    pub(crate) ledgers: Vec<MemoryLedger>,
}

impl Committed {
    /// The commitments of as many members as the beacon has contributors, from `first` on.
    pub(crate) fn chosen(&self, federation: &Federation, first: u16) -> Commitments {
        let contributors = federation.policy.colluders() as u16 + 1;
        let places = first..first + contributors;
        let commitment = |place| (MemberIndex(place), self.commitments[&MemberIndex(place)]);
        Commitments(places.map(commitment).collect())
    }

    /// All members are shown these commitments. Their keys depend on their places alone.
    pub(crate) fn opened(self, federation: &Federation, commitments: &Commitments) -> Opened {
        let mut opened = Opened {
            open: self.open,
            size: federation.len(),
            neighbours: federation.policy.neighbours(),
            commitments: Some(commitments.clone()),
            openings: BTreeMap::new(),
            members: Vec::new(),
            keys: Vec::new(),
            ledgers: self.ledgers,
        };
        for (place, member) in self.members.into_iter().enumerate() {
            let mut rng = StdRng::seed_from_u64(7000 + place as u64);
            let (member, keys, opening) =
                member.commitments(commitments.clone(), &mut rng).unwrap();
            if let Some(opening) = opening {
                opened.openings.insert(keys.claimed().member, opening);
            }
            opened.members.push(member);
            opened.keys.push(keys);
        }
        opened
    }
}
