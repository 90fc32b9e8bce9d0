//! Dropout recovery: from the shares that survivors reveal to the masks that must be removed
//! from the sum.

use std::collections::BTreeMap;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use zeroize::Zeroizing;

use crate::crypto::agreement::{AgreementPublic, AgreementRoot, Encapsulation, Suite};
use crate::crypto::keys::Seed;
use crate::crypto::shamir::{self, Coordinate, ShamirError, Share};
use crate::fixed::LaneBits;
use crate::ids::{GroupIndex, MemberIndex, MemberSet};
use fedlora_common::digest::Digest;

use super::graph::NeighbourGraph;
use super::mask::{CHUNK, Masks, Sign};
use super::pair::PairContext;

/// What is publicly known of one member among whom masks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    /// The public half of its mask key.
    pub masking: AgreementPublic,
    /// The signed digest of its keys.
    pub keys: Digest,
    /// The commitment to its self-mask seed.
    pub self_mask: Digest,
    /// Its encapsulations for pair masks, by neighbour.
    pub masks: BTreeMap<MemberIndex, Encapsulation>,
}

/// All that the masks are recovered from.
#[derive(Debug, Clone, Copy)]
pub struct DealtSecrets<'a> {
    /// The suite of the round.
    pub suite: Suite,
    /// Who is whose neighbour, and in what group.
    pub graph: &'a NeighbourGraph,
    /// The cohort's transcript.
    pub transcript: &'a Digest,
    /// Shares that recover a secret.
    pub threshold: usize,
    /// Every member among whom masks are.
    pub dealt: &'a BTreeMap<MemberIndex, Dealt>,
    /// Those of them whose updates are in the sum.
    pub survivors: &'a MemberSet,
    /// Shares by owner and holder: of the self-mask seed for a survivor, of the mask key's root for
    /// a member that dropped out. Each was compared with its commitment.
    pub revealed: &'a BTreeMap<MemberIndex, BTreeMap<MemberIndex, Share>>,
}

/// The masks to remove from the sum of one group.
pub struct Unmasking {
    seeds: Vec<(Sign, Seed)>,
}

impl Unmasking {
    /// Recovers the survivors' self-mask seeds, and the dropped members' pair masks with each
    /// surviving neighbour of their group: those remain in the sum. All members are in one sum.
    ///
    /// # Errors
    /// [`RecoveryError`] where shares are too few, or what they recover is not what the member
    /// committed to.
    pub fn recover(secrets: DealtSecrets<'_>) -> Result<Self, RecoveryError> {
        let groups = Self::recover_groups(secrets)?.into_values();
        Ok(Self {
            seeds: groups.flat_map(|group| group.seeds).collect(),
        })
    }

    /// Likewise for each group's sum by itself. A group none of whose members dealt has none.
    ///
    /// # Errors
    /// As [`Unmasking::recover`].
    pub fn recover_groups(
        secrets: DealtSecrets<'_>,
    ) -> Result<BTreeMap<GroupIndex, Self>, RecoveryError> {
        let mut survivors = secrets.survivors.iter();
        if let Some(member) = survivors.find(|member| !secrets.dealt.contains_key(member)) {
            return Err(RecoveryError::Unknown { member });
        }
        let owners: Vec<_> = secrets.dealt.iter().collect();
        let masks: Vec<(MemberIndex, Vec<(Sign, Seed)>)> = owners
            .par_iter()
            .map(|(member, dealt)| Ok((**member, secrets.masks_of(**member, dealt)?)))
            .collect::<Result<_, RecoveryError>>()?;
        let mut groups = BTreeMap::new();
        for (member, seeds) in masks {
            let group = secrets.graph.groups().of(member);
            let group = group.ok_or(RecoveryError::Unknown { member })?;
            let none = Self { seeds: Vec::new() };
            groups.entry(group).or_insert(none).seeds.extend(seeds);
        }
        Ok(groups)
    }

