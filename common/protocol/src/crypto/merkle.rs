//! A Merkle tree of digests, in the shape of RFC 9162, section 2.1: the leaves are split at the
//! largest power of two below their number, and nothing is repeated to fill a level.
//!
//! With `H` as in `docs/PROTOCOL.md`:
//!
//! - leaf: `H("fedlora 2 merkle leaf"; digest)`
//! - inner node: `H("fedlora 2 merkle node"; left, right)`
//! - root: `H("fedlora 2 merkle root"; number of leaves, top node)`; of no leaves, without a top
//!   node.
//!
//! So no inner node is taken for a leaf, and no root is that of another number of leaves.

use fedlora_common::digest::{Digest, DigestWriter};

/// The root of the tree over `leaves`.
pub fn root(leaves: &[Digest]) -> Digest {
    let top = (!leaves.is_empty()).then(|| top(leaves));
    bound(leaves.len(), top.as_ref())
}

/// What shows that the leaf at `place` is under the root: the siblings on the way up, the
/// lowest first. At most as many as the number of leaves has bits.
///
/// # Panics
/// Where `place` is not below the number of leaves.
pub fn proof(leaves: &[Digest], place: usize) -> Vec<Digest> {
    assert!(place < leaves.len(), "no leaf at this place");
    let mut siblings = Vec::new();
    let (mut part, mut place) = (leaves, place);
    while part.len() > 1 {
        let (left, right) = part.split_at(split(part.len()));
        if place < left.len() {
            siblings.push(top(right));
            part = left;
        } else {
            siblings.push(top(left));
            place -= left.len();
            part = right;
        }
    }
    siblings.reverse();
    siblings
}

/// The [`proof`] of every leaf, in order; in all some n log2 n hashes rather than n^2.
pub fn proofs(leaves: &[Digest]) -> Vec<Vec<Digest>> {
    let mut proofs = vec![Vec::new(); leaves.len()];
    if !leaves.is_empty() {
        top_with_proofs(leaves, &mut proofs);
    }
    proofs
}

/// Whether `proof` shows that `leaf` is at `place`, from 0, of the `leaves` leaves under `root`.
pub fn verify(root: &Digest, leaves: usize, place: usize, leaf: &Digest, proof: &[Digest]) -> bool {
    place < leaves
        && climb(leaves, place, leaf_node(leaf), proof)
            .is_some_and(|top| bound(leaves, Some(&top)) == *root)
}

/// The top of a tree of `leaves` leaves over the node at `place`; `None` where the proof's
/// length is not that of the way.
fn climb(leaves: usize, place: usize, node: Digest, proof: &[Digest]) -> Option<Digest> {
    if leaves == 1 {
        return proof.is_empty().then_some(node);
    }
    let (sibling, lower) = proof.split_last()?;
    let left = split(leaves);
    if place < left {
        Some(inner_node(&climb(left, place, node, lower)?, sibling))
    } else {
        let right = climb(leaves - left, place - left, node, lower)?;
        Some(inner_node(sibling, &right))
    }
}

/// The top node over at least one leaf.
fn top(leaves: &[Digest]) -> Digest {
    match leaves {
        [leaf] => leaf_node(leaf),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            inner_node(&top(left), &top(right))
        }
    }
}

/// As [`top`]; appends the siblings of each leaf to its proof.
fn top_with_proofs(leaves: &[Digest], proofs: &mut [Vec<Digest>]) -> Digest {
    if let [leaf] = leaves {
        return leaf_node(leaf);
    }
    let half = split(leaves.len());
    let (left_proofs, right_proofs) = proofs.split_at_mut(half);
    let left = top_with_proofs(&leaves[..half], left_proofs);
    let right = top_with_proofs(&leaves[half..], right_proofs);
    left_proofs.iter_mut().for_each(|proof| proof.push(right));
    right_proofs.iter_mut().for_each(|proof| proof.push(left));
    inner_node(&left, &right)
}

/// The largest power of two below `leaves`, which is at least 2.
fn split(leaves: usize) -> usize {
    1 << (leaves - 1).ilog2()
}

fn leaf_node(leaf: &Digest) -> Digest {
    DigestWriter::new("fedlora 2 merkle leaf")
        .digest(leaf)
        .finish()
}

