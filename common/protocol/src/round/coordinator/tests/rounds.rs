//! Whole rounds among honest members, with and without dropouts in every phase.

use super::rejects::until;
use super::replay::is_genuine;
use crate::fixed::LaneBits;
use crate::ids::MemberIndex;
use crate::round::coordinator::{Coordinator, Event, Input};
use crate::round::harness::{Federation, RoundOutcome, World, class_of};
use crate::round::member::{DoneRound, MemberEffect, MemberError};
use crate::wire::codec;
use crate::wire::messages::{PhaseName, RoundFailure, ToAggregator, ToMember};

pub(super) const PHASES: [PhaseName; 6] = [
    PhaseName::Keys,
    PhaseName::Shares,
    PhaseName::Held,
    PhaseName::Updates,
    PhaseName::Confirm,
    PhaseName::Reveal,
];

/// The round's sum is exactly that of the survivors' updates; every member takes the result;
/// replaying the journal gives the same.
pub(super) fn check_sum(world: World<'_>, expected: &[u16]) {
    let federation = world.federation;
    let Some(RoundOutcome::Sum {
        sum,
        survivors,
        dropped,
        transcript,
    }) = &world.outcome
    else {
        panic!("the round came to nothing");
    };
    let expected: Vec<_> = expected.iter().copied().map(MemberIndex).collect();
    assert_eq!(survivors, &expected);
    assert_eq!(survivors.len() + dropped.len(), federation.len());
    world.check_sums();
    let parts = sum.parts();
    let (mean, spoilt) = world.step().unwrap();
    assert_eq!(spoilt, 0);
    assert_eq!(mean.train_loss.is_some(), survivors.len() >= 5);
    let weight: u64 = survivors
        .iter()
        .map(|member| class_of(usize::from(member.0)).weight())
        .sum();
    assert_eq!((parts.survivors, parts.weight), (survivors.len(), weight));

    let (_, replayed) = replay(federation, &world.journal);
    assert_eq!(
        replayed.last(),
        Some(&format!("Unmask {survivors:?} {transcript}"))
    );

    assert!(world.revealed.len() >= federation.policy.threshold());
    assert!(world.faults.is_empty(), "{:?}", world.faults);
    let survivors = survivors.clone();
    check_members(world, &survivors);
}

/// No honest member left the round or the run, each takes the result, fetches its adapter, and
/// does not let the aggregator end the run after it, the first of two rounds.
fn check_members(mut world: World<'_>, survivors: &[MemberIndex]) {
    let federation = world.federation;
    let (result, next) = (world.result(), world.next_adapter());
    for me in federation.roster.indices() {
        let party = &world.members[usize::from(me.0)];
        assert_eq!(party.left, None, "an honest member left");
        assert!(party.ended.is_none());
        let effects = world.hand(me, ToMember::Result(result.clone()));
        let [
            MemberEffect::KeepResult(_),
            MemberEffect::Fetch { adapter, values },
        ] = effects[..]
        else {
            panic!("member {me} did not take the result: {effects:?}");
        };
        assert_eq!((adapter, values), (next.digest(), next.values().len()));
        let party = &mut world.members[usize::from(me.0)];
        let effects = party.machine.fetched(Some(next.values().to_vec()));
        let [
            MemberEffect::Send(ToAggregator::Fetched { adapter }),
            MemberEffect::RoundDone(done),
        ] = effects[..]
        else {
            panic!("member {me} did not take the adapter: {effects:?}");
        };
        assert_eq!(adapter, next.digest());
        let expected = DoneRound {
            round: federation.open.round,
            survivors: survivors.len(),
            took_part: survivors.contains(&me),
            taken_back: false,
            held: Some(next.digest()),
        };
        assert_eq!(done, expected);
        let effects = world.hand(me, ToMember::Finished { failure: None });
        let [MemberEffect::End(Err(MemberError::EndedEarly { done, planned }))] = effects[..]
        else {
            panic!("member {me} did not miss a round: {effects:?}");
        };
        assert_eq!((done, planned), (1, 2));
    }
}

