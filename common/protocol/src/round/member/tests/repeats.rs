//! A broken connection: the aggregator repeats what it waits for, and the member answers with
//! the same bytes, in every phase.

use super::*;
use crate::wire::messages::OpenTag;

/// Hands a message over twice: the second answer is the first.
#[track_caller]
fn twice(world: &mut World<'_>) -> (ToMember, Vec<MemberEffect>) {
    let message = receive(world);
    let first = world.hand(ME, message.clone());
    let again = world.hand(ME, message.clone());
    assert_eq!(sent(&first), sent(&again));
    (message, first)
}

/// Plan and roster come again with every new session: ready with the first adapter, the round that
/// the member is in, and no other effect.
#[track_caller]
fn reconnect(world: &mut World<'_>) {
    let open = world.federation.open.digest().into();
    reconnect_in(world, Some(open));
}

#[track_caller]
fn reconnect_in(world: &mut World<'_>, expected: Option<OpenTag>) {
    let plan = ToMember::Plan(world.federation.signed_plan());
    let ToAggregator::Ready(ready) = sent(&world.hand(ME, plan)) else {
        panic!("a plan is answered by ready");
    };
    assert_eq!(ready.adapter, world.federation.adapter.digest());
    let roster = ToMember::Roster(world.federation.roster.as_ref().clone());
    let ToAggregator::Accepted { round, .. } = sent(&world.hand(ME, roster)) else {
        panic!("a roster is answered by its acceptance");
    };
    assert_eq!(round, expected);
}

#[test]
fn every_answer_is_repeated_as_it_was() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);

    // M0: the same keys, and no second training.
    let message = receive(&mut world);
    let mut first = world.hand(ME, message.clone());
    let keys = first.pop().unwrap();
    reconnect(&mut world);
    let again = world.hand(ME, message);
    assert_eq!(sent(&again), sent(std::slice::from_ref(&keys)));
    world.pass_on(ME, vec![keys]);

    // M1: the same shares. M2: the same statement of whose this member holds.
    for _ in 0..2 {
        let (_, first) = twice(&mut world);
        world.pass_on(ME, first);
        reconnect(&mut world);
    }

    // Before the training is done, after it, and after the upload.
    let message = receive(&mut world);
    assert_effects(&world.hand(ME, message.clone()), &[]);
    assert_effects(&world.hand(ME, message.clone()), &[]);
    reconnect(&mut world);
    assert_effects(&machine(&mut world).trained(ONE), &["encode 1/1"]);
    assert_effects(&world.hand(ME, message.clone()), &["encode 1/1"]);
    let first = machine(&mut world).encoded(ONE, FIRST, Ok(update(&federation)));
    // A second encoding has other rounding: it must not be masked with the same masks.
    let second = machine(&mut world).encoded(ONE, FIRST, Ok(update(&federation)));
    assert_effects(&second, &[]);
    let again = world.hand(ME, message);
    let ([MemberEffect::Upload(one)], [MemberEffect::Upload(two)]) = (&first[..], &again[..])
    else {
        panic!("the upload is repeated: {first:?}, {again:?}");
    };
    assert_eq!(one.masked.as_bytes(), two.masked.as_bytes());
    assert_eq!((one.open, &one.claim), (two.open, &two.claim));
    reconnect(&mut world);
    world.pass_on(ME, first);

    // M4, and M5.
    let (_, first) = twice(&mut world);
    world.pass_on(ME, first);
    reconnect(&mut world);
    let (_, first) = twice(&mut world);
    world.pass_on(ME, first);
    reconnect(&mut world);

    // M6: fetched again until it is there, then no more.
    settle(&mut world);
    let result = ToMember::Result(world.result());
    let values = world.next_adapter().values().to_vec();
    assert_effects(&world.hand(ME, result.clone()), &["fetch"]);
    assert_effects(&world.hand(ME, result.clone()), &["fetch"]);
    reconnect_in(&mut world, None);
    let effects = machine(&mut world).fetched(Some(values.clone()));
    assert_effects(&effects, &["send fetched", "done 1"]);
    assert_effects(&machine(&mut world).fetched(Some(values)), &[]);
    assert_effects(&world.hand(ME, result), &[]);
    reconnect_in(&mut world, None);
}

/// Where neighbours are drawn: the same commitment, and no second training; then the same keys and
/// the same opening.
#[test]
fn commitment_and_opening_are_repeated_as_they_were() {
    let federation = Federation::new(70);
    let mut world = World::holding(&federation, ME);
    let message = receive(&mut world);
    let mut first = world.hand(ME, message.clone());
    assert_effects(&first, &["opened 1/1", "train 1", "send commitment"]);
    let commitment = first.pop().unwrap();
    let again = world.hand(ME, message);
    assert_eq!(sent(&again), sent(std::slice::from_ref(&commitment)));
    world.pass_on(ME, vec![commitment]);

    let (_, keys) = twice(&mut world);
    let ToAggregator::Round {
        message: RoundMessage::Keys { opening, .. },
        ..
    } = sent(&keys)
    else {
        panic!("commitments are answered by keys: {keys:?}");
    };
    assert!(opening.is_some());
}

#[test]
fn the_plan_again_asks_for_the_work_again() {
    let federation = Federation::new(4);
    let mut member = Member::new(federation.settings(0));
    let mut ledger = crate::round::participant::MemoryLedger::default();
    let mut pin = crate::round::member::MemoryRosterPin::default();
    let mut stores = crate::round::member::Stores {
        ledger: &mut ledger,
        pin: &mut pin,
    };
    let mut rng = crate::crypto::os_rng();
    for _ in 0..2 {
        let plan = ToMember::Plan(federation.signed_plan());
        let effects = member.message(plan, &mut stores, &mut rng);
        assert_effects(&effects, &["prepare"]);
    }
    assert_effects(&member.prepared(federation.prepared()), &["send ready"]);
    // The work of the second request comes late, and changes nothing.
    assert_effects(&member.prepared(federation.prepared()), &[]);
}
