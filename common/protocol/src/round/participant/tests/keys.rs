//! M1 of all members: forged, swapped, repeated and weak keys, and members that were shown
//! another round or model.

use crate::crypto::keys::{AgreementPublic, AgreementSecret};
use crate::crypto::os_rng;
use crate::fixed::WeightClass;
use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::round::harness::{Federation, forged};
use crate::round::participant::{Expectation, MemoryLedger, Refusal};
use crate::wire::messages::{Keys, Open};
use crate::wire::{Unverified, Verified};
use fedlora_common::digest::Digest;

/// The first member's refusal of the keys, changed.
fn refused(
    federation: &Federation,
    change: impl FnOnce(&Federation, &mut Vec<Unverified<Keys>>),
) -> Refusal {
    let mut opened = federation.opened();
    change(federation, &mut opened.keys);
    let first = opened.members.remove(0);
    first
        .peer_keys(opened.keys, &mut os_rng())
        .map(|_| ())
        .unwrap_err()
}

/// A member's keys with one changed, under the member's own signature: a malicious member.
fn resigned(
    federation: &Federation,
    keys: &Unverified<Keys>,
    change: impl FnOnce(&mut Keys),
) -> Unverified<Keys> {
    let mut body = *keys.claimed();
    let signer = usize::from(body.member.0);
    change(&mut body);
    Verified::sign(
        body,
        &federation.identities[signer],
        &federation.open.digest(),
    )
    .unverified()
    .clone()
}

const MESSAGE: &str = "keys";

#[test]
fn own_keys_left_out_or_swapped() {
    let federation = Federation::new(5);
    let refusal = refused(&federation, |_, keys| {
        keys.remove(0);
    });
    assert_eq!(refusal, Refusal::OwnKeys);
    // With the member's own signature: keys of an earlier life of the same attempt.
    let refusal = refused(&federation, |federation, keys| {
        let other = AgreementSecret::random(&mut os_rng()).public();
        keys[0] = resigned(federation, &keys[0], |own| own.masking = other);
    });
    assert_eq!(refusal, Refusal::OwnKeys);
}

#[test]
fn a_peers_keys_replaced_by_the_aggregators() {
    let federation = Federation::new(5);
    let member = MemberIndex(2);
    let signature = Refusal::Signature {
        message: MESSAGE,
        member,
    };
    let other = AgreementSecret::random(&mut os_rng()).public();
    let changes: [fn(&mut Keys, AgreementPublic); 3] = [
        |keys, other| keys.sealing = other,
        |keys, other| keys.masking = other,
        |keys, _| keys.self_mask = Digest::of("test", b"other"),
    ];
    for change in changes {
        let refusal = refused(&federation, |_, keys| {
            let mut body = *keys[2].claimed();
            change(&mut body, other);
            keys[2] = forged(body);
        });
        assert_eq!(refusal, signature);
        // Signed, but by the aggregator or another member.
        for signer in [&federation.aggregator, &*federation.identities[1]] {
            let refusal = refused(&federation, |federation, keys| {
                let mut body = *keys[2].claimed();
                change(&mut body, other);
                keys[2] = Verified::sign(body, signer, &federation.open.digest())
                    .unverified()
                    .clone();
            });
            assert_eq!(refusal, signature);
        }
    }
    // Another member's true keys under this member's name.
    let refusal = refused(&federation, |_, keys| {
        let mut body = *keys[3].claimed();
        body.member = member;
        keys[2] = forged(body);
    });
    assert_eq!(refusal, signature);
}

#[test]
fn a_key_that_two_members_have() {
    let federation = Federation::new(5);
    let changes: [fn(&mut Keys, &Keys); 4] = [
        |mine, theirs| mine.sealing = theirs.sealing,
        |mine, theirs| mine.masking = theirs.masking,
        |mine, theirs| mine.masking = theirs.sealing,
        |mine, _| mine.masking = mine.sealing,
    ];
    for change in changes {
        let refusal = refused(&federation, |federation, keys| {
            let theirs = *keys[1].claimed();
            keys[3] = resigned(federation, &keys[3], |mine| change(mine, &theirs));
        });
        let member = MemberIndex(3);
        assert_eq!(refusal, Refusal::RepeatedKey { member });
    }
}

#[test]
fn a_member_twice_and_a_stranger() {
    let federation = Federation::new(5);
    let refusal = refused(&federation, |_, keys| keys.push(keys[1].clone()));
    let member = MemberIndex(1);
    assert_eq!(
        refusal,
        Refusal::Repeated {
            message: MESSAGE,
            member
        }
    );
    let refusal = refused(&federation, |_, keys| {
        let mut body = *keys[1].claimed();
        body.member = MemberIndex(5);
        keys.push(forged(body));
    });
    let member = MemberIndex(5);
    assert_eq!(
        refusal,
        Refusal::Stranger {
            message: MESSAGE,
            member
        }
    );
}

