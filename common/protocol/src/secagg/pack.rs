//! Ring lanes as bytes: b bits a lane, least significant bit first, the last byte padded
//! with zeros.

use crate::fixed::LaneBits;

/// Bytes that `lanes` lanes take.
pub fn packed_len(bits: LaneBits, lanes: usize) -> usize {
    match bits {
        LaneBits::B20 => (lanes * 5).div_ceil(2),
        LaneBits::B24 => lanes * 3,
        LaneBits::B32 => lanes * 4,
    }
}

/// Packs lanes, of each the b low bits.
pub fn pack(bits: LaneBits, lanes: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; packed_len(bits, lanes.len())];
    pack_into(bits, lanes, &mut bytes);
    bytes
}

/// Packs lanes, of each the b low bits, into [`packed_len`] bytes.
pub(crate) fn pack_into(bits: LaneBits, lanes: &[u32], bytes: &mut [u8]) {
    let mask = u64::from(bits.mask());
    let word = |lane: &u32| u64::from(*lane) & mask;
    match bits {
        LaneBits::B20 => {
            for (pair, bytes) in lanes.chunks(2).zip(bytes.chunks_mut(5)) {
                let high = pair.get(1).map_or(0, word);
                let both = (word(&pair[0]) | high << 20).to_le_bytes();
                bytes.copy_from_slice(&both[..bytes.len()]);
            }
        }
        LaneBits::B24 => {
            // Eight lanes are three words.
            let (eights, rest) = lanes.as_chunks::<8>();
            let (whole, tail) = bytes.split_at_mut(eights.len() * 24);
            for (lanes, bytes) in eights.iter().zip(whole.as_chunks_mut::<24>().0) {
                let [a, b, c, d, e, f, g, h] = lanes.each_ref().map(word);
                bytes[..8].copy_from_slice(&(a | b << 24 | c << 48).to_le_bytes());
                bytes[8..16].copy_from_slice(&(c >> 16 | d << 8 | e << 32 | f << 56).to_le_bytes());
                bytes[16..].copy_from_slice(&(f >> 8 | g << 16 | h << 40).to_le_bytes());
            }
            for (lane, bytes) in rest.iter().zip(tail.chunks_exact_mut(3)) {
                bytes.copy_from_slice(&lane.to_le_bytes()[..3]);
            }
        }
        LaneBits::B32 => {
            for (lane, bytes) in lanes.iter().zip(bytes.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&lane.to_le_bytes());
            }
        }
    }
}

/// Calls `each(index, lane)` for the lanes of a packed vector, in order.
///
/// # Errors
/// [`PackError`] where the length is not that of `lanes` lanes, or padding bits are set: two
/// byte strings must not encode one vector.
pub fn unpack(
    bits: LaneBits,
    bytes: &[u8],
    lanes: usize,
    mut each: impl FnMut(usize, u32),
) -> Result<(), PackError> {
    let expected = packed_len(bits, lanes);
    if bytes.len() != expected {
        return Err(PackError::Length {
            got: bytes.len(),
            expected,
        });
    }
    match bits {
        LaneBits::B20 => {
            if lanes % 2 == 1 && bytes[expected - 1] >> 4 != 0 {
                return Err(PackError::Padding);
            }
            for (pair, chunk) in bytes.chunks(5).enumerate() {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let word = u64::from_le_bytes(word);
                each(2 * pair, (word & 0xf_ffff) as u32);
                if chunk.len() == 5 {
                    each(2 * pair + 1, (word >> 20) as u32);
                }
            }
        }
        LaneBits::B24 => {
            for (index, chunk) in bytes.chunks_exact(3).enumerate() {
                each(index, u32::from_le_bytes([chunk[0], chunk[1], chunk[2], 0]));
            }
        }
        LaneBits::B32 => {
            for (index, chunk) in bytes.chunks_exact(4).enumerate() {
                each(
                    index,
                    u32::from_le_bytes(chunk.try_into().expect("chunks of four")),
                );
            }
        }
    }
    Ok(())
}

/// Why bytes are not a packed vector of the round's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A length that differs from that of the round's layout.
    #[error("a masked vector of {got} bytes, where the round's layout takes {expected}")]
    Length {
        /// Bytes of the vector.
        got: usize,
        /// Bytes the layout takes.
        expected: usize,
    },
    /// Padding bits after the last lane that are not zero.
    #[error("padding bits after the masked vector's last lane are not zero")]
    Padding,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [LaneBits; 3] = [LaneBits::B20, LaneBits::B24, LaneBits::B32];

    proptest! {
        #[test]
        fn unpack_undoes_pack(words in prop::collection::vec(any::<u32>(), 0..99)) {
            for bits in ALL {
                let lanes: Vec<u32> = words.iter().map(|word| word & bits.mask()).collect();
                let bytes = pack(bits, &lanes);
                prop_assert_eq!(bytes.len(), packed_len(bits, lanes.len()));
                let mut back = vec![0; lanes.len()];
                unpack(bits, &bytes, lanes.len(), |index, lane| back[index] = lane).unwrap();
                prop_assert_eq!(back, lanes);
            }
        }

        #[test]
        fn any_bytes_unpack_canonically_or_not_at_all(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            lanes in 0usize..32,
        ) {
            for bits in ALL {
                let mut out = vec![0; lanes];
                if unpack(bits, &bytes, lanes, |index, lane| out[index] = lane).is_ok() {
                    prop_assert_eq!(pack(bits, &out), bytes.clone());
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_and_padding_are_refused() {
        for bits in ALL {
            let bytes = pack(bits, &[1, 2, 3]);
            assert!(unpack(bits, &bytes[1..], 3, |_, _| ()).is_err());
            assert!(unpack(bits, &bytes, 5, |_, _| ()).is_err());
        }
        let mut odd = pack(LaneBits::B20, &[1]);
        odd[2] |= 0x10;
        assert_eq!(
            unpack(LaneBits::B20, &odd, 1, |_, _| ()),
            Err(PackError::Padding)
        );
    }
}
