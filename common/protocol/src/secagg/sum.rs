//! The running sum of masked updates: one vector a group, however many members.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::fixed::{LaneBits, RingSum};

use super::pack::{self, PackError};
use super::recovery::Unmasking;
use crate::ids::GroupIndex;

/// Lanes that a thread adds at a time, an even number: a chunk's bytes are whole ones.
const CHUNK: usize = 1 << 14;

/// A sum of masked updates, modulo 2^b.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningSum {
    bits: LaneBits,
    lanes: Vec<u32>,
    added: usize,
}

impl RunningSum {
    /// An empty sum of `lanes` lanes.
    pub fn new(bits: LaneBits, lanes: usize) -> Self {
        Self {
            bits,
            lanes: vec![0; lanes],
            added: 0,
        }
    }

    /// Adds one packed masked update.
    ///
    /// # Errors
    /// [`PackError`] where the bytes are not such a vector; the sum is unchanged.
    pub fn add(&mut self, packed: &[u8]) -> Result<(), PackError> {
        self.check(packed)?;
        let parts = packed.par_chunks(pack::packed_len(self.bits, CHUNK));
        self.lanes
            .par_chunks_mut(CHUNK)
            .zip(parts)
            .for_each(|(lanes, bytes)| pack::add_into(self.bits, bytes, lanes));
        self.added += 1;
        Ok(())
    }

    /// Checks that [`RunningSum::add`] would take these bytes, so that a malformed update
    /// is its sender's loss and not the round's.
    ///
    /// # Errors
    /// [`PackError`], as [`RunningSum::add`].
    pub fn check(&self, packed: &[u8]) -> Result<(), PackError> {
        pack::check(self.bits, packed, self.lanes.len())
    }

    /// How many updates were added.
    pub fn added(&self) -> usize {
        self.added
    }

    /// Removes the masks, consuming both: what is left is the sum of the survivors' vectors.
    pub fn unmask(mut self, unmasking: Unmasking) -> RingSum {
        unmasking.remove_from(&mut self.lanes, self.bits);
        RingSum(self.lanes)
    }
}

/// The running sums of all groups of a round: 4 bytes a lane and group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningSums(Vec<RunningSum>);

impl RunningSums {
    /// An empty sum of `lanes` lanes for each of `groups` groups, at least one.
    pub fn new(bits: LaneBits, lanes: usize, groups: u16) -> Self {
        Self(vec![RunningSum::new(bits, lanes); groups.max(1).into()])
    }

    /// Adds one packed masked update to a group's sum.
    ///
    /// # Errors
    /// As [`RunningSum::add`].
    ///
    /// # Panics
    /// For a group that there is not.
    pub fn add(&mut self, group: GroupIndex, packed: &[u8]) -> Result<(), PackError> {
        self.0[usize::from(group.0)].add(packed)
    }

    /// Checks that [`RunningSums::add`] would take these bytes.
    ///
    /// # Errors
    /// As [`RunningSum::add`].
    pub fn check(&self, packed: &[u8]) -> Result<(), PackError> {
        self.0[0].check(packed)
    }

    /// A group's sum, which leaves an empty one of no lanes behind.
    ///
    /// # Panics
    /// For a group that there is not.
    pub fn take(&mut self, group: GroupIndex) -> RunningSum {
        let sum = &mut self.0[usize::from(group.0)];
        let empty = RunningSum::new(sum.bits, 0);
        std::mem::replace(sum, empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_a_sum_of_its_own() {
        let bits = LaneBits::B24;
        let mut sums = RunningSums::new(bits, 1, 2);
        let (first, second) = (GroupIndex(0), GroupIndex(1));
        for (group, lane) in [(first, 5), (second, 7), (first, 6)] {
            let packed = pack::pack(bits, &[lane]);
            sums.check(&packed).unwrap();
            sums.add(group, &packed).unwrap();
        }
        assert!(sums.check(&[0; 4]).is_err());
        assert!(sums.add(second, &[0; 4]).is_err());
        assert_eq!(sums.take(first).lanes, [11]);
        assert_eq!(sums.take(second).lanes, [7]);
        assert!(sums.take(second).lanes.is_empty());
    }

    #[test]
    fn each_update_counts_once() {
        let mut sum = RunningSum::new(LaneBits::B24, 1);
        for count in 1..4 {
            sum.add(&pack::pack(LaneBits::B24, &[1])).unwrap();
            assert_eq!(sum.added(), count);
        }
    }

    #[test]
    fn what_check_refuses_is_not_added() {
        let mut sum = RunningSum::new(LaneBits::B20, 1);
        let good = pack::pack(LaneBits::B20, &[5]);
        let mut padded = good.clone();
        padded[2] |= 0x80;
        for bad in [&padded[..], &good[1..]] {
            assert!(sum.check(bad).is_err());
            assert!(sum.add(bad).is_err());
        }
        sum.check(&good).unwrap();
        sum.add(&good).unwrap();
        assert_eq!(sum.added(), 1);
        assert_eq!(sum.lanes, [5]);
    }

    #[test]
    fn chunks_of_a_long_vector_meet() {
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            let lanes: Vec<u32> = (0..2 * CHUNK as u32 + 17)
                .map(|k| k.wrapping_mul(0x9e37_79b9) & bits.mask())
                .collect();
            let mut sum = RunningSum::new(bits, lanes.len());
            for _ in 0..2 {
                sum.add(&pack::pack(bits, &lanes)).unwrap();
            }
            for (sum, lane) in sum.lanes.iter().zip(&lanes) {
                assert_eq!(*sum, lane.wrapping_mul(2) & bits.mask());
            }
        }
    }
}
