//! Members that break the protocol: who it was, what proves it, and what the round comes to.

use std::collections::BTreeMap;

use crate::crypto::os_rng;
use crate::crypto::shamir::{self, Share};
use crate::ids::{Attempt, MemberIndex};
use crate::round::coordinator::{Fault, Input};
use crate::round::evidence::EvidenceError;
use crate::round::harness::{Federation, RoundOutcome, World, phase_of};
use crate::wire::Verified;
use crate::wire::messages::{
    Open, PhaseName, Reveal, RevealedShare, RoundFailure, RoundMessage, ShareCommitments,
};

/// Runs the round; every message of members goes through `tamper` on its way.
fn run<'a>(world: World<'a>, tamper: impl Fn(MemberIndex, &mut RoundMessage)) -> World<'a> {
    run_but(world, &BTreeMap::new(), tamper)
}

/// Likewise; these members do not answer in these phases.
fn run_but<'a>(
    mut world: World<'a>,
    silent: &BTreeMap<MemberIndex, PhaseName>,
    tamper: impl Fn(MemberIndex, &mut RoundMessage),
) -> World<'a> {
    while world.outcome.is_none() {
        match world.inbox.pop_front() {
            Some(mut input) => {
                let place = phase_of(&input);
                if let Input::Message { from, message, .. } = &mut input {
                    if silent.get(from).is_some_and(|phase| *phase as u8 == place) {
                        continue;
                    }
                    tamper(*from, message);
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

/// The round came to the exact sum of these survivors.
#[track_caller]
fn assert_sum(world: &World<'_>, expected: impl IntoIterator<Item = u16>) {
    let Some(RoundOutcome::Sum { sum, survivors, .. }) = &world.outcome else {
        panic!("the round came to nothing");
    };
    let expected: Vec<_> = expected.into_iter().map(MemberIndex).collect();
    assert_eq!(survivors, &expected);
    assert_eq!(sum, &world.federation.plain_sum(survivors));
}

#[track_caller]
fn failure(world: &World<'_>) -> RoundFailure {
    let Some(RoundOutcome::Failed(failure)) = &world.outcome else {
        panic!("the round came to a sum");
    };
    *failure
}

/// Spoils what `dealer` seals to these holders, under its own signature.
fn garbage<'a>(
    federation: &'a Federation,
    dealer: u16,
    holders: impl Fn(u16) -> bool + 'a,
) -> impl Fn(MemberIndex, &mut RoundMessage) + 'a {
    move |from, message| {
        if let RoundMessage::Shares(deal) = message
            && from.0 == dealer
        {
            let mut changed = deal.claimed().clone();
            for (holder, dealt) in &mut changed.shares {
                if holders(holder.0) {
                    dealt.sealed.0[3] ^= 1;
                }
            }
            *deal = federation.resigned(changed);
        }
    }
}

#[test]
fn a_dealer_of_garbage_is_left_out_before_it_costs_the_round() {
    let federation = Federation::new(10);
    // Of 10 holders 8 must hold its shares, with itself: two may deny them.
    for (spoilt, left_out) in [(9, true), (3, true), (2, false), (1, false)] {
        let tamper = garbage(&federation, 0, |holder| holder <= spoilt);
        let world = run(World::new(&federation), tamper);
        assert_sum(&world, u16::from(left_out)..10);
        if left_out {
            let denied_by = (1..=spoilt).map(MemberIndex).collect();
            let dealer = MemberIndex(0);
            assert_eq!(world.faults, [Fault::Unheld { dealer, denied_by }]);
            assert_eq!(world.faults[0].member(), dealer);
        } else {
            assert_eq!(world.faults, []);
        }
    }
}

/// As many as may deny all others' shares without putting an honest member out.
#[test]
fn holders_that_deny_everybody_put_nobody_out() {
    let federation = Federation::new(10);
    let transcript = federation.transcript();
    // They hold nothing of the others, so they reveal nothing: enough others do.
    let world = World::new(&federation).silence(&[0, 1], PhaseName::Reveal);
    let silenced = world.silent.clone();
    let world = run_but(world, &silenced, |from, message| {
        if let RoundMessage::Held { dealers, signature } = message
            && from.0 < 2
        {
            *dealers = Default::default();
            let statement = crate::wire::messages::HeldShares {
                member: from,
                held: BTreeMap::new(),
            };
            let key = &federation.identities[usize::from(from.0)];
            *signature = Verified::sign(statement, key, &transcript).signature();
        }
    });
    assert_sum(&world, 0..10);
    assert_eq!(world.faults, []);
}

/// Reveals of these members, with every share forged, under their own signatures.
fn forgers<'a>(
    federation: &'a Federation,
    list: impl Fn() -> fedlora_common::digest::Digest + 'a,
    forger: impl Fn(u16) -> bool + 'a,
) -> impl Fn(MemberIndex, &mut RoundMessage) + 'a {
    move |from, message| {
        if let RoundMessage::Reveal { shares, signature } = message
            && forger(from.0)
        {
            for share in shares.values_mut() {
                let (RevealedShare::SelfMask(bytes) | RevealedShare::MaskRoot(bytes)) = share;
                bytes[3] ^= 1;
            }
            let reveal = Reveal {
                member: from,
                list: list(),
                shares: shares.clone(),
            };
            let key = &federation.identities[usize::from(from.0)];
            let signed = Verified::sign(reveal, key, &federation.open.digest());
            *signature = signed.signature();
        }
    }
}

