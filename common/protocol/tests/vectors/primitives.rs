//! Masks, key agreement, secret sharing and Merkle trees.

use std::collections::BTreeMap;

use fedlora_common::digest::DigestWriter;
use fedlora_protocol::crypto::agreement::Suite;
use fedlora_protocol::crypto::merkle;
use fedlora_protocol::crypto::prg::Prg;
use fedlora_protocol::crypto::shamir::{self, Coordinate, Share};
use serde::Deserialize;

use crate::given::{Hex, vectors};

#[derive(Deserialize)]
struct Expansion {
    seed: Hex,
    words: Vec<u32>,
}

#[test]
fn mask_expansion() {
    for vector in vectors::<Vec<Expansion>>("mask_expansion") {
        let mut words = vec![0; vector.words.len()];
        Prg::new(&vector.seed.seed()).for_each(0, &mut words, |lane, word| *lane = word);
        assert_eq!(words, vector.words);
    }
}

#[derive(Deserialize)]
struct Agreement {
    suite: u16,
    initiator_root: Hex,
    responder_root: Hex,
    initiator_public: Hex,
    responder_public: Hex,
    binding: Hex,
    encapsulation: Hex,
    seed: Hex,
}

#[test]
fn key_agreement_in_both_suites() {
    let vectors: Vec<Agreement> = vectors("agreement");
    assert_eq!(vectors.len(), 2);
    for vector in vectors {
        let suite = Suite::try_from(vector.suite).unwrap();
        let one = vector.initiator_root.pair(suite);
        let two = vector.responder_root.pair(suite);
        for (pair, public) in [
            (&one, &vector.initiator_public),
            (&two, &vector.responder_public),
        ] {
            let mut writer = DigestWriter::new("fedlora test public");
            pair.public().write_to(&mut writer);
            assert_eq!(writer.finish(), public.digest());
        }
        let (binding, context) = (vector.binding.digest(), "fedlora test agreement");
        let (sent, seed) = one.initiate(two.public(), context, &binding).unwrap();
        let mut writer = DigestWriter::new("fedlora test encapsulation");
        sent.write_to(&mut writer);
        assert_eq!(writer.finish(), vector.encapsulation.digest());
        assert_eq!(seed.expose(), &vector.seed.array());
        let seed = two.respond(one.public(), &sent, context, &binding).unwrap();
        assert_eq!(seed.expose(), &vector.seed.array());
    }
}

#[derive(Deserialize)]
struct Sharing {
    threshold: usize,
    secret: Hex,
    shares: Vec<Hex>,
    chosen: Vec<usize>,
}

#[test]
fn shamir_recovery() {
    let vector: Sharing = vectors("shamir");
    let take = |places: &[usize]| -> BTreeMap<Coordinate, Share> {
        let share = |place: usize| Share::from_bytes(vector.shares[place].array());
        places
            .iter()
            .map(|&place| (Coordinate::of_place(place).unwrap(), share(place)))
            .collect()
    };
    for places in [vector.chosen.clone(), (0..7).collect(), (3..7).collect()] {
        let secret = shamir::recover(&take(&places), vector.threshold).unwrap();
        assert_eq!(*secret, vector.secret.array());
    }
    assert!(shamir::recover(&take(&[0, 1, 2]), vector.threshold).is_err());
}

#[derive(Deserialize)]
struct Tree {
    leaves: Vec<Hex>,
    root: Hex,
    place: usize,
    proof: Vec<Hex>,
}

#[test]
fn merkle_trees() {
    let vectors: Vec<Tree> = vectors("merkle");
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let [leaves, proof] = [&vector.leaves, &vector.proof]
            .map(|all| all.iter().map(Hex::digest).collect::<Vec<_>>());
        let (root, place) = (vector.root.digest(), vector.place);
        assert_eq!(merkle::root(&leaves), root);
        assert_eq!(merkle::proof(&leaves, place), proof);
        assert!(merkle::verify(
            &root,
            leaves.len(),
            place,
            &leaves[place],
            &proof
        ));
        assert!(!merkle::verify(
            &root,
            leaves.len() + 1,
            place,
            &leaves[place],
            &proof
        ));
    }
}
