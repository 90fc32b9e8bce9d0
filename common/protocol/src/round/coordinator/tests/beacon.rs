//! The beacon that neighbours are drawn from: what is no commitment or opening, and contributors
//! that do not open.

use super::rejects::{fresh_keys, keys_message, message, until};
use super::{assert_sum, failure};
use crate::crypto::sign::Signature;
use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::round::coordinator::{Input, Reject};
use crate::round::harness::{Federation, World};
use crate::wire::messages::{
    BeaconOpening, Commitments, Keys, Open, OpenedCommitment, PhaseName, RoundFailure, RoundMessage,
};
use crate::wire::{Signable, Unverified};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

/// The input is rejected for this reason, and the phase waits for the same members.
#[track_caller]
fn refused(world: &mut World<'_>, input: Input, reason: &Reject) {
    let before = (world.coordinator().phase(), world.coordinator().awaited());
    assert_eq!(&world.take(input).unwrap_err(), reason);
    let after = (world.coordinator().phase(), world.coordinator().awaited());
    assert_eq!(before, after);
}

#[test]
fn commitments_of_strangers_and_second_ones() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    let commitment = RoundMessage::Commit(Digest::of("test", b"commitment"));
    let stranger = MemberIndex(70);
    let input = message(&world, 70, commitment.clone());
    refused(&mut world, input, &Reject::NotAwaited { member: stranger });

    let first = world.inbox.pop_front().unwrap();
    world.take(first).unwrap();
    let member = MemberIndex(0);
    let input = message(&world, 0, commitment.clone());
    refused(&mut world, input, &Reject::NotAwaited { member });

    let keys = keys_message(world.sign_keys(fresh_keys(1)));
    let phase = Some(PhaseName::Commit);
    let input = message(&world, 1, keys);
    let message = "keys";
    refused(&mut world, input, &Reject::Unexpected { message, phase });
    let other = Open {
        round: RoundNumber(2),
        ..federation.open.clone()
    };
    let input = Input::Message {
        from: MemberIndex(1),
        open: other.digest().into(),
        message: commitment,
    };
    let (round, attempt) = (federation.open.round, federation.open.attempt);
    refused(&mut world, input, &Reject::OtherRound { round, attempt });
    assert_sum(&world.run(), 0..70);
}

/// The keys that a member is about to send, with its opening.
fn keys_of(world: &World<'_>, place: u16) -> (Unverified<Keys>, Option<BeaconOpening>) {
    let keys = world.inbox.iter().find_map(|input| match input {
        Input::Message {
            from,
            message: RoundMessage::Keys { keys, opening },
            ..
        } if from.0 == place => Some((keys.clone(), *opening)),
        _ => None,
    });
    keys.expect("members send keys next")
}

#[test]
fn openings_that_are_missing_forged_or_of_something_else() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Keys);
    let open = federation.open.digest();
    let commitments = world.shown.commitments.clone().expect("they were shown");
    let member = MemberIndex(0);
    assert!(commitments.0.contains_key(&member));
    let (keys, honest) = keys_of(&world, 0);
    let honest = honest.expect("a contributor opens");
    let opened = |nonce, commitments: &Commitments, open: &Digest| {
        let signed = OpenedCommitment {
            member,
            commitments: commitments.digest(open),
            nonce,
        };
        let signature = federation.identities[0].sign(&signed.signed_digest(open));
        BeaconOpening { nonce, signature }
    };
    assert_eq!(opened(honest.nonce, &commitments, &open), honest);
    let mut others = commitments.clone();
    others.0.pop_last();
    let elsewhere = Digest::of("test", b"another M0");
    let (_, of_another) = keys_of(&world, 1);
    let openings = [
        None,
        of_another,
        Some(opened([7; 16], &commitments, &open)),
        Some(opened(honest.nonce, &others, &open)),
        Some(opened(honest.nonce, &commitments, &elsewhere)),
        Some(BeaconOpening {
            signature: Signature::from_bytes([1; 64]),
            ..honest
        }),
    ];
    for opening in openings {
        let keys = keys.clone();
        let input = message(&world, 0, RoundMessage::Keys { keys, opening });
        refused(&mut world, input, &Reject::Beacon { member });
    }
    // Keys that are signed for M0 alone, or for other commitments.
    let shown = world.shown.commitments.take();
    for other in [None, Some(others)] {
        world.shown.commitments = other;
        let input = message(&world, 1, keys_message(world.sign_keys(fresh_keys(1))));
        let member = MemberIndex(1);
        refused(&mut world, input, &Reject::Signature { member });
    }
    world.shown.commitments = shown;
    // Who does not contribute opens nothing that counts.
    let (keys, none) = keys_of(&world, 69);
    assert_eq!(none, None);
    let opening = Some(honest);
    let input = message(&world, 69, RoundMessage::Keys { keys, opening });
    world.take(input).unwrap();
    world.inbox.pop_back();
    assert_sum(&world.run(), 0..70);
}

#[test]
fn keys_of_a_member_that_did_not_commit() {
    let federation = Federation::new(70);
    let late = MemberIndex(69);
    let mut world = World::new(&federation);
    world.inbox.pop_back();
    while world.coordinator().phase() == Some(PhaseName::Commit) {
        match world.inbox.pop_front() {
            Some(input) => world.take(input).unwrap(),
            None => {
                world.now = world.coordinator().deadline();
                world.take(Input::Tick).unwrap();
            }
        }
    }
    let input = message(&world, 69, keys_message(world.sign_keys(fresh_keys(69))));
    refused(&mut world, input, &Reject::NotAwaited { member: late });
    assert_sum(&world.run(), 0..69);
}

#[test]
fn a_contributor_that_does_not_open_costs_one_attempt() {
    let federation = Federation::new(70);
    let silent = MemberIndex(1);
    let world = World::new(&federation).silence(&[1], PhaseName::Keys);
    let mut world = world.run();
    assert_eq!(failure(&world), RoundFailure::Beacon { member: silent });
    assert!(!world.coordinator().may_have_revealed());

    world.offenders = [silent].into_iter().collect();
    world.now = Timestamp(1_000_000);
    world.begin(Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    });
    let world = world.run();
    let commitments = world.shown.commitments.as_ref().expect("they were shown");
    let contributors: Vec<_> = commitments.0.keys().map(|member| member.0).collect();
    assert_eq!(contributors, [0, 2, 3, 4, 5]);
    assert_sum(&world, (0..70).filter(|place| *place != 1));
    // No phase has waited for it.
    assert_eq!(world.now, Timestamp(1_000_000));
}

#[test]
fn an_offender_is_not_waited_for_where_members_commit() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    world.offenders = [MemberIndex(69)].into_iter().collect();
    world.begin(Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    });
    let world = world.silence(&[69], PhaseName::Commit).run();
    assert_eq!(world.now, Timestamp(1_000_000));
    assert_sum(&world, 0..69);
}
