//! A snapshot for people: one document a view, which asks for nothing else and has no script. While a
//! run is served it asks for itself again, unless it is to stand still.

mod parts;
mod plot;
mod tables;

use std::fmt::Write;

use fedlora_shell::html::Text;

use super::snapshot::{FederationView, RunView, Snapshot};
use crate::run_list::{ListedRun, ListedState};
use crate::status::RunState;
use crate::status::words::bytes;
use parts::{Pill, counted, figure, moment_tag, problems, stage};

/// The style sheet of every view, as it stands in it: the policy names its hash.
pub(super) const STYLE: &str = include_str!("style.css");

/// How often a view of a live run asks for itself, in seconds.
const REFRESH: u32 = 10;
/// Rounds that a federation's view lists; all are in the run's own.
const FEW_ROUNDS: usize = 8;
/// Rounds that a run's view lists, the newest; all are in its document for programs.
const MAX_ROUNDS: usize = 250;
/// Runs that a federation's view lists, the newest; all are in the document for programs.
const MAX_RUNS: usize = 100;

/// The view of several federations.
pub(super) fn overview(snapshot: &Snapshot, still: bool) -> String {
    let live = snapshot.federations.iter().any(FederationView::is_live);
    let frame = Frame {
        title: "Federations",
        up: &[],
        at: "/",
        document: "/api/status.json",
        refresh: live && !still,
        pausable: live,
    };
    frame.render(snapshot, |out| {
        let _ = write!(
            out,
            "<header class=\"head\"><h1>Federations</h1><p class=\"lead\">This aggregator serves {}.\
             </p></header>\n<div class=\"cards\">",
            counted(snapshot.federations.len(), "federation")
        );
        for one in &snapshot.federations {
            let _ = write!(
                out,
                "<section class=\"card\"><h2><a href=\"/federation/{}\">{}</a></h2>",
                one.number,
                Text(&one.federation)
            );
            standing(out, one);
            figures(out, one);
            problems(out, &one.problems, 3);
            out.push_str("</section>");
        }
        out.push_str("</div>\n");
    })
}

/// The view of one federation.
pub(super) fn federation(snapshot: &Snapshot, one: &FederationView, still: bool) -> String {
    let live = one.is_live();
    let path = path_of(snapshot, one);
    let up = [("/", "Federations")];
    let frame = Frame {
        title: &one.federation,
        up: if snapshot.federations.len() > 1 {
            &up
        } else {
            &[]
        },
        at: &path,
        document: "/api/status.json",
        refresh: live && !still,
        pausable: live,
    };
    frame.render(snapshot, |out| {
        let _ = write!(
            out,
            "<header class=\"head\"><p class=\"kind\">Federation</p><h1>{}</h1>",
            Text(&one.federation)
        );
        standing(out, one);
        out.push_str("</header>\n");
        figures(out, one);
        out.push_str("<section aria-labelledby=\"problems\"><h2 id=\"problems\">Problems</h2>");
        problems(out, &one.problems, usize::MAX);
        out.push_str("</section>\n");
        if let Some(status) = &one.status {
            stage(out, status, snapshot.at);
        }
        if let Some(run) = &one.current {
            losses(out, run);
        }
        tables::members(out, one, snapshot.at);
        if let Some(run) = &one.current {
            rounds(out, run, FEW_ROUNDS, Some(one.number));
            words(out, run);
        }
        tables::runs(out, one, MAX_RUNS);
    })
}

/// The view of one run.
pub(super) fn run(
    snapshot: &Snapshot,
    federation: &FederationView,
    listed: &ListedRun,
    view: Option<&RunView>,
    still: bool,
) -> String {
    let live = listed.state == ListedState::Served;
    let home = path_of(snapshot, federation);
    let path = format!("/federation/{}/run/{}", federation.number, listed.run);
    let document = format!("/api{path}.json");
    let several = [
        ("/", "Federations"),
        (&home[..], &federation.federation[..]),
    ];
    let title = format!("Run {}", short(&listed.run));
    let frame = Frame {
        title: &title,
        up: if snapshot.federations.len() > 1 {
            &several
        } else {
            &several[1..]
        },
        at: &path,
        document: if view.is_some() {
            &document
        } else {
            "/api/status.json"
        },
        refresh: live && !still,
        pausable: live,
    };
    frame.render(snapshot, |out| {
        let _ = write!(
            out,
            "<header class=\"head\"><p class=\"kind\">Run of {}</p><h1 class=\"id\">{}</h1>\
             <p class=\"standing\">{}",
            Text(&federation.federation),
            Text(&listed.run),
            Pill::of_run(listed.state)
        );
        if let Some(why) = &listed.failure {
            let _ = write!(out, " <span class=\"why\">{}</span>", Text(why));
        }
        out.push_str("</p></header>\n");
        run_figures(out, listed, view);
        let Some(view) = view else {
            out.push_str(
                "<section><h2>Rounds</h2><p class=\"note\">There is nothing to show: its members \
                 were not complete yet, or its files cannot be read.</p></section>\n",
            );
            return;
        };
        losses(out, view);
        rounds(out, view, MAX_ROUNDS, None);
        words(out, view);
    })
}

