//! Several runs on one page: a table, their curves, and each run's own sections.

use std::fmt::Write;

use fedlora_shell::html::{Span, Text};

use super::better_off;
use super::curves::course;
use super::plot::{Line, Plot, Tone};
use super::sections;
use super::summary::own_data;
use super::table::cell;
use super::text::{Unit, bytes, counted, perplexity, seconds};
use crate::simulation::race::{Plan, best};
use crate::simulation::report::{Document, Scores};

/// Plans that have lines of their own in the plots.
const MAX_LINES: usize = 8;

/// All of the page between its beginning and its end.
pub(super) fn render(out: &mut String, documents: &[Document]) {
    let plans = Plan::all(documents);
    head(out, &plans, documents.len());
    table(out, &plans);
    plots(out, &plans);
    out.push_str("<section><h2>Each run</h2>");
    for (place, run) in documents.iter().enumerate() {
        let _ = write!(
            out,
            "<details class=\"run\"><summary>{}, seed {}</summary>",
            Text(run.label.as_deref().unwrap_or("plan")),
            run.seed
        );
        sections::run(out, run, &format!("run{}", place + 1));
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
}

fn head(out: &mut String, plans: &[Plan<'_>], runs: usize) {
    let mut order: Vec<_> = plans
        .iter()
        .map(|plan| (mean(&plan.reached()), plan))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let heading = match order[..] {
        [(first, plan), (second, _), ..] if first < second => {
            format!(
                "{} reaches the lowest perplexity: {}",
                plan.label,
                perplexity(first)
            )
        }
        [(first, _), ..] => format!("The members reach a perplexity of {}", perplexity(first)),
        [] => "Nothing was run".into(),
    };
    let last = match order[..] {
        [_, .., (worst, plan)] => {
            format!(" The highest is {}, of {}.", perplexity(worst), plan.label)
        }
        _ => String::new(),
    };
    let _ = writeln!(
        out,
        "<header><p class=\"kind\">{} of {}, on equal seeds and data</p><h1>{}</h1>\
         <p class=\"lead\">Geometric mean over the members, each on its own held-out data{}.{}</p>\
         </header>",
        counted(runs, "run"),
        counted(plans.len(), "plan"),
        Text(&heading),
        if runs > plans.len() {
            ", averaged over the seeds"
        } else {
            ""
        },
        Text(&last)
    );
}

fn table(out: &mut String, plans: &[Plan<'_>]) {
    out.push_str(
        "<section><h2>The plans</h2><p class=\"note\">Means over the seeds, and where there are \
         several what they reach below alone and below the first plan, with the interval that holds \
         it with 95 % confidence (Student\u{2019}s t). Perplexities on own data.</p>\
         <div class=\"scroll\" tabindex=\"0\"><table><thead><tr>",
    );
    for head in [
        "plan",
        "seeds",
        "base",
        "alone",
        "federated",
        "reached",
        "below alone",
        "below the first plan",
        "better off",
        "a round up",
        "down",
        "time",
    ] {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for plan in plans {
        let each = |of: &dyn Fn(&Document) -> Option<f64>| {
            let known: Option<Vec<f64>> = plan.runs.iter().map(|run| of(run)).collect();
            known.map(|values| mean(&values))
        };
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", Text(plan.label));
        cell(out, Some(plan.runs.len().to_string()));
        let score = |of: &dyn Fn(&Document) -> Option<f64>| each(of).map(perplexity);
        cell(out, score(&|run| Some(own_data(&run.eval.base))));
        cell(
            out,
            score(&|run| run.eval.local_only.as_ref().map(own_data)),
        );
        cell(out, score(&|run| Some(own_data(&run.eval.federated))));
        cell(out, score(&|run| Some(own_data(best(run)))));
        cell(out, plan.below_alone().map(|found| found.to_string()));
        cell(out, plan.below_first(plans).map(|found| found.to_string()));
        let counts: Vec<_> = plan.runs.iter().map(|run| better_off(run)).collect();
        let better: usize = counts.iter().map(|(better, _)| better).sum();
        let of: usize = counts.iter().map(|(_, of)| of).sum();
        cell(out, Some(format!("{better} of {of}")));
        for up in [true, false] {
            let traffic = each(&|run| {
                let rounds = run.rounds.iter();
                let all = rounds.map(|one| if up { one.bytes_up } else { one.bytes_down });
                Some(all.sum::<u64>() as f64 / run.rounds.len().max(1) as f64)
            });
            cell(out, traffic.map(bytes));
        }
        cell(out, each(&|run| Some(run.wall_seconds)).map(seconds));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn plots(out: &mut String, plans: &[Plan<'_>]) {
    let plot = |id: &str, title: &str, of: fn(&Scores) -> f64| {
        let lines = plans.iter().enumerate().map(|(place, plan)| Line {
            name: short(plan.label),
            tone: Tone::Other(place),
            points: averaged(plan, of),
        });
        let mut lines: Vec<_> = lines.collect();
        let rest = lines.split_off(lines.len().min(MAX_LINES));
        Plot {
            id: id.into(),
            title: title.into(),
            description: format!("{title}, by round, a line for each plan."),
            unit: Unit::Perplexity,
            span: Span::Fitted,
            lines,
            faint: rest,
            bands: Vec::new(),
            references: Vec::new(),
        }
    };
    out.push_str(
        "<section><h2>Perplexity over rounds</h2><p class=\"note\">Of the federation\u{2019}s adapter. \
         Lower is better.</p><div class=\"plots\">",
    );
    plot("compared-own", "On each member\u{2019}s own data", own_data).render(out);
    plot("compared-pooled", "On all members\u{2019} data", |scores| {
        scores.pooled
    })
    .render(out);
    out.push_str("</div></section>\n");
}

/// A label with the last part of each key only.
fn short(label: &str) -> String {
    let parts = label.split(' ').map(|part| match part.split_once('=') {
        Some((key, value)) => {
            let last = key.rsplit('.').next().unwrap_or(key);
            format!("{last}={value}")
        }
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// The geometric mean over a plan's seeds, for each round that all have.
fn averaged(plan: &Plan<'_>, of: fn(&Scores) -> f64) -> Vec<(f64, f64)> {
    let courses: Vec<_> = plan.runs.iter().map(|run| course(run)).collect();
    let Some(first) = courses.first() else {
        return Vec::new();
    };
    let points = first.iter().filter_map(|(round, _)| {
        let values: Option<Vec<f64>> = courses
            .iter()
            .map(|course| {
                let found = course.iter().find(|(at, _)| at == round);
                found.map(|(_, scores)| of(scores).ln())
            })
            .collect();
        Some((*round, mean(&values?).exp()))
    });
    points.collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
