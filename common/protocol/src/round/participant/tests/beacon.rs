//! The beacon that the neighbours of a large roster are drawn from: who contributes, what is
//! opened when, and members that are told of different beacons.

use std::collections::BTreeMap;

use crate::crypto::os_rng;
use crate::ids::{Attempt, MemberIndex};
use crate::round::harness::{Federation, Opened};
use crate::round::participant::Refusal;
use crate::wire::Signable;
use crate::wire::messages::{
    BeaconOpening, Commitments, OpenedCommitment, RoundMessage, commitment_to,
};
use fedlora_common::digest::Digest;

const ZERO: MemberIndex = MemberIndex(0);
const ONE: MemberIndex = MemberIndex(1);

fn sparse() -> Federation {
    let federation = Federation::new(70);
    assert!(!federation.policy.is_complete());
    assert!(federation.policy.colluders() >= 2);
    federation
}

/// How the first member, a contributor, takes the changed commitments: the refusal, or its opening.
fn told(
    federation: &Federation,
    change: impl FnOnce(&mut Commitments),
) -> Result<Option<BeaconOpening>, Refusal> {
    let mut committed = federation.committed();
    let mut commitments = committed.chosen(federation, 0);
    change(&mut commitments);
    let first = committed.members.remove(0);
    first
        .commitments(commitments, &mut os_rng())
        .map(|(_, _, opening)| opening)
}

#[test]
fn the_honest_commitments_are_taken_and_opened() {
    let opening = told(&sparse(), |_| ()).unwrap();
    assert!(opening.is_some());
}

#[test]
fn fewer_or_more_contributors_than_one_more_than_collude() {
    let federation = sparse();
    let needed = federation.policy.colluders() + 1;
    for got in [0, 1, needed - 1, needed + 1, 70] {
        let refusal = told(&federation, |commitments| {
            let all = federation.committed().commitments;
            *commitments = Commitments(all.into_iter().take(got).collect());
        });
        assert_eq!(refusal, Err(Refusal::Contributors { got, needed }));
    }
}

#[test]
fn a_stranger_as_contributor() {
    let refusal = told(&sparse(), |commitments| {
        let (_, commitment) = commitments.0.pop_last().unwrap();
        commitments.0.insert(MemberIndex(70), commitment);
    });
    let (message, member) = ("commitments", MemberIndex(70));
    assert_eq!(refusal, Err(Refusal::Stranger { message, member }));
}

/// The member opens nothing before it has seen its own commitment, as it is, among all.
#[test]
fn the_members_own_commitment_replaced_or_left_out() {
    let federation = sparse();
    let others = federation.committed().commitments[&ONE];
    for replaced in [others, Digest::of("test", b"another nonce")] {
        let refusal = told(&federation, |commitments| {
            commitments.0.insert(ZERO, replaced);
        });
        assert_eq!(refusal, Err(Refusal::OwnCommitment));
    }
    let opening = told(&federation, |commitments| {
        *commitments = federation.committed().chosen(&federation, 1);
    });
    assert_eq!(opening, Ok(None));
}

#[test]
fn contributors_alone_open_and_for_these_commitments_alone() {
    let federation = sparse();
    let committed = federation.committed();
    let (open, all) = (committed.open, committed.commitments.clone());
    let (commitments, others) = (
        committed.chosen(&federation, 3),
        committed.chosen(&federation, 4),
    );
    let opened = committed.opened(&federation, &commitments);
    assert!(opened.openings.keys().eq(commitments.0.keys()));
    for (&member, opening) in &opened.openings {
        assert_eq!(commitment_to(&open, member, &opening.nonce), all[&member]);
        let verifies = |commitments: &Commitments, open: &Digest| {
            let signed = OpenedCommitment {
                member,
                commitments: commitments.digest(open),
                nonce: opening.nonce,
            };
            let key = &federation.roster.get(member).unwrap().identity;
            let digest = signed.signed_digest(open);
            key.verify(&digest, &opening.signature).is_ok()
        };
        assert!(verifies(&commitments, &open));
        assert!(!verifies(&others, &open));
        assert!(!verifies(&commitments, &Digest::of("test", b"other")));
    }
    // Every contributor draws its own nonce.
    let nonces: std::collections::BTreeSet<_> = opened
        .openings
        .values()
        .map(|opening| opening.nonce)
        .collect();
    assert_eq!(nonces.len(), commitments.0.len());
}

type Openings = BTreeMap<MemberIndex, BeaconOpening>;

/// How the first member takes the changed openings of the first members' commitments.
fn opened_with(
    federation: &Federation,
    change: impl FnOnce(&Opened, &mut Openings),
) -> Result<(), Refusal> {
    let mut opened = federation.opened();
    let mut message = opened.for_member(0);
    change(&opened, &mut message.openings);
    let first = opened.members.remove(0);
    first.peer_keys(message, &mut os_rng()).map(|_| ())
}

/// An opening of `member` under the signature of the one at `signer`.
fn opening_by(
    federation: &Federation,
    signer: usize,
    open: &Digest,
    signed: OpenedCommitment,
) -> BeaconOpening {
    BeaconOpening {
        nonce: signed.nonce,
        signature: federation.identities[signer].sign(&signed.signed_digest(open)),
    }
}

