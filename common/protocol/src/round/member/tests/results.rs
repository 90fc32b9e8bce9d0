//! M6: the chain of results over the rounds of a run, and the adapters that they name.

use super::*;
use crate::plan::{ServerOptimizerName, ServerPlan};
use crate::round::harness::{RoundOutcome, sign_result};
use crate::round::member::{DoneRound, MemberError};
use crate::round::participant::Refusal;
use crate::wire::messages::RoundResult;
use crate::wire::{Unverified, Verified};
use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;

/// Why the run ended, which is all that happened; from then on every input is ignored.
#[track_caller]
fn ended(world: &mut World<'_>, effects: Vec<MemberEffect>) -> MemberError {
    let Ok([MemberEffect::End(Err(error))]) = <[MemberEffect; 1]>::try_from(effects) else {
        panic!("the run goes on");
    };
    let plan = ToMember::Plan(world.federation.signed_plan());
    let open = ToMember::Open(world.federation.open.clone());
    for message in [plan, open, ToMember::Finished { failure: None }] {
        assert_effects(&world.hand(ME, message), &[]);
    }
    assert_effects(&machine(world).trained(ONE), &[]);
    assert_effects(&machine(world).fetched(None), &[]);
    error
}

/// Takes part in the current round until it has come to a sum; the result is not handed over.
fn round(world: &mut World<'_>) {
    for _ in 0..6 {
        pass(world);
    }
    settle(world);
    assert!(matches!(world.outcome, Some(RoundOutcome::Sum { .. })));
}

#[test]
fn each_round_starts_from_the_result_before() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    round(&mut world);
    let (first, one) = (world.next_adapter(), world.result());
    world.next_round();
    assert_effects(&step(&mut world), &["fetch"]);
    let effects = machine(&mut world).fetched(Some(first.values().to_vec()));
    assert_effects(&effects, &["send fetched", "done 1"]);
    assert_eq!(world.open.adapter, first.digest());
    let ToMember::Open(open) = receive(&mut world) else {
        panic!("the next round opens");
    };
    let effects = world.hand(ME, ToMember::Open(open));
    assert_effects(&effects, &["opened 2/1", "train 2", "send keys"]);
    let MemberEffect::Train(task) = &effects[1] else {
        unreachable!("as shown");
    };
    assert_eq!(task.adapter, first);
    world.pass_on(ME, effects);
    for _ in 0..5 {
        pass(&mut world);
    }
    settle(&mut world);

    let (second, two) = (world.next_adapter(), world.result());
    assert_eq!(two.claimed().previous, one.claimed().digest());
    // The first result again: it is known, and changes nothing.
    assert_effects(&world.hand(ME, ToMember::Result(one)), &[]);
    assert_effects(&world.hand(ME, ToMember::Result(two)), &["fetch"]);
    let effects = machine(&mut world).fetched(Some(second.values().to_vec()));
    assert_effects(&effects, &["send fetched", "done 2"]);
    let effects = world.hand(ME, ToMember::Finished { failure: None });
    let [MemberEffect::End(Ok(outcome))] = &effects[..] else {
        panic!("the run ends");
    };
    assert_eq!((outcome.end.rounds, outcome.took_part), (2, 2));
    assert_eq!(outcome.adapter, second);
}

#[test]
fn a_result_that_does_not_follow_ends_the_run() {
    let federation = Federation::new(4);
    type ResultForgery = fn(&Federation, RoundResult) -> Unverified<RoundResult>;
    let forgeries: [(Refusal, ResultForgery); 4] = [
        (Refusal::ResultSignature, |federation, result| {
            let previous = result.previous;
            Verified::sign(result, &federation.identities[1], &previous)
                .unverified()
                .clone()
        }),
        (Refusal::ResultSignature, |federation, mut result| {
            result.previous = Digest::of("test", b"another chain");
            sign_result(federation, result)
        }),
        (
            Refusal::Result { what: "chain" },
            |federation, mut result| {
                result.previous = Digest::of("test", b"another chain");
                Verified::sign(result, &federation.aggregator, &federation.previous)
                    .unverified()
                    .clone()
            },
        ),
        (
            Refusal::Result {
                what: "list of survivors",
            },
            |federation, mut result| {
                let gone = result.survivors.pop();
                result.dropped.extend(gone);
                sign_result(federation, result)
            },
        ),
    ];
    for (refusal, forge) in forgeries {
        let mut world = World::holding(&federation, ME);
        round(&mut world);
        let result = forge(&federation, world.result().claimed().clone());
        let effects = world.hand(ME, ToMember::Result(result));
        match ended(&mut world, effects) {
            MemberError::Refusal(got) => assert_eq!(got, refusal),
            other => panic!("ended for another reason: {other}"),
        }
    }
}

#[test]
fn a_fetched_adapter_must_be_the_one_that_the_result_names() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    round(&mut world);
    let result = ToMember::Result(world.result());
    let expected = world.next_adapter().digest();
    assert_effects(&world.hand(ME, result), &["fetch"]);
    let first = federation.adapter.values().to_vec();
    let effects = machine(&mut world).fetched(Some(first));
    match ended(&mut world, effects) {
        MemberError::OtherAdapter {
            got,
            expected: named,
        } => {
            assert_eq!((got, named), (federation.adapter.digest(), expected));
        }
        other => panic!("ended for another reason: {other}"),
    }
}