/// Applies a journal from the start, each event judged again; gives the effects in a form that can
/// be compared.
fn replay(federation: &Federation, journal: &[Vec<u8>]) -> (Coordinator, Vec<String>) {
    use crate::round::coordinator::CoordinatorEffect;
    let (mut coordinator, effects) = Coordinator::open(
        federation.setup(),
        fedlora_common::clock::Timestamp(1_000_000),
    );
    let mut shown = Vec::new();
    let mut show = |effects: Vec<CoordinatorEffect>| {
        shown.extend(effects.into_iter().map(|effect| match effect {
            CoordinatorEffect::Unmask(done) => {
                format!("Unmask {:?} {}", done.survivors, done.transcript)
            }
            other => format!("{other:?}"),
        }));
    };
    show(effects);
    for bytes in journal {
        let event = codec::decode::<Event>(bytes).unwrap();
        assert!(is_genuine(&coordinator, &event), "{event:?}");
        let (next, effects) = coordinator.apply(event);
        show(effects);
        coordinator = next;
    }
    (coordinator, shown)
}

#[test]
fn without_dropouts_the_sum_is_exact_at_every_size_and_width() {
    for members in [3, 4, 5, 6, 10] {
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            let federation = Federation::with_bits(members, bits);
            let all: Vec<u16> = (0..members as u16).collect();
            check_sum(World::new(&federation).run(), &all);
        }
    }
}

#[test]
fn as_many_dropouts_as_the_quorum_allows_leave_the_sum_exact() {
    for members in [4, 5, 6, 10] {
        let federation = Federation::new(members);
        let spare = members - federation.policy.quorum();
        for phase in PHASES {
            for connections_break in [false, true] {
                // From the front, so that pair masks of either sign are recovered.
                let silent: Vec<u16> = (0..spare as u16).collect();
                let mut world = World::new(&federation).silence(&silent, phase);
                world.connections_break = connections_break;
                let first = match phase {
                    PhaseName::Confirm | PhaseName::Reveal => 0,
                    _ => spare as u16,
                };
                let survivors: Vec<u16> = (first..members as u16).collect();
                check_sum(world.run(), &survivors);
            }
        }
    }
}

#[test]
fn members_may_drop_out_in_different_phases() {
    let federation = Federation::new(10);
    let world = World::new(&federation)
        .silence(&[3], PhaseName::Keys)
        .silence(&[7], PhaseName::Shares)
        .silence(&[5], PhaseName::Updates);
    check_sum(world.run(), &[0, 1, 2, 4, 6, 8, 9]);
}

#[test]
fn below_the_quorum_each_phase_fails_and_says_so() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        for phase in PHASES {
            // Signatures and shares take the threshold, everything else the quorum.
            let needed = match phase {
                PhaseName::Confirm | PhaseName::Reveal => federation.policy.confirmations(),
                _ => federation.policy.quorum(),
            };
            let silent: Vec<u16> = (needed as u16 - 1..members as u16).collect();
            let world = World::new(&federation).silence(&silent, phase).run();
            let Some(RoundOutcome::Failed(failure)) = &world.outcome else {
                panic!("{members} members came to a sum without a quorum in {phase}");
            };
            assert_eq!(
                *failure,
                RoundFailure::Quorum {
                    phase,
                    got: needed as u16 - 1,
                    needed: needed as u16,
                }
            );
            let (coordinator, effects) = replay(&federation, &world.journal);
            assert!(coordinator.ended());
            assert_eq!(effects.last(), Some(&format!("Fail({failure:?})")));
            assert_eq!(coordinator.may_have_revealed(), phase == PhaseName::Reveal);
        }
    }
}

#[test]
fn a_list_has_enough_signatures_once_it_is_confirmed() {
    let federation = Federation::new(6);
    let needed = federation.policy.confirmations();
    let mut world = World::new(&federation);
    assert!(!world.coordinator().has_enough());
    until(&mut world, PhaseName::Confirm);
    for signed in 0..6 {
        assert_eq!(world.coordinator().has_enough(), signed >= needed);
        let signature = world.inbox.pop_front().expect("all sign");
        world.take(signature).unwrap();
    }
    assert_eq!(world.coordinator().phase(), Some(PhaseName::Reveal));
    assert!(!world.coordinator().has_enough());
}

