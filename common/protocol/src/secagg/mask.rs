//! The masker: made for one round, consumed by masking one update.

use std::fmt;

use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;
use crate::fixed::EncodedUpdate;
use crate::ids::MemberIndex;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use super::pack;

/// Which way a pair's mask goes into this member's vector: plus at the lower place, minus
/// at the higher, so that the two cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

impl Sign {
    pub(crate) fn at(me: MemberIndex, peer: MemberIndex) -> Self {
        if me < peer { Self::Plus } else { Self::Minus }
    }

    pub(crate) fn opposite(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }
}

/// Lanes that one thread works on at a time.
const RANGE: usize = 1 << 16;

/// Lanes that all masks are applied to in turn, while they stay in the first-level cache.
const CHUNK: usize = 1 << 12;

/// The masks that one vector gets, all of them applied to a part of it before the next part.
pub(crate) struct Masks(Vec<(Sign, Prg)>);

impl Masks {
    pub(crate) fn new<'a>(seeds: impl IntoIterator<Item = (Sign, &'a Seed)>) -> Self {
        let grow = |(sign, seed)| (sign, Prg::new(seed));
        Self(seeds.into_iter().map(grow).collect())
    }

    /// Applies all masks to all lanes, modulo 2^32, on several threads. Then calls
    /// `done(range, lanes)` for every range of [`RANGE`] lanes.
    pub(crate) fn apply<T: Send>(
        &self,
        lanes: &mut [u32],
        ranges: impl IndexedParallelIterator<Item = T>,
        done: impl Fn(&mut [u32], T) + Sync,
    ) {
        lanes
            .par_chunks_mut(RANGE)
            .zip(ranges)
            .enumerate()
            .for_each(|(place, (lanes, range))| {
                self.apply_from(place * RANGE, lanes);
                done(lanes, range);
            });
    }

    /// Applies all masks to lanes of which the first is at `first` in the vector.
    fn apply_from(&self, first: usize, lanes: &mut [u32]) {
        for (place, chunk) in lanes.chunks_mut(CHUNK).enumerate() {
            let first = first + place * CHUNK;
            for (sign, prg) in &self.0 {
                match sign {
                    Sign::Plus => prg.for_each(first, chunk, |lane, word| {
                        *lane = lane.wrapping_add(word);
                    }),
                    Sign::Minus => prg.for_each(first, chunk, |lane, word| {
                        *lane = lane.wrapping_sub(word);
                    }),
                }
            }
        }
    }
}

/// One member's masks for one round.
pub struct Masker {
    own: Seed,
    pairs: Vec<(Sign, Seed)>,
}

impl Masker {
    /// A masker of the member at `me`, with its self-mask seed, and the seed that it has in common
    /// with every neighbour whose masks are in play.
    pub fn new(
        me: MemberIndex,
        own: Seed,
        pairs: impl IntoIterator<Item = (MemberIndex, Seed)>,
    ) -> Self {
        let pairs = pairs
            .into_iter()
            .map(|(peer, seed)| (Sign::at(me, peer), seed))
            .collect();
        Self { own, pairs }
    }

    /// Masks the one update of this round. The masker is consumed: a second vector under
    /// the same masks would reveal the difference.
    pub fn mask(self, update: EncodedUpdate) -> MaskedUpdate {
        let bits = update.bits();
        let mut lanes = update.into_lanes();
        let own = (Sign::Plus, &self.own);
        let pairs = self.pairs.iter().map(|(sign, seed)| (*sign, seed));
        let masks = Masks::new(pairs.chain([own]));
        let mut packed = vec![0; pack::packed_len(bits, lanes.len())];
        let parts = packed.par_chunks_mut(pack::packed_len(bits, RANGE));
        masks.apply(&mut lanes, parts, |lanes, bytes| {
            pack::pack_into(bits, lanes, bytes);
        });
        MaskedUpdate { packed }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masker({} pairs)", self.pairs.len())
    }
}

/// A masked update as it travels: uniformly random to whoever lacks the masks.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskedUpdate {
    packed: Vec<u8>,
}

impl MaskedUpdate {
    /// The packed lanes, as [`pack`] lays them out.
    pub fn as_bytes(&self) -> &[u8] {
        &self.packed
    }

    /// The packed lanes, handed over.
    pub fn into_bytes(self) -> Vec<u8> {
        self.packed
    }
}

impl fmt::Debug for MaskedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaskedUpdate({} bytes)", self.packed.len())
    }
}
