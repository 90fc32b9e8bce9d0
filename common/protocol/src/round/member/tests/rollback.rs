//! Results by which most members take a step back: what they may change.

use super::ending::{Told, error};
use super::*;
use crate::round::member::{DoneRound, MemberError};
use crate::round::participant::Refusal;

/// A value of A, of B, and another of B.
const PLACES: [usize; 3] = [0, 9, 10];

/// After a first round that moved a value of B by 0.75: what a member does with a second result, of
/// A by the plan, that has so many votes and moves a value.
fn second(votes: u16, place: usize, step: f32) -> (bool, Vec<MemberEffect>) {
    let federation = Federation::alternating();
    let mut told = Told::new(&federation);
    let first = told.result_of(3.0, (PLACES[1], 0.75), 5);
    assert!(!follow(&mut told, first).0, "round 1 has no step before it");
    let result = told.result_of(3.5, (place, step), votes);
    follow(&mut told, result)
}

/// Whether the round counts as one that takes a step back; what else came of it.
fn follow(
    told: &mut Told<'_>,
    result: crate::wire::messages::RoundResult,
) -> (bool, Vec<MemberEffect>) {
    assert_effects(&told.hand(result), &["fetch"]);
    let values = told.adapters[told.adapters.len() - 1].values().to_vec();
    let effects = machine(&mut told.world).fetched(Some(values));
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

#[test]
fn votes_of_most_let_the_factors_of_the_step_before_change() {
    let (back, effects) = second(3, PLACES[1], -0.7);
    assert!(back);
    assert_effects(&effects, &["send fetched", "done 2"]);
    // Two of five are not enough: the round may change A alone.
    let (_, effects) = second(2, PLACES[1], -0.7);
    let refused = error(effects);
    assert!(
        matches!(refused, MemberError::Refusal(Refusal::FrozenFactors)),
        "{refused}"
    );
    let (back, effects) = second(2, PLACES[0], 0.7);
    assert!(!back);
    assert_effects(&effects, &["send fetched", "done 2"]);
}

#[test]
fn what_takes_a_step_back_changes_nothing_else_and_is_no_longer() {
    let (_, effects) = second(3, PLACES[0], -0.7);
    let refused = error(effects);
    assert!(
        matches!(refused, MemberError::Refusal(Refusal::FrozenFactors)),
        "{refused}"
    );
    // The clip, and so the largest step, is 1.
    let (_, effects) = second(5, PLACES[2], 1.02);
    let refused = error(effects);
    assert!(
        matches!(refused, MemberError::Refusal(Refusal::Step { .. })),
        "{refused}"
    );
}
