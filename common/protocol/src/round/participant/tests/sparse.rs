//! The sparse graph of a large roster: keys, shares and dealers that are not of this member's
//! neighbours, and too few of them.

use std::collections::BTreeMap;

use crate::crypto::os_rng;
use crate::fixed::WeightClass;
use crate::ids::{MemberIndex, MemberSet};
use crate::round::harness::{Federation, Shared};
use crate::round::participant::{ReadyToMask, Refusal};
use crate::wire::messages::{Cohort, Confirmations, DealtShares, PeerKeys};

const ZERO: MemberIndex = MemberIndex(0);

/// How the first of 70 members takes M1, changed; the neighbours are its own.
fn told_keys(change: impl FnOnce(&Sides, &mut PeerKeys)) -> Result<(), Refusal> {
    let federation = Federation::new(70);
    let mut opened = federation.opened();
    let graph = opened.graph();
    let sides = Sides::new(graph.neighbours(ZERO), &federation);
    let mut message = opened.for_member(0);
    change(&sides, &mut message);
    let first = opened.members.remove(0);
    first.peer_keys(message, &mut os_rng()).map(|_| ())
}

/// The first member's neighbours, and a member that is not one of them.
struct Sides {
    neighbours: Vec<MemberIndex>,
    stranger: MemberIndex,
}

impl Sides {
    fn new(neighbours: Vec<MemberIndex>, federation: &Federation) -> Self {
        assert_eq!(neighbours.len(), federation.policy.neighbours());
        let mut others = federation.roster.indices().skip(1);
        let stranger = others.find(|other| !neighbours.contains(other)).unwrap();
        Self {
            neighbours,
            stranger,
        }
    }
}

#[test]
fn keys_of_all_neighbours_are_taken() {
    assert_eq!(told_keys(|_, _| ()), Ok(()));
}

/// Its keys are true: but masks and shares with it would be of the aggregator's choosing.
#[test]
fn keys_of_a_member_that_is_no_neighbour() {
    for instead in [false, true] {
        let mut member = None;
        let refusal = told_keys(|sides, message| {
            let opened = Federation::new(70).opened();
            let theirs = opened.keys[usize::from(sides.stranger.0)].clone();
            if instead {
                message.keys[3] = theirs;
            } else {
                message.keys.push(theirs);
            }
            member = Some(sides.stranger);
        });
        let (message, member) = ("keys", member.unwrap());
        assert_eq!(refusal, Err(Refusal::Stranger { message, member }));
    }
}

#[test]
fn a_neighbours_keys_missing_or_of_another_class() {
    let mut member = None;
    let refusal = told_keys(|_, message| {
        member = Some(message.keys.remove(5).claimed().member);
    });
    let missing = member.unwrap();
    assert_eq!(refusal, Err(Refusal::Cohort { member: missing }));

    let refusal = told_keys(|sides, message| {
        let changed = sides.neighbours[5];
        let mut weights = message.cohort.weights().unwrap();
        let class = weights.get_mut(&changed).unwrap();
        let other = (class.class() + 1) % 4;
        *class = WeightClass::try_from(other).unwrap();
        message.cohort = Cohort::new(&weights);
    });
    assert_eq!(refusal, Err(Refusal::Cohort { member: missing }));
}

/// Enough take part, but so few of this member's neighbours that its secrets would be lost.
#[test]
fn too_few_neighbours_in_the_cohort() {
    let federation = Federation::new(70);
    let needed = federation.policy.threshold();
    for (kept, taken) in [(needed - 1, true), (needed - 2, false)] {
        let refusal = told_keys(|sides, message| {
            let mut weights = message.cohort.weights().unwrap();
            weights.retain(|member, _| !sides.neighbours[kept..].contains(member));
            assert!(weights.len() >= federation.policy.quorum());
            message.cohort = Cohort::new(&weights);
            message.keys.truncate(kept);
        });
        let (message, got) = ("keys", kept + 1);
        let too_few = Refusal::TooFew {
            message,
            got,
            needed,
        };
        assert_eq!(refusal, if taken { Ok(()) } else { Err(too_few) });
    }
}

/// Once all members of a large roster have dealt: the first member's shares, its neighbours, and
/// a member that is not one of them.
fn shared() -> (
    Federation,
    Shared,
    BTreeMap<MemberIndex, DealtShares>,
    Sides,
) {
    let federation = Federation::new(70);
    let opened = federation.opened();
    let sides = Sides::new(opened.graph().neighbours(ZERO), &federation);
    let shared = opened.shared();
    let shares = shared.for_holder(0);
    assert!(shares.keys().eq(&sides.neighbours));
    (federation, shared, shares, sides)
}

#[test]
fn shares_of_a_dealer_that_is_no_neighbour() {
    let (_, mut shared, mut shares, sides) = shared();
    let any = shares[&sides.neighbours[0]].clone();
    shares.insert(sides.stranger, any);
    let refusal = shared.members.remove(0).peer_shares(shares).map(|_| ());
    let (message, member) = ("shares", sides.stranger);
    assert_eq!(refusal, Err(Refusal::Stranger { message, member }));
}

