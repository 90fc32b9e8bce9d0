//! Shamir's secret sharing (CACM 1979) of 32-byte secrets over GF(256), in which bytes are
//! polynomials modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d). Byte by byte, a secret is the value at
//! 0 of a polynomial, a share its value at the holder's coordinate.
//!
//! Secrets, coefficients and shares are only multiplied with what is public: a coordinate, or a
//! weight made of coordinates. Which shares meet, and how many, is public too. So neither memory
//! accesses nor branches depend on a secret.
//!
//! A holder's coordinate is assigned by its place, never taken from the share's own bytes.
//! Coordinate 0, which would be the secret itself, does not exist, nor do duplicates in a map or
//! set; exactly the threshold's number of shares is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU8;

use rand::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::gf256::{self, Accumulator};

/// The most holders of one secret: GF(256) has 255 coordinates beside 0.
const MAX_HOLDERS: usize = 255;

/// A holder's coordinate: 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate(NonZeroU8);

impl Coordinate {
    /// The coordinate of the holder at `place`, counted from 0.
    ///
    /// # Errors
    /// [`ShamirError::TooManyHolders`] past place 254: GF(256) has no more coordinates.
    pub fn of_place(place: usize) -> Result<Self, ShamirError> {
        let holders = place.saturating_add(1);
        u8::try_from(holders)
            .ok()
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or(ShamirError::TooManyHolders { got: holders })
    }
}

/// One holder's share of a 32-byte secret, without its coordinate. Compared in constant time,
/// wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
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

impl ConstantTimeEq for Share {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for Share {}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share(..)")
    }
}

/// Splits `secret` among `holders` so that any `threshold` of them recover it; the share at
/// place `i` is for [`Coordinate::of_place`]`(i)`. With a threshold of 1 each share is the
/// secret.
///
/// # Errors
/// An impossible threshold (0, or more than the holders), or more than 255 holders.
pub fn split(
    secret: &[u8; 32],
    threshold: usize,
    holders: usize,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Share>, ShamirError> {
    if holders > MAX_HOLDERS {
        return Err(ShamirError::TooManyHolders { got: holders });
    }
    if threshold == 0 || threshold > holders {
        return Err(ShamirError::Threshold { threshold, holders });
    }
    // One row a power of x, each with the coefficients of the 32 polynomials.
    let mut coefficients = Zeroizing::new(vec![0; (threshold - 1) * 32]);
    rng.fill_bytes(&mut coefficients);
    // Written in place, since a share that moves would leave a copy behind.
    let mut shares = vec![Share([0; 32]); holders];
    for (place, share) in shares.iter_mut().enumerate() {
        evaluate(secret, &coefficients, Coordinate::of_place(place)?, share);
    }
    Ok(shares)
}

/// Recovers a secret from shares keyed by coordinate; the lowest `threshold` of them are
/// used. The caller checks the result against what it knows of the secret: a wrong share
/// gives a wrong secret, not an error.
///
/// # Errors
/// [`ShamirError::TooFewShares`] below the threshold, [`ShamirError::Threshold`] for zero or
/// above 255.
pub fn recover(
    shares: &BTreeMap<Coordinate, Share>,
    threshold: usize,
) -> Result<Zeroizing<[u8; 32]>, ShamirError> {
    if threshold == 0 || threshold > MAX_HOLDERS {
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
    let lowest = shares.keys().copied().take(threshold).collect();
    Ok(Interpolation::new(&lowest)?.recover(shares.values().take(threshold)))
}

/// What it takes to recover any secret from one set of holders: Lagrange's weights at 0, which
/// depend on the coordinates alone. The weights of n coordinates cost about n^2 products of
/// bytes, so that who recovers many secrets from the same holders makes them once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolation {
    /// By coordinate, ascending.
    weights: Vec<(Coordinate, u8)>,
}

impl Interpolation {
    /// The interpolation from shares of exactly these holders: as many as the threshold with
    /// which the secrets were split, or more.
    ///
    /// # Errors
    /// [`ShamirError::TooFewShares`] for an empty set.
    pub fn new(coordinates: &BTreeSet<Coordinate>) -> Result<Self, ShamirError> {
        if coordinates.is_empty() {
            return Err(ShamirError::TooFewShares { got: 0, needed: 1 });
        }
        let all = product(coordinates.iter().map(|coordinate| coordinate.0.get()));
        let weights = coordinates
            .iter()
            .map(|&Coordinate(at)| {
                // The product over the others' x_j / (x_j - x_i), where minus is plus.
                let differences = coordinates
                    .iter()
                    .filter(|other| other.0 != at)
                    .map(|other| other.0.get() ^ at.get());
                let divisor = NonZeroU8::new(gf256::multiply(at.get(), product(differences)))
                    .expect("a product of elements that are not zero");
                let weight = gf256::multiply(all, gf256::invert(divisor));
                (Coordinate(at), weight)
            })
            .collect();
        Ok(Self { weights })
    }

    /// The holders whose shares this takes, ascending.
    pub fn coordinates(&self) -> impl ExactSizeIterator<Item = Coordinate> + '_ {
        self.weights.iter().map(|(coordinate, _)| *coordinate)
    }

    /// Recovers a secret from one share of each holder, in the order of
    /// [`coordinates`](Self::coordinates). The caller checks the result against what it knows of
    /// the secret: a wrong share, or two in the wrong order, give a wrong secret.
    ///
    /// # Panics
    /// Where there are fewer or more shares than coordinates.
    pub fn recover<'a>(&self, mut shares: impl Iterator<Item = &'a Share>) -> Zeroizing<[u8; 32]> {
        let mut sum = Accumulator::zero();
        for (_, weight) in &self.weights {
            let share = shares.next().expect("a share of each coordinate");
            sum.add_product(*weight, &share.0);
        }
        assert!(shares.next().is_none(), "more shares than coordinates");
        let mut secret = Zeroizing::new([0; 32]);
        sum.write_to(&mut secret);
        secret
    }
}

