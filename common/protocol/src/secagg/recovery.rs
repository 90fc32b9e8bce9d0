//! Dropout recovery: from the shares that survivors reveal to the masks that must be removed
//! from the sum.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::keys::{AgreementPublic, AgreementSecret, Seed};
use crate::crypto::shamir::{self, Coordinate, ShamirError, Share};
use crate::fixed::LaneBits;
use crate::ids::MemberIndex;
use fedlora_common::digest::Digest;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::mask::{CHUNK, Masks, Sign, pair_seed};

/// What is publicly known of one member that shared its secrets in this round.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// The public half of its mask secret.
    pub mask_key: AgreementPublic,
    /// The commitment to its self-mask seed.
    pub self_mask: Digest,
}

/// Shares of one secret, by holder.
pub type Revealed = BTreeMap<Coordinate, Share>;

/// The masks to remove from a sum.
pub struct Unmasking {
    seeds: Vec<(Sign, Seed)>,
}

impl Unmasking {
    /// Recovers the survivors' self-mask seeds and the dropped members' mask secrets.
    ///
    /// `committed` holds every member that shared its secrets (U2); those of them that are not
    /// in `survivors` dropped out before their update was taken, so their pair masks with
    /// each survivor remain in the sum. `revealed` holds the shares by owner: of the self-mask
    /// seed for a survivor, of the mask secret for one that dropped.
    ///
    /// # Errors
    /// [`RecoveryError`] where shares are too few, or the secret that they recover is not the
    /// one that the member committed to.
    pub fn recover(
        committed: &BTreeMap<MemberIndex, Committed>,
        survivors: &BTreeSet<MemberIndex>,
        revealed: &BTreeMap<MemberIndex, Revealed>,
        threshold: usize,
        transcript: &Digest,
    ) -> Result<Self, RecoveryError> {
        let none = Revealed::new();
        let mut seeds = Vec::new();
        for (&member, public) in committed {
            let shares = revealed.get(&member).unwrap_or(&none);
            let secret = shamir::recover(shares, threshold)
                .map_err(|source| RecoveryError::Shares { member, source })?;
            if survivors.contains(&member) {
                let seed = Seed::from_bytes(*secret);
                if !seed.opens(&public.self_mask) {
                    return Err(RecoveryError::Commitment { member });
                }
                seeds.push((Sign::Minus, seed));
            } else {
                let secret = AgreementSecret::from_bytes(*secret);
                if secret.public() != public.mask_key {
                    return Err(RecoveryError::Commitment { member });
                }
                for &survivor in survivors {
                    let peer = committed
                        .get(&survivor)
                        .ok_or(RecoveryError::Unknown { member: survivor })?;
                    let seed = pair_seed(&secret, &peer.mask_key, (member, survivor), transcript)
                        .map_err(|_| RecoveryError::Commitment { member: survivor })?;
                    seeds.push((Sign::at(survivor, member).opposite(), seed));
                }
            }
        }
        match survivors
            .iter()
            .find(|member| !committed.contains_key(member))
        {
            Some(&member) => Err(RecoveryError::Unknown { member }),
            None => Ok(Self { seeds }),
        }
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
    /// Shares that recover another secret than the member committed to.
    #[error(
        "the shares of member {member}'s secret recover another secret than it committed to: \
         at least one share is forged"
    )]
    Commitment {
        /// The member whose secret is shared.
        member: MemberIndex,
    },
    /// A survivor that never shared its secrets.
    #[error("member {member} is on the survivor list but shared no secrets in this round")]
    Unknown {
        /// The member's place in the roster.
        member: MemberIndex,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;
    use crate::fixed::{CohortWeight, Contribution, FixedPoint, LossShift, WeightClass};
    use crate::secagg::{MaskedUpdate, Masker, RunningSum};

    /// A whole aggregation among `members`, of which `dropped` never upload.
    struct Cohort {
        committed: BTreeMap<MemberIndex, Committed>,
        survivors: BTreeSet<MemberIndex>,
        revealed: BTreeMap<MemberIndex, Revealed>,
        uploads: Vec<MaskedUpdate>,
        plain: Vec<u32>,
        transcript: Digest,
        threshold: usize,
    }

    const LANES: usize = 33;

    fn cohort(members: u16, dropped: &[u16], bits: LaneBits) -> Cohort {
        let mut rng = os_rng();
        let transcript = Digest::of("test", b"transcript");
        let threshold = members as usize / 2 + 1;
        let secrets: Vec<_> = (0..members)
            .map(|_| (AgreementSecret::random(&mut rng), Seed::random(&mut rng)))
            .collect();
        let all = CohortWeight {
            members: members.into(),
            total: members.into(),
        };
        let format = FixedPoint::new(bits, 1.0, all, &transcript).unwrap();
        let mut made = Cohort {
            committed: BTreeMap::new(),
            survivors: BTreeSet::new(),
            revealed: BTreeMap::new(),
            uploads: Vec::new(),
            plain: vec![0; LANES + crate::fixed::AUXILIARY_LANES],
            transcript,
            threshold,
        };
        for (place, (secret, seed)) in secrets.iter().enumerate() {
            let me = MemberIndex(place as u16);
            made.committed.insert(
                me,
                Committed {
                    mask_key: secret.public(),
                    self_mask: seed.commitment(),
                },
            );
            let survives = !dropped.contains(&me.0);
            let shared = if survives {
                *seed.expose()
            } else {
                *secret.expose()
            };
            let shares = shamir::split(&shared, threshold, members as usize, &mut rng).unwrap();
            made.revealed.insert(
                me,
                shares
                    .into_iter()
                    .enumerate()
                    .filter(|(holder, _)| !dropped.contains(&(*holder as u16)))
                    .map(|(holder, share)| (Coordinate::of_place(holder).unwrap(), share))
                    .collect(),
            );
            if !survives {
                continue;
            }
            made.survivors.insert(me);
            let delta: Vec<f32> = (0..LANES)
                .map(|k| ((k * 7 + place * 13) % 19) as f32 / 100.0 - 0.1)
                .collect();
            let shift = LossShift::random(&mut rng);
            let update = format
                .encode(
                    &delta,
                    WeightClass::ONE,
                    Contribution {
                        train_loss: shift.steps(1.0).unwrap(),
                        eval_loss: shift.steps(2.0).unwrap(),
                        clipped: false,
                    },
                    &mut rng,
                )
                .unwrap();
            for (sum, lane) in made.plain.iter_mut().zip(update.lanes()) {
                *sum = sum.wrapping_add(*lane) & bits.mask();
            }
            let peers = secrets
                .iter()
                .enumerate()
                .filter(|(peer, _)| *peer != place)
                .map(|(peer, (secret, _))| (MemberIndex(peer as u16), secret.public()));
            let masker = Masker::new(me, seed.clone(), secret, peers, &transcript).unwrap();
            made.uploads.push(masker.mask(update));
        }
        made
    }

    fn recover(cohort: &Cohort) -> Result<Unmasking, RecoveryError> {
        Unmasking::recover(
            &cohort.committed,
            &cohort.survivors,
            &cohort.revealed,
            cohort.threshold,
            &cohort.transcript,
        )
    }

    #[test]
    fn the_unmasked_sum_is_exact_with_and_without_dropouts() {
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            for dropped in [&[][..], &[0], &[2, 4]] {
                let cohort = cohort(6, dropped, bits);
                let mut sum = RunningSum::new(bits, cohort.plain.len());
                for upload in &cohort.uploads {
                    sum.add(upload.as_bytes()).unwrap();
                }
                let unmasked = sum.unmask(recover(&cohort).unwrap());
                assert_eq!(unmasked.0, cohort.plain, "{bits:?}, dropped {dropped:?}");
            }
        }
    }

    #[test]
    fn a_single_upload_is_not_the_plain_vector() {
        let cohort = cohort(3, &[], LaneBits::B24);
        let mut sum = RunningSum::new(LaneBits::B24, cohort.plain.len());
        sum.add(cohort.uploads[0].as_bytes()).unwrap();
        // Even with the self-masks gone, pair masks with the two others remain.
        let one = sum.unmask(recover(&cohort).unwrap());
        let equal = one.0.iter().zip(&cohort.plain).filter(|(a, b)| a == b);
        assert!(equal.count() < 3);
    }

    #[test]
    fn too_few_and_forged_shares_are_refused() {
        let mut few = cohort(5, &[1], LaneBits::B24);
        let shares = few.revealed.get_mut(&MemberIndex(1)).unwrap();
        while shares.len() >= few.threshold {
            shares.pop_last();
        }
        assert!(matches!(
            recover(&few),
            Err(RecoveryError::Shares {
                member: MemberIndex(1),
                ..
            })
        ));

        for victim in [0, 1] {
            let mut forged = cohort(5, &[1], LaneBits::B24);
            let shares = forged.revealed.get_mut(&MemberIndex(victim)).unwrap();
            let first = *shares.keys().next().unwrap();
            shares.insert(first, Share::from_bytes([7; 32]));
            assert_eq!(
                recover(&forged).unwrap_err(),
                RecoveryError::Commitment {
                    member: MemberIndex(victim)
                }
            );
        }
    }

    #[test]
    fn a_survivor_without_secrets_is_refused() {
        let mut cohort = cohort(4, &[], LaneBits::B24);
        cohort.survivors.insert(MemberIndex(9));
        assert_eq!(
            recover(&cohort).unwrap_err(),
            RecoveryError::Unknown {
                member: MemberIndex(9)
            }
        );
    }
}
