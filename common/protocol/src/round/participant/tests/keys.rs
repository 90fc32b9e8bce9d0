//! M1 of all members: forged, swapped, repeated and weak keys, and members that were shown
//! another round or model.

use crate::crypto::agreement::{AgreementPublic, AgreementRoot, Suite};
use crate::crypto::os_rng;
use crate::fixed::WeightClass;
use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::round::harness::{Federation, class_of, forged};
use crate::round::participant::{ExpectPeerKeys, Expectation, MemoryLedger, Opened, Refusal};
use crate::wire::messages::{Cohort, Keys, Open, PeerKeys};
use crate::wire::{Unverified, Verified, codec};
use fedlora_common::digest::Digest;

/// The first member's refusal of the keys, changed.
fn refused(
    federation: &Federation,
    change: impl FnOnce(&Federation, &mut Vec<Unverified<Keys>>),
) -> Refusal {
    refused_message(federation, |federation, message| {
        change(federation, &mut message.keys);
    })
}

/// The first member's refusal of M1 of all, changed. The others' keys follow its own.
fn refused_message(
    federation: &Federation,
    change: impl FnOnce(&Federation, &mut PeerKeys),
) -> Refusal {
    refused_by(federation, 0, change)
}

/// Likewise, of the member at `place`.
fn refused_by(
    federation: &Federation,
    place: u16,
    change: impl FnOnce(&Federation, &mut PeerKeys),
) -> Refusal {
    let mut opened = federation.opened();
    let mut message = opened.for_member(place);
    change(federation, &mut message);
    let member = opened.members.remove(place.into());
    member
        .peer_keys(message, &mut os_rng())
        .map(|_| ())
        .unwrap_err()
}

/// A key that no member has.
fn fresh() -> AgreementPublic {
    let root = AgreementRoot::random(&mut os_rng());
    root.key_pair(Suite::Hybrid).public().clone()
}

