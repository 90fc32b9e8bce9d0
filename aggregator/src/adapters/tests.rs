//! Finding, exporting, replacing and removing adapters, by folders with known runs.

use std::collections::BTreeMap;
use std::fs;

use fedlora_adapter::{Adapter, LoraConfig, Target, peft};
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::plan::RunPlan;
use tempfile::TempDir;

use super::*;
use crate::audit_log::{self, Event, LoggedAdapter, PrunedBy};
use crate::queue::QueuedPlan;
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

    fn key(&self) -> &IdentityKey {
        &self.operator.opened.identity
    }

    fn would_prune(&self, rule: &PruneRule) -> Pruned {
        would_prune(self.store(), self.key(), rule).unwrap()
    }

    fn prune(&self, rule: &PruneRule) -> Pruned {
        prune(self.store(), self.key(), rule, (PrunedBy::Command, NOW)).unwrap()
    }

    /// The rounds whose adapters are there.
    fn there(&self, run: RunId) -> Vec<u32> {
        let folder = RunDirectory::of(self.store(), run).unwrap();
        let there = |round: &u32| folder.adapter(*round).exists();
        (0..=6).filter(there).collect()
    }

    /// What was pruned and rolled back.
    fn log(&self) -> Vec<Event> {
        let entries = audit_log::signed(self.store().root(), &self.key().public());
        let events = entries.unwrap().into_iter().map(|one| one.event);
        let decided = |one: &Event| matches!(one, Event::Pruned { .. } | Event::RolledBack { .. });
        events.filter(decided).collect()
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
    let rule = |keep| PruneRule::adapters(keep, NOW);
    let there = |run| runs.there(run);
    // It is only told at first.
    let path = RunDirectory::of(runs.store(), FINISHED).unwrap();
    fs::write(path.server_state(4), [0; 9]).unwrap();
    let told = runs.would_prune(&rule(1));
    assert_eq!(there(FINISHED), [1, 2, 3, 4, 5, 6]);
    let gone = runs.prune(&rule(2));
    let rounds: Vec<_> = gone.removed.iter().map(|one| one.round).collect();
    assert_eq!(rounds, [1, 2, 4]);
    assert!(gone.bytes > 0 && told.removed.len() == 4);
    // With the moments of the server's optimizer.
    assert_eq!(
        gone.others,
        [format!("runs/{FINISHED}/adapters/round-0004.state")]
    );
    assert!(!path.server_state(4).exists());
    let [
        Event::Pruned {
            run,
            by: PrunedBy::Command,
            adapters,
            others,
            bytes,
        },
    ] = &runs.log()[..]
    else {
        panic!("one entry: {:?}", runs.log());
    };
    assert_eq!((run, *bytes), (&FINISHED.to_string(), gone.bytes));
    assert_eq!(
        adapters.iter().map(|one| one.round).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    assert_eq!(others, &["adapters/round-0004.state"]);
    // The result, and the newest two.
    assert_eq!(there(FINISHED), [3, 5, 6]);
    // A run that goes on keeps all, and is named.
    assert_eq!(there(LIVE), [1, 2, 3, 4, 5, 6]);
    assert_eq!(gone.left, [(LIVE.to_string(), "it is not over".to_owned())]);
    runs.prune(&rule(0));
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
    let lately = PruneRule::adapters(0, Timestamp(0));
    let left = runs.prune(&lately);
    assert!(left.removed.is_empty() && left.left.len() == 2, "{left:?}");
    let all = PruneRule::adapters(0, NOW);
    fs::create_dir(folder.audit()).unwrap();
    let left = runs.prune(&all);
    assert!(left.removed.is_empty(), "{left:?}");
    let replayed = |(_, why): &(String, String)| why.contains("replayed");
    assert!(left.left.iter().any(replayed), "{left:?}");
    fs::remove_dir(folder.audit()).unwrap();
    fs::write(folder.results(), "{}\n").unwrap();
    let left = runs.prune(&all);
    assert!(left.removed.is_empty(), "{left:?}");
    assert!(
        left.left
            .iter()
            .any(|(_, why)| why.contains("cannot be read")),
        "{left:?}"
    );
}

fn start_plan(rank: usize) -> RunPlan {
    let plan = RunPlan::from_toml(&format!(
        "rounds = 2\nmembers = 6\n[adapter]\n\
         lora = {{ rank = {rank}, alpha = 4.0, dropout = 0.0, targets = [\"q\"] }}\n",
    ));
    plan.unwrap()
}

#[test]
fn a_run_can_begin_from_the_newest_adapter_of_one_that_is_over() {
    let runs = Runs::new();
    let newest = runs.of(FINISHED, 6);
    let digest = newest.adapter.to_string();
    let run = FINISHED.to_string();
    let plan = start_plan(2);
    for named in [&run, &run[..8], &format!("{run}:6"), &digest, &digest[..20]] {
        let found = StartingAdapter::named(runs.store(), named, &plan).unwrap();
        assert_eq!(found.published, newest, "{named}");
        assert!(found.result_is_another);
        assert_eq!(found.into_adapter(), adapter(106));
    }
    let named = RunPlan {
        start_from: Some(newest.adapter),
        ..plan.clone()
    };
    let found = StartingAdapter::of(runs.store(), &named).unwrap();
    assert_eq!(found.expect("it is named").into_adapter(), adapter(106));
    assert!(StartingAdapter::of(runs.store(), &plan).unwrap().is_none());
}

#[test]
fn no_run_begins_from_an_adapter_that_is_missing_summed_upon_or_of_another_shape() {
    let runs = Runs::new();
    let run = FINISHED.to_string();
    let refused = |named: &str, plan: &RunPlan| {
        let error = StartingAdapter::named(runs.store(), named, plan).unwrap_err();
        (error.to_string(), error)
    };
    let plan = start_plan(2);
    for none in ["", "zz", "../", "b2b2:7", "b2b2:x", ":6", &"0".repeat(64)] {
        let (said, error) = refused(none, &plan);
        assert!(matches!(error, StartError::None { .. }), "{said}");
    }
    // An earlier round's: the next has a sum on it.
    let (said, error) = refused(&format!("{run}:3"), &plan);
    assert!(
        matches!(error, StartError::SummedUpon { round: 4, .. }),
        "{said}"
    );
    let (said, error) = refused(&LIVE.to_string(), &plan);
    assert!(matches!(error, StartError::NotOver { run: LIVE }), "{said}");
    let (said, error) = refused(&run, &start_plan(8));
    assert!(matches!(error, StartError::Shape { .. }), "{said}");
    assert!(said.contains("its rank is 2, the plan's 8"), "{said}");
    assert!(!said.contains("alpha"), "{said}");

    // A plan that waits begins from it; then a run that has summed upon it.
    let newest = runs.of(FINISHED, 6);
    let waiting = QueuedPlan {
        submitted: NOW,
        run: RunId([7; 16]),
        keep_for_audit: false,
        plan: RunPlan {
            start_from: Some(newest.adapter),
            ..plan.clone()
        },
    };
    let queue = runs.operator.shown.directory.queue();
    queue.submit(&waiting).unwrap();
    let (said, error) = refused(&run, &plan);
    assert!(
        matches!(
            error,
            StartError::Queued {
                run: RunId([7, ..])
            }
        ),
        "{said}"
    );
    // For its own turn the plan itself is not in the way.
    StartingAdapter::of(runs.store(), &waiting.plan).unwrap();
    queue.remove(waiting.run).unwrap();
    let again = RunId([8; 16]);
    let begun = |losses: &[f32]| {
        let digest = |round: u32| match round {
            0 => newest.adapter,
            round => adapter(300 + u64::from(round)).digest(),
        };
        runs.operator.run_of(again, BASE, 9, losses, &digest);
    };
    // It has no result yet, and may have failed.
    begun(&[]);
    StartingAdapter::named(runs.store(), &run, &plan).unwrap();
    begun(&[2.0]);
    let (said, error) = refused(&run, &plan);
    assert!(
        matches!(error, StartError::SummedUpon { run, round: 1 } if run == again),
        "{said}"
    );
    begun(&[]);

    // Other files, or none.
    let folder = RunDirectory::of(runs.store(), FINISHED).unwrap();
    peft::save(&folder.adapter(6), &adapter(999), BASE).unwrap();
    let (said, error) = refused(&run, &plan);
    assert!(
        matches!(error, StartError::OtherAdapter { round: 6, .. }),
        "{said}"
    );
    fs::remove_dir_all(folder.adapter(6)).unwrap();
    let (said, error) = refused(&run, &plan);
    assert!(
        matches!(error, StartError::Removed { round: 6, .. }),
        "{said}"
    );
}

/// Of old runs nothing stays but what was signed.
const NOTHING: PruneRule = PruneRule {
    ended_before: None,
    newest_runs: Some(0),
    newest_rounds: 0,
    results: false,
    replays: false,
    evidence: false,
};

#[test]
fn by_retention_all_but_what_was_signed_goes_of_old_runs_alone() {
    let runs = Runs::new();
    let (second, never) = (RunId([5; 16]), RunId([6; 16]));
    runs.run(second, 400);
    // The one that ended later is the newest.
    runs.operator.end(second, EndOutcome::Finished, None);
    let folder = RunDirectory::of(runs.store(), FINISHED).unwrap();
    let older = crate::run_directory::RunEnding {
        outcome: EndOutcome::Failed,
        failure: None,
        at: Timestamp(5),
    };
    folder.store_end(&older).unwrap();
    for path in [folder.audit(), folder.evidence()] {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), [0; 10]).unwrap();
    }
    // It ended before its members were complete.
    let begun = RunDirectory::create(runs.store(), never).unwrap();
    begun.store_end(&older).unwrap();

    let newest = PruneRule {
        newest_runs: Some(1),
        ..NOTHING
    };
    let told = runs.would_prune(&newest);
    assert_eq!(runs.there(FINISHED), [1, 2, 3, 4, 5, 6]);
    let gone = runs.prune(&newest);
    assert_eq!(told, gone);
    assert_eq!(runs.there(FINISHED), Vec::<u32>::new());
    assert_eq!(runs.there(second), [1, 2, 3, 4, 5, 6]);
    assert_eq!(runs.there(LIVE), [1, 2, 3, 4, 5, 6]);
    assert!(!folder.audit().exists() && !folder.evidence().exists());
    let others = [
        format!("runs/{never}"),
        format!("runs/{FINISHED}/audit"),
        format!("runs/{FINISHED}/evidence"),
    ];
    assert_eq!(gone.others, others);
    assert!(!begun.path().exists());
    // What was signed is there, and verifies.
    let verified = crate::audit::verify(&folder).unwrap();
    assert_eq!((verified.rounds, verified.adapters), (6, 0));
    assert!(folder.end().unwrap().is_some() && folder.receipt().exists());
    let bytes = gone.bytes;
    let logged = runs.log().into_iter().map(|one| match one {
        Event::Pruned { bytes, .. } => bytes,
        _ => 0,
    });
    assert_eq!(logged.collect::<Vec<_>>().iter().sum::<u64>(), bytes);
    // There is nothing more to do, and nothing more is said.
    let again = runs.prune(&newest);
    assert_eq!(
        (again.removed.len(), again.others.len(), again.bytes),
        (0, 0, 0)
    );
    assert_eq!(runs.log().len(), 2);
}