/// The path of a federation's view.
fn path_of(snapshot: &Snapshot, one: &FederationView) -> String {
    match snapshot.federations.len() {
        1 => "/".to_owned(),
        _ => format!("/federation/{}", one.number),
    }
}

/// As much of a run's identifier as people need.
fn short(run: &str) -> &str {
    run.get(..12).unwrap_or(run)
}

/// What surrounds each view.
struct Frame<'a> {
    title: &'a str,
    /// The views above it, with their names.
    up: &'a [(&'a str, &'a str)],
    /// Its own path.
    at: &'a str,
    /// The same for programs.
    document: &'a str,
    /// Whether it asks for itself again.
    refresh: bool,
    /// Whether there is something that changes.
    pausable: bool,
}

impl Frame<'_> {
    fn render(&self, snapshot: &Snapshot, body: impl FnOnce(&mut String)) -> String {
        let mut out = String::with_capacity(1 << 16);
        out.push_str(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta name=\"robots\" content=\"noindex\">\n",
        );
        if self.refresh {
            let _ = writeln!(out, "<meta http-equiv=\"refresh\" content=\"{REFRESH}\">");
        }
        let _ = write!(
            out,
            "<title>{} \u{b7} fedlora</title>\n<link rel=\"icon\" href=\"data:,\">\n\
             <style>{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">Skip to the content</a>\n\
             <div class=\"bar\"><p class=\"brand\">fedlora aggregator</p>",
            Text(self.title)
        );
        if !self.up.is_empty() {
            out.push_str("<nav aria-label=\"Where this is\"><ol>");
            for (path, name) in self.up {
                let _ = write!(
                    out,
                    "<li><a href=\"{}\">{}</a></li>",
                    Text(path),
                    Text(name)
                );
            }
            let _ = write!(
                out,
                "<li><span aria-current=\"page\">{}</span></li></ol></nav>",
                Text(self.title)
            );
        }
        out.push_str("</div>\n<main id=\"main\">\n");
        body(&mut out);
        out.push_str("</main>\n<footer><p>");
        let _ = write!(out, "As of {}. ", moment_tag(snapshot.at, true));
        let path = Text(self.at);
        match (self.refresh, self.pausable) {
            (true, _) => {
                let _ = write!(
                    out,
                    "This page reloads every {REFRESH} seconds; <a href=\"{path}?still\">let it \
                     stand still</a>. "
                );
            }
            (false, true) => {
                let _ = write!(
                    out,
                    "This page stands still; <a href=\"{path}\">let it reload</a>. "
                );
            }
            (false, false) => {}
        }
        let _ = write!(
            out,
            "For programs: <a href=\"{}\">the same as JSON</a>.</p>\
             <p>Release {}. This page reads; nothing can be changed by it.</p></footer>\n\
             </body>\n</html>\n",
            Text(self.document),
            Text(snapshot.release)
        );
        out
    }
}

/// The state of the run that is served or was served last, in a line.
fn standing(out: &mut String, one: &FederationView) {
    out.push_str("<p class=\"standing\">");
    let waiting = one.count(ListedState::Queued);
    match &one.status {
        None => out.push_str("<span class=\"pill wait\">idle</span> No run was served yet."),
        Some(status) => {
            let pill = Pill::of_state(status.state);
            let words = match (status.state, status.stopped_early) {
                (RunState::Finished, false) => "All rounds are done.".to_owned(),
                _ => sentence(&status.standing()),
            };
            let _ = write!(out, "{pill} {}", Text(&words));
            if let RunState::Finished | RunState::Failed = status.state {
                let _ = write!(out, " Since {}.", moment_tag(status.updated, false));
            }
        }
    }
    match waiting {
        0 => {}
        1 => out.push_str(" One plan waits."),
        many => {
            let _ = write!(out, " {many} plans wait.");
        }
    }
    out.push_str("</p>\n");
}

/// The same with a capital letter and an end.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .collect();
    let end = if words.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

