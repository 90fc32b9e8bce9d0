//! What came of a run, in a few plain sentences.

use super::gains::{Against, Gain};
use super::text::{bytes, counted, listed, perplexity};
use crate::simulation::report::{Document, Scores};

/// Names that a sentence lists.
const MAX_NAMES: usize = 5;

/// The geometric mean of the members' perplexities on their own data.
pub(in crate::simulation) fn own_data(scores: &Scores) -> f64 {
    let logs = scores.by_member.values().map(|value| value.ln());
    (logs.sum::<f64>() / scores.by_member.len().max(1) as f64).exp()
}

/// Who is better off, as a heading.
pub(super) fn verdict(document: &Document, gains: &[Gain]) -> String {
    let better = gains.iter().filter(|gain| gain.is_better()).count();
    match gains.first().map(|gain| gain.against) {
        Some(Against::Alone) => format!(
            "{better} of {} are better off than alone",
            counted(gains.len(), "member")
        ),
        _ => {
            let before = own_data(&document.eval.base);
            let after = own_data(&document.eval.federated);
            let verb = if after < before { "falls" } else { "rises" };
            let (before, after) = (perplexity(before), perplexity(after));
            format!("Perplexity on the members\u{2019} data {verb} from {before} to {after}")
        }
    }
}

/// Two or three sentences below the heading.
pub(super) fn sentences(document: &Document, gains: &[Gain]) -> Vec<String> {
    let mut all = vec![figures(document)];
    let worse: Vec<_> = gains.iter().filter(|gain| gain.is_worse()).collect();
    match gains.first().map(|gain| gain.against) {
        Some(Against::Alone) if worse.is_empty() => all.push("No member is worse off.".into()),
        Some(Against::Alone) => {
            let names: Vec<_> = worse.iter().map(|gain| gain.name.as_str()).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            all.push(format!("{} {verb} worse off.", listed(&names, MAX_NAMES)));
        }
        _ => all.push("No member was trained alone to compare with.".into()),
    }
    all.push(course(document));
    let notes = document.end().notes();
    all.extend(notes.iter().map(|note| sentence(note)));
    if !document.poisoned.is_empty() {
        let names: Vec<_> = document
            .poisoned
            .iter()
            .map(|one| one.member.as_str())
            .collect();
        all.push(format!(
            "Poisoned on purpose: {}.",
            listed(&names, MAX_NAMES)
        ));
    }
    all
}

/// A note as a sentence.
fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    format!(
        "{}{}.",
        first.into_iter().collect::<String>(),
        letters.as_str()
    )
}

/// The mean perplexities.
fn figures(document: &Document) -> String {
    let eval = &document.eval;
    let mean = |scores: &Scores| perplexity(own_data(scores));
    let reached = match &eval.personalised {
        Some(scores) => format!("{} with their personalised adapters", mean(scores)),
        None => format!(
            "{} with the federation\u{2019}s adapter",
            mean(&eval.federated)
        ),
    };
    let alone = match &eval.local_only {
        Some(scores) => format!("{} alone and ", mean(scores)),
        None => String::new(),
    };
    let central = match &eval.centralised {
        Some(scores) => format!("; all records in one place reach {}", mean(scores)),
        None => String::new(),
    };
    format!(
        "On their own held-out data the members reach a perplexity of {reached} (geometric mean), \
         against {alone}{} with the base{central}.",
        mean(&eval.base)
    )
}

/// Rounds, traffic, and who was missing.
fn course(document: &Document) -> String {
    let rounds = &document.rounds;
    let shares = rounds
        .iter()
        .map(|round| round.survivors.len() + round.dropped.len());
    let shares = shares.sum::<usize>().max(1) as f64;
    let up: u64 = rounds.iter().map(|round| round.bytes_up).sum();
    let down: u64 = rounds.iter().map(|round| round.bytes_down).sum();
    let missing: Vec<_> = rounds
        .iter()
        .filter(|round| !round.dropped.is_empty())
        .collect();
    let dropped = match missing[..] {
        [] => "nobody dropped out".to_owned(),
        [round] => {
            let names: Vec<_> = round.dropped.iter().map(String::as_str).collect();
            let verb = if names.len() == 1 { "was" } else { "were" };
            let names = listed(&names, MAX_NAMES);
            format!("{names} {verb} missing in round {}", round.round)
        }
        ref some => {
            let times: usize = some.iter().map(|round| round.dropped.len()).sum();
            format!(
                "in {} rounds someone was missing, {times} times in all",
                some.len()
            )
        }
    };
    let exact = match rounds
        .iter()
        .map(|round| round.sum_exact)
        .collect::<Option<Vec<_>>>()
    {
        Some(all) if !all.is_empty() && all.iter().all(|one| *one) => "; every sum was exact",
        Some(all) if all.iter().any(|one| !one) => "; NOT every sum was exact",
        _ => "",
    };
    let each = match rounds.len() {
        1 => "In its one round".to_owned(),
        count => format!("In each of {count} rounds"),
    };
    format!(
        "{each} a member sent {} and received {} on average; {dropped}{exact}.",
        bytes(up as f64 / shares),
        bytes(down as f64 / shares)
    )
}
