//! Rounds in groups: each group's sum is exact, whoever drops out, and members that upload what
//! they like do not steer the step.

use super::failure;
use super::rounds::{PHASES, check_sum};
use crate::fixed::{AUXILIARY_LANES, EncodedUpdate, RoundSumError};
use crate::ids::{GroupIndex, MemberIndex, MemberSet};
use crate::plan::RobustRuleName;
use crate::round::harness::{DELTA, Federation, RoundOutcome, World};
use crate::wire::messages::{PhaseName, RoundFailure, ToMember};

const MEDIAN: RobustRuleName = RobustRuleName::Median;
const TRIMMED: RobustRuleName = RobustRuleName::TrimmedMean;

/// The members of each group of a round that has ended.
fn groups(world: &World<'_>) -> Vec<Vec<u16>> {
    let all: MemberSet = world.federation.roster.indices().collect();
    let split = world.groups().split(&all).into_iter();
    split
        .map(|(_, members)| members.iter().map(|one| one.0).collect())
        .collect()
}

/// The members of each group, which are the same in every round with these contributors.
fn groups_of(federation: &Federation) -> Vec<Vec<u16>> {
    groups(&World::new(federation).run())
}

#[test]
fn without_dropouts_each_groups_sum_is_exact() {
    for (members, count, rule) in [(9, 3, MEDIAN), (11, 3, TRIMMED), (16, 5, MEDIAN)] {
        let federation = Federation::in_groups(members, count, rule);
        assert!(federation.policy.is_complete());
        let world = World::new(&federation).run();
        let Some(RoundOutcome::Sum { sum, .. }) = &world.outcome else {
            panic!("the round came to nothing");
        };
        assert_eq!(sum.groups().len(), usize::from(count));
        check_sum(world, &(0..members as u16).collect::<Vec<_>>());
    }
}

/// One of each group of four: three are left in each.
#[test]
fn dropouts_that_leave_the_groups_whole_leave_the_sums_exact() {
    let federation = Federation::in_groups(12, 3, MEDIAN);
    // The last of each: contributors to the beacon are the first four.
    let silent = groups_of(&federation).into_iter().map(|group| group[3]);
    let silent: Vec<_> = silent.collect();
    for phase in [PhaseName::Commit].into_iter().chain(PHASES) {
        let world = World::new(&federation).silence(&silent, phase).run();
        let late = matches!(phase, PhaseName::Confirm | PhaseName::Reveal);
        let survivors = (0..12).filter(|place| late || !silent.contains(place));
        let survivors: Vec<_> = survivors.collect();
        check_sum(world, &survivors);
    }
}

/// Of 15 in groups of three one is silent: its group has no sum, and the others' update stays
/// masked.
#[test]
fn a_group_with_too_few_left_is_left_out_of_the_list() {
    let federation = Federation::in_groups(15, 5, MEDIAN);
    let group = groups_of(&federation).remove(2);
    let world = World::new(&federation).silence(&[group[2]], PhaseName::Updates);
    let mut world = world.run();
    let Some(RoundOutcome::Sum {
        sum,
        survivors,
        dropped,
        ..
    }) = &world.outcome
    else {
        panic!("the round came to nothing");
    };
    assert!(dropped.iter().map(|one| one.0).eq(group.iter().copied()));
    assert_eq!((survivors.len(), world.accumulated.len()), (12, 14));
    let summed = sum.groups().iter().map(|one| one.group);
    assert!(summed.eq([0, 1, 3, 4].map(GroupIndex)));
    world.check_sums();
    // They revealed nothing, and take the result all the same.
    for member in group.into_iter().map(MemberIndex) {
        assert!(!world.revealed.contains(&member));
        let result = ToMember::Result(world.result());
        let effects = world.hand(member, result);
        assert!(format!("{effects:?}").contains("Fetch"), "{effects:?}");
    }
}

/// Before anybody trains, and after the uploads.
#[test]
fn too_few_groups_fail_the_round() {
    let federation = Federation::in_groups(9, 3, MEDIAN);
    let last = groups_of(&federation)[1][2];
    for phase in [PhaseName::Held, PhaseName::Updates] {
        let world = World::new(&federation).silence(&[last], phase).run();
        let (got, needed) = (2, 3);
        let few = RoundFailure::Groups { phase, got, needed };
        assert_eq!(failure(&world), few);
        assert!(!world.coordinator().may_have_revealed());
    }
}

/// The update with the other sign and three times as long: within the clip.
fn flipped(update: EncodedUpdate) -> EncodedUpdate {
    let bits = update.bits();
    let mut lanes = update.lanes().to_vec();
    for lane in &mut lanes[..DELTA] {
        *lane = bits.wrap(-3 * bits.lift(*lane));
    }
    EncodedUpdate::forge(bits, lanes)
}

/// As far out as a lane goes.
fn noise(update: EncodedUpdate) -> EncodedUpdate {
    let bits = update.bits();
    let len = update.lanes().len();
    assert_eq!(len, DELTA + AUXILIARY_LANES);
    EncodedUpdate::forge(bits, vec![bits.max() as u32 / 2; len])
}

/// The members that are malicious upload what `exchange` makes of their update; how far the step is
/// from that of the same round without them, relative to that one's norm, and how many groups' sums
/// were none.
fn poisoned(
    federation: &Federation,
    malicious: &[u16],
    exchange: fn(EncodedUpdate) -> EncodedUpdate,
) -> Result<(f64, usize), RoundSumError> {
    let (honest, _) = World::new(federation).run().step().unwrap();
    let mut world = World::new(federation);
    for member in malicious {
        world.exchange.insert(MemberIndex(*member), exchange);
    }
    let world = world.run();
    world.check_sums();
    let (step, spoilt) = world.step()?;
    let square = |x: f32| f64::from(x).powi(2);
    let pairs = step.delta.iter().zip(&honest.delta);
    let apart: f64 = pairs.map(|(a, b)| square(a - b)).sum();
    let norm: f64 = honest.delta.iter().map(|x| square(*x)).sum();
    Ok(((apart / norm).sqrt(), spoilt))
}

#[test]
fn one_poisoner_does_not_steer_the_step() {
    let whole = poisoned(&Federation::new(9), &[7], flipped).unwrap();
    for rule in [MEDIAN, TRIMMED] {
        let federation = Federation::in_groups(9, 3, rule);
        let robust = poisoned(&federation, &[7], flipped).unwrap();
        assert_eq!((whole.1, robust.1), (0, 0));
        assert!(robust.0 < whole.0, "{robust:?} {whole:?}");
    }
}

/// Without groups the sum is none, and the round fails.
#[test]
fn noise_costs_its_group_and_not_the_round() {
    assert!(poisoned(&Federation::new(9), &[7], noise).is_err());
    let federation = Federation::in_groups(9, 3, MEDIAN);
    let (distance, spoilt) = poisoned(&federation, &[7], noise).unwrap();
    assert_eq!(spoilt, 1);
    assert!(distance < 1.5, "{distance}");
    // One in each of two groups is one more than three groups withstand.
    let groups = groups_of(&federation);
    let two = [groups[0][0], groups[1][0]];
    assert!(matches!(
        poisoned(&federation, &two, noise),
        Err(RoundSumError::Spoilt {
            got: 2,
            most: 1,
            ..
        })
    ));
    // Two in one group are as good as one.
    let one_group = [groups[0][0], groups[0][1]];
    assert_eq!(poisoned(&federation, &one_group, noise).unwrap().1, 1);
}
