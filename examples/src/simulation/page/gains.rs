//! Who gains and who does not: a bar for each member, sorted, with the figure in words.

use std::fmt::Write;

use fedlora_shell::html::{Scale, Span, Text, width};

use super::text::percent;
use crate::simulation::report::{Choice, Document};

/// Members up to which each has a row with words; of more, each has a narrow bar.
const MAX_ROWS: usize = 24;
/// Differences below this, in percent, are none.
const NONE: f64 = 0.05;

/// What a gain is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// The adapter that the member trained alone.
    Alone,
    /// The base without an adapter, where no member trained alone.
    Base,
}

/// One member's gain.
#[derive(Debug, Clone)]
pub(super) struct Gain {
    pub(super) name: String,
    /// How far its perplexity is below that of `against`, in percent; negative where above.
    pub(super) percent: f64,
    pub(super) against: Against,
    chosen: Option<Choice>,
    poisoned: bool,
}

impl Gain {
    /// The gains of a document's members, the largest first.
    pub(super) fn of(document: &Document) -> Vec<Self> {
        let eval = &document.eval;
        let (against, before) = match &eval.local_only {
            Some(scores) => (Against::Alone, scores),
            None => (Against::Base, &eval.base),
        };
        let measured = document.members.iter().filter_map(|member| {
            let score = |scores: &crate::simulation::report::Scores| {
                scores.by_member.get(&member.name).copied()
            };
            let computed = || {
                let (before, after) = (score(before)?, score(&eval.federated)?);
                Some(100.0 * (before - after) / before)
            };
            let percent = member.gain_percent.or_else(computed)?;
            Some(Self {
                name: member.name.clone(),
                percent,
                against: member.gain_percent.map_or(against, |_| Against::Alone),
                chosen: member.chosen,
                poisoned: document
                    .poisoned
                    .iter()
                    .any(|one| one.member == member.name),
            })
        });
        let mut gains: Vec<_> = measured.filter(|gain| gain.percent.is_finite()).collect();
        gains.sort_by(|a, b| {
            b.percent
                .total_cmp(&a.percent)
                .then_with(|| a.name.cmp(&b.name))
        });
        gains
    }

    /// Whether the member is better off.
    pub(super) fn is_better(&self) -> bool {
        self.percent >= NONE
    }

    /// Whether the member is worse off.
    pub(super) fn is_worse(&self) -> bool {
        self.percent <= -NONE
    }

    /// The gain in words.
    pub(super) fn words(&self) -> String {
        let than = match self.against {
            Against::Alone => "alone",
            Against::Base => "the base",
        };
        let mut words = if self.is_better() {
            format!("{} better than {than}", percent(self.percent))
        } else if self.is_worse() {
            format!("{} worse than {than}", percent(-self.percent))
        } else {
            format!("as good as {than}")
        };
        words += match self.chosen {
            Some(Choice::Global) => ", uses the shared adapter",
            Some(Choice::Personal) => ", keeps its personal adapter",
            Some(Choice::Local) => ", keeps the adapter that it trained alone",
            None => "",
        };
        if self.poisoned {
            words += " (poisoned)";
        }
        words
    }

    fn class(&self) -> &'static str {
        if self.percent < 0.0 { "bad" } else { "good" }
    }
}

/// The bars and a table.
pub(super) fn render(out: &mut String, gains: &[Gain], id: &str) {
    if gains.len() <= MAX_ROWS {
        rows(out, gains);
        return;
    }
    out.push_str("<figure class=\"plot many\"><h3>Gain of each member, sorted</h3>");
    for (class, full, height) in [
        ("broad", 1086.0, 300.0),
        ("wide", 680.0, 280.0),
        ("narrow", 340.0, 250.0),
    ] {
        many(out, gains, &format!("{id}-{class}"), class, (full, height));
    }
    out.push_str(
        "<details><summary>Table</summary><div class=\"scroll\" tabindex=\"0\">\
         <table class=\"words\"><thead><tr><th scope=\"col\">member</th>\
         <th scope=\"col\">on its own data</th></tr></thead><tbody>",
    );
    for gain in gains {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
            Text(&gain.name),
            Text(&gain.words())
        );
    }
    out.push_str("</tbody></table></div></details></figure>\n");
}

