//! Shamir's secret sharing (CACM 1979) of 32-byte secrets over GF(256), in which bytes are
//! polynomials modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d).
//!
//! The polynomial arithmetic is the `sharks` crate's. What that crate leaves open is closed
//! here: a holder's coordinate is assigned by its place, never taken from the share's own
//! bytes; coordinate 0 (which would be the secret itself) does not exist; a duplicate
//! coordinate is refused; exactly the threshold's number of shares is used.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;

use rand::CryptoRng;
use sharks::{Share as RawShare, Sharks};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A holder's coordinate: 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate(NonZeroU8);

impl Coordinate {
    /// The coordinate of the holder at `place`, counted from 0.
    ///
    /// # Errors
    /// [`ShamirError::TooManyHolders`] past place 254: GF(256) has no more coordinates.
    pub fn of_place(place: usize) -> Result<Self, ShamirError> {
        u8::try_from(place + 1)
            .ok()
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(ShamirError::TooManyHolders { got: place + 1 })
    }
}

/// One holder's share of a 32-byte secret, without its coordinate. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct Share([u8; 32]);

impl Share {
    /// Wraps share bytes that came from the dealer.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The share's bytes, which are secret.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(..)")
    }
}

/// Splits `secret` among `holders` so that any `threshold` of them recover it; the share at
/// place `i` is for [`Coordinate::of_place`]`(i)`.
///
/// # Errors
/// An impossible threshold (0, or more than the holders), or more than 255 holders.
pub fn split(
    secret: &[u8; 32],
    threshold: usize,
    holders: usize,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Share>, ShamirError> {
    if holders > 255 {
        return Err(ShamirError::TooManyHolders { got: holders });
    }
    if threshold == 0 || threshold > holders {
        return Err(ShamirError::Threshold { threshold, holders });
    }
    let dealer = Sharks(threshold as u8);
    let shares = dealer
        .dealer_rng(secret, rng)
        .take(holders)
        .map(|raw| {
            let bytes = Zeroizing::new(Vec::from(&raw));
            Share(bytes[1..].try_into().expect("one byte a secret byte"))
        })
        .collect();
    Ok(shares)
}

/// Recovers a secret from shares keyed by coordinate; the lowest `threshold` of them are
/// used. The caller checks the result against what it knows of the secret: a wrong share
/// gives a wrong secret, not an error.
///
/// # Errors
/// [`ShamirError::TooFewShares`] below the threshold, [`ShamirError::Threshold`] for zero.
pub fn recover(
    shares: &BTreeMap<Coordinate, Share>,
    threshold: usize,
) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
    if threshold == 0 || threshold > 255 {
        return Err(ShamirError::Threshold {
            threshold,
            holders: shares.len(),
        });
    }
    if shares.len() < threshold {
        return Err(ShamirError::TooFewShares {
            got: shares.len(),
            needed: threshold,
        });
    }
    let raw: Vec<RawShare> = shares
        .iter()
        .take(threshold)
        .map(|(coordinate, share)| {
            let mut bytes = Zeroizing::new([0; 33]);
            bytes[0] = coordinate.0.get();
            bytes[1..].copy_from_slice(&share.0);
            RawShare::try_from(bytes.as_slice()).expect("33 bytes are a share")
        })
        .collect();
    let secret = Zeroizing::new(
        Sharks(threshold as u8)
            .recover(&raw)
            .expect("as many distinct coordinates as the threshold, of equal length"),
    );
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(&secret);
    Ok(bytes)
}

/// Why a secret could not be shared or recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShamirError {
    /// More holders than the field has coordinates.
    #[error("{got} holders: secret sharing over GF(256) serves at most 255")]
    TooManyHolders {
        /// The number of holders asked for.
        got: usize,
    },
    /// A threshold of 0, or above the number of holders.
    #[error("a threshold of {threshold} among {holders} holders is impossible: use 1 to {holders}")]
    Threshold {
        /// The threshold asked for.
        threshold: usize,
        /// The number of holders.
        holders: usize,
    },
    /// Fewer shares than the threshold.
    #[error("{got} shares, {needed} needed")]
    TooFewShares {
        /// Shares given.
        got: usize,
        /// Shares needed: the threshold.
        needed: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::os_rng;

    fn place(index: usize) -> Coordinate {
        Coordinate::of_place(index).unwrap()
    }

    #[test]
    fn coordinate_zero_and_256_do_not_exist() {
        assert_eq!(place(0).0.get(), 1);
        assert_eq!(place(254).0.get(), 255);
        assert_eq!(
            Coordinate::of_place(255),
            Err(ShamirError::TooManyHolders { got: 256 })
        );
    }

    #[test]
    fn impossible_thresholds_are_refused() {
        for (threshold, holders) in [(0, 3), (4, 3), (1, 256)] {
            assert!(split(&[1; 32], threshold, holders, &mut os_rng()).is_err());
        }
        assert!(recover(&BTreeMap::new(), 0).is_err());
        assert!(recover(&BTreeMap::new(), 2).is_err());
    }

    proptest! {
        #[test]
        fn any_threshold_of_shares_recovers(
            secret in any::<[u8; 32]>(),
            (threshold, holders) in (1usize..12).prop_flat_map(|t| (Just(t), t..24)),
            start in 0usize..24,
        ) {
            let shares = split(&secret, threshold, holders, &mut os_rng()).unwrap();
            let chosen: BTreeMap<_, _> = (0..threshold)
                .map(|k| (start + k) % holders)
                .map(|index| (place(index), shares[index].clone()))
                .collect();
            let recovered = recover(&chosen, threshold).unwrap();
            prop_assert_eq!(&*recovered, &secret);
            if threshold > 1 {
                let fewer: BTreeMap<_, _> = chosen.into_iter().skip(1).collect();
                prop_assert!(recover(&fewer, threshold).is_err());
                // What one share less would interpolate to is not the secret.
                let guess = recover(&fewer, threshold - 1).unwrap();
                prop_assert_ne!(&*guess, &secret);
            }
        }
    }
}
