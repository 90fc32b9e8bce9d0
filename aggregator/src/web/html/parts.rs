//! Pieces of a view: figures, states, problems, times, the stage of a run.

use std::fmt::{self, Display, Formatter, Write};

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_shell::html::Text;

use crate::run_list::ListedState;
use crate::status::words::{day, moment, span};
use crate::status::{RunState, StageStatus, Status};
use crate::web::problems::{Problem, ProblemKind};

/// Names that are listed at once; more are behind a summary.
pub(super) const MAX_NAMES: usize = 12;

/// The stages of a run in their order: name, what people call it, what it waits for.
const STAGES: [(&str, &str, &str); 10] = [
    ("gathering", "Gathering", "Members get ready for the run"),
    ("consent", "Roster", "Members accept the roster"),
    ("returning", "Return", "Members come back after a pause"),
    ("commit", "Beacon", "Members commit to a random draw"),
    ("keys", "Keys", "Members send the keys of this round"),
    ("shares", "Shares", "Members share their seeds, sealed"),
    ("held", "Holders", "Members say whose shares they hold"),
    (
        "updates",
        "Updates",
        "Members train, and upload masked updates",
    ),
    ("confirm", "List", "Members sign the list of survivors"),
    ("reveal", "Reveal", "Survivors reveal what unmasks the sum"),
];

/// A state as a word with a colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pill {
    class: &'static str,
    word: &'static str,
}

impl Pill {
    pub(super) const fn of_run(state: ListedState) -> Self {
        let class = match state {
            ListedState::Served => "live",
            ListedState::Finished => "done",
            ListedState::Failed | ListedState::Stopped => "bad",
            ListedState::Queued | ListedState::Aborted | ListedState::Ended => "wait",
        };
        Self {
            class,
            word: state.name(),
        }
    }

    pub(super) const fn of_state(state: RunState) -> Self {
        let (class, word) = match state {
            RunState::Gathering => ("live", "gathering"),
            RunState::Running => ("live", "running"),
            RunState::Finished => ("done", "finished"),
            RunState::Failed => ("bad", "failed"),
            RunState::Stopped => ("bad", "stopped"),
        };
        Self { class, word }
    }
}

impl Display for Pill {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { class, word } = self;
        write!(f, "<span class=\"pill {class}\">{word}</span>")
    }
}

/// A figure with its name, and a line below it.
pub(super) fn figure(out: &mut String, name: &str, value: &str, below: &str) {
    let _ = write!(
        out,
        "<div><dt>{}</dt><dd><span class=\"value\">{}</span>",
        Text(name),
        Text(value)
    );
    if !below.is_empty() {
        let _ = write!(out, "<small>{}</small>", Text(below));
    }
    out.push_str("</dd></div>");
}

/// `count` and the noun, which takes an s unless there is one.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A point in time in UTC, to the minute or the second.
pub(super) fn moment_tag(time: Timestamp, seconds: bool) -> String {
    let words = moment(time);
    let machine = words.replacen(' ', "T", 1).replace(" UTC", "Z");
    let shown = match seconds {
        true => words,
        false => {
            let (day, clock) = day_and_time(time);
            format!("{day} {clock}")
        }
    };
    format!("<time datetime=\"{machine}\">{shown}</time>")
}

/// The day, and the time of that day to the minute, in UTC.
pub(super) fn day_and_time(time: Timestamp) -> (String, String) {
    let words = moment(time);
    let clock = words.split(' ').nth(1).and_then(|clock| clock.get(..5));
    (day(time), format!("{} UTC", clock.unwrap_or_default()))
}

/// A point in time as how long ago it is.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(time.until(now)))
}

/// Names, one after the other; many behind a summary that says how many.
pub(super) fn names(out: &mut String, names: &[MemberName]) {
    let listed = |out: &mut String| {
        for (place, name) in names.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(
                out,
                "{comma}<span class=\"name\">{}</span>",
                Text(name.as_str())
            );
        }
    };
    match names.len() {
        0 => out.push_str("<span class=\"none\">nobody</span>"),
        count if count > MAX_NAMES => {
            let members = counted(count, "member");
            let _ = write!(out, "<details><summary>{members}</summary><p>");
            listed(out);
            out.push_str("</p></details>");
        }
        _ => listed(out),
    }
}

