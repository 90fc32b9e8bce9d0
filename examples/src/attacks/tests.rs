//! Each attack: whether the federation holds, and that the honest side's words name the attack.

use super::{AttackName, AttackReport};

/// Plays an attack that must not succeed; each of `words` must stand in the answer.
fn held(name: AttackName, words: &[&str]) -> AttackReport {
    let report = name.play().unwrap();
    assert!(report.held, "{report:?}");
    for word in words {
        assert!(report.answer.contains(word), "no {word:?} in {report:?}");
    }
    report
}

#[test]
fn skipped_round() {
    let words = ["5 members: round 4000000000 does not follow"];
    held(AttackName::SkippedRound, &words);
}

#[test]
fn second_list() {
    let words = [
        "5 members: shares were revealed for round 1 before",
        "5 members: differencing attack",
    ];
    held(AttackName::SecondList, &words);
}

#[test]
fn second_run() {
    held(AttackName::SecondRun, &["5 members: differencing attack"]);
}

#[test]
fn second_process() {
    held(AttackName::SecondProcess, &["differencing attack"]);
}

#[test]
fn two_lists() {
    let words = [
        "6 members: a threshold of 3: this member insists on 4 to 6",
        "3 members: the confirmations name 3 members, 4 are needed",
        "3 members: member #1's signature in the confirmations does not verify",
    ];
    held(AttackName::TwoLists, &words);
}

#[test]
fn both_shares() {
    let words = [
        "each member signed 1 list at most",
        "6 of 6 revealed a share of the victim's self-mask seed and 0 one of its mask root",
    ];
    held(AttackName::BothShares, &words);
}

#[test]
fn other_result() {
    let words = [
        "the aggregator tells members different things",
        "signature in the keys does not verify",
        "6 members: refused to continue: the result is not signed by the aggregator",
    ];
    held(AttackName::OtherResult, &words);
}

#[test]
fn chosen_model_frozen() {
    let words = [
        "chosen-model attack",
        "in factors that the round did not train",
        "0 members would train",
    ];
    held(AttackName::ChosenModelFrozen, &words);
}

#[test]
fn chosen_model_step() {
    let words = [
        "chosen-model attack",
        "is 10 from the old in L2 norm",
        "0 members would train",
    ];
    held(AttackName::ChosenModelStep, &words);
}

#[test]
fn one_record_plan() {
    let words = ["6 members: the plan's examples is 1"];
    held(AttackName::OneRecordPlan, &words);
}

#[test]
fn huge_clip() {
    let words = ["6 members: the plan's clip is 8000000", "0 members would"];
    held(AttackName::HugeClip, &words);
}

#[test]
fn exact_counts() {
    let words =
        ["the victim has 512 to 1023 examples, as its class says anyway; truly it has 1000"];
    held(AttackName::ExactCounts, &words);
}

#[test]
fn loss_differencing() {
    held(AttackName::LossDifferencing, &["0.10 either way"]);
}

#[test]
fn swapped_roster() {
    held(AttackName::SwappedRoster, &["the roster has changed"]);
}

#[test]
fn restored_ledger() {
    let words = [
        "1 member: the keys name 1 members, 4 are needed",
        "1 member: member #2 revealed shares for round 1 before",
        "4 restored logs among the 5 others give a second sum",
        "and 5 give one of all but the victim",
    ];
    held(AttackName::RestoredLedger, &words);
}

#[test]
fn forged_weight() {
    let words = [
        "aggregator: member #0 has weight class 20, above the plan's highest",
        "5 members: member #0 has weight class 20; the plan allows 12 at most",
    ];
    held(AttackName::ForgedWeight, &words);
}

/// The members are told that the sum is none, and none of them refuses anything of the
/// aggregator's.
#[test]
fn poisoned_sum() {
    let report = held(AttackName::PoisonedSum, &["the round fails"]);
    let verdict = "6 members: the unmasked sum is not a sum of encoded updates";
    assert!(report.answer.ends_with(verdict), "{report:?}");
}

/// The figures are the same each time: keys, beacon and groups come of a fixed seed.
#[test]
fn poisoned_update() {
    let words = ["in a sum of all the step goes -0.", "in groups 0."];
    held(AttackName::PoisonedUpdate, &words);
}

#[test]
fn forged_share() {
    let words = [
        "the mean of 6 members",
        "member #0 revealed a forged share of member #0's secret",
        "no member refused",
    ];
    held(AttackName::ForgedShare, &words);
}

/// The dealer is left out before the masks, and the others' sum is whole.
#[test]
fn garbage_seal() {
    let words = [
        "the mean of 5 members, off by 0.000 %",
        "member #0 is left out: its shares did not open at #1, #2, #3, #4, #5",
        "no member refused",
    ];
    held(AttackName::GarbageSeal, &words);
}

#[test]
fn the_document_counts_those_that_are_held() {
    let names = [AttackName::GarbageSeal, AttackName::SwappedRoster];
    let document = super::play(&names).unwrap();
    assert!(document.succeeded().is_empty());
    assert!(super::render(&document).contains("held against 2 of 2 attacks"));
}

#[test]
fn the_document_names_those_that_succeed() {
    let names = [AttackName::GarbageSeal, AttackName::SwappedRoster];
    let mut document = super::play(&names).unwrap();
    document.attacks[0].held = false;
    assert_eq!(document.succeeded(), ["garbage-seal"]);
    let table = super::render(&document);
    assert!(table.contains("held against 1 of 2 attacks, not against garbage-seal"));
}

#[test]
fn silent_member() {
    let words = ["2 of 2 rounds gave the sum of the other 5 members"];
    held(AttackName::SilentMember, &words);
}
