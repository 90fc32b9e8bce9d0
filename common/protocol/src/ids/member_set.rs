//! A set of members as a bitmap, for messages that name many of them.

use std::fmt;

use fedlora_common::digest::DigestWriter;
use serde::{Deserialize, Serialize};

use crate::ids::MemberIndex;

/// The bytes of a set with the highest index: one bit for each of 65,536 members.
const MAX_BYTES: usize = (1 << 16) / 8;

/// A set of members. Travels as a byte string: member i is bit i mod 8, the least significant
/// first, of byte i / 8, and the last byte is not zero. A set so has one encoding.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct MemberSet {
    /// Without zero bytes at the end.
    bitmap: Vec<u8>,
}

impl MemberSet {
    /// The set without a member.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `member`; whether it was not there before.
    pub fn insert(&mut self, member: MemberIndex) -> bool {
        let (byte, bit) = position(member);
        if self.bitmap.len() <= byte {
            self.bitmap.resize(byte + 1, 0);
        }
        let new = self.bitmap[byte] & bit == 0;
        self.bitmap[byte] |= bit;
        new
    }

    /// Whether `member` is in the set.
    pub fn contains(&self, member: MemberIndex) -> bool {
        let (byte, bit) = position(member);
        self.bitmap.get(byte).is_some_and(|bits| bits & bit != 0)
    }

    /// How many members the set has.
    pub fn len(&self) -> usize {
        self.bitmap
            .iter()
            .map(|bits| bits.count_ones() as usize)
            .sum()
    }

    /// Whether the set has no member.
    pub fn is_empty(&self) -> bool {
        self.bitmap.is_empty()
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = MemberIndex> {
        (0..=u16::MAX)
            .step_by(8)
            .zip(&self.bitmap)
            .flat_map(|(first, bits)| {
                (0..8)
                    .filter(move |bit| bits >> bit & 1 == 1)
                    .map(move |bit| MemberIndex(first + bit))
            })
    }

    /// The member with the highest index: what a set from elsewhere is checked by against the
    /// number of members.
    pub fn last(&self) -> Option<MemberIndex> {
        let byte = self.bitmap.len().checked_sub(1)?;
        let highest = self.bitmap[byte].ilog2() as usize;
        u16::try_from(8 * byte + highest).ok().map(MemberIndex)
    }

    /// Adds the set to a digest: its bitmap, preceded by the bitmap's length in bytes.
    pub fn write_to(&self, writer: &mut DigestWriter) {
        writer.bytes(&self.bitmap);
    }
}

fn position(member: MemberIndex) -> (usize, u8) {
    (usize::from(member.0 / 8), 1 << (member.0 % 8))
}

impl FromIterator<MemberIndex> for MemberSet {
    fn from_iter<I: IntoIterator<Item = MemberIndex>>(members: I) -> Self {
        let mut set = Self::new();
        set.extend(members);
        set
    }
}

impl Extend<MemberIndex> for MemberSet {
    fn extend<I: IntoIterator<Item = MemberIndex>>(&mut self, members: I) {
        for member in members {
            self.insert(member);
        }
    }
}

impl TryFrom<Vec<u8>> for MemberSet {
    type Error = MemberSetError;

    fn try_from(bitmap: Vec<u8>) -> Result<Self, MemberSetError> {
        if bitmap.len() > MAX_BYTES {
            return Err(MemberSetError::TooLong { got: bitmap.len() });
        }
        if bitmap.last() == Some(&0) {
            return Err(MemberSetError::TrailingZero);
        }
        Ok(Self { bitmap })
    }
}

impl From<MemberSet> for Vec<u8> {
    fn from(set: MemberSet) -> Self {
        set.bitmap
    }
}

impl fmt::Debug for MemberSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|m| m.0)).finish()
    }
}

/// Bytes that are not the encoding of a set of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberSetError {
    /// A bitmap for more members than there can be.
    #[error("a set of members takes at most {MAX_BYTES} bytes, not {got}")]
    TooLong {
        /// The length in bytes.
        got: usize,
    },
    /// A bitmap that ends with a zero byte: another encoding of a shorter one's set.
    #[error("a set of members ends with a byte that is not zero")]
    TrailingZero,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fedlora_common::digest::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::codec;

    fn set(members: &[u16]) -> MemberSet {
        members.iter().copied().map(MemberIndex).collect()
    }

    fn digest(sets: &[&MemberSet]) -> Digest {
        let mut writer = DigestWriter::new("test sets");
        sets.iter().for_each(|set| set.write_to(&mut writer));
        writer.finish()
    }

    #[test]
    fn the_encoding_is_a_byte_string_with_the_lowest_bit_first() {
        assert_eq!(codec::encode(&set(&[])).unwrap(), [0]);
        assert_eq!(codec::encode(&set(&[0, 3, 9])).unwrap(), [2, 0b1001, 0b10]);
        assert_eq!(format!("{:?}", set(&[9, 3, 0])), "{0, 3, 9}");
    }

    #[test]
    fn other_encodings_are_refused() {
        for bytes in [&[1, 0][..], &[2, 1, 0], &[3, 0, 0, 0]] {
            assert!(codec::decode::<MemberSet>(bytes).is_err());
        }
        assert_eq!(
            MemberSet::try_from(vec![1, 0]),
            Err(MemberSetError::TrailingZero)
        );
        let full = vec![255; MAX_BYTES];
        let all = MemberSet::try_from(full.clone()).unwrap();
        assert_eq!((all.len(), all.last()), (65_536, Some(MemberIndex(65_535))));
        assert_eq!(all.iter().count(), 65_536);
        assert_eq!(
            codec::decode::<MemberSet>(&codec::encode(&full).unwrap()),
            Ok(all)
        );
        let got = MAX_BYTES + 1;
        assert_eq!(
            MemberSet::try_from(vec![255; got]),
            Err(MemberSetError::TooLong { got })
        );
        let long = codec::encode(&vec![255_u8; got]).unwrap();
        assert!(codec::decode::<MemberSet>(&long).is_err());
    }

    #[test]
    fn digests_tell_sets_apart_that_follow_one_another() {
        let (one, two, both) = (set(&[0]), set(&[1]), set(&[0, 9]));
        assert_ne!(digest(&[&one, &two]), digest(&[&two, &one]));
        assert_ne!(digest(&[&one, &two]), digest(&[&both]));
        assert_ne!(digest(&[&one, &set(&[])]), digest(&[&one]));
    }

    proptest! {
        #[test]
        fn it_is_a_set(members: BTreeSet<u16>, other: u16) {
            let indices: BTreeSet<_> = members.iter().copied().map(MemberIndex).collect();
            let mut set: MemberSet = indices.iter().rev().copied().collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), Vec::from_iter(indices.clone()));
            prop_assert_eq!((set.len(), set.is_empty()), (indices.len(), indices.is_empty()));
            prop_assert_eq!(set.last(), indices.last().copied());
            prop_assert_eq!(set.contains(MemberIndex(other)), members.contains(&other));
            let bytes = codec::encode(&set).unwrap();
            prop_assert_eq!(&codec::decode::<MemberSet>(&bytes).unwrap(), &set);
            prop_assert_eq!(set.insert(MemberIndex(other)), !members.contains(&other));
            prop_assert!(set.contains(MemberIndex(other)));
        }

        #[test]
        fn any_bytes_are_one_set_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(set) = codec::decode::<MemberSet>(&bytes) {
                prop_assert_eq!(codec::encode(&set).unwrap(), bytes);
            }
        }
    }
}
