//! Secret sharing against the `sharks` crate, which computes in the same field with tables of
//! logarithms: what either splits, the other recovers.

use std::collections::BTreeMap;

use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Share};
use proptest::prelude::*;
use sharks::{Share as PeerShare, Sharks};

/// `sharks` writes a share as its coordinate, then one byte a secret byte.
fn to_peer(place: usize, share: &Share) -> PeerShare {
    let mut bytes = vec![u8::try_from(place + 1).unwrap()];
    bytes.extend(share.expose());
    PeerShare::try_from(bytes.as_slice()).unwrap()
}

fn from_peer(share: &PeerShare) -> (Coordinate, Share) {
    let bytes = Vec::from(share);
    let coordinate = Coordinate::of_place(usize::from(bytes[0]) - 1).unwrap();
    (
        coordinate,
        Share::from_bytes(bytes[1..].try_into().unwrap()),
    )
}

/// How many of how many, and which of them.
fn sharing() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (1usize..=255).prop_flat_map(|holders| {
        let places: Vec<_> = (0..holders).collect();
        let few = holders.min(40);
        (Just(holders), prop::sample::subsequence(places, 1..=few))
    })
}

proptest! {
    #[test]
    fn sharks_recovers_what_we_split(
        secret in any::<[u8; 32]>(),
        (holders, chosen) in sharing(),
    ) {
        let shares = shamir::split(&secret, chosen.len(), holders, &mut os_rng()).unwrap();
        let theirs: Vec<_> = chosen.iter().map(|&at| to_peer(at, &shares[at])).collect();
        let recovered = Sharks(chosen.len() as u8).recover(&theirs).unwrap();
        prop_assert_eq!(recovered.as_slice(), &secret);
    }

    #[test]
    fn we_recover_what_sharks_split(
        secret in any::<[u8; 32]>(),
        (holders, chosen) in sharing(),
    ) {
        let shares: Vec<_> = Sharks(chosen.len() as u8)
            .dealer_rng(&secret, &mut os_rng())
            .take(holders)
            .collect();
        let ours: BTreeMap<_, _> = chosen.iter().map(|&at| from_peer(&shares[at])).collect();
        let recovered = shamir::recover(&ours, chosen.len()).unwrap();
        prop_assert_eq!(recovered.as_slice(), &secret);
    }

    /// Not only for shares of one secret: both are the same function of any bytes.
    #[test]
    fn both_recover_the_same_from_unrelated_bytes(
        shares in prop::collection::btree_map(0usize..255, any::<[u8; 32]>(), 1..30),
    ) {
        let ours: BTreeMap<_, _> = shares
            .iter()
            .map(|(&place, &bytes)| {
                (Coordinate::of_place(place).unwrap(), Share::from_bytes(bytes))
            })
            .collect();
        let theirs: Vec<_> = shares
            .iter()
            .map(|(&place, &bytes)| to_peer(place, &Share::from_bytes(bytes)))
            .collect();
        let recovered = shamir::recover(&ours, shares.len()).unwrap();
        let peer = Sharks(shares.len() as u8).recover(&theirs).unwrap();
        prop_assert_eq!(recovered.as_slice(), peer.as_slice());
    }
}

/// From (x, y) and (1, 0) both interpolate y / (x + 1): every quotient of the field.
#[test]
fn every_quotient_agrees() {
    let zero = Share::from_bytes([0; 32]);
    for place in 1..255 {
        for first in (0u8..=255).step_by(32) {
            let share = Share::from_bytes(std::array::from_fn(|at| first + at as u8));
            let theirs = [to_peer(0, &zero), to_peer(place, &share)];
            let ours = BTreeMap::from([0, place].map(|place| {
                let share = if place == 0 { &zero } else { &share };
                (Coordinate::of_place(place).unwrap(), share.clone())
            }));
            let recovered = shamir::recover(&ours, 2).unwrap();
            let peer = Sharks(2).recover(&theirs).unwrap();
            assert_eq!(recovered.as_slice(), peer.as_slice());
        }
    }
}
