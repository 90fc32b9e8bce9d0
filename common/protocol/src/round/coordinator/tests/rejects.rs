//! Every reject: the message is not taken, and the round comes to its sum without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crypto::agreement::{AgreementPublic, AgreementRoot, Encapsulation, Suite};
use crate::crypto::os_rng;
use crate::crypto::shamir::Share;
use crate::fixed::WeightClass;
use crate::ids::{Attempt, MemberIndex, MemberSet, RoundNumber};
use crate::round::coordinator::{Input, Reject};
use crate::round::harness::{
    Federation, RoundOutcome, World, forged, meaningless_reveal, phase_of,
};
use crate::wire::messages::{
    Deal, DealtShares, Keys, PhaseName, RevealedShare, RoundMessage, ShareCommitments, UpdateClaim,
};
use crate::wire::{Unverified, Verified, codec};
use fedlora_common::digest::Digest;

pub(super) fn message(world: &World<'_>, from: u16, message: RoundMessage) -> Input {
    Input::Message {
        from: MemberIndex(from),
        open: world.federation.open.digest().into(),
        message,
    }
}

fn upload(world: &World<'_>, from: u16, claim: Unverified<UpdateClaim>) -> Input {
    Input::Uploaded {
        from: MemberIndex(from),
        open: world.federation.open.digest(),
        claim,
    }
}

/// Takes the honest members' inputs until the coordinator is in `phase`.
pub(super) fn until(world: &mut World<'_>, phase: PhaseName) {
    while world.coordinator().phase() != Some(phase) {
        let input = world.inbox.pop_front().expect("the phase comes");
        world.take(input).unwrap();
    }
    // Signatures beyond the threshold come late: no matter of these tests.
    world.inbox.retain(|input| phase_of(input) == phase as u8);
}

/// The input is rejected for this reason, and the round goes on to its sum.
#[track_caller]
fn rejected(mut world: World<'_>, input: Input, reason: &Reject) {
    let before = (world.coordinator().phase(), world.coordinator().awaited());
    assert_eq!(&world.take(input).unwrap_err(), reason);
    let after = (world.coordinator().phase(), world.coordinator().awaited());
    assert_eq!(before, after);
    let world = world.run();
    let summed = matches!(world.outcome, Some(RoundOutcome::Sum { .. }));
    assert!(summed, "one bad message cost the round");
    world.check_sums();
}

fn fresh(rng: &mut impl rand::CryptoRng) -> AgreementPublic {
    let root = AgreementRoot::random(rng);
    root.key_pair(Suite::Hybrid).public().clone()
}

pub(super) fn fresh_keys(member: u16) -> Keys {
    let mut rng = os_rng();
    Keys {
        member: MemberIndex(member),
        sealing: fresh(&mut rng),
        masking: fresh(&mut rng),
        weight: WeightClass::ONE,
        revealed: RoundNumber(0),
    }
}

pub(super) fn keys_message(keys: Unverified<Keys>) -> RoundMessage {
    let opening = None;
    RoundMessage::Keys { keys, opening }
}

fn signed(federation: &Federation, keys: Keys) -> Unverified<Keys> {
    let key = &federation.identities[usize::from(keys.member.0)];
    Verified::sign(keys, key, &federation.open.digest())
        .unverified()
        .clone()
}

#[test]
fn a_tick_before_the_deadline() {
    let federation = Federation::new(4);
    rejected(World::new(&federation), Input::Tick, &Reject::NotYet);
}

#[test]
fn a_tick_and_a_message_after_the_end() {
    let federation = Federation::new(4);
    let mut world = World::new(&federation).run();
    world.now = fedlora_common::clock::Timestamp(u64::MAX);
    assert_eq!(world.take(Input::Tick).unwrap_err(), Reject::NotYet);
    let late = message(&world, 0, meaningless_reveal(&[0]));
    let reject = world.take(late).unwrap_err();
    assert_eq!(
        reject,
        Reject::Unexpected {
            message: "revealed shares",
            phase: None
        }
    );
    assert_eq!(
        reject.to_string(),
        "revealed shares sent after the end of the round"
    );
}

