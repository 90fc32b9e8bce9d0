//! The run's end: when a member lets it end, and with which adapter.

use super::*;
use crate::ids::MemberIndex;
use crate::plan::RunEnd;
use crate::round::harness::sign_result;
use crate::round::member::{MemberError, RunOutcome};
use crate::round::participant::Refusal;
use crate::wire::messages::RoundResult;
use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;

/// A member that takes part in no round, and is told results alone.
pub(super) struct Told<'a> {
    pub(super) world: World<'a>,
    /// The digest of the newest result.
    previous: Digest,
    /// The adapter of each round, the first one included.
    pub(super) adapters: Vec<Adapter>,
}

impl<'a> Told<'a> {
    pub(super) fn new(federation: &'a Federation) -> Self {
        Self {
            world: World::holding(federation, ME),
            previous: federation.previous,
            adapters: vec![federation.adapter.clone()],
        }
    }

    /// The next round's result, which tells this loss of the adapter before. The round moves one
    /// value by `step`.
    fn result(&mut self, loss: f32, step: f32) -> RoundResult {
        let place = self.adapters.len();
        self.result_of(loss, (place, step), 0)
    }

    /// Likewise with these votes; the round moves the value at a place by a step.
    pub(super) fn result_of(
        &mut self,
        loss: f32,
        (place, step): (usize, f32),
        votes: u16,
    ) -> RoundResult {
        let before = &self.adapters[self.adapters.len() - 1];
        let mut values = before.values().to_vec();
        values[place] += step;
        let (config, layout) = (before.config().clone(), before.layout().clone());
        let adapter = Adapter::new(config, layout, values).unwrap();
        let result = RoundResult {
            run: self.world.federation.run,
            round: RoundNumber(self.adapters.len() as u32),
            attempt: FIRST,
            adapter: adapter.digest(),
            sum: Digest::of("test", b"sum"),
            total_weight: 5,
            transcript: Digest::of("test", b"transcript"),
            previous: self.previous,
            survivors: (0..5).map(MemberIndex).collect(),
            dropped: Vec::new(),
            train_loss: Some(loss),
            eval_loss: Some(loss),
            clipped: Some(0),
            votes: Some(votes),
        };
        self.previous = result.digest();
        self.adapters.push(adapter);
        result
    }

    pub(super) fn hand(&mut self, result: RoundResult) -> Vec<MemberEffect> {
        let result = sign_result(self.world.federation, result);
        self.world.hand(ME, ToMember::Result(result))
    }

    /// Follows a round with this loss; fetches its adapter, or misses it.
    fn follow(&mut self, loss: f32, misses: bool) {
        let result = self.result(loss, 0.5);
        assert_effects(&self.hand(result), &["fetch"]);
        let values = self.adapters[self.adapters.len() - 1].values().to_vec();
        let effects = machine(&mut self.world).fetched((!misses).then_some(values));
        let done = &format!("done {}", self.adapters.len() - 1);
        match misses {
            true => assert_effects(&effects, &[done]),
            false => assert_effects(&effects, &["send fetched", done]),
        }
    }

    fn finish(&mut self) -> Vec<MemberEffect> {
        self.world.hand(ME, ToMember::Finished { failure: None })
    }
}

#[track_caller]
fn outcome(effects: Vec<MemberEffect>) -> RunOutcome {
    let Ok([MemberEffect::End(Ok(outcome))]) = <[MemberEffect; 1]>::try_from(effects) else {
        panic!("the run does not end well");
    };
    *outcome
}

#[track_caller]
pub(super) fn error(effects: Vec<MemberEffect>) -> MemberError {
    let Some(MemberEffect::End(Err(error))) = effects.into_iter().last() else {
        panic!("the run does not end early");
    };
    error
}

fn end(planned: u32, rounds: u32, best: u32) -> RunEnd {
    RunEnd {
        planned,
        rounds,
        best: RoundNumber(best),
    }
}

#[test]
fn the_result_is_the_adapter_that_the_losses_choose() {
    let federation = Federation::with_patience(3, None);
    for (losses, best) in [
        ([3.0, 2.0, 2.5], 1),
        ([3.0, 2.0, 2.05], 3),
        ([2.0, 2.5, 2.5], 0),
        ([3.0, 2.5, 2.0], 3),
    ] {
        let mut told = Told::new(&federation);
        for loss in losses {
            told.follow(loss, false);
        }
        let outcome = outcome(told.finish());
        assert_eq!(outcome.end, end(3, 3, best), "{losses:?}");
        assert_eq!(outcome.adapter, told.adapters[best as usize]);
    }
}