/// A row for each member. Its words are the table.
fn rows(out: &mut String, gains: &[Gain]) {
    // Across 0 to 100, which the bars stretch to.
    let scale = Scale::over(
        gains.iter().map(|gain| gain.percent),
        Span::FromZero,
        (0.0, 100.0),
        4,
    );
    out.push_str("<ol class=\"gains\"><li class=\"scale\" aria-hidden=\"true\"><span></span><div class=\"ticks\">");
    for (place, tick) in scale.ticks.iter().enumerate() {
        // The outer ones stay within their column.
        let shift = match place {
            0 => "0",
            place if place + 1 == scale.ticks.len() => "-100%",
            _ => "-50%",
        };
        let sign = if *tick > 0.0 { "+" } else { "" };
        let _ = write!(
            out,
            "<span style=\"left:{:.2}%;transform:translateX({shift})\">{sign}{}&nbsp;%</span>",
            scale.at(*tick),
            Scale::tick(*tick)
        );
    }
    out.push_str("</div><span></span></li>");
    let zero = scale.at(0.0);
    for gain in gains {
        let at = scale.at(gain.percent);
        let _ = write!(
            out,
            "<li><b>{name}</b><svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
             aria-hidden=\"true\"><title>{name}: {words}</title>",
            name = Text(&gain.name),
            words = Text(&gain.words())
        );
        for tick in &scale.ticks {
            let class = if tick.abs() < 1e-9 {
                " class=\"zero\""
            } else {
                ""
            };
            let place = scale.at(*tick).clamp(0.2, 99.8);
            let _ = write!(
                out,
                "<line{class} x1=\"{place:.2}\" x2=\"{place:.2}\" y1=\"-20\" y2=\"30\"/>"
            );
        }
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{:.2}\" width=\"{:.2}\" y=\"1\" height=\"8\"/></svg>\
             <span class=\"words\">{}</span></li>",
            gain.class(),
            zero.min(at),
            (zero - at).abs().max(0.3),
            Text(&gain.words())
        );
    }
    out.push_str("</ol>\n");
}

/// A narrow bar for each member, with the names of the first and the last.
fn many(out: &mut String, gains: &[Gain], id: &str, class: &str, (full, height): (f64, f64)) {
    const FONT: f64 = 12.0;
    let (top, bottom) = (42.0, height - 30.0);
    let percents = || gains.iter().map(|gain| gain.percent);
    let scale = Scale::over(percents(), Span::FromZero, (bottom, top), 5);
    let ticks: Vec<_> = scale.ticks.iter().map(|tick| Scale::tick(*tick)).collect();
    let left = ticks
        .iter()
        .map(|tick| width(tick, FONT))
        .fold(16.0, f64::max)
        + 10.0;
    let step = (full - left) / gains.len() as f64;
    let better = gains.iter().filter(|gain| gain.is_better()).count();
    let _ = write!(
        out,
        "<svg class=\"{class}\" viewBox=\"0 0 {full} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">Gain of each member</title>\
         <desc id=\"{id}-d\">{better} of {} members gain; the table has each of them.</desc>\
         <text class=\"axis\" x=\"0\" y=\"12\">gain on own data, percent</text>",
        gains.len()
    );
    for (tick, text) in scale.ticks.iter().zip(&ticks) {
        let place = scale.at(*tick);
        let rule = if tick.abs() < 1e-9 { "rule" } else { "grid" };
        let _ = write!(
            out,
            "<path class=\"{rule}\" d=\"M{left:.1} {place:.1}H{full}\"/><text class=\"tick\" \
             text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
            left - 6.0,
            place + 4.0
        );
    }
    let zero = scale.at(0.0);
    for (place, gain) in gains.iter().enumerate() {
        let at = scale.at(gain.percent);
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{:.2}\" width=\"{:.2}\" y=\"{:.2}\" height=\"{:.2}\"><title>{}: \
             {}</title></rect>",
            gain.class(),
            left + place as f64 * step + step * 0.12,
            step * 0.76,
            zero.min(at),
            (zero - at).abs().max(0.6),
            Text(&gain.name),
            Text(&gain.words())
        );
    }
    if let [first, .., last] = gains {
        let label = |gain: &Gain| {
            let name: String = gain.name.chars().take(20).collect();
            format!("{name} {}", percent(gain.percent))
        };
        // Above the axis on the left, below it on the right, where bars leave room.
        let _ = write!(
            out,
            "<text class=\"name t0\" x=\"{left:.1}\" y=\"32\">{}</text><text class=\"name t1\" \
             text-anchor=\"end\" x=\"{full}\" y=\"{:.1}\">{}</text>",
            Text(&label(first)),
            height - 8.0,
            Text(&label(last))
        );
    }
    out.push_str("</svg>");
}