#[test]
fn an_answer_to_another_opening() {
    let federation = Federation::new(4);
    let mut other = federation.open.clone();
    other.attempt = Attempt(2);
    let world = World::new(&federation);
    let input = Input::Message {
        from: MemberIndex(0),
        open: other.digest().into(),
        message: keys_message(signed(&federation, fresh_keys(0))),
    };
    let reason = Reject::OtherRound {
        round: federation.open.round,
        attempt: federation.open.attempt,
    };
    rejected(world, input, &reason);

    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Updates);
    let input = Input::Uploaded {
        from: MemberIndex(0),
        open: other.digest(),
        claim: world.claim(MemberIndex(0), 0),
    };
    rejected(world, input, &reason);
}

#[test]
fn a_message_of_another_phase() {
    let federation = Federation::new(4);
    let open = federation.open.digest();
    let confirm = RoundMessage::Confirm(federation.identities[0].sign(&open));
    let keys = keys_message(signed(&federation, fresh_keys(0)));
    let shares = RoundMessage::Shares(forged(empty_deal()));
    let held = RoundMessage::Held {
        dealers: MemberSet::default(),
        signature: federation.identities[0].sign(&open),
    };
    let reveal = meaningless_reveal(&[0]);
    let cases = [
        (PhaseName::Keys, shares, "shares"),
        (PhaseName::Shares, keys, "keys"),
        (PhaseName::Held, RoundMessage::Commit(open), "commitment"),
        (PhaseName::Updates, held, "statement of held shares"),
        (
            PhaseName::Confirm,
            RoundMessage::Working,
            "sign of progress",
        ),
        (PhaseName::Updates, confirm, "confirmation"),
        (PhaseName::Confirm, reveal, "revealed shares"),
    ];
    for (phase, sent, name) in cases {
        let mut world = World::new(&federation);
        until(&mut world, phase);
        let input = message(&world, 0, sent);
        let reason = Reject::Unexpected {
            message: name,
            phase: Some(phase),
        };
        rejected(world, input, &reason);
    }
    let world = World::new(&federation);
    let input = upload(&world, 0, world.claim(MemberIndex(0), 0));
    let reason = Reject::Unexpected {
        message: "masked update",
        phase: Some(PhaseName::Keys),
    };
    rejected(world, input, &reason);
}

#[test]
fn a_second_answer_in_every_phase() {
    let federation = Federation::new(5);
    for phase in [
        PhaseName::Keys,
        PhaseName::Shares,
        PhaseName::Held,
        PhaseName::Updates,
        PhaseName::Confirm,
        PhaseName::Reveal,
    ] {
        let mut world = World::new(&federation);
        until(&mut world, phase);
        let first = world.inbox.pop_front().unwrap();
        let again = match &first {
            Input::Message {
                from,
                open,
                message,
            } => Input::Message {
                from: *from,
                open: *open,
                message: message.clone(),
            },
            Input::Uploaded { from, open, claim } => Input::Uploaded {
                from: *from,
                open: *open,
                claim: claim.clone(),
            },
            _ => unreachable!("members send messages and uploads"),
        };
        world.take(first).unwrap();
        let reason = Reject::NotAwaited {
            member: MemberIndex(0),
        };
        rejected(world, again, &reason);
    }
}

#[test]
fn a_member_that_left_or_is_not_on_the_roster() {
    let federation = Federation::new(5);
    let left = MemberIndex(4);
    let mut world = World::new(&federation).silence(&[4], PhaseName::Keys);
    world
        .take(message(&world, 4, RoundMessage::Abstain))
        .unwrap();
    let keys = keys_message(signed(&federation, fresh_keys(4)));
    let input = message(&world, 4, keys);
    rejected(world, input, &Reject::NotAwaited { member: left });

    let mut world = World::new(&federation).silence(&[4], PhaseName::Keys);
    world.take(Input::Absent { member: left }).unwrap();
    let absent = Input::Absent { member: left };
    rejected(world, absent, &Reject::NotAwaited { member: left });

    let stranger = MemberIndex(5);
    let world = World::new(&federation);
    let mut keys = fresh_keys(0);
    keys.member = stranger;
    let input = message(&world, 5, keys_message(forged(keys)));
    rejected(world, input, &Reject::NotAwaited { member: stranger });
}

