//! Dealers whose shares do not open, and holders that deny good ones: who is left out before masks
//! are made, and what the round comes to.

use super::{assert_sum, failure, garbage, run};
use crate::ids::{MemberIndex, MemberSet};
use crate::round::coordinator::{Fault, Input};
use crate::round::harness::{Federation, World};
use crate::wire::messages::{PhaseName, RoundFailure, RoundMessage};

fn unheld(dealer: u16, denied_by: impl IntoIterator<Item = u16>) -> Fault {
    Fault::Unheld {
        dealer: MemberIndex(dealer),
        denied_by: denied_by.into_iter().map(MemberIndex).collect(),
    }
}

fn denies(holder: u16, dealers: impl IntoIterator<Item = u16>) -> Fault {
    Fault::Denies {
        holder: MemberIndex(holder),
        denies: dealers.into_iter().map(MemberIndex).collect(),
    }
}

#[test]
fn a_holder_that_denies_more_than_may_collude_is_at_fault() {
    for (dealers, certain) in [(2, false), (3, false), (4, true)] {
        assert_eq!(denies(9, 0..dealers).is_certain(3), certain);
    }
}

#[test]
fn faults_name_all_that_are_in_them() {
    for (fault, message) in [
        (
            unheld(0, [1, 2]),
            "member #0 is left out: its shares did not open at #1, #2",
        ),
        (
            denies(3, [4, 5]),
            "member #3 is left out: it says that the shares of #4, #5 did not open",
        ),
    ] {
        assert_eq!(fault.to_string(), message);
    }
}

#[test]
fn a_dealer_of_garbage_is_left_out_before_it_costs_the_round() {
    let federation = Federation::new(10);
    let colluders = federation.policy.colluders();
    for spoilt in [9, 4, 3, 2] {
        let tamper = garbage(|dealer, holder| dealer == 0 && holder <= spoilt);
        let world = run(World::new(&federation), tamper);
        assert_sum(&world, 1..10);
        assert_eq!(world.faults, [unheld(0, 1..=spoilt)]);
        assert_eq!(world.faults[0].member(), MemberIndex(0));
        assert_eq!(world.faults[0].evidence(), None);
        let certain = usize::from(spoilt) > colluders;
        assert_eq!(world.faults[0].is_certain(colluders), certain);
    }
}

/// Of one dealer and one holder either may lie. The holder is left out, and neither is at fault for
/// certain. Above it in the roster the dealer got the mask from the holder, so nothing is in doubt.
#[test]
fn of_one_dealer_and_one_holder_that_denies_it_the_holder_is_left_out() {
    let federation = Federation::new(10);
    let tamper = garbage(|dealer, holder| (dealer, holder) == (4, 7));
    let world = run(World::new(&federation), tamper);
    assert_sum(&world, (0..10).filter(|place| *place != 7));
    assert_eq!(world.faults, [denies(7, [4])]);
    assert!(!world.faults[0].is_certain(federation.policy.colluders()));

    let tamper = garbage(|dealer, holder| (dealer, holder) == (7, 4));
    let world = run(World::new(&federation), tamper);
    assert_sum(&world, 0..10);
    assert_eq!(world.faults, []);
}

/// A mask that the dealer encapsulated otherwise for one holder would stay in the sum.
#[test]
fn a_mask_that_one_holder_has_otherwise_does_not_spoil_the_sum() {
    let federation = Federation::new(6);
    let world = run(World::new(&federation), |world, from, message| {
        if let (MemberIndex(2), RoundMessage::Shares(deal)) = (from, &mut *message) {
            let mut deal = deal.claimed().clone();
            let of_another = deal.shares[&MemberIndex(4)].mask.clone();
            deal.shares.get_mut(&MemberIndex(3)).unwrap().mask = of_another;
            *message = world.sign_deal(deal);
        }
    });
    assert_sum(&world, [0, 1, 2, 4, 5]);
    assert_eq!(world.faults, [denies(3, [2])]);
}

