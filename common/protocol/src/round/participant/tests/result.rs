//! M6: the result that does not follow from the round.

use crate::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use crate::round::harness::{AllRevealed, Federation, sign_result};
use crate::round::participant::{Refusal, check_result};
use crate::wire::messages::RoundResult;
use crate::wire::{Unverified, Verified};
use fedlora_common::digest::Digest;

type ResultChange = fn(&mut RoundResult, Digest);

/// The first member's refusal of a changed result that the aggregator did sign.
fn refused(federation: &Federation, change: impl FnOnce(&mut RoundResult)) -> Refusal {
    refused_as_sent(federation, |result| {
        let mut result = result.claimed().clone();
        change(&mut result);
        sign_result(federation, result)
    })
}

/// The first member's refusal of what stands for the result; the true result it takes.
fn refused_as_sent(
    federation: &Federation,
    change: impl FnOnce(Unverified<RoundResult>) -> Unverified<RoundResult>,
) -> Refusal {
    let mut revealed = revealed(federation);
    let (key, previous) = (federation.aggregator.public(), &federation.previous);
    let second = revealed.members.remove(1);
    second
        .result(revealed.result.clone(), &key, previous)
        .expect("the true result is taken");
    let first = revealed.members.remove(0);
    first
        .result(change(revealed.result), &key, previous)
        .unwrap_err()
}

fn revealed(federation: &Federation) -> AllRevealed {
    federation
        .opened()
        .shared()
        .uploaded(federation)
        .signed()
        .revealed(federation)
}

#[test]
fn a_signature_that_is_not_the_aggregators() {
    let federation = Federation::new(4);
    let by_a_member = refused_as_sent(&federation, |result| {
        let body = result.claimed().clone();
        let previous = federation.previous;
        Verified::sign(body, &federation.identities[1], &previous)
            .unverified()
            .clone()
    });
    assert_eq!(by_a_member, Refusal::ResultSignature);
    let changed_after = refused_as_sent(&federation, |result| {
        let bytes = crate::wire::codec::encode(&result).unwrap();
        let mut body = result.claimed().clone();
        body.adapter = Digest::of("test adapter", b"forged");
        let signature = crate::crypto::sign::Signature::from_bytes(
            bytes[bytes.len() - 64..].try_into().unwrap(),
        );
        Unverified::from_parts(body, signature)
    });
    assert_eq!(changed_after, Refusal::ResultSignature);
}

#[test]
fn a_broken_chain() {
    let federation = Federation::new(4);
    let other = Digest::of("test", b"another chain");
    // Signed in the context of another result before, ...
    let refusal = refused(&federation, |result| result.previous = other);
    assert_eq!(refusal, Refusal::ResultSignature);
    // ... or in the right context, naming another.
    let refusal = refused_as_sent(&federation, |result| {
        let body = RoundResult {
            previous: other,
            ..result.claimed().clone()
        };
        Verified::sign(body, &federation.aggregator, &federation.previous)
            .unverified()
            .clone()
    });
    assert_eq!(refusal, Refusal::Result { what: "chain" });

    let result = revealed(&federation).result;
    let key = federation.aggregator.public();
    check_result(result.clone(), &key, &federation.previous).unwrap();
    assert!(check_result(result, &key, &other).is_err());
}

#[test]
fn fields_of_another_round() {
    let federation = Federation::new(6);
    let other = Digest::of("test", b"other");
    let changes: [(&str, ResultChange); 10] = [
        ("run", |result, _| result.run = RunId([1; 16])),
        ("round", |result, _| result.round = RoundNumber(2)),
        ("attempt", |result, _| result.attempt = Attempt(2)),
        ("transcript", |result, other| result.transcript = other),
        ("list of survivors", |result, _| {
            result.survivors.pop();
        }),
        ("list of survivors", |result, _| result.survivors.reverse()),
        ("list of survivors", |result, _| {
            result.survivors.push(MemberIndex(6));
        }),
        ("list of dropped members", |result, _| {
            result.dropped.push(MemberIndex(0));
        }),
        ("total weight", |result, _| result.total_weight = 0),
        ("total weight", |result, _| result.total_weight = 601),
    ];
    for (named, change) in changes {
        let refusal = refused(&federation, |result| change(result, other));
        assert_eq!(refusal, Refusal::Result { what: named });
    }
}

#[test]
fn every_field_of_a_result_is_in_its_digest() {
    let federation = Federation::new(5);
    let result = revealed(&federation).result.claimed().clone();
    let other = Digest::of("test", b"other");
    let changes: [ResultChange; 15] = [
        |result, _| result.run = RunId([1; 16]),
        |result, _| result.round = RoundNumber(2),
        |result, _| result.attempt = Attempt(2),
        |result, other| result.adapter = other,
        |result, other| result.sum = other,
        |result, _| result.total_weight += 1,
        |result, other| result.transcript = other,
        |result, other| result.previous = other,
        |result, _| {
            result.survivors.pop();
        },
        |result, _| result.dropped.push(MemberIndex(3)),
        // The same members, cut elsewhere.
        |result, _| {
            let moved = result.survivors.pop();
            result.dropped.extend(moved);
        },
        |result, _| result.train_loss = None,
        |result, _| result.eval_loss = Some(0.0),
        |result, _| result.clipped = None,
        |result, _| result.votes = None,
    ];
    let mut digests = vec![result.digest()];
    for change in changes {
        let mut changed = result.clone();
        change(&mut changed, other);
        assert!(!digests.contains(&changed.digest()));
        digests.push(changed.digest());
    }
}
