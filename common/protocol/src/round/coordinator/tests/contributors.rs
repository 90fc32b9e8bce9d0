//! Who contributes to the beacon, attempt after attempt, and dropouts spread over a sparse round.

use super::{assert_sum, failure};
use crate::ids::{Attempt, MemberIndex, MemberSet};
use crate::round::coordinator::Reject;
use crate::round::harness::{Federation, World};
use crate::wire::messages::{Open, PhaseName, RoundFailure, RoundMessage};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

use super::rejects::message;

fn contributors(world: &World<'_>) -> Vec<u16> {
    let commitments = world.shown.commitments.as_ref().expect("they were shown");
    commitments.0.keys().map(|member| member.0).collect()
}

/// Another attempt, in which no phase waits for the offenders.
fn again(world: &mut World<'_>, attempt: u32, offenders: &MemberSet) {
    world.offenders = offenders.clone();
    world.now = Timestamp(1_000_000);
    world.begin(Open {
        attempt: Attempt(attempt),
        ..world.federation.open.clone()
    });
}

/// Two contributors fail one after the other: each costs one attempt, and none contributes again.
#[test]
fn each_attempt_takes_contributors_that_have_not_failed() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    let mut offenders = MemberSet::new();
    for (attempt, silent, taken) in [(1, 1, [0, 1, 2, 3, 4]), (2, 2, [0, 2, 3, 4, 5])] {
        let member = MemberIndex(silent);
        world = world.silence(&[silent], PhaseName::Keys).run();
        assert_eq!(failure(&world), RoundFailure::Beacon { member });
        assert_eq!(contributors(&world), taken);
        offenders.insert(member);
        again(&mut world, attempt + 1, &offenders);
    }
    let world = world.run();
    assert_eq!(contributors(&world), [0, 3, 4, 5, 6]);
    assert_sum(&world, (0..70).filter(|place| ![1, 2].contains(place)));
    assert_eq!(world.now, Timestamp(1_000_000));
}

#[test]
fn offenders_contribute_where_too_few_others_commit() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    // All but four, of five that it takes.
    again(&mut world, 2, &(4..70).map(MemberIndex).collect());
    // Nobody is waited for but the four: their commitments come last.
    let of_the_four: Vec<_> = world.inbox.drain(..4).collect();
    world.inbox.extend(of_the_four);
    while world.coordinator().phase() == Some(PhaseName::Commit) {
        let input = world.inbox.pop_front().expect("the phase ends");
        world.take(input).unwrap();
    }
    assert_eq!(contributors(&world), [0, 1, 2, 3, 4]);
}

#[test]
fn no_commitment_is_awaited_where_all_are_neighbours_of_all() {
    let federation = Federation::new(5);
    let mut world = World::new(&federation);
    let commitment = RoundMessage::Commit(Digest::of("test", b"commitment"));
    let input = message(&world, 0, commitment);
    let phase = Some(PhaseName::Keys);
    let message = "commitment";
    let reject = world.take(input).unwrap_err();
    assert_eq!(reject, Reject::Unexpected { message, phase });
    assert_sum(&world.run(), 0..5);
}

/// As many dropouts as are assumed, each in another phase.
#[test]
fn over_a_sparse_graph_members_may_drop_out_in_different_phases() {
    let federation = Federation::new(70);
    let world = World::new(&federation)
        .silence(&[60], PhaseName::Commit)
        .silence(&[5], PhaseName::Keys)
        .silence(&[62], PhaseName::Shares)
        .silence(&[33], PhaseName::Updates);
    let world = world.run();
    assert_sum(
        &world,
        (0..70).filter(|place| ![60, 5, 62, 33].contains(place)),
    );
    assert_eq!(world.faults, []);
}
