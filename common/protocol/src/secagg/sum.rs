//! The running sum of masked updates: one vector, however many members.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::fixed::{LaneBits, RingSum};

use super::pack::{self, PackError};
use super::recovery::Unmasking;

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

#[cfg(test)]
mod tests {
    use super::*;

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
