//! Members that break the protocol after masks are made: who it was, what proves it, and what the
//! round comes to.

use super::{assert_sum, failure, garbage, run};
use crate::crypto::agreement::{AgreementRoot, Encapsulation, Suite};
use crate::crypto::keys::Seed;
use crate::crypto::os_rng;
use crate::crypto::shamir;
use crate::ids::{Attempt, MemberIndex, MemberSet, RoundNumber};
use crate::round::coordinator::{Fault, Input};
use crate::round::evidence::{Breach, Evidence, EvidenceError, Said};
use crate::round::harness::{Federation, World, class_of};
use crate::secagg::PairContext;
use crate::wire::messages::{
    Deal, DealtShares, Keys, Open, PeerKeys, PhaseName, RevealedShare, RoundFailure, RoundMessage,
    SealedShares, ShareCommitments, ToMember,
};
use crate::wire::{Signable, codec};

/// These members forge every share that they reveal, under their own signatures.
fn forging(forger: impl Fn(u16) -> bool) -> impl Fn(&World<'_>, MemberIndex, &mut RoundMessage) {
    move |world, from, message| {
        if let RoundMessage::Reveal { shares, .. } = message
            && forger(from.0)
        {
            let mut shares = shares.clone();
            for share in shares.values_mut() {
                let (RevealedShare::SelfMask(bytes) | RevealedShare::MaskRoot(bytes)) = share;
                bytes[3] ^= 1;
            }
            *message = world.sign_reveal(from, shares);
        }
    }
}

/// The fault's evidence as it is stored, which proves it to who has the roster.
#[track_caller]
fn proved(world: &World<'_>, fault: &Fault) -> Evidence {
    let evidence = fault.evidence().expect("it is proved");
    let bytes = codec::encode(evidence).unwrap();
    let evidence: Evidence = codec::decode(&bytes).unwrap();
    let roster = &world.federation.roster;
    assert_eq!(evidence.check(roster), Ok(fault.member()));
    let other = Federation::new(9).roster;
    assert_eq!(evidence.check(&other), Err(EvidenceError::Roster));
    evidence
}

#[test]
fn forged_shares_are_told_alone_and_named_with_evidence() {
    let federation = Federation::new(10);
    // Seven of ten shares recover: three forgers are withstood, a fourth is not.
    for (forgers, dropped, recovers) in [(3, 0, true), (2, 1, true), (0, 3, true), (4, 0, false)] {
        let silent: Vec<u16> = (0..dropped).collect();
        let world = World::new(&federation).silence(&silent, PhaseName::Updates);
        let forger = move |place| (dropped..dropped + forgers).contains(&place);
        let world = run(world, forging(forger));
        if recovers {
            assert_sum(&world, dropped..10);
        } else {
            assert_eq!(failure(&world), RoundFailure::Recovery);
        }
        let blamed: Vec<_> = world.faults.iter().map(Fault::member).collect();
        let expected: Vec<_> = (dropped..dropped + forgers).map(MemberIndex).collect();
        assert_eq!(blamed, expected);
        for fault in &world.faults {
            assert!(matches!(fault, Fault::ForgedShare { .. }), "{fault}");
            proved(&world, fault);
        }
    }
}

/// Seven reveal, as many as confirm a list and as recover a secret; one of them forges.
#[test]
fn enough_reveals_with_too_few_good_shares_do_not_recover() {
    let federation = Federation::new(10);
    let world = World::new(&federation).silence(&[7, 8, 9], PhaseName::Reveal);
    let world = run(world, forging(|place| place == 0));
    assert_eq!(failure(&world), RoundFailure::Recovery);
}