/// The digest that all members sign where the members but `dropped` survive.
fn list_digest(federation: &Federation, world: &World<'_>) -> fedlora_common::digest::Digest {
    let list = world.list.clone().expect("a list was shown");
    let dealers = federation.roster.indices().collect();
    list.digest(&federation.transcript(), &dealers)
}

#[test]
fn forged_shares_are_told_alone_and_named_with_evidence() {
    let federation = Federation::new(10);
    // Seven of ten shares recover: three forgers are withstood, a fourth is not.
    for (forging, dropped, recovers) in [(3, 0, true), (2, 1, true), (4, 0, false)] {
        let silent: Vec<u16> = (0..dropped).collect();
        let mut world = World::new(&federation).silence(&silent, PhaseName::Updates);
        while world.coordinator().phase() != Some(PhaseName::Reveal) {
            match world.inbox.pop_front() {
                Some(input) => world.take_or_late(input),
                None => {
                    let member = MemberIndex(0);
                    world.take(Input::Absent { member }).unwrap();
                }
            }
        }
        world
            .inbox
            .retain(|input| phase_of(input) == PhaseName::Reveal as u8);
        let digest = list_digest(&federation, &world);
        let first = dropped;
        let forger = move |place| (first..first + forging).contains(&place);
        let world = run(world, forgers(&federation, move || digest, forger));
        if recovers {
            assert_sum(&world, dropped..10);
        } else {
            assert_eq!(failure(&world), RoundFailure::Recovery);
        }
        let blamed: Vec<_> = world.faults.iter().map(Fault::member).collect();
        let expected: Vec<_> = (first..first + forging).map(MemberIndex).collect();
        assert_eq!(blamed, expected);
        for fault in &world.faults {
            assert!(matches!(fault, Fault::ForgedShare { .. }), "{fault}");
            let evidence = fault.evidence().expect("a forgery is proved");
            let bytes = crate::wire::codec::encode(evidence).unwrap();
            let evidence: crate::round::evidence::Evidence =
                crate::wire::codec::decode(&bytes).unwrap();
            assert_eq!(evidence.check(&federation.roster), Ok(fault.member()));
            let other = Federation::new(9).roster;
            assert_eq!(evidence.check(&other), Err(EvidenceError::Roster));
        }
    }
}

/// A dealer that commits to shares of no secret: every share opens, and all are what it committed
/// to.
#[test]
fn an_inconsistent_deal_ends_the_round_and_names_its_dealer() {
    let federation = Federation::new(5);
    let transcript = federation.transcript();
    let me = MemberIndex(1);
    let mut world = World::new(&federation);
    // Its true secrets; but it shares two others, and its self-mask commitment stays.
    let tamper = |from: MemberIndex, message: &mut RoundMessage| {
        if let RoundMessage::Shares(deal) = message
            && from == me
        {
            let mut changed = deal.claimed().clone();
            changed.self_mask = crate::crypto::keys::Seed::from_bytes([3; 32]).commitment();
            *deal = federation.resigned(changed);
        }
    };
    world = run(world, tamper);
    assert_eq!(failure(&world), RoundFailure::Deal { member: me });
    let [fault] = &world.faults[..] else {
        panic!("one dealer is named: {:?}", world.faults);
    };
    assert_eq!(fault.member(), me);
    let evidence = fault.evidence().expect("it is proved");
    assert_eq!(evidence.check(&federation.roster), Ok(me));
    // Shares of a polynomial recover, and commitments are to shares of one dealer and holder.
    let secret = [7; 32];
    let shares = shamir::split(&secret, 4, 5, &mut os_rng()).unwrap();
    let pair = (me, MemberIndex(2));
    let commitments = ShareCommitments::new(&transcript, pair, &shares[2], &shares[2]);
    let kind = crate::wire::messages::ShareKind::SelfMask;
    assert!(commitments.open_to(&transcript, pair, kind, &shares[2]));
    let other = Share::from_bytes([8; 32]);
    assert!(!commitments.open_to(&transcript, pair, kind, &other));
    assert!(!commitments.open_to(&transcript, (MemberIndex(2), me), kind, &shares[2]));
}

#[test]
fn a_contributor_that_does_not_open_costs_one_attempt() {
    let federation = Federation::new(70);
    let silent = MemberIndex(1);
    let world = World::new(&federation).silence(&[1], PhaseName::Keys).run();
    assert_eq!(failure(&world), RoundFailure::Beacon { member: silent });

    let mut again = World::new(&federation);
    again.offenders = [silent].into_iter().collect();
    again.begin(Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    });
    let world = again.silence(&[1], PhaseName::Keys).run();
    assert_sum(&world, (0..70).filter(|place| *place != 1));
    // No phase has waited for it.
    assert_eq!(world.now, fedlora_common::clock::Timestamp(1_000_000));
}

#[test]
fn an_offender_is_not_waited_for_and_takes_part_where_it_is_in_time() {
    let federation = Federation::new(5);
    for phase in [
        PhaseName::Keys,
        PhaseName::Shares,
        PhaseName::Held,
        PhaseName::Updates,
    ] {
        let mut world = World::new(&federation);
        world.offenders = [MemberIndex(0)].into_iter().collect();
        world.begin(Open {
            attempt: Attempt(2),
            ..federation.open.clone()
        });
        let world = world.silence(&[0], phase).run();
        assert_eq!(world.now, fedlora_common::clock::Timestamp(1_000_000));
        assert_sum(&world, 1..5);
    }
    // Its messages come before the last of the others'.
    let mut world = World::new(&federation);
    world.offenders = [MemberIndex(0)].into_iter().collect();
    world.begin(Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    });
    assert_sum(&world.run(), 0..5);
}
