//! What a malicious aggregator gets out of honest members over several rounds and runs, whatever it
//! does: lemmas on all that they ever reveal.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::ids::MemberIndex;
use crate::secagg::policy::MIN_HONEST_CONTRIBUTORS;
use crate::wire::messages::ShareKind;

use super::harness::{
    Adversary, Chosen, NextAdapter, OddOpening, PlannedAttempt, ROLLED_BACK, Revelation, Step,
};

/// Mostly all members, or all but a few.
fn most() -> impl Strategy<Value = Chosen> {
    let but = |places: &[u32]| {
        let gone = places.iter().map(|place| 1_u8 << place).sum::<u8>();
        Chosen(!gone)
    };
    prop_oneof![
        8 => Just(Chosen::ALL),
        3 => (0..8_u32).prop_map(move |one| but(&[one])),
        2 => prop::sample::subsequence((0..8_u32).collect::<Vec<_>>(), 2)
            .prop_map(move |two| but(&two)),
        1 => any::<u8>().prop_map(Chosen),
    ]
}

/// Mostly no member, or half of them.
fn few() -> impl Strategy<Value = Chosen> {
    prop_oneof![
        6 => Just(Chosen::NONE),
        1 => (0..8_u32).prop_map(|one| Chosen(1 << one)),
        1 => any::<u8>().prop_map(Chosen),
    ]
}

fn run() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 1 => Just(1)]
}

fn odd() -> impl Strategy<Value = OddOpening> {
    prop_oneof![
        16 => Just(OddOpening::None),
        2 => Just(OddOpening::SameAttempt),
        1 => Just(OddOpening::RoundAhead),
        1 => Just(OddOpening::FirstAdapter),
        1 => Just(OddOpening::LowConfirmations),
    ]
}

fn attempt() -> impl Strategy<Value = Step> {
    (
        (run(), odd(), most()),
        ([most(), most()], few()),
        (most(), [most(), most()], few()),
        (
            [most(), most()],
            prop_oneof![few(), any::<u8>().prop_map(Chosen)],
        ),
        prop_oneof![most(), few(), any::<u8>().prop_map(Chosen)],
    )
        .prop_map(|(first, keys, deals, lists, confirmed)| {
            Step::Attempt(PlannedAttempt {
                run: first.0,
                odd: first.1,
                opened: first.2,
                cohorts: keys.0,
                second_cohort: keys.1,
                dealt: deals.0,
                dealers: deals.1,
                second_dealers: deals.2,
                lists: lists.0,
                second_list: lists.1,
                confirmed,
            })
        })
}

