//! The plots of one run, from its document.

use fedlora_shell::html::Span;

use super::plot::{Band, Line, Plot, Reference, Tone};
use super::summary::own_data;
use super::text::Unit;
use crate::simulation::report::{Document, RoundFigures, Scores};

/// Members up to which each has a line; of more, there is a band.
const MAX_LINES: usize = 12;

/// The perplexity on each member's own data, and on all of it.
pub(super) fn perplexities(document: &Document, id: &str) -> [Plot; 2] {
    let own = Plot {
        id: format!("{id}-own"),
        title: "On each member\u{2019}s own data".into(),
        description: "Geometric mean over the members of the held-out perplexity on their own \
                      data, over rounds, with what it is compared with."
            .into(),
        unit: Unit::Perplexity,
        span: Span::Fitted,
        lines: federated(document, own_data),
        faint: members(document),
        bands: bands(document),
        references: references(document, own_data),
    };
    let pooled = Plot {
        id: format!("{id}-pooled"),
        title: "On all members\u{2019} data".into(),
        description: "Held-out perplexity on the data of all members together, over rounds, with \
                      what it is compared with."
            .into(),
        lines: federated(document, |scores| scores.pooled),
        faint: Vec::new(),
        bands: Vec::new(),
        references: references(document, |scores| scores.pooled),
        ..own.clone()
    };
    [own, pooled]
}

/// Rounds and scores, beginning with the base. Where the last round was not scored, it has the
/// scores of the run's result.
pub(super) fn course(document: &Document) -> Vec<(f64, &Scores)> {
    let last = document.rounds.last().map_or(0, |round| round.round);
    let mut course = vec![(0.0, &document.eval.base)];
    let between = document
        .curves
        .iter()
        .filter(|curve| curve.round <= last && curve.round > 0);
    course.extend(between.map(|curve| (f64::from(curve.round), &curve.held_out)));
    if course
        .last()
        .is_none_or(|(round, _)| *round < f64::from(last))
    {
        course.push((f64::from(last), &document.eval.federated));
    }
    course
}

fn federated(document: &Document, of: fn(&Scores) -> f64) -> Vec<Line> {
    let course = course(document).into_iter();
    vec![Line {
        name: "federated".into(),
        tone: Tone::Federated,
        points: course.map(|(round, scores)| (round, of(scores))).collect(),
    }]
}

fn references(document: &Document, of: fn(&Scores) -> f64) -> Vec<Reference> {
    let eval = &document.eval;
    let all = [
        ("alone", Tone::Alone, &eval.local_only),
        ("personalised", Tone::Personalised, &eval.personalised),
        ("centralised", Tone::Centralised, &eval.centralised),
        (
            "central + local",
            Tone::CentralisedThenLocal,
            &eval.centralised_then_local,
        ),
    ];
    let known = all.into_iter().filter_map(|(name, tone, scores)| {
        Some(Reference {
            name: name.into(),
            tone,
            value: of(scores.as_ref()?),
        })
    });
    known.collect()
}

/// A line for each of few members.
fn members(document: &Document) -> Vec<Line> {
    if document.members.len() > MAX_LINES || document.curves.is_empty() {
        return Vec::new();
    }
    let course = course(document);
    let lines = document.members.iter().map(|member| Line {
        name: member.name.clone(),
        tone: Tone::Federated,
        points: course
            .iter()
            .filter_map(|(round, scores)| Some((*round, *scores.by_member.get(&member.name)?)))
            .collect(),
    });
    lines.collect()
}

/// A band of many members.
fn bands(document: &Document) -> Vec<Band> {
    if document.members.len() <= MAX_LINES || document.curves.is_empty() {
        return Vec::new();
    }
    let bands = course(document).into_iter().filter_map(|(round, scores)| {
        let mut values: Vec<f64> = scores.by_member.values().copied().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |part: f64| values[(part * last as f64).round() as usize];
        Some(Band {
            round,
            outer: (at(0.1), at(0.9)),
            inner: (at(0.25), at(0.75)),
        })
    });
    bands.collect()
}

/// Losses of the masked sums, traffic, time, and drift, where there are such.
pub(super) fn course_of_rounds(document: &Document, id: &str) -> Vec<Plot> {
    let rounds = &document.rounds;
    let line = |name: &str, tone, value: &dyn Fn(&RoundFigures) -> Option<f64>| Line {
        name: name.into(),
        tone: Tone::Other(tone),
        points: rounds
            .iter()
            .filter_map(|round| Some((f64::from(round.round), value(round)?)))
            .collect(),
    };
    let plot = |key: &str, title: &str, description: &str, unit, lines| Plot {
        id: format!("{id}-{key}"),
        title: title.into(),
        description: description.into(),
        unit,
        span: Span::FromZero,
        lines,
        faint: Vec::new(),
        bands: Vec::new(),
        references: Vec::new(),
    };
    let losses = vec![
        line("validation", 0, &|round| round.eval_loss.map(f64::from)),
        line("training", 1, &|round| round.train_loss.map(f64::from)),
    ];
    let traffic = vec![
        line("up", 0, &|round| Some(round.bytes_up as f64)),
        line("down", 1, &|round| Some(round.bytes_down as f64)),
    ];
    let mut stages: Vec<&str> = rounds
        .iter()
        .flat_map(|round| round.seconds.keys().map(String::as_str))
        .collect();
    stages.sort_unstable();
    stages.dedup();
    let seconds = stages.iter().enumerate();
    let seconds = seconds
        .map(|(place, stage)| line(stage, place, &|round| round.seconds.get(*stage).copied()));
    let drift = vec![line("drift", 3, &|round| {
        round.drift.map(|part| 100.0 * part)
    })];
    vec![
        Plot {
            span: Span::Fitted,
            ..plot(
                "loss",
                "Losses, as the masked sums tell them",
                "Weighted mean loss in training, and on held-out data of the adapter that the \
                 round began with, by round.",
                Unit::Nats,
                losses,
            )
        },
        plot(
            "drift",
            "Drift between the factors\u{2019} means and the mean of their products",
            "How far the product of the mean factors is from the mean of the members\u{2019} \
             products, relative to the latter, by round.",
            Unit::Percent,
            drift,
        ),
        plot(
            "bytes",
            "Bytes of all members a round",
            "Bytes that all members sent and received, by round.",
            Unit::Bytes,
            traffic,
        ),
        Plot {
            span: Span::Fitted,
            ..plot(
                "seconds",
                "Seconds by stage, of the slowest member",
                "How long each stage took at the member where it took longest, and how long the \
                 round took, by round.",
                Unit::Seconds,
                seconds.collect(),
            )
        },
    ]
}
