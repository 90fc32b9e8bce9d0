//! Ring lanes as bytes: b bits a lane, least significant bit first, the last byte padded
//! with zeros.

use pulp::{Arch, Simd, with_simd};

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
#[with_simd(pack_into = Arch::new())]
#[inline(always)]
pub(crate) fn pack_into_with_simd<'a, S: Simd>(
    _simd: S,
    bits: LaneBits,
    lanes: &'a [u32],
    bytes: &'a mut [u8],
) {
    match bits {
        LaneBits::B20 => pack_groups(lanes, bytes, pack_20, bits),
        LaneBits::B24 => pack_groups(lanes, bytes, pack_24, bits),
        LaneBits::B32 => pack_groups(lanes, bytes, pack_32, bits),
    }
}

/// Lanes that are packed together: whole 64-bit words of each width.
const GROUP: usize = 16;

/// Packs group by group, and what is left as the start of a group.
#[inline(always)]
fn pack_groups<const W: usize>(
    lanes: &[u32],
    bytes: &mut [u8],
    pack: impl Fn(&[u32; GROUP]) -> [u64; W],
    bits: LaneBits,
) {
    let (groups, rest) = lanes.as_chunks::<GROUP>();
    let (whole, tail) = bytes.split_at_mut(packed_len(bits, groups.len() * GROUP));
    let (words, _) = whole.as_chunks_mut::<8>();
    for (lanes, words) in groups.iter().zip(words.as_chunks_mut::<W>().0) {
        for (bytes, word) in words.iter_mut().zip(pack(lanes)) {
            *bytes = word.to_le_bytes();
        }
    }
    if !rest.is_empty() {
        let mut group = [0; GROUP];
        group[..rest.len()].copy_from_slice(rest);
        let words = pack(&group).map(u64::to_le_bytes);
        tail.copy_from_slice(&words.as_flattened()[..tail.len()]);
    }
}

#[inline(always)]
fn pack_20(lanes: &[u32; GROUP]) -> [u64; 5] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = low_bits(lanes, 20);
    [
        a | b << 20 | c << 40 | d << 60,
        d >> 4 | e << 16 | f << 36 | g << 56,
        g >> 8 | h << 12 | i << 32 | j << 52,
        j >> 12 | k << 8 | l << 28 | m << 48,
        m >> 16 | n << 4 | o << 24 | p << 44,
    ]
}

#[inline(always)]
fn pack_24(lanes: &[u32; GROUP]) -> [u64; 6] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = low_bits(lanes, 24);
    [
        a | b << 24 | c << 48,
        c >> 16 | d << 8 | e << 32 | f << 56,
        f >> 8 | g << 16 | h << 40,
        i | j << 24 | k << 48,
        k >> 16 | l << 8 | m << 32 | n << 56,
        n >> 8 | o << 16 | p << 40,
    ]
}

#[inline(always)]
fn pack_32(lanes: &[u32; GROUP]) -> [u64; 8] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = low_bits(lanes, 32);
    [
        a | b << 32,
        c | d << 32,
        e | f << 32,
        g | h << 32,
        i | j << 32,
        k | l << 32,
        m | n << 32,
        o | p << 32,
    ]
}

#[inline(always)]
fn low_bits(lanes: &[u32; GROUP], bits: u32) -> [u64; GROUP] {
    let mut wide = [0; GROUP];
    for (wide, lane) in wide.iter_mut().zip(lanes) {
        *wide = u64::from(*lane & u32::MAX >> (32 - bits));
    }
    wide
}

/// Checks that [`unpack`] would take these bytes.
///
/// # Errors
/// [`PackError`], as [`unpack`].
pub(crate) fn check(bits: LaneBits, bytes: &[u8], lanes: usize) -> Result<(), PackError> {
    let last = bytes.last().copied().unwrap_or_default();
    check_ends(bits, bytes.len() as u64, last, lanes)
}

/// The same of bytes of which the number and the last one are known.
pub(crate) fn check_ends(
    bits: LaneBits,
    bytes: u64,
    last: u8,
    lanes: usize,
) -> Result<(), PackError> {
    let expected = packed_len(bits, lanes);
    if bytes != expected as u64 {
        return Err(PackError::Length {
            got: usize::try_from(bytes).unwrap_or(usize::MAX),
            expected,
        });
    }
    // Only an odd number of 20-bit lanes leaves bits over.
    if bits == LaneBits::B20 && lanes % 2 == 1 && last >> 4 != 0 {
        return Err(PackError::Padding);
    }
    Ok(())
}

