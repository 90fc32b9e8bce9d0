//! Results by which most members take a step back: what they may change.

use super::ending::{Told, error};
use super::*;
use crate::round::member::{DoneRound, MemberError};
use crate::round::participant::Refusal;
use crate::wire::messages::RoundResult;

/// A value of A, of B, and another of B.
const PLACES: [usize; 3] = [0, 9, 10];
/// What 15/16 of the way back from a step of 0.75 is.
const BACK: f32 = -0.703_125;

/// After a first round that moved a value of B by 0.75, whose adapter the member fetched or missed:
/// what it does with a second result, of A by the plan, that has so many votes and moves a value.
/// Whether the round counts as one that takes a step back; what else came of it.
fn second(missed: bool, votes: u16, place: usize, step: f32) -> (bool, Vec<MemberEffect>) {
    let federation = Federation::alternating();
    let mut told = Told::new(&federation);
    let first = told.result_of(3.0, (PLACES[1], 0.75), 5);
    let (back, _) = follow(&mut told, first, missed);
    assert!(!back, "round 1 has no step before it");
    let result = told.result_of(3.5, (place, step), votes);
    follow(&mut told, result, false)
}

fn follow(told: &mut Told<'_>, result: RoundResult, missed: bool) -> (bool, Vec<MemberEffect>) {
    assert_effects(&told.hand(result), &["fetch"]);
    let values = told.adapters[told.adapters.len() - 1].values().to_vec();
    let effects = machine(&mut told.world).fetched((!missed).then_some(values));
    let back = effects.iter().any(|effect| {
        matches!(
            effect,
            MemberEffect::RoundDone(DoneRound {
                taken_back: true,
                ..
            })
        )
    });
    (back, effects)
}

#[track_caller]
fn refused((_, effects): (bool, Vec<MemberEffect>)) -> Refusal {
    match error(effects) {
        MemberError::Refusal(refusal) => refusal,
        other => panic!("ended for another reason: {other}"),
    }
}

#[test]
fn votes_of_most_take_the_step_before_back_and_nothing_else() {
    let (back, effects) = second(false, 3, PLACES[1], BACK);
    assert!(back);
    assert_effects(&effects, &["send fetched", "done 2"]);
    // Further, less far, another value of B, one of A.
    for (place, step) in [
        (PLACES[1], -0.75),
        (PLACES[1], -0.7),
        (PLACES[2], BACK),
        (PLACES[0], BACK),
    ] {
        assert_eq!(refused(second(false, 5, place, step)), Refusal::StepBack);
    }
}

#[test]
fn two_of_five_votes_take_nothing_back() {
    let other = refused(second(false, 2, PLACES[1], BACK));
    assert_eq!(other, Refusal::FrozenFactors);
    let (back, effects) = second(false, 2, PLACES[0], 0.7);
    assert!(!back);
    assert_effects(&effects, &["send fetched", "done 2"]);
}

/// Who missed the adapter before cannot tell where the step came from: it allows as much as that step.
#[test]
fn who_missed_the_step_allows_its_factors_and_its_length() {
    let (back, effects) = second(true, 3, PLACES[1], BACK);
    assert!(back);
    assert_effects(&effects, &["send fetched", "done 2"]);
    let other = refused(second(true, 3, PLACES[0], BACK));
    assert_eq!(other, Refusal::FrozenFactors);
    // The clip, and so the largest step, is 1; the two steps are 2 at the most.
    let other = refused(second(true, 5, PLACES[1], 1.3));
    assert!(matches!(other, Refusal::Step { .. }), "{other}");
}