/// What an honest holder said and revealed is no evidence, whoever claims it.
#[test]
fn there_is_no_evidence_of_an_honest_holder() {
    let federation = Federation::new(10);
    let honest = std::cell::RefCell::new(None);
    let forge = forging(|place| place == 0);
    let world = run(World::new(&federation), |world, from, message| {
        forge(world, from, message);
        if let RoundMessage::Reveal { shares, .. } = message
            && from.0 == 1
        {
            *honest.borrow_mut() = Some(world.signed_reveal(from, shares.clone()));
        }
    });
    let [fault] = &world.faults[..] else {
        panic!("one holder forged: {:?}", world.faults);
    };
    let mut evidence = proved(&world, fault);
    let Breach::ForgedShare {
        owner,
        said,
        reveal,
    } = &mut evidence.breach
    else {
        panic!("it forged a share");
    };
    // Its own share comes first, and it dealt that itself.
    assert_eq!(*owner, MemberIndex(0));
    assert!(matches!(said, Said::Dealt(_)));
    // The honest reveal beside what the forger said, and beside what the honest one said.
    *reveal = honest.take().expect("it revealed");
    assert_eq!(
        evidence.check(&federation.roster),
        Err(EvidenceError::Unrelated)
    );
    let Breach::ForgedShare { said, .. } = &mut evidence.breach else {
        unreachable!("as above");
    };
    let dealers = federation.roster.indices().filter(|dealer| dealer.0 != 1);
    *said = Said::Held(world.signed_held(MemberIndex(1), dealers.collect()));
    assert_eq!(
        evidence.check(&federation.roster),
        Err(EvidenceError::InOrder)
    );
}

#[test]
fn over_a_sparse_graph_dealer_and_forger_are_named_and_the_sum_is_exact() {
    let federation = Federation::new(70);
    let (spoil, forge) = (
        garbage(|dealer, _| dealer == 7),
        forging(|place| place == 0),
    );
    let world = run(World::new(&federation), |world, from, message| {
        spoil(world, from, message);
        forge(world, from, message);
    });
    assert_sum(&world, (0..70).filter(|place| *place != 7));
    let [Fault::Unheld { dealer, .. }, forged] = &world.faults[..] else {
        panic!("two members are named: {:?}", world.faults);
    };
    assert_eq!((*dealer, forged.member()), (MemberIndex(7), MemberIndex(0)));
    let evidence = proved(&world, forged);
    assert!(evidence.joined.beacon.is_some());
}

/// The shares are what it committed to, and recover another seed than it committed to.
#[test]
fn an_inconsistent_deal_of_a_survivor_ends_the_round_and_names_its_dealer() {
    let federation = Federation::new(5);
    let me = MemberIndex(1);
    let world = run(World::new(&federation), |world, from, message| {
        if let RoundMessage::Shares(deal) = message
            && from == me
        {
            let mut changed = deal.claimed().clone();
            changed.self_mask = Seed::from_bytes([3; 32]).commitment();
            *message = world.sign_deal(changed);
        }
    });
    assert_eq!(failure(&world), RoundFailure::Deal { member: me });
    let [fault @ Fault::InconsistentDeal { .. }] = &world.faults[..] else {
        panic!("one dealer is named: {:?}", world.faults);
    };
    assert_eq!(fault.member(), me);
    proved(&world, fault);
}

