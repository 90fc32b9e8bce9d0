//! Messages of a wrong phase change nothing. Messages that are wrong in themselves make the
//! member leave the round, or the run where they concern all of it.

use std::collections::BTreeMap;

use super::*;
use crate::crypto::sign::Signature;
use crate::ids::MemberSet;
use crate::round::harness::forged;
use crate::round::member::{LeaveReason, MemberError};
use crate::round::participant::{LedgerError, Refusal};
use crate::wire::messages::{Cohort, Commitments, Confirmations, Open, PeerKeys, Survivors};
use fedlora_common::digest::Digest;

/// What the others could send out of turn.
fn out_of_turn() -> [ToMember; 6] {
    let keys = PeerKeys {
        cohort: Cohort::default(),
        openings: BTreeMap::new(),
        keys: Vec::new(),
    };
    [
        ToMember::PeerKeys(keys),
        ToMember::PeerShares(BTreeMap::new()),
        ToMember::Dealers(MemberSet::default()),
        ToMember::Survivors {
            list: Survivors::default().list(),
            proof: Vec::new(),
        },
        ToMember::Confirmations(Confirmations::default()),
        ToMember::Commitments(Commitments::default()),
    ]
}

#[test]
fn messages_of_another_phase_change_nothing() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    // The messages that each phase does wait for, or repeats its answer to, by place.
    let waits_for: [&[usize]; 7] = [&[], &[0], &[0, 1], &[1, 2], &[2, 3], &[3, 4], &[4]];
    for taken in waits_for {
        for (place, message) in out_of_turn().into_iter().enumerate() {
            // Where all are neighbours of all, keys are repeated for commitments, and do no harm.
            let repeated = place == 5 && *taken == [0];
            if !(repeated || taken.contains(&place)) {
                assert_effects(&world.hand(ME, message), &[]);
            }
        }
        if taken != [4] {
            pass(&mut world);
        }
    }
    settle(&mut world);
    let result = ToMember::Result(world.result());
    assert_effects(&world.hand(ME, result), &["fetch"]);
    for message in out_of_turn() {
        assert_effects(&world.hand(ME, message), &[]);
    }
}

/// The member leaves the round that `open` began, with an abstention that names it; what the
/// others still send of the round is ignored.
#[track_caller]
fn left(world: &mut World<'_>, effects: &[MemberEffect], open: &Open) -> LeaveReason {
    let [
        MemberEffect::Left { round, reason },
        MemberEffect::Send(abstain),
        ..,
    ] = effects
    else {
        panic!("the member stays: {effects:?}");
    };
    assert_eq!(*round, open.round);
    let expected = ToAggregator::Round {
        open: open.digest().into(),
        message: RoundMessage::Abstain,
    };
    assert_eq!(*abstain, expected);
    for message in out_of_turn() {
        assert_effects(&world.hand(ME, message), &[]);
    }
    assert_effects(&machine(world).trained(ONE), &[]);
    let update = world.federation.update(0);
    let late = machine(world).encoded(ONE, open.attempt, Ok(update));
    assert_effects(&late, &[]);
    reason.clone()
}

#[test]
fn an_opening_that_differs_from_the_members_own_copy_is_refused() {
    let federation = Federation::new(4);
    let other = Digest::of("test", b"other");
    type OpenChange = fn(&mut Open, Digest);
    let changes: [(bool, OpenChange); 7] = [
        (false, |open, other| open.adapter = other),
        (true, |open, _| open.run.0[0] ^= 1),
        (true, |open, other| open.roster = other),
        (true, |open, other| open.plan = other),
        (true, |open, _| open.suite -= 1),
        (true, |open, _| open.threshold = 1),
        (true, |open, _| open.clip = 2.0),
    ];
    for (ends_the_run, change) in changes {
        let mut world = World::holding(&federation, ME);
        let honest = receive(&mut world);
        let mut open = federation.open.clone();
        change(&mut open, other);
        let effects = world.hand(ME, ToMember::Open(open.clone()));
        let LeaveReason::Refusal(refusal) = left(&mut world, &effects, &open) else {
            panic!("left for another reason");
        };
        match effects.get(2) {
            Some(MemberEffect::End(Err(MemberError::Refusal(end)))) if ends_the_run => {
                assert_eq!(*end, refusal);
                assert_effects(&world.hand(ME, honest), &[]);
            }
            None if !ends_the_run => {
                let expected = Refusal::Adapter {
                    got: other,
                    own: federation.adapter.digest(),
                };
                assert_eq!(refusal, expected);
                // Nothing was noted: the honest M0 still opens.
                let effects = world.hand(ME, honest);
                assert_effects(&effects, &["opened 1/1", "train 1", "send keys"]);
            }
            _ => panic!("ends the run: {ends_the_run}, but {effects:?}"),
        }
    }
}