#[test]
fn an_update_of_a_member_that_shared_nothing() {
    let federation = Federation::new(5);
    let mut world = World::new(&federation).silence(&[4], PhaseName::Shares);
    while world.coordinator().phase() != Some(PhaseName::Updates) {
        match world.inbox.pop_front() {
            Some(Input::Message {
                from: MemberIndex(4),
                message: RoundMessage::Shares(_),
                ..
            }) => {
                world
                    .take(Input::Absent {
                        member: MemberIndex(4),
                    })
                    .unwrap();
            }
            Some(input) => world.take(input).unwrap(),
            None => panic!("the phase comes"),
        }
    }
    let member = MemberIndex(4);
    let input = upload(&world, 4, world.claim(member, 4));
    rejected(world, input, &Reject::NotAwaited { member });
}

#[test]
fn a_message_in_another_members_name() {
    let federation = Federation::new(4);
    let (from, claimed) = (MemberIndex(1), MemberIndex(0));
    let world = World::new(&federation);
    let keys = keys_message(signed(&federation, fresh_keys(0)));
    let input = message(&world, 1, keys);
    rejected(world, input, &Reject::Impersonation { from, claimed });

    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Updates);
    let input = upload(&world, 1, world.claim(claimed, 0));
    rejected(world, input, &Reject::Impersonation { from, claimed });
}

#[test]
fn forged_signatures() {
    let federation = Federation::new(4);
    let member = MemberIndex(0);
    let world = World::new(&federation);
    let input = message(&world, 0, keys_message(forged(fresh_keys(0))));
    rejected(world, input, &Reject::Signature { member });

    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Updates);
    let input = upload(&world, 0, world.claim(member, 1));
    rejected(world, input, &Reject::Signature { member });

    // Masked among others than those that it was told of.
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Updates);
    let body = UpdateClaim {
        dealers: Digest::of("test", b"others"),
        ..*world.claim(member, 0).claimed()
    };
    let claim = Verified::sign(body, &federation.identities[0], &federation.open.digest());
    let input = upload(&world, 0, claim.unverified().clone());
    rejected(world, input, &Reject::Dealers { member });

    // A signature, but of another list than the coordinator's.
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Confirm);
    let other = federation.identities[0].sign(&Digest::of("test", b"another list"));
    let input = message(&world, 0, RoundMessage::Confirm(other));
    rejected(world, input, &Reject::Signature { member });
}

#[test]
fn keys_that_repeat() {
    let federation = Federation::new(4);
    let member = MemberIndex(1);
    let mut own_twice = fresh_keys(1);
    own_twice.masking = own_twice.sealing.clone();
    let mut world = World::new(&federation);
    let first = world.inbox.pop_front().unwrap();
    let Input::Message {
        message: RoundMessage::Keys { keys: taken, .. },
        ..
    } = &first
    else {
        panic!("members send keys first");
    };
    let mut of_another = fresh_keys(1);
    of_another.sealing = taken.claimed().masking.clone();
    world.take(first).unwrap();
    let input = message(&world, 1, keys_message(signed(&federation, of_another)));
    rejected(world, input, &Reject::RepeatedKey { member });

    let world = World::new(&federation);
    let input = message(&world, 1, keys_message(signed(&federation, own_twice)));
    rejected(world, input, &Reject::RepeatedKey { member });
}

