//! The outcome as tables, for people.

use comfy_table::{CellAlignment, Table, presets};

use fedlora_client::personal::{Choice, percent_below};

use super::page::{better_off, own_data};
use super::race::{Interval, Plan};
use super::report::{ClassificationFigures, Document, EvaluationFigures, RoundFigures, Scores};

/// Renders the evaluation and the rounds.
pub fn render(document: &Document) -> String {
    let mut text = String::from("Held-out perplexity\n");
    text += &evaluation(document);
    if !document.newcomers.is_empty() {
        text += "\n\nJoined after the run\n";
        text += &newcomers(document);
    }
    if let Some(figures) = &document.classification {
        text += &format!(
            "\n\nMacro-F1 of {} held-out records with one of {} labels, in percent\n",
            figures.records, figures.labels
        );
        text += &classification(document, figures);
    }
    if let Some(figures) = &document.generation {
        text += &format!(
            "\n\nROUGE-L of {} greedy responses in free text, in percent\n",
            figures.records
        );
        let columns = columns(&figures.rouge_l);
        text += &finish(task_table(document, &columns, |score| hundredths(*score)));
    }
    text += "\n\nRounds\n";
    text += &rounds(document);
    for note in document.end().notes() {
        text += &format!("\n{note}");
    }
    text += &format!("\n\nAdapter {}\n", document.adapter_dir.display());
    text += &format!("Wall time {:.1} s\n", document.wall_seconds);
    text
}

fn evaluation(document: &Document) -> String {
    let eval = &document.eval;
    let columns = columns(eval);
    let mut header = header(&columns);
    header.extend(["keeps".into(), "gain on own data".into()]);
    let mut table = new_table(header);
    for member in &document.members {
        let score = |scores: &Scores| scores.by_member.get(&member.name).copied();
        let mut row = vec![member.name.clone()];
        row.extend(columns.iter().map(|(_, scores)| number(score(scores))));
        row.push(member.chosen.map_or("-", Choice::name).into());
        row.push(gain(
            score(eval.local_only.as_ref().unwrap_or(&eval.base)),
            score(eval.personalised.as_ref().unwrap_or(&eval.federated)),
        ));
        table.add_row(row);
    }
    let mut row = vec!["pooled".to_owned()];
    row.extend(
        columns
            .iter()
            .map(|(_, scores)| number(Some(scores.pooled))),
    );
    row.push(String::new());
    row.push(gain(
        Some(eval.local_only.as_ref().unwrap_or(&eval.base).pooled),
        Some(eval.federated.pooled),
    ));
    table.add_row(row);
    let against = if eval.local_only.is_some() {
        "local-only"
    } else {
        "the base"
    };
    format!(
        "{}\nGain: how much lower the perplexity of what a member keeps is than that of {against}; pooled, of \
         the federation's adapter.",
        finish(table)
    )
}

fn newcomers(document: &Document) -> String {
    let header = [
        "newcomer",
        "records",
        "local-only",
        "federated",
        "kept",
        "keeps",
        "gain on own data",
    ];
    let mut table = new_table(header.map(str::to_owned).to_vec());
    for one in &document.newcomers {
        table.add_row(vec![
            one.name.clone(),
            (one.training_examples + one.validation_examples).to_string(),
            number(one.local_only),
            number(Some(one.federated)),
            number(Some(one.personalised)),
            one.chosen.name().into(),
            gain(one.local_only, Some(one.personalised)),
        ]);
    }
    finish(table)
}

/// Macro-F1 of the adapters and of the baseline; below it the accuracy.
fn classification(document: &Document, figures: &ClassificationFigures) -> String {
    let mut columns = columns(&figures.scores);
    columns.push(("TF-IDF alone", &figures.tf_idf_alone));
    columns.push(("TF-IDF", &figures.tf_idf_centralised));
    let mut table = task_table(document, &columns, |score| hundredths(score.macro_f1));
    let accuracies = columns
        .iter()
        .map(|(_, scores)| hundredths(scores.pooled.accuracy));
    table.add_row(std::iter::once("accuracy, pooled".to_owned()).chain(accuracies));
    format!(
        "{}\nTF-IDF: with logistic regression, of each member's records alone and of all.",
        finish(table)
    )
}

/// Each member's score in each way, and that of all records together.
fn task_table<T>(
    document: &Document,
    columns: &[(&str, &Scores<T>)],
    show: impl Fn(&T) -> String,
) -> Table {
    let mut table = new_table(header(columns));
    for member in &document.members {
        let cells = columns.iter().map(|(_, scores)| {
            let score = scores.by_member.get(&member.name);
            score.map_or("-".to_owned(), &show)
        });
        table.add_row(std::iter::once(member.name.clone()).chain(cells));
    }
    let cells = columns.iter().map(|(_, scores)| show(&scores.pooled));
    table.add_row(std::iter::once("pooled".to_owned()).chain(cells));
    table
}