fn inner_node(left: &Digest, right: &Digest) -> Digest {
    DigestWriter::new("fedlora 2 merkle node")
        .digest(left)
        .digest(right)
        .finish()
}

fn bound(leaves: usize, top: Option<&Digest>) -> Digest {
    let mut writer = DigestWriter::new("fedlora 2 merkle root");
    writer.number(leaves as u64);
    if let Some(top) = top {
        writer.digest(top);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count as u64)
            .map(|k| Digest::of("test leaf", &k.to_le_bytes()))
            .collect()
    }

    #[test]
    fn the_shape_is_that_of_rfc_9162() {
        let leaves = leaves(7);
        let [a, b, c, d, e, f, g] = std::array::from_fn(|k| leaf_node(&leaves[k]));
        let abcd = inner_node(&inner_node(&a, &b), &inner_node(&c, &d));
        let ef = inner_node(&e, &f);
        let top = inner_node(&abcd, &inner_node(&ef, &g));
        assert_eq!(root(&leaves), bound(7, Some(&top)));
        assert_eq!(proof(&leaves, 6), [ef, abcd]);
        assert_eq!(proof(&leaves, 5), [e, g, abcd]);
    }

    #[test]
    fn nothing_verifies_under_the_root_of_no_leaves() {
        let empty = root(&[]);
        assert!(proofs(&[]).is_empty());
        assert!(!verify(&empty, 0, 0, &empty, &[]));
        assert!(!verify(&empty, 1, 0, &empty, &[]));
    }

    #[test]
    #[should_panic(expected = "no leaf at this place")]
    fn there_is_no_proof_of_a_leaf_that_is_not_there() {
        proof(&leaves(3), 3);
    }

    #[test]
    fn a_repeated_last_leaf_or_an_inner_node_is_another_tree() {
        let three = leaves(3);
        let mut four = three.clone();
        four.push(three[2]);
        assert_ne!(root(&three), root(&four));
        let nodes = [leaf_node(&three[0]), leaf_node(&three[1])];
        let inner = inner_node(&nodes[0], &nodes[1]);
        assert_ne!(root(&[inner, three[2]]), root(&three));
        // A subtree's top passes neither for a leaf at the place of its leaves nor above them.
        let siblings = [leaf_node(&three[2])];
        assert!(verify(&root(&[inner, three[2]]), 2, 0, &inner, &siblings));
        for count in 1..5 {
            assert!(!verify(&root(&three), count, 0, &inner, &siblings));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_leaf_verifies_and_nothing_else(
            count in 1_usize..70,
            place: prop::sample::Index,
            other: prop::sample::Index,
            byte in 0_usize..32,
            bit in 0_u8..8,
        ) {
            let leaves = leaves(count);
            let (root, proofs, place) = (root(&leaves), proofs(&leaves), place.index(count));
            let (leaf, proof) = (leaves[place], proof(&leaves, place));
            prop_assert_eq!(&proofs[place], &proof);
            for (place, leaf) in leaves.iter().enumerate() {
                prop_assert!(verify(&root, count, place, leaf, &proofs[place]));
            }
            for wrong in (0..count + 3).chain([usize::MAX]).filter(|&wrong| wrong != place) {
                prop_assert!(!verify(&root, count, wrong, &leaf, &proof));
            }
            for wrong in (0..2 * count + 2).chain([usize::MAX]).filter(|&wrong| wrong != count) {
                prop_assert!(!verify(&root, wrong, place, &leaf, &proof));
            }
            let flip = |digest: &Digest| {
                let mut bytes = *digest.as_bytes();
                bytes[byte] ^= 1 << bit;
                Digest::from_bytes(bytes)
            };
            prop_assert!(!verify(&root, count, place, &flip(&leaf), &proof));
            prop_assert!(!verify(&flip(&root), count, place, &leaf, &proof));
            for step in 0..proof.len() {
                let mut changed = proof.clone();
                changed[step] = flip(&changed[step]);
                prop_assert!(!verify(&root, count, place, &leaf, &changed));
                let mut shorter = proof.clone();
                shorter.remove(step);
                prop_assert!(!verify(&root, count, place, &leaf, &shorter));
            }
            for step in 0..=proof.len() {
                let mut longer = proof.clone();
                longer.insert(step, leaves[other.index(count)]);
                prop_assert!(!verify(&root, count, place, &leaf, &longer));
            }
        }
    }
}