/// Writes to `share` the values at `at` of the polynomials, by Horner's rule from the highest
/// power down to the secret.
fn evaluate(secret: &[u8; 32], coefficients: &[u8], at: Coordinate, share: &mut Share) {
    let mut value = Accumulator::zero();
    for row in coefficients.as_chunks::<32>().0 {
        value.multiply_then_add(at.0, row);
    }
    value.multiply_then_add(at.0, secret);
    value.write_to(&mut share.0);
}

fn product(elements: impl Iterator<Item = u8>) -> u8 {
    elements.fold(1, gf256::multiply)
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
    use std::convert::Infallible;

    use proptest::prelude::*;
    use rand::rand_core::{TryCryptoRng, TryRng};

    use super::*;
    use crate::crypto::os_rng;

    fn place(index: usize) -> Coordinate {
        Coordinate::of_place(index).unwrap()
    }

    /// A generator whose every byte is the same, to go through all coefficients of a byte.
    struct Always(u8);

    impl TryRng for Always {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok(u32::from_ne_bytes([self.0; 4]))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(u64::from_ne_bytes([self.0; 8]))
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            out.fill(self.0);
            Ok(())
        }
    }

    impl TryCryptoRng for Always {}

    #[test]
    fn coordinate_zero_and_256_do_not_exist() {
        assert_eq!(place(0).0.get(), 1);
        assert_eq!(place(254).0.get(), 255);
        for absent in [255, usize::MAX] {
            assert_eq!(
                Coordinate::of_place(absent),
                Err(ShamirError::TooManyHolders {
                    got: absent.saturating_add(1)
                })
            );
        }
    }

    #[test]
    fn impossible_thresholds_are_refused() {
        for (threshold, holders) in [(0, 3), (4, 3)] {
            assert_eq!(
                split(&[1; 32], threshold, holders, &mut os_rng()),
                Err(ShamirError::Threshold { threshold, holders })
            );
        }
        assert_eq!(
            split(&[1; 32], 1, 256, &mut os_rng()),
            Err(ShamirError::TooManyHolders { got: 256 })
        );
        for threshold in [0, 256] {
            assert_eq!(
                recover(&BTreeMap::new(), threshold),
                Err(ShamirError::Threshold {
                    threshold,
                    holders: 0
                })
            );
        }
        assert_eq!(
            recover(&BTreeMap::new(), 2),
            Err(ShamirError::TooFewShares { got: 0, needed: 2 })
        );
    }

    #[test]
    fn an_interpolation_of_no_holders_is_refused() {
        assert_eq!(
            Interpolation::new(&BTreeSet::new()),
            Err(ShamirError::TooFewShares { got: 0, needed: 1 })
        );
    }

    #[test]
    #[should_panic(expected = "a share of each coordinate")]
    fn an_interpolation_refuses_fewer_shares_than_its_holders() {
        let interpolation = Interpolation::new(&[place(0), place(3)].into()).unwrap();
        interpolation.recover([Share([1; 32])].iter());
    }

    #[test]
    #[should_panic(expected = "more shares than coordinates")]
    fn an_interpolation_refuses_more_shares_than_its_holders() {
        let interpolation = Interpolation::new(&[place(0)].into()).unwrap();
        interpolation.recover([Share([1; 32]), Share([2; 32])].iter());
    }

    #[test]
    fn the_ends_of_the_range_recover() {
        let secret = std::array::from_fn(|at| at as u8);
        for (threshold, holders) in [(1, 1), (1, 255), (2, 255), (255, 255)] {
            let shares = split(&secret, threshold, holders, &mut os_rng()).unwrap();
            assert_eq!(shares.len(), holders);
            let last: BTreeMap<_, _> = (holders - threshold..holders)
                .map(|index| (place(index), shares[index].clone()))
                .collect();
            assert_eq!(*recover(&last, threshold).unwrap(), secret);
        }
    }

    #[test]
    fn shares_compare_by_content_and_print_without_it() {
        let share = Share([0xab; 32]);
        assert_eq!(share, share.clone());
        for at in 0..32 {
            let mut other = share.clone();
            other.0[at] ^= 1;
            assert_ne!(share, other);
        }
        assert_eq!(format!("{share:?}"), "Share(..)");
    }

    /// Whatever the secret, a holder's byte takes each value for one coefficient: with uniform
    /// coefficients, one share of two says nothing.
    #[test]
    fn one_share_of_two_is_uniform_for_each_secret() {
        for secret in 0..=255 {
            for holder in [0, 1, 6] {
                let values: BTreeSet<u8> = (0..=255)
                    .map(|coefficient| {
                        let rng = &mut Always(coefficient);
                        split(&[secret; 32], 2, 7, rng).unwrap()[holder].0[5]
                    })
                    .collect();
                assert_eq!(values.len(), 256, "secret {secret}, holder {holder}");
            }
        }
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

        #[test]
        fn any_subset_of_any_size_recovers(
            secret in any::<[u8; 32]>(),
            (holders, chosen) in (1usize..=255).prop_flat_map(|holders| {
                let places: Vec<_> = (0..holders).collect();
                (Just(holders), prop::sample::subsequence(places, 1..=holders))
            }),
        ) {
            let shares = split(&secret, chosen.len(), holders, &mut os_rng()).unwrap();
            let coordinates = chosen.iter().map(|&index| place(index)).collect();
            let interpolation = Interpolation::new(&coordinates).unwrap();
            prop_assert!(interpolation.coordinates().eq(coordinates));
            let taken = chosen.iter().map(|&index| &shares[index]);
            prop_assert_eq!(&*interpolation.recover(taken), &secret);
        }

        /// Shares below the threshold are consistent with each secret: the byte that one holder
        /// more would have to add takes 256 values, and gives 256 secrets.
        #[test]
        fn one_share_too_few_leaves_each_secret_possible(
            threshold in 2usize..20,
            secret in any::<[u8; 32]>(),
        ) {
            let shares = split(&secret, threshold, threshold, &mut os_rng()).unwrap();
            let coordinates = (0..threshold).map(place).collect();
            let interpolation = Interpolation::new(&coordinates).unwrap();
            let candidates: BTreeSet<u8> = (0..=255)
                .map(|byte| {
                    let mut missing = shares[threshold - 1].clone();
                    missing.0[0] = byte;
                    let known = shares[..threshold - 1].iter();
                    interpolation.recover(known.chain([&missing]))[0]
                })
                .collect();
            prop_assert_eq!(candidates.len(), 256);
        }

        /// Exactly the lowest coordinates are used: what lies above them does not matter.
        #[test]
        fn shares_above_the_threshold_are_not_read(
            secret in any::<[u8; 32]>(),
            threshold in 1usize..8,
        ) {
            let mut shares = split(&secret, threshold, threshold + 3, &mut os_rng()).unwrap();
            for forged in &mut shares[threshold..] {
                forged.0[0] ^= 1;
            }
            let all: BTreeMap<_, _> = shares
                .into_iter()
                .enumerate()
                .map(|(index, share)| (place(index), share))
                .collect();
            prop_assert_eq!(&*recover(&all, threshold).unwrap(), &secret);
        }
    }
}