/// What was scored, and under which name.
fn columns<T>(eval: &EvaluationFigures<T>) -> Vec<(&'static str, &T)> {
    const NAMES: [&str; 6] = [
        "base",
        "local-only",
        "federated",
        "kept",
        "centralised",
        "then at home",
    ];
    let each = NAMES.into_iter().zip(eval.each());
    each.filter_map(|(name, scores)| Some((name, scores?)))
        .collect()
}

fn header<T>(columns: &[(&str, T)]) -> Vec<String> {
    let names = columns.iter().map(|(name, _)| *name);
    std::iter::once("member")
        .chain(names)
        .map(str::to_owned)
        .collect()
}

fn rounds(document: &Document) -> String {
    let header = [
        "round",
        "in the sum",
        "dropped",
        "train loss",
        "eval loss",
        "up",
        "down",
        "sum exact",
        "train s",
        "mask s",
        "upload s",
        "aggregate s",
        "total s",
    ];
    let mut table = new_table(header.map(str::to_owned).to_vec());
    for round in &document.rounds {
        let seconds = |stage: &str| {
            round
                .seconds
                .get(stage)
                .map_or("-".to_owned(), |seconds| format!("{seconds:.2}"))
        };
        let loss = |loss: Option<f32>| loss.map_or("-".to_owned(), |loss| format!("{loss:.3}"));
        let dropped = if round.dropped.is_empty() {
            "-".to_owned()
        } else {
            round.dropped.join(", ")
        };
        table.add_row(vec![
            round.round.to_string(),
            round.survivors.len().to_string(),
            dropped,
            loss(round.train_loss),
            loss(round.eval_loss),
            indicatif::HumanBytes(round.bytes_up).to_string(),
            indicatif::HumanBytes(round.bytes_down).to_string(),
            match round.sum_exact {
                Some(true) => "yes".into(),
                Some(false) => "NO".into(),
                None => "-".into(),
            },
            seconds("train"),
            seconds("mask"),
            seconds("upload"),
            seconds("aggregate"),
            seconds("total"),
        ]);
    }
    finish(table)
}

/// Renders what came of each run, one a row.
pub fn render_comparison(documents: &[Document]) -> String {
    let header = [
        "run",
        "seed",
        "base",
        "local-only",
        "federated",
        "personalised",
        "better off",
        "up",
        "down",
        "seconds",
    ];
    let mut table = new_table(header.map(str::to_owned).to_vec());
    for document in documents {
        let eval = &document.eval;
        let own = |scores: Option<&Scores>| number(scores.map(own_data));
        let (better, of) = better_off(document);
        let bytes = |of: fn(&RoundFigures) -> u64| {
            let all = document.rounds.iter().map(of);
            indicatif::HumanBytes(all.sum()).to_string()
        };
        table.add_row(vec![
            document.label.clone().unwrap_or_else(|| "plan".into()),
            document.seed.to_string(),
            own(Some(&eval.base)),
            own(eval.local_only.as_ref()),
            own(Some(&eval.federated)),
            own(eval.personalised.as_ref()),
            format!("{better} of {of}"),
            bytes(|round| round.bytes_up),
            bytes(|round| round.bytes_down),
            format!("{:.1}", document.wall_seconds),
        ]);
    }
    let mut text = format!(
        "{}\nPerplexities: geometric means over the members, each on its own held-out data.",
        finish(table)
    );
    text += &over_seeds(documents).unwrap_or_default();
    text
}

/// What plans that ran with several seeds came to, with intervals; nothing where none did.
fn over_seeds(documents: &[Document]) -> Option<String> {
    let plans = Plan::all(documents);
    if documents.len() == plans.len() {
        return None;
    }
    let header = ["run", "seeds", "below local-only", "below the first run"];
    let mut table = new_table(header.map(str::to_owned).to_vec());
    for plan in &plans {
        let shown = |found: Option<Interval>| found.map_or("-".into(), |found| found.to_string());
        table.add_row(vec![
            plan.label.to_owned(),
            plan.runs.len().to_string(),
            shown(plan.below_alone()),
            shown(plan.below_first(&plans)),
        ]);
    }
    Some(format!(
        "\n\nPersonalised, over the seeds, with 95 % confidence intervals (Student's t)\n{}",
        finish(table)
    ))
}

fn new_table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

/// Numbers to the right, names to the left.
fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

/// A share of 1, in percent.
fn hundredths(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn gain(before: Option<f64>, after: Option<f64>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{:+.1} %", percent_below(before, after)),
        _ => "-".into(),
    }
}
