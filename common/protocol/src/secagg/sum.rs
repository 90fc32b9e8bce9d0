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

    /// Adds one packed masked update that comes in pieces, so that it need not be in memory as a whole.
    pub fn adding(&mut self) -> Adding<'_> {
        Adding {
            left: pack::packed_len(self.bits, self.lanes.len()),
            at: 0,
            got: 0,
            sum: self,
        }
    }

    /// Checks that [`RunningSum::add`] would take these bytes, so that a malformed update
    /// is its sender's loss and not the round's.
    ///
    /// # Errors
    /// [`PackError`], as [`RunningSum::add`].
    pub fn check(&self, packed: &[u8]) -> Result<(), PackError> {
        pack::check(self.bits, packed, self.lanes.len())
    }

    fn check_ends(&self, bytes: u64, last: u8) -> Result<(), PackError> {
        pack::check_ends(self.bits, bytes, last, self.lanes.len())
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

/// Bytes of a piece of a packed update, for each bit of a lane: whole lanes, as many as threads share.
const PIECE_BYTES_A_BIT: usize = 64 * CHUNK / 8;

/// A packed masked update that is being added, piece by piece. Where it is not finished, or is not what
/// was expected, the sum is none any more: the round has failed.
#[derive(Debug)]
#[must_use = "an update is added once it is finished"]
pub struct Adding<'a> {
    sum: &'a mut RunningSum,
    /// Lanes that were added to.
    at: usize,
    /// Bytes that came, and those that are to come.
    got: usize,
    left: usize,
}

impl Adding<'_> {
    /// The bytes of the next piece; nothing once all have come.
    pub fn next_piece(&self) -> Option<usize> {
        let piece = PIECE_BYTES_A_BIT * self.sum.bits.bits() as usize;
        Some(piece.min(self.left)).filter(|bytes| *bytes > 0)
    }

    /// Adds the next piece.
    ///
    /// # Errors
    /// [`PackError`] where it has another length than [`next_piece`](Self::next_piece), or is the last
    /// one and padded with something.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), PackError> {
        let (bits, lanes) = (self.sum.bits, self.sum.lanes.len());
        let got = self.got + piece.len();
        if Some(piece.len()) != self.next_piece() {
            let expected = pack::packed_len(bits, lanes);
            return Err(PackError::Length { got, expected });
        }
        let end = match self.left == piece.len() {
            true => lanes,
            false => self.at + 64 * CHUNK,
        };
        let part = &mut self.sum.lanes[self.at..end];
        pack::check(bits, piece, part.len())?;
        let bytes = piece.par_chunks(pack::packed_len(bits, CHUNK));
        part.par_chunks_mut(CHUNK)
            .zip(bytes)
            .for_each(|(lanes, bytes)| pack::add_into(bits, bytes, lanes));
        (self.at, self.got, self.left) = (end, got, self.left - piece.len());
        Ok(())
    }

    /// The update counts.
    ///
    /// # Errors
    /// [`PackError::Length`] where some of it has not come.
    pub fn finish(self) -> Result<(), PackError> {
        match self.left {
            0 => {
                self.sum.added += 1;
                Ok(())
            }
            left => Err(PackError::Length {
                got: self.got,
                expected: self.got + left,
            }),
        }
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

    /// Adds one packed masked update that comes in pieces to a group's sum.
    ///
    /// # Panics
    /// For a group that there is not.
    pub fn adding(&mut self, group: GroupIndex) -> Adding<'_> {
        self.0[usize::from(group.0)].adding()
    }

    /// Checks that an update with this many bytes, the last of which is `last`, would be taken.
    ///
    /// # Errors
    /// As [`RunningSum::add`].
    pub fn check_ends(&self, bytes: u64, last: u8) -> Result<(), PackError> {
        self.0[0].check_ends(bytes, last)
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
    fn an_update_in_pieces_is_added_as_a_whole_one() {
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            for length in [1, 64 * CHUNK, 64 * CHUNK + 17] {
                let lanes: Vec<u32> = (0..length as u32)
                    .map(|k| k.wrapping_mul(0x9e37_79b9) & bits.mask())
                    .collect();
                let packed = pack::pack(bits, &lanes);
                let (mut whole, mut parts) =
                    (RunningSum::new(bits, length), RunningSum::new(bits, length));
                whole.add(&packed).unwrap();
                let mut adding = parts.adding();
                let mut rest = &packed[..];
                while let Some(bytes) = adding.next_piece() {
                    let (piece, after) = rest.split_at(bytes);
                    adding.push(piece).unwrap();
                    rest = after;
                }
                assert!(rest.is_empty() && adding.push(&[]).is_err());
                adding.finish().unwrap();
                assert_eq!(whole, parts);
                let last = packed[packed.len() - 1];
                parts.check_ends(packed.len() as u64, last).unwrap();
                assert!(parts.check_ends(packed.len() as u64 + 1, last).is_err());
            }
        }
    }

    #[test]
    fn pieces_that_are_too_few_too_long_or_padded_are_refused() {
        let mut sum = RunningSum::new(LaneBits::B20, 3);
        assert!(sum.adding().finish().is_err());
        assert!(sum.adding().push(&[0; 7]).is_err());
        assert!(sum.adding().push(&[0; 9]).is_err());
        let mut padded = pack::pack(LaneBits::B20, &[1, 2, 3]);
        padded[7] |= 0x80;
        assert_eq!(sum.adding().push(&padded), Err(PackError::Padding));
        assert_eq!(sum.check_ends(8, padded[7]), Err(PackError::Padding));
        assert_eq!((sum.added(), &sum.lanes[..]), (0, &[0; 3][..]));
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