#[test]
fn keys_that_every_member_would_refuse() {
    let federation = Federation::new(5);
    let member = MemberIndex(1);
    let highest = federation.plan.aggregation.highest_class().class();
    let mut heavy = fresh_keys(1);
    heavy.weight = WeightClass::try_from(highest + 1).unwrap();
    let mut revealed = fresh_keys(1);
    revealed.revealed = RoundNumber(1);
    let rejects = [
        (
            heavy,
            Reject::Weight {
                member,
                got: highest + 1,
            },
        ),
        (
            revealed,
            Reject::RevealedBefore {
                member,
                revealed: RoundNumber(1),
            },
        ),
    ];
    for (keys, reject) in rejects {
        let world = World::new(&federation);
        let input = message(&world, 1, keys_message(signed(&federation, keys)));
        rejected(world, input, &reject);
    }
    let mut heaviest = fresh_keys(1);
    heaviest.weight = WeightClass::try_from(highest).unwrap();
    let mut world = World::new(&federation);
    let input = message(&world, 1, keys_message(signed(&federation, heaviest)));
    assert_eq!(world.take(input), Ok(()));
}

#[test]
fn weak_keys() {
    let federation = Federation::new(4);
    let classical = AgreementRoot::random(&mut os_rng()).key_pair(Suite::Classical);
    // The first 32 bytes are the point; all zero is of small order.
    let mut bytes = codec::encode(&fresh(&mut os_rng())).unwrap();
    bytes[..32].fill(0);
    let small_order: AgreementPublic = codec::decode(&bytes).unwrap();
    for weak in [classical.public().clone(), small_order] {
        for sealing in [true, false] {
            let mut keys = fresh_keys(1);
            if sealing {
                keys.sealing = weak.clone();
            } else {
                keys.masking = weak.clone();
            }
            let world = World::new(&federation);
            let input = message(&world, 1, keys_message(signed(&federation, keys)));
            let member = MemberIndex(1);
            rejected(world, input, &Reject::WeakKey { member });
        }
    }
}

fn empty_deal() -> Deal {
    let share = Share::from_bytes([0; 32]);
    let pair = (MemberIndex(0), MemberIndex(0));
    Deal {
        member: MemberIndex(0),
        self_mask: Digest::of("test", b""),
        own: ShareCommitments::new(&Digest::of("test", b""), pair, &share, &share),
        shares: BTreeMap::new(),
    }
}

#[test]
fn shares_for_others_than_the_round_has_or_of_another_length() {
    let federation = Federation::new(4);
    type DealChange = fn(&mut BTreeMap<MemberIndex, DealtShares>);
    let changes: [DealChange; 6] = [
        |shares| {
            shares.pop_last();
        },
        |shares| {
            shares.insert(MemberIndex(9), shares[&MemberIndex(1)].clone());
        },
        |shares| {
            shares.insert(MemberIndex(0), shares[&MemberIndex(1)].clone());
        },
        |shares| shares.first_entry().unwrap().get_mut().seal = Encapsulation::default(),
        |shares| shares.first_entry().unwrap().get_mut().mask = Encapsulation::default(),
        |_| (),
    ];
    for (place, change) in changes.into_iter().enumerate() {
        let mut world = World::new(&federation);
        until(&mut world, PhaseName::Shares);
        // The last member encapsulates for nobody's mask.
        let from = if place == 5 { 3 } else { 0 };
        let deal = world.inbox.iter().find_map(|input| match input {
            Input::Message {
                from: sender,
                message: RoundMessage::Shares(deal),
                ..
            } if sender.0 == from => Some(deal.claimed().clone()),
            _ => None,
        });
        let mut deal = deal.expect("members send shares next");
        change(&mut deal.shares);
        if place == 5 {
            let seal = deal.shares[&MemberIndex(0)].seal.clone();
            deal.shares.get_mut(&MemberIndex(0)).unwrap().mask = seal;
        }
        let input = message(&world, from, world.sign_deal(deal));
        let member = MemberIndex(from);
        rejected(world, input, &Reject::Shares { member });
    }
}

#[test]
fn a_deal_in_another_members_name_or_with_a_forged_signature() {
    let federation = Federation::new(4);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Shares);
    let (from, claimed) = (MemberIndex(1), MemberIndex(0));
    let input = message(&world, 1, RoundMessage::Shares(forged(empty_deal())));
    rejected(world, input, &Reject::Impersonation { from, claimed });
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Shares);
    let input = message(&world, 0, RoundMessage::Shares(forged(empty_deal())));
    rejected(world, input, &Reject::Signature { member: claimed });
}