/// All take part, and are shown two lists.
fn two_lists() -> impl Strategy<Value = Step> {
    let shown = prop_oneof![few(), any::<u8>().prop_map(Chosen)];
    let confirmed = prop_oneof![2 => Just(Chosen::ALL), 1 => any::<u8>().prop_map(Chosen)];
    (run(), [most(), most()], shown, confirmed).prop_map(|(run, lists, second_list, confirmed)| {
        Step::Attempt(PlannedAttempt {
            lists,
            second_list,
            confirmed,
            ..PlannedAttempt::honest(run)
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let next = prop_oneof![
        3 => Just(NextAdapter::Moved),
        1 => Just(NextAdapter::Same),
        1 => Just(NextAdapter::First),
    ];
    prop_oneof![
        4 => attempt(),
        6 => two_lists(),
        2 => run().prop_map(|run| Step::Attempt(PlannedAttempt::honest(run))),
        2 => (run(), most()).prop_map(|(run, to)| Step::Confirm(run, to)),
        2 => (run(), next).prop_map(|(run, next)| Step::Publish(run, next)),
        1 => any::<u8>().prop_map(|members| Step::Restart(Chosen(members))),
        1 => Just(Step::Keep),
        2 => Just(Step::Restore),
    ]
}

/// Carries the steps out and checks the lemmas. Where a log may be restored, its member counts as
/// one of those that collude.
fn play(members: usize, restores: bool, steps: &[Step]) -> Adversary {
    let colluders = (members - 1) / 3 - usize::from(restores);
    let mut adversary = Adversary::new(members, colluders);
    for step in steps {
        if restores || !matches!(step, Step::Keep | Step::Restore) {
            adversary.carry_out(step);
        }
    }
    check(&adversary, restores);
    adversary
}

fn check(adversary: &Adversary, restores: bool) {
    let honest = |one: &&Revelation| !adversary.colluders.contains(&one.member);
    let revealed: Vec<_> = adversary.revealed.iter().filter(honest).collect();
    one_list_an_adapter(&revealed, restores);
    one_sum_an_adapter(adversary, &revealed);
    nobody_helps_a_rolled_back_member(&revealed);
    one_secret_a_member(adversary, &revealed);
    enough_members_on_every_list(adversary, &revealed);
}

/// Of one adapter, each honest member reveals for one list, over all runs; all but one whose
/// log is older than what it revealed.
fn one_list_an_adapter(revealed: &[&Revelation], restores: bool) {
    let mut lists = BTreeMap::new();
    for one in revealed {
        if restores && one.member == ROLLED_BACK {
            continue;
        }
        // A machine repeats what it said.
        let list = lists.entry((one.member, one.adapter)).or_insert(one.list);
        assert_eq!(
            *list, one.list,
            "{} revealed twice on one adapter",
            one.member
        );
    }
}

/// Of one adapter, shares that recover masks are revealed for one list, over all runs.
fn one_sum_an_adapter(adversary: &Adversary, revealed: &[&Revelation]) {
    let mut holders: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for one in revealed {
        let lists = holders.entry(one.adapter).or_default();
        lists.entry(one.list).or_default().insert(one.member);
    }
    for lists in holders.values() {
        let recovered = lists
            .values()
            .filter(|holders| recovers(adversary, holders.len()));
        assert!(recovered.count() <= 1, "two sums on one adapter");
    }
}

/// Whether so many honest holders' shares recover a secret, with those of all that collude.
fn recovers(adversary: &Adversary, honest: usize) -> bool {
    honest + adversary.colluders.len() >= adversary.federation().policy.threshold()
}

/// Who reveals again in a round of one run does so in a cohort of members that have not revealed
/// in it: the others say in their keys that they have.
fn nobody_helps_a_rolled_back_member(revealed: &[&Revelation]) {
    for (place, again) in revealed.iter().enumerate() {
        let before = &revealed[..place];
        let same_run = before.iter().filter(|one| one.run == again.run);
        let helps = |one: &&&Revelation| {
            one.member != ROLLED_BACK
                && one.round >= again.round
                && one.list != again.list
                && again.cohort.contains(one.member)
        };
        let helper = same_run.clone().find(helps);
        assert!(helper.is_none(), "{helper:?} helps {again:?}");
    }
}

/// Of one member's two secrets in an attempt, at most one is recovered, from whatever lists.
fn one_secret_a_member(adversary: &Adversary, revealed: &[&Revelation]) {
    let mut holders: BTreeMap<_, [BTreeSet<MemberIndex>; 2]> = BTreeMap::new();
    for one in revealed {
        for (secret, kind) in &one.shares {
            let kinds = holders.entry(secret).or_default();
            let kind = match kind {
                ShareKind::SelfMask => 0,
                ShareKind::MaskRoot => 1,
            };
            kinds[kind].insert(one.member);
        }
    }
    for ((owner, _), kinds) in holders {
        let recovered = kinds
            .iter()
            .filter(|holders| recovers(adversary, holders.len()));
        assert!(recovered.count() <= 1, "both secrets of {owner}");
    }
}

/// No honest member reveals for a list of fewer than the minimum, so that at least three honest
/// members are in every sum.
fn enough_members_on_every_list(adversary: &Adversary, revealed: &[&Revelation]) {
    let minimum = adversary.federation().policy.minimum();
    for one in revealed {
        let (listed, colluders) = (&one.listed, &adversary.colluders);
        assert!(listed.len() >= minimum, "a list of {listed:?}");
        let honest = listed.iter().filter(|member| !colluders.contains(member));
        assert!(honest.count() >= MIN_HONEST_CONTRIBUTORS);
        assert!(listed.contains(one.member));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_adversary_of_many_rounds_gets_one_sum_an_adapter(
        members in 6_usize..=8,
        restores: bool,
        steps in prop::collection::vec(step(), 1..=30),
    ) {
        play(members, restores, &steps);
    }
}

const MOVED: Step = Step::Publish(0, NextAdapter::Moved);

fn honest(run: usize) -> Step {
    Step::Attempt(PlannedAttempt::honest(run))
}

/// Without this nothing would be revealed, and every lemma hold.
#[test]
fn an_honest_aggregator_comes_to_a_sum_in_every_round() {
    let steps = [honest(0), MOVED, honest(0), MOVED, honest(0)];
    let adversary = play(6, false, &steps);
    assert_eq!(adversary.revealed.len(), 3 * 6);
}

#[test]
fn a_second_sum_on_one_adapter_is_not_revealed() {
    let all_but_one = Step::Attempt(PlannedAttempt {
        lists: [Chosen(!2); 2],
        ..PlannedAttempt::honest(0)
    });
    let other_run = Step::Attempt(PlannedAttempt {
        lists: [Chosen(!2); 2],
        ..PlannedAttempt::honest(1)
    });
    let same = Step::Publish(0, NextAdapter::Same);
    let restart = Step::Restart(Chosen::ALL);
    for again in [
        vec![all_but_one.clone()],
        vec![restart.clone(), all_but_one.clone()],
        vec![same, all_but_one],
        vec![other_run.clone()],
        vec![restart, other_run],
        // The members go on to another adapter, and are led back.
        vec![MOVED, Step::Publish(0, NextAdapter::First), honest(0)],
    ] {
        let steps: Vec<_> = [honest(0)].into_iter().chain(again).collect();
        let adversary = play(7, false, &steps);
        assert_eq!(adversary.revealed.len(), 7, "{steps:?}");
    }
}

/// A list that leaves members out shows shares of their mask roots, and of nothing else of them.
#[test]
fn of_a_member_left_out_the_other_secret_is_revealed() {
    let steps = [Step::Attempt(PlannedAttempt {
        lists: [Chosen(!2); 2],
        ..PlannedAttempt::honest(0)
    })];
    let adversary = play(6, false, &steps);
    assert_eq!(adversary.revealed.len(), 5);
    for one in &adversary.revealed {
        let roots = one.shares.iter();
        let roots = roots.filter(|(_, kind)| **kind == ShareKind::MaskRoot);
        let owners: Vec<_> = roots.map(|((owner, _), _)| *owner).collect();
        assert_eq!(owners, [MemberIndex(1)]);
    }
}

/// Two runs go side by side up to the signatures: these are for the one that asks first.
#[test]
fn of_two_runs_side_by_side_one_comes_to_a_sum() {
    let signed = |run| {
        Step::Attempt(PlannedAttempt {
            confirmed: Chosen::NONE,
            ..PlannedAttempt::honest(run)
        })
    };
    let confirm = |run| Step::Confirm(run, Chosen::ALL);
    let steps = [signed(0), signed(1), confirm(1), confirm(0), confirm(1)];
    let adversary = play(6, false, &steps);
    let runs: BTreeSet<_> = adversary.revealed.iter().map(|one| one.run.0).collect();
    assert_eq!(runs, BTreeSet::from([[7; 16]]));
}

/// Alone it reveals again and again: its shares are as good as those of one more that colludes.
#[test]
fn a_member_with_an_old_log_reveals_again_and_is_alone_in_it() {
    let alone = Step::Attempt(PlannedAttempt {
        confirmed: Chosen(1),
        ..PlannedAttempt::honest(0)
    });
    let steps = [
        alone.clone(),
        Step::Restore,
        alone.clone(),
        Step::Restore,
        alone,
    ];
    let adversary = play(7, true, &steps);
    let members: Vec<_> = adversary.revealed.iter().map(|one| one.member).collect();
    assert_eq!(members, [ROLLED_BACK; 3]);
    // Once the others have revealed, they open the round no more.
    let steps = [honest(0), Step::Restore, honest(0)];
    assert_eq!(play(7, true, &steps).revealed.len(), 7);
}