/// The aggregator holds a newer adapter by now: the member goes to the next result.
#[test]
fn a_superseded_adapter_is_not_fetched() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    round(&mut world);
    let one = world.result().claimed().clone();
    let two = RoundResult {
        round: RoundNumber(2),
        previous: one.digest(),
        survivors: vec![MemberIndex(1), MemberIndex(2), MemberIndex(3)],
        dropped: vec![ME],
        ..one
    };
    let first = ToMember::Result(world.result());
    assert_effects(&world.hand(ME, first), &["fetch"]);
    let effects = machine(&mut world).fetched(None);
    assert_effects(&effects, &["done 1"]);
    assert!(matches!(
        effects[..],
        [MemberEffect::RoundDone(DoneRound {
            took_part: true,
            held: None,
            ..
        })]
    ));

    let values = world.next_adapter().values().to_vec();
    let second = ToMember::Result(sign_result(&federation, two));
    assert_effects(&world.hand(ME, second), &["fetch"]);
    let effects = machine(&mut world).fetched(Some(values));
    assert_effects(&effects, &["send fetched", "done 2"]);
    let held = world.next_adapter().digest();
    assert!(matches!(
        effects[1],
        MemberEffect::RoundDone(DoneRound { held: Some(one), .. }) if one == held
    ));
    let effects = world.hand(ME, ToMember::Finished { failure: None });
    let [MemberEffect::End(Ok(outcome))] = &effects[..] else {
        panic!("the run ends");
    };
    assert_eq!((outcome.end.rounds, outcome.took_part), (2, 1));
}

#[test]
fn a_run_without_a_result_or_that_failed_ends_early() {
    let federation = Federation::new(4);
    let finished = |failure: Option<&str>| ToMember::Finished {
        failure: failure.map(str::to_owned),
    };
    for messages in 0..5 {
        let mut world = World::holding(&federation, ME);
        for _ in 0..messages {
            pass(&mut world);
        }
        let effects = world.hand(ME, finished(None));
        assert!(matches!(ended(&mut world, effects), MemberError::NoResult));
    }
    let mut world = World::holding(&federation, ME);
    let effects = world.hand(ME, finished(Some("full")));
    let MemberError::Failed { reason } = ended(&mut world, effects) else {
        panic!("ended for another reason");
    };
    assert_eq!(reason, "full");
    let mut world = World::holding(&federation, ME);
    let reason = "unknown".to_owned();
    let effects = world.hand(ME, ToMember::Refused { reason });
    assert!(matches!(
        ended(&mut world, effects),
        MemberError::Refused { .. }
    ));
}

/// What a member does with a made-up result whose step is this long: it is signed, chained, and its
/// adapter is the one that it names.
fn made_up_step(federation: &Federation, length: f32) -> Result<(), MemberError> {
    let mut world = World::holding(federation, ME);
    round(&mut world);
    let mut values = federation.adapter.values().to_vec();
    values[0] += length;
    let held = &federation.adapter;
    let chosen = Adapter::new(held.config().clone(), held.layout().clone(), values).unwrap();
    let mut result = world.result().claimed().clone();
    result.adapter = chosen.digest();
    let result = ToMember::Result(sign_result(federation, result));
    assert_effects(&world.hand(ME, result), &["fetch"]);
    let effects = machine(&mut world).fetched(Some(chosen.values().to_vec()));
    if matches!(effects[..], [MemberEffect::End(_)]) {
        return Err(ended(&mut world, effects));
    }
    assert_effects(&effects, &["send fetched", "done 1"]);
    Ok(())
}

#[track_caller]
fn largest_step_is(federation: &Federation, most: f32) {
    let server = &federation.plan.server;
    made_up_step(federation, most).unwrap_or_else(|error| panic!("{server:?}: {error}"));
    match made_up_step(federation, 1.02 * most).unwrap_err() {
        MemberError::Refusal(Refusal::Step { most: named, .. }) => {
            assert_eq!(named, f64::from(most), "{server:?}");
        }
        other => panic!("ended for another reason: {other}"),
    }
}

#[test]
fn a_step_that_plan_and_clip_do_not_allow_ends_the_run() {
    let server = |optimizer, momentum, max_step| ServerPlan {
        optimizer,
        momentum,
        max_step,
        ..ServerPlan::default()
    };
    use ServerOptimizerName::{Fedadam, Fedavg, Fedavgm, Fedyogi, Nesterov};
    for (rate, server, most) in [
        (1.0, ServerPlan::default(), 1.0),
        (0.5, ServerPlan::default(), 0.5),
        // 1 / (1 - 0.5) and 0.5 / (1 - 0.75) clips.
        (1.0, server(Fedavgm, Some(0.5), None), 2.0),
        (0.5, server(Nesterov, Some(0.75), None), 2.0),
        // Adaptive steps are scaled down to the clip, whatever the rate.
        (0.01, server(Fedadam, None, None), 1.0),
        (8.0, server(Fedyogi, None, None), 1.0),
        (1.0, server(Fedavg, None, Some(0.25)), 0.25),
        (1.0, server(Fedadam, None, Some(3.0)), 3.0),
    ] {
        let federation = Federation::with_server(4, rate, server.clone());
        largest_step_is(&federation, most);
    }
    // Plain averaging steps as far as the clip.
    largest_step_is(&Federation::with_clip(4, 0.5), 0.5);
}