#[test]
fn a_statement_of_shares_that_nobody_dealt_or_with_a_forged_signature() {
    let federation = Federation::new(4);
    let member = MemberIndex(0);
    let signature = federation.identities[0].sign(&federation.open.digest());
    for (dealer, reject) in [
        (9, Reject::Shares { member }),
        (0, Reject::Shares { member }),
        (1, Reject::Signature { member }),
    ] {
        let mut world = World::new(&federation);
        until(&mut world, PhaseName::Held);
        let dealers = [MemberIndex(dealer)].into_iter().collect();
        let input = message(&world, 0, RoundMessage::Held { dealers, signature });
        rejected(world, input, &reject);
    }
}

#[test]
fn a_statement_of_somebody_that_dealt_nothing_or_about_its_shares() {
    let federation = Federation::new(5);
    let (silent, other) = (MemberIndex(4), MemberIndex(0));
    let digest = federation.open.digest();
    for (from, dealers, reject) in [
        (silent, vec![], Reject::NotAwaited { member: silent }),
        (other, vec![silent], Reject::Shares { member: other }),
    ] {
        let mut world = World::new(&federation);
        until(&mut world, PhaseName::Shares);
        world.inbox.pop_back();
        world.take(Input::Absent { member: silent }).unwrap();
        until(&mut world, PhaseName::Held);
        let held = RoundMessage::Held {
            dealers: dealers.into_iter().collect(),
            signature: federation.identities[usize::from(from.0)].sign(&digest),
        };
        let input = message(&world, from.0, held);
        rejected(world, input, &reject);
    }
}

/// A member that denied a share does not reveal it after all.
#[test]
fn a_share_that_its_holder_denied() {
    let federation = Federation::new(6);
    let (member, owner) = (MemberIndex(0), MemberIndex(1));
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Held);
    world.inbox.pop_front();
    let others = [2, 3, 4, 5].map(MemberIndex).into_iter().collect();
    let held = world.sign_held(member, others);
    world.take(message(&world, 0, held)).unwrap();
    until(&mut world, PhaseName::Reveal);
    // What its honest machine reveals.
    let input = world.inbox.pop_front().unwrap();
    rejected(world, input, &Reject::Share { member, owner });
}

#[test]
fn shares_that_were_not_asked_for() {
    let federation = Federation::new(6);
    let dropped = 5;
    let member = MemberIndex(0);
    let seed = RevealedShare::SelfMask([1; 32]);
    let secret = RevealedShare::MaskRoot([1; 32]);
    // The mask root of a survivor, the seed of a dropped member, and of a stranger.
    for (owner, share) in [(1, secret), (dropped, seed.clone()), (9, seed)] {
        let mut world = World::new(&federation).silence(&[dropped], PhaseName::Updates);
        while world.coordinator().phase() != Some(PhaseName::Reveal) {
            match world.inbox.pop_front() {
                Some(input) => world.take(input).unwrap(),
                None => {
                    let member = MemberIndex(dropped);
                    world.take(Input::Absent { member }).unwrap();
                }
            }
        }
        let owner = MemberIndex(owner);
        let signature = federation.identities[0].sign(&federation.open.digest());
        let shares = BTreeMap::from([(owner, share)]);
        let input = message(&world, 0, RoundMessage::Reveal { shares, signature });
        rejected(world, input, &Reject::Share { member, owner });
    }
}

#[test]
fn a_reveal_with_a_forged_signature() {
    let federation = Federation::new(4);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Reveal);
    let input = message(&world, 0, meaningless_reveal(&[0, 1]));
    let member = MemberIndex(0);
    rejected(world, input, &Reject::Signature { member });
}

#[test]
fn a_setup_is_shared_not_copied() {
    let federation = Federation::new(3);
    let setup = federation.setup();
    assert_eq!(setup.digest(), &federation.open.digest());
    assert_eq!(setup.open(), &federation.open);
    assert_eq!(Arc::strong_count(&setup), 1);
}
