//! The sections of one run, in the page's order.

use std::fmt::Write;

use fedlora_shell::html::Text;

use super::curves;
use super::gains::{self, Against, Gain};
use super::plot::{Members, Plot};
use super::summary::{own_data, sentences, verdict};
use super::table::cell;
use super::tasks;
use super::text::{bytes, counted, listed, percent, perplexity, seconds};
use crate::simulation::report::Document;

/// All sections of a run. `id` is unique in the page.
pub(super) fn run(out: &mut String, document: &Document, id: &str) {
    let gains = Gain::of(document);
    head(out, document, &gains);
    figures(out, document);
    let perplexities = curves::perplexities(document, id);
    let note = match perplexities.iter().find_map(Plot::members) {
        Some(Members::Lines) => "Lower is better. Each thin line is a member.",
        Some(Members::Bands) => {
            "Lower is better. Half of the members are in the dark band, 80 of 100 in the light one."
        }
        None => "Lower is better.",
    };
    section(out, "Perplexity over rounds", note);
    plots(out, &perplexities);
    out.push_str("</section>\n");
    let compared = match gains.first().map(|gain| gain.against) {
        Some(Against::Alone) => "with the adapter that it trained alone",
        _ => "with the base: no member was trained alone",
    };
    section(
        out,
        "Who gains, and who does not",
        &format!("Each member\u{2019}s perplexity on its own held-out data, compared {compared}."),
    );
    gains::render(out, &gains, &format!("{id}-gain"));
    out.push_str("</section>\n");
    tasks::render(out, document);
    section(
        out,
        "What it costs",
        "Traffic, time and losses of each round.",
    );
    plots(out, &curves::course_of_rounds(document, id));
    out.push_str("</section>\n");
    rounds(out, document);
    members(out, document);
    newcomers(out, document);
    plan(out, document);
}

/// Begins a section.
pub(super) fn section(out: &mut String, title: &str, note: &str) {
    let _ = write!(
        out,
        "<section><h2>{}</h2><p class=\"note\">{}</p>",
        Text(title),
        Text(note)
    );
}

fn plots(out: &mut String, plots: &[Plot]) {
    out.push_str("<div class=\"plots\">");
    for plot in plots {
        plot.render(out);
    }
    out.push_str("</div>\n");
}

fn head(out: &mut String, document: &Document, gains: &[Gain]) {
    let _ = write!(
        out,
        "<header><p class=\"kind\">Simulated federation on {}, seed {}</p><h1>{}</h1>",
        Text(&document.base),
        document.seed,
        Text(&verdict(document, gains))
    );
    let _ = writeln!(
        out,
        "<p class=\"lead\">{}</p></header>",
        Text(&sentences(document, gains).join(" "))
    );
}

fn figures(out: &mut String, document: &Document) {
    let rounds = &document.rounds;
    let up: u64 = rounds.iter().map(|round| round.bytes_up).sum();
    let down: u64 = rounds.iter().map(|round| round.bytes_down).sum();
    let missing = rounds
        .iter()
        .filter(|round| !round.dropped.is_empty())
        .count();
    let training: usize = document
        .members
        .iter()
        .map(|one| one.training_examples)
        .sum();
    let eval = &document.eval;
    let (best, best_name) = match &eval.personalised {
        Some(scores) => (scores, "personalised"),
        None => (&eval.federated, "federated"),
    };
    let all = [
        (
            "Members",
            document.members.len().to_string(),
            counted(training, "training example"),
        ),
        (
            "Rounds",
            rounds.len().to_string(),
            match missing {
                0 => "all with every member".into(),
                missing => format!("{missing} with members missing"),
            },
        ),
        (
            "Perplexity, own data",
            perplexity(own_data(best)),
            format!("{best_name}; base {}", perplexity(own_data(&eval.base))),
        ),
        (
            "Traffic of all members",
            bytes((up + down) as f64),
            format!("{} up, {} down", bytes(up as f64), bytes(down as f64)),
        ),
        (
            "Wall time",
            seconds(document.wall_seconds),
            "with all that is compared".into(),
        ),
    ];
    out.push_str("<dl class=\"figures\">");
    for (name, value, note) in all {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd><span class=\"value\">{}</span><small>{}</small></dd></div>",
            Text(name),
            Text(&value),
            Text(&note)
        );
    }
    out.push_str("</dl>\n");
}