#[test]
fn a_sealing_key_of_small_order_or_in_another_form() {
    let federation = Federation::new(5);
    let mut order_one = [0; 32];
    order_one[0] = 1;
    let mut high_bit = AgreementSecret::random(&mut os_rng()).public().0;
    high_bit[31] |= 0x80;
    for point in [[0; 32], order_one, high_bit] {
        let changes: [fn(&mut Keys, AgreementPublic); 2] = [
            |keys, weak| keys.sealing = weak,
            |keys, weak| keys.masking = weak,
        ];
        for change in changes {
            let refusal = refused(&federation, |federation, keys| {
                keys[4] = resigned(federation, &keys[4], |body| {
                    change(body, AgreementPublic(point));
                });
            });
            let member = MemberIndex(4);
            assert_eq!(refusal, Refusal::WeakKey { member });
        }
    }
}

#[test]
fn too_few_members() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.quorum();
        let refusal = refused(&federation, |_, keys| keys.truncate(needed - 1));
        let got = needed - 1;
        assert_eq!(
            refusal,
            Refusal::TooFew {
                message: MESSAGE,
                got,
                needed
            }
        );
    }
}

/// A member that was shown `open`; it holds the adapter that `open` names.
fn keys_under(federation: &Federation, place: usize, open: Open) -> Unverified<Keys> {
    let expected = Expectation {
        adapter: open.adapter,
        ..federation.expected.clone()
    };
    federation.contexts[place]
        .open(open, &expected, &mut MemoryLedger::default(), &mut os_rng())
        .unwrap()
        .1
}

#[test]
fn members_that_were_shown_different_models_refuse_each_other() {
    let federation = Federation::new(5);
    let other = Open {
        adapter: Digest::of("test adapter", b"other"),
        ..federation.open.clone()
    };
    let member = MemberIndex(1);
    let refusal = refused(&federation, |federation, keys| {
        keys[1] = keys_under(federation, 1, other.clone());
    });
    assert_eq!(
        refusal,
        Refusal::Signature {
            message: MESSAGE,
            member
        }
    );

    // And the other way round: the one with the other model refuses the rest.
    let expected = Expectation {
        adapter: other.adapter,
        ..federation.expected.clone()
    };
    let (odd, own) = federation.contexts[1]
        .open(
            other,
            &expected,
            &mut MemoryLedger::default(),
            &mut os_rng(),
        )
        .unwrap();
    let mut keys = federation.opened().keys;
    keys[1] = own;
    assert_eq!(
        odd.peer_keys(keys, &mut os_rng()).map(|_| ()).unwrap_err(),
        Refusal::Signature {
            message: MESSAGE,
            member: MemberIndex(0)
        }
    );
}

#[test]
fn keys_of_another_attempt_or_threshold() {
    let federation = Federation::new(5);
    let opens = [
        Open {
            attempt: Attempt(2),
            ..federation.open.clone()
        },
        Open {
            threshold: 5,
            ..federation.open.clone()
        },
        Open {
            minimum: 5,
            ..federation.open.clone()
        },
    ];
    for other in opens {
        let refusal = refused(&federation, |federation, keys| {
            keys[1] = keys_under(federation, 1, other);
        });
        let member = MemberIndex(1);
        assert_eq!(
            refusal,
            Refusal::Signature {
                message: MESSAGE,
                member
            }
        );
    }
}

/// This member's log is an older copy, or the aggregator replays the round to it alone.
#[test]
fn a_peer_that_revealed_for_this_round_before() {
    let federation = Federation::new(5);
    let refusal = refused(&federation, |federation, keys| {
        keys[3] = resigned(federation, &keys[3], |own| own.revealed = RoundNumber(1));
    });
    assert_eq!(
        refusal,
        Refusal::RevealedBefore {
            member: MemberIndex(3),
            revealed: RoundNumber(1),
            round: RoundNumber(1),
        }
    );
}

#[test]
fn a_peer_that_weighs_more_than_the_plan_allows() {
    let federation = Federation::new(5);
    let most = federation.plan.aggregation.highest_class().class();
    let refusal = refused(&federation, |federation, keys| {
        let above = WeightClass::try_from(most + 1).unwrap();
        keys[3] = resigned(federation, &keys[3], |own| own.weight = above);
    });
    assert_eq!(
        refusal,
        Refusal::Weight {
            member: MemberIndex(3),
            got: most + 1,
            most,
        }
    );
}
