//! The masker: made for one round, consumed by masking one update.

use std::fmt;

use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;
use crate::fixed::{EncodedUpdate, LaneBits};
use crate::ids::MemberIndex;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

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

/// Lanes that all masks are applied to in turn: 16 KiB, which stay in the first-level cache.
pub(super) const CHUNK: usize = 1 << 12;

/// The masks that one vector gets, all of them applied to a part of it before the next part.
pub(crate) struct Masks(Vec<(Sign, Prg)>);

impl Masks {
    pub(crate) fn new<'a>(seeds: impl IntoIterator<Item = (Sign, &'a Seed)>) -> Self {
        let grow = |(sign, seed)| (sign, Prg::new(seed));
        Self(seeds.into_iter().map(grow).collect())
    }

    /// Applies all masks, modulo 2^32, to the chunk at `place` of a vector: [`CHUNK`] lanes, or
    /// fewer at its end.
    pub(super) fn apply(&self, place: usize, chunk: &mut [u32]) {
        for (sign, prg) in &self.0 {
            match sign {
                Sign::Plus => prg.add(place * CHUNK, chunk),
                Sign::Minus => prg.subtract(place * CHUNK, chunk),
            }
        }
    }

    /// Applies all masks to all lanes, and packs them: `BYTES` bytes a chunk.
    fn apply_and_pack<const BYTES: usize>(&self, bits: LaneBits, lanes: &mut [u32]) -> Vec<u8> {
        let len = pack::packed_len(bits, lanes.len());
        let (chunks, rest) = lanes.as_chunks_mut::<CHUNK>();
        let place = chunks.len();
        // Chunks that threads write to where they stay: to zero the bytes first, and on one
        // thread, takes longer.
        let mut packed: Vec<[u8; BYTES]> = Vec::with_capacity(place + 1);
        chunks
            .par_iter_mut()
            .enumerate()
            .map(|(place, chunk)| {
                self.apply(place, chunk);
                let mut bytes = [0; BYTES];
                pack::pack_into(bits, chunk, &mut bytes);
                bytes
            })
            .collect_into_vec(&mut packed);
        let mut packed = packed.into_flattened();
        self.apply(place, rest);
        let whole = packed.len();
        packed.resize(len, 0);
        pack::pack_into(bits, rest, &mut packed[whole..]);
        packed
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
        let packed = match bits {
            LaneBits::B20 => masks.apply_and_pack::<{ CHUNK / 2 * 5 }>(bits, &mut lanes),
            LaneBits::B24 => masks.apply_and_pack::<{ CHUNK * 3 }>(bits, &mut lanes),
            LaneBits::B32 => masks.apply_and_pack::<{ CHUNK * 4 }>(bits, &mut lanes),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunk by chunk against each mask over the whole vector, at every width.
    #[test]
    fn masks_of_a_long_vector_do_not_depend_on_its_chunks() {
        let own = Seed::from_bytes([9; 32]);
        let peers = [0, 2].map(|peer| (MemberIndex(peer), Seed::from_bytes([peer as u8 + 1; 32])));
        let me = MemberIndex(1);
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            for len in [0, 5, CHUNK, 2 * CHUNK + 7] {
                let plain: Vec<u32> = (0..len as u32).map(|k| k & bits.mask()).collect();
                let masker = Masker::new(me, own.clone(), peers.clone());
                let masked = masker.mask(EncodedUpdate::forge(bits, plain.clone()));

                let mut expected = plain;
                Prg::new(&own).add(0, &mut expected);
                for (peer, seed) in &peers {
                    let pair = Prg::new(seed);
                    if me < *peer {
                        pair.add(0, &mut expected);
                    } else {
                        pair.subtract(0, &mut expected);
                    }
                }
                assert_eq!(masked.as_bytes(), pack::pack(bits, &expected));
                assert_eq!(masked.clone().into_bytes(), masked.as_bytes());
            }
        }
    }

    #[test]
    fn debug_shows_how_much_there_is_and_no_seed() {
        let seed = Seed::from_bytes([7; 32]);
        let masker = Masker::new(MemberIndex(0), seed.clone(), [(MemberIndex(1), seed)]);
        assert_eq!(format!("{masker:?}"), "Masker(1 pairs)");
        let masked = masker.mask(EncodedUpdate::forge(LaneBits::B24, vec![0; 5]));
        assert_eq!(format!("{masked:?}"), "MaskedUpdate(15 bytes)");
    }
}