#[test]
fn a_member_that_missed_the_result_fetches_it_at_the_end() {
    let federation = Federation::with_patience(3, None);
    let ends = |values: fn(&[Adapter]) -> Option<Vec<f32>>| {
        let mut told = Told::new(&federation);
        told.follow(3.0, true);
        told.follow(2.0, false);
        told.follow(2.5, false);
        let effects = told.finish();
        let [MemberEffect::Fetch { adapter, .. }] = effects[..] else {
            panic!("the result is missing: {effects:?}");
        };
        assert_eq!(adapter, told.adapters[1].digest());
        // Again, after a broken connection.
        assert_effects(&told.finish(), &["fetch"]);
        let values = values(&told.adapters);
        (machine(&mut told.world).fetched(values), told.adapters)
    };
    let (effects, adapters) = ends(|all| Some(all[1].values().to_vec()));
    let outcome = outcome(effects);
    assert_eq!(outcome.end, end(3, 3, 1));
    assert_eq!(outcome.adapter, adapters[1]);

    let (effects, _) = ends(|all| Some(all[2].values().to_vec()));
    assert!(matches!(error(effects), MemberError::OtherAdapter { .. }));
    let (effects, _) = ends(|_| None);
    let MemberError::ResultMissing { round } = error(effects) else {
        panic!("ended for another reason");
    };
    assert_eq!(round, ONE);
}

/// The clip is 1. No two steps lead from the third adapter to one that is 40 away.
#[test]
fn a_result_that_no_steps_lead_to_is_refused() {
    let federation = Federation::with_patience(3, None);
    let mut told = Told::new(&federation);
    let result = told.result(3.0, 40.0);
    assert_effects(&told.hand(result), &["fetch"]);
    machine(&mut told.world).fetched(None);
    let far = told.adapters[1].clone();
    // What follows is near the first adapter again.
    told.adapters[1] = told.adapters[0].clone();
    told.follow(2.0, false);
    told.follow(2.5, false);
    assert_effects(&told.finish(), &["fetch"]);
    let effects = machine(&mut told.world).fetched(Some(far.values().to_vec()));
    assert!(matches!(
        error(effects),
        MemberError::Refusal(Refusal::Step { .. })
    ));
}

#[test]
fn only_plan_and_results_end_a_run() {
    let federation = Federation::with_patience(4, Some(1));
    let after = |losses: &[f32]| {
        let mut told = Told::new(&federation);
        for loss in losses {
            told.follow(*loss, false);
        }
        told
    };
    for losses in [&[2.0][..], &[2.0, 1.9], &[2.0, 1.9, 1.8]] {
        let MemberError::EndedEarly { done, planned } = error(after(losses).finish()) else {
            panic!("ended for another reason");
        };
        assert_eq!((done as usize, planned), (losses.len(), 4));
    }
    for (losses, best) in [(&[2.0, 2.0][..], 2), (&[2.0, 1.5, 1.6], 1)] {
        let outcome = outcome(after(losses).finish());
        let rounds = losses.len() as u32;
        assert_eq!(outcome.end, end(4, rounds, best));
        assert!(outcome.end.stopped_early());
    }
}

#[test]
fn nothing_goes_on_after_the_end() {
    let patient = Federation::with_patience(4, Some(1));
    let short = Federation::with_patience(2, None);
    for federation in [&patient, &short] {
        let mut told = Told::new(federation);
        told.follow(2.0, false);
        told.follow(2.0, false);
        let next = told.result(1.0, 0.5);
        let effects = told.hand(next);
        assert!(matches!(
            error(effects),
            MemberError::Refusal(Refusal::Over {
                last: RoundNumber(2)
            })
        ));
    }
    let mut told = Told::new(&patient);
    told.follow(2.0, false);
    told.follow(2.0, false);
    let mut open = patient.open.clone();
    open.round = RoundNumber(3);
    let effects = told.world.hand(ME, ToMember::Open(open));
    assert!(matches!(
        error(effects),
        MemberError::Refusal(Refusal::Over {
            last: RoundNumber(2)
        })
    ));
}

#[test]
fn a_result_of_a_later_round_than_the_next_is_refused() {
    let federation = Federation::with_patience(3, None);
    let mut told = Told::new(&federation);
    let mut result = told.result(2.0, 0.5);
    result.round = RoundNumber(2);
    let effects = told.hand(result);
    assert!(matches!(
        error(effects),
        MemberError::Refusal(Refusal::Result { what: "round" })
    ));
}