/// Adds packed lanes to `lanes`, modulo 2^b. The bytes are [`packed_len`], and checked.
#[with_simd(add_into = Arch::new())]
#[inline(always)]
pub(crate) fn add_into_with_simd<'a, S: Simd>(
    _simd: S,
    bits: LaneBits,
    bytes: &'a [u8],
    lanes: &'a mut [u32],
) {
    match bits {
        LaneBits::B20 => add_groups(bytes, lanes, unpack_20, bits),
        LaneBits::B24 => add_groups(bytes, lanes, unpack_24, bits),
        LaneBits::B32 => add_groups(bytes, lanes, unpack_32, bits),
    }
}

#[inline(always)]
fn add_groups<const W: usize>(
    bytes: &[u8],
    lanes: &mut [u32],
    unpack: impl Fn([u64; W]) -> [u64; GROUP],
    bits: LaneBits,
) {
    let mask = bits.mask();
    let (groups, rest) = lanes.as_chunks_mut::<GROUP>();
    let (whole, tail) = bytes.split_at(packed_len(bits, groups.len() * GROUP));
    let (words, _) = whole.as_chunks::<8>();
    for (lanes, words) in groups.iter_mut().zip(words.as_chunks::<W>().0) {
        let added = unpack(words.map(u64::from_le_bytes));
        for (lane, added) in lanes.iter_mut().zip(added) {
            *lane = lane.wrapping_add(added as u32) & mask;
        }
    }
    let mut words = [[0; 8]; W];
    words.as_flattened_mut()[..tail.len()].copy_from_slice(tail);
    for (lane, added) in rest.iter_mut().zip(unpack(words.map(u64::from_le_bytes))) {
        *lane = lane.wrapping_add(added as u32) & mask;
    }
}

/// Gives lanes with bits above the lane's, as all of these do: who takes them masks them.
#[inline(always)]
fn unpack_20([a, b, c, d, e]: [u64; 5]) -> [u64; GROUP] {
    [
        a,
        a >> 20,
        a >> 40,
        a >> 60 | b << 4,
        b >> 16,
        b >> 36,
        b >> 56 | c << 8,
        c >> 12,
        c >> 32,
        c >> 52 | d << 12,
        d >> 8,
        d >> 28,
        d >> 48 | e << 16,
        e >> 4,
        e >> 24,
        e >> 44,
    ]
}

#[inline(always)]
fn unpack_24([a, b, c, d, e, f]: [u64; 6]) -> [u64; GROUP] {
    [
        a,
        a >> 24,
        a >> 48 | b << 16,
        b >> 8,
        b >> 32,
        b >> 56 | c << 8,
        c >> 16,
        c >> 40,
        d,
        d >> 24,
        d >> 48 | e << 16,
        e >> 8,
        e >> 32,
        e >> 56 | f << 8,
        f >> 16,
        f >> 40,
    ]
}

#[inline(always)]
fn unpack_32([a, b, c, d, e, f, g, h]: [u64; 8]) -> [u64; GROUP] {
    [
        a,
        a >> 32,
        b,
        b >> 32,
        c,
        c >> 32,
        d,
        d >> 32,
        e,
        e >> 32,
        f,
        f >> 32,
        g,
        g >> 32,
        h,
        h >> 32,
    ]
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
    check(bits, bytes, lanes)?;
    match bits {
        LaneBits::B20 => {
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
                prop_assert_eq!(&back, &lanes);
                // What is packed does not depend on the bits above a lane's.
                prop_assert_eq!(pack(bits, &words), bytes);
            }
        }

        #[test]
        fn adding_is_unpacking_and_adding(
            pairs in prop::collection::vec(any::<(u32, u32)>(), 0..99)
        ) {
            for bits in ALL {
                let wrap = |lane: u32| lane & bits.mask();
                let (mut lanes, added): (Vec<u32>, Vec<u32>) =
                    pairs.iter().map(|(a, b)| (wrap(*a), wrap(*b))).unzip();
                let sum = |(a, b): (&u32, &u32)| wrap(a.wrapping_add(*b));
                let sums: Vec<u32> = lanes.iter().zip(&added).map(sum).collect();
                add_into(bits, &pack(bits, &added), &mut lanes);
                prop_assert_eq!(lanes, sums);
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
