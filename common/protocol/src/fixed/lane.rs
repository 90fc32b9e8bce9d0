//! Lanes: the ring's integers, modulo 2^b.

use serde::{Deserialize, Serialize};

use fedlora_common::digest::{Digest, DigestWriter};

use super::FixedError;

/// Bits a lane: the ring is the integers modulo 2^b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum LaneBits {
    /// 20 bits: 2.5 bytes a coordinate, for large adapters over thin links.
    B20,
    /// 24 bits: 3 bytes a coordinate.
    #[default]
    B24,
    /// 32 bits: 4 bytes a coordinate, for very large federations.
    B32,
}

impl LaneBits {
    /// The number of bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::B20 => 20,
            Self::B24 => 24,
            Self::B32 => 32,
        }
    }

    /// The bit mask 2^b - 1.
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// The largest lane of a sum: 2^(b-1) - 1.
    pub const fn max(self) -> i64 {
        (1 << (self.bits() - 1)) - 1
    }

    /// The signed integer of least magnitude that is `lane` modulo 2^b.
    pub const fn lift(self, lane: u32) -> i64 {
        let shift = 32 - self.bits();
        (((lane << shift) as i32) >> shift) as i64
    }

    /// `value` modulo 2^b.
    pub const fn wrap(self, value: i64) -> u32 {
        value as u32 & self.mask()
    }
}

impl TryFrom<u8> for LaneBits {
    type Error = FixedError;

    fn try_from(bits: u8) -> Result<Self, FixedError> {
        match bits {
            20 => Ok(Self::B20),
            24 => Ok(Self::B24),
            32 => Ok(Self::B32),
            got => Err(FixedError::Bits { got }),
        }
    }
}

impl From<LaneBits> for u8 {
    fn from(bits: LaneBits) -> u8 {
        bits.bits() as u8
    }
}

/// An unmasked sum of encoded updates, modulo 2^b.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingSum(pub Vec<u32>);

impl RingSum {
    /// The digest of all lanes in order, each as four little-endian bytes.
    pub fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 ring sum");
        writer.number(self.0.len() as u64);
        let mut bytes = Vec::with_capacity(1 << 16);
        for lanes in self.0.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(lanes.iter().flat_map(|lane| lane.to_le_bytes()));
            writer.raw(&bytes);
        }
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lift_undoes_wrap_at_both_ends() {
        assert!(LaneBits::try_from(16).is_err());
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            for value in [0, 1, -1, bits.max(), -bits.max()] {
                assert_eq!(bits.lift(bits.wrap(value)), value);
            }
        }
    }
}