#[test]
fn too_few_dealers_among_the_neighbours() {
    let (federation, mut shared, mut shares, _) = shared();
    let needed = federation.policy.threshold();
    while shares.len() + 1 >= needed {
        shares.pop_last();
    }
    let refusal = shared.members.remove(0).peer_shares(shares).map(|_| ());
    let (message, got) = ("shares", needed - 1);
    assert_eq!(
        refusal,
        Err(Refusal::TooFew {
            message,
            got,
            needed
        })
    );
}

/// How the first member takes these dealers, chosen of all; it has what all its neighbours but
/// `withheld` of them dealt.
fn told_dealers(
    withheld: usize,
    chosen: impl Fn(&Sides, MemberIndex) -> bool,
) -> (Federation, Result<ReadyToMask, Refusal>) {
    let (federation, mut shared, mut shares, sides) = shared();
    for _ in 0..withheld {
        shares.pop_last();
    }
    let (first, _) = shared.members.remove(0).peer_shares(shares).unwrap();
    let dealers = federation.roster.indices();
    let dealers: MemberSet = dealers.filter(|member| chosen(&sides, *member)).collect();
    let told = first.dealers(dealers);
    (federation, told)
}

#[test]
fn dealers_without_the_member_itself_or_with_a_neighbour_that_dealt_it_nothing() {
    let all = told_dealers(0, |_, _| true).1;
    assert!(all.is_ok());
    let left_out = told_dealers(0, |_, member| member != ZERO).1;
    assert_eq!(left_out.err(), Some(Refusal::LeftOut));
    let undealt = told_dealers(1, |_, _| true).1;
    assert!(matches!(undealt, Err(Refusal::Undealt { .. })));
    // Where it is left out, or is no neighbour, nothing is missing.
    let last = |sides: &Sides, member| Some(&member) == sides.neighbours.last();
    let without = told_dealers(1, |sides, member| !last(sides, member)).1;
    assert!(without.is_ok());
}

#[test]
fn too_few_dealers_and_too_few_holders_among_them() {
    let needed = Federation::new(70).policy.quorum();
    let (_, few) = told_dealers(0, |_, member| usize::from(member.0) < needed - 1);
    let (message, got) = ("dealers", needed - 1);
    let too_few = Refusal::TooFew {
        message,
        got,
        needed,
    };
    assert_eq!(few.err(), Some(too_few));

    // Many dealers, most of them not its neighbours.
    let needed = Federation::new(70).policy.threshold();
    for (kept, taken) in [(needed - 1, true), (needed - 2, false)] {
        let (federation, told) = told_dealers(0, |sides, member| {
            let place = sides.neighbours.iter().position(|other| *other == member);
            place.is_none_or(|place| place < kept)
        });
        let dealers = federation.len() - federation.policy.neighbours() + kept;
        assert!(dealers >= federation.policy.quorum());
        let got = kept + 1;
        let too_few = Refusal::TooFew {
            message,
            got,
            needed,
        };
        assert_eq!(told.err(), if taken { None } else { Some(too_few) });
    }
}

/// The aggregator tells one member alone that most of its neighbours have no part in the masks,
/// and everybody else the truth: with its seed, and the roots of the few that it masked with, its
/// update would be bare. Whoever holds a share of its seed sees that it signed other dealers.
#[test]
fn a_survivor_that_was_told_other_dealers() {
    let federation = Federation::new(70);
    let opened = federation.opened();
    let neighbours = opened.graph().neighbours(ZERO);
    let withheld = &neighbours[federation.policy.threshold() - 1..];
    let all: MemberSet = federation.roster.indices().collect();
    let few: MemberSet = all.iter().filter(|one| !withheld.contains(one)).collect();
    let held = opened.shared().held();
    let uploaded = held.told(&federation, |place| match place {
        0 => few.clone(),
        _ => all.clone(),
    });

    let (list, digest) = (uploaded.claims.list(), uploaded.digest(&uploaded.claims));
    let confirmations = Confirmations {
        signatures: federation.confirmations(digest, 1..70),
        claims: uploaded.claimed,
    };
    let ledgers = uploaded.ledgers.into_iter();
    let members = uploaded.members.into_iter().zip(ledgers).enumerate();
    let mut refused = Vec::new();
    for (place, (member, mut ledger)) in members.skip(1) {
        let me = MemberIndex(place as u16);
        let proof = uploaded.claims.proof(me);
        let (member, _) = member.survivors(list.clone(), &proof, &mut ledger).unwrap();
        match member.confirmations(&confirmations, &mut ledger) {
            Ok(_) => {}
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Dealers { member: ZERO });
                refused.push(me);
            }
        }
    }
    assert_eq!(refused, neighbours);
}
