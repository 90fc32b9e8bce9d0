//! Tables of members, rounds and runs. Each cell has its column's name beside it, which narrow windows
//! show instead of the head.

use std::fmt::Write;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_shell::html::Text;

use super::parts::{MAX_NAMES, Pill, ago, counted, day_and_time, names};
use super::short;
use crate::run_list::ListedRun;
use crate::status::words::day;
use crate::status::{MemberStatus, StageStatus};
use crate::web::snapshot::{FederationView, RoundView, RunView};

/// How long before its end a certificate is marked.
const NEAR: Duration = Duration::from_secs(60 * 86_400);

fn begin(out: &mut String, caption: &str, columns: &[&str]) {
    let _ = write!(
        out,
        "<table><caption>{}</caption><thead><tr>",
        Text(caption)
    );
    for column in columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", Text(column));
    }
    out.push_str("</tr></thead><tbody>");
}

fn cell(out: &mut String, column: &str, text: &str) {
    let _ = write!(
        out,
        "<td data-label=\"{}\">{}</td>",
        Text(column),
        Text(text)
    );
}

/// The members: those of the run, and those that have joined beside.
pub(super) fn members(out: &mut String, one: &FederationView, now: Timestamp) {
    const COLUMNS: [&str; 8] = [
        "Member",
        "Link",
        "Stage",
        "In sums",
        "Program",
        "Last seen",
        "Certificate",
        "Problem",
    ];
    out.push_str("<section aria-labelledby=\"members\"><h2 id=\"members\">Members</h2>");
    let status = one.status.as_ref();
    let known = status.map_or(&[][..], |status| &status.members);
    let stage = status.and_then(|status| status.stage.as_ref());
    let is_known = |name: &&MemberName| known.iter().any(|member| member.name == **name);
    let others: Vec<_> = one.members.iter().filter(|name| !is_known(name)).collect();
    if known.is_empty() && others.is_empty() {
        out.push_str("<p class=\"note\">No member has joined yet.</p></section>\n");
        return;
    }
    let caption = match status {
        Some(status) => format!(
            "{} of run {}{}",
            counted(known.len(), "member"),
            short(&status.run),
            match others.len() {
                0 => String::new(),
                count => format!(", and {count} who joined and are not in it"),
            }
        ),
        None => format!("{} joined", counted(others.len(), "member")),
    };
    begin(out, &caption, &COLUMNS);
    for member in known {
        member_row(out, &COLUMNS, member, stage, now);
    }
    for name in others {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Text(name.as_str()));
        let not = if status.is_some() {
            "not in the run"
        } else {
            "joined"
        };
        cell(out, COLUMNS[1], not);
        for column in &COLUMNS[2..] {
            cell(out, column, "\u{2013}");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></section>\n");
}

fn member_row(
    out: &mut String,
    columns: &[&str; 8],
    member: &MemberStatus,
    stage: Option<&StageStatus>,
    now: Timestamp,
) {
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}</th>",
        Text(member.name.as_str())
    );
    let link = match (member.connected, member.transport) {
        (true, Some(transport)) => transport.to_string(),
        (true, None) => "connected".to_owned(),
        (false, _) => "away".to_owned(),
    };
    let mark = if member.connected { "here" } else { "gone" };
    let _ = write!(
        out,
        "<td data-label=\"{}\"><span class=\"{mark}\">{}</span></td>",
        columns[1],
        Text(&link)
    );
    let awaited = |stage: &StageStatus| stage.awaited.contains(&member.name);
    let part = match stage {
        _ if member.ready => "ready",
        Some(stage) if awaited(stage) => "awaited",
        _ => "\u{2013}",
    };
    cell(out, columns[2], part);
    cell(out, columns[3], &member.rounds.to_string());
    let release = member.release.as_deref().unwrap_or("\u{2013}");
    let _ = write!(
        out,
        "<td data-label=\"{}\" class=\"free\">{}</td>",
        columns[4],
        Text(release)
    );
    let seen = member.last_seen.map(|seen| ago(seen, now));
    cell(out, columns[5], seen.as_deref().unwrap_or("\u{2013}"));
    let _ = write!(out, "<td data-label=\"{}\">", columns[6]);
    match member.certificate_end {
        None => out.push('\u{2013}'),
        Some(end) if end <= now => {
            let _ = write!(out, "<strong class=\"alarm\">ended {}</strong>", day(end));
        }
        Some(end) if end < now.after(NEAR) => {
            let _ = write!(
                out,
                "<strong class=\"alarm\">only until {}</strong>",
                day(end)
            );
        }
        Some(end) => {
            let _ = write!(out, "until {}", day(end));
        }
    }
    out.push_str("</td>");
    let class = if member.problem.is_some() {
        "long"
    } else {
        "none"
    };
    let _ = write!(out, "<td data-label=\"{}\" class=\"{class}\">", columns[7]);
    match &member.problem {
        Some(problem) => {
            let _ = write!(out, "<span class=\"alarm\">{}</span>", Text(problem));
        }
        None => out.push('\u{2013}'),
    }
    out.push_str("</td></tr>");
}