/// The figures of a federation.
fn figures(out: &mut String, one: &FederationView) {
    out.push_str("<dl class=\"figures\">");
    if let Some(status) = &one.status {
        let rounds = format!("{} of {}", status.rounds_done, status.rounds_planned);
        figure(out, "Rounds done", &rounds, "");
        let connected = status
            .members
            .iter()
            .filter(|member| member.connected)
            .count();
        let there = format!("{connected} of {}", status.members.len());
        figure(out, "Members connected", &there, "");
        let current = one.current.as_ref().map(RunView::losses);
        let told = current.and_then(|told| Some(told.last()?.1));
        let loss = status.pooled_loss.or(told);
        let loss = loss.map(|loss| format!("{loss:.3}"));
        let known = match loss {
            Some(_) => "nats a token, before the last round",
            None => "told from five survivors on",
        };
        figure(
            out,
            "Pooled loss",
            loss.as_deref().unwrap_or("\u{2013}"),
            known,
        );
        figure(
            out,
            "Bytes in",
            &bytes(status.bytes_received),
            "masked updates",
        );
        figure(out, "Bytes out", &bytes(status.bytes_sent), "adapters");
    } else {
        figure(out, "Members joined", &one.members.len().to_string(), "");
    }
    if let Some(disk) = one.disk {
        let of = format!("of {}", bytes(disk.size_bytes));
        figure(out, "Free on the disk", &bytes(disk.free_bytes), &of);
    }
    out.push_str("</dl>\n");
}

/// The figures of a run.
fn run_figures(out: &mut String, listed: &ListedRun, view: Option<&RunView>) {
    out.push_str("<dl class=\"figures\">");
    let planned = listed.rounds_planned.map(|planned| planned.to_string());
    let planned = planned.as_deref().unwrap_or("?");
    figure(
        out,
        "Rounds done",
        &format!("{} of {planned}", listed.rounds_done),
        "",
    );
    figure(
        out,
        "Members",
        &listed.members.len().to_string(),
        "on the roster",
    );
    if let Some(view) = view {
        if let Some(best) = view.best_round {
            let (value, of) = match best {
                0 => ("the first".to_owned(), "adapter, by the pooled losses"),
                round => (format!("round {round}"), "whose adapter it is"),
            };
            figure(out, "Result", &value, of);
        }
        if let Some((_, loss)) = view.losses().last() {
            figure(
                out,
                "Pooled loss",
                &format!("{loss:.3}"),
                "nats a token, told last",
            );
        }
        if !view.base.is_empty() {
            figure(out, "Base", &view.base, "");
        }
    }
    if let Some(ended) = listed.ended {
        let (day, time) = parts::day_and_time(ended);
        figure(out, "Ended", &day, &time);
    }
    out.push_str("</dl>\n");
}

fn losses(out: &mut String, run: &RunView) {
    let told = run.losses();
    out.push_str("<section aria-labelledby=\"loss\"><h2 id=\"loss\">Pooled loss</h2>");
    if told.is_empty() {
        out.push_str(
            "<p class=\"note\">No round has told a loss yet. A round tells one where at least five \
             members are in its sum.</p></section>\n",
        );
        return;
    }
    out.push_str(
        "<p class=\"note\">Mean over the members in each sum, on their own validation records. Each \
         round tells the loss of the adapter that it began with.</p>",
    );
    plot::loss(out, &told, run.best_round);
    out.push_str("</section>\n");
}

fn rounds(out: &mut String, run: &RunView, most: usize, federation: Option<usize>) {
    out.push_str("<section aria-labelledby=\"rounds\"><h2 id=\"rounds\">Rounds</h2>");
    if run.rounds.is_empty() {
        out.push_str("<p class=\"note\">No round is done yet.</p></section>\n");
        return;
    }
    let hidden = run.rounds.len().saturating_sub(most);
    tables::rounds(out, run, hidden);
    match (hidden, federation) {
        (0, _) => {}
        (_, Some(number)) => {
            let _ = write!(
                out,
                "<p class=\"more\"><a href=\"/federation/{number}/run/{}\">All {} rounds of this \
                 run</a></p>",
                Text(&run.run),
                run.rounds.len()
            );
        }
        (hidden, None) => {
            let _ = write!(
                out,
                "<p class=\"note\">{} before them are in the document for programs.</p>",
                counted(hidden, "round")
            );
        }
    }
    out.push_str("</section>\n");
}

/// The words of the log's head.
fn words(out: &mut String, run: &RunView) {
    out.push_str(
        "<section aria-labelledby=\"words\"><h2 id=\"words\">Head of the log</h2>\
         <p class=\"note\">Eight words for plan, roster and all results so far. Each member\u{2019}s \
         <code>fedlora runs</code> shows the same ones for the same rounds; read them out to each \
         other.</p><ol class=\"words\">",
    );
    for word in run.words.split_whitespace() {
        let _ = write!(out, "<li>{}</li>", Text(word));
    }
    let _ = writeln!(
        out,
        "</ol><p class=\"note digest\">Digest <code>{}</code></p></section>",
        Text(&run.head)
    );
}
