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
        "6 members: a threshold of 3 among 6 members",
        "3 members: the confirmations name 3 members, 4 are needed",
        "3 members: member #1 signed another survivor list",
    ];
    held(AttackName::TwoLists, &words);
}

#[test]
fn both_shares() {
    let words = [
        "each member signed 1 list at most",
        "6 of 6 revealed a share of the victim's self-mask seed and 0 one of its mask secret",
    ];
    held(AttackName::BothShares, &words);
}