#[test]
fn what_a_start_or_a_rollback_names_stays_whatever_the_rule() {
    let runs = Runs::new();
    let named = runs.of(FINISHED, 6).adapter;
    let waiting = QueuedPlan {
        submitted: NOW,
        run: RunId([7; 16]),
        keep_for_audit: false,
        plan: RunPlan {
            start_from: Some(named),
            ..start_plan(2)
        },
    };
    let queue = runs.operator.shown.directory.queue();
    queue.submit(&waiting).unwrap();
    let rolled_back = Event::RolledBack {
        run: FINISHED.to_string(),
        adapter: LoggedAdapter {
            round: 2,
            adapter: runs.of(FINISHED, 2).adapter,
        },
        replaced: named,
    };
    audit_log::append(runs.store(), runs.key(), NOW, rolled_back).unwrap();
    runs.prune(&NOTHING);
    assert_eq!(runs.there(FINISHED), [2, 6]);
    // The run can begin.
    let start = StartingAdapter::of(runs.store(), &waiting.plan).unwrap();
    assert_eq!(start.expect("it is named").into_adapter(), adapter(106));
    // Without the plan one of them is not needed any more.
    queue.remove(waiting.run).unwrap();
    runs.prune(&NOTHING);
    assert_eq!(runs.there(FINISHED), [2]);
    // A log that does not verify may hide a name: nothing goes.
    let path = runs.store().root().join("log/log.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"round\":2", "\"round\":3")).unwrap();
    let refused = prune(
        runs.store(),
        runs.key(),
        &NOTHING,
        (PrunedBy::Retention, NOW),
    );
    assert!(matches!(refused, Err(PruneError::Log(_))));
    assert_eq!(runs.there(FINISHED), [2]);
}
