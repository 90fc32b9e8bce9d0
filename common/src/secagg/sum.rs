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
