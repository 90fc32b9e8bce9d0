//! M1: fresh keys for one attempt, and the cohort that they make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::agreement::AgreementPublic;
use crate::fixed::WeightClass;
use crate::ids::{MemberIndex, MemberSet, RoundNumber};
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::{Signable, Unverified};
use super::beacon::BeaconOpening;

/// M1: a member's fresh keys for one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The member whose keys they are.
    pub member: MemberIndex,
    /// The key with which others seal shares to this member.
    pub sealing: AgreementPublic,
    /// The key from which pair masks with the others are agreed.
    pub masking: AgreementPublic,
    /// How much the member weighs in the mean.
    pub weight: WeightClass,
    /// The newest round of this run for which the member revealed shares; 0 for none.
    pub revealed: RoundNumber,
}

impl Signable for Keys {
    /// `context` is [`keys_context`].
    fn signed_digest(&self, context: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 M1 keys");
        writer.digest(context).number(self.member.0.into());
        self.sealing.write_to(&mut writer);
        self.masking.write_to(&mut writer);
        writer
            .number(self.weight.class().into())
            .number(self.revealed.0.into())
            .finish()
    }
}

/// What keys are signed for: M0, and the commitments to the beacon where there is one.
pub fn keys_context(open: &Digest, commitments: Option<&Digest>) -> Digest {
    match commitments {
        None => *open,
        Some(commitments) => DigestWriter::new("fedlora 2 keys context")
            .digest(open)
            .digest(commitments)
            .finish(),
    }
}

/// Who takes part in an attempt, and how much each weighs: the same for all members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cohort {
    /// The members that sent keys.
    pub members: MemberSet,
    /// The weight class of each, ascending by member; a single one where all are of that class.
    pub classes: Vec<WeightClass>,
}

impl Cohort {
    /// The cohort of these members.
    pub fn new(weights: &BTreeMap<MemberIndex, WeightClass>) -> Self {
        let mut classes: Vec<_> = weights.values().copied().collect();
        if classes.windows(2).all(|pair| pair[0] == pair[1]) {
            classes.truncate(1);
        }
        Self {
            members: weights.keys().copied().collect(),
            classes,
        }
    }

    /// The class of each member; `None` where there are not as many classes as members, or more
    /// than need be.
    pub fn weights(&self) -> Option<BTreeMap<MemberIndex, WeightClass>> {
        let members = self.members.iter();
        let weights: BTreeMap<_, _> = match self.classes[..] {
            [class] => members.map(|member| (member, class)).collect(),
            _ => members.zip(self.classes.iter().copied()).collect(),
        };
        let same = Self::new(&weights) == *self;
        (same && !weights.is_empty()).then_some(weights)
    }

    /// The transcript: what seals, masks and shares are bound to. `context` is [`keys_context`],
    /// `beacon` what the neighbours are drawn from.
    pub fn transcript(&self, context: &Digest, beacon: Option<&Digest>) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 cohort transcript");
        writer.digest(context);
        self.members.write_to(&mut writer);
        writer.number(self.classes.len() as u64);
        for class in &self.classes {
            writer.number(class.class().into());
        }
        if let Some(beacon) = beacon {
            writer.digest(beacon);
        }
        writer.finish()
    }
}

/// M1 of a member's neighbours, with who else takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerKeys {
    /// Who takes part.
    pub cohort: Cohort,
    /// The opened nonces of the beacon's contributors; none where all are neighbours of all.
    pub openings: BTreeMap<MemberIndex, BeaconOpening>,
    /// The signed keys of the receiver's neighbours in the cohort, ascending.
    pub keys: Vec<Unverified<Keys>>,
}
