//! What somebody should look at: members that do not take part, certificates that end, a full disk, runs
//! that ended early, files that cannot be read.

use std::time::Duration;

use fedlora_common::clock::Timestamp;
use serde::Serialize;

use super::snapshot::DiskRoom;
use crate::ca::requests::CertificateRequest;
use crate::run_list::{ListedRun, ListedState};
use crate::status::words::{bytes, day, span};
use crate::status::{RunState, Status};

/// How long before its end a member's certificate is told of. It gets another when it connects in the
/// second half of its year: one that is so near the end has not connected for months.
const MEMBER_NOTICE: Duration = Duration::from_secs(60 * 86_400);
/// The same of the aggregator's own, which it replaces after 15 of 30 days.
const SERVER_NOTICE: Duration = Duration::from_secs(10 * 86_400);
/// The room on the disk below which it is told.
const LITTLE_ROOM: u64 = 2_000_000_000;
/// How long a status may be unwritten while a run is served: it is written twice a minute.
const STALE: Duration = Duration::from_secs(300);

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// What it is about.
    pub(super) kind: ProblemKind,
    /// The member or the run that it is about; null where it is about neither.
    pub(super) about: Option<String>,
    /// What is wrong, in a sentence without its end.
    pub(super) text: String,
}

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ProblemKind {
    /// A member does not take part, or differs from the others.
    Member,
    /// A certificate ends soon, or has ended.
    Certificate,
    /// There is little room on the disk.
    Disk,
    /// A run failed, or its files cannot be read.
    Run,
    /// A file of the operator's directory cannot be read.
    File,
    /// A member broke the protocol, and there is evidence.
    Evidence,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, about: Option<&str>, text: String) -> Self {
        let about = about.map(str::to_owned);
        Self { kind, about, text }
    }
}

/// What the status of the run tells.
pub(super) fn of_status(status: &Status, now: Timestamp, found: &mut Vec<Problem>) {
    for member in &status.members {
        let name = Some(member.name.as_str());
        if let Some(problem) = &member.problem {
            found.push(Problem::new(ProblemKind::Member, name, problem.clone()));
        }
        if let Some(end) = member.certificate_end
            && end < now.after(MEMBER_NOTICE)
        {
            let text = match end <= now {
                true => format!(
                    "the certificate ended on {}: it needs a new invitation",
                    day(end)
                ),
                false => format!(
                    "the certificate ends on {}: it gets another when it connects",
                    day(end)
                ),
            };
            found.push(Problem::new(ProblemKind::Certificate, name, text));
        }
    }
    let live = matches!(status.state, RunState::Gathering | RunState::Running);
    if let Some(end) = status.certificate_end
        && live
        && end < now.after(SERVER_NOTICE)
    {
        let text = format!(
            "the aggregator's own certificate ends on {}, and was not renewed: see its log",
            day(end)
        );
        found.push(Problem::new(ProblemKind::Certificate, None, text));
    }
    let silent = status.updated.until(now);
    if live && silent > STALE {
        let text = format!("the run has told nothing for {}: see the log", span(silent));
        found.push(Problem::new(ProblemKind::Run, Some(&status.run), text));
    }
}

/// What waits for the authority's key.
pub(super) fn of_waiting(waiting: &[CertificateRequest], found: &mut Vec<Problem>) {
    for one in waiting {
        let what = match one {
            CertificateRequest::Server { .. } => "the aggregator's own certificate",
            CertificateRequest::Join { .. } => "its first certificate",
            CertificateRequest::Renewal { .. } => "another certificate",
        };
        let text = format!(
            "{what} waits for the authority's key since {}: `fedlora-aggregator ca sign` signs it, or \
             `ca export` writes it where the key is on another machine",
            day(one.asked())
        );
        let about = one.member().map(|name| name.as_str());
        found.push(Problem::new(ProblemKind::Certificate, about, text));
    }
}

/// What the list of runs tells: of those that cannot be read, those that stand still, and of the one that
/// ended last where it did not finish.
pub(super) fn of_runs(runs: &[ListedRun], found: &mut Vec<Problem>) {
    let over = |one: &&ListedRun| one.ended.is_some();
    let last = runs.iter().filter(over).max_by_key(|one| one.ended);
    for one in runs {
        let newest = last.is_some_and(|last| last.run == one.run);
        let text = match (one.state, &one.failure) {
            (ListedState::Failed, why) if newest => {
                let why = why.as_deref().unwrap_or("no reason is known");
                format!("the last run failed: {why}")
            }
            (ListedState::Failed | ListedState::Aborted, _) => continue,
            // One that finished has no other reason.
            (_, Some(unread)) => format!("its files cannot be read: {unread}"),
            (ListedState::Stopped, None) => "it is not over, and nothing serves it".to_owned(),
            _ => continue,
        };
        found.push(Problem::new(ProblemKind::Run, Some(&one.run), text));
    }
}

/// Whether there is too little room on the disk.
pub(super) fn of_disk(room: DiskRoom, found: &mut Vec<Problem>) {
    if room.free_bytes < LITTLE_ROOM {
        let text = format!(
            "the disk of the operator's directory has {} left of {}: runs stop where it is full",
            bytes(room.free_bytes),
            bytes(room.size_bytes)
        );
        found.push(Problem::new(ProblemKind::Disk, None, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_room_is_no_problem_and_a_full_one_is() {
        let mut found = Vec::new();
        let room = |free_bytes| DiskRoom {
            free_bytes,
            size_bytes: 100_000_000_000,
        };
        of_disk(room(LITTLE_ROOM), &mut found);
        assert_eq!(found, []);
        of_disk(room(12_000), &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, ProblemKind::Disk);
        assert!(
            found[0].text.contains("12.0 kB left of 100.0 GB"),
            "{found:?}"
        );
    }

    #[test]
    fn only_the_failure_of_the_last_run_is_a_problem() {
        let run = |name: &str, state, ended: Option<u64>, failure: Option<&str>| ListedRun {
            run: name.to_owned(),
            state,
            submitted: None,
            rounds_done: 0,
            rounds_planned: Some(3),
            members: Vec::new(),
            adapter: None,
            ended: ended.map(Timestamp),
            failure: failure.map(str::to_owned),
        };
        let mut runs = vec![
            run("a", ListedState::Failed, Some(5), Some("too few members")),
            run("b", ListedState::Aborted, Some(4), Some("by the operator")),
            run("c", ListedState::Queued, None, None),
        ];
        let mut found = Vec::new();
        of_runs(&runs, &mut found);
        let texts: Vec<_> = found.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(texts, ["the last run failed: too few members"]);
        // One that ended after it has set that right; one that cannot be read has not.
        runs.push(run("d", ListedState::Finished, Some(6), None));
        runs.push(run(
            "e",
            ListedState::Ended,
            None,
            Some("line 2 is no signed result"),
        ));
        found.clear();
        of_runs(&runs, &mut found);
        let about: Vec<_> = found.iter().map(|one| one.about.as_deref()).collect();
        assert_eq!(about, [Some("e")]);
    }
}