#[test]
fn an_attempt_that_was_left_is_not_opened_again() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    pass(&mut world);
    let second = Open {
        attempt: SECOND,
        ..federation.open.clone()
    };
    let effects = world.hand(ME, ToMember::Open(second));
    assert_effects(&effects, &["opened 1/2", "send keys"]);
    let first = federation.open.clone();
    let effects = world.hand(ME, ToMember::Open(first.clone()));
    let reason = left(&mut world, &effects, &first);
    let expected = LedgerError::Replayed {
        round: ONE,
        attempt: FIRST,
        last_round: ONE,
        last_attempt: SECOND,
    };
    assert_eq!(reason, LeaveReason::Refusal(Refusal::Ledger(expected)));
    assert_eq!(effects.len(), 2, "the run goes on");
}

#[test]
fn a_refused_message_ends_the_round_and_the_next_attempt_opens() {
    let federation = Federation::new(4);
    type MessageForgery = fn(ToMember) -> (ToMember, Refusal);
    let forgeries: [MessageForgery; 5] = [
        |message| {
            let ToMember::PeerKeys(mut keys) = message else {
                panic!("keys come first");
            };
            keys.keys[0] = forged(keys.keys[0].claimed().clone());
            let message = "keys";
            let member = MemberIndex(1);
            (
                ToMember::PeerKeys(keys),
                Refusal::Signature { message, member },
            )
        },
        |message| {
            let ToMember::PeerShares(mut shares) = message else {
                panic!("shares come second");
            };
            let sealed = shares[&MemberIndex(1)].clone();
            shares.insert(MemberIndex(9), sealed);
            let refusal = Refusal::Stranger {
                message: "shares",
                member: MemberIndex(9),
            };
            (ToMember::PeerShares(shares), refusal)
        },
        |message| {
            let ToMember::Dealers(dealers) = message else {
                panic!("the dealers come third");
            };
            let others = dealers.iter().filter(|member| *member != ME).collect();
            (ToMember::Dealers(others), Refusal::LeftOut)
        },
        |message| {
            let ToMember::Survivors { mut list, proof } = message else {
                panic!("the list comes fourth");
            };
            list.members = list.members.iter().filter(|member| *member != ME).collect();
            (ToMember::Survivors { list, proof }, Refusal::OwnUpdate)
        },
        |message| {
            let ToMember::Confirmations(mut confirmations) = message else {
                panic!("signatures come last");
            };
            let signatures = &mut confirmations.signatures;
            let member = *signatures.keys().next().unwrap();
            signatures.insert(member, Signature::from_bytes([1; 64]));
            let message = "confirmations";
            (
                ToMember::Confirmations(confirmations),
                Refusal::Signature { message, member },
            )
        },
    ];
    for (before, forge) in forgeries.into_iter().enumerate() {
        let mut world = World::holding(&federation, ME);
        pass(&mut world);
        for _ in 0..before {
            pass(&mut world);
        }
        let (message, refusal) = forge(receive(&mut world));
        let effects = world.hand(ME, message);
        let reason = left(&mut world, &effects, &federation.open);
        assert_eq!(reason, LeaveReason::Refusal(refusal));
        assert_eq!(effects.len(), 2, "the run goes on");
        let second = Open {
            attempt: SECOND,
            ..federation.open.clone()
        };
        let effects = world.hand(ME, ToMember::Open(second));
        assert_effects(&effects, &["opened 1/2", "send keys"]);
    }
}

#[test]
fn an_update_that_does_not_fit_leaves_the_round() {
    let federation = Federation::new(4);
    let mut world = World::holding(&federation, ME);
    share_untrained(&mut world);
    step(&mut world);
    machine(&mut world).trained(ONE);
    let error = crate::fixed::FixedError::NoMembers;
    let effects = machine(&mut world).encoded(ONE, FIRST, Err(error));
    let reason = left(&mut world, &effects, &federation.open);
    assert_eq!(reason, LeaveReason::Encoding(error));
    assert_eq!(effects.len(), 2, "the run goes on");
}