/// Rounds with members missing or with more than one attempt first of all: they are what one looks
/// for.
fn rounds(out: &mut String, document: &Document) {
    let rounds = &document.rounds;
    let odd = rounds
        .iter()
        .filter(|one| !one.dropped.is_empty() || one.attempts > 1)
        .count();
    let back = rounds.iter().filter(|one| one.taken_back).count();
    let note = match odd {
        0 => "Every round took one attempt, with every member in its sum.".to_owned(),
        odd => format!(
            "{} with members missing or more than one attempt.",
            counted(odd, "round")
        ),
    };
    let note = match back {
        0 => note,
        back => format!(
            "{note} {} took the step before back: most members found it harmful.",
            counted(back, "round")
        ),
    };
    section(out, "Rounds", &note);
    let open = if rounds.len() <= 12 { " open" } else { "" };
    let _ = write!(
        out,
        "<details{open}><summary>All rounds</summary><div class=\"scroll\" tabindex=\"0\">\
         <table class=\"words\"><thead><tr>"
    );
    for (class, head) in [
        (" class=\"number\"", "round"),
        (" class=\"number\"", "attempts"),
        (" class=\"number\"", "in the sum"),
        (" class=\"number\"", "votes"),
        ("", "sum exact"),
        ("", "missing"),
    ] {
        let _ = write!(out, "<th scope=\"col\"{class}>{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for round in rounds {
        let names: Vec<_> = round.dropped.iter().map(String::as_str).collect();
        let exact = match round.sum_exact {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "not checked",
        };
        let votes = match (round.votes, round.taken_back) {
            (None, _) => "-".to_owned(),
            (Some(votes), false) => votes.to_string(),
            (Some(votes), true) => format!("{votes}, taken back"),
        };
        let _ = write!(
            out,
            "<tr><th scope=\"row\" class=\"number\">{}</th><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{votes}</td><td>{exact}</td>\
             <td>{}</td></tr>",
            round.round,
            round.attempts,
            round.survivors.len(),
            Text(&listed(&names, 20))
        );
    }
    out.push_str("</tbody></table></div></details></section>\n");
}

/// Who joined after the run.
fn newcomers(out: &mut String, document: &Document) {
    if document.newcomers.is_empty() {
        return;
    }
    section(
        out,
        "Joined after the run",
        "These took no part in the rounds and begin with the federation\u{2019}s adapter. Perplexity \
         is on their own held-out data.",
    );
    out.push_str("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for head in ["member", "records", "alone", "federated", "kept", "gain"] {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for one in &document.newcomers {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Text(&one.name));
        let records = one.training_examples + one.validation_examples;
        cell(out, Some(records.to_string()));
        cell(out, one.local_only.map(perplexity));
        cell(out, Some(perplexity(one.federated)));
        cell(out, Some(perplexity(one.personalised)));
        cell(out, one.gain_percent.map(percent));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>\n");
}

/// Every figure of every member.
fn members(out: &mut String, document: &Document) {
    let ways = tasks::ways(&document.eval);
    section(
        out,
        "Members",
        "Examples, and perplexity on each member\u{2019}s own held-out data.",
    );
    let open = if document.members.len() <= 12 {
        " open"
    } else {
        ""
    };
    let _ = write!(
        out,
        "<details{open}><summary>All members</summary><div class=\"scroll\" tabindex=\"0\"><table>\
         <thead><tr><th scope=\"col\">member</th><th scope=\"col\">training</th>\
         <th scope=\"col\">held out</th><th scope=\"col\">rounds</th>"
    );
    for (name, _) in &ways {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for member in &document.members {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Text(&member.name));
        for count in [member.training_examples, member.held_out_examples] {
            cell(out, Some(count.to_string()));
        }
        cell(out, Some(member.rounds.to_string()));
        for (_, scores) in &ways {
            cell(
                out,
                scores.by_member.get(&member.name).copied().map(perplexity),
            );
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></details></section>\n");
}

fn plan(out: &mut String, document: &Document) {
    section(out, "The plan", "What is needed to run it again.");
    let mut facts = vec![
        ("Base", document.base.clone()),
        ("Seed", document.seed.to_string()),
        ("Members from", document.partition.clone()),
    ];
    if let Some(digest) = &document.plan.base.digest {
        facts.push(("Digest of the base", digest.to_string()));
    }
    facts.push(("Digest of the plan", document.plan.digest().to_string()));
    for one in &document.poisoned {
        facts.push(("Poisoned", format!("{}: {}", one.member, one.how)));
    }
    out.push_str("<dl class=\"facts\">");
    for (name, value) in facts {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", Text(name), Text(&value));
    }
    out.push_str("</dl>");
    // A seed beyond what TOML can hold leaves the digest, which says as much.
    if let Ok(text) = toml::to_string_pretty(&document.plan) {
        let _ = write!(
            out,
            "<details><summary>The plan as TOML</summary><pre><code>{}</code></pre></details>",
            Text(&text)
        );
    }
    out.push_str("</section>\n");
}
