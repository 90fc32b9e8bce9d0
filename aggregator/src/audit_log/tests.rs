use std::fs;
use std::path::Path;
use std::sync::Arc;

use fedlora_common::clock::Timestamp;
use fedlora_common::files::Access;
use fedlora_protocol::crypto::sign::IdentityKey;
use tempfile::TempDir;

use super::*;
use crate::store::Mirror;

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

/// Refuses changes of files whose names contain this.
#[derive(Debug)]
struct Refusing(&'static str);

impl Mirror for Refusing {
    fn change(&self, path: &Path, _: Change<'_>) -> io::Result<()> {
        match path.to_string_lossy().contains(self.0) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

fn logged(folder: &TempDir) -> Store {
    let log = AuditLog::new(IdentityKey::from_bytes(&[7; 32]), Arc::new(Stopped));
    Store::folder(folder.path()).recorded(Arc::new(log))
}

/// A directory with members, a queued plan and a run.
fn directory() -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = logged(&folder);
    let at = |name: &str| folder.path().join(name);
    for name in ["invitations", "members", "queue", "runs/00"] {
        fs::create_dir_all(at(name)).expect("a folder");
    }
    let write = |name: &str, text: &str| {
        let written = store.write(&at(name), text.as_bytes(), Access::Owner);
        written.expect("it can be written");
    };
    write("invitations/a.json", "a");
    write("invitations/a.redeemed", "a");
    write("members/a.json", "a's keys");
    store.remove(&at("invitations/a.json")).expect("it goes");
    write("members/b.json", "b's keys");
    write("queue/00.json", "a plan");
    write("runs/00/run.json", "a receipt");
    for line in ["first\n", "second\n"] {
        let appended = store.append(&at("runs/00/results.jsonl"), line.as_bytes());
        appended.expect("it grows");
    }
    let from = at("members/b.json");
    store
        .rename(&from, &from.with_extension("removed-01"))
        .expect("another name");
    (folder, store)
}

fn problems(folder: &Path) -> Vec<String> {
    let verified = verify(folder, &[]).expect("a log");
    let told = verified.findings.iter().map(|one| {
        let line = one.line.map(|line| format!("line {line} "));
        let path = one.path.as_deref().unwrap_or_default();
        format!("{}{path}: {}", line.unwrap_or_default(), one.problem)
    });
    told.collect()
}

fn lines(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(path_in(folder)).expect("a log");
    text.lines().map(str::to_owned).collect()
}

fn set_lines(folder: &Path, lines: &[String]) {
    fs::write(path_in(folder), lines.join("\n") + "\n").expect("it can be written");
}

#[test]
fn every_change_is_a_line_and_the_directory_is_what_they_lead_to() {
    let (folder, _) = directory();
    assert_eq!(problems(folder.path()), [""; 0]);
    let told: Vec<_> = entries(folder.path())
        .expect("a log")
        .iter()
        .map(|entry| words(&entry.event))
        .collect();
    assert_eq!(
        told,
        [
            "the log begins",
            "a is invited",
            "a uses its invitation",
            "a is a member with the keys in its file",
            "a has no open invitation any more",
            "b is a member with the keys in its file",
            "the plan of run 00 is queued",
            "run 00 begins",
            "a round of run 00 has its result",
            "a round of run 00 has its result",
            "b is removed",
        ]
    );
}

#[test]
fn an_edit_of_any_file_is_found() {
    for (name, text, problem) in [
        (
            "members/a.json",
            Some("others' keys"),
            "members/a.json: it has 12 bytes, and 8 by the log",
        ),
        (
            "members/a.json",
            Some("b's keys"),
            "line 4 members/a.json: its content was changed",
        ),
        ("members/a.json", None, "members/a.json: it is missing"),
        (
            "members/c.json",
            Some("c's keys"),
            "members/c.json: the log does not know it",
        ),
        (
            "runs/00/results.jsonl",
            Some("first\nsecund\n"),
            "line 10 runs/00/results.jsonl: its content was changed",
        ),
        (
            "runs/00/results.jsonl",
            Some("first\n"),
            "runs/00/results.jsonl: it has 6 bytes, and 13 by the log",
        ),
    ] {
        let (folder, _) = directory();
        let path = folder.path().join(name);
        match text {
            Some(text) => fs::write(path, text).expect("it can be written"),
            None => fs::remove_file(path).expect("it can be removed"),
        }
        assert_eq!(problems(folder.path()), [problem], "{name}");
    }
}

#[test]
fn an_edit_a_gap_a_reorder_and_a_cut_of_the_log_are_found() {
    let (folder, _) = directory();
    let whole = lines(folder.path());
    let first = |lines: &[String]| {
        set_lines(folder.path(), lines);
        problems(folder.path()).remove(0)
    };
    let mut edited = whole.clone();
    edited[3] = edited[3].replace("members/a", "members/x");
    assert_eq!(
        first(&edited),
        "line 4 : its signature is wrong: it was changed"
    );
    let mut gap = whole.clone();
    gap.remove(4);
    assert_eq!(
        first(&gap),
        "line 5 : it has the number 6: lines are missing"
    );
    let mut swapped = whole.clone();
    swapped.swap(4, 5);
    assert!(first(&swapped).starts_with("line 5 : it has the number 6"));
    let cut = &whole[..10];
    assert_eq!(first(cut), "members/b.json: it is missing");

    // Where files are set back with the log, a head that was noted before tells.
    set_lines(folder.path(), &whole);
    let head = verify(folder.path(), &[]).expect("a log");
    let anchor = [(head.entries, head.head)];
    assert_eq!(verify(folder.path(), &anchor).expect("a log").findings, []);
    set_lines(folder.path(), cut);
    let removed = folder.path().join("members/b.removed-01");
    fs::rename(removed, folder.path().join("members/b.json")).expect("set back");
    assert_eq!(problems(folder.path()), [""; 0]);
    let found = verify(folder.path(), &anchor).expect("a log").findings;
    assert_eq!(found[0].problem, "the log ends before it, at line 10");
}

#[test]
fn a_log_by_another_key_is_found_by_its_own_signature() {
    let (folder, _) = directory();
    let mut lines = lines(folder.path());
    let last = lines.last_mut().expect("a line");
    let (entry, _) = Entry::read(last).expect("an entry");
    *last = entry
        .line(&IdentityKey::from_bytes(&[8; 32]))
        .expect("a line")
        .trim_end()
        .to_owned();
    set_lines(folder.path(), &lines);
    assert_eq!(
        problems(folder.path()),
        ["line 11 : its signature is wrong: it was changed",]
    );
}

#[test]
fn a_change_that_is_not_made_is_told_with_the_next_one() {
    let (folder, store) = directory();
    let at = |name: &str| folder.path().join(name);
    let full = store.clone().mirrored(Arc::new(Refusing("members")));
    let refused = full.write(&at("members/d.json"), b"d", Access::Owner);
    refused.expect_err("the disk is full");
    assert_eq!(problems(folder.path()), [""; 0], "as the newest line");
    full.write(&at("queue/01.json"), b"a plan", Access::Owner)
        .expect("another file");
    assert_eq!(problems(folder.path()), [""; 0]);
    let told: Vec<_> = entries(folder.path()).expect("a log");
    let told: Vec<_> = told[told.len() - 3..]
        .iter()
        .map(|one| words(&one.event))
        .collect();
    assert_eq!(
        told,
        [
            "d is a member with the keys in its file",
            "the change of line 12 was not made",
            "the plan of run 01 is queued",
        ]
    );
    // The log itself cannot be written: nothing is changed.
    let full = logged(&folder).mirrored(Arc::new(Refusing("log.jsonl")));
    full.write(&at("members/e.json"), b"e", Access::Owner)
        .expect_err("the disk is full");
    assert!(!at("members/e.json").exists());
}

#[test]
fn a_torn_line_is_cut_and_the_log_goes_on() {
    let (folder, _) = directory();
    let whole = fs::read_to_string(path_in(folder.path())).expect("a log");
    fs::write(
        path_in(folder.path()),
        format!("{whole}{{\"number\":12,\"ti"),
    )
    .expect("torn");
    assert_eq!(problems(folder.path()), [""; 0]);
    let store = logged(&folder);
    let path = folder.path().join("queue/02.json");
    store
        .write(&path, b"a plan", Access::Owner)
        .expect("it can be written");
    assert_eq!(problems(folder.path()), [""; 0]);
    assert_eq!(lines(folder.path()).len(), 12);
}

#[test]
fn a_directory_without_a_log_begins_one_with_what_is_there() {
    let (folder, _) = directory();
    fs::remove_dir_all(folder.path().join(FOLDER)).expect("no log");
    verify(folder.path(), &[]).expect_err("there is none");
    let store = logged(&folder);
    let path = folder.path().join("runs/00/results.jsonl");
    store.append(&path, b"third\n").expect("it grows");
    store.truncate(&path, 13).expect("it is cut");
    assert_eq!(problems(folder.path()), [""; 0]);
    // Half of a folder that is being removed may be gone.
    store
        .remove_folder(&folder.path().join("runs/00"))
        .expect("it goes");
    assert_eq!(problems(folder.path()), [""; 0]);
}

#[test]
fn what_differs_can_be_accepted_with_a_reason() {
    let (folder, store) = directory();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("runs/00/results.jsonl"), "first\n").expect("set back");
    fs::write(at("members/c.json"), "c").expect("unknown");
    fs::remove_file(at("queue/00.json")).expect("gone");
    assert_eq!(problems(folder.path()).len(), 3);
    let log = AuditLog::new(IdentityKey::from_bytes(&[7; 32]), Arc::new(Stopped));
    assert_eq!(log.accept(&store, "a backup").expect("lines"), 3);
    assert_eq!(problems(folder.path()), [""; 0]);
    let told: Vec<_> = entries(folder.path()).expect("a log");
    let told: Vec<_> = told[11..].iter().map(|one| words(&one.event)).collect();
    assert_eq!(told[0], "the operator accepts what differs: a backup");
    assert_eq!(told.len(), 4);
    store
        .append(&at("runs/00/results.jsonl"), b"second\n")
        .expect("it grows");
    assert_eq!(problems(folder.path()), [""; 0]);
}
