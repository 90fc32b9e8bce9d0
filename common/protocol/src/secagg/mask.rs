//! The masker: made for one round, consumed by masking one update.

use std::fmt;

use crate::crypto::keys::{AgreementError, AgreementPublic, AgreementSecret, Seed};
use crate::crypto::prg::Prg;
use crate::fixed::{EncodedUpdate, LaneBits};
use crate::ids::MemberIndex;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};

use fedlora_common::digest::{Digest, DigestWriter};

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

/// Derives the seed of the mask that members `a` and `b` have in common. Both compute the
/// same from their own secret and the other's public key; `transcript` holds the global
/// adapter's digest, so members that were shown different models get masks that do not
/// cancel.
///
/// # Errors
/// [`AgreementError`] where the peer's key is of small order.
pub(crate) fn pair_seed(
    secret: &AgreementSecret,
    theirs: &AgreementPublic,
    pair: (MemberIndex, MemberIndex),
    transcript: &Digest,
) -> Result<Seed, AgreementError> {
    let (low, high) = (pair.0.min(pair.1), pair.0.max(pair.1));
    let binding = DigestWriter::new("fedlora 1 pair mask binding")
        .digest(transcript)
        .number(low.0.into())
        .number(high.0.into())
        .finish();
    secret.agree(theirs, "fedlora 1 pair mask seed", &binding)
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
    /// A masker of the member at `me`, with its self-mask seed, its mask secret, and every
    /// peer that shared its secrets in this round.
    ///
    /// # Errors
    /// [`WeakPeer`] where a peer's key is of small order.
    pub fn new(
        me: MemberIndex,
        own: Seed,
        secret: &AgreementSecret,
        peers: impl IntoIterator<Item = (MemberIndex, AgreementPublic)>,
        transcript: &Digest,
    ) -> Result<Self, WeakPeer> {
        let pairs = peers
            .into_iter()
            .map(|(peer, key)| {
                pair_seed(secret, &key, (me, peer), transcript)
                    .map(|seed| (Sign::at(me, peer), seed))
                    .map_err(|source| WeakPeer { peer, source })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { own, pairs })
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

/// A peer whose key is of small order or not in canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("member {peer}: {source}")]
pub struct WeakPeer {
    /// The peer whose key it is.
    pub peer: MemberIndex,
    /// Why no secret can be agreed with it.
    pub source: AgreementError,
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
        let transcript = Digest::of("test", b"transcript");
        let secret = AgreementSecret::from_bytes([5; 32]);
        let own = Seed::from_bytes([9; 32]);
        let peers = [MemberIndex(0), MemberIndex(2)].map(|peer| {
            (
                peer,
                AgreementSecret::from_bytes([peer.0 as u8 + 1; 32]).public(),
            )
        });
        let me = MemberIndex(1);
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            for len in [0, 5, CHUNK, 2 * CHUNK + 7] {
                let plain: Vec<u32> = (0..len as u32).map(|k| k & bits.mask()).collect();
                let masker = Masker::new(me, own.clone(), &secret, peers, &transcript).unwrap();
                let masked = masker.mask(EncodedUpdate::forge(bits, plain.clone()));

                let mut expected = plain;
                Prg::new(&own).add(0, &mut expected);
                for (peer, key) in peers {
                    let pair =
                        Prg::new(&pair_seed(&secret, &key, (me, peer), &transcript).unwrap());
                    if me < peer {
                        pair.add(0, &mut expected);
                    } else {
                        pair.subtract(0, &mut expected);
                    }
                }
                assert_eq!(masked.as_bytes(), pack::pack(bits, &expected));
            }
        }
    }
}