#[test]
fn an_opening_that_is_missing_forged_or_of_another_commitment() {
    let federation = sparse();
    assert_eq!(opened_with(&federation, |_, _| ()), Ok(()));
    type Change = fn(&Federation, &Opened, &mut Openings);
    let changes: [(&str, Change); 8] = [
        ("missing", |_, _, openings| {
            openings.remove(&ONE);
        }),
        ("another's", |_, _, openings| {
            let of_another = openings[&MemberIndex(2)];
            openings.insert(ONE, of_another);
        }),
        ("another's signature", |_, _, openings| {
            let of_another = openings[&MemberIndex(2)].signature;
            openings.get_mut(&ONE).unwrap().signature = of_another;
        }),
        ("a nonce that was not signed", |_, _, openings| {
            openings.get_mut(&ONE).unwrap().nonce[7] ^= 1;
        }),
        // Its true nonce, as it was committed to and signed: but by the aggregator's choosing of
        // the rest, or by somebody else.
        ("for other commitments", |federation, opened, openings| {
            let others = federation.committed().chosen(federation, 1);
            let signed = OpenedCommitment {
                member: ONE,
                commitments: others.digest(&opened.open),
                nonce: openings[&ONE].nonce,
            };
            openings.insert(ONE, opening_by(federation, 1, &opened.open, signed));
        }),
        ("for another attempt", |federation, opened, openings| {
            let mut open = federation.open.clone();
            open.attempt = Attempt(2);
            let open = open.digest();
            let signed = OpenedCommitment {
                member: ONE,
                commitments: opened.commitments.as_ref().unwrap().digest(&open),
                nonce: openings[&ONE].nonce,
            };
            openings.insert(ONE, opening_by(federation, 1, &open, signed));
        }),
        ("signed by another", |federation, opened, openings| {
            let signed = OpenedCommitment {
                member: ONE,
                commitments: opened.commitments.as_ref().unwrap().digest(&opened.open),
                nonce: openings[&ONE].nonce,
            };
            openings.insert(ONE, opening_by(federation, 2, &opened.open, signed));
        }),
        // A contributor that chooses its nonce once it has seen the others'.
        ("chosen afterwards", |federation, opened, openings| {
            let signed = OpenedCommitment {
                member: ONE,
                commitments: opened.commitments.as_ref().unwrap().digest(&opened.open),
                nonce: [9; 16],
            };
            openings.insert(ONE, opening_by(federation, 1, &opened.open, signed));
        }),
    ];
    for (what, change) in changes {
        let refusal = opened_with(&federation, |opened, openings| {
            change(&federation, opened, openings);
        });
        assert_eq!(refusal, Err(Refusal::Beacon { member: ONE }), "{what}");
    }
}

#[test]
fn an_opening_of_a_member_that_is_no_contributor() {
    let federation = sparse();
    let needed = federation.policy.colluders() + 1;
    let refusal = opened_with(&federation, |_, openings| {
        let any = openings[&ONE];
        openings.insert(MemberIndex(69), any);
    });
    let got = needed + 1;
    assert_eq!(refusal, Err(Refusal::Contributors { got, needed }));
}

/// The aggregator shows two members different commitments, so that each has neighbours of its
/// choice. The members' nonces and keys are the same in both.
#[test]
fn members_that_were_told_of_different_beacons_have_nothing_in_common() {
    let federation = sparse();
    let world = |first| {
        let committed = federation.committed();
        let commitments = committed.chosen(&federation, first);
        committed.opened(&federation, &commitments)
    };
    let one = world(0);
    let graph = one.graph();
    let (peer, mut two) = (10..40)
        .map(world)
        .find_map(|two| {
            let other = two.graph();
            assert_ne!(graph, other);
            let mut both = graph.neighbours(ZERO).into_iter();
            let peer = both.find(|peer| other.are_neighbours(ZERO, *peer))?;
            Some((peer, two))
        })
        .expect("neighbours in both");
    let place = usize::from(peer.0);
    assert_eq!(one.keys[place].claimed(), two.keys[place].claimed());

    // Keys are signed for the commitments, so that neither takes the other's.
    let mut message = one.for_member(0);
    for keys in &mut message.keys {
        if keys.claimed().member == peer {
            *keys = two.keys[place].clone();
        }
    }
    let refusal = world(0)
        .members
        .remove(0)
        .peer_keys(message, &mut os_rng())
        .map(|_| ());
    let (message, member) = ("keys", peer);
    assert_eq!(refusal, Err(Refusal::Signature { message, member }));

    // Nor does the one open what the other seals to it.
    let odd = two.for_member(peer.0);
    let (_, odd) = two
        .members
        .remove(place)
        .peer_keys(odd, &mut os_rng())
        .unwrap();
    for (changed, opens) in [(false, true), (true, false)] {
        let mut shared = world(0).shared();
        let mut shares = shared.for_holder(0);
        if changed {
            shares.insert(peer, odd.claimed().shares[&ZERO].clone());
        }
        let (_, statement) = shared.members.remove(0).peer_shares(shares).unwrap();
        let RoundMessage::Held { dealers, .. } = statement else {
            panic!("a statement of what it holds");
        };
        assert_eq!(dealers.contains(peer), opens);
        assert_eq!(dealers.len(), graph.degree() - usize::from(changed));
    }
}