/// A member's keys with one changed, under the member's own signature: a malicious member.
fn resigned(
    federation: &Federation,
    keys: &Unverified<Keys>,
    change: impl FnOnce(&mut Keys),
) -> Unverified<Keys> {
    let mut body = keys.claimed().clone();
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
fn left_out_of_the_cohort_or_with_another_weight() {
    let federation = Federation::new(5);
    let refusal = refused_message(&federation, |_, message| {
        message.cohort = cohort(1..5);
    });
    assert_eq!(refusal, Refusal::OwnKeys);
    let refusal = refused_message(&federation, |_, message| {
        message.cohort.classes[0] = WeightClass::try_from(1).unwrap();
    });
    assert_eq!(refusal, Refusal::OwnKeys);
}

/// The cohort of the members at these places, with their weights.
fn cohort(places: impl Iterator<Item = u16>) -> Cohort {
    let weights = places.map(|place| (MemberIndex(place), class_of(place.into())));
    Cohort::new(&weights.collect())
}

#[test]
fn a_cohort_that_is_not_that_of_the_keys() {
    let federation = Federation::new(5);
    let missing = |message: &mut PeerKeys| message.keys.remove(2);
    let refusal = refused_message(&federation, |_, message| drop(missing(message)));
    let member = MemberIndex(3);
    assert_eq!(refusal, Refusal::Cohort { member });
    let refusal = refused_message(&federation, |_, message| {
        message.cohort.classes[3] = WeightClass::ONE;
    });
    assert_eq!(refusal, Refusal::Cohort { member });
    let lengths: [fn(&mut Vec<WeightClass>); 3] = [
        |classes| {
            classes.pop();
        },
        |classes| classes.truncate(2),
        |classes| classes.push(WeightClass::ONE),
    ];
    for change in lengths {
        let refusal = refused_message(&federation, |_, message| {
            change(&mut message.cohort.classes);
        });
        assert_eq!(refusal, Refusal::Classes);
    }
    // The form in which all are of class 0, as this member is and its neighbour is not.
    let refusal = refused_message(&federation, |federation, message| {
        let alike = federation.roster.indices();
        let alike = alike.map(|member| (member, WeightClass::ONE)).collect();
        message.cohort = Cohort::new(&alike);
    });
    let member = MemberIndex(1);
    assert_eq!(refusal, Refusal::Cohort { member });
    // Somebody who is not on the roster takes part.
    let refusal = refused_message(&federation, |_, message| message.cohort = cohort(0..6));
    let (message, member) = (MESSAGE, MemberIndex(5));
    assert_eq!(refusal, Refusal::Stranger { message, member });
    // A class that the plan does not allow.
    let most = federation.plan.aggregation.highest_class().class();
    let refusal = refused_message(&federation, |_, message| {
        message.cohort.classes[3] = WeightClass::try_from(most + 1).unwrap();
    });
    let (member, got) = (MemberIndex(3), most + 1);
    assert_eq!(refusal, Refusal::Weight { member, got, most });
    // One whose keys are there is left out: it would be a stranger to the others.
    let refusal = refused_message(&federation, |_, message| message.cohort = cohort(0..4));
    let member = MemberIndex(4);
    assert_eq!(refusal, Refusal::Cohort { member });
}

#[test]
fn a_peers_keys_replaced_by_the_aggregators() {
    let federation = Federation::new(5);
    let member = MemberIndex(2);
    let signature = Refusal::Signature {
        message: MESSAGE,
        member,
    };
    let other = fresh();
    let changes: [fn(&mut Keys, AgreementPublic); 3] = [
        |keys, other| keys.sealing = other,
        |keys, other| keys.masking = other,
        |keys, _| keys.weight = WeightClass::ONE,
    ];
    for change in changes {
        let refusal = refused(&federation, |_, keys| {
            let mut body = keys[1].claimed().clone();
            change(&mut body, other.clone());
            keys[1] = forged(body);
        });
        assert_eq!(refusal, signature);
        // Signed, but by the aggregator or another member.
        for signer in [&federation.aggregator, &*federation.identities[1]] {
            let refusal = refused(&federation, |federation, keys| {
                let mut body = keys[1].claimed().clone();
                change(&mut body, other.clone());
                keys[1] = Verified::sign(body, signer, &federation.open.digest())
                    .unverified()
                    .clone();
            });
            assert_eq!(refusal, signature);
        }
    }
    // Another member's true keys under this member's name.
    let refusal = refused(&federation, |_, keys| {
        let mut body = keys[2].claimed().clone();
        body.member = member;
        keys[1] = forged(body);
    });
    assert_eq!(refusal, signature);
}

#[test]
fn a_key_that_two_members_have() {
    let federation = Federation::new(5);
    let changes: [fn(&mut Keys, &Keys); 4] = [
        |mine, theirs| mine.sealing = theirs.sealing.clone(),
        |mine, theirs| mine.masking = theirs.masking.clone(),
        |mine, theirs| mine.masking = theirs.sealing.clone(),
        |mine, _| mine.masking = mine.sealing.clone(),
    ];
    for change in changes {
        let refusal = refused(&federation, |federation, keys| {
            let theirs = keys[0].claimed().clone();
            keys[2] = resigned(federation, &keys[2], |mine| change(mine, &theirs));
        });
        let member = MemberIndex(3);
        assert_eq!(refusal, Refusal::RepeatedKey { member });
    }
}

#[test]
fn a_member_twice_and_a_stranger() {
    let federation = Federation::new(5);
    let refusal = refused(&federation, |_, keys| keys.push(keys[0].clone()));
    let member = MemberIndex(1);
    assert_eq!(
        refusal,
        Refusal::Repeated {
            message: MESSAGE,
            member
        }
    );
    let refusal = refused(&federation, |_, keys| {
        let mut body = keys[0].claimed().clone();
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
fn a_key_that_adds_no_secret_or_is_of_another_suite() {
    let federation = Federation::new(5);
    let classical = AgreementRoot::random(&mut os_rng()).key_pair(Suite::Classical);
    // The first 32 bytes are the point; all zero is of small order.
    let mut bytes = codec::encode(&fresh()).unwrap();
    bytes[..32].fill(0);
    let small_order: AgreementPublic = codec::decode(&bytes).unwrap();
    for weak in [classical.public().clone(), small_order] {
        let changes: [fn(&mut Keys, AgreementPublic); 2] = [
            |keys, weak| keys.sealing = weak,
            |keys, weak| keys.masking = weak,
        ];
        for change in changes {
            let refusal = refused(&federation, |federation, keys| {
                keys[3] = resigned(federation, &keys[3], |body| change(body, weak.clone()));
            });
            let member = MemberIndex(4);
            assert_eq!(refusal, Refusal::WeakKey { member });
            // The last member makes no mask with the first one's key, and refuses it all the same.
            let refusal = refused_by(&federation, 4, |federation, PeerKeys { keys, .. }| {
                keys[0] = resigned(federation, &keys[0], |body| change(body, weak.clone()));
            });
            let member = MemberIndex(0);
            assert_eq!(refusal, Refusal::WeakKey { member });
        }
    }
}

#[test]
fn too_few_members() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let needed = federation.policy.quorum();
        let got = needed - 1;
        let refusal = refused_message(&federation, |_, message| {
            message.cohort = cohort(0..got as u16);
            message.keys.truncate(got - 1);
        });
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
    opened(federation, place, open, &expected).1
}

fn opened(
    federation: &Federation,
    place: usize,
    open: Open,
    expected: &Expectation,
) -> (ExpectPeerKeys, Unverified<Keys>) {
    let mut ledger = MemoryLedger::default();
    let opened = federation.contexts[place].open(open, expected, &mut ledger, &mut os_rng());
    let Ok(Opened::Keys(member, keys)) = opened else {
        panic!("the member answers with its keys");
    };
    (member, keys)
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
        keys[0] = keys_under(federation, 1, other.clone());
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
    let (odd, _) = opened(&federation, 1, other, &expected);
    let message = federation.opened().for_member(1);
    assert_eq!(
        odd.peer_keys(message, &mut os_rng())
            .map(|_| ())
            .unwrap_err(),
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
            keys[0] = keys_under(federation, 1, other);
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
        keys[2] = resigned(federation, &keys[2], |own| own.revealed = RoundNumber(1));
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
        keys[2] = resigned(federation, &keys[2], |own| own.weight = above);
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