/// Problems as a list; of many the first.
pub(super) fn problems(out: &mut String, found: &[Problem], most: usize) {
    if found.is_empty() {
        out.push_str("<p class=\"fine\">No problem that this aggregator knows of.</p>");
        return;
    }
    out.push_str("<ul class=\"problems\">");
    for one in found.iter().take(most) {
        let kind = match one.kind {
            ProblemKind::Member => "Member",
            ProblemKind::Certificate => "Certificate",
            ProblemKind::Disk => "Disk",
            ProblemKind::Run => "Run",
            ProblemKind::File => "File",
            ProblemKind::Evidence => "Evidence",
        };
        let _ = write!(out, "<li><b>{kind}</b> <span>");
        if let Some(about) = &one.about {
            let run = matches!(one.kind, ProblemKind::Run | ProblemKind::Evidence);
            let about = if run { super::short(about) } else { about };
            let _ = write!(out, "<strong>{}</strong>: ", Text(about));
        }
        let _ = write!(out, "{}</span></li>", Text(&one.text));
    }
    out.push_str("</ul>");
    if found.len() > most {
        let more = counted(found.len() - most, "more problem");
        let _ = write!(out, "<p class=\"note\">And {more}.</p>");
    }
}

/// What the run waits for, and for whom.
pub(super) fn stage(out: &mut String, status: &Status, now: Timestamp) {
    let Some(stage) = &status.stage else { return };
    let round = match stage.name.as_str() {
        "gathering" | "consent" => "Before the first round".to_owned(),
        _ => {
            let attempt = match status.attempt {
                Some(attempt) if attempt > 1 => format!(", attempt {attempt}"),
                _ => String::new(),
            };
            let (round, of) = (status.rounds_done + 1, status.rounds_planned);
            format!("Round {round} of {of}{attempt}")
        }
    };
    let what = STAGES.iter().find(|(name, ..)| *name == stage.name);
    let what = what.map_or(stage.name.as_str(), |(_, _, what)| what);
    let _ = write!(
        out,
        "<section aria-labelledby=\"now\"><h2 id=\"now\">Now</h2>\
         <p class=\"lead\">{}: {}.</p>",
        Text(&round),
        Text(&lower(what))
    );
    track(out, status, stage);
    let (ready, needed) = (stage.ready.len(), stage.needed.max(1));
    let part = 100.0 * ready.min(needed) as f64 / needed as f64;
    let _ = write!(
        out,
        "<div class=\"progress\"><svg viewBox=\"0 0 100 4\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{ready} of {needed} are ready\"><rect class=\"rest\" \
         width=\"100\" height=\"4\"/><rect class=\"part\" width=\"{part:.1}\" height=\"4\"/></svg>\
         <p><b>{ready} of {needed}</b> ready \u{b7} since {} ({}) \u{b7} until {} ({})</p></div>",
        moment_tag(stage.since, false),
        ago(stage.since, now),
        moment_tag(stage.until, false),
        match now < stage.until {
            true => format!("{} left", span(now.until(stage.until))),
            false => "now due".to_owned(),
        }
    );
    out.push_str("<dl class=\"who\"><div><dt>Ready</dt><dd>");
    names(out, &stage.ready);
    out.push_str("</dd></div><div><dt>Awaited</dt><dd>");
    names(out, &stage.awaited);
    let missing = needed.saturating_sub(ready + stage.awaited.len());
    if missing > 0 && stage.name == "gathering" {
        let _ = write!(
            out,
            " <span class=\"none\">and {missing} who must join first</span>"
        );
    }
    out.push_str("</dd></div></dl></section>\n");
}

/// The stages of a round in their order, with how long each took when it was last done.
fn track(out: &mut String, status: &Status, current: &StageStatus) {
    let first = matches!(current.name.as_str(), "gathering" | "consent");
    let shown = STAGES.iter().filter(|(name, ..)| match *name {
        "gathering" | "consent" => first,
        // They are not part of every round.
        "returning" | "commit" => {
            *name == current.name || (!first && status.stage_seconds.contains_key(*name))
        }
        _ => true,
    });
    out.push_str("<ol class=\"track\" aria-label=\"Stages\">");
    for (name, called, _) in shown {
        let is = *name == current.name;
        let mark = if is { " aria-current=\"step\"" } else { "" };
        let _ = write!(out, "<li{mark}><b>{called}</b>");
        match status.stage_seconds.get(*name) {
            _ if is => out.push_str("<small>now</small>"),
            Some(seconds) => {
                let _ = write!(out, "<small>{}</small>", took(*seconds));
            }
            None => out.push_str("<small>\u{2013}</small>"),
        }
        out.push_str("</li>");
    }
    out.push_str("</ol>");
}

/// How long a stage took.
fn took(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 600.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

/// The same words within a sentence.
fn lower(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