/// A dealer of its own making, whose shares of the mask root recover another root than that of its
/// key, and which drops out.
#[test]
fn an_inconsistent_deal_of_a_member_that_drops_out_names_its_dealer_too() {
    let federation = Federation::new(5);
    let (me, open) = (MemberIndex(1), federation.open.digest());
    let mut world = World::holding(&federation, me);
    let say = |world: &mut World<'_>, message| {
        world.inbox.push_back(Input::Message {
            from: me,
            open: open.into(),
            message,
        });
    };
    let pair = || AgreementRoot::random(&mut os_rng()).key_pair(Suite::Hybrid);
    let (sealing, masking) = (pair(), pair());
    let keys = Keys {
        member: me,
        sealing: sealing.public().clone(),
        masking: masking.public().clone(),
        weight: class_of(1),
        revealed: RoundNumber(0),
    };
    let own = keys.signed_digest(&open);
    let keys = world.sign_keys(keys);
    say(
        &mut world,
        RoundMessage::Keys {
            keys,
            opening: None,
        },
    );

    world.mailbox.clear();
    let ToMember::PeerKeys(peers) = receive(&mut world) else {
        panic!("keys are answered by keys");
    };
    let transcript = world.transcript();
    let (seed, root) = ([3; 32], [4; 32]);
    let (threshold, holders) = (federation.policy.threshold(), federation.len());
    let split = |secret| shamir::split(secret, threshold, holders, &mut os_rng()).unwrap();
    let (seeds, roots) = (split(&seed), split(&root));
    let committed = |holder: MemberIndex| {
        let place = usize::from(holder.0);
        ShareCommitments::new(&transcript, (me, holder), &seeds[place], &roots[place])
    };
    let PeerKeys { keys: peers, .. } = peers;
    let shares = peers.iter().map(|peer| {
        let peer = peer.claimed();
        let (holder, place) = (peer.member, usize::from(peer.member.0));
        let theirs = peer.signed_digest(&open);
        let pair = PairContext::new(&transcript, (me, &own), (holder, &theirs));
        let mask = pair.initiates().then(|| {
            let (mask, seed) = pair.initiate_mask(&masking, &peer.masking).unwrap();
            (mask, seed)
        });
        let (mask, shared) = match mask {
            Some((mask, shared)) => (mask, Some(shared)),
            None => (Encapsulation::default(), None),
        };
        let sealed = pair.initiate_seal(&sealing, &peer.sealing, shared.as_ref());
        let (seal, key) = sealed.unwrap();
        let commitments = committed(holder);
        let plain = [*seeds[place].expose(), *roots[place].expose()].concat();
        let bound = pair.sent(&commitments.beside(&mask));
        let dealt = DealtShares {
            sealed: SealedShares::new(&key.seal(&plain, bound.as_bytes())).unwrap(),
            commitments,
            seal,
            mask,
        };
        (holder, dealt)
    });
    let deal = Deal {
        member: me,
        self_mask: Seed::from_bytes(seed).commitment(),
        own: committed(me),
        shares: shares.collect(),
    };
    let deal = world.sign_deal(deal);
    say(&mut world, deal);

    assert!(matches!(receive(&mut world), ToMember::PeerShares(_)));
    // It denies the shares of all that it encapsulated for, and says nothing more.
    let held = world.sign_held(me, MemberSet::from_iter([MemberIndex(0)]));
    say(&mut world, held);
    let world = world.run();
    assert_eq!(failure(&world), RoundFailure::Deal { member: me });
    let [fault @ Fault::InconsistentDeal { .. }] = &world.faults[..] else {
        panic!("one dealer is named: {:?}", world.faults);
    };
    assert_eq!(fault.member(), me);
    proved(&world, fault);
}

/// Takes honest inputs until the held member is sent something.
#[track_caller]
fn receive(world: &mut World<'_>) -> ToMember {
    while world.mailbox.is_empty() {
        let input = world.inbox.pop_front().expect("the round goes on");
        world.take(input).unwrap();
    }
    world.mailbox.pop_front().expect("just seen")
}

/// The round with this member as an offender of an earlier attempt.
fn with_offender(federation: &Federation, offender: u16) -> World<'_> {
    let mut world = World::new(federation);
    world.offenders = [MemberIndex(offender)].into_iter().collect();
    world.begin(Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    });
    world
}

#[test]
fn an_offender_is_not_waited_for_in_any_phase() {
    let federation = Federation::new(5);
    for (phase, first) in [
        (PhaseName::Keys, 1),
        (PhaseName::Shares, 1),
        (PhaseName::Held, 1),
        (PhaseName::Updates, 1),
        (PhaseName::Confirm, 0),
        (PhaseName::Reveal, 0),
    ] {
        let world = with_offender(&federation, 0).silence(&[0], phase).run();
        assert_eq!(world.now, fedlora_common::clock::Timestamp(1_000_000));
        assert_sum(&world, first..5);
    }
}

/// Its messages come before the last of the others'.
#[test]
fn an_offender_that_answers_in_time_is_in_the_sum() {
    let federation = Federation::new(5);
    let world = with_offender(&federation, 0).run();
    assert_eq!(world.now, fedlora_common::clock::Timestamp(1_000_000));
    assert_sum(&world, 0..5);
}
