//! A line of the log for people.

use super::entry::{Event, PrunedBy};
use crate::operators::Proposal;

/// What a line tells, in words.
pub fn words(event: &Event) -> String {
    match event {
        Event::Begun { .. } => "the log begins".to_owned(),
        Event::Found { path, .. } => format!("{} was there already", what(path)),
        Event::Written { path, .. } => match named(path) {
            Named::Invitation(name) => format!("{name} is invited"),
            Named::Redeemed(name) => format!("{name} uses its invitation"),
            Named::Member(name) => format!("{name} is a member with the keys in its file"),
            Named::Plan(run) => format!("the plan of run {run} is queued"),
            Named::Run(run, "run.json") => format!("run {run} begins"),
            Named::Run(run, "end.json") => format!("run {run} is over"),
            Named::Run(run, "abort") => format!("the operator ends run {run}"),
            Named::Run(..) | Named::Other => format!("{} is written", what(path)),
        },
        Event::Appended { path, .. } => match named(path) {
            Named::Run(run, "results.jsonl") => format!("a round of run {run} has its result"),
            _ => format!("{} grows", what(path)),
        },
        Event::Cut { path, length } => format!("{} is cut to {length} bytes", what(path)),
        Event::Renamed { path, to } => match named(path) {
            Named::Member(name) => format!("{name} is removed"),
            _ => format!("{} becomes {to}", what(path)),
        },
        Event::Removed { path } => match named(path) {
            Named::Invitation(name) => format!("{name} has no open invitation any more"),
            Named::Plan(run) => format!("the plan of run {run} leaves the queue"),
            _ => format!("{} is removed", what(path)),
        },
        Event::FolderRemoved { path } => format!("{path} is removed with all that is in it"),
        Event::NotMade { number } => format!("the change of line {number} was not made"),
        Event::Pruned {
            run,
            by,
            adapters,
            others,
            ..
        } => {
            let by = match by {
                PrunedBy::Retention => "by retention",
                PrunedBy::Command => "by command",
            };
            let rounds: Vec<_> = adapters.iter().map(|one| one.round.to_string()).collect();
            let gone = [
                (!rounds.is_empty()).then(|| format!("adapters of rounds {}", rounds.join(" "))),
                (!others.is_empty()).then(|| others.join(" ")),
            ];
            let gone: Vec<_> = gone.into_iter().flatten().collect();
            format!("{by}, of run {run}: {}", gone.join(", "))
        }
        Event::RolledBack {
            run,
            adapter,
            replaced,
        } => format!(
            "an exported adapter, {}, becomes that of round {} of run {run}, {}",
            replaced.short(),
            adapter.round,
            adapter.adapter.short()
        ),
        Event::Accepted { reason } => format!("the operator accepts what differs: {reason}"),
        Event::Operators { rule } if rule.acts.is_empty() => {
            "nothing needs two operators any more".to_owned()
        }
        Event::Operators { rule } => {
            let names: Vec<_> = rule
                .operators
                .iter()
                .map(|one| one.name.to_string())
                .collect();
            let acts: Vec<_> = rule.acts.iter().map(|act| act.name()).collect();
            let (names, acts) = (names.join(", "), acts.join(", "));
            format!("the operators are {names}; two are needed for {acts}")
        }
        Event::Approved {
            proposal,
            proposed,
            approved,
        } => {
            let what = serde_json::from_str::<Proposal>(proposal);
            let what = what.map_or_else(|_| "what nobody can read".to_owned(), |it| it.act.words());
            let (one, two) = (&proposed.operator, &approved.operator);
            format!("{one} proposes and {two} approves: {what}")
        }
        Event::Refused { proposal, refused } => {
            format!(
                "{} refuses the proposal {}",
                refused.operator,
                proposal.short()
            )
        }
        Event::Leaves { member } => format!("{member} leaves by itself"),
        Event::Started { release } => format!("the aggregator {release} is started"),
    }
}

/// What a file is.
enum Named<'a> {
    Invitation(&'a str),
    Redeemed(&'a str),
    Member(&'a str),
    Plan(&'a str),
    /// A file of a run.
    Run(&'a str, &'a str),
    Other,
}

fn named(path: &str) -> Named<'_> {
    match path.split_once('/') {
        Some(("invitations", name)) => match name.rsplit_once('.') {
            Some((name, "json")) => Named::Invitation(name),
            Some((name, "redeemed")) => Named::Redeemed(name),
            _ => Named::Other,
        },
        Some(("members", name)) => name
            .strip_suffix(".json")
            .map_or(Named::Other, Named::Member),
        Some(("queue", name)) => name.strip_suffix(".json").map_or(Named::Other, Named::Plan),
        Some(("runs", rest)) => match rest.split_once('/') {
            Some((run, file)) => Named::Run(run, file),
            None => Named::Other,
        },
        _ => Named::Other,
    }
}

fn what(path: &str) -> String {
    match named(path) {
        Named::Member(name) => format!("the member {name}"),
        Named::Plan(run) => format!("the plan of run {run}"),
        Named::Run(run, file) => format!("{file} of run {run}"),
        Named::Invitation(_) | Named::Redeemed(_) | Named::Other => path.to_owned(),
    }
}
