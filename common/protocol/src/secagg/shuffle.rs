//! The members in an order that nobody chooses: drawn from a beacon.
//!
//! A stream of bytes decides: BLAKE3 in key-derivation mode with a context string over the beacon's
//! 32 bytes, its extendable output from the start. A Fisher-Yates shuffle reads it:
//!
//! 1. Place p holds member p.
//! 2. For i from members - 1 down to 1: draw j from 0 to i, and swap places i and j.
//!
//! To draw j: take the stream's next two bytes as a little-endian integer, and of it the low
//! bits, as many as i has in binary. A value above i is thrown away, and the next two bytes are
//! taken. Every j is so equally likely.

use fedlora_common::digest::Digest;

use super::graph::MAX_MEMBERS;
use crate::ids::MemberIndex;

/// The member at each place, of the first `members` indices: at most [`MAX_MEMBERS`].
pub(super) fn shuffle(members: usize, context: &str, beacon: &Digest) -> Vec<MemberIndex> {
    let mut draws = Draws::new(context, beacon);
    let mut order: Vec<_> = indices(members).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, draws.up_to(last));
    }
    order
}

/// The first `members` indices, at most [`MAX_MEMBERS`].
pub(super) fn indices(members: usize) -> impl Iterator<Item = MemberIndex> {
    debug_assert!(members <= MAX_MEMBERS, "an index has 16 bits");
    (0..=u16::MAX).map(MemberIndex).take(members)
}

/// Unbiased draws from the beacon's stream.
struct Draws(blake3::OutputReader);

impl Draws {
    fn new(context: &str, beacon: &Digest) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(beacon.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// A place from 0 to `last`, which is 1 to 65,535.
    fn up_to(&mut self, last: usize) -> usize {
        let mask = usize::MAX >> last.leading_zeros();
        loop {
            let mut word = [0; 2];
            self.0.fill(&mut word);
            let drawn = usize::from(u16::from_le_bytes(word)) & mask;
            if drawn <= last {
                return drawn;
            }
        }
    }
}