/// Who is left out takes what it holds with it: 1 and 2 have enough holders with 0 alone.
#[test]
fn dealers_that_lose_a_holder_are_counted_again_until_the_rest_have_enough() {
    let federation = Federation::new(10);
    let spoilt = |dealer, holder| match dealer {
        0 => (3..=5).contains(&holder),
        1 => (3..=4).contains(&holder),
        2 => (4..=5).contains(&holder),
        _ => false,
    };
    let world = run(World::new(&federation), garbage(spoilt));
    assert_sum(&world, 3..10);
    let faults = [unheld(0, 3..=5), unheld(1, 3..=4), unheld(2, 4..=5)];
    assert_eq!(world.faults, faults);

    // One denial more leaves six, fewer than the quorum: nobody else is to blame.
    let more = |dealer, holder| spoilt(dealer, holder) || (dealer, holder) == (3, 9);
    let world = run(World::new(&federation), garbage(more));
    let phase = PhaseName::Held;
    let (got, needed) = (6, 7);
    assert_eq!(failure(&world), RoundFailure::Quorum { phase, got, needed });
    assert_eq!(world.faults[..3], faults);
    assert_eq!(world.faults[3..], [unheld(3, [9])]);
}

/// These holders say that they hold nothing.
fn denying(deniers: u16) -> impl Fn(&World<'_>, MemberIndex, &mut RoundMessage) {
    move |world, from, message| {
        if matches!(message, RoundMessage::Held { .. }) && from.0 < deniers {
            *message = world.sign_held(from, MemberSet::default());
        }
    }
}

/// As many as may deny all others' shares without putting an honest member out. The second
/// denies a mask that was encapsulated for it too.
#[test]
fn holders_that_deny_everybody_put_nobody_out_but_themselves() {
    let federation = Federation::new(10);
    for (deniers, left_out) in [(0, 0..0), (1, 0..0), (2, 1..2)] {
        // They hold nothing of the others, so they reveal nothing: enough others do.
        let silent: Vec<u16> = (0..deniers).collect();
        let world = World::new(&federation).silence(&silent, PhaseName::Reveal);
        let world = run(world, denying(deniers));
        assert_sum(&world, (0..10).filter(|place| !left_out.contains(place)));
        assert_eq!(world.faults.len(), left_out.len());
    }
}

#[test]
fn more_holders_that_deny_everybody_cost_the_round_and_are_named() {
    let federation = Federation::new(10);
    let world = run(World::new(&federation), denying(3));
    let phase = PhaseName::Held;
    let (got, needed) = (3, 7);
    assert_eq!(failure(&world), RoundFailure::Quorum { phase, got, needed });
    let faults: Vec<_> = (3..10).map(|dealer| unheld(dealer, 0..3)).collect();
    assert_eq!(world.faults, faults);
}

#[test]
fn over_a_sparse_graph_its_neighbours_alone_deny_a_dealer_of_garbage() {
    let federation = Federation::new(70);
    let world = run(World::new(&federation), garbage(|dealer, _| dealer == 7));
    assert_sum(&world, (0..70).filter(|place| *place != 7));
    let neighbours = world.neighbours_of(MemberIndex(7));
    assert_eq!(world.faults, [unheld(7, neighbours)]);
}

/// So many of one member's neighbours are away that it is left out too: no fault of its own.
#[test]
fn a_member_whose_holders_are_away_is_left_out_and_not_blamed() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    while world.coordinator().phase() != Some(PhaseName::Held) {
        let input = world.inbox.pop_front().expect("the phase comes");
        world.take(input).unwrap();
    }
    let alone = MemberIndex(69);
    let neighbours = world.neighbours_of(alone);
    let away = neighbours.len() + 2 - federation.policy.threshold();
    let away: MemberSet = neighbours.into_iter().take(away).map(MemberIndex).collect();
    for member in away.iter() {
        world.take(Input::Absent { member }).unwrap();
    }
    world.inbox.retain(|input| match input {
        Input::Message { from, .. } => !away.contains(*from),
        _ => true,
    });
    while world.coordinator().phase() == Some(PhaseName::Held) {
        let input = world.inbox.pop_front().expect("the phase ends");
        world.take(input).unwrap();
    }
    assert_eq!(world.coordinator().phase(), Some(PhaseName::Updates));
    let asked = world.coordinator().awaited();
    assert!(asked.len() >= federation.policy.quorum());
    assert!(!asked.contains(&alone));
    assert_eq!(world.faults, []);
}
