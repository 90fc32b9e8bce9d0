//! Attempts that are given up, and work that comes in for them.

use super::*;
use crate::round::harness::RoundOutcome;
use crate::wire::messages::{Open, PhaseName, RoundFailure};

fn second_attempt(federation: &Federation) -> Open {
    Open {
        attempt: SECOND,
        ..federation.open.clone()
    }
}

fn abandoned(attempt: Attempt) -> ToMember {
    ToMember::Abandoned {
        round: ONE,
        attempt,
        reason: RoundFailure::Quorum {
            phase: PhaseName::Keys,
            got: 1,
            needed: 3,
        },
    }
}

/// Goes on with the current attempt to its sum, with this member in it.
#[track_caller]
fn comes_to_a_sum(mut world: World<'_>) {
    while world.outcome.is_none() {
        match world.mailbox.pop_front() {
            Some(message) => {
                let effects = world.hand(ME, message);
                world.pass_on(ME, effects);
            }
            None => {
                let input = world.inbox.pop_front().expect("the round still has input");
                world.take_or_late(input);
            }
        }
    }
    let Some(RoundOutcome::Sum { survivors, .. }) = &world.outcome else {
        panic!("the round failed");
    };
    assert!(survivors.contains(&ME));
    world.check_sums();
    assert_eq!(world.members[0].left, None);
}

#[test]
fn a_new_attempt_in_the_middle_has_new_keys_and_no_new_training() {
    let federation = Federation::new(4);
    // After keys, shares, statement, upload, and signature.
    for messages in 1..=5 {
        let mut world = World::holding(&federation, ME);
        let first = receive(&mut world);
        let effects = world.hand(ME, first);
        let Some(MemberEffect::Send(old)) = effects.last() else {
            panic!("keys come last");
        };
        let old = old.clone();
        world.pass_on(ME, effects);
        for _ in 1..messages {
            pass(&mut world);
        }
        world.mailbox.clear();
        world.begin(second_attempt(&federation));
        let effects = step(&mut world);
        assert_effects(&effects, &["opened 1/2", "send keys"]);
        let Some(MemberEffect::Send(new)) = effects.last() else {
            panic!("keys come last");
        };
        let (
            ToAggregator::Round {
                open: old_open,
                message: RoundMessage::Keys { keys: old, .. },
            },
            ToAggregator::Round {
                open: new_open,
                message: RoundMessage::Keys { keys: new, .. },
            },
        ) = (&old, new)
        else {
            panic!("both are keys");
        };
        assert_ne!(old_open, new_open);
        assert_ne!(old.claimed().sealing, new.claimed().sealing);
        assert_ne!(old.claimed().masking, new.claimed().masking);
        world.pass_on(ME, effects);
        comes_to_a_sum(world);
    }
}

#[test]
fn an_abandoned_attempts_messages_and_work_are_ignored() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    share_untrained(&mut world);
    let shares = receive(&mut world);
    assert_effects(&world.hand(ME, abandoned(FIRST)), &["abandoned 1/1"]);
    assert_effects(&world.hand(ME, shares.clone()), &[]);
    // The training is of use for the next attempt, but there is none yet.
    assert_effects(&machine(&mut world).trained(ONE), &[]);
    let late = machine(&mut world).encoded(ONE, FIRST, Ok(update(&federation)));
    assert_effects(&late, &[]);

    world.begin(second_attempt(&federation));
    let effects = step(&mut world);
    assert_effects(&effects, &["opened 1/2", "send keys"]);
    assert_effects(&world.hand(ME, shares), &[]);
    world.pass_on(ME, effects);
    comes_to_a_sum(world);
}

#[test]
fn an_update_encoded_for_another_attempt_is_not_masked() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    share_untrained(&mut world);
    assert_effects(&step(&mut world), &[]);
    assert_effects(&machine(&mut world).trained(ONE), &["encode 1/1"]);
    world.mailbox.clear();

    world.begin(second_attempt(&federation));
    pass(&mut world);
    pass(&mut world);
    // Before the masks of the second attempt are ready: not even its own update.
    for attempt in [FIRST, SECOND] {
        let early = machine(&mut world).encoded(ONE, attempt, Ok(update(&federation)));
        assert_effects(&early, &[]);
    }
    pass(&mut world);
    assert_effects(&step(&mut world), &["encode 1/2"]);
    for (round, attempt) in [(ONE, FIRST), (RoundNumber(2), SECOND)] {
        let other = machine(&mut world).encoded(round, attempt, Ok(update(&federation)));
        assert_effects(&other, &[]);
        let failed = Err(crate::fixed::FixedError::NoMembers);
        let other = machine(&mut world).encoded(round, attempt, failed);
        assert_effects(&other, &[]);
    }
    let effects = machine(&mut world).encoded(ONE, SECOND, Ok(update(&federation)));
    assert_effects(&effects, &["upload"]);
    world.pass_on(ME, effects);
    comes_to_a_sum(world);
}

#[test]
fn a_training_for_another_round_is_not_taken_for_this_one() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    share_untrained(&mut world);
    assert_effects(&step(&mut world), &[]);
    assert_effects(&machine(&mut world).trained(RoundNumber(2)), &[]);
    assert_effects(&machine(&mut world).trained(RoundNumber(0)), &[]);
    assert_effects(&machine(&mut world).trained(ONE), &["encode 1/1"]);
}
