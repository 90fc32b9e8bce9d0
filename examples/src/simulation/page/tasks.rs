//! What was scored besides the perplexity: labels and free text, a table each.

use std::fmt::Write;

use fedlora_shell::html::Text;

use super::sections::section;
use super::table::cell;
use super::text::{counted, percent};
use crate::simulation::report::{Document, EvaluationFigures, Scores};

/// The ways that were scored, by name.
pub(super) fn ways<T>(eval: &EvaluationFigures<T>) -> Vec<(&'static str, &T)> {
    const NAMES: [&str; 6] = [
        "base",
        "alone",
        "federated",
        "personalised",
        "centralised",
        "central + local",
    ];
    let each = NAMES.into_iter().zip(eval.each());
    each.filter_map(|(name, scores)| Some((name, scores?)))
        .collect()
}

/// A section for each task that was scored.
pub(super) fn render(out: &mut String, document: &Document) {
    if let Some(figures) = &document.classification {
        let note = format!(
            "Macro-F1, the mean of the labels\u{2019} F1; higher is better. {} with one of {} were \
             classified; {} another response. TF-IDF is logistic regression on words.",
            counted(figures.records, "held-out record"),
            counted(figures.labels, "label"),
            match figures.other_records {
                1 => "1 has".to_owned(),
                count => format!("{count} have"),
            }
        );
        section(out, "Labels", &note);
        let mut ways = ways(&figures.scores);
        ways.push(("TF-IDF alone", &figures.tf_idf_alone));
        ways.push(("TF-IDF", &figures.tf_idf_centralised));
        table(
            out,
            document,
            &ways,
            |score| score.macro_f1,
            |rows| {
                rows.row("all: accuracy", |scores| Some(scores.pooled.accuracy));
            },
        );
    }
    if let Some(figures) = &document.generation {
        let note = format!(
            "ROUGE-L of {} with the held-out ones; higher is better.",
            counted(figures.records, "greedy response")
        );
        section(out, "Free text", &note);
        table(
            out,
            document,
            &ways(&figures.rouge_l),
            |score| *score,
            |_| (),
        );
    }
}

/// The rows of a table with a column for each way.
struct Rows<'a, T> {
    out: &'a mut String,
    ways: &'a [(&'static str, &'a Scores<T>)],
}

impl<T> Rows<'_, T> {
    fn row(&mut self, name: &str, of: impl Fn(&Scores<T>) -> Option<f64>) {
        let _ = write!(self.out, "<tr><th scope=\"row\">{}</th>", Text(name));
        for (_, scores) in self.ways {
            cell(self.out, of(scores).map(|share| percent(100.0 * share)));
        }
        self.out.push_str("</tr>");
    }
}

/// A row for each member, one for all, and those that `more` adds; ends the section.
fn table<T>(
    out: &mut String,
    document: &Document,
    ways: &[(&'static str, &Scores<T>)],
    share: impl Fn(&T) -> f64,
    more: impl FnOnce(&mut Rows<'_, T>),
) {
    out.push_str(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">member</th>",
    );
    for (name, _) in ways {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    let mut rows = Rows { out, ways };
    for member in &document.members {
        rows.row(&member.name, |scores| {
            scores.by_member.get(&member.name).map(&share)
        });
    }
    rows.row("all", |scores| Some(share(&scores.pooled)));
    more(&mut rows);
    out.push_str("</tbody></table></div></section>\n");
}
