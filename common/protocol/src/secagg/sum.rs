//! The running sum of masked updates: one vector, however many members.

use crate::fixed::{LaneBits, RingSum};

use super::pack::{self, PackError};
use super::recovery::Unmasking;

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
        let mask = self.bits.mask();
        let lanes = &mut self.lanes;
        pack::unpack(self.bits, packed, lanes.len(), |index, lane| {
            lanes[index] = lanes[index].wrapping_add(lane) & mask;
        })?;
        self.added += 1;
        Ok(())
    }

    /// Checks that [`RunningSum::add`] would take these bytes, so that a malformed update
    /// is its sender's loss and not the round's.
    ///
    /// # Errors
    /// [`PackError`], as [`RunningSum::add`].
    pub fn check(&self, packed: &[u8]) -> Result<(), PackError> {
        pack::unpack(self.bits, packed, self.lanes.len(), |_, _| ())
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
}