/// The rounds of a run, the newest first, without the first `hidden`.
pub(super) fn rounds(out: &mut String, run: &RunView, hidden: usize) {
    const COLUMNS: [&str; 6] = [
        "Round",
        "In the sum",
        "Dropped",
        "Loss before",
        "Training loss",
        "Adapter after",
    ];
    let shown = &run.rounds[hidden.min(run.rounds.len())..];
    let (done, planned) = (run.rounds.len(), run.rounds_planned);
    let caption = match hidden {
        0 => format!("{done} of {planned} rounds done, the newest first"),
        _ => format!("The newest {} of {done} rounds done", shown.len()),
    };
    begin(out, &caption, &COLUMNS);
    for round in shown.iter().rev() {
        round_row(out, &COLUMNS, run, round);
    }
    out.push_str("</tbody></table>");
}

fn round_row(out: &mut String, columns: &[&str; 6], run: &RunView, round: &RoundView) {
    let result = match run.best_round == Some(round.round) {
        true => " <span class=\"tag\">result</span>",
        false => "",
    };
    let back = match round.taken_back {
        true => " <span class=\"tag warn\">took the step before back</span>",
        false => "",
    };
    let attempt = match round.attempt {
        0 | 1 => String::new(),
        attempt => format!(" <span class=\"tag\">attempt {attempt}</span>"),
    };
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}{result}{attempt}{back}</th><td data-label=\"{}\" class=\"long\">",
        round.round, columns[1]
    );
    if round.survivors.len() <= MAX_NAMES {
        let _ = write!(out, "<b>{}</b> ", round.survivors.len());
    }
    names(out, &round.survivors);
    let class = if round.dropped.is_empty() {
        "none"
    } else {
        "long"
    };
    let _ = write!(
        out,
        "</td><td data-label=\"{}\" class=\"{class}\">",
        columns[2]
    );
    names(out, &round.dropped);
    out.push_str("</td>");
    for (column, loss) in [
        (columns[3], round.validation_loss),
        (columns[4], round.training_loss),
    ] {
        let loss = loss.map(|loss| format!("{loss:.3}"));
        cell(out, column, loss.as_deref().unwrap_or("\u{2013}"));
    }
    let _ = write!(
        out,
        "<td data-label=\"{}\"><code title=\"{}\">{}</code></td></tr>",
        columns[5],
        Text(&round.adapter),
        Text(round.adapter.get(..8).unwrap_or(&round.adapter))
    );
}

/// The runs, the newest first; of many the newest.
pub(super) fn runs(out: &mut String, one: &FederationView, most: usize) {
    const COLUMNS: [&str; 6] = ["Run", "State", "Rounds", "Members", "When", "Why"];
    out.push_str("<section aria-labelledby=\"runs\"><h2 id=\"runs\">Runs</h2>");
    if one.runs.is_empty() {
        out.push_str(
            "<p class=\"note\">There is none yet: submit a plan with <code>fedlora-aggregator run \
             submit</code>.</p></section>\n",
        );
        return;
    }
    let caption = match one.runs.len() {
        count if count > most => format!("The newest {most} of {count} runs"),
        count => format!("{}, the newest first", counted(count, "run")),
    };
    begin(out, &caption, &COLUMNS);
    for listed in one.runs.iter().rev().take(most) {
        run_row(out, &COLUMNS, one.number, listed);
    }
    out.push_str("</tbody></table></section>\n");
}

fn run_row(out: &mut String, columns: &[&str; 6], federation: usize, listed: &ListedRun) {
    let _ = write!(
        out,
        "<tr><th scope=\"row\"><a href=\"/federation/{federation}/run/{0}\"><code>{1}</code></a>\
         </th><td data-label=\"{2}\">{3}</td>",
        Text(&listed.run),
        Text(short(&listed.run)),
        columns[1],
        Pill::of_run(listed.state)
    );
    let planned = listed.rounds_planned.map(|planned| planned.to_string());
    let planned = planned.as_deref().unwrap_or("?");
    cell(
        out,
        columns[2],
        &format!("{} of {planned}", listed.rounds_done),
    );
    let members = match listed.members.len() {
        0 => "\u{2013}".to_owned(),
        count => count.to_string(),
    };
    cell(out, columns[3], &members);
    let at = |word: &str, time: Timestamp| {
        let (day, clock) = day_and_time(time);
        format!("{word} {day} {clock}")
    };
    let when = match (listed.ended, listed.submitted) {
        (Some(ended), _) => at("ended", ended),
        (None, Some(submitted)) => at("submitted", submitted),
        (None, None) => "\u{2013}".to_owned(),
    };
    cell(out, columns[4], &when);
    let (class, why) = match &listed.failure {
        Some(why) => ("long", why.as_str()),
        None => ("none", "\u{2013}"),
    };
    let _ = write!(
        out,
        "<td data-label=\"{}\" class=\"{class}\">{}</td></tr>",
        columns[5],
        Text(why)
    );
}