    pub(super) fn remove_from(&self, lanes: &mut [u32], bits: LaneBits) {
        let masks = Masks::new(self.seeds.iter().map(|(sign, seed)| (*sign, seed)));
        let chunks = lanes.par_chunks_mut(CHUNK).enumerate();
        chunks.for_each(|(place, chunk)| {
            masks.apply(place, chunk);
            for lane in chunk {
                *lane &= bits.mask();
            }
        });
    }
}

impl DealtSecrets<'_> {
    /// The masks of one member that remain in the sum.
    fn masks_of(
        &self,
        member: MemberIndex,
        dealt: &Dealt,
    ) -> Result<Vec<(Sign, Seed)>, RecoveryError> {
        let secret = self
            .recover(member)
            .map_err(|source| RecoveryError::Shares { member, source })?;
        if self.survivors.contains(member) {
            let seed = Seed::from_bytes(*secret);
            if !seed.opens(&dealt.self_mask) {
                return Err(RecoveryError::Deal { member });
            }
            return Ok(vec![(Sign::Minus, seed)]);
        }
        let secret = AgreementRoot::from_bytes(*secret).key_pair(self.suite);
        if *secret.public() != dealt.masking {
            return Err(RecoveryError::Deal { member });
        }
        let mut seeds = Vec::new();
        for peer in self.graph.mask_partners(member) {
            let Some(survivor) = self
                .dealt
                .get(&peer)
                .filter(|_| self.survivors.contains(peer))
            else {
                continue;
            };
            let pair = PairContext::new(
                self.transcript,
                (member, &dealt.keys),
                (peer, &survivor.keys),
            );
            let unusable = RecoveryError::Deal { member: peer };
            let seed = if pair.initiates() {
                let (sent, seed) = pair
                    .initiate_mask(&secret, &survivor.masking)
                    .map_err(|_| unusable)?;
                // Of another encapsulation the peer has another seed, which nobody can recover.
                if dealt.masks.get(&peer) != Some(&sent) {
                    return Err(RecoveryError::Encapsulation { member, peer });
                }
                seed
            } else {
                let to_me = survivor.masks.get(&member).ok_or(unusable)?;
                pair.respond_mask(&secret, &survivor.masking, to_me)
                    .map_err(|_| unusable)?
            };
            seeds.push((Sign::at(peer, member).opposite(), seed));
        }
        Ok(seeds)
    }

    fn recover(&self, owner: MemberIndex) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
        let shares = self.revealed.get(&owner).into_iter().flatten();
        let by_coordinate: BTreeMap<Coordinate, Share> = shares
            .filter_map(|(holder, share)| {
                let place = self.graph.holder_place(owner, *holder)?;
                Some((Coordinate::of_place(place).ok()?, share.clone()))
            })
            .collect();
        shamir::recover(&by_coordinate, self.threshold)
    }
}

impl std::fmt::Debug for Unmasking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unmasking({} masks)", self.seeds.len())
    }
}

/// Why the masks cannot be removed from the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Too few shares of one member's secret.
    #[error("the secret of member {member} cannot be recovered: {source}")]
    Shares {
        /// The member whose secret is shared.
        member: MemberIndex,
        /// Why the shares do not recover it.
        source: ShamirError,
    },
    /// Shares that are what their dealer committed to, and recover another secret than it
    /// committed to.
    #[error(
        "the shares of member {member}'s secret are what it committed to, and recover another \
         secret than it committed to: it dealt them inconsistently"
    )]
    Deal {
        /// The member whose secret is shared.
        member: MemberIndex,
    },
    /// An encapsulation for a pair mask that its sender's root does not give.
    #[error(
        "member {member} encapsulated its mask for member {peer} otherwise than from its root, so \
         that nobody can recover the mask"
    )]
    Encapsulation {
        /// The member that encapsulated.
        member: MemberIndex,
        /// The member that it did so for.
        peer: MemberIndex,
    },
    /// A survivor that never shared its secrets.
    #[error("member {member} is on the survivor list but shared no secrets in this round")]
    Unknown {
        /// The member's place in the roster.
        member: MemberIndex,
    },
}

#[cfg(test)]
mod tests;
