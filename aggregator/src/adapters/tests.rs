//! Finding, exporting, replacing and removing adapters, by folders with known runs.

use std::collections::BTreeMap;
use std::fs;

use fedlora_adapter::{Adapter, LoraConfig, Target, peft};
use tempfile::TempDir;

use super::*;
use crate::run_directory::EndOutcome;
use crate::test_operator::{FINISHED, LIVE, NOW, Operator};

const BASE: &str = "a/base";

/// An adapter of its own for each seed.
fn adapter(seed: u64) -> Adapter {
    let targets = [Target::from_module("q_proj").expect("a projection")];
    let config = LoraConfig::new(2, 4.0, 0.0, targets).expect("a configuration");
    let layout = Adapter::layout_for(&config, 1, |_, _| (4, 3)).expect("a layout");
    Adapter::initial(config, layout, seed).expect("an adapter")
}

/// Losses whose lowest that is told is that of the adapter after round 3; the last rises again.
const LOSSES: [f32; 6] = [5.0, 4.0, 3.0, 1.0, 4.0, 5.0];

struct Runs {
    folder: TempDir,
    operator: Operator,
}

impl Runs {
    /// A run that is over, and one that goes on, each with six rounds.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let members: Vec<_> = (0..6).map(|number| format!("member-{number}")).collect();
        let operator = Operator::new(&folder.path().join("operator"), "test", &members);
        let runs = Self { folder, operator };
        runs.run(FINISHED, 100);
        runs.operator.end(FINISHED, EndOutcome::Finished, None);
        runs.run(LIVE, 200);
        runs
    }

    fn run(&self, run: RunId, seed: u64) {
        let all: BTreeMap<_, _> = (0..=LOSSES.len() as u32)
            .map(|round| (round, adapter(seed + u64::from(round))))
            .collect();
        let digest = |round: u32| all[&round].digest();
        self.operator.run_of(run, BASE, 9, &LOSSES, &digest);
        let folder = RunDirectory::of(self.store(), run).unwrap();
        for (round, adapter) in all.range(1..) {
            peft::save(&folder.adapter(*round), adapter, BASE).unwrap();
        }
    }

    fn store(&self) -> &Store {
        self.operator.shown.directory.store()
    }

    fn read(&self) -> Adapters {
        Adapters::read(self.store()).unwrap()
    }

    fn of(&self, run: RunId, round: u32) -> PublishedAdapter {
        let run = run.to_string();
        let all = self.read().adapters.into_iter();
        let mut found = all.filter(|one| one.run == run && one.round == round);
        found
            .next()
            .unwrap_or_else(|| panic!("round {round} of {run}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn all_adapters_are_listed_with_their_losses_and_found_by_their_digests() {
    let runs = Runs::new();
    let read = runs.read();
    assert_eq!((read.adapters.len(), read.unreadable.len()), (12, 0));
    let third = runs.of(FINISHED, 3);
    // The next round tells the loss.
    assert_eq!(third.validation_loss, Some(1.0));
    assert!(third.result && !third.newest);
    assert_eq!((third.survivors.len(), third.base.as_str()), (6, BASE));
    assert!(third.run_ended.is_some() && third.bytes > Some(0));
    let second = runs.of(FINISHED, 2);
    assert_eq!(second.dropped, ["member-2".parse().unwrap()]);
    let last = runs.of(FINISHED, 6);
    assert!(last.newest && !last.result && last.validation_loss.is_none());
    assert_eq!(runs.of(LIVE, 3).run_ended, None);

    let digest = third.adapter.to_string();
    assert_eq!(read.find(&digest[..20]), Ok(&third));
    assert_eq!(read.find(&digest.to_ascii_uppercase()), Ok(&third));
    for none in ["", "zz", "../"] {
        assert!(
            matches!(read.find(none), Err(NotFound::None { .. })),
            "{none}"
        );
    }
    let digits: Vec<_> = read
        .adapters
        .iter()
        .map(|one| one.adapter.to_string())
        .collect();
    let shared = digits
        .iter()
        .find(|one| digits.iter().filter(|other| other[..1] == one[..1]).count() > 1);
    // Sixteen digits, twelve adapters: two begin alike here.
    let shared = &shared.expect("two that begin alike")[..1];
    assert!(matches!(read.find(shared), Err(NotFound::Several { .. })));
}

#[test]
fn what_is_exported_loads_and_is_proven_by_itself() {
    let runs = Runs::new();
    let third = runs.of(FINISHED, 3);
    let to = runs.path("exported");
    let done = export(runs.store(), &third, &to).unwrap();
    assert_eq!((done.adapter, done.round), (third.adapter, 3));
    assert_eq!(done.signed_by, third.signed_by);
    assert_eq!(peft::load(&to).unwrap(), adapter(103));
    // Elsewhere, without the operator.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("adapter");
    fs::rename(&to, &moved).unwrap();
    drop(runs);
    assert_eq!(exported(&moved).unwrap(), done);

    // Other weights, another chain, or none.
    peft::save(&moved, &adapter(102), BASE).unwrap();
    let other = exported(&moved).unwrap_err();
    assert!(matches!(other, ExportError::OtherAdapter { .. }), "{other}");
    peft::save(&moved, &adapter(103), BASE).unwrap();
    let path = moved.join("fedlora/results.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replacen("\"total_weight\":6", "\"total_weight\":5", 1),
    )
    .unwrap();
    let forged = exported(&moved).unwrap_err();
    assert!(matches!(forged, ExportError::Receipt { .. }), "{forged}");
    // Without its last line it is the result of an earlier round, whose adapter is another.
    let cut = text.trim_end().rsplit_once('\n').expect("three results").0;
    fs::write(&path, format!("{cut}\n")).unwrap();
    let cut = exported(&moved).unwrap_err();
    assert!(matches!(cut, ExportError::OtherAdapter { .. }), "{cut}");
    fs::write(&path, "").unwrap();
    let none = exported(&moved).unwrap_err();
    assert!(matches!(none, ExportError::NotExported { .. }), "{none}");
}

#[test]
fn nothing_is_overwritten_and_nothing_wrong_is_exported() {
    let runs = Runs::new();
    let third = runs.of(FINISHED, 3);
    let taken = runs.path("taken");
    fs::create_dir(&taken).unwrap();
    let error = export(runs.store(), &third, &taken).unwrap_err();
    assert!(matches!(error, ExportError::Taken { .. }), "{error}");
    assert!(taken.exists());
    // A folder whose files are not what the result names.
    let folder = RunDirectory::of(runs.store(), FINISHED).unwrap();
    peft::save(&folder.adapter(3), &adapter(999), BASE).unwrap();
    let to = runs.path("exported");
    let error = export(runs.store(), &third, &to).unwrap_err();
    assert!(matches!(error, ExportError::OtherAdapter { .. }), "{error}");
    assert!(!to.exists());
    fs::remove_dir_all(folder.adapter(3)).unwrap();
    let error = export(runs.store(), &third, &to).unwrap_err();
    assert!(matches!(error, ExportError::Removed { .. }), "{error}");
    assert!(!to.exists());
}

#[test]
fn an_earlier_adapter_takes_the_place_of_an_exported_one_and_of_nothing_else() {
    let runs = Runs::new();
    let at = runs.path("deployed");
    export(runs.store(), &runs.of(FINISHED, 6), &at).unwrap();
    let done = replace(runs.store(), &runs.of(FINISHED, 3), &at).unwrap();
    assert_eq!(done.round, 3);
    assert_eq!(peft::load(&at).unwrap(), adapter(103));
    assert_eq!(exported(&at).unwrap(), done);
    for leftover in ["deployed.new", "deployed.old"] {
        assert!(!runs.path(leftover).exists(), "{leftover}");
    }
    // One that cannot be had leaves what is there.
    let folder = RunDirectory::of(runs.store(), FINISHED).unwrap();
    fs::remove_dir_all(folder.adapter(2)).unwrap();
    let error = replace(runs.store(), &runs.of(FINISHED, 2), &at).unwrap_err();
    assert!(matches!(error, ExportError::Removed { .. }), "{error}");
    assert_eq!(exported(&at).unwrap(), done);
    // A folder of somebody else's is left alone.
    let foreign = runs.path("foreign");
    peft::save(&foreign, &adapter(5), BASE).unwrap();
    let error = replace(runs.store(), &runs.of(FINISHED, 3), &foreign).unwrap_err();
    assert!(matches!(error, ExportError::NotExported { .. }), "{error}");
    assert_eq!(peft::load(&foreign).unwrap(), adapter(5));
}

#[test]
fn what_nobody_needs_goes_and_the_rest_stays() {
    let runs = Runs::new();
    let rule = |keep| PruneRule {
        keep,
        ended_before: NOW,
    };
    let there = |run| {
        let folder = RunDirectory::of(runs.store(), run).unwrap();
        let there = |round: &u32| folder.adapter(*round).exists();
        (0..=6).filter(there).collect::<Vec<_>>()
    };
    // It is only told at first.
    let told = prune(runs.store(), &rule(1), true).unwrap();
    assert_eq!(there(FINISHED), [1, 2, 3, 4, 5, 6]);
    let gone = prune(runs.store(), &rule(2), false).unwrap();
    let rounds: Vec<_> = gone.removed.iter().map(|one| one.round).collect();
    assert_eq!(rounds, [1, 2, 4]);
    assert!(gone.bytes > 0 && told.removed.len() == 4);
    // The result, and the newest two.
    assert_eq!(there(FINISHED), [3, 5, 6]);
    // A run that goes on keeps all, and is named.
    assert_eq!(there(LIVE), [1, 2, 3, 4, 5, 6]);
    assert_eq!(gone.left, [(LIVE.to_string(), "it is not over".to_owned())]);
    prune(runs.store(), &rule(0), false).unwrap();
    assert_eq!(there(FINISHED), [3, 6]);
    // The results verify without what went, and say that it was there.
    let verified = crate::audit::verify(&RunDirectory::of(runs.store(), FINISHED).unwrap());
    assert_eq!(verified.unwrap().adapters, 2);
    assert_eq!(runs.of(FINISHED, 1).bytes, None);
}

#[test]
fn runs_that_ended_lately_that_can_be_replayed_or_cannot_be_read_are_left() {
    let runs = Runs::new();
    let folder = RunDirectory::of(runs.store(), FINISHED).unwrap();
    let lately = PruneRule {
        keep: 0,
        ended_before: Timestamp(0),
    };
    let left = prune(runs.store(), &lately, false).unwrap();
    assert!(left.removed.is_empty() && left.left.len() == 2, "{left:?}");
    let all = PruneRule {
        keep: 0,
        ended_before: NOW,
    };
    fs::create_dir(folder.audit()).unwrap();
    let left = prune(runs.store(), &all, false).unwrap();
    assert!(left.removed.is_empty(), "{left:?}");
    assert!(left.left[0].1.contains("replayed"), "{left:?}");
    fs::remove_dir(folder.audit()).unwrap();
    fs::write(folder.results(), "{}\n").unwrap();
    let left = prune(runs.store(), &all, false).unwrap();
    assert!(left.removed.is_empty(), "{left:?}");
    assert!(
        left.left
            .iter()
            .any(|(_, why)| why.contains("cannot be read")),
        "{left:?}"
    );
}