/// What the coordinator sends to a member that is to reveal: whose signatures, and whose claims.
fn confirmations(world: &World<'_>, member: MemberIndex) -> [Vec<u16>; 2] {
    let outstanding = world.coordinator().outstanding(member);
    let [ToMember::Survivors { .. }, ToMember::Confirmations(sent)] = &outstanding[..] else {
        panic!("the member is to reveal: {outstanding:?}");
    };
    let signatures = sent.signatures.keys().map(|one| one.0).collect();
    [signatures, sent.claims.keys().map(|one| one.0).collect()]
}

/// Of its neighbours that signed, each member gets the signatures, and of the others the claims.
#[test]
fn who_did_not_sign_is_claimed_for_and_nobody_else() {
    let federation = Federation::new(10);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Confirm);
    for _ in 0..8 {
        let signature = world.inbox.pop_front().expect("all sign");
        world.take(signature).unwrap();
    }
    world.now = world.coordinator().deadline();
    world.take(Input::Tick).unwrap();
    for member in 0..10 {
        let others = |places: std::ops::Range<u16>| -> Vec<u16> {
            places.filter(|one| *one != member).collect()
        };
        let expected = [others(0..8), others(8..10)];
        assert_eq!(confirmations(&world, MemberIndex(member)), expected);
    }
}

/// Over a sparse graph: as many as confirm the list with the member's own, its neighbours' first.
#[test]
fn each_member_gets_as_many_signatures_as_confirm_the_list() {
    let federation = Federation::new(70);
    let mut world = World::new(&federation);
    until(&mut world, PhaseName::Reveal);
    for member in federation.roster.indices() {
        let [signatures, claims] = confirmations(&world, member);
        assert_eq!(signatures.len() + 1, federation.policy.confirmations());
        let mut neighbours = world.neighbours_of(member).into_iter();
        assert!(neighbours.all(|one| signatures.contains(&one)));
        assert!(claims.is_empty());
    }
}

#[test]
fn who_leaves_early_is_not_waited_for() {
    let federation = Federation::new(5);
    let mut world = World::new(&federation).silence(&[2], PhaseName::Updates);
    world.connections_break = true;
    let world = world.run();
    assert_eq!(world.now, fedlora_common::clock::Timestamp(1_000_000));
    check_sum(world, &[0, 1, 3, 4]);
}

#[test]
fn a_member_that_comes_back_is_sent_what_is_awaited_of_it() {
    let federation = Federation::new(4);
    let world = World::new(&federation);
    let one = MemberIndex(1);
    assert_eq!(
        world.coordinator().outstanding(one),
        [crate::wire::messages::ToMember::Open(
            federation.open.clone()
        )]
    );
    assert!(world.coordinator().can_begin(one));
    assert_eq!(world.coordinator().outstanding(MemberIndex(9)), []);
    assert!(!world.coordinator().can_begin(MemberIndex(9)));
    let mut world = world;
    until(&mut world, PhaseName::Updates);
    assert!(world.coordinator().awaited().contains(&one));
    assert!(!world.coordinator().can_begin(one), "it needs its keys");
    let world = world.run();
    assert_eq!(world.coordinator().outstanding(one), []);
    assert!(world.coordinator().awaited().is_empty());
}

/// Above 64 members: a beacon, and masks among neighbours alone.
#[test]
fn over_a_sparse_graph_the_sum_is_exact_with_dropouts_in_every_phase() {
    let federation = Federation::new(70);
    assert!(federation.policy.neighbours() < 20);
    check_sum(World::new(&federation).run(), &(0..70).collect::<Vec<_>>());
    for phase in [PhaseName::Commit].into_iter().chain(PHASES) {
        // A contributor that does not open its part costs the attempt: no matter of this test.
        let silent: Vec<u16> = (60..64).collect();
        let world = World::new(&federation).silence(&silent, phase).run();
        let late = matches!(phase, PhaseName::Confirm | PhaseName::Reveal);
        let survivors = (0..70).filter(|place| late || !silent.contains(place));
        check_sum(world, &survivors.collect::<Vec<_>>());
    }
}
