//! The coordinator: whole rounds, members that break the protocol, the rejects, and random lists of
//! inputs.

mod beacon;
mod contributors;
mod dealers;
mod faults;
mod groups;
mod operations;
mod rejects;
mod replay;
mod rounds;

use crate::ids::MemberIndex;
use crate::round::coordinator::Input;
use crate::round::harness::{RoundOutcome, World, phase_of};
use crate::wire::messages::{Deal, RoundFailure, RoundMessage};

/// Runs the round; every message of members goes through `tamper` on its way.
fn run<'a>(
    mut world: World<'a>,
    tamper: impl Fn(&World<'a>, MemberIndex, &mut RoundMessage),
) -> World<'a> {
    while world.outcome.is_none() {
        match world.inbox.pop_front() {
            Some(mut input) => {
                let place = phase_of(&input);
                if let Input::Message { from, message, .. } = &mut input {
                    if world
                        .silent
                        .get(from)
                        .is_some_and(|phase| place >= *phase as u8)
                    {
                        continue;
                    }
                    tamper(&world, *from, message);
                }
                world.take_or_late(input);
            }
            None => {
                world.now = world.coordinator().deadline();
                world.take(Input::Tick).unwrap();
            }
        }
    }
    world
}

/// Spoils what dealers seal to holders, by `spoilt(dealer, holder)`, under their own signatures.
fn garbage<'a>(
    spoilt: impl Fn(u16, u16) -> bool,
) -> impl Fn(&World<'a>, MemberIndex, &mut RoundMessage) {
    move |world, from, message| {
        if let RoundMessage::Shares(deal) = message {
            let deal = deal.claimed().clone();
            *message = world.sign_deal(spoil(deal, |holder| spoilt(from.0, holder)));
        }
    }
}

fn spoil(mut deal: Deal, spoilt: impl Fn(u16) -> bool) -> Deal {
    for (holder, dealt) in &mut deal.shares {
        if spoilt(holder.0) {
            dealt.sealed.0[0][3] ^= 1;
        }
    }
    deal
}

/// The round came to the exact sum of these survivors.
#[track_caller]
fn assert_sum(world: &World<'_>, expected: impl IntoIterator<Item = u16>) {
    let Some(RoundOutcome::Sum { survivors, .. }) = &world.outcome else {
        panic!("the round came to nothing");
    };
    let expected: Vec<_> = expected.into_iter().map(MemberIndex).collect();
    assert_eq!(survivors, &expected);
    world.check_sums();
}

#[track_caller]
fn failure(world: &World<'_>) -> RoundFailure {
    let Some(RoundOutcome::Failed(failure)) = &world.outcome else {
        panic!("the round came to a sum");
    };
    *failure
}
